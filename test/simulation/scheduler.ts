/**
 * The time of a simulated world: a virtual clock in microseconds, one queue of events, one generator for all chance. All
 * that the product knows of time comes from here. The same seed, the same run.
 *
 * Product code awaits promises between events, so after every event all microtasks run dry before the next one starts:
 * a tick queued from a microtask runs only once no microtask is left. No real timer, socket or file is ever involved.
 */
import { type Random, seeded } from "./random.ts";

/** A callback in the queue; `cancel` after it ran does nothing. */
export interface Scheduled {
  cancel(): void;
}

class Event implements Scheduled {
  readonly atUs: number;
  /** Number of insertion: the order of events at the same time. */
  readonly order: number;
  run: (() => void) | null;

  constructor(atUs: number, order: number, run: () => void) {
    this.atUs = atUs;
    this.order = order;
    this.run = run;
  }

  cancel(): void {
    this.run = null;
  }
}

/** Events between two breaths of the real event loop: whoever runs us (a test runner, a parent process) wants to be heard. */
const EVENTS_PER_BREATH = 50_000;

/** Resolves when every microtask that is ready, and every one that those make ready, has run. To be called from a microtask. */
function drained(): Promise<void> {
  return new Promise((resolve) => process.nextTick(resolve));
}

function breath(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export class Scheduler {
  readonly random: Random;
  /** Events run so far. */
  events = 0;
  #nowUs: number;
  #order = 0;
  readonly #heap: Event[] = [];
  #failure: { readonly error: unknown } | null = null;

  constructor(options: { seed: number; startUs: number }) {
    this.random = seeded(options.seed);
    this.#nowUs = options.startUs;
  }

  get nowUs(): number {
    return this.#nowUs;
  }

  at(atUs: number, run: () => void): Scheduled {
    const event = new Event(Math.max(this.#nowUs, Math.ceil(atUs)), this.#order++, run);
    this.#push(event);
    return event;
  }

  after(delayUs: number, run: () => void): Scheduled {
    return this.at(this.#nowUs + delayUs, run);
  }

  /** Resolves after this much virtual time. */
  sleep(delayUs: number): Promise<void> {
    return new Promise((resolve) => this.after(delayUs, resolve));
  }

  /** A time between `min` and `max`, evenly. */
  between(min: number, max: number): number {
    return min + this.random.next() * (max - min);
  }

  /** A waiting time of this mean, without memory. */
  exponential(mean: number): number {
    return -mean * Math.log(1 - this.random.next());
  }

  /** Ends the run after the event at hand: `run` throws this. The first failure counts. */
  fail(error: unknown): void {
    this.#failure ??= { error };
  }

  /**
   * Runs events in order of time until `done` says so (asked after every event), the time is up, or nothing is left.
   * @throws whatever was given to `fail`, or thrown by an event
   */
  async run(options: { untilUs: number; done?: () => boolean }): Promise<void> {
    const { untilUs, done } = options;
    // A tick queued by the callback of a timer or of a message would run before the microtasks: leave the callback first.
    await null;
    await drained();
    for (;;) {
      if (this.#failure) throw this.#failure.error;
      if (done?.()) return;
      const next = this.#heap[0];
      if (!next || next.atUs > untilUs) break;
      this.#pop();
      const { run } = next;
      if (!run) continue;
      next.cancel();
      this.#nowUs = next.atUs;
      run();
      await drained();
      if (++this.events % EVENTS_PER_BREATH === 0) await breath();
    }
    this.#nowUs = Math.max(this.#nowUs, untilUs);
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      const above = heap[parent] as Event;
      if (!before(event, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop() as Event;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      const right = child + 1;
      if (right < heap.length && before(heap[right] as Event, heap[child] as Event)) child = right;
      const below = heap[child] as Event;
      if (!before(below, last)) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = last;
  }
}

function before(a: Event, b: Event): boolean {
  return a.atUs < b.atUs || (a.atUs === b.atUs && a.order < b.order);
}
