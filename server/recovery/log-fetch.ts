/**
 * Fetches the proven log above a checkpoint from several members at once (docs/protocol.md section 6): whom to ask for
 * which range. What arrives is proven by its own certificate, or by W signed STATUS, before it is buffered.
 *
 * Invariants: 1. one request is out per member. 2. the donor, busy with chunks, is asked only for what nobody else serves.
 * 3. who sent a segment that contradicts its own proof is not asked again; who does not deliver is left alone for a while.
 */
import { certificateChecksAt, type ViewAt } from "../../protocol/certificate.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import type { Certificate, MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId, View } from "../../protocol/view.ts";
import type { Offers } from "./offers.ts";
import type { ProvenLog, Range } from "./proven-log.ts";
import { prefix, provenCount, type Segment, segmentOf } from "./segments.ts";
import type { TransferPort } from "./transfer-contract.ts";

const REQUEST_TIMEOUT_US = 1_000_000;
const BACK_OFF_US = 3_000_000;
/** Before a member that had nothing new is asked again. */
const NOTHING_NEW_US = 500_000;
const RANGE_INSTANCES = 256;

export interface LogFetchOptions {
  readonly view: View;
  readonly viewAt: ViewAt;
  readonly self: ReplicaId;
  readonly crypto: Crypto;
  readonly port: TransferPort;
  readonly offers: Offers;
  readonly log: ProvenLog;
  /** Something was proven: the log, or the digest below it. */
  readonly proven: (from: ReplicaId) => void;
}

export class LogFetch {
  readonly #options: LogFetchOptions;
  readonly #asked = new Map<ReplicaId, Range & { readonly untilUs: number }>();
  /** Ranges that arrived and wait for their signatures, by sender. */
  readonly #checking = new Map<ReplicaId, Range>();
  readonly #avoidUntilUs = new Map<ReplicaId, number>();
  /** Members that turned out not to have the log below this. */
  readonly #lacksBelow = new Map<ReplicaId, number>();
  readonly #liars = new Set<ReplicaId>();

  constructor(options: LogFetchOptions) {
    this.#options = options;
  }

  /** Could this member serve the log from there on, as far as is known? */
  serves(member: ReplicaId, from: number): boolean {
    return !this.#liars.has(member) && from >= (this.#lacksBelow.get(member) ?? 0);
  }

  /** What was asked before may be lost. */
  connected(peer: ReplicaId): void {
    this.#asked.delete(peer);
    this.#avoidUntilUs.delete(peer);
  }

  disconnected(peer: ReplicaId): void {
    if (this.#asked.delete(peer)) this.#avoid(peer, BACK_OFF_US);
  }

  /** Asks whoever is idle for what is missing up to `target`. */
  ask(target: number, donor: ReplicaId): void {
    const { view, log, port } = this.#options;
    const nowUs = port.nowUs();
    for (const [member, { untilUs }] of [...this.#asked]) {
      if (nowUs < untilUs) continue;
      this.#asked.delete(member);
      this.#avoid(member, BACK_OFF_US);
    }
    for (const { id } of view.members) {
      if (this.#asked.has(id) || this.#checking.has(id)) continue;
      const range = log.gap(target, RANGE_INSTANCES, [...this.#asked.values(), ...this.#checking.values()]);
      if (!range || (log.full && range.from !== log.base + 1)) return;
      if (!this.#willing(id, range.from)) continue;
      if (id === donor && this.#othersServe(range.from, donor)) continue;
      this.#asked.set(id, { ...range, untilUs: nowUs + REQUEST_TIMEOUT_US });
      port.send(id, { type: "FETCH_HISTORY", view: view.id, regency: 0, ...range });
    }
  }

  /** Claims to have it, and may be asked now. */
  #willing(id: ReplicaId, from: number): boolean {
    const { self, offers, port } = this.#options;
    const offer = offers.of(id);
    if (id === self || !offer || offer.logFirst === 0 || offer.logFirst > from || offer.decided < from) return false;
    return this.serves(id, from) && (this.#avoidUntilUs.get(id) ?? 0) <= port.nowUs();
  }

  #othersServe(from: number, donor: ReplicaId): boolean {
    return this.#options.view.members.some(({ id }) => id !== donor && this.#willing(id, from));
  }

  #avoid(member: ReplicaId, forUs: number): void {
    this.#avoidUntilUs.set(member, this.#options.port.nowUs() + forUs);
  }

  onHistory(from: ReplicaId, message: MessageOf<"HISTORY">): void {
    const asked = this.#asked.get(from);
    if (asked?.from !== message.from) return;
    this.#asked.delete(from);
    if (message.batches.length === 0) {
      this.#lacksBelow.set(from, Math.max(this.#lacksBelow.get(from) ?? 0, message.from + 1));
      return;
    }
    const { crypto, view, viewAt } = this.#options;
    const segment = segmentOf(crypto, view, message);
    const { proof } = message;
    const count = proof ? provenCount(crypto, view, segment, proof) : 0;
    const checks = proof && count !== 0 ? certificateChecksAt(viewAt, proof.certificate) : [];
    if (count === "false" || checks === null) {
      this.#lied(from, "HISTORY_CHAIN");
      return;
    }
    if (!proof || count === 0 || checks === "unknown") {
      // An accept record alone proves the digest below it, not itself.
      this.#checkStatuses(from, segment, 0, proof?.certificate ?? null);
      return;
    }
    this.#checking.set(from, rangeOf(segment));
    this.#options.port.verify(checks, (valid) => {
      this.#checking.delete(from);
      if (!valid.every((ok) => ok)) {
        this.#lied(from, "HISTORY_CERTIFICATE");
        return;
      }
      this.#options.offers.proven(proof.certificate);
      this.#add(from, prefix(segment, count));
      if (count < segment.batches.length) this.#checkStatuses(from, segment, count, null);
    });
  }

  /**
   * What lies above the newest certificate may be proven by W signed STATUS; a certificate for the first batch proves
   * the digest below all of them.
   */
  #checkStatuses(from: ReplicaId, segment: Segment, proven: number, certificate: Certificate | null): void {
    const { offers, port, view } = this.#options;
    for (let count = segment.batches.length; count > proven; count--) {
      const { instance, digest } = segment.batches[count - 1] as Segment["batches"][number];
      const checks = offers.statusChecks(instance, digest);
      if (!checks) continue;
      this.#checking.set(from, rangeOf(segment));
      port.verify(checks, (valid) => {
        this.#checking.delete(from);
        if (valid.filter((ok) => ok).length >= view.weakQuorum) this.#add(from, prefix(segment, count));
        else this.#avoid(from, NOTHING_NEW_US);
      });
      return;
    }
    this.#avoid(from, NOTHING_NEW_US);
    const fits = certificate?.instance === segment.from;
    const checks = fits ? certificateChecksAt(this.#options.viewAt, certificate) : null;
    if (!checks || checks === "unknown" || this.#options.log.baseDigest !== null) return;
    port.verify(checks, (valid) => {
      if (valid.every((ok) => ok)) this.#add(from, prefix(segment, 0));
    });
  }

  #add(from: ReplicaId, segment: Segment): void {
    if (this.#options.log.add(segment)) this.#options.proven(from);
    else this.#avoid(from, NOTHING_NEW_US);
  }

  #lied(from: ReplicaId, code: string): void {
    this.#liars.add(from);
    this.#options.port.blame(from, code, true);
  }
}

function rangeOf({ from, batches }: Segment): Range {
  return { from, to: from + batches.length - 1 };
}
