/**
 * A snapshot file as a sequence of records (docs/snapshot-format.md). Guarantees: written and read as a stream, one record in
 * memory at a time; a reader that comes to the end has seen the bytes that were written, all of them, in their order.
 */
import { createHash, type Hash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { type Digest, sameBytes, utf8 } from "../../protocol/bytes.ts";
import { bytes, encode, list, record, u32, u53 } from "../../protocol/codec.ts";
import { QuorateError } from "../../protocol/errors.ts";
import {
  CHUNK_BYTES_MAX,
  FRAME_BYTES_MAX,
  LINK_BYTES_MAX,
  MANIFEST_BYTES_MAX,
  REPLICAS_MAX,
  ROOTS_KEPT,
} from "../../protocol/limits.ts";
import { digest } from "../../protocol/messages.ts";
import { SIGNATURE_BYTES } from "../../protocol/request.ts";

/** Its name in the data directory of a replica that is to be founded from it. */
export const SNAPSHOT_FILE = "snapshot";

const MAGIC = utf8("QSNAP1");
const RECORD_HEADER_BYTES = 5;
const SHA_BYTES = 32;
const MIB = 1024 * 1024;
const ROOTS_MAX = REPLICAS_MAX * 2 * ROOTS_KEPT;

/** In the order they stand in a file; `many` may be absent or repeated, the others stand once. */
const RECORDS = [
  { kind: "cluster", code: 1, many: false, bytesMax: 4 * MIB },
  { kind: "link", code: 8, many: true, bytesMax: LINK_BYTES_MAX },
  { kind: "header", code: 2, many: false, bytesMax: 1024 },
  { kind: "manifest", code: 3, many: false, bytesMax: MANIFEST_BYTES_MAX },
  { kind: "chunk", code: 4, many: true, bytesMax: CHUNK_BYTES_MAX },
  { kind: "history", code: 5, many: true, bytesMax: FRAME_BYTES_MAX },
  { kind: "roots", code: 6, many: false, bytesMax: 1 * MIB },
  { kind: "end", code: 7, many: false, bytesMax: SHA_BYTES },
] as const;
type Kind = (typeof RECORDS)[number]["kind"];
export type SnapshotRecordKind = Exclude<Kind, "end">;

export interface SnapshotRecord {
  readonly kind: SnapshotRecordKind;
  readonly bytes: Uint8Array;
}

/** A member's signature on `rootStatement` for a root of its own state. */
export interface RootOfMember {
  readonly replica: number;
  readonly instance: number;
  readonly root: Digest;
  readonly signature: Uint8Array;
}

const signature = bytes({ min: SIGNATURE_BYTES, max: SIGNATURE_BYTES });
export const rootsSchema = list(record({ replica: u32, instance: u53, root: digest, signature }), { max: ROOTS_MAX });

export function snapshotInvalid(why: string, cause?: unknown): QuorateError {
  return new QuorateError("SNAPSHOT_INVALID", why, {}, cause);
}

function codeOf(kind: Kind): number {
  return RECORDS.find((known) => known.kind === kind)?.code ?? 0;
}

export class SnapshotWriter {
  readonly #file: FileHandle;
  readonly #hash = createHash("sha256");
  #bytes = 0;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /** Replaces a file of that name. */
  static async create(path: string): Promise<SnapshotWriter> {
    const writer = new SnapshotWriter(await open(path, "w", 0o600));
    await writer.#write(MAGIC);
    return writer;
  }

  /** Bytes written so far. */
  get bytes(): number {
    return this.#bytes;
  }

  async add(kind: SnapshotRecordKind, value: Uint8Array): Promise<void> {
    await this.#record(kind, value);
  }

  async addRoots(roots: readonly RootOfMember[]): Promise<void> {
    await this.#record("roots", encode(rootsSchema, [...roots]));
  }

  /** Writes the end; resolves when all is on disk. */
  async finish(): Promise<void> {
    await this.#record("end", this.#hash.copy().digest());
    await this.#file.sync();
    await this.#file.close();
  }

  async abort(): Promise<void> {
    await this.#file.close().catch(() => {});
  }

  async #record(kind: Kind, value: Uint8Array): Promise<void> {
    const header = Buffer.allocUnsafe(RECORD_HEADER_BYTES);
    header[0] = codeOf(kind);
    header.writeUInt32BE(value.length, 1);
    await this.#write(header);
    await this.#write(value);
  }

  async #write(value: Uint8Array): Promise<void> {
    this.#hash.update(value);
    let at = 0;
    while (at < value.length) at += (await this.#file.write(value, at)).bytesWritten;
    this.#bytes += value.length;
  }
}

