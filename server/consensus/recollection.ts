/**
 * What this replica may have said and does not know any more (docs/protocol.md section 4, "Lost journal"). After every start
 * it asks the others what they remember of it, and says nothing that could be said twice before enough of them answered.
 * A journal that is gone, or older than a vote of ours that somebody shows us, is *forgotten*: the others' newest certificate
 * bounds how far we may have voted.
 *
 * Why the bound holds: whoever voted in i+1 had i in its journal as decided, so Q members had accepted i. At least Q-f
 * of those are correct, and any `view.rememberers` others contain one of them, which shows a certificate for i. So with C the
 * newest certificate shown, no vote of ours was above C+1.
 *
 * In cft mode nobody lies: the word of one other is evidence, and the highest regency that anybody wants is the floor. Votes that
 * could be forgotten are a leader's PROPOSEs alone, since ACCEPTs are journaled first; but a lost journal loses those as well.
 *
 * Invariants
 *  1. No vote, proposal or SYNC before `heard`; while forgotten none up to `until` or in a regency below `floor`.
 *  2. `until` and `floor` are on disk before the first vote after them. Before `heard` the journal does not grow: a vote
 *     above its end could not be told from one that is forgotten after the next crash.
 *  3. While forgotten, no STOPDATA and no SYNC before a certificate above `until` is held: a record of ours that is lost could
 *     be what the STOPDATAs of others need to find a decided value, and a newer certificate implies it.
 */
import { EMPTY } from "../../protocol/bytes.ts";
import { certificateChecks, type SignatureCheck } from "../../protocol/certificate.ts";
import { type Certificate, type MessageOf, writeStatement } from "../../protocol/messages.ts";
import { memberOf, type ReplicaId } from "../../protocol/view.ts";
import type { CoreContext } from "./context.ts";
import type { Forgotten, Start } from "./restart.ts";
import { isNewer } from "./selection.ts";

type Offer = MessageOf<"OFFER">;
type WrittenVote = NonNullable<Offer["yourWrite"]>;

/** Whoever has not answered is asked again after this long. */
const ASK_INTERVAL_US = 500_000;
/** With enough answers the others are waited for this long: one more shows a liar's claim for what it is. */
const PATIENCE_US = 2_000_000;

/** A regency that not all others were asked about is asked for only after so long: one of them may be a liar's. */
const FLOOR_PATIENCE_US = 10_000_000;

/** What one other replica is known to remember. */
interface Testimony {
  /** Of the newest valid certificate it showed; 0 for none. */
  readonly certified: number;
  readonly wanted: number;
  /** A WRITE of ours, with our valid signature; in cft mode an ACCEPT, without one. */
  readonly write: WrittenVote | null;
}

export interface RecollectionPort {
  executedUpTo(): number;
  regency(): number;
  /** The newest certificate this replica holds. */
  newestAccepted(): Certificate | null;
  /** Votes may leave now, or more of them than before. */
  changed(): void;
  /** A regency that a correct replica asked for; ours may have been as high. */
  wanted(regency: number): void;
}

export class Recollection {
  readonly #context: CoreContext;
  readonly #port: RecollectionPort;
  readonly #consulted: number;
  /** Votes up to here, and up to this regency, are covered by what the journal holds, or are of this run. */
  #horizon: { readonly instance: number; readonly regency: number };
  readonly #testimonies = new Map<ReplicaId, Testimony>();
  readonly #verifying = new Set<ReplicaId>();
  /** The newest WRITE (in cft mode ACCEPT) of every other member, whose signature only that member needs to believe. */
  readonly #votes = new Map<ReplicaId, WrittenVote>();
  #forgotten: Forgotten | null;
  #heard: boolean;
  #journaling = false;
  #askedUs = Number.NEGATIVE_INFINITY;
  #enoughUs: number | null = null;

