/**
 * What the other members offer a replica that fetches a state (docs/protocol.md section 6). Sizes and log ranges are
 * claims; roots and certificates count only once their signatures are verified.
 *
 * Invariants: 1. `roots` and `newest` hold nothing unverified. 2. per member at most `OFFERED_ROOTS_MAX` roots are kept.
 * 3. a member that signed two roots for one instance, or sent a false signature, is no witness any more.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { certificateChecksAt, type SignatureCheck, type ViewAt } from "../../protocol/certificate.ts";
import { rootStatement } from "../../protocol/image.ts";
import { OFFERED_ROOTS_MAX } from "../../protocol/limits.ts";
import { type Certificate, type MessageOf, type SignedRoot, statusStatement } from "../../protocol/messages.ts";
import { memberOf, type ReplicaId, type View } from "../../protocol/view.ts";
import type { TransferPort } from "./transfer-contract.ts";

export type Offer = MessageOf<"OFFER">;
type Status = MessageOf<"STATUS">;

/** Roots of one member by instance. */
export type Roots = ReadonlyMap<number, Digest>;

const NONE: Roots = new Map();

export class Offers {
  readonly #view: View;
  readonly #viewAt: ViewAt;
  readonly #port: TransferPort;
  readonly #offers = new Map<ReplicaId, Offer>();
  readonly #statuses = new Map<ReplicaId, Status>();
  readonly #roots = new Map<ReplicaId, Map<number, Digest>>();
  /** Of whom no root counts. */
  readonly #noWitness = new Set<ReplicaId>();
  /** Of whom no certificate counts. */
  readonly #noProver = new Set<ReplicaId>();
  readonly #checking = new Set<string>();
  /** The newest verified certificate. */
  newest: Certificate | null = null;
  /** The same of each member, of what it offered. */
  readonly #certificates = new Map<ReplicaId, Certificate>();
  /** Roots below this help nobody now. */
  #floor = 0;

  constructor(view: View, viewAt: ViewAt, port: TransferPort) {
    this.#view = view;
    this.#viewAt = viewAt;
    this.#port = port;
  }

  /** By member, of all that answered. */
  get all(): ReadonlyMap<ReplicaId, Offer> {
    return this.#offers;
  }

  of(member: ReplicaId): Offer | undefined {
    return this.#offers.get(member);
  }

  /** The verified roots of a member. */
  rootsOf(member: ReplicaId): Roots {
    return this.#roots.get(member) ?? NONE;
  }

  /** True while signatures of offers are being checked. */
  get checking(): boolean {
    return this.#checking.size > 0;
  }

  /** A height that is decided: below a certificate, which proves no more, or said by W members, one of them correct. */
  get target(): number {
    const claims = [...this.#offers.values()].map((offer) => offer.decided).sort((a, b) => b - a);
    return Math.max((this.newest?.instance ?? 1) - 1, claims[this.#view.weakQuorum - 1] ?? 0);
  }

  /**
   * The certificate to go on with at this place: the newest of its own history, or else the next one above it that a member offered.
   * Whoever names one without its batch asks others to go on with what may be nobody's any more.
   */
  certificateAt(place: number): Certificate | null {
    const offered = [...this.#certificates.values()].sort((a, b) => a.instance - b.instance);
    const within = offered.findLast(({ instance }) => instance <= place);
    return within ?? offered[0] ?? this.newest;
  }

  forgetRootsBelow(instance: number): void {
    this.#floor = instance;
    for (const roots of this.#roots.values()) {
      for (const at of [...roots.keys()]) if (at < instance) roots.delete(at);
    }
  }

  onOffer(from: ReplicaId, offer: Offer): void {
    this.#offers.set(from, offer);
    if (offer.newest) this.#checkCertificate(from, offer.newest);
    this.#checkRoots(from, offer.roots);
  }

  onRoot(from: ReplicaId, root: SignedRoot): void {
    this.#checkRoots(from, [root]);
  }

  onStatus(from: ReplicaId, status: Status): void {
    this.#statuses.set(from, status);
  }

  /** A certificate whose signatures were verified elsewhere. */
  proven(certificate: Certificate): void {
    if (certificate.instance > (this.newest?.instance ?? 0)) this.newest = certificate;
  }

  /** Checks that, if at least W of them hold, prove this history digest; null with too few STATUS for it. */
  statusChecks(instance: number, digest: Digest): readonly SignatureCheck[] | null {
    const checks: SignatureCheck[] = [];
    for (const member of this.#view.members) {
      const status = this.#statuses.get(member.id);
      if (status?.decided !== instance || status.digest !== digest) continue;
      const statement = statusStatement(this.#view.cluster, status);
      checks.push({ publicKey: member.signKey, statement, signature: status.signature });
    }
    return checks.length >= this.#view.weakQuorum ? checks : null;
  }

  #checkCertificate(from: ReplicaId, certificate: Certificate): void {
    const name = `certificate ${from}`;
    if (this.#noProver.has(from) || this.#checking.has(name)) return;
    if (certificate.instance <= (this.#certificates.get(from)?.instance ?? 0)) return;
    const checks = certificateChecksAt(this.#viewAt, certificate);
    if (checks === "unknown") return;
    if (!checks) {
      this.#noProver.add(from);
      this.#port.blame(from, "OFFER_CERTIFICATE", true);
      return;
    }
    this.#checking.add(name);
    this.#port.verify(checks, (valid) => {
      this.#checking.delete(name);
      if (valid.every((ok) => ok)) {
        this.#certificates.set(from, certificate);
        this.proven(certificate);
        return;
      }
      this.#noProver.add(from);
      this.#port.blame(from, "OFFER_CERTIFICATE", true);
    });
  }

  #checkRoots(from: ReplicaId, roots: readonly SignedRoot[]): void {
    const name = `roots ${from}`;
    const member = memberOf(this.#view, from);
    if (!member || this.#noWitness.has(from) || this.#checking.has(name)) return;
    const known = this.rootsOf(from);
    const fresh = roots.filter(({ instance, root }) => instance >= this.#floor && known.get(instance) !== root);
    if (fresh.length === 0) return;
    this.#checking.add(name);
    const { cluster, id: view } = this.#view;
    const checks = fresh.map(({ instance, root, signature }) => ({
      publicKey: member.signKey,
      statement: rootStatement(cluster, { view, instance, root }),
      signature,
    }));
    this.#port.verify(checks, (valid) => {
      this.#checking.delete(name);
      if (valid.every((ok) => ok)) for (const root of fresh) this.#addRoot(from, root);
      else this.#noLongerWitness(from, "ROOT_SIGNATURE");
    });
  }

  #addRoot(from: ReplicaId, { instance, root }: SignedRoot): void {
    if (this.#noWitness.has(from) || instance < this.#floor) return;
    const roots = this.#roots.get(from) ?? new Map<number, Digest>();
    this.#roots.set(from, roots);
    const other = roots.get(instance);
    if (other !== undefined && other !== root) {
      this.#noLongerWitness(from, "ROOT_TWICE");
      return;
    }
    roots.set(instance, root);
    if (roots.size > OFFERED_ROOTS_MAX) roots.delete(Math.min(...roots.keys()));
  }

  #noLongerWitness(from: ReplicaId, code: string): void {
    this.#noWitness.add(from);
    this.#roots.delete(from);
    this.#port.blame(from, code, true);
  }
}
