/**
 * The batch of the last decided instance where this replica never had it, because its state came with a checkpoint: a SYNC that
 * selects that instance has to carry it (docs/protocol.md section 5). It is fetched with the digest below it: together they
 * hash to h(i), or they are not what was decided.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { isRejection } from "../../protocol/errors.ts";
import type { MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import type { CoreContext } from "./context.ts";
import { candidateOf } from "./proposal.ts";
import type { RequestQueue } from "./request-queue.ts";
import type { Position } from "./restart.ts";
import { BATCH_FETCH_RETRY_US, type BatchFetch, type Candidate, nextFetch } from "./running-instance.ts";

export class LastBatch {
  readonly #context: CoreContext;
  readonly #queue: RequestQueue;
  #candidate: Candidate | null = null;
  #fetch: BatchFetch | null = null;

  constructor(context: CoreContext, queue: RequestQueue) {
    this.#context = context;
    this.#queue = queue;
  }

  /** The batch with this h(i), if it was fetched. */
  find(digest: Digest): Candidate | null {
    return this.#candidate?.digest === digest ? this.#candidate : null;
  }

  /** Asks one of `sources` after the other. */
  ask({ instance, digest }: Position, regency: number, sources: readonly ReplicaId[]): void {
    const { nowUs, self, view } = this.#context;
    const next = nextFetch(this.#fetch, { digest, sources, self, nowUs });
    if (!next) return;
    this.#fetch = next.fetch;
    this.#context.send(next.source, { type: "FETCH_HISTORY", view: view.id, regency, from: instance, to: instance });
    this.#context.emit({ type: "wake", atUs: nowUs + BATCH_FETCH_RETRY_US });
  }

  /** True when the answer brought the batch of `last`. */
  onHistory(message: MessageOf<"HISTORY">, last: Position): boolean {
    const { instance, digest } = last;
    const [bytes] = message.batches;
    if (this.#fetch?.digest !== digest || message.from !== instance || !bytes) return false;
    const below: Position = { instance: instance - 1, digest: message.previous, timestampMs: 0 };
    const candidate = candidateOf(this.#context, this.#queue, below, bytes);
    if (isRejection(candidate) || candidate.digest !== digest) return false;
    this.#candidate = candidate;
    this.#fetch = null;
    return true;
  }
}
