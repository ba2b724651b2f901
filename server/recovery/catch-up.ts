/**
 * Catching up by log (docs/protocol.md sections 4.7 and 6, "Small gap"): whom to ask, what to verify, when it is believed.
 * History up to i is proven by one write certificate for an instance above i, or by W signed STATUS for (i, h(i)); one
 * valid proof suffices, whoever sent the batches.
 *
 * Invariants: 1. nothing is learned without a verified proof. 2. at most one request is out. 3. a replica that does not
 * deliver is left alone for a while, and the next is asked.
 */
import { historyDigest } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import { certificateChecks, type SignatureCheck } from "../../protocol/certificate.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { type Rejection, reject } from "../../protocol/errors.ts";
import { type HistoryProof, type Message, type MessageOf, statusStatement } from "../../protocol/messages.ts";
import { memberOf, type ReplicaId, type View } from "../../protocol/view.ts";

const REQUEST_TIMEOUT_US = 1_000_000;
const BACK_OFF_US = 3_000_000;
/** A gap this small is waited out first: votes on the way usually close it. */
const SMALL_GAP = 8;
const PATIENCE_US = 300_000;

/** What catching up needs from the core around it. */
export interface CatchUpPort {
  readonly view: View;
  readonly self: ReplicaId;
  readonly crypto: Crypto;
  nowUs(): number;
  regency(): number;
  /** Our last decided instance and its history digest. */
  position(): { readonly instance: number; readonly digest: Digest };
  /** Too many decided batches wait for execution: ask for no more yet. */
  busy(): boolean;
  send(to: ReplicaId, message: Message): void;
  verify(checks: readonly SignatureCheck[], then: (valid: readonly boolean[]) => void): void;
  learn(batches: readonly LearnedBatch[]): void;
  misbehaved(replica: ReplicaId, code: string): void;
}

/** A verified certificate for `instance`, and the digest of its batch: proves the history below. */
export interface Anchor {
  readonly instance: number;
  readonly digest: Digest;
  readonly batchDigest: Digest;
}

export interface LearnedBatch {
  readonly instance: number;
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

type Status = MessageOf<"STATUS">;

export class CatchUp {
  readonly #port: CatchUpPort;
  readonly #statuses = new Map<ReplicaId, Status>();
  readonly #avoidUntilUs = new Map<ReplicaId, number>();
  /** What members are known to have decided although their STATUS does not say so yet. */
  readonly #known = new Map<ReplicaId, number>();
  #anchor: Anchor | null = null;
  #asked: { readonly replica: ReplicaId; readonly from: number; readonly untilUs: number } | null = null;
  #verifying = false;
  #lastAsked: ReplicaId = -1;
  /** When our position last moved, to tell a standstill from a small lag. */
  #movedUs = 0;
  #seenInstance = -1;

  constructor(port: CatchUpPort) {
    this.#port = port;
  }

  get active(): boolean {
    return this.#asked !== null || this.#verifying;
  }

