/**
 * One instance after the other (docs/protocol.md section 4): messages, proposals, and the leader's part. How a ballot goes from
 * proposal to ACCEPT is `voting.ts`, how decisions make a history is `chain.ts`, which regency is installed is
 * `synchronization.ts`.
 *
 * Invariants
 *  1. No vote and no proposal in instance i+1 before i is in the own journal with the decided digest.
 *  2. Only votes of the installed regency count, for the running instance or the one of this regency's SYNC.
 *  3. A PROPOSE counts only from the leader of its instance, and above the instance of the SYNC of its regency. Who leads is a
 *     function of view, regency and instance; where leaders take turns the next one takes over with the decision.
 */
import type { Batch } from "../../protocol/batch.ts";
import { type Digest, EMPTY } from "../../protocol/bytes.ts";
import { assert, isRejection, type Rejection, reject } from "../../protocol/errors.ts";
import type { Certificate, MessageOf } from "../../protocol/messages.ts";
import { leaderOf, type ReplicaId } from "../../protocol/view.ts";
import type { Link } from "../../protocol/view-chain.ts";
import { Abstention } from "./abstention.ts";
import { Batching } from "./batching.ts";
import { Chain } from "./chain.ts";
import type { CoreContext } from "./context.ts";
import { FutureMessages, isOrderingMessage, type OrderingMessage } from "./future-messages.ts";
import { Handover } from "./handover.ts";
import type { LedInstance } from "./leader-record.ts";
import {
  approved,
  drifted,
  examine,
  examineAgain,
  invalidity,
  lacksSignature,
  unprovenClients,
  unquestioned,
} from "./proposal.ts";
import type { Recollection } from "./recollection.ts";
import { acceptMessage } from "./records.ts";
import type { Regency } from "./regency.ts";
import type { RequestQueue } from "./request-queue.ts";
import type { Start } from "./restart.ts";
import { type Accept, Ballot, type Candidate, type RunningInstance } from "./running-instance.ts";
import { isNewer, synchronizerOf } from "./selection.ts";
import type { Vote } from "./votes.ts";
import { Voting } from "./voting.ts";

/** What ordering tells the synchronization phase. */
export interface OrderingPort {
  /** What this replica may have forgotten. */
  readonly recollection: () => Recollection;
  /** The leader broke a rule that everybody sees alike, or its ballot cannot succeed any more. */
  leaderFailed(reason: string): void;
  /** The leader let requests wait this long before it proposed. */
  proposedAfter(delayUs: number): void;
  /** `led`: what the leader of the decided instance made of it; null when it came with a SYNC or from the log of others. */
  decided(led: LedInstance | null): void;
  /** The turn of a leader is over, and another one leads. */
  handedOver(): void;
  /** The link to the next view is complete. */
  linked(): void;
  /** The clean-stop record is erased, on disk. */
  started(): void;
}

export class Ordering {
  readonly #context: CoreContext;
  readonly #queue: RequestQueue;
  readonly #regency: Regency;
  readonly #port: OrderingPort;
  readonly #future = new FutureMessages();
  readonly #batching: Batching;
  readonly #voting: Voting;
  readonly #chain: Chain;
  readonly #abstention: Abstention;
  readonly #handover: Handover;
  /** The SYNC of this regency is about the last decided instance: its ballot goes on. */
  #revoting = false;
  #newestAccepted: Certificate | null;
  /** The clean-stop record is erased: new votes may leave. */
  #started: boolean;
  #stopped = false;
  /** Our ACCEPT for the last decided instance: somebody may still need it. */
  #lastAccept: Accept | null = null;
  /** What a clean stop left to be sent again. */
  #restored: readonly OrderingMessage[];

