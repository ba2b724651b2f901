/**
 * The records of the journal as bytes (docs/data-format.md). Every value starts with a truncated SHA-256 over its key and
 * content; the batch of an instance is covered by `batchDigest`, which stands in the content, so it is not hashed twice.
 */
import { type Digest, latin1, writeLatin1 } from "../protocol/bytes.ts";
import { decode, encode } from "../protocol/codec.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { Malformed } from "../protocol/errors.ts";
import { Reader, Writer } from "../protocol/layout.ts";
import { BATCH_BYTES_MAX, FRAME_BYTES_MAX } from "../protocol/limits.ts";
import { type Certificate, certificateSchema } from "../protocol/messages.ts";
import { numberedKey, numberOf } from "./byte-store.ts";
import type { Founding, InstanceRecord, JournalBase, JournalSummary } from "./contract.ts";

/** Version of the journal's layout; a change of it raises this. */
export const JOURNAL_FORMAT = 2;

const CHECKSUM_BYTES = 16;
export const CERTIFICATE_BYTES_MAX = 64 * 1024;
const SUPERSEDED_MAX = 1_000_000;
const STOP_MESSAGES_MAX = 1_000_000;

export const KIND = { founding: 0, control: 1, instance: 2 } as const;

/**
 * Where votes and the log stand: written with the founding, and whenever any of it changes, a clean stop or a start is noted,
 * or an instance record is replaced or dropped. The newest one counts; of older ones only what they list as superseded.
 */
export interface ControlRecord {
  readonly view: number;
  readonly regency: number;
  /** The highest regency asked for in that view. */
  readonly wanted: number;
  readonly base: JournalBase;
  /** All writes below this number are accounted for: nothing they brought is in the journal any more. */
  readonly writesFrom: number;
  /** No control record of a write below this number is in the journal any more. */
  readonly controlsFrom: number;
  /** Numbers of writes of which this one removed or replaced the last record. */
  readonly superseded: readonly number[];
  /** Numbers of writes of which this one removed the control record, but instances are left. */
  readonly bared: readonly number[];
  readonly keptCertificate: Certificate | null;
  readonly forgotten: JournalSummary["forgotten"];
  readonly cleanStop: readonly Uint8Array[] | null;
}

/** An instance record with the number of the write that brought it, its certificate not parsed yet. */
export interface RawInstance extends Omit<InstanceRecord, "certificate"> {
  readonly write: number;
  /** The same write brought a control record. */
  readonly withControl: boolean;
  readonly certificateBytes: Uint8Array;
}

export const FOUNDING_KEY: Uint8Array = Buffer.from([KIND.founding]);
export const JOURNAL_END_KEY: Uint8Array = Buffer.from([0xff]);

export function controlKey(write: number): Uint8Array {
  return numberedKey(KIND.control, write);
}

/** Big-endian, so that records iterate in the order of their instances. */
export function instanceKey(instance: number): Uint8Array {
  return numberedKey(KIND.instance, instance);
}

const sealed = new Writer(1024);

/** The value of a record: checksum, then what `fill` writes, then `tail`, which the checksum does not cover. */
function seal(crypto: Crypto, key: Uint8Array, fill: (writer: Writer) => void, tail?: Uint8Array): Uint8Array {
  fill(sealed.reset().raw(key));
  const covered = sealed.view();
  const contentBytes = covered.length - key.length;
  const value = Buffer.allocUnsafe(CHECKSUM_BYTES + contentBytes + (tail?.length ?? 0));
  writeLatin1(value, 0, crypto.sha256(covered).slice(0, CHECKSUM_BYTES));
  value.set(covered.subarray(key.length), CHECKSUM_BYTES);
  if (tail) value.set(tail, CHECKSUM_BYTES + contentBytes);
  return value;
}

/** @throws Malformed unless the checksum in front of `value` is that of the key and `contentBytes` of content. */
function unseal(
  crypto: Crypto,
  key: Uint8Array,
  value: Uint8Array,
  contentBytes = value.length - CHECKSUM_BYTES,
): void {
  if (contentBytes < 0) throw new Malformed("TRUNCATED");
  sealed
    .reset()
    .raw(key)
    .raw(value.subarray(CHECKSUM_BYTES, CHECKSUM_BYTES + contentBytes));
  if (crypto.sha256(sealed.view()).slice(0, CHECKSUM_BYTES) !== latin1(value.subarray(0, CHECKSUM_BYTES))) {
    throw new Malformed("CHECKSUM");
  }
}

export function encodeFounding(crypto: Crypto, founding: Founding): Uint8Array {
  return seal(crypto, FOUNDING_KEY, (writer) => {
    writer.u32(JOURNAL_FORMAT).rawLatin1(founding.cluster).u32(founding.replica).rawLatin1(founding.genesis);
  });
}

/** Of another format version only the number: its layout is not known here. @throws Malformed */
export function decodeFounding(crypto: Crypto, value: Uint8Array): { format: number; founding: Founding | null } {
  unseal(crypto, FOUNDING_KEY, value);
  const reader = new Reader(value.subarray(CHECKSUM_BYTES));
  const format = reader.u32();
  if (format !== JOURNAL_FORMAT) return { format, founding: null };
  const cluster: Digest = reader.rawLatin1(32);
  const replica = reader.u32();
  const genesis: Digest = reader.rawLatin1(32);
  reader.end();
  return { format, founding: { cluster, replica, genesis } };
}

