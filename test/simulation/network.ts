/**
 * The wires of a simulated world: between any two endpoints (machines and clients, by number) a path in each direction
 * with its own delay, which may be clogged or blocked, and streams on top that behave as TCP does: in order, nothing lost but
 * at the end of the stream, what was sent into a blocked path arrives when it opens. A lossy profile goes beyond TCP: single
 * packets vanish, double and overtake each other on streams that allow it.
 */
import type { Scheduler } from "./scheduler.ts";
import type { Trace } from "./trace.ts";

/** A machine (from 0) or a client (after the machines). */
export type Endpoint = number;
export type Side = 0 | 1;

/** How paths behave for as long as nobody changes it. Delays are one-way. */
export interface Profile {
  readonly minUs: number;
  /** Mean of what comes on top of `minUs`. */
  readonly meanUs: number;
  /** Now and then a packet takes up to `tailUs` longer. */
  readonly tailChance: number;
  readonly tailUs: number;
  /** The chance that sending a packet breaks its stream. */
  readonly breakChance: number;
  /** Beyond TCP, on streams that allow it. */
  readonly lossChance: number;
  readonly duplicateChance: number;
  readonly reorderChance: number;
}

export const CALM: Profile = {
  minUs: 100,
  meanUs: 400,
  tailChance: 0,
  tailUs: 0,
  breakChance: 0,
  lossChance: 0,
  duplicateChance: 0,
  reorderChance: 0,
};

/** What a stream tells one of its ends. `closed` is the last call, and not made to the end that closed it. */
export interface StreamEnd<P> {
  receive(packet: P): void;
  closed(): void;
}

interface Parcel<P> {
  /** Null: the sender closed the stream. */
  readonly packet: P | null;
}

interface AnyStream {
  readonly ends: readonly [Endpoint, Endpoint];
  opened(): void;
  breakIfBlocked(): void;
  break(): void;
}

export class Network {
  readonly scheduler: Scheduler;
  readonly trace: Trace;
  profile: Profile = CALM;
  /** Called when a path opened. */
  onOpened: () => void = () => undefined;
  readonly #size: number;
  /** How many blocks lie on the path from a to b, at a * size + b. */
  readonly #blocks: Uint8Array;
  readonly #cloggedUntilUs: Float64Array;
  readonly #releases = new Set<() => void>();
  readonly #streams = new Set<AnyStream>();

  constructor(options: { scheduler: Scheduler; trace: Trace; endpoints: number }) {
    this.scheduler = options.scheduler;
    this.trace = options.trace;
    this.#size = options.endpoints;
    this.#blocks = new Uint8Array(this.#size * this.#size);
    this.#cloggedUntilUs = new Float64Array(this.#size * this.#size);
  }

  /** Nothing arrives at `to` from `from` at present. */
  blocked(from: Endpoint, to: Endpoint): boolean {
    return this.#blocks[from * this.#size + to] !== 0;
  }

  /** Both directions are open. */
  open(a: Endpoint, b: Endpoint): boolean {
    return !this.blocked(a, b) && !this.blocked(b, a);
  }