  /** The highest height anybody claims; a claim is no proof. */
  get highestClaim(): number {
    let highest = 0;
    for (const replica of this.#statuses.keys()) highest = Math.max(highest, this.#claimOf(replica));
    for (const replica of this.#known.keys()) highest = Math.max(highest, this.#claimOf(replica));
    return highest;
  }

  /** Do W members, one of them correct, claim much more than we have? */
  get behind(): boolean {
    const { instance } = this.#port.position();
    let ahead = 0;
    for (const replica of this.#statuses.keys()) if (this.#claimOf(replica) > instance + SMALL_GAP) ahead++;
    return ahead >= this.#port.view.weakQuorum;
  }

  #claimOf(replica: ReplicaId): number {
    return Math.max(this.#statuses.get(replica)?.decided ?? 0, this.#known.get(replica) ?? 0);
  }

  get statuses(): ReadonlyMap<ReplicaId, Status> {
    return this.#statuses;
  }

  statusOf(replica: ReplicaId): Status | undefined {
    return this.#statuses.get(replica);
  }

  /** The highest instance that any member says it will not vote in. */
  get abstainingUntil(): number {
    let until = 0;
    for (const status of this.#statuses.values()) until = Math.max(until, status.abstainingUntil);
    return until;
  }

  onStatus(from: ReplicaId, status: Status): void {
    this.#statuses.set(from, status);
    this.#ask();
  }

  /** A verified certificate proves what lies below it, whoever sends it. */
  anchor(anchor: Anchor): void {
    if (anchor.instance > (this.#anchor?.instance ?? 0)) this.#anchor = anchor;
  }

  /** These members have decided everything below `instance`: ask them now, without waiting for votes on the way. */
  historyAt(instance: number, replicas: readonly ReplicaId[]): void {
    if (instance - 1 <= this.#port.position().instance) return;
    for (const replica of replicas) {
      if (replica !== this.#port.self) this.#known.set(replica, Math.max(this.#claimOf(replica), instance - 1));
    }
    this.#movedUs = Number.NEGATIVE_INFINITY;
    this.#ask();
  }

  tick(): void {
    const { instance } = this.#port.position();
    if (instance !== this.#seenInstance) {
      this.#seenInstance = instance;
      this.#movedUs = this.#port.nowUs();
    }
    const asked = this.#asked;
    if (asked && this.#port.nowUs() >= asked.untilUs) {
      this.#avoid(asked.replica);
      this.#asked = null;
    }
    this.#ask();
  }

  #avoid(replica: ReplicaId): void {
    this.#avoidUntilUs.set(replica, this.#port.nowUs() + BACK_OFF_US);
  }

  /** Asks the next replica that claims more than we have, when there is reason to. */
  #ask(): void {
    if (this.#asked || this.#verifying || this.#port.busy()) return;
    const { instance } = this.#port.position();
    const gap = this.highestClaim - instance;
    if (gap <= 0) return;
    const nowUs = this.#port.nowUs();
    if (gap <= SMALL_GAP && nowUs - this.#movedUs < PATIENCE_US) return;
    const source = this.#nextSource(instance, nowUs);
    if (source === null) return;
    this.#lastAsked = source;
    this.#asked = { replica: source, from: instance + 1, untilUs: nowUs + REQUEST_TIMEOUT_US };
    const { view } = this.#port;
    this.#port.send(source, {
      type: "FETCH_HISTORY",
      view: view.id,
      regency: this.#port.regency(),
      from: instance + 1,
    });
  }

  /** Round robin in view order, after the one asked last. */
  #nextSource(instance: number, nowUs: number): ReplicaId | null {
    const ids = this.#port.view.members.map((member) => member.id);
    const start = ids.indexOf(this.#lastAsked) + 1;
    for (let step = 0; step < ids.length; step++) {
      const id = ids[(start + step) % ids.length] as ReplicaId;
      const claim = this.#claimOf(id);
      if (id !== this.#port.self && claim > instance && (this.#avoidUntilUs.get(id) ?? 0) <= nowUs) return id;
    }
    return null;
  }

  onHistory(from: ReplicaId, message: MessageOf<"HISTORY">): Rejection | null {
    const asked = this.#asked;
    if (asked?.replica !== from || asked.from !== message.from) return null;
    this.#asked = null;
    const batches = this.#chain(message);
    const last = batches.at(-1);
    if (!last) {
      this.#avoid(from);
      return null;
    }
    const anchored = this.#anchored(batches);
    if (anchored.length > 0) {
      this.#learn(anchored);
      this.#ask();
      return null;
    }
    // A certificate at or below the first batch proves none of them: an honest one, when we moved on meanwhile.
    const first = last.instance - batches.length + 1;
    const proof = message.proof && message.proof.certificate.instance > first ? message.proof : null;
    const byCertificate = proof ? this.#certificateChecks(proof, batches) : null;
    if (byCertificate) {
      this.#prove(from, byCertificate.checks, batches.slice(0, byCertificate.proven), batches);
      return null;
    }
    if (!this.#proveByStatus(from, batches)) this.#avoid(from);
    return proof ? reject("ignore", "HISTORY_PROOF") : null;
  }

  /** Hashes the batches onto our own history, skipping what was decided meanwhile. */
  #chain(message: MessageOf<"HISTORY">): LearnedBatch[] {
    const { crypto, view } = this.#port;
    const position = this.#port.position();
    let previous = position.digest;
    const chained: LearnedBatch[] = [];
    message.batches.forEach((bytes, index) => {
      const instance = message.from + index;
      if (instance <= position.instance) return;
      const batchDigest = crypto.sha256(bytes);
      const digest = historyDigest(crypto, { cluster: view.cluster, instance, previous, batchDigest });
      chained.push({ instance, digest, bytes });
      previous = digest;
    });
    return chained;
  }

  /** Those of the chained batches that the anchor proves. */
  #anchored(batches: readonly LearnedBatch[]): readonly LearnedBatch[] {
    const { crypto, view } = this.#port;
    const anchor = this.#anchor;
    const index = anchor ? batches.findIndex((batch) => batch.instance === anchor.instance - 1) : -1;
    const below = batches[index];
    if (!anchor || !below) return [];
    const { instance, batchDigest } = anchor;
    const over = historyDigest(crypto, { cluster: view.cluster, instance, previous: below.digest, batchDigest });
    return over === anchor.digest ? batches.slice(0, index + 1) : [];
  }

  /** Which of the chained batches a certificate would prove, and the signatures to check; null when it proves none. */
  #certificateChecks(
    proof: HistoryProof,
    batches: readonly LearnedBatch[],
  ): { checks: SignatureCheck[]; proven: number } | null {
    const { view, crypto } = this.#port;
    const { certificate } = proof;
    const first = batches[0] as LearnedBatch;
    const last = batches.at(-1) as LearnedBatch;
    let digest: Digest | undefined = batches[certificate.instance - first.instance]?.digest;
    if (certificate.instance > last.instance) {
      if (proof.links.length !== certificate.instance - last.instance) return null;
      digest = last.digest;
      let { instance } = last;
      for (const batchDigest of proof.links) {
        instance++;
        digest = historyDigest(crypto, { cluster: view.cluster, instance, previous: digest, batchDigest });
      }
    }
    if (digest !== certificate.digest) return null;
    const checks = certificateChecks(view, certificate);
    if (!checks) return null;
    const proven = Math.min(batches.length, certificate.instance - first.instance);
    return proven > 0 ? { checks, proven } : null;
  }

  #prove(
    from: ReplicaId,
    checks: readonly SignatureCheck[],
    proven: readonly LearnedBatch[],
    all: readonly LearnedBatch[],
  ): void {
    this.#verifying = true;
    this.#port.verify(checks, (valid) => {
      this.#verifying = false;
      if (valid.includes(false)) {
        this.#avoid(from);
        this.#port.misbehaved(from, "HISTORY_CERTIFICATE");
      } else {
        this.#learn(proven);
        this.#proveByStatus(from, all.slice(proven.length));
      }
      this.#ask();
    });
  }

  /** What is left may be proven by W signed STATUS of one (instance, digest) among the batches. */
  #proveByStatus(from: ReplicaId, batches: readonly LearnedBatch[]): boolean {
    const { view } = this.#port;
    for (let index = batches.length - 1; index >= 0; index--) {
      const { instance, digest } = batches[index] as LearnedBatch;
      const matching = [...this.#statuses].filter(
        ([, status]) => status.decided === instance && status.digest === digest,
      );
      if (matching.length < view.weakQuorum) continue;
      const checks = matching.map(([replica, status]) => ({
        publicKey: memberOf(view, replica)?.signKey ?? new Uint8Array(32),
        statement: statusStatement(view.cluster, status),
        signature: status.signature,
      }));
      this.#verifying = true;
      this.#port.verify(checks, (valid) => {
        this.#verifying = false;
        matching.forEach(([replica], at) => {
          if (!valid[at]) this.#port.misbehaved(replica, "STATUS_SIGNATURE");
        });
        if (valid.filter((ok) => ok).length >= view.weakQuorum) this.#learn(batches.slice(0, index + 1));
        else this.#avoid(from);
        this.#ask();
      });
      return true;
    }
    return false;
  }

  /** Only what continues our position: it may have moved while signatures were checked. */
  #learn(batches: readonly LearnedBatch[]): void {
    const { instance } = this.#port.position();
    const next = batches.filter((batch) => batch.instance > instance);
    if (next[0]?.instance === instance + 1) this.#port.learn(next);
  }
}