  constructor(context: CoreContext, start: Start, port: RecollectionPort) {
    this.#context = context;
    this.#port = port;
    this.#consulted = start.hear;
    // A WRITE may leave before anything of its instance is journaled, an ACCEPT never does.
    const ahead = this.#crashOnly || start.fresh ? 0 : 1;
    this.#horizon = { instance: start.journaledUpTo + ahead, regency: start.regency };
    this.#forgotten = start.forgotten;
    this.#heard = this.#needed === 0 && start.forgotten?.until !== null;
    if (this.#heard) context.releaseJournal();
  }

  get #crashOnly(): boolean {
    return this.#context.view.mode === "cft";
  }

  /** How many others have to answer. */
  get #needed(): number {
    return this.#forgotten?.until === null ? this.#context.view.rememberers : this.#consulted;
  }

  /** Did enough others say what they remember of us? */
  get heard(): boolean {
    return this.#heard;
  }

  get forgotten(): Forgotten | null {
    return this.#forgotten;
  }

  /** Nothing may be sent in this ballot: we may have said something else in it and forgotten it. */
  silent(instance: number, regency: number): boolean {
    if (!this.#heard) return true;
    const forgotten = this.#forgotten;
    if (!forgotten) return false;
    return instance <= (forgotten.until ?? Number.POSITIVE_INFINITY) || regency < forgotten.regency;
  }

  /** Is everything executed here that this replica may ever have executed and answered for? */
  get current(): boolean {
    const until = this.#forgotten === null ? 0 : (this.#forgotten.until ?? Number.POSITIVE_INFINITY);
    return this.#heard && this.#port.executedUpTo() >= until;
  }

  /** May this replica say what it has accepted, and what has to go on? Invariant 3. */
  get testifies(): boolean {
    if (!this.#heard) return false;
    const { until } = this.#forgotten ?? { until: 0 };
    return this.#forgotten === null || (until !== null && (this.#port.newestAccepted()?.instance ?? 0) > until);
  }

  /** The last instance we will not vote in, or, once that is behind, one more whose certificate we lack; 0 when free. */
  get abstainingUntil(): number {
    const until = this.#forgotten?.until ?? null;
    if (!this.#heard || until === null || this.testifies) return 0;
    return Math.max(until, this.#port.executedUpTo()) + 1;
  }

  // ---- what we remember of others

  sawVote(from: ReplicaId, message: MessageOf<"WRITE" | "ACCEPT">): void {
    if (message.type !== (this.#crashOnly ? "ACCEPT" : "WRITE")) return;
    const known = this.#votes.get(from);
    if (known && !isNewer(message, known)) return;
    const { regency, instance, digest } = message;
    const signature = message.type === "WRITE" ? message.signature : EMPTY;
    this.#votes.set(from, { regency, instance, digest, signature });
  }

  /** Null: we have forgotten ourselves, and our silence must not count as memory. */
  factsFor(peer: ReplicaId): Pick<Offer, "newest" | "yourWrite"> | null {
    const newest = this.#port.newestAccepted();
    const until = this.#forgotten?.until;
    // What it accepted up to there and lost, a certificate that is as new stands for.
    const known = Math.min(this.#port.executedUpTo(), newest?.instance ?? 0);
    if (until !== undefined && (until === null || known < until)) return null;
    let yourWrite = this.#votes.get(peer) ?? null;
    const vote = newest?.votes.find(({ replica }) => replica === peer);
    if (newest && vote && isNewer(newest, yourWrite)) {
      const { regency, instance, digest } = newest;
      yourWrite = { regency, instance, digest, signature: vote.signature };
    }
    return { newest, yourWrite };
  }

  // ---- what others remember of us

  /** Votes of ours up to this instance and regency leave, or are known: whoever shows one shows nothing that we forgot. */
  accountFor({ instance, regency }: { readonly instance: number; readonly regency: number }): void {
    const horizon = this.#horizon;
    this.#horizon = { instance: Math.max(horizon.instance, instance), regency: Math.max(horizon.regency, regency) };
  }

  /** The view is over, and this replica says nothing in it any more: what it may have said does not matter. */
  viewOver(): void {
    if (this.#heard) return;
    this.#heard = true;
    this.#context.releaseJournal();
    this.#port.changed();
  }

  connected(peer: ReplicaId): void {
    if (!this.#heard) this.#ask(peer);
  }

  tick(): void {
    this.#remember();
    const { nowUs, view, self } = this.#context;
    this.#askForFloor();
    if (this.#settled || nowUs - this.#askedUs < ASK_INTERVAL_US) return;
    this.#askedUs = nowUs;
    for (const { id } of view.members) if (id !== self && !this.#testimonies.has(id)) this.#ask(id);
    this.#conclude();
  }

  /** Nothing that anybody could still say matters. */
  get #settled(): boolean {
    return this.#heard && (this.#forgotten === null || this.#testimonies.size >= this.#context.view.n - 1);
  }

  /** Below the floor nothing may be said, so the others have to come up to it. */
  #askForFloor(): void {
    const forgotten = this.#forgotten;
    if (!this.#heard || !forgotten || this.#port.regency() >= forgotten.regency) return;
    const waitedUs = this.#context.nowUs - (this.#enoughUs ?? Number.NEGATIVE_INFINITY);
    if (this.#crashOnly || this.#settled || waitedUs >= FLOOR_PATIENCE_US) this.#port.wanted(forgotten.regency);
  }

  #ask(peer: ReplicaId): void {
    const { view } = this.#context;
    this.#context.send(peer, { type: "FETCH_OFFER", view: view.id, regency: this.#port.regency(), rootsFrom: 0 });
  }

  onOffer(from: ReplicaId, offer: Offer): void {
    if (this.#verifying.has(from) || (this.#settled && !this.#isEvidence(offer.yourWrite))) return;
    const { view } = this.#context;
    const certificate = offer.newest ? certificateChecks(view, offer.newest) : null;
    if (offer.newest && !certificate) this.#blame(from, "OFFER_CERTIFICATE");
    const own = offer.yourWrite && !this.#crashOnly ? this.#ownCheck(offer.yourWrite) : null;
    const certified = certificate ?? [];
    this.#verifying.add(from);
    this.#context.verify(own ? [...certified, own] : certified, (valid) => {
      this.#verifying.delete(from);
      const proven = certificate !== null && !valid.slice(0, certified.length).includes(false);
      if (certificate && !proven) this.#blame(from, "OFFER_CERTIFICATE");
      const written = this.#crashOnly || (own !== null && valid[certified.length] === true);
      if (offer.yourWrite && !written) this.#blame(from, "OFFER_WRITE");
      this.#testimonies.set(from, {
        certified: proven && offer.newest ? offer.newest.instance : 0,
        wanted: offer.wanted,
        write: written ? offer.yourWrite : null,
      });
      this.#conclude();
    });
  }

  /** Null: who is no member has never voted in this view. */
  #ownCheck(write: WrittenVote): SignatureCheck | null {
    const { view, self, cluster } = this.#context;
    const member = memberOf(view, self);
    if (!member) return null;
    const statement = writeStatement(cluster, { view: view.id, ...write });
    return { publicKey: member.signKey, statement, signature: write.signature };
  }

  #blame(replica: ReplicaId, code: string): void {
    this.#context.emit({ type: "misbehaved", replica, code });
  }

  /** A vote of ours that the journal should know of and does not: the disk is older than we were. */
  #isEvidence(write: WrittenVote | null): boolean {
    if (!write || (this.#forgotten && write.instance <= (this.#forgotten.until ?? write.instance))) return false;
    return write.instance > this.#horizon.instance || write.regency > this.#horizon.regency;
  }

  /** Has this replica, if it was correct all the time, sent such a WRITE? Who lied before shows us what nobody could have voted. */
  #isCredible(write: WrittenVote | null, testimonies: readonly Testimony[]): boolean {
    if (!write || this.#crashOnly) return write !== null;
    return write.instance <= this.#certifiedBy(testimonies) + 1 && write.regency <= this.#floorOf(testimonies);
  }

  #conclude(): void {
    const testimonies = [...this.#testimonies.values()];
    if (testimonies.length < this.#needed) return;
    const older = testimonies.some(({ write }) => this.#isEvidence(write) && this.#isCredible(write, testimonies));
    if (older && this.#forgotten?.until !== null) {
      const forgotten = { until: null, regency: this.#forgotten?.regency ?? 0 };
      this.#context.emit({ type: "forgotten", reason: "older" });
      this.#forgotten = forgotten;
      this.#heard = false;
      // On disk before anything that would make the journal look new enough.
      this.#context.holdJournal();
      this.#context.journalNow([{ type: "forgotten", ...forgotten }], () => undefined);
    }
    if (this.#journaling) return;
    if (this.#heard) {
      this.#lowerFloor(testimonies);
      return;
    }
    if (this.#forgotten?.until !== null) {
      this.#heard = true;
      this.#context.releaseJournal();
      this.#port.changed();
      return;
    }
    const { nowUs, view } = this.#context;
    this.#enoughUs ??= nowUs;
    if (testimonies.length >= view.n - 1 || nowUs - this.#enoughUs >= PATIENCE_US) this.#bound(testimonies);
  }

  /** Enough others showed their newest certificate: how far may we have voted? */
  #bound(testimonies: readonly Testimony[]): void {
    const until = this.#certifiedBy(testimonies) + 1;
    const regency = this.#floorOf(testimonies);
    this.#journaling = true;
    this.#context.journalNow([{ type: "forgotten", until, regency }], () => {
      this.#journaling = false;
      this.#forgotten = { until, regency };
      this.#heard = true;
      this.#context.releaseJournal();
      this.#port.changed();
    });
  }

  /** The newest instance that anybody showed a certificate for; what lies below the view is proven by its link. */
  #certifiedBy(testimonies: readonly Testimony[]): number {
    const own = this.#port.newestAccepted()?.instance ?? 0;
    return Math.max(this.#context.firstInstance - 1, own, ...testimonies.map((testimony) => testimony.certified));
  }

  /** Of the lowest claims so many that a correct replica is among them which knows of any regency we may have installed. */
  #floorOf(testimonies: readonly Testimony[]): number {
    const wanted = testimonies.map((testimony) => testimony.wanted).sort((a, b) => a - b);
    if (this.#crashOnly) return wanted.at(-1) ?? 0;
    return wanted[this.#needed - 1] ?? 0;
  }

  /** One more answer may show that a liar was among those that set the floor. */
  #lowerFloor(testimonies: readonly Testimony[]): void {
    const forgotten = this.#forgotten;
    const regency = this.#floorOf(testimonies);
    if (!forgotten || forgotten.until === null || regency >= forgotten.regency) return;
    const lower = { until: forgotten.until, regency };
    this.#journaling = true;
    this.#context.journal([{ type: "forgotten", ...lower }], () => {
      this.#journaling = false;
      if (this.#forgotten !== forgotten) return;
      this.#forgotten = lower;
      this.#port.changed();
    });
  }

  /** A certificate above the bound is held: nothing of what was lost can matter any more. */
  #remember(): void {
    const forgotten = this.#forgotten;
    if (!forgotten || this.#journaling || !this.testifies || this.#port.regency() < forgotten.regency) return;
    this.#journaling = true;
    this.#context.journal([{ type: "remembered" }], () => {
      this.#journaling = false;
      if (this.#forgotten !== forgotten) return;
      // Somebody may still show a vote that the bound covered.
      this.accountFor({ instance: forgotten.until ?? 0, regency: forgotten.regency });
      this.#forgotten = null;
      this.#context.emit({ type: "remembered" });
      this.#port.changed();
    });
  }
}
