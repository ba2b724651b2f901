/**
 * Catching up by log (docs/protocol.md sections 4.7 and 6, "Small gap"): whom to ask, what to verify, when it is believed.
 * Ranges of batches come from several peers at once; history up to i is proven by one write certificate for an instance
 * above i, or by W signed STATUS for (i, h(i)), whoever sent the batches.
 *
 * Invariants: 1. nothing is learned without a verified proof, and in order. 2. one request is out per replica, and what waits
 * to be learned is bounded. 3. a replica that does not deliver is left alone for a while, and another is asked.
 */
import { historyDigest } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import { certificateChecksAt, type SignatureCheck, type ViewAt } from "../../protocol/certificate.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { type Rejection, reject } from "../../protocol/errors.ts";
import { type Certificate, type Message, type MessageOf, statusStatement } from "../../protocol/messages.ts";
import { memberOf, type ReplicaId, type View } from "../../protocol/view.ts";
import { Claims, type Status } from "./claims.ts";
import type { LogProgress } from "./log-progress.ts";
import { type ProvenBatch, provenCount, type Segment as Received, segmentOf } from "./segments.ts";

const REQUEST_TIMEOUT_US = 1_000_000;
const BACK_OFF_US = 3_000_000;
/** A gap this small is waited out first: votes on the way usually close it. */
const SMALL_GAP = 8;
const PATIENCE_US = 300_000;
/** Instances asked of one replica at a time, and how far ahead of our position. */
const RANGE = 256;
const AHEAD_MAX = 4 * RANGE;
/** Bytes of batches that wait to be learned before no more are asked for. */
const WAITING_BYTES_MAX = 16 * 1024 * 1024;

/** What catching up needs from the core around it. */
export interface CatchUpPort {
  readonly view: View;
  /** The view in force at an instance, as far as it is known. */
  readonly viewAt: ViewAt;
  readonly self: ReplicaId;
  readonly crypto: Crypto;
  /** An empty state that is further behind is not caught up by log. */
  readonly emptyLagMax: number;
  /** How long the log is out of reach before that counts: not 0 where no checkpoint was to be had. */
  readonly outOfReachUs: number;
  nowUs(): number;
  regency(): number;
  /** Our last decided instance and its history digest. */
  position(): { readonly instance: number; readonly digest: Digest };
  /** Too many decided batches wait for execution: ask for no more yet. */
  busy(): boolean;
  send(to: ReplicaId, message: Message): void;
  verify(checks: readonly SignatureCheck[], then: (valid: readonly boolean[]) => void): void;
  /** `certificate`: a verified one for one of the batches, or null. */
  learn(batches: readonly ProvenBatch[], certificate: Certificate | null): void;
  misbehaved(replica: ReplicaId, code: string): void;
  /** A checkpoint has to be fetched: why. */
  beyondReach(reason: string): void;
}

/** A verified certificate for `instance`, and the digest of its batch: proves the history below. */
export interface Anchor {
  readonly instance: number;
  readonly digest: Digest;
  readonly batchDigest: Digest;
}

interface Asked {
  readonly from: number;
  readonly to: number;
  readonly untilUs: number;
}

/** Batches of one answer, chained from what it says lies below them; `proven` of them are. */
interface Segment extends Received {
  readonly source: ReplicaId;
  readonly bytes: number;
  /** The verified certificate it came with, if that is for one of its batches. */
  certificate: Certificate | null;
  proven: number;
}

export class CatchUp {
  readonly #port: CatchUpPort;
  readonly #claims: Claims;
  readonly #avoidUntilUs = new Map<ReplicaId, number>();
  /** The instance that a member last said its log does not hold. */
  readonly #lacks = new Map<ReplicaId, number>();
  readonly #asked = new Map<ReplicaId, Asked>();
  /** Answers that wait for what lies below them, by their first instance. */
  readonly #segments = new Map<number, Segment>();
  #anchor: Anchor | null = null;
  #end: { readonly instance: number; readonly digest: Digest } | null = null;
  #verifying = 0;
  #lastAsked: ReplicaId = -1;
  /** When our position last moved, to tell a standstill from a small lag. */
  #movedUs = 0;
  #seenInstance = -1;
  #learning = false;
  #unreachableSinceUs: number | null = null;
  /** While much is missing: since when, from where, and what was learned since. */
  #course: { readonly from: number; readonly sinceUs: number; bytes: number } | null = null;
  #beyondReach = false;