export function encodeControl(crypto: Crypto, key: Uint8Array, control: ControlRecord): Uint8Array {
  const { base, forgotten, keptCertificate, cleanStop } = control;
  return seal(crypto, key, (writer) => {
    writer.u32(control.view).u32(control.regency).u53(base.instance).rawLatin1(base.digest);
    writer.u53(control.writesFrom).u53(control.controlsFrom);
    for (const writes of [control.superseded, control.bared]) {
      writer.u32(writes.length);
      for (const write of writes) writer.u53(write);
    }
    writer.bytes(encodeCertificate(keptCertificate));
    writer.u8(forgotten ? 1 : 0);
    if (forgotten) {
      writer
        .u8(forgotten.until === null ? 0 : 1)
        .u53(forgotten.until ?? 0)
        .u32(forgotten.regency);
    }
    writer.u8(cleanStop ? 1 : 0).u32(cleanStop?.length ?? 0);
    for (const message of cleanStop ?? []) writer.bytes(message);
    writer.u32(control.wanted);
  });
}

/** @throws Malformed */
export function decodeControl(crypto: Crypto, key: Uint8Array, value: Uint8Array): ControlRecord {
  unseal(crypto, key, value);
  const reader = new Reader(value.subarray(CHECKSUM_BYTES));
  const view = reader.u32();
  const regency = reader.u32();
  const base: JournalBase = { instance: reader.u53(), digest: reader.rawLatin1(32) };
  const writesFrom = reader.u53();
  const controlsFrom = reader.u53();
  const superseded = decodeWrites(reader);
  const bared = decodeWrites(reader);
  const keptCertificate = decodeCertificate(reader.bytes(CERTIFICATE_BYTES_MAX));
  const forgotten = reader.u8() === 1 ? decodeForgotten(reader) : null;
  const stopped = reader.u8() === 1;
  const messages: Uint8Array[] = [];
  const messageCount = counted(reader, STOP_MESSAGES_MAX);
  for (let index = 0; index < messageCount; index++) messages.push(reader.bytes(FRAME_BYTES_MAX));
  // Records from before it was kept end here.
  const wanted = reader.left > 0 ? reader.u32() : regency;
  reader.end();
  const cleanStop = stopped ? messages : null;
  const writes = { writesFrom, controlsFrom, superseded, bared };
  return { view, regency, wanted, base, ...writes, keptCertificate, forgotten, cleanStop };
}

function decodeWrites(reader: Reader): number[] {
  const count = counted(reader, SUPERSEDED_MAX);
  return Array.from({ length: count }, () => reader.u53());
}

function decodeForgotten(reader: Reader): { until: number | null; regency: number } {
  const known = reader.u8() === 1;
  const until = reader.u53();
  return { until: known ? until : null, regency: reader.u32() };
}

/** Empty bytes stand for none. @throws Malformed */
export function decodeCertificate(bytes: Uint8Array): Certificate | null {
  return bytes.length > 0 ? decode(certificateSchema, bytes) : null;
}

/** Empty bytes stand for none. */
export function encodeCertificate(certificate: Certificate | null): Uint8Array {
  return certificate ? encode(certificateSchema, certificate) : NO_CERTIFICATE;
}

/** The one of the higher instance, then regency; the first of equals. */
export function newerCertificate(one: Certificate | null, other: Certificate | null): Certificate | null {
  if (!one || !other) return one ?? other;
  const newer = other.instance - one.instance || other.regency - one.regency;
  return newer > 0 ? other : one;
}

function counted(reader: Reader, max: number): number {
  const count = reader.u32();
  if (count > max) throw new Malformed("TOO_LONG");
  return count;
}

const NO_CERTIFICATE = new Uint8Array(0);

/** Copies the batch once, into the value that is handed to the store. */
export function encodeInstance(
  crypto: Crypto,
  key: Uint8Array,
  record: InstanceRecord,
  by: { write: number; withControl: boolean },
): Uint8Array {
  const certificate = encodeCertificate(record.certificate);
  return seal(
    crypto,
    key,
    (writer) => {
      writer
        .u53(by.write)
        .u8(by.withControl ? 1 : 0)
        .u32(record.view)
        .u32(record.regency);
      writer.rawLatin1(record.digest).rawLatin1(record.batchDigest).bytes(certificate).u32(record.batch.length);
    },
    record.batch,
  );
}

/**
 * Checks the checksum, and the batch against `batchDigest`. Byte strings in the result are views into `value`.
 * @throws Malformed
 */
export function decodeInstance(crypto: Crypto, key: Uint8Array, value: Uint8Array): RawInstance {
  const content = value.subarray(Math.min(CHECKSUM_BYTES, value.length));
  const reader = new Reader(content);
  const write = reader.u53();
  const withControl = reader.u8() === 1;
  const view = reader.u32();
  const regency = reader.u32();
  const digest: Digest = reader.rawLatin1(32);
  const batchDigest: Digest = reader.rawLatin1(32);
  const certificateBytes = reader.bytes(CERTIFICATE_BYTES_MAX);
  const batchBytes = reader.u32();
  if (batchBytes > BATCH_BYTES_MAX) throw new Malformed("TOO_LONG");
  unseal(crypto, key, value, reader.at);
  const batch = reader.raw(batchBytes);
  reader.end();
  if (crypto.sha256(batch) !== batchDigest) throw new Malformed("BATCH_DIGEST");
  return { write, withControl, view, instance: numberOf(key), regency, digest, batchDigest, batch, certificateBytes };
}

/** @throws Malformed */
export function completeInstance(raw: RawInstance): InstanceRecord {
  const { view, instance, regency, digest, batchDigest, batch, certificateBytes } = raw;
  const certificate = decodeCertificate(certificateBytes);
  return { view, instance, regency, digest, batchDigest, batch, certificate };
}
