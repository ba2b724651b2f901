/**
 * Who waits because it was served large results (docs/protocol.md section 8, "Results"). What a result costs is known once it is
 * made: its client pays afterwards, by waiting until all would have been served as much, itself included.
 *
 * Invariants: 1. who is alone never waits, and nobody for longer than `DEBT_MS_MAX`. 2. who was served results of
 * `RESULTS_FREE_COST` in a batch at most owes nothing. 3. how long somebody waits follows from what was executed and from batch
 * times: replicas differ by when they executed it only, or a follower would blame a leader that waits for longer. 4. what is
 * kept is bounded by the clients served lately.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { ACTIVE_MS, BYTES_PER_COST, DEBT_MS_MAX, RESULTS_FREE_COST, RESULTS_PACE } from "../../protocol/limits.ts";
import type { Request } from "../../protocol/request.ts";

/** Results below this are part of what their request costs. */
const SMALL_RESULT_BYTES = 4 * 1024;

/** What was executed: requests, what their results cost, and batch time. */
export interface ExecutedBatch {
  readonly requests: readonly Request[];
  readonly costs: ResultCosts;
  readonly timestampMs: number;
}

/** What the results of one batch cost, of each client that had large ones. */
export type ResultCosts = ReadonlyMap<Digest, number>;

export const NO_COSTS: ResultCosts = new Map();

export function resultCosts(
  replies: Iterable<{ readonly request: { readonly client: Digest }; readonly result: Uint8Array | null }>,
): ResultCosts {
  let costs: Map<Digest, number> | null = null;
  for (const { request, result } of replies) {
    if (!result || result.length < SMALL_RESULT_BYTES) continue;
    costs ??= new Map();
    costs.set(request.client, (costs.get(request.client) ?? 0) + result.length / BYTES_PER_COST);
  }
  return costs ?? NO_COSTS;
}

export class Debts {
  /** When each debtor will have waited for long enough, in batch time and here. */
  readonly #debtors = new Map<Digest, { readonly paidMs: number; readonly paidUs: number }>();
  /** Clients served in this window of `ACTIVE_MS`, and in the one before. */
  #active = new Set<Digest>();
  #activeBefore = new Set<Digest>();
  #windowMs = Number.NEGATIVE_INFINITY;

  /** Does nobody owe anything? */
  get none(): boolean {
    return this.#debtors.size === 0;
  }

  /** A batch of these requests was executed, with results of these costs. */
  executed({ requests, costs, timestampMs }: ExecutedBatch, nowUs: number): void {
    this.#roll(timestampMs);
    for (const { client } of requests) this.#active.add(client);
    if (costs.size === 0) return;
    let clients = this.#active.size;
    for (const client of this.#activeBefore) if (!this.#active.has(client)) clients++;
    if (clients < 2) return;
    for (const [client, cost] of costs) {
      if (cost <= RESULTS_FREE_COST) continue;
      const fromMs = Math.max(timestampMs, this.#debtors.get(client)?.paidMs ?? 0);
      const paidMs = Math.min(timestampMs + DEBT_MS_MAX, fromMs + (cost * clients) / RESULTS_PACE);
      this.#debtors.set(client, { paidMs, paidUs: nowUs + 1_000 * (paidMs - timestampMs) });
    }
  }

  /** When this client has paid, or had; the distant past when it owes nothing. */
  paidUs(client: Digest): number {
    return this.#debtors.get(client)?.paidUs ?? Number.NEGATIVE_INFINITY;
  }

  #roll(timestampMs: number): void {
    if (timestampMs < this.#windowMs + ACTIVE_MS) return;
    this.#activeBefore = timestampMs < this.#windowMs + 2 * ACTIVE_MS ? this.#active : new Set();
    this.#active = new Set();
    this.#windowMs = timestampMs;
    for (const [client, { paidMs }] of this.#debtors) if (paidMs <= timestampMs) this.#debtors.delete(client);
  }
}