  /** Blocks paths until the returned function is called; streams over them break after `breakAfterUs` of it. */
  block(paths: readonly (readonly [from: Endpoint, to: Endpoint])[], breakAfterUs: number): () => void {
    const at = paths.map(([from, to]) => from * this.#size + to);
    for (const path of at) this.#blocks[path] = (this.#blocks[path] as number) + 1;
    const watch = this.scheduler.after(breakAfterUs, () => {
      for (const stream of [...this.#streams]) stream.breakIfBlocked();
    });
    const release = (): void => {
      if (!this.#releases.delete(release)) return;
      watch.cancel();
      for (const path of at) this.#blocks[path] = (this.#blocks[path] as number) - 1;
      for (const stream of [...this.#streams]) stream.opened();
      this.onOpened();
    };
    this.#releases.add(release);
    return release;
  }

  /** What is sent from `from` to `to` arrives no earlier than `untilUs`. */
  clog(from: Endpoint, to: Endpoint, untilUs: number): void {
    const path = from * this.#size + to;
    this.#cloggedUntilUs[path] = Math.max(this.#cloggedUntilUs[path] as number, untilUs);
  }

  /** Every path open, nothing clogged, calm delays; whoever may have lost packets silently gets fresh streams. */
  heal(): void {
    const lossy = this.profile.lossChance > 0;
    this.profile = CALM;
    this.#cloggedUntilUs.fill(0);
    for (const release of [...this.#releases]) release();
    if (lossy) for (const stream of [...this.#streams]) stream.break();
  }

  /** When a packet sent now from `from` arrives at `to`. */
  arrivalUs(from: Endpoint, to: Endpoint): number {
    const { scheduler, profile } = this;
    let delayUs = profile.minUs + scheduler.exponential(profile.meanUs);
    if (profile.tailChance > 0 && scheduler.random.chance(profile.tailChance))
      delayUs += scheduler.random.next() * profile.tailUs;
    return Math.max(scheduler.nowUs + delayUs, this.#cloggedUntilUs[from * this.#size + to] as number);
  }

  add(stream: AnyStream): void {
    this.#streams.add(stream);
  }

  remove(stream: AnyStream): void {
    this.#streams.delete(stream);
  }

  /** Breaks every stream between the two endpoints. */
  breakBetween(a: Endpoint, b: Endpoint): void {
    for (const stream of [...this.#streams]) {
      if (stream.ends.includes(a) && stream.ends.includes(b)) stream.break();
    }
  }
}

/** A connection between two endpoints. */
export class Stream<P> implements AnyStream {
  readonly ends: readonly [Endpoint, Endpoint];
  readonly #network: Network;
  readonly #handlers: readonly [StreamEnd<P>, StreamEnd<P>];
  /** May the profile lose, double and reorder single packets? */
  readonly #lossy: boolean;
  /** Per sending side: when the last packet arrives, and what arrived at a blocked path. */
  readonly #lastUs: [number, number] = [0, 0];
  readonly #held: [Parcel<P>[], Parcel<P>[]] = [[], []];
  readonly #ended: [boolean, boolean] = [false, false];
  #alive = true;

  constructor(
    network: Network,
    options: {
      readonly ends: readonly [Endpoint, Endpoint];
      readonly handlers: readonly [StreamEnd<P>, StreamEnd<P>];
      readonly lossy: boolean;
    },
  ) {
    this.#network = network;
    this.ends = options.ends;
    this.#handlers = options.handlers;
    this.#lossy = options.lossy;
    network.add(this);
  }

  /** It stands, and neither side has closed it. */
  get whole(): boolean {
    return this.#alive && !this.#ended[0] && !this.#ended[1];
  }

  /** Gone without a word to anybody: another stream took its place. */
  abandon(): void {
    if (this.#alive) this.#die();
  }

  send(side: Side, packet: P): void {
    if (!this.#alive || this.#ended[side]) return;
    const { profile, scheduler, trace } = this.#network;
    const { random } = scheduler;
    if (profile.breakChance > 0 && random.chance(profile.breakChance)) {
      trace.count("fault: broken stream");
      this.break();
      return;
    }
    if (this.#lossy && profile.lossChance > 0 && random.chance(profile.lossChance)) {
      trace.count("fault: lost packet");
      return;
    }
    const reordered = this.#lossy && profile.reorderChance > 0 && random.chance(profile.reorderChance);
    if (reordered) trace.count("fault: reordered packet");
    this.#post(side, { packet }, reordered);
    if (this.#lossy && profile.duplicateChance > 0 && random.chance(profile.duplicateChance)) {
      trace.count("fault: duplicated packet");
      this.#post(side, { packet }, true);
    }
  }

  /**
   * One side is gone. What it sent may still arrive (`linger`), and then the other side learns of the end; or the stream
   * breaks at once.
   */
  end(side: Side, options: { linger: boolean }): void {
    if (!this.#alive || this.#ended[side]) return;
    this.#ended[side] = true;
    if (options.linger && !this.#ended[1 - side]) this.#post(side, { packet: null }, false);
    else this.break();
  }

  /** Everything under way is lost, and both sides that are left are told after a while. */
  break(): void {
    if (!this.#alive) return;
    this.#die();
    const { scheduler } = this.#network;
    for (const side of [0, 1] as const) {
      if (!this.#ended[side]) scheduler.after(scheduler.between(50, 5_000), () => this.#handlers[side].closed());
    }
  }

  breakIfBlocked(): void {
    if (!this.#network.open(...this.ends)) this.break();
  }

  /** A path opened: what waited in front of it goes on, ahead of everything sent later. */
  opened(): void {
    for (const side of [0, 1] as const) {
      if (this.#held[side].length === 0 || this.#blockedFrom(side)) continue;
      const atUs = this.#network.arrivalUs(this.ends[side], this.ends[(1 - side) as Side]);
      this.#network.scheduler.at(atUs, () => this.#release(side));
    }
  }

  #release(side: Side): void {
    if (!this.#alive || this.#blockedFrom(side)) return;
    for (const parcel of this.#held[side].splice(0)) this.#deliver(side, parcel);
  }

  #blockedFrom(side: Side): boolean {
    return this.#network.blocked(this.ends[side], this.ends[(1 - side) as Side]);
  }

  #post(side: Side, parcel: Parcel<P>, overtaking: boolean): void {
    const { scheduler } = this.#network;
    let atUs = this.#network.arrivalUs(this.ends[side], this.ends[(1 - side) as Side]);
    if (!overtaking) {
      atUs = Math.max(atUs, this.#lastUs[side]);
      this.#lastUs[side] = atUs;
    }
    scheduler.at(atUs, () => this.#arrive(side, parcel));
  }

  #arrive(side: Side, parcel: Parcel<P>): void {
    if (!this.#alive) return;
    if (this.#held[side].length > 0 || this.#blockedFrom(side)) {
      this.#held[side].push(parcel);
      return;
    }
    this.#deliver(side, parcel);
  }

  #deliver(side: Side, parcel: Parcel<P>): void {
    if (!this.#alive) return;
    const other = (1 - side) as Side;
    if (parcel.packet !== null) {
      if (!this.#ended[other]) this.#handlers[other].receive(parcel.packet);
      return;
    }
    this.#die();
    if (!this.#ended[other]) this.#handlers[other].closed();
  }

  #die(): void {
    this.#alive = false;
    this.#network.remove(this);
  }
}