export class SnapshotReader {
  readonly #file: FileHandle;
  #position = 0;
  #hash: Hash = createHash("sha256");

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /** @throws QuorateError SNAPSHOT_INVALID */
  static async open(path: string): Promise<SnapshotReader> {
    const unreadable = (why: string, cause?: unknown): QuorateError =>
      snapshotInvalid(`snapshot ${path} ${why}; name a file that kv snapshot save wrote`, cause);
    let file: FileHandle;
    try {
      file = await open(path, "r");
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      throw unreadable(code === "ENOENT" ? "does not exist" : `cannot be read (${code})`, cause);
    }
    if (!(await file.stat()).isDirectory()) return new SnapshotReader(file);
    await file.close();
    throw unreadable("is a directory");
  }

  /** All records in order, from the start; returns the SHA-256 of the whole file. @throws QuorateError SNAPSHOT_INVALID */
  async *records(): AsyncGenerator<SnapshotRecord, Uint8Array> {
    this.#position = 0;
    this.#hash = createHash("sha256");
    if (!sameBytes(await this.#read(MAGIC.length), MAGIC)) throw snapshotInvalid("it is no snapshot file");
    let previous = 0;
    for (;;) {
      const before = this.#hash.copy().digest();
      const { kind, value, index } = await this.#record(previous);
      previous = index;
      if (kind !== "end") {
        yield { kind, bytes: value };
        continue;
      }
      if (!sameBytes(value, before))
        throw snapshotInvalid("its bytes are not those that were written: the digest differs");
      const { bytesRead } = await this.#file.read(Buffer.alloc(1), 0, 1, this.#position);
      if (bytesRead > 0) throw snapshotInvalid("something follows its end");
      return this.#hash.digest();
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** The next record; `previous` and `index` count in `RECORDS` from 1. */
  async #record(previous: number): Promise<{ kind: Kind; value: Uint8Array; index: number }> {
    const at = this.#position;
    const header = await this.#read(RECORD_HEADER_BYTES);
    const index = RECORDS.findIndex((known) => known.code === header[0]) + 1;
    const shape = RECORDS[index - 1];
    const length = header.readUInt32BE(1);
    if (!shape) throw snapshotInvalid(`at byte ${at} stands a record of unknown kind ${header[0]}`);
    if (length > shape.bytesMax)
      throw snapshotInvalid(`at byte ${at} stands a ${shape.kind} record of ${length} bytes`);
    const again = index === previous;
    const skipped = RECORDS.slice(previous, index - 1).some((between) => !between.many);
    if (index < previous || (again && !shape.many) || skipped) {
      throw snapshotInvalid(`at byte ${at} stands a ${shape.kind} record out of its place`);
    }
    return { kind: shape.kind, value: await this.#read(length), index };
  }

  async #read(length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(length);
    let at = 0;
    while (at < length) {
      const { bytesRead } = await this.#file.read(buffer, at, length - at, this.#position + at);
      if (bytesRead === 0)
        throw snapshotInvalid(`it ends at byte ${this.#position + at}, in the middle: it was cut off`);
      at += bytesRead;
    }
    this.#position += length;
    this.#hash.update(buffer);
    return buffer;
  }
}
