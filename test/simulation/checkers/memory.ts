/** Bounded memory: what a correct replica holds stays within a limit per count, whatever its peers and clients send. */
import type { ReplicaId } from "../../../protocol/view.ts";
import { Violation } from "../contract.ts";
import type { RunObserver } from "./events.ts";

export class MemoryChecker implements RunObserver {
  readonly #limits: ReadonlyMap<string, number>;
  readonly #seen = new Set<string>();
  readonly #peaks = new Map<string, number>();

  /** The most that each count may reach, by its name. */
  constructor(limits: Readonly<Record<string, number>>) {
    this.#limits = new Map(Object.entries(limits));
  }

  /** The highest value seen of each count. */
  get peaks(): ReadonlyMap<string, number> {
    return this.#peaks;
  }

  memory(event: { readonly replica: ReplicaId; readonly counts: Readonly<Record<string, number>> }): void {
    for (const [name, count] of Object.entries(event.counts)) {
      this.#seen.add(name);
      this.#peaks.set(name, Math.max(count, this.#peaks.get(name) ?? 0));
      const limit = this.#limits.get(name);
      if (limit === undefined || count <= limit) continue;
      throw new Violation("memory", `replica ${event.replica} holds ${count} of ${name}; at most ${limit} are allowed`);
    }
  }

  /** A limit on a count that no sample carried would guard nothing. */
  ended(): void {
    if (this.#seen.size === 0) return;
    const unseen = [...this.#limits.keys()].filter((name) => !this.#seen.has(name));
    if (unseen.length > 0) throw new Error(`no sample of memory counted ${unseen.join(", ")}`);
  }
}
