/** A decided history of a toy state, with everything members say about it: certificates, images, signed roots. */
import { encodeBatch, historyDigest } from "../../../protocol/batch.ts";
import { bytesOf, type Digest, latin1, utf8 } from "../../../protocol/bytes.ts";
import {
  ChunkBuilder,
  type ChunkSummary,
  encodeManifest,
  type ImageHeader,
  imageHeader,
  rootOf,
  rootStatement,
} from "../../../protocol/image.ts";
import { Reader } from "../../../protocol/layout.ts";
import { type Certificate, type SignedRoot, statusStatement, writeStatement } from "../../../protocol/messages.ts";
import { type Mode, type View, viewOf } from "../../../protocol/view.ts";
import { fastCrypto, fastPublicKey } from "../../simulation/fast-crypto.ts";

export const crypto = fastCrypto;
export const CLUSTER = crypto.sha256(utf8("a cluster"));
export const GENESIS = crypto.sha256(utf8("genesis"));

export function seedOf(id: number): Uint8Array {
  return bytesOf(crypto.sha256(utf8(`replica ${id}`)));
}

export function viewOfSize(n: number, f: number, mode: Mode = "bft"): View {
  const members = Array.from({ length: n }, (_, id) => {
    const ports = { host: "h", clientPort: 1, peerPort: 2, adminPort: 3 };
    return { id, signKey: fastPublicKey(seedOf(id)), boxKey: new Uint8Array(32), ...ports };
  });
  return viewOf(crypto, { id: 0, cluster: CLUSTER, mode, f, members, administrators: [] });
}

export type Entries = Map<string, Uint8Array>;

export interface Image {
  readonly header: ImageHeader;
  readonly root: Digest;
  readonly chunks: readonly Uint8Array[];
  readonly manifest: Uint8Array;
}

/** The toy service: a request "key=value" sets a key. */
export function apply(entries: Entries, batch: Uint8Array): void {
  const reader = new Reader(batch);
  reader.u32();
  reader.u53();
  reader.u53();
  const count = reader.u32();
  for (let index = 0; index < count; index++) {
    const [key, value] = latin1(reader.bytes(1000)).split("=") as [string, string];
    entries.set(key, utf8(value));
  }
}

export function imageOf(
  view: View,
  place: { instance: number; digest: Digest; timestampMs: number },
  entries: Entries,
): Image {
  const builder = new ChunkBuilder();
  const chunks: Uint8Array[] = [];
  const take = (): void => {
    const chunk = builder.take();
    if (chunk) chunks.push(new Uint8Array(chunk));
  };
  for (const key of [...entries.keys()].sort()) if (builder.add(key, entries.get(key) as Uint8Array)) take();
  take();
  const summaries: ChunkSummary[] = chunks.map((chunk) => ({ digest: crypto.sha256(chunk), bytes: chunk.length }));
  const header = imageHeader(crypto, place, summaries);
  return { header, root: rootOf(crypto, view, header), chunks, manifest: encodeManifest(summaries) };
}

const LARGE = Array.from({ length: 12 }, (_, index) => new Uint8Array(300 * 1024).fill(65 + index));

export class History {
  readonly view: View;
  readonly #batches: Uint8Array[] = [];
  readonly #digests: Digest[] = [GENESIS];
  readonly #images = new Map<string, Image>();
  readonly #certificates = new Map<number, Certificate>();

  constructor(view: View, length: number) {
    this.view = view;
    this.grow(length);
  }

  get length(): number {
    return this.#batches.length;
  }

  grow(length: number): void {
    while (this.length < length) {
      const instance = this.length + 1;
      const bytes = encodeBatch({ instance, timestampMs: 1000 + instance, requests: this.requestsAt(instance) });
      this.#batches.push(bytes);
      const batchDigest = crypto.sha256(bytes);
      const previous = this.digest(instance - 1);
      this.#digests.push(historyDigest(crypto, { cluster: CLUSTER, instance, previous, batchDigest }));
    }
  }

  protected requestsAt(instance: number): Uint8Array[] {
    return [utf8(`z${instance % 10}=${instance}`)];
  }

  batch(instance: number): Uint8Array {
    return this.#batches[instance - 1] as Uint8Array;
  }

  digest(instance: number): Digest {
    return this.#digests[instance] as Digest;
  }

  entriesAt(instance: number): Entries {
    const entries: Entries = new Map(LARGE.map((value, index) => [`k${String(index).padStart(2, "0")}`, value]));
    for (let at = 1; at <= instance; at++) apply(entries, this.batch(at));
    return entries;
  }

  /** The image after an instance; with `extra` entries, that of a liar. */
  image(instance: number, extra: Readonly<Record<string, string>> = {}): Image {
    const name = `${instance} ${JSON.stringify(extra)}`;
    const known = this.#images.get(name);
    if (known) return known;
    const entries = this.entriesAt(instance);
    for (const [key, value] of Object.entries(extra)) entries.set(key, utf8(value));
    const place = { instance, digest: this.digest(instance), timestampMs: instance > 0 ? 1000 + instance : 0 };
    const image = imageOf(this.view, place, entries);
    this.#images.set(name, image);
    return image;
  }

  certificate(instance: number): Certificate {
    const known = this.#certificates.get(instance);
    if (known) return known;
    const statement = { view: this.view.id, regency: 0, instance, digest: this.digest(instance) };
    const bytes = writeStatement(CLUSTER, statement);
    const voters = this.view.mode === "cft" ? [] : this.view.members.slice(0, this.view.quorum);
    const votes = voters.map(({ id }) => ({ replica: id, signature: crypto.signer(seedOf(id))(bytes) }));
    const certificate = { ...statement, votes };
    this.#certificates.set(instance, certificate);
    return certificate;
  }
}

export function signedRoot(id: number, instance: number, root: Digest): SignedRoot {
  const signature = crypto.signer(seedOf(id))(rootStatement(CLUSTER, { view: 0, instance, root }));
  return { instance, root, signature };
}

export function signedStatus(id: number, decided: number, digest: Digest) {
  const status = { view: 0, regency: 0, decided, digest, abstainingUntil: 0 };
  const signature = crypto.signer(seedOf(id))(statusStatement(CLUSTER, status));
  return { type: "STATUS" as const, ...status, signature };
}
