/**
 * Normal operation of one instance after the other (docs/protocol.md section 4): PROPOSE, signed WRITEs, the synced
 * journal record with its write certificate, ACCEPT, decision.
 *
 * Invariants
 *  1. At most one WRITE and one ACCEPT leaves per (view, instance, regency), and none while abstaining after a restart.
 *  2. ACCEPT leaves, and counts for ourselves, only when its certificate has verified and its record is on disk.
 *  3. No vote and no proposal in instance i+1 before i is in the own journal with the decided digest.
 *  4. Decisions are emitted in order of instance, each once.
 *  5. Only votes of the installed regency and the running instance count.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { EMPTY } from "../../protocol/bytes.ts";
import { assert, isRejection, type Rejection, reject } from "../../protocol/errors.ts";
import { type MessageOf, writeStatement } from "../../protocol/messages.ts";
import { leaderOf, type ReplicaId } from "../../protocol/view.ts";
import { Batching } from "./batching.ts";
import type { CoreContext } from "./context.ts";
import type { JournaledInstance, WriteCertificate } from "./contract.ts";
import { FutureMessages, isOrderingMessage, type OrderingMessage } from "./future-messages.ts";
import { Milestones } from "./milestones.ts";
import { approved, candidateOf, drifted, examine, examineAgain, invalidity } from "./proposal.ts";
import { acceptMessage, acceptRecord, decidedRecord, writeChecks } from "./records.ts";
import type { RequestQueue } from "./request-queue.ts";
import type { Position, Start } from "./restart.ts";
import {
  BATCH_FETCH_RETRY_US,
  type Candidate,
  type Certification,
  nextFetch,
  type Round,
  RunningInstance,
} from "./round.ts";
import type { Vote } from "./votes.ts";

export class Ordering {
  readonly #context: CoreContext;
  readonly #queue: RequestQueue;
  readonly #future = new FutureMessages();
  readonly #batching: Batching;
  readonly #abstainUntil: number;
  readonly #abstainRegency: number;
  #regency: number;
  readonly #milestones: Milestones;
  #running: RunningInstance;
  /** What was journaled before the start may be decided again: its successor may have been proposed before the stop. */
  readonly #journaledAtStart: number;
  /** Started after anything but a clean stop: what was sent up to `#abstainUntil` is not known. */
  readonly #forgetful: boolean;
  /** The clean-stop record is erased: new votes may leave. */
  #started: boolean;
  #stopped = false;
  /** Our ACCEPT for the last decided instance: somebody may still need it. */
  #lastAccept: MessageOf<"ACCEPT"> | null = null;
  /** What a clean stop left to be sent again. */
  readonly #restored: readonly OrderingMessage[];

  constructor(context: CoreContext, queue: RequestQueue, start: Start) {
    this.#context = context;
    this.#queue = queue;
    this.#batching = new Batching(queue, context.options);
    this.#regency = start.regency;
    this.#milestones = new Milestones(start.lastDecided);
    this.#abstainUntil = start.abstainUntil;
    this.#abstainRegency = start.regency;
    this.#journaledAtStart = start.newest?.instance ?? 0;
    this.#forgetful = !start.eraseCleanStop;
    this.#started = !start.eraseCleanStop;
    this.#restored = start.resend.filter(isOrderingMessage);
    this.#running = new RunningInstance({
      instance: start.lastDecided.instance + 1,
      regency: start.regency,
      sinceUs: 0,
      sinceWallMs: start.lastDecided.timestampMs,
    });
    this.#resume(start);
  }

  get regency(): number {
    return this.#regency;
  }

  get lastDecided(): Position {
    return this.#milestones.lastDecided;
  }

  get durableUpTo(): number {
    return this.#milestones.durableUpTo;
  }

  get leader(): ReplicaId {
    return leaderOf(this.#context.view, this.#regency, this.#running.instance);
  }

  /** The last instance we will not vote in, or 0 when that is behind us. */
  get abstainingUntil(): number {
    return this.#milestones.executedUpTo >= this.#abstainUntil ? 0 : this.#abstainUntil;
  }

  get bufferedMessages(): number {
    return this.#future.size;
  }

  /** Is a proposal held because a request's origin is unproven or its time is off? */
  get holding(): boolean {
    const { proposal, ownWrite } = this.#running.round;
    return proposal !== null && ownWrite === null && !approved(this.#context, proposal, this.#running.sinceWallMs);
  }

  // ---- starting and stopping

  #resume(start: Start): void {
    if (start.eraseCleanStop) {
      this.#context.journal([{ type: "started" }], () => {
        this.#started = true;
        this.#progress();
      });
    }
    this.#resumeSent();
    const record = start.newestAccepted;
    if (record?.certificate && record.instance >= this.#milestones.lastDecided.instance)
      this.#resumeAccept(record, record.certificate);
  }

  /**
   * A PROPOSE or WRITE sent before a clean stop stands, and is sent again on every connect. Its instance may lie one above
   * the first running one: the newest accept record is decided again first.
   */
  #resumeSent(): void {
    const { round, instance } = this.#running;
    for (const message of this.#restored) {
      if (message.instance !== instance || message.regency !== round.regency) continue;
      if (message.type === "WRITE") {
        const { digest, signature } = message;
        round.ownWrite = message;
        this.#addVote("WRITE", { sender: this.#context.self, digest, signature, standing: "valid" });
      } else if (message.type === "PROPOSE") {
        const candidate = this.#hold(message.batch);
        assert(!isRejection(candidate), "a proposal of our own is malformed");
        round.proposal = { message, candidate, unproven: new Set(), verifying: false };
      }
      this.#context.broadcast(message);
    }
  }

  /** An accept record counts, and its ACCEPT is sent again, once its certificate verifies. */
  #resumeAccept(record: JournaledInstance, certificate: WriteCertificate): void {
    const running = this.#running;
    if (record.instance === running.instance) {
      const candidate = this.#hold(record.batch);
      assert(
        !isRejection(candidate) && candidate.digest === record.digest,
        "the newest journal record contradicts the history",
      );
    }
    if (record.regency !== this.#regency) return;
    const { view, self } = this.#context;
    this.#context.verify(writeChecks(this.#context, certificate, certificate.votes), (valid) => {
      if (valid.includes(false) || certificate.votes.length < view.quorum || this.#stopped) return;
      const { instance, digest } = record;
      const accept = acceptMessage(view.id, record.regency, record);
      this.#context.broadcast(accept);
      if (this.#running === running && running.instance === instance) {
        running.round.certification = { instance, digest, votes: [], verified: true, journaled: true };
        running.round.ownAccept = accept;
        this.#addVote("ACCEPT", { sender: self, digest, signature: EMPTY, standing: "valid" });
        this.#progress();
      } else if (instance === this.#milestones.lastDecided.instance) this.#lastAccept = accept;
    });
  }

  /**
   * Says which PROPOSE and WRITE left beyond the accept records; nothing is sent after this. Whoever abstains after a crash
   * cannot say so: votes from before it may stand, and the next start must abstain as well.
   */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    if (this.#forgetful && this.#abstains(this.#running.round)) {
      this.#context.emit({ type: "stopping", messages: null });
      return;
    }
    const { proposal, ownWrite } = this.#running.round;
    const messages = [];
    if (proposal && this.leader === this.#context.self) messages.push(proposal.message);
    if (ownWrite) messages.push(ownWrite);
    messages.push(...this.#restored.filter((message) => message.instance > this.#running.instance));
    this.#context.emit({ type: "stopping", messages });
  }

  // ---- messages

  /** @returns a Rejection when the sender broke a rule that a correct replica keeps. */
  receive(from: ReplicaId, message: OrderingMessage): Rejection | null {
    if (message.regency > this.#regency || message.instance > this.#running.instance) {
      this.#future.add(from, message);
      return null;
    }
    if (message.regency < this.#regency || message.instance < this.#running.instance) return null;
    switch (message.type) {
      case "PROPOSE":
        return this.#onPropose(from, message);
      case "WRITE":
        this.#addVote("WRITE", {
          sender: from,
          digest: message.digest,
          signature: message.signature,
          standing: "unverified",
        });
        break;
      case "ACCEPT":
        this.#addVote("ACCEPT", { sender: from, digest: message.digest, signature: EMPTY, standing: "valid" });
        break;
    }
    this.#progress();
    return null;
  }

  #addVote(kind: "WRITE" | "ACCEPT", vote: Vote): void {
    const { round } = this.#running;
    (kind === "WRITE" ? round.writes : round.accepts).add(vote);
  }

  #onPropose(from: ReplicaId, message: MessageOf<"PROPOSE">): Rejection | null {
    const { round } = this.#running;
    if (from !== this.leader) return reject("ignore", "PROPOSE_NOT_LEADER");
    if (round.proposal) return null;
    const candidate = this.#hold(message.batch);
    const invalid = isRejection(candidate)
      ? candidate
      : invalidity(this.#context, this.#milestones.lastDecided, message, candidate);
    if (isRejection(candidate) || invalid) {
      this.#context.emit({ type: "suspect", leader: from, reason: invalid?.code ?? "PROPOSE_INVALID" });
      return reject("ignore", invalid?.code ?? "PROPOSE_INVALID");
    }
    round.proposal = examine(this.#context, this.#queue, message, candidate, () => this.#progress());
    if (this.holding && !round.proposal.verifying) {
      this.#context.emit({
        type: "suspect",
        leader: from,
        reason: drifted(this.#context, round.proposal, this.#running.sinceWallMs) ? "HELD_DRIFT" : "HELD_UNPROVEN",
      });
    }
    this.#progress();
    return null;
  }

  /** The origin of this request is proven by now: directly from its client, or vouched for by W replicas. */
  vouched(digest: Digest): void {
    if (this.#running.round.proposal?.unproven.delete(digest)) this.#progress();
  }

  #candidateOf(bytes: Uint8Array): Candidate | Rejection {
    return candidateOf(this.#context, this.#queue, this.#milestones.lastDecided, bytes);
  }

  /** A batch that hashes onto our history and is well formed may become the running instance. */
  #hold(bytes: Uint8Array): Candidate | Rejection {
    const candidate = this.#candidateOf(bytes);
    if (!isRejection(candidate)) this.#running.candidates.set(candidate.digest, candidate);
    return candidate;
  }

  // ---- progress of the running instance

  /** Takes every step that has become possible; called after anything changed. */
  #progress(): void {
    if (this.#stopped) return;
    let before: RunningInstance;
    do {
      before = this.#running;
      this.#tryWrite();
      this.#tryCertify();
      this.#tryAccept();
      this.#tryDecide();
    } while (this.#running !== before);
  }

  /** May we vote or propose in the running instance at all? Invariant 3, and the clean-stop record must be erased. */
  get #mayVote(): boolean {
    return this.#started && !this.#stopped && this.#milestones.settled;
  }

  /** Bounds what waits for execution: neither proposals nor WRITEs beyond it. */
  get executionLags(): boolean {
    return this.#milestones.executionLag > this.#context.options.executionLagMax;
  }

  #abstains(round: Round): boolean {
    return round.regency === this.#abstainRegency && this.#running.instance <= this.#abstainUntil;
  }

  #tryWrite(): void {
    const { round, instance } = this.#running;
    const { proposal } = round;
    if (!proposal || round.ownWrite || !this.#mayVote || this.#abstains(round)) return;
    const { digest } = proposal.candidate;
    const { view, self, signer, cluster } = this.#context;
    if (this.executionLags) return;
    if (!approved(this.#context, proposal, this.#running.sinceWallMs) && round.writes.count(digest) < view.weakQuorum)
      return;
    const statement = { view: view.id, regency: round.regency, instance, digest };
    const signature = signer(writeStatement(cluster, statement));
    round.ownWrite = { type: "WRITE", ...statement, signature };
    this.#context.broadcast(round.ownWrite);
    round.writes.add({ sender: self, digest, signature, standing: "valid" });
  }

  #tryCertify(): void {
    const running = this.#running;
    const { round } = running;
    if (round.certification) return;
    const digest = round.writes.reached(this.#context.view.quorum);
    if (digest === null) return;
    const candidate = running.candidates.get(digest);
    if (!candidate) {
      this.#fetchBatch(digest, round.writes.of(digest));
      return;
    }
    if (!this.#mayVote) return;
    const votes = round.writes.of(digest);
    const valid = votes.filter((vote) => vote.standing === "valid");
    const unverified = votes.filter((vote) => vote.standing === "unverified");
    const chosen = [...valid, ...unverified].slice(0, this.#context.view.quorum);
    const { instance } = running;
    const certification: Certification = { instance, digest, votes: chosen, verified: false, journaled: false };
    round.certification = certification;
    this.#verifyWrites(round, certification);
    this.#context.journal(
      [acceptRecord({ view: this.#context.view.id, regency: round.regency }, candidate, chosen)],
      () => {
        certification.journaled = true;
        if (
          this.#milestones.lastDecided.instance === running.instance &&
          this.#milestones.lastDecided.digest === digest
        )
          this.#durable(running.instance);
        this.#certified(running, round, certification);
      },
    );
  }

  #verifyWrites(round: Round, certification: Certification): void {
    const running = this.#running;
    const open = certification.votes.filter((vote) => vote.standing === "unverified");
    if (open.length === 0) {
      certification.verified = true;
      return;
    }
    const { instance, digest } = certification;
    const place = { view: this.#context.view.id, regency: round.regency, instance, digest };
    const votes = open.map((vote) => ({ replica: vote.sender, signature: vote.signature }));
    const checks = writeChecks(this.#context, place, votes);
    this.#context.verify(checks, (valid) => {
      open.forEach((vote, index) => {
        if (valid[index]) {
          vote.standing = "valid";
          return;
        }
        round.writes.invalidate(vote);
        this.#context.emit({ type: "misbehaved", replica: vote.sender, code: "WRITE_SIGNATURE" });
      });
      certification.verified = valid.every((ok) => ok);
      if (!certification.verified) {
        if (round.certification === certification) round.certification = null;
        if (running !== this.#running) this.#journalWithoutCertificate(running, certification);
      }
      this.#certified(running, round, certification);
    });
  }

  /** One of journal and verification came back; the instance may have been decided without us meanwhile. */
  #certified(running: RunningInstance, round: Round, certification: Certification): void {
    if (running !== this.#running && certification.verified && certification.journaled) {
      this.#acceptLate(running, round, certification);
    }
    this.#progress();
  }

  /** Decided before its certificate turned out to be bad: the record on disk must not keep it. */
  #journalWithoutCertificate(running: RunningInstance, { digest }: Certification): void {
    const candidate = running.candidates.get(digest);
    if (this.#stopped || !candidate || candidate.batch.instance > this.#milestones.lastDecided.instance) return;
    this.#context.journal(
      [decidedRecord({ view: this.#context.view.id, regency: this.#regency }, candidate)],
      () => {},
    );
  }

  /** Others may still lack our ACCEPT for an instance that Q others have decided. */
  #acceptLate(running: RunningInstance, round: Round, certification: Certification): void {
    if (this.#stopped || round.ownAccept || round.regency !== this.#regency) return;
    round.ownAccept = acceptMessage(this.#context.view.id, round.regency, certification);
    this.#context.broadcast(round.ownAccept);
    if (running.instance === this.#milestones.lastDecided.instance) this.#lastAccept = round.ownAccept;
  }

  #tryAccept(): void {
    const { round } = this.#running;
    const { certification } = round;
    if (!certification?.verified || !certification.journaled || round.ownAccept || !this.#started) return;
    round.ownAccept = acceptMessage(this.#context.view.id, round.regency, certification);
    this.#context.broadcast(round.ownAccept);
    this.#addVote("ACCEPT", {
      sender: this.#context.self,
      digest: certification.digest,
      signature: EMPTY,
      standing: "valid",
    });
  }

  #tryDecide(): void {
    const { round, candidates } = this.#running;
    const { view } = this.#context;
    const believed = round.accepts.reached(view.weakQuorum);
    if (believed === null) return;
    const digest = round.accepts.reached(view.quorum) ?? believed;
    const candidate = candidates.get(digest);
    if (!candidate) {
      this.#fetchBatch(digest, round.accepts.of(digest));
      return;
    }
    if (round.accepts.count(digest) < view.quorum) return;
    this.#journalDecided(candidate, round);
    this.#decide(candidate, round.ownAccept);
  }

  /** Decided, but not in our journal with this digest: write it, so that we may go on. */
  #journalDecided(candidate: Candidate, round: Round): void {
    const { instance } = this.#running;
    const { certification } = round;
    if (certification?.digest === candidate.digest) {
      return;
    }
    this.#context.journal([decidedRecord({ view: this.#context.view.id, regency: this.#regency }, candidate)], () =>
      this.#durable(instance),
    );
  }

  #durable(instance: number): void {
    if (!this.#milestones.durable(instance)) return;
    this.#context.emit({ type: "durable", instance });
    this.#progress();
  }

  #decide(candidate: Candidate, accept: MessageOf<"ACCEPT"> | null): void {
    const { digest, batch } = candidate;
    const { instance, timestampMs } = batch;
    this.#milestones.decide({ instance, digest, timestampMs }, batch.requests);
    this.#lastAccept = accept;
    this.#batching.decided(batch.requests, this.#context.nowUs);
    this.#queue.decided(batch.requests);
    this.#context.emit({ type: "decide", decision: { instance, digest, batch } });
    const { certification } = this.#running.round;
    if (certification?.digest === digest && certification.journaled && this.#milestones.durable(instance)) {
      this.#context.emit({ type: "durable", instance });
    }
    this.#running = new RunningInstance({
      instance: instance + 1,
      regency: this.#regency,
      sinceUs: this.#context.nowUs,
      sinceWallMs: instance <= this.#journaledAtStart ? timestampMs : this.#context.wallMs,
    });
    if (this.#restored.length > 0) this.#resumeSent();
    for (const { from, message } of this.#future.take(instance + 1)) {
      if (this.#running.instance === instance + 1) this.receive(from, message);
    }
  }

  /**
   * Batches proven decided by the log of others, in order. Each is journaled before the next is looked at: messages that
   * waited for its successor may decide that one, and records are appended in order.
   */
  learn(batches: readonly { readonly instance: number; readonly digest: Digest; readonly bytes: Uint8Array }[]): void {
    for (const { instance, digest, bytes } of batches) {
      if (this.#stopped) return;
      if (instance <= this.#milestones.lastDecided.instance) continue;
      const { candidates, round } = this.#running;
      const candidate = candidates.get(digest) ?? this.#candidateOf(bytes);
      if (isRejection(candidate) || candidate.digest !== digest) break;
      this.#journalDecided(candidate, round);
      this.#decide(candidate, round.ownAccept);
    }
    this.#progress();
  }

  executed(instance: number): void {
    this.#queue.executed(this.#milestones.executed(instance));
    this.#progress();
  }

  // ---- batches by digest

  #fetchBatch(digest: Digest, voters: readonly Vote[]): void {
    const running = this.#running;
    const { nowUs, self, view } = this.#context;
    const next = nextFetch(running.fetch, { digest, voters, self, nowUs });
    if (!next) return;
    running.fetch = next.fetch;
    const { regency } = running.round;
    const { instance } = running;
    this.#context.send(next.source, { type: "FETCH_BATCH", view: view.id, regency, instance, digest });
    this.#context.emit({ type: "wake", atUs: nowUs + BATCH_FETCH_RETRY_US });
  }

  /** Any batch that hashes to a digest with votes is as good as one from the leader. */
  onBatch(message: MessageOf<"BATCH">): Rejection | null {
    const { instance, fetch } = this.#running;
    if (message.instance !== instance || fetch?.digest !== message.digest) return null;
    const candidate = this.#candidateOf(message.batch);
    if (isRejection(candidate)) return candidate;
    if (candidate.digest !== message.digest) return reject("ignore", "BATCH_DIGEST");
    this.#running.candidates.set(candidate.digest, candidate);
    this.#progress();
    return null;
  }

  /** The batch of the running instance, if we hold it. */
  batchOf(instance: number, digest: Digest): Uint8Array | null {
    if (instance !== this.#running.instance) return null;
    return this.#running.candidates.get(digest)?.bytes ?? null;
  }

  // ---- the leader

  /** Proposes if we lead, nothing is proposed yet, and there is something to propose. */
  propose(): void {
    const { round, instance, sinceUs } = this.#running;
    if (round.proposal || this.leader !== this.#context.self || !this.#mayVote || this.#abstains(round)) return;
    if (this.executionLags) return;
    const { nowUs, wallMs, view } = this.#context;
    const dueUs = this.#batching.due(nowUs, sinceUs);
    if (dueUs === null) return;
    if (dueUs > 0) {
      this.#context.emit({ type: "wake", atUs: dueUs });
      return;
    }
    const timestampMs = Math.max(wallMs, this.#milestones.lastDecided.timestampMs);
    const { batch, envelopes } = this.#batching.take(instance, { timestampMs, nowUs });
    const { regency } = round;
    const message: MessageOf<"PROPOSE"> = { type: "PROPOSE", view: view.id, regency, instance, batch, envelopes };
    const candidate = this.#hold(batch);
    assert(!isRejection(candidate), "a proposal of our own is malformed");
    round.proposal = { message, candidate, unproven: new Set(), verifying: false };
    this.#context.broadcast(message);
    this.#progress();
  }

  /** While a member abstains, instances must pass for it: an empty batch is proposed when nothing else waits. */
  wantEmptyBatch(): void {
    this.#batching.wantEmpty();
  }

  // ---- repair

  /** Looks at what may change unseen: a fetch is due again, time or a client's keys may have cured a held proposal. */
  tick(): void {
    const { proposal } = this.#running.round;
    if (proposal && this.holding) examineAgain(this.#context, this.#queue, proposal);
    else if (!this.#running.fetch) return;
    this.#progress();
  }

  /** Everything of the running instance, and our ACCEPT of the last one, for a replica whose link was cut. */
  resend(to: ReplicaId): void {
    if (this.#stopped) return;
    const { proposal, ownWrite, ownAccept } = this.#running.round;
    if (this.#lastAccept) this.#context.send(to, this.#lastAccept);
    if (proposal && this.leader === this.#context.self) this.#context.send(to, proposal.message);
    if (ownWrite) this.#context.send(to, ownWrite);
    if (ownAccept) this.#context.send(to, ownAccept);
  }
}
