/**
 * Who waits because it was served large results (docs/protocol.md section 8, "Results"). What a result costs is known once it is
 * made: its client pays afterwards, by waiting until all would have been served as much, itself included.
 *
 * Invariants: 1. who is alone never waits, and nobody for longer than `DEBT_MS_MAX`. 2. who was served results of
 * `RESULTS_FREE_COST` in a batch at most owes nothing. 3. how long somebody waits follows from what was executed and from batch
 * times: replicas differ by when they executed it only, or a follower would blame a leader that waits for longer. 4. what is
 * kept is bounded by the clients in the batches of late, and those that owe.
 */
import type { Digest } from "../../protocol/bytes.ts";
import {
  BYTES_PER_COST,
  DEBT_MS_MAX,
  LATE_BATCHES,
  LATE_MS,
  PRESENT_SHARE,
  RESULTS_FREE_COST,
  RESULTS_PACE,
} from "../../protocol/limits.ts";
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

/** An answer to a request, and the instance that executed it. */
interface Answered {
  readonly request: Pick<Request, "client" | "kind">;
  readonly instance: number;
  readonly result: Uint8Array | null;
}

/** Of what this instance executed: a leader may order again what was executed before, and is answered from what is kept. */
export function resultCosts(replies: Iterable<Answered>, executed: number): ResultCosts {
  let costs: Map<Digest, number> | null = null;
  for (const { request, instance, result } of replies) {
    if (!result || result.length < SMALL_RESULT_BYTES) continue;
    if (instance !== executed || request.kind !== "ordered") continue;
    costs ??= new Map();
    costs.set(request.client, (costs.get(request.client) ?? 0) + result.length / BYTES_PER_COST);
  }
  return costs ?? NO_COSTS;
}

/** How long a debtor waits, and when it will have, in batch time and here. */
interface Debt {
  readonly waitMs: number;
  readonly paidMs: number;
  readonly paidUs: number;
}

/** For how much each client counts, and all of them together. */
interface Presence {
  readonly of: ReadonlyMap<Digest, number>;
  readonly all: number;
}

export class Debts {
  readonly #debtors = new Map<Digest, Debt>();
  /** Whom the batches of late served. */
  #late: { readonly timestampMs: number; readonly clients: ReadonlySet<Digest> }[] = [];

  /** Does nobody owe anything? */
  get none(): boolean {
    return this.#debtors.size === 0;
  }

  /** A batch of these requests was executed, with results of these costs. */
  executed({ requests, costs, timestampMs }: ExecutedBatch, nowUs: number): void {
    this.#late.push({ timestampMs, clients: new Set(requests.map(({ client }) => client)) });
    if (this.#late.length > LATE_BATCHES) this.#late.shift();
    for (const [client, { paidMs, paidUs }] of this.#debtors) {
      if (paidMs <= timestampMs && paidUs <= nowUs) this.#debtors.delete(client);
    }
    let presence: Presence | null = null;
    for (const [client, cost] of costs) {
      if (cost <= RESULTS_FREE_COST) continue;
      presence ??= this.#presence(timestampMs);
      this.#charge(client, cost, { timestampMs, nowUs, others: presence.all - (presence.of.get(client) ?? 0) });
    }
  }

  #charge(client: Digest, cost: number, at: { timestampMs: number; nowUs: number; others: number }): void {
    const { timestampMs, nowUs, others } = at;
    // Its own part too, as it begins to wait when it begins to be served, but not for whoever comes now and then.
    const shares = others + Math.min(1, others);
    const before = this.#debtors.get(client);
    // Neither what passed here nor what passed in batch time is waited for twice: one of them may stand still.
    const left = before ? Math.min(before.paidMs - timestampMs, (before.paidUs - nowUs) / 1_000) : 0;
    const waitMs = Math.min(DEBT_MS_MAX, Math.max(0, left) + (cost * shares) / RESULTS_PACE);
    // Who has nothing to wait for has been served until now all the same: what it has waiting is not late before that.
    this.#debtors.set(client, { waitMs, paidMs: timestampMs + waitMs, paidUs: nowUs + 1_000 * waitMs });
  }

  /** Who is served now and then counts for less than one. */
  #presence(timestampMs: number): Presence {
    const late = this.#late.filter((batch) => batch.timestampMs > timestampMs - LATE_MS);
    const times = new Map<Digest, number>();
    for (const { clients } of late) for (const each of clients) times.set(each, (times.get(each) ?? 0) + 1);
    const most = PRESENT_SHARE * late.length;
    let all = 0;
    const of = new Map<Digest, number>();
    for (const [client, count] of times) {
      const share = Math.min(1, count / most);
      of.set(client, share);
      all += share;
    }
    return { of, all };
  }

  /** Does it owe something, or did until the last batch? */
  owes(client: Digest): boolean {
    return (this.#debtors.get(client)?.waitMs ?? 0) > 0;
  }

  /** When this client has paid, or had; the distant past when it was served nothing large of late. */
  paidUs(client: Digest): number {
    return this.#debtors.get(client)?.paidUs ?? Number.NEGATIVE_INFINITY;
  }
}
