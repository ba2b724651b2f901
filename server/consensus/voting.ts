/**
 * From a proposal to our ACCEPT in one ballot (docs/protocol.md sections 4.2 and 4.3): WRITE, write certificate, synced
 * journal record, ACCEPT; in cft mode the journal record follows on the proposal (section 4, "Crash mode"). Ordering says which
 * instances are voted on; a regency that is gone gets no vote any more.
 *
 * Invariants
 *  1. At most one WRITE and one ACCEPT leaves per (view, instance, regency), and no WRITE while abstaining after a restart.
 *     An ACCEPT may leave then: what it says was on disk before it was said the first time.
 *  2. ACCEPT leaves, and counts for ourselves, only when its certificate has verified and its record is on disk.
 *  3. A record on disk is replaced by an accept record only when the certificate of the new one has verified, and its
 *     regency is still the installed one.
 */
import { type Digest, EMPTY } from "../../protocol/bytes.ts";
import { type Certificate, writeStatement } from "../../protocol/messages.ts";
import { leaderOf } from "../../protocol/view.ts";
import type { CoreContext } from "./context.ts";
import type { Handover } from "./handover.ts";
import { approved } from "./proposal.ts";
import { acceptMessage, acceptRecord, writeChecks } from "./records.ts";
import type { Regency } from "./regency.ts";
import type {
  Accept,
  Ballot,
  Candidate,
  Certification,
  LastRecord,
  Proposal,
  RunningInstance,
} from "./running-instance.ts";
import type { Vote } from "./votes.ts";

/** What voting asks of the ordering around it. */
export interface VotingPort {
  /** May anything be proposed or voted on now? Section 4.5, and the clean-stop record must be erased. */
  mayVote(): boolean;
  stopped(): boolean;
  /** Too many decided batches wait for execution: no WRITE yet. */
  executionLags(): boolean;
  /** Must no WRITE leave in this ballot, because one may have left before a restart? */
  abstains(running: RunningInstance): boolean;
  /** Must not even ACCEPT leave in this ballot? */
  silent(running: RunningInstance): boolean;
  /** The batch that these voters wrote is not here. */
  lacksBatch(running: RunningInstance, digest: Digest, voters: readonly Vote[]): void;
  /** An accept record is on disk and its certificate is valid. */
  accepted(certificate: Certificate): void;
  writeSent(place: { readonly instance: number; readonly regency: number }): void;
  acceptSent(running: RunningInstance, accept: Accept): void;
  /** The newest record of this instance is on disk. */
  journaled(running: RunningInstance): void;
  /** The newest record of this instance holds a certificate that is none. */
  certificateFailed(running: RunningInstance, digest: Digest): void;
  progress(): void;
}

export class Voting {
  readonly #context: CoreContext;
  readonly #regency: Regency;
  readonly #handover: Handover;
  readonly #port: VotingPort;

  constructor(context: CoreContext, regency: Regency, handover: Handover, port: VotingPort) {
    this.#context = context;
    this.#regency = regency;
    this.#handover = handover;
    this.#port = port;
  }

  /** Takes every step that has become possible in the ballot of the installed regency. */
  advance(running: RunningInstance): void {
    if (this.#context.view.mode === "cft") this.#tryAdopt(running);
    else {
      this.#tryWrite(running);
      this.#tryCertify(running);
    }
    this.#tryAccept(running, running.ballot);
  }

  /** Nothing of a regency is sent before it is journaled, and nothing of one that is gone. */
  #isOpen(ballot: Ballot): boolean {
    return ballot.regency === this.#regency.number && this.#regency.journaled;
  }

