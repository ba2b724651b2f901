/**
 * The history as it grows at this replica (docs/protocol.md sections 4.4 to 4.7): the last decided instance, the running one on
 * top of it, their batches, and how decisions reach the own journal and execution.
 *
 * Invariants
 *  1. Decisions are emitted in order of instance, each once; instances are journaled in that order.
 *  2. An accept record is never replaced by a record that the same batch is decided.
 *  3. `settled` only while the last decided batch is in the own journal.
 */
import { decodeBatch } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import { isRejection, type Rejection, reject } from "../../protocol/errors.ts";
import type { Certificate, MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import type { CoreContext } from "./context.ts";
import type { InputOf } from "./contract.ts";
import { LastBatch } from "./last-batch.ts";
import { Milestones } from "./milestones.ts";
import { candidateOf, viewAfter } from "./proposal.ts";
import { decidedRecord, learnedRecord } from "./records.ts";
import type { Regency } from "./regency.ts";
import type { RequestQueue } from "./request-queue.ts";
import type { Position, Start } from "./restart.ts";
import {
  BATCH_FETCH_RETRY_US,
  type Candidate,
  type LastRecord,
  nextFetch,
  RunningInstance,
} from "./running-instance.ts";

/** A batch proven decided by the log of others. */
export interface LearnedBatch {
  readonly instance: number;
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

export interface ChainPort {
  stopped(): boolean;
  /** The view is over: nothing is decided in it any more. */
  ended(): boolean;
  /** `decided` is the last decided instance now, on top of the history `below`, and a new one is running. */
  decided(decided: RunningInstance, candidate: Candidate, below: Digest): void;
  /** An accept record learned from others is on disk. */
  certified(certificate: Certificate): void;
  progress(): void;
}

export class Chain {
  readonly #context: CoreContext;
  readonly #queue: RequestQueue;
  readonly #regency: Regency;
  readonly #port: ChainPort;
  readonly #milestones: Milestones;
  /** What was journaled before the start may be decided again: its successor may have been proposed before the stop. */
  readonly #journaledAtStart: number;
  #running: RunningInstance;
  #previous: RunningInstance | null;
  readonly #lastBatch: LastBatch;
  #executionUs = 0;

  constructor(context: CoreContext, queue: RequestQueue, regency: Regency, start: Start, port: ChainPort) {
    this.#context = context;
    this.#queue = queue;
    this.#regency = regency;
    this.#port = port;
    this.#milestones = new Milestones(start.lastDecided);
    this.#journaledAtStart = start.newest?.instance ?? 0;
    this.#running = new RunningInstance({
      instance: start.lastDecided.instance + 1,
      regency: start.regency,
      sinceUs: 0,
      sinceWallMs: start.lastDecided.timestampMs,
    });
    this.#previous = this.#previousOf(start);
    this.#lastBatch = new LastBatch(context, queue);
  }

  get running(): RunningInstance {
    return this.#running;
  }

  /** The last decided instance, as long as its batch is known. */
  get previous(): RunningInstance | null {
    return this.#previous;
  }

  get lastDecided(): Position {
    return this.#milestones.lastDecided;
  }

  get durableUpTo(): number {
    return this.#milestones.durableUpTo;
  }

  get executedUpTo(): number {
    return this.#milestones.executedUpTo;
  }

  /** How long the last executed batch took: its leader, which executes it too, proposes the next one so much later. */
  get executionUs(): number {
    return this.#executionUs;
  }

  get settled(): boolean {
    return this.#milestones.settled;
  }

  get executionLag(): number {
    return this.#milestones.executionLag;
  }

  /** The last decided instance of before the start: a SYNC may be about it. */
  #previousOf({ lastRecord, lastDecided, regency }: Start): RunningInstance | null {
    if (!lastRecord) return null;
    const { instance, timestampMs } = lastDecided;
    const { digest, batchDigest, batch: bytes } = lastRecord;
    const { crypto, view } = this.#context;
    const batch = decodeBatch(crypto, bytes);
    const next = viewAfter(crypto, view, batch);
    const previous = new RunningInstance({ instance, regency, sinceUs: 0, sinceWallMs: timestampMs });
    previous.candidates.set(digest, { digest, batchDigest, bytes, batch, next });
    previous.lastRecord = { digest, certification: null, certified: true, durable: true };
    return previous;
  }

  // ---- batches

  /** The batch as the running instance, judged for its shape only; nothing is kept. */
  candidateOf(bytes: Uint8Array): Candidate | Rejection {
    return candidateOf(this.#context, this.#queue, this.#milestones.lastDecided, bytes);
  }

  /** A batch that hashes onto our history and is well formed may become the running instance. */
  hold(bytes: Uint8Array): Candidate | Rejection {
    const candidate = this.candidateOf(bytes);
    if (!isRejection(candidate)) this.#running.candidates.set(candidate.digest, candidate);
    return candidate;
  }

  /** The batch of the running or the last decided instance, if it is in memory. */
  candidate(instance: number, digest: Digest): Candidate | null {
    for (const running of [this.#running, this.#previous]) {
      if (running?.instance === instance) return running.candidates.get(digest) ?? null;
    }
    return instance === this.lastDecided.instance ? this.#lastBatch.find(digest) : null;
  }

  /** Asks one of `sources` after the other for a batch of the running or the last decided instance that is not here. */
  fetchBatch(instance: number, digest: Digest, sources: readonly ReplicaId[]): void {
    const running = this.#running;
    const regency = this.#regency.number;
    const { lastDecided } = this;
    if (instance === lastDecided.instance && digest === lastDecided.digest) {
      this.#lastBatch.ask(lastDecided, regency, sources);
    }
    if (running.instance !== instance) return;
    const { nowUs, self, view } = this.#context;
    const next = nextFetch(running.fetch, { digest, sources, self, nowUs });
    if (!next) return;
    running.fetch = next.fetch;
    this.#context.send(next.source, { type: "FETCH_BATCH", view: view.id, regency, instance, digest });
    this.#context.emit({ type: "wake", atUs: nowUs + BATCH_FETCH_RETRY_US });
  }

  /** Any batch that hashes to a digest with votes is as good as one from the leader. */
  onBatch(message: MessageOf<"BATCH">): Rejection | null {
    const { instance, fetch } = this.#running;
    if (message.instance !== instance || fetch?.digest !== message.digest) return null;
    const candidate = this.candidateOf(message.batch);
    if (isRejection(candidate)) return candidate;
    if (candidate.digest !== message.digest) return reject("ignore", "BATCH_DIGEST");
    this.#running.candidates.set(candidate.digest, candidate);
    this.#port.progress();
    return null;
  }

  /** True when this segment of the log brought the batch of the last decided instance, which a SYNC has to carry. */
  onHistory(message: MessageOf<"HISTORY">): boolean {
    return this.#lastBatch.onHistory(message, this.lastDecided);
  }

  // ---- decisions

  /** `certificate`: a verified one for this very batch, if it was learned. */
  decide(candidate: Candidate, certificate: Certificate | null = null): void {
    const decided = this.#running;
    const { digest, batch } = candidate;
    const { instance, timestampMs } = batch;
    const below = this.#milestones.lastDecided.digest;
    this.#milestones.decide({ instance, digest, timestampMs }, batch.requests);
    this.#queue.decided(batch.requests, this.#context.nowUs);
    this.#context.emit({ type: "decide", decision: { instance, digest, batch } });
    this.#previous = decided;
    this.#running = new RunningInstance({
      instance: instance + 1,
      regency: this.#regency.number,
      sinceUs: this.#context.nowUs,
      sinceWallMs: instance <= this.#journaledAtStart ? timestampMs : this.#context.wallMs,
    });
    this.#journalDecided(decided, candidate, certificate);
    this.#port.decided(decided, candidate, below);
  }

  /**
   * Batches proven decided by the log of others, in order. Each is journaled before the next is looked at: messages that
   * waited for its successor may decide that one, and records are appended in order. A certificate for one of them makes its
   * record an accept record: valid for ever, and newer than what a lost journal held.
   */
  learn(batches: readonly LearnedBatch[], certificate: Certificate | null = null): void {
    for (const { instance, digest, bytes } of batches) {
      if (this.#port.stopped() || this.#port.ended()) return;
      if (instance <= this.#milestones.lastDecided.instance) continue;
      const candidate = this.#running.candidates.get(digest) ?? this.candidateOf(bytes);
      if (isRejection(candidate) || candidate.digest !== digest) break;
      this.#running.candidates.set(digest, candidate);
      const fits = certificate?.instance === instance && certificate.digest === digest;
      this.decide(candidate, fits ? certificate : null);
    }
    this.#port.progress();
  }

  executed({ instance, tookUs, timestampMs, costs }: InputOf<"executed">): void {
    this.#executionUs = tookUs;
    const requests = this.#milestones.executed(instance);
    this.#queue.executed({ requests, costs, timestampMs }, this.#context.nowUs);
    this.#port.progress();
  }

  // ---- the own journal

  /** Makes sure the journal holds (or will hold) the decided batch; an accept record of the same batch does. */
  #journalDecided(running: RunningInstance, candidate: Candidate, certificate: Certificate | null): void {
    const { lastRecord } = running;
    if (lastRecord?.certified && lastRecord.digest === candidate.digest) {
      if (lastRecord.durable) this.#durable(running.instance);
      return;
    }
    const record: LastRecord = { digest: candidate.digest, certification: null, certified: true, durable: false };
    running.lastRecord = record;
    const place = { view: this.#context.view.id, regency: this.#regency.number };
    const journaled = certificate ? learnedRecord(candidate, certificate) : decidedRecord(place, candidate);
    this.#context.journal([journaled], () => {
      record.durable = true;
      if (certificate) this.#port.certified(certificate);
      this.journaled(running);
    });
  }

  /** The newest record of this instance may be on disk now: if it is the decided batch, we may go on. */
  journaled(running: RunningInstance): void {
    const { instance, digest } = this.#milestones.lastDecided;
    const { lastRecord } = running;
    if (running.instance > instance || !lastRecord?.durable) return;
    if (running.instance === instance && lastRecord.digest !== digest) return;
    this.#durable(running.instance);
  }

  #durable(instance: number): void {
    if (!this.#milestones.durable(instance)) return;
    this.#context.emit({ type: "durable", instance });
    this.#port.progress();
  }

  /** Decided before its certificate turned out to be bad: the record on disk must not keep it. */
  certificateFailed(running: RunningInstance, digest: Digest): void {
    const candidate = running.candidates.get(digest);
    if (this.#port.stopped() || !candidate || running.instance > this.#milestones.lastDecided.instance) return;
    this.#journalDecided(running, candidate, null);
  }
}
