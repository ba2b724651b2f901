/**
 * When the leader proposes and what (docs/protocol.md section 4.1): at once when idle; under load it waits a moment for the
 * batch to fill, so that instances are fewer and larger. Round robin over clients is the request queue's part.
 */
import { BATCH_REQUEST_HEADER_BYTES, encodeBatch } from "../../protocol/batch.ts";
import type { ConsensusOptions } from "./contract.ts";
import type { RequestQueue } from "./request-queue.ts";

/** The leader waits for this share of the last two batches' mean. */
const FILL_PERCENT = 60;

export class Batching {
  readonly #queue: RequestQueue;
  readonly #options: ConsensusOptions;
  #last: readonly [number, number] = [0, 0];
  #emptyWanted = false;

  constructor(queue: RequestQueue, options: ConsensusOptions) {
    this.#queue = queue;
    this.#options = options;
  }

  /** Some member abstains until instances have passed: the next batch may be empty. */
  wantEmpty(): void {
    this.#emptyWanted = true;
  }

  decided(requests: number): void {
    this.#last = [this.#last[1], requests];
  }

  /** When to propose: 0 for now, a time to wait for, or null when there is nothing to propose. */
  due(nowUs: number, sinceUs: number): number | null {
    const { waiting } = this.#queue;
    if (waiting === 0) return this.#emptyWanted ? 0 : null;
    const filling = Math.floor(((this.#last[0] + this.#last[1]) * FILL_PERCENT) / 200);
    const untilUs = sinceUs + this.#options.batchWaitUs;
    return waiting < filling && nowUs < untilUs ? untilUs : 0;
  }

  /** The batch of `instance`, and its requests' envelopes in the same order. */
  take(instance: number, timestampMs: number): { readonly batch: Uint8Array; readonly envelopes: Uint8Array[] } {
    this.#emptyWanted = false;
    const entries = this.#queue.take({
      requestsMax: this.#options.batchRequestsMax,
      bytesMax: this.#options.batchBytesMax,
      overheadBytes: BATCH_REQUEST_HEADER_BYTES,
    });
    const batch = encodeBatch({ instance, timestampMs, requests: entries.map((entry) => entry.request.bytes) });
    return { batch, envelopes: entries.map((entry) => entry.envelope) };
  }
}
