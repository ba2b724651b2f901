/** Faults of the wires: partitions of every shape, flapping, clogging. Each ends by itself after a while, or when the world heals. */
import type { World } from "./world.ts";

type Path = readonly [from: number, to: number];

export type PartitionKind = "split" | "one-way" | "partial" | "isolate" | "bridge";

const MILLISECOND_US = 1_000;
const SECOND_US = 1_000_000;
/** After how much of a blocked path a stream gives up: at once, when somebody notices, after the silence of a link. */
const BREAK_AFTER_US = [20 * MILLISECOND_US, SECOND_US, 10 * SECOND_US];
const FLAP_US = { min: 20 * MILLISECOND_US, max: 400 * MILLISECOND_US };

export class WireFaults {
  readonly #world: World;
  readonly #troubleUs: number;
  readonly #paths: readonly Path[];
  #healed = false;

  /** `troubleUs`: how long a fault lasts, on average. */
  constructor(world: World, troubleUs: number) {
    this.#world = world;
    this.#troubleUs = troubleUs;
    const ends = Array.from({ length: world.endpoints }, (_, end) => end);
    this.#paths = ends.flatMap((from) => ends.flatMap((to): Path[] => (from === to ? [] : [[from, to]])));
  }

  /** No further fault begins. */
  heal(): void {
    this.#healed = true;
    this.#world.network.heal();
  }

  partition(kind: PartitionKind): void {
    const cuts = this.#cuts(kind);
    const paths = this.#paths.filter(([from, to]) => cuts(from, to));
    if (paths.length === 0) return;
    const { scheduler, network, trace } = this.#world;
    trace.count(`fault: ${kind}`);
    const words = (): string => `${kind}: nothing from ${paths.map((path) => path.join(" to ")).join(", ")}`;
    trace.event("fault", -1, paths.length, 0, words);
    const release = network.block(paths, scheduler.random.pick(BREAK_AFTER_US));
    scheduler.after(scheduler.exponential(this.#troubleUs), () => {
      trace.event("fault", -1, paths.length, 1, () => `${kind} is over`);
      release();
    });
  }

  /** Nothing sent over some paths arrives before long. */
  clog(): void {
    const { scheduler, network, trace } = this.#world;
    const { random } = scheduler;
    const share = 0.05 + random.next() * 0.4;
    trace.count("fault: clog");
    for (const [from, to] of this.#paths) {
      if (random.chance(share)) network.clog(from, to, scheduler.nowUs + random.next() * 2 * this.#troubleUs);
    }
  }

  /** One pair, or everything around one machine, comes and goes. */
  flap(): void {
    const { scheduler, network, trace, machines } = this.#world;
    const { random } = scheduler;
    const victim = random.pick(machines).number;
    const other = random.chance(0.5) ? random.pick(machines).number : null;
    const between = (a: number, b: number): boolean => a === victim && (other === null || b === other);
    const paths = this.#paths.filter(([from, to]) => between(from, to) || between(to, from));
    if (paths.length === 0) return;
    const pauseUs = (): number => scheduler.between(FLAP_US.min, FLAP_US.max);
    const flap = (left: number): void => {
      if (this.#healed || left === 0) return;
      trace.count("fault: flapping");
      const release = network.block(paths, random.pick(BREAK_AFTER_US));
      scheduler.after(pauseUs(), () => {
        release();
        scheduler.after(pauseUs(), () => flap(left - 1));
      });
    };
    flap(2 + random.below(8));
  }

  #cuts(kind: PartitionKind): (from: number, to: number) => boolean {
    const { scheduler, endpoints, machines } = this.#world;
    const { random } = scheduler;
    const victim = random.pick(machines).number;
    const sides = Array.from({ length: endpoints }, () => random.chance(0.5));
    switch (kind) {
      case "split":
        return (from, to) => sides[from] !== sides[to];
      case "one-way":
        return (from, to) => sides[from] === true && sides[to] === false;
      case "partial": {
        const share = random.next() * 0.5;
        const pairs = Array.from({ length: endpoints * endpoints }, () => random.chance(share));
        return (from, to) => pairs[Math.min(from, to) * endpoints + Math.max(from, to)] === true;
      }
      case "isolate": {
        const direction = random.pick(["both", "in", "out"] as const);
        return (from, to) => (to === victim && direction !== "out") || (from === victim && direction !== "in");
      }
      case "bridge":
        return (from, to) => from !== victim && to !== victim && sides[from] !== sides[to];
    }
  }
}