  constructor(context: CoreContext, queue: RequestQueue, regency: Regency, start: Start, port: OrderingPort) {
    this.#context = context;
    this.#queue = queue;
    this.#regency = regency;
    this.#port = port;
    this.#batching = new Batching(queue, context.options);
    this.#handover = new Handover(context, { progress: () => this.#progress(), linked: () => port.linked() });
    this.#chain = new Chain(context, queue, regency, start, {
      stopped: () => this.#stopped,
      ended: () => this.#handover.ended,
      decided: (decided, candidate, below) => this.#decided(decided, candidate, below),
      certified: (certificate) => this.#accepted(certificate),
      progress: () => this.#progress(),
    });
    this.#abstention = new Abstention(context.view, regency, start, port.recollection);
    this.#started = !start.eraseCleanStop;
    this.#restored = start.resend.filter(isOrderingMessage);
    this.#newestAccepted = start.newestCertificate;
    this.#voting = new Voting(context, regency, this.#handover, {
      mayVote: () => this.#mayVote,
      stopped: () => this.#stopped,
      executionLags: () => this.executionLags,
      abstains: (running) => this.#abstention.covers(running) || (this.#handover.ended && running === this.#running),
      silent: (running) => context.observes || this.#abstention.silent(running),
      lacksBatch: (running, digest, voters) => this.#fetch(running.instance, digest, voters),
      accepted: (certificate) => this.#accepted(certificate),
      writeSent: (place) => this.#port.recollection().accountFor(place),
      acceptSent: (running, accept) => {
        if (context.view.mode === "cft") this.#port.recollection().accountFor(accept);
        if (running.instance === this.#chain.lastDecided.instance) this.#lastAccept = accept;
      },
      journaled: (running) => this.#chain.journaled(running),
      certificateFailed: (running, digest) => this.#chain.certificateFailed(running, digest),
      progress: () => this.#progress(),
    });
    this.#resume(start);
  }

  /** The history below the running instance. */
  get chain(): Chain {
    return this.#chain;
  }

  get #running(): RunningInstance {
    return this.#chain.running;
  }

  get leader(): ReplicaId {
    return leaderOf(this.#context.view, this.#regency.number, this.#running.instance);
  }

  /** Whose turn it is to act: the leader's, or while the SYNC of the regency is missing its synchronizer's. */
  get acting(): ReplicaId {
    const { number, synced } = this.#regency;
    return synced === null ? synchronizerOf(this.#context.view, number) : this.leader;
  }

  /** Does this member act now, or in the next instance, which others may have reached already? */
  acts(replica: ReplicaId): boolean {
    const next = leaderOf(this.#context.view, this.#regency.number, this.#running.instance + 1);
    return replica === this.acting || replica === next;
  }

  /** Is it our turn to act, and we must not, because we may have acted before a restart and forgotten it? */
  get obstructs(): boolean {
    return this.acting === this.#context.self && this.#abstention.obstructs(this.#running);
  }

  /** Of all regencies of this view: what a STOPDATA reports. */
  get newestAccepted(): Certificate | null {
    return this.#newestAccepted;
  }

  /** The last instance we will not vote in, or 0 when that is behind us. */
  get abstainingUntil(): number {
    return this.#abstention.announced(this.#chain.executedUpTo);
  }

  /** Is this regency one in which we may have sent a PROPOSE or SYNC and forgotten it? */
  get forgetful(): boolean {
    return this.#abstention.forgetful;
  }

  /** Is the clean-stop record erased? Before that a crash would forget what is sent beyond it. */
  get started(): boolean {
    return this.#started;
  }

  get bufferedMessages(): number {
    return this.#future.size;
  }

  /** Is a proposal held because a request's origin is unproven or its time is off? */
  get holding(): boolean {
    const { proposal, answered } = this.#running.ballot;
    return proposal !== null && !answered && !approved(this.#context, proposal, this.#running.sinceWallMs);
  }

  /** Has a batch that ends the view been accepted here, or decided? */
  get ending(): boolean {
    if (this.#handover.ended) return true;
    const { ballot, candidates, lastRecord } = this.#running;
    const accepted = ballot.ownAccept?.digest ?? lastRecord?.digest;
    return accepted !== undefined && (candidates.get(accepted)?.next ?? null) !== null;
  }

  /** Somebody's link from this view, whose instance is decided here. */
  linked(link: Link): void {
    this.#handover.complete(link);
  }

  /** Clients whose requests hold the running proposal because nobody vouches for them to us. */
  get unprovenClients(): readonly Digest[] {
    const { proposal } = this.#running.ballot;
    return proposal && this.holding && !proposal.verifying ? unprovenClients(proposal) : [];
  }

  /** Since when a proposal has been waiting for its decision, or null. */
  get proposedSinceUs(): number | null {
    return this.#running.ballot.proposal?.sinceUs ?? null;
  }

  // ---- starting and stopping

  #resume(start: Start): void {
    if (start.eraseCleanStop) {
      this.#context.journal([{ type: "started" }], () => {
        this.#started = true;
        this.#progress();
        this.#port.started();
      });
    }
    this.#resumeSent();
    this.#resumeAccept(start);
  }

  /**
   * A PROPOSE or WRITE sent before a clean stop stands, and is sent again on every connect. Its instance may lie one above
   * the first running one: the newest accept record is decided again first.
   */
  #resumeSent(): void {
    const { ballot, instance } = this.#running;
    for (const message of this.#restored) {
      if (message.instance !== instance || message.regency !== ballot.regency) continue;
      if (message.type === "WRITE") {
        const { digest, signature } = message;
        ballot.ownWrite = message;
        ballot.writes.add({ sender: this.#context.self, digest, signature, standing: "valid" });
      } else if (message.type === "PROPOSE") {
        const candidate = this.#chain.hold(message.batch);
        assert(!isRejection(candidate), "a proposal of our own is malformed");
        ballot.proposal = unquestioned(this.#context, message, candidate);
      }
      this.#context.broadcast(message);
    }
  }

  /** The newest accept record counts, and its ACCEPT is sent again; its certificate was verified before the start. */
  #resumeAccept({ newest, newestAccepted, forgotten }: Start): void {
    const running = this.#running;
    if (newest?.instance === running.instance) {
      const candidate = this.#chain.hold(newest.batch);
      const fits = !isRejection(candidate) && candidate.digest === newest.digest;
      assert(fits, "the newest journal record contradicts the history");
      const certified = newestAccepted?.instance === newest.instance;
      running.lastRecord = { digest: newest.digest, certification: null, certified, durable: true };
    }
    if (!newestAccepted || newestAccepted.regency !== this.#regency.number) return;
    const { instance, digest, regency } = newestAccepted;
    if (forgotten && instance <= (forgotten.until ?? instance)) return;
    const plain = acceptMessage(this.#context.view.id, regency, newestAccepted);
    const endsView = (this.#chain.candidate(instance, digest)?.next ?? null) !== null;
    const accept = endsView ? this.#handover.sign(plain) : plain;
    if (accept.type === "SIGNED_ACCEPT") this.#handover.own(accept);
    if (instance === running.instance) {
      running.ballot.certification = { instance, digest, votes: [], verified: true, journaled: true };
      running.ballot.ownAccept = accept;
      const { self } = this.#context;
      if (!endsView) running.ballot.accepts.add({ sender: self, digest, signature: EMPTY, standing: "valid" });
    } else if (instance === this.#chain.lastDecided.instance) this.#lastAccept = accept;
    else return;
    this.#context.broadcast(accept);
  }

  /**
   * Says which PROPOSE and WRITE left beyond the accept records; nothing is sent after this. Null from whoever abstains
   * after a crash: votes from before it may stand, and the next start must abstain as well.
   */
  stop(): readonly OrderingMessage[] | null {
    this.#stopped = true;
    if (this.#abstention.hides(this.#running)) return null;
    const messages: OrderingMessage[] = [];
    for (const { ballot } of this.#voted()) {
      if (ballot.proposal?.message && this.leader === this.#context.self) messages.push(ballot.proposal.message);
      if (ballot.ownWrite) messages.push(ballot.ownWrite);
    }
    messages.push(...this.#restored.filter((message) => message.instance > this.#running.instance));
    return messages;
  }

  // ---- regencies

  /** Another regency is installed: its ballots are empty, and nothing of the old one leaves or counts any more. */
  regencyInstalled(): void {
    this.#running.ballot = new Ballot(this.#regency.number);
    this.#revoting = false;
    this.#lastAccept = null;
    this.#restored = [];
    this.#queue.proposalsDropped();
    this.#batching.forget();
  }

  /** The installed regency may be used further than before: look again at what waited for that. */
  regencyOpened(): void {
    this.#replay();
    this.#progress();
  }

  /**
   * The batch that a verified SYNC selected for `instance`, the running or the last decided one: voted on like a PROPOSE, but
   * judged by nobody again.
   */
  voteOnSelected(instance: number, candidate: Candidate): void {
    const revoting = instance === this.#chain.lastDecided.instance;
    const running = revoting ? this.#chain.previous : this.#running;
    if (running?.instance !== instance) return;
    if (revoting && running.ballot.regency !== this.#regency.number) running.ballot = new Ballot(this.#regency.number);
    this.#revoting = revoting;
    running.candidates.set(candidate.digest, candidate);
    running.ballot.proposal ??= unquestioned(this.#context, null, candidate);
  }

  /** The freely chosen batch of a SYNC: judged like a PROPOSE. Null when it is well formed. */
  voteOnFree(batch: Uint8Array, envelopes: readonly Uint8Array[]): Rejection | null {
    return this.#consider(null, batch, envelopes);
  }

  /** A batch for the running instance that the leader may choose freely, and the envelopes of its requests. */
  freeBatch(): { readonly batch: Uint8Array; readonly envelopes: Uint8Array[] } {
    const { nowUs, wallMs } = this.#context;
    const timestampMs = Math.max(wallMs, this.#chain.lastDecided.timestampMs);
    return this.#batching.take(this.#running.instance, { timestampMs, nowUs });
  }

  #accepted(certificate: Certificate): void {
    if (isNewer(certificate, this.#newestAccepted)) this.#newestAccepted = certificate;
    if (certificate.regency === this.#regency.number) this.#proven(certificate.instance);
  }

  /** A certificate or a decision of this regency: its SYNC was verified by a correct replica. */
  #proven(instance: number): void {
    if (this.#regency.synced !== null) return;
    this.#regency.proven(instance);
    this.#replay();
  }

  // ---- messages

  /** @returns a Rejection when the sender broke a rule that a correct replica keeps. */
  receive(from: ReplicaId, message: OrderingMessage): Rejection | null {
    if (this.#handover.ended && message.instance >= this.#running.instance) return null;
    if (message.type === "SIGNED_ACCEPT" && this.#handover.ended) {
      this.#handover.receive(from, message);
      return null;
    }
    const { number, journaled, synced } = this.#regency;
    if (message.regency < number || message.instance < this.#running.instance - 1) return null;
    const early =
      message.regency > number ||
      !journaled ||
      message.instance > this.#running.instance ||
      (synced === null && (message.type === "PROPOSE" || message.instance < this.#running.instance));
    if (early) {
      this.#future.add(from, message);
      return null;
    }
    const running = message.instance === this.#running.instance ? this.#running : this.#revoted;
    if (!running) return null;
    if (message.type === "SIGNED_ACCEPT") {
      this.#handover.receive(from, message);
      return null;
    }
    if (message.type === "PROPOSE") return running === this.#running ? this.#onPropose(from, message) : null;
    const { ballot } = running;
    const { digest } = message;
    const box = message.type === "WRITE" ? ballot.writes : ballot.accepts;
    if (box.conflicts({ sender: from, digest })) return reject("ignore", "VOTE_CONFLICT");
    if (message.type === "WRITE") {
      box.add({ sender: from, digest, signature: message.signature, standing: "unverified" });
      this.#checkHopeless(running);
    } else box.add({ sender: from, digest, signature: EMPTY, standing: "valid" });
    this.#progress();
    return null;
  }

  /** Votes so divided that no batch can win: the leader told us different things, or its voters did. */
  #checkHopeless({ ballot }: RunningInstance): void {
    const { view } = this.#context;
    if (ballot.writes.hopeless(view.quorum, view.n)) this.#port.leaderFailed("BALLOT_DIVIDED");
  }

  get #revoted(): RunningInstance | null {
    return this.#revoting ? this.#chain.previous : null;
  }

  /** The instances we have votes in. */
  #voted(): RunningInstance[] {
    const revoted = this.#revoted;
    return revoted ? [revoted, this.#running] : [this.#running];
  }

  #onPropose(from: ReplicaId, message: MessageOf<"PROPOSE">): Rejection | null {
    if (from !== this.leader) return reject("ignore", "PROPOSE_NOT_LEADER");
    const { synced, number } = this.#regency;
    if (number > 0 && message.instance <= (synced ?? 0)) return null;
    if (this.#running.ballot.proposal || this.#running.ballot.refused) return null;
    return this.#consider(message, message.batch, message.envelopes);
  }

  /** The first proposal of the running ballot, from its leader. */
  #consider(
    message: MessageOf<"PROPOSE"> | null,
    batch: Uint8Array,
    envelopes: readonly Uint8Array[],
  ): Rejection | null {
    const { ballot } = this.#running;
    const candidate = this.#chain.candidateOf(batch);
    const invalid = isRejection(candidate)
      ? candidate
      : invalidity(this.#context, this.#chain.lastDecided, candidate, envelopes);
    if (isRejection(candidate) || invalid) {
      ballot.refused = true;
      this.#port.leaderFailed(invalid?.code ?? "PROPOSE_INVALID");
      return reject("ignore", invalid?.code ?? "PROPOSE_INVALID");
    }
    this.#running.candidates.set(candidate.digest, candidate);
    const waitingSinceUs = this.#queue.waitingSinceUs(candidate.batch.requests);
    ballot.executionUs = this.#chain.executionUs;
    if (waitingSinceUs !== null) {
      const sinceUs = Math.max(waitingSinceUs, this.#running.sinceUs) + ballot.executionUs;
      this.#port.proposedAfter(Math.max(0, this.#context.nowUs - sinceUs));
    }
    ballot.proposal = examine(this.#context, this.#queue, message, { candidate, envelopes }, () => this.#progress());
    if (this.holding && !ballot.proposal.verifying) {
      const off = drifted(this.#context, ballot.proposal, this.#running.sinceWallMs);
      this.#context.emit({ type: "suspect", leader: this.acting, reason: off ? "HELD_DRIFT" : "HELD_UNPROVEN" });
    }
    if (this.#context.view.faultModel === "malicious" && lacksSignature(ballot.proposal)) {
      this.#context.emit({ type: "misbehaved", replica: this.acting, code: "PROPOSE_UNSIGNED" });
      this.#port.leaderFailed("PROPOSE_UNSIGNED");
    }
    this.#progress();
    return null;
  }

  /** The origin of this request is proven by now: directly from its client, or vouched for by W replicas. */
  vouched(digest: Digest): void {
    if (this.#running.ballot.proposal?.unproven.delete(digest)) this.#progress();
  }

  // ---- progress of the running instance

  /** Takes every step that has become possible; called after anything changed. */
  #progress(): void {
    if (this.#stopped) return;
    let before: RunningInstance;
    do {
      before = this.#running;
      for (const voted of this.#voted()) this.#voting.advance(voted);
      this.#tryDecide();
    } while (this.#running !== before);
  }

  /** May we vote or propose at all? Invariant 1, and the clean-stop record must be erased. */
  get #mayVote(): boolean {
    return this.#started && !this.#stopped && this.#chain.settled && this.#port.recollection().heard;
  }

  /** Bounds what waits for execution: neither proposals nor WRITEs beyond it. */
  get executionLags(): boolean {
    return this.#chain.executionLag > this.#context.options.executionLagMax;
  }

  #tryDecide(): void {
    const { ballot, candidates, instance } = this.#running;
    if (this.#handover.ended) return;
    const { view } = this.#context;
    const signed = this.#handover.votes(instance, ballot.regency);
    const { accepts } = ballot;
    // Where W signed for one batch, no other can have a quorum of any kind. In cft mode (W = 1) the first ACCEPT often
    // overtakes the PROPOSE, which needs no fetching then.
    const weak = view.mode === "cft" ? view.quorum : view.weakQuorum;
    const believed = signed.reached(weak) ?? accepts.reached(view.quorum) ?? accepts.reached(weak);
    if (believed === null) return;
    const candidate = candidates.get(believed);
    const votes = candidate?.next || signed.count(believed) >= view.weakQuorum ? signed : accepts;
    if (!candidate) this.#fetch(instance, believed, votes.of(believed));
    if (!candidate || votes.count(believed) < view.quorum) return;
    this.#chain.decide(candidate);
    this.#proven(instance);
  }

  #decided(decided: RunningInstance, candidate: Candidate, below: Digest): void {
    const { batch } = candidate;
    if (candidate.next) this.#handover.decided(candidate, below);
    this.#lastAccept = decided.ballot.ownAccept;
    this.#revoting = false;
    this.#batching.decided(batch.requests, this.#context.nowUs);
    if (this.#restored.length > 0) this.#resumeSent();
    this.#port.decided(this.#ledInstance(decided, batch));
    const { view } = this.#context;
    if (leaderOf(view, this.#regency.number, batch.instance) !== this.leader) this.#port.handedOver();
    this.#future.dropBelow(batch.instance);
    this.#replay();
  }

  #ledInstance({ ballot, sinceUs, instance }: RunningInstance, { requests }: Batch): LedInstance | null {
    const { proposal, regency, executionUs } = ballot;
    if (!proposal?.message || proposal.candidate.batch.instance !== instance) return null;
    const waitingUs = this.#queue.waitingSinceUs(requests, requests.length);
    return {
      leader: leaderOf(this.#context.view, regency, instance),
      startedUs: waitingUs === null ? null : Math.max(waitingUs, sinceUs) + executionUs,
      requests: requests.length,
      bytes: proposal.candidate.bytes.length,
    };
  }

  #fetch(instance: number, digest: Digest, voters: readonly Vote[]): void {
    const sources = voters.map((vote) => vote.sender);
    this.#chain.fetchBatch(instance, digest, sources);
  }

  /** Messages that came too early for what we were, again. */
  #replay(): void {
    const { instance } = this.#running;
    for (const at of [instance - 1, instance]) {
      for (const { from, message } of this.#future.take(at)) this.receive(from, message);
    }
  }

  // ---- the leader

  /** Proposes if we lead, nothing is proposed yet, and there is something to propose. */
  propose(): void {
    const { ballot, instance, sinceUs } = this.#running;
    const { number, journaled, synced } = this.#regency;
    if (this.#handover.ended || ballot.proposal || this.leader !== this.#context.self || !this.#mayVote) return;
    if (this.#abstention.covers(this.#running)) return;
    if (!journaled || synced === null || (number > 0 && instance <= synced) || this.executionLags) return;
    const { nowUs, view } = this.#context;
    const dueUs = this.#batching.due(nowUs, sinceUs);
    if (dueUs === null) return;
    if (dueUs > 0) {
      this.#context.emit({ type: "wake", atUs: dueUs });
      return;
    }
    const { batch, envelopes } = this.freeBatch();
    const place = { view: view.id, regency: number, instance };
    const message: MessageOf<"PROPOSE"> = { type: "PROPOSE", ...place, batch, envelopes };
    const candidate = this.#chain.hold(batch);
    assert(!isRejection(candidate), "a proposal of our own is malformed");
    ballot.proposal = unquestioned(this.#context, message, candidate);
    this.#context.broadcast(message);
    this.#progress();
  }

  /** Something that was forbidden may be allowed now. */
  allowed(): void {
    this.#progress();
  }

  /** While a member abstains, instances must pass for it: an empty batch is proposed when nothing else waits. */
  wantEmptyBatch(): void {
    this.#batching.wantEmpty();
  }

  // ---- repair

  /** Looks at what may change unseen: a fetch is due again, time or a client's keys may have cured a held proposal. */
  tick(): void {
    const { proposal } = this.#running.ballot;
    if (proposal && this.holding) examineAgain(this.#context, this.#queue, proposal);
    else if (!this.#running.fetch) return;
    this.#progress();
  }

  /** Everything of the running instance, and our ACCEPT of the last one, for a replica whose link was cut. */
  resend(to: ReplicaId): void {
    if (this.#stopped) return;
    if (this.#lastAccept) this.#context.send(to, this.#lastAccept);
    for (const { ballot } of this.#voted()) {
      const { proposal, ownWrite, ownAccept } = ballot;
      if (proposal?.message && this.leader === this.#context.self) this.#context.send(to, proposal.message);
      if (ownWrite) this.#context.send(to, ownWrite);
      if (ownAccept) this.#context.send(to, ownAccept);
    }
  }
}
