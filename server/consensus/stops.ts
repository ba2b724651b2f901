/**
 * Who wants which regency (docs/protocol.md section 5). A STOP for a higher regency counts for all below, so the newest STOP of
 * each member says everything: memory is bounded by the view, whatever is sent.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { ReplicaId } from "../../protocol/view.ts";

interface Stop {
  readonly regency: number;
  readonly named: readonly Digest[];
}

export class Stops {
  readonly #newest = new Map<ReplicaId, Stop>();

  /** False when this member asked for as much before. */
  add(sender: ReplicaId, stop: Stop): boolean {
    const known = this.#newest.get(sender);
    if (known && known.regency >= stop.regency) return false;
    this.#newest.set(sender, stop);
    return true;
  }

  namedOf(sender: ReplicaId): readonly Digest[] {
    return this.#newest.get(sender)?.named ?? [];
  }

  /** The highest regency that at least `count` members want, or 0. */
  reached(count: number): number {
    const wanted = [...this.#newest.values()].map((stop) => stop.regency).sort((a, b) => b - a);
    return wanted[count - 1] ?? 0;
  }

  /** Clients that at least `count` of the newest STOPs name, in order. */
  namedBy(count: number): Digest[] {
    const voices = new Map<Digest, number>();
    for (const { named } of this.#newest.values()) {
      for (const client of new Set(named)) voices.set(client, (voices.get(client) ?? 0) + 1);
    }
    return [...voices]
      .filter(([, number]) => number >= count)
      .map(([client]) => client)
      .sort();
  }
}