  #tryWrite(running: RunningInstance): void {
    const { ballot, instance } = running;
    const { proposal } = ballot;
    if (!proposal || ballot.ownWrite || !this.#isOpen(ballot) || !this.#port.mayVote()) return;
    if (this.#port.abstains(running) || this.#port.executionLags()) return;
    if (!this.#endorsed(proposal, ballot.writes.count(proposal.candidate.digest), running)) return;
    const { digest } = proposal.candidate;
    const { view, self, signer, cluster } = this.#context;
    const statement = { view: view.id, regency: ballot.regency, instance, digest };
    const signature = signer(writeStatement(cluster, statement));
    ballot.ownWrite = { type: "WRITE", ...statement, signature };
    this.#context.broadcast(ballot.ownWrite);
    this.#port.writeSent(statement);
    ballot.writes.add({ sender: self, digest, signature, standing: "valid" });
  }

  #followersOf({ ballot, instance }: RunningInstance, { candidate }: Proposal): number {
    const leader = leaderOf(this.#context.view, ballot.regency, instance);
    return ballot.accepts.count(candidate.digest) - (ballot.accepts.has(leader) ? 1 : 0);
  }

  /** W others vote for it, so one that is correct has checked it; or nothing in it is held here. */
  #endorsed(proposal: Proposal, votes: number, { sinceWallMs }: RunningInstance): boolean {
    const vouched = votes >= this.#context.view.weakQuorum;
    return vouched || approved(this.#context, proposal, sinceWallMs);
  }

  /**
   * In cft mode the leader proposes one batch per (instance, regency), so the proposal itself is what a certificate stands for
   * in bft. The leader's word is not enough for its clock, which may be wrong though it never lies: of a proposal that is held
   * for its time some third member has to think the same.
   */
  #tryAdopt(running: RunningInstance): void {
    const { ballot, instance } = running;
    const { proposal } = ballot;
    if (!proposal || ballot.certification || !this.#isOpen(ballot) || !this.#port.mayVote()) return;
    if (this.#port.silent(running) || this.#port.executionLags()) return;
    if (!this.#endorsed(proposal, this.#followersOf(running, proposal), running)) return;
    const { candidate } = proposal;
    const { digest } = candidate;
    const certification: Certification = { instance, digest, votes: [], verified: true, journaled: false };
    ballot.certification = certification;
    this.#journal(running, ballot, candidate, certification);
  }

  #tryCertify(running: RunningInstance): void {
    const { ballot, instance } = running;
    if (ballot.certification || !this.#isOpen(ballot)) return;
    const digest = ballot.writes.reached(this.#context.view.quorum);
    if (digest === null) return;
    const votes = ballot.writes.of(digest);
    const candidate = running.candidates.get(digest);
    if (!candidate) {
      this.#port.lacksBatch(running, digest, votes);
      return;
    }
    if (!this.#port.mayVote()) return;
    const valid = votes.filter((vote) => vote.standing === "valid");
    const unverified = votes.filter((vote) => vote.standing === "unverified");
    const chosen = [...valid, ...unverified].slice(0, this.#context.view.quorum);
    const certification: Certification = { instance, digest, votes: chosen, verified: false, journaled: false };
    ballot.certification = certification;
    // What is on disk may be all that remembers a decided value: an unverified certificate must not replace it.
    const replaced = running.lastRecord;
    this.#verifyWrites(running, ballot, certification, () => {
      if (replaced && this.#mayReplace(replaced, running, ballot, digest)) {
        this.#journal(running, ballot, candidate, certification);
      }
    });
    if (!replaced) this.#journal(running, ballot, candidate, certification);
  }

  /** Verification took its time: has a later regency, or a decision for another batch, gone to the journal meanwhile? */
  #mayReplace(replaced: LastRecord, { lastRecord }: RunningInstance, ballot: Ballot, digest: Digest): boolean {
    return this.#isOpen(ballot) && (lastRecord === replaced || lastRecord?.digest === digest);
  }

  #verifyWrites(running: RunningInstance, ballot: Ballot, certification: Certification, verified: () => void): void {
    const open = certification.votes.filter((vote) => vote.standing === "unverified");
    if (open.length === 0) {
      certification.verified = true;
      verified();
      return;
    }
    const { instance, digest } = certification;
    const place = { view: this.#context.view.id, regency: ballot.regency, instance, digest };
    const votes = open.map((vote) => ({ replica: vote.sender, signature: vote.signature }));
    this.#context.verify(writeChecks(this.#context, place, votes), (valid) => {
      open.forEach((vote, index) => {
        if (valid[index]) {
          vote.standing = "valid";
          return;
        }
        ballot.writes.invalidate(vote);
        this.#context.emit({ type: "misbehaved", replica: vote.sender, code: "WRITE_SIGNATURE" });
      });
      certification.verified = valid.every((ok) => ok);
      if (certification.verified) verified();
      else this.#failed(running, ballot, certification);
      this.#settle(running, ballot, certification);
    });
  }

  /** The votes that are left may still make a certificate. */
  #failed(running: RunningInstance, ballot: Ballot, certification: Certification): void {
    if (ballot.certification === certification) ballot.certification = null;
    if (running.lastRecord?.certification !== certification) return;
    running.lastRecord.certified = false;
    this.#port.certificateFailed(running, certification.digest);
  }

  #journal(running: RunningInstance, ballot: Ballot, candidate: Candidate, certification: Certification): void {
    if (this.#port.stopped()) return;
    const place = { view: this.#context.view.id, regency: ballot.regency };
    const lastRecord: LastRecord = { digest: candidate.digest, certification, certified: true, durable: false };
    running.lastRecord = lastRecord;
    this.#context.journal([acceptRecord(place, candidate, certification.votes)], () => {
      certification.journaled = true;
      lastRecord.durable = true;
      this.#port.journaled(running);
      this.#settle(running, ballot, certification);
    });
  }

  /** One of journal and verification came back; the instance may have been decided without us, or the regency be gone. */
  #settle(running: RunningInstance, ballot: Ballot, certification: Certification): void {
    if (certification.verified && certification.journaled) {
      const { instance, digest, votes } = certification;
      const { regency } = ballot;
      const signed = votes.map((vote) => ({ replica: vote.sender, signature: vote.signature }));
      this.#port.accepted({ view: this.#context.view.id, regency, instance, digest, votes: signed });
      this.#tryAccept(running, ballot);
    }
    this.#port.progress();
  }

  #tryAccept(running: RunningInstance, ballot: Ballot): void {
    const { certification } = ballot;
    if (!certification?.verified || !certification.journaled || ballot.ownAccept) return;
    if (!this.#isOpen(ballot) || this.#port.stopped() || this.#port.silent(running)) return;
    const { digest } = certification;
    const accept = acceptMessage(this.#context.view.id, ballot.regency, certification);
    // The batch of what we certified ourselves is held.
    const endsView = running.candidates.get(digest)?.next !== null;
    ballot.ownAccept = endsView ? this.#handover.sign(accept) : accept;
    this.#context.broadcast(ballot.ownAccept);
    if (ballot.ownAccept.type === "SIGNED_ACCEPT") this.#handover.own(ballot.ownAccept);
    else ballot.accepts.add({ sender: this.#context.self, digest, signature: EMPTY, standing: "valid" });
    this.#port.acceptSent(running, ballot.ownAccept);
  }
}
