/**
 * Durability of acknowledged writes (docs/protocol.md sections 3 and 4). When a client's write is acknowledged, the decided
 * log holds that very write at that very revision, and Q-f correct replicas have executed it; from then on so many hold it.
 * A replica that comes back holds, in journal or state, at least what it had executed: execution waits for the journal. One
 * that lost its disk holds nothing until it has fetched or executed it again.
 */
import { type Digest, hex, sameBytes } from "../../../protocol/bytes.ts";
import type { ReplicaId, View } from "../../../protocol/view.ts";
import { Violation } from "../contract.ts";
import type { Acknowledged, RunObserver } from "./events.ts";
import { type ExecutedCommand, mutationOf, type ReplayedRequest, type ReplayListener } from "./replay.ts";

export class DurabilityChecker implements RunObserver, ReplayListener {
  /** All views so far. */
  readonly #views: () => readonly View[];
  readonly #mutations = new Map<number, ExecutedCommand>();
  /** The newest instance that each correct replica holds. */
  readonly #held = new Map<ReplicaId, number>();
  /** The newest instance with an acknowledged write. */
  #acknowledged = 0;

  constructor(views: () => readonly View[]) {
    this.#views = views;
  }

  replayed({ commands }: ReplayedRequest): void {
    for (const command of commands) {
      const revision = mutationOf(command.result);
      if (revision !== null) this.#mutations.set(revision, command);
    }
  }

  executed(event: { readonly replica: ReplicaId; readonly instance: number }): void {
    const { replica, instance } = event;
    this.#held.set(replica, Math.max(instance, this.#held.get(replica) ?? 0));
  }

  acknowledged(event: Acknowledged): void {
    const { client, command, result } = event;
    const revision = mutationOf(result);
    if (revision === null) return;
    const who = `a write of client ${hex(client).slice(0, 8)} acknowledged at revision ${revision}`;
    const decided = this.#mutations.get(revision);
    if (!decided) throw new Violation("durability", `${who} is not in the decided log`);
    if (!matches(decided, { client, command, result })) {
      throw new Violation("durability", `${who} is another write in the decided log, of instance ${decided.instance}`);
    }
    this.#checkHolders(decided.instance, who);
    this.#acknowledged = Math.max(this.#acknowledged, decided.instance);
  }

  lost({ replica }: { readonly replica: ReplicaId }): void {
    this.#held.delete(replica);
  }

  restarted(event: {
    readonly replica: ReplicaId;
    readonly newestInstance?: number;
    readonly executedInstance?: number;
  }): void {
    const { replica, newestInstance, executedInstance } = event;
    if (newestInstance === undefined) return;
    const held = this.#held.get(replica) ?? 0;
    if (newestInstance < held) {
      throw new Violation(
        "durability",
        `replica ${replica} had executed instance ${held} and came back with ${newestInstance} as its newest`,
      );
    }
    if (executedInstance !== undefined) this.#held.set(replica, Math.max(held, executedInstance));
  }

  ended(): void {
    if (this.#acknowledged > 0) this.#checkHolders(this.#acknowledged, "the newest acknowledged write");
  }

  #checkHolders(instance: number, who: string): void {
    // A write may have been acknowledged in any view from its own on.
    const needed = Math.min(...this.#views().map(({ quorum, f }) => quorum - f));
    let holders = 0;
    for (const held of this.#held.values()) if (held >= instance) holders++;
    if (holders >= needed) return;
    throw new Violation(
      "durability",
      `${who} (instance ${instance}) is held by ${holders} correct replicas; at least ${needed} must have executed it`,
    );
  }
}

function matches(decided: ExecutedCommand, { client, command, result }: { client: Digest } & Acknowledged): boolean {
  return decided.client === client && sameBytes(decided.command, command) && sameBytes(decided.result, result);
}
