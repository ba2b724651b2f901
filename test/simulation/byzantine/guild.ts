/**
 * What the Byzantine replicas of one run know together: whatever reached any of them or left it, and each other's signers.
 * They forge nothing but their own word; yet together they may hold a write certificate that no correct replica has seen.
 */
import { decodeBatch, historyDigest } from "../../../protocol/batch.ts";
import type { Digest } from "../../../protocol/bytes.ts";
import type { Crypto } from "../../../protocol/crypto/contract.ts";
import { decoded, isRejection } from "../../../protocol/errors.ts";
import { rootStatement } from "../../../protocol/image.ts";
import {
  type Certificate,
  type Message,
  type MessageOf,
  type SignedRoot,
  type StopData,
  statusStatement,
  stopDataStatement,
  writeStatement,
} from "../../../protocol/messages.ts";
import type { ReplicaId, View } from "../../../protocol/view.ts";
import type { Random } from "../random.ts";

export type Sign = (data: Uint8Array) => Uint8Array;

/** One try at an instance. */
export interface Place {
  readonly regency: number;
  readonly instance: number;
}

export interface KnownBatch {
  readonly instance: number;
  readonly digest: Digest;
  readonly bytes: Uint8Array;
  readonly envelopes: readonly Uint8Array[];
}

/** WRITEs for one digest at one place. */
interface Support extends Place {
  readonly digest: Digest;
  readonly signatures: Map<ReplicaId, Uint8Array>;
}

const SUPPORTS_MAX = 512;
const BATCHES_MAX = 256;
const CERTIFICATES_MAX = 128;
const REGENCIES_MAX = 16;
const STOP_DATA_PER_MEMBER_MAX = 4;

export class Guild {
  readonly view: View;
  readonly crypto: Crypto;
  readonly #signers = new Map<ReplicaId, Sign>();
  readonly #supports = new Map<string, Support>();
  readonly #batches = new Map<Digest, KnownBatch>();
  readonly #certificates = new Map<string, Certificate>();
  /** By regency and member, what it said there. */
  readonly #stopData = new Map<number, Map<ReplicaId, StopData[]>>();
  /** Digests of the history that somebody accepted or reported. */
  readonly #history = new Map<number, Digest>();
  /** Heights, as their STATUS claims. */
  readonly heights = new Map<ReplicaId, number>();
  regency = 0;
  instance = 1;

  constructor(view: View, crypto: Crypto) {
    this.view = view;
    this.crypto = crypto;
  }

  join(id: ReplicaId, sign: Sign): void {
    this.#signers.set(id, sign);
  }

  get members(): readonly ReplicaId[] {
    return [...this.#signers.keys()];
  }

  has(id: ReplicaId): boolean {
    return this.#signers.has(id);
  }

  signer(id: ReplicaId): Sign {
    const sign = this.#signers.get(id);
    if (!sign) throw new Error(`replica ${id} is not of the guild`);
    return sign;
  }

  // ---- what it learns

  see(from: ReplicaId, message: Message): void {
    switch (message.type) {
      case "PROPOSE":
        this.#advance(message.regency, message.instance);
        this.learnBatch(message.batch, message.envelopes);
        return;
      case "WRITE":
        this.#advance(message.regency, message.instance);
        this.#support(message, message.digest, from, message.signature);
        return;
      case "ACCEPT":
        this.#advance(message.regency, message.instance);
        this.#history.set(message.instance, message.digest);
        return;
      case "STATUS":
        this.heights.set(from, message.decided);
        this.#history.set(message.decided, message.digest);
        return;
      case "BATCH":
        this.learnBatch(message.batch, []);
        return;
      case "HISTORY":
        for (const batch of message.batches) this.learnBatch(batch, []);
        if (message.proof) this.#keep(message.proof.certificate);
        return;
      case "OFFER":
        if (message.newest) this.#keep(message.newest);
        return;
      case "STOPDATA":
        this.#report(message.regency, { replica: from, record: message.record, signature: message.signature });
        return;
      case "SYNC":
        for (const data of message.stopData) this.#report(message.regency, data);
        this.learnBatch(message.batch, message.envelopes);
        return;
      default:
        return;
    }
  }

  #advance(regency: number, instance: number): void {
    // Mutated numbers of colleagues are no news.
    if (regency > this.regency && regency <= this.regency + REGENCIES_MAX) this.regency = regency;
    if (instance > this.instance && instance <= this.instance + REGENCIES_MAX) this.instance = instance;
  }

  #support(place: Place, digest: Digest, from: ReplicaId, signature: Uint8Array): void {
    const { regency, instance } = place;
    const name = `${regency} ${instance} ${digest}`;
    let support = this.#supports.get(name);
    if (!support) {
      support = { regency, instance, digest, signatures: new Map() };
      this.#supports.set(name, support);
      trim(this.#supports, SUPPORTS_MAX);
    }
    support.signatures.set(from, signature);
    const certificate = this.certify(place, digest);
    if (certificate) this.#keep(certificate);
  }

  #report(regency: number, data: StopData): void {
    if (regency > this.regency + REGENCIES_MAX) return;
    if (regency > this.regency) this.regency = regency;
    let members = this.#stopData.get(regency);
    if (!members) {
      members = new Map();
      this.#stopData.set(regency, members);
      trim(this.#stopData, REGENCIES_MAX);
    }
    const said = members.get(data.replica) ?? [];
    if (!said.some((other) => isSame(other.record, data.record)))
      members.set(data.replica, [...said, data].slice(-STOP_DATA_PER_MEMBER_MAX));
    if (data.record) this.#keep(data.record);
  }

