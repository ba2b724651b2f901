/**
 * The image of a state: its entries in key order, cut into chunks, and the one digest that stands for all of it, the *root*
 * (docs/protocol.md section 6, "Under the state root"). A pure function of the entries and of where they stand, so that
 * every replica computes the same one at the same instance.
 *
 * Where a chunk ends depends on the keys near its end alone: a change in one place leaves the chunks elsewhere as they are,
 * and what was fetched of one checkpoint serves the next.
 */
import { type Digest, latin1 } from "./bytes.ts";
import type { Crypto } from "./crypto/contract.ts";
import { Malformed } from "./errors.ts";
import { Reader, Writer } from "./layout.ts";
import { CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNK_BYTES_TARGET, CHUNK_ENTRIES_MAX, CHUNKS_MAX } from "./limits.ts";
import { type View, writeTag } from "./view.ts";

/** Version of what lies under a root: of keys, values and their order. */
export const IMAGE_FORMAT = 1;

/** Where a state stands: the last executed instance, its history digest and its batch's agreed time. */
export interface ImagePlace {
  readonly instance: number;
  readonly digest: Digest;
  readonly timestampMs: number;
}

/** What a root covers: the place, and the chunks through their manifest. */
export interface ImageHeader extends ImagePlace {
  readonly chunks: number;
  /** Of all chunks together. */
  readonly bytes: number;
  /** SHA-256 of the manifest. */
  readonly manifest: Digest;
}

export interface ChunkSummary {
  /** SHA-256 of the chunk. */
  readonly digest: Digest;
  readonly bytes: number;
}

const ENTRY_HEADER_BYTES = 8;
/** One key in so many may end a chunk that is long enough. */
const CUT_MASK = 511;

/** FNV-1a over the characters of a latin1 string. */
function cutHash(key: string): number {
  let hash = 0x811c_9dc5;
  for (let index = 0; index < key.length; index++) hash = Math.imul(hash ^ key.charCodeAt(index), 0x0100_0193);
  return (hash ^ (hash >>> 15)) >>> 0;
}

/** Puts entries, given in key order, into chunks: each entry u32 key length, key, u32 value length, value. */
export class ChunkBuilder {
  readonly #writer = new Writer(CHUNK_BYTES_TARGET + 64 * 1024, 2 * CHUNK_BYTES_TARGET);
  #bytes = 0;
  #entries = 0;
  #firstKey = "";

  /** The key of the first entry of the chunk in the making. */
  get firstKey(): string {
    return this.#firstKey;
  }

  /** True when the chunk ends with this entry: `take` it before the next. */
  add(key: string, value: Uint8Array): boolean {
    if (this.#bytes === 0) {
      this.#writer.reset();
      this.#entries = 0;
      this.#firstKey = key;
    }
    this.#writer.u32(key.length).rawLatin1(key).bytes(value);
    this.#bytes += ENTRY_HEADER_BYTES + key.length + value.length;
    if (++this.#entries >= CHUNK_ENTRIES_MAX) return true;
    if (this.#bytes < CHUNK_BYTES_MIN) return false;
    return this.#bytes >= CHUNK_BYTES_TARGET || (cutHash(key) & CUT_MASK) === 0;
  }

  /** The chunk so far, valid until the next `add`, or null when nothing was added since the last. */
  take(): Uint8Array | null {
    if (this.#bytes === 0) return null;
    this.#bytes = 0;
    return this.#writer.view();
  }
}

/** The entries of a chunk, in order; values are views into `chunk`. @throws Malformed, also unless keys rise */
export function decodeChunk(chunk: Uint8Array): (readonly [key: string, value: Uint8Array])[] {
  const reader = new Reader(chunk);
  const entries: (readonly [string, Uint8Array])[] = [];
  let previous: string | null = null;
  while (reader.left > 0) {
    const key = latin1(reader.bytes(CHUNK_BYTES_MAX));
    if (previous !== null && key <= previous) throw new Malformed("CHUNK_ORDER");
    if (entries.length >= CHUNK_ENTRIES_MAX) throw new Malformed("CHUNK_ENTRIES");
    entries.push([key, reader.bytes(CHUNK_BYTES_MAX)]);
    previous = key;
  }
  if (entries.length === 0) throw new Malformed("CHUNK_EMPTY");
  return entries;
}

/** Per chunk its digest (32) and u32 bytes. */
export function encodeManifest(chunks: readonly ChunkSummary[]): Uint8Array {
  const writer = new Writer(36 * chunks.length + 1);
  for (const { digest, bytes } of chunks) writer.rawLatin1(digest).u32(bytes);
  return writer.finish();
}

/** @throws Malformed */
export function decodeManifest(bytes: Uint8Array): ChunkSummary[] {
  const reader = new Reader(bytes);
  const chunks: ChunkSummary[] = [];
  while (reader.left > 0) {
    const digest: Digest = reader.rawLatin1(32);
    const size = reader.u32();
    if (size === 0 || size > CHUNK_BYTES_MAX || chunks.length >= CHUNKS_MAX) throw new Malformed("MANIFEST");
    chunks.push({ digest, bytes: size });
  }
  return chunks;
}

/** The header of an image with these chunks. */
export function imageHeader(crypto: Crypto, place: ImagePlace, chunks: readonly ChunkSummary[]): ImageHeader {
  const { instance, digest, timestampMs } = place;
  const bytes = chunks.reduce((sum, chunk) => sum + chunk.bytes, 0);
  const manifest = crypto.sha256(encodeManifest(chunks));
  return { instance, digest, timestampMs, chunks: chunks.length, bytes, manifest };
}

/** The root: binds cluster, view, format and the whole header. */
export function rootOf(crypto: Crypto, view: View, header: ImageHeader): Digest {
  const writer = writeTag(new Writer(256), "quorate/image/1", view.cluster).u32(IMAGE_FORMAT).rawLatin1(view.digest);
  writer.u53(header.instance).rawLatin1(header.digest).u53(header.timestampMs);
  return crypto.sha256(writer.u32(header.chunks).u53(header.bytes).rawLatin1(header.manifest).view());
}

/** What a member signs to say that its state had this root after this instance. */
export function rootStatement(
  cluster: Digest,
  statement: { readonly view: number; readonly instance: number; readonly root: Digest },
): Uint8Array {
  const writer = writeTag(new Writer(128), "quorate/root/1", cluster).u32(statement.view).u53(statement.instance);
  return writer.rawLatin1(statement.root).finish();
}