  constructor(port: CatchUpPort) {
    this.#port = port;
    this.#claims = new Claims(port.view);
  }

  get active(): boolean {
    return this.#asked.size > 0 || this.#verifying > 0 || this.#segments.size > 0;
  }

  /** The highest height anybody claims; a claim is no proof. */
  get highestClaim(): number {
    return this.#claims.highest;
  }

  /** Do W members, one of them correct, claim much more than we have? */
  get behind(): boolean {
    return this.#claims.credible > this.#port.position().instance + SMALL_GAP;
  }

  get progress(): LogProgress | null {
    if (!this.#course) return null;
    const sources = new Set([...this.#asked.keys(), ...[...this.#segments.values()].map(({ source }) => source)]);
    const { instance } = this.#port.position();
    return { ...this.#course, sources: [...sources].sort((a, b) => a - b), instance, to: this.#claims.credible };
  }

  get statuses(): ReadonlyMap<ReplicaId, Status> {
    return this.#claims.statuses;
  }

  statusOf(replica: ReplicaId): Status | undefined {
    return this.#claims.statuses.get(replica);
  }

  /** The highest instance that any member says it will not vote in. */
  get abstainingUntil(): number {
    return this.#claims.abstainingUntil(this.#port.nowUs());
  }

  onStatus(from: ReplicaId, status: Status): void {
    this.#claims.onStatus(from, status, this.#port.nowUs());
    this.#follow();
    this.#ask();
  }

  /** A verified certificate proves what lies below it, whoever sends it. */
  anchor(anchor: Anchor): void {
    if (anchor.instance > (this.#anchor?.instance ?? 0)) this.#anchor = anchor;
  }

  /** The view ends with this instance, as its link proves. */
  endsAt(end: { readonly instance: number; readonly digest: Digest }): void {
    this.#end = end;
  }

  /** These members have decided everything below `instance`: ask them now, without waiting for votes on the way. */
  historyAt(instance: number, replicas: readonly ReplicaId[]): void {
    if (instance - 1 <= this.#port.position().instance) return;
    for (const replica of replicas) if (replica !== this.#port.self) this.#claims.raise(replica, instance - 1);
    this.#movedUs = Number.NEGATIVE_INFINITY;
    this.#ask();
  }

  /** There may be room for more to execute. */
  resume(): void {
    if (this.#segments.size > 0) this.#advance();
  }

  tick(): void {
    const { instance } = this.#port.position();
    const nowUs = this.#port.nowUs();
    if (instance !== this.#seenInstance) {
      this.#seenInstance = instance;
      this.#movedUs = nowUs;
    }
    for (const [replica, asked] of [...this.#asked]) {
      if (nowUs < asked.untilUs) continue;
      this.#asked.delete(replica);
      this.#avoid(replica);
    }
    this.#follow();
    this.#advance();
  }

  #follow(): void {
    if (!this.behind) this.#course = null;
    else this.#course ??= { from: this.#port.position().instance, sinceUs: this.#port.nowUs(), bytes: 0 };
  }

  #avoid(replica: ReplicaId): void {
    this.#avoidUntilUs.set(replica, this.#port.nowUs() + BACK_OFF_US);
  }

  // ---- asking

  /** Asks whoever is free for what nobody was asked yet, when there is reason to. */
  #ask(): void {
    const { instance } = this.#port.position();
    const gap = this.highestClaim - instance;
    if (gap <= 0 || this.#port.busy() || this.#isBeyondReach(instance)) return;
    const nowUs = this.#port.nowUs();
    if (gap <= SMALL_GAP && nowUs - this.#movedUs < PATIENCE_US) return;
    for (;;) {
      const from = this.#nextWanted(instance);
      if (from > instance + AHEAD_MAX || (from > instance + 1 && this.#waitingBytes > WAITING_BYTES_MAX)) return;
      const source = this.#nextSource(from, nowUs);
      if (source === null) return;
      const to = from + RANGE - 1;
      this.#lastAsked = source;
      this.#asked.set(source, { from, to, untilUs: nowUs + REQUEST_TIMEOUT_US });
      const place = { view: this.#port.view.id, regency: this.#port.regency() };
      this.#port.send(source, { type: "FETCH_HISTORY", ...place, from, to });
    }
  }

  get #waitingBytes(): number {
    let bytes = 0;
    for (const segment of this.#segments.values()) bytes += segment.bytes;
    return bytes;
  }

  /** The lowest instance above ours that is neither here nor asked for. */
  #nextWanted(instance: number): number {
    let next = instance + 1;
    const spans: { readonly from: number; readonly to: number }[] = [...this.#asked.values()];
    for (const { from, batches } of this.#segments.values()) spans.push({ from, to: from + batches.length - 1 });
    spans.sort((a, b) => a.from - b.from);
    for (const { from, to } of spans) if (from <= next) next = Math.max(next, to + 1);
    return next;
  }

  /** Round robin in view order, after the one asked last. */
  #nextSource(from: number, nowUs: number): ReplicaId | null {
    const ids = this.#port.view.members.map((member) => member.id);
    const start = ids.indexOf(this.#lastAsked) + 1;
    for (let step = 0; step < ids.length; step++) {
      const id = ids[(start + step) % ids.length] as ReplicaId;
      if (id === this.#port.self || this.#asked.has(id) || this.#claims.of(id) < from) continue;
      if ((this.#avoidUntilUs.get(id) ?? 0) <= nowUs && (this.#lacks.get(id) ?? 0) < from) return id;
    }
    return null;
  }

  /**
   * W members, one of them correct, do not hold the next batch any more and nobody else serves it; or there is nothing here
   * yet and much to fetch.
   */
  #isBeyondReach(instance: number): boolean {
    if (this.#beyondReach) return true;
    const { view, emptyLagMax } = this.#port;
    const nowUs = this.#port.nowUs();
    const next = instance + 1;
    let lacking = 0;
    for (const since of this.#lacks.values()) if (since >= next) lacking++;
    const served = this.#asked.size > 0 || this.#segments.has(next) || this.#nextSource(next, nowUs) !== null;
    const unreachable = lacking >= view.weakQuorum && !served;
    const empty = instance === 0 && this.#claims.credible > emptyLagMax;
    this.#unreachableSinceUs = unreachable ? (this.#unreachableSinceUs ?? nowUs) : null;
    const givenUp = this.#unreachableSinceUs !== null && nowUs - this.#unreachableSinceUs >= this.#port.outOfReachUs;
    if (!givenUp && !empty) return false;
    this.#beyondReach = true;
    this.#port.beyondReach(
      empty ? "this replica has no state yet" : `instance ${next} is in the log of no other replica any more`,
    );
    return true;
  }

  // ---- answers

  onHistory(from: ReplicaId, message: MessageOf<"HISTORY">): Rejection | null {
    const asked = this.#asked.get(from);
    if (asked?.from !== message.from) return null;
    this.#asked.delete(from);
    if (message.batches.length === 0) {
      this.#lacks.set(from, message.from);
      this.#ask();
      return null;
    }
    this.#lacks.delete(from);
    const { crypto, view } = this.#port;
    const { proof } = message;
    const received = segmentOf(crypto, view, message);
    const bytes = message.batches.reduce((sum, batch) => sum + batch.length, 0);
    const segment: Segment = { ...received, source: from, bytes, certificate: null, proven: 0 };
    const count = proof ? provenCount(crypto, view, received, proof) : 0;
    // For the first batch it proves nothing here that is not known, but whoever lost its journal needs a newer certificate.
    const about = proof !== null && proof.certificate.instance >= message.from;
    const checks = about ? certificateChecksAt(this.#port.viewAt, proof.certificate) : "unknown";
    if (count === "false" || checks === null) {
      this.#avoid(from);
      this.#ask();
      return reject("ignore", "HISTORY_PROOF");
    }
    if (!about || checks === "unknown") {
      this.#keep(segment);
      return null;
    }
    this.#verifying++;
    this.#port.verify(checks, (valid) => {
      this.#verifying--;
      if (valid.includes(false)) {
        this.#avoid(from);
        this.#port.misbehaved(from, "HISTORY_CERTIFICATE");
        this.#ask();
        return;
      }
      const { instance } = proof.certificate;
      if (instance < message.from + message.batches.length) segment.certificate = proof.certificate;
      segment.proven = count;
      this.#keep(segment);
    });
    return null;
  }

  #keep(segment: Segment): void {
    const known = this.#segments.get(segment.from);
    if (!known || known.proven < segment.proven) this.#segments.set(segment.from, segment);
    this.#advance();
  }

  // ---- learning

  /** Learns what continues our position and is proven, then asks for more. */
  #advance(): void {
    if (this.#learning) return;
    this.#learning = true;
    while (!this.#port.busy() && this.#learnNext());
    this.#learning = false;
    this.#ask();
  }

  /** True when our position moved. */
  #learnNext(): boolean {
    const position = this.#port.position();
    const next = position.instance + 1;
    for (const segment of [...this.#segments.values()].sort((a, b) => a.from - b.from)) {
      const end = segment.from + segment.batches.length;
      if (end <= next) this.#segments.delete(segment.from);
      else if (segment.from <= next) return this.#learnFrom(segment, position);
    }
    return false;
  }

  #learnFrom(segment: Segment, position: { readonly instance: number; readonly digest: Digest }): boolean {
    const skipped = position.instance + 1 - segment.from;
    const below = skipped === 0 ? segment.previous : segment.batches[skipped - 1]?.digest;
    const { source } = segment;
    if (below !== position.digest) {
      // Another history than ours: its sender lied about what lies below, or about the batches we have decided meanwhile.
      this.#segments.delete(segment.from);
      this.#avoid(source);
      this.#port.misbehaved(source, "HISTORY_DIVERGES");
      return false;
    }
    const proven = Math.max(segment.proven, this.#anchored(segment), this.#linked(segment));
    const batches = segment.batches.slice(skipped, proven);
    if (batches.length === 0) {
      this.#segments.delete(segment.from);
      if (!this.#proveByStatus(segment)) this.#avoid(source);
      return false;
    }
    if (this.#course) for (const { bytes } of batches) this.#course.bytes += bytes.length;
    this.#port.learn(batches, segment.certificate);
    return this.#port.position().instance > position.instance;
  }

  /** How many batches of the segment the anchor proves. */
  #anchored({ batches }: Segment): number {
    const { crypto, view } = this.#port;
    const anchor = this.#anchor;
    const index = anchor ? batches.findIndex((batch) => batch.instance === anchor.instance - 1) : -1;
    const below = batches[index];
    if (!anchor || !below) return 0;
    const { instance, batchDigest } = anchor;
    const over = historyDigest(crypto, { cluster: view.cluster, instance, previous: below.digest, batchDigest });
    return over === anchor.digest ? index + 1 : 0;
  }

  /** How many batches of the segment the end of the view proves. */
  #linked({ batches }: Segment): number {
    const end = this.#end;
    return end
      ? batches.findIndex(({ instance, digest }) => instance === end.instance && digest === end.digest) + 1
      : 0;
  }

  /** What is left may be proven by W signed STATUS of one (instance, digest) among the batches. */
  #proveByStatus(segment: Segment): boolean {
    const { view } = this.#port;
    for (let index = segment.batches.length - 1; index >= 0; index--) {
      const { instance, digest } = segment.batches[index] as ProvenBatch;
      if (instance <= this.#port.position().instance) return false;
      const matching = [...this.#claims.statuses].filter(
        ([, status]) => status.decided === instance && status.digest === digest,
      );
      if (matching.length < view.weakQuorum) continue;
      const checks = matching.map(([replica, status]) => ({
        publicKey: memberOf(view, replica)?.signKey ?? new Uint8Array(32),
        statement: statusStatement(view.cluster, status),
        signature: status.signature,
      }));
      this.#verifying++;
      this.#port.verify(checks, (valid) => {
        this.#verifying--;
        matching.forEach(([replica], at) => {
          if (!valid[at]) this.#port.misbehaved(replica, "STATUS_SIGNATURE");
        });
        if (valid.filter((ok) => ok).length < view.weakQuorum) {
          this.#avoid(segment.source);
          this.#ask();
          return;
        }
        segment.proven = index + 1;
        this.#keep(segment);
      });
      return true;
    }
    return false;
  }
}