  #keep(certificate: Certificate): void {
    const { regency, instance, digest } = certificate;
    this.#certificates.set(`${regency} ${instance} ${digest}`, certificate);
    trim(this.#certificates, CERTIFICATES_MAX);
  }

  /** A batch is known by h(i), so its place in the history must be known. Null when it is not, or no batch. */
  learnBatch(bytes: Uint8Array, envelopes: readonly Uint8Array[]): KnownBatch | null {
    const batch = decoded(() => decodeBatch(this.crypto, bytes));
    if (isRejection(batch)) return null;
    const { instance } = batch;
    const previous = this.#history.get(instance - 1);
    if (previous === undefined) return null;
    const batchDigest = this.crypto.sha256(bytes);
    const digest = historyDigest(this.crypto, { cluster: this.view.cluster, instance, previous, batchDigest });
    const known: KnownBatch = { instance, digest, bytes, envelopes };
    this.#batches.set(digest, known);
    trim(this.#batches, BATCHES_MAX);
    return known;
  }

  // ---- what it knows

  batch(digest: Digest): KnownBatch | undefined {
    return this.#batches.get(digest);
  }

  get batches(): readonly KnownBatch[] {
    return [...this.#batches.values()];
  }

  get certificates(): readonly Certificate[] {
    return [...this.#certificates.values()];
  }

  /** The digests that somebody wrote at this place. */
  written({ regency, instance }: Place): Digest[] {
    return [...this.#supports.values()]
      .filter((support) => support.regency === regency && support.instance === instance)
      .map((support) => support.digest);
  }

  /** Every place and digest that somebody wrote, oldest first. */
  get statements(): readonly { readonly place: Place; readonly digest: Digest }[] {
    return [...this.#supports.values()].map(({ regency, instance, digest }) => ({
      place: { regency, instance },
      digest,
    }));
  }

  /** The WRITEs that a member signed, as far as they are known. */
  writesOf(id: ReplicaId): NonNullable<MessageOf<"OFFER">["yourWrite"]>[] {
    return [...this.#supports.values()].flatMap(({ regency, instance, digest, signatures }) => {
      const signature = signatures.get(id);
      return signature ? [{ regency, instance, digest, signature }] : [];
    });
  }

  anyCertificate(random: Random): Certificate {
    return random.pick(this.certificates);
  }

  /** What each member said for this regency, colleagues included. */
  stopDataOf(regency: number): ReadonlyMap<ReplicaId, readonly StopData[]> {
    return this.#stopData.get(regency) ?? new Map();
  }

  get stopDataRegencies(): readonly number[] {
    return [...this.#stopData.keys()];
  }

  // ---- what it can say

  write(id: ReplicaId, { regency, instance }: Place, digest: Digest): MessageOf<"WRITE"> {
    const statement = { view: this.view.id, regency, instance, digest };
    return { type: "WRITE", ...statement, signature: this.signer(id)(writeStatement(this.view.cluster, statement)) };
  }

  accept({ regency, instance }: Place, digest: Digest): MessageOf<"ACCEPT"> {
    return { type: "ACCEPT", view: this.view.id, regency, instance, digest };
  }

  status(id: ReplicaId, claim: Omit<MessageOf<"STATUS">, "type" | "signature">): MessageOf<"STATUS"> {
    return { type: "STATUS", ...claim, signature: this.signer(id)(statusStatement(this.view.cluster, claim)) };
  }

  stopData(id: ReplicaId, regency: number, record: Certificate | null): StopData {
    const statement = stopDataStatement(this.view.cluster, { view: this.view.id, regency, replica: id }, record);
    return { replica: id, record, signature: this.signer(id)(statement) };
  }

  root(id: ReplicaId, instance: number, root: Digest): SignedRoot {
    const statement = rootStatement(this.view.cluster, { view: this.view.id, instance, root });
    return { instance, root, signature: this.signer(id)(statement) };
  }

  /** The signature of `from` on what it says is its own: a changed field does not show. */
  resigned(from: ReplicaId, message: Message): Message {
    if (message.type === "WRITE") return { ...this.write(from, message, message.digest), view: message.view };
    if (message.type === "STATUS") {
      const { type, signature, ...claim } = message;
      return this.status(from, claim);
    }
    if (message.type === "STOPDATA") {
      const { signature } = this.stopData(from, message.regency, message.record);
      return { ...message, signature };
    }
    if (message.type === "ROOT") return { ...message, ...this.root(from, message.instance, message.root) };
    return message;
  }

  /** WRITEs at this place, the guild's own first. */
  votesFor({ regency, instance }: Place, digest: Digest): { replica: ReplicaId; signature: Uint8Array }[] {
    const place = { regency, instance };
    const own = this.members.map((id) => ({ replica: id, signature: this.write(id, place, digest).signature }));
    const support =
      this.#supports.get(`${regency} ${instance} ${digest}`)?.signatures ?? new Map<ReplicaId, Uint8Array>();
    const others = [...support].filter(([replica]) => !this.has(replica));
    return [...own, ...others.map(([replica, signature]) => ({ replica, signature }))];
  }

  /** A write certificate, if the guild's own signatures complete one. */
  certify({ regency, instance }: Place, digest: Digest): Certificate | null {
    const { quorum, id } = this.view;
    const votes = this.votesFor({ regency, instance }, digest);
    return votes.length < quorum ? null : { view: id, regency, instance, digest, votes: votes.slice(0, quorum) };
  }
}

function isSame(a: Certificate | null, b: Certificate | null): boolean {
  return a === b || (a?.regency === b?.regency && a?.instance === b?.instance && a?.digest === b?.digest);
}

/** Maps remember in which order they grew: the oldest goes first. */
function trim<K, V>(map: Map<K, V>, max: number): void {
  if (map.size > max) map.delete(map.keys().next().value as K);
}
