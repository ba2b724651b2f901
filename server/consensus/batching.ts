/**
 * When the leader proposes and what (docs/protocol.md section 4.1): at once when idle; under load it waits for the batch to
 * fill, so that instances are fewer and larger. Clients that wait for answers come back in waves: most of the sessions, and of the
 * clients, in the last two batches are worth waiting for, but no longer than twice what the last instance took: latency stays in
 * proportion.
 * Round robin over clients is the request queue's part.
 */
import { BATCH_REQUEST_HEADER_BYTES, encodeBatch } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { Request } from "../../protocol/request.ts";
import type { ConsensusOptions } from "./contract.ts";
import type { RequestQueue } from "./request-queue.ts";

/** The leader waits for as many requests as this share of the sessions in the last two batches. */
const FILL_PERCENT = 80;
/** How long it waits, in durations of the last instance. */
const WAIT_INSTANCES = 2;

export class Batching {
  readonly #queue: RequestQueue;
  readonly #options: ConsensusOptions;
  /** Sessions in the last batch, and how many there were in the last two. */
  #sessions: ReadonlySet<number> = new Set();
  #returning = 0;
  /** The same of clients: one with many requests must not make others' wait in vain. */
  #clients: ReadonlySet<Digest> = new Set();
  #returningClients = 0;
  #proposedUs = 0;
  #instanceUs = 0;
  #emptyWanted = false;

  constructor(queue: RequestQueue, options: ConsensusOptions) {
    this.#queue = queue;
    this.#options = options;
  }

  /** Some member abstains until instances have passed: the next batch may be empty. */
  wantEmpty(): void {
    this.#emptyWanted = true;
  }

  /** Another regency: nobody's pace is known yet. */
  forget(): void {
    this.#proposedUs = 0;
    this.#instanceUs = 0;
  }

  /** An instance was decided at `nowUs`; what it took counts when this replica proposed it. */
  decided(requests: readonly Request[], nowUs: number): void {
    const sessions = new Set<number>();
    for (const { session } of requests) sessions.add(session);
    this.#returning = sessions.size;
    for (const session of this.#sessions) if (!sessions.has(session)) this.#returning++;
    this.#sessions = sessions;
    const clients = new Set<Digest>();
    for (const { client } of requests) clients.add(client);
    this.#returningClients = clients.size;
    for (const client of this.#clients) if (!clients.has(client)) this.#returningClients++;
    this.#clients = clients;
    this.#instanceUs = this.#proposedUs === 0 ? 0 : nowUs - this.#proposedUs;
    // Somebody else's batch has passed an instance: ours need not be empty.
    if (this.#proposedUs === 0) this.#emptyWanted = false;
    this.#proposedUs = 0;
  }

  /** When to propose: 0 for now, a time to wait for, or null when there is nothing to propose. */
  due(nowUs: number, sinceUs: number): number | null {
    const { waiting, clients } = this.#queue;
    const readyUs = this.#queue.readyUs(nowUs);
    if (readyUs === null || readyUs > nowUs) return this.#emptyWanted ? 0 : readyUs;
    const full = waiting >= share(this.#returning) && clients >= share(this.#returningClients);
    const untilUs = sinceUs + Math.min(WAIT_INSTANCES * this.#instanceUs, this.#options.batchWaitUs);
    return !full && nowUs < untilUs ? untilUs : 0;
  }

  /** The batch of `instance`, and its requests' envelopes in the same order. */
  take(
    instance: number,
    time: { readonly timestampMs: number; readonly nowUs: number },
  ): { readonly batch: Uint8Array; readonly envelopes: Uint8Array[] } {
    this.#emptyWanted = false;
    this.#proposedUs = time.nowUs;
    const entries = this.#queue.take({
      requestsMax: this.#options.batchRequestsMax,
      bytesMax: this.#options.batchBytesMax,
      overheadBytes: BATCH_REQUEST_HEADER_BYTES,
      nowUs: time.nowUs,
    });
    const batch = encodeBatch({
      instance,
      timestampMs: time.timestampMs,
      requests: entries.map((entry) => entry.request.bytes),
    });
    return { batch, envelopes: entries.map((entry) => entry.envelope) };
  }
}

function share(returning: number): number {
  return Math.ceil((returning * FILL_PERCENT) / 100);
}
