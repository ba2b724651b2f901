/**
 * The records of the state store as bytes (docs/data-format.md, "State store"): every value carries a digest over key and
 * value. Those of a state under construction are the same.
 */
import { latin1, writeLatin1 } from "../protocol/bytes.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { Malformed, QuorateError } from "../protocol/errors.ts";
import { Reader, Writer } from "../protocol/layout.ts";
import type { Certificate } from "../protocol/messages.ts";
import { type ByteStore, damaged, type KeyRange, numberedKey, type StoreName } from "./byte-store.ts";
import type { Applied } from "./contract.ts";
import { CERTIFICATE_BYTES_MAX, decodeCertificate, encodeCertificate } from "./records.ts";

/** Version of the state store's layout; a change of it raises this. */
export const STATE_FORMAT = 1;

const KIND = { group: 0, entry: 1, note: 2, install: 3 } as const;
const DIGEST_BYTES = 8;

/** The keys of each kind of record that there may be many of. */
export const RANGE = {
  groups: rangeOf(KIND.group),
  notes: rangeOf(KIND.note),
  entries: rangeOf(KIND.entry),
  /** Everything but where the state stands. */
  contents: { from: Buffer.from([KIND.entry]), to: Buffer.from([0xff, 0xff]) },
} as const;

export const INSTALL_KEY: Uint8Array = Buffer.from([KIND.install]);

function rangeOf(kind: number): KeyRange {
  return { from: Buffer.from([kind]), to: Buffer.from([kind + 1]) };
}

function namedKey(kind: number, name: string): Uint8Array {
  const bytes = Buffer.allocUnsafe(1 + name.length);
  bytes[0] = kind;
  bytes.write(name, 1, "latin1");
  return bytes;
}

export function entryKey(key: string): Uint8Array {
  return namedKey(KIND.entry, key);
}

export function noteKey(name: string): Uint8Array {
  return namedKey(KIND.note, name);
}

export function groupKey(group: number): Uint8Array {
  return numberedKey(KIND.group, group);
}

/** What follows the kind in the key of an entry or a note. */
export function nameIn(key: Uint8Array): string {
  return latin1(key.subarray(1));
}

/** Where records are put together to be hashed, one after another: memory of their own would be garbage at once. */
const scratch = Buffer.allocUnsafeSlow(64 * 1024);

function scratchOf(length: number): Buffer {
  return length <= scratch.length ? scratch.subarray(0, length) : Buffer.allocUnsafe(length);
}

/** [digest][value] with digest = SHA-256(u32 key length, key, value), first 8 bytes. */
export function seal(crypto: Crypto, key: Uint8Array, value: Uint8Array): Uint8Array {
  return Uint8Array.from(sealed(crypto, key, value));
}

/** The same, valid until the next record is sealed or unsealed. */
export function sealed(crypto: Crypto, key: Uint8Array, value: Uint8Array): Uint8Array {
  const valueAt = DIGEST_BYTES + 4 + key.length;
  const bytes = scratchOf(valueAt + value.length);
  bytes.writeUInt32BE(key.length, DIGEST_BYTES);
  bytes.set(key, DIGEST_BYTES + 4);
  bytes.set(value, valueAt);
  const digest = crypto.sha256(bytes.subarray(DIGEST_BYTES)).slice(0, DIGEST_BYTES);
  writeLatin1(bytes, valueAt - DIGEST_BYTES, digest);
  return bytes.subarray(valueAt - DIGEST_BYTES);
}

/** The value behind its digest, as a view. @throws Malformed */
export function unseal(crypto: Crypto, key: Uint8Array, stored: Uint8Array): Uint8Array {
  if (stored.length < DIGEST_BYTES) throw new Malformed("TRUNCATED");
  const value = stored.subarray(DIGEST_BYTES);
  const bytes = scratchOf(4 + key.length + value.length);
  bytes.writeUInt32BE(key.length, 0);
  bytes.set(key, 4);
  bytes.set(value, 4 + key.length);
  if (crypto.sha256(bytes).slice(0, DIGEST_BYTES) !== latin1(stored.subarray(0, DIGEST_BYTES))) {
    throw new Malformed("CHECKSUM");
  }
  return value;
}

/** Runs a decoder of what was read; malformed bytes are damage. */
export function orDamagedState<T>(store: StoreName, what: string, decode: () => T): T {
  try {
    return decode();
  } catch (cause) {
    if (!(cause instanceof Malformed)) throw cause;
    throw damaged(store, `${what} does not match its digest`, {}, cause);
  }
}

/** All records of one kind, which are few: names and contents, copied. @throws QuorateError STORAGE_DAMAGED */
export async function readNamed(
  options: { store: ByteStore; name: StoreName; crypto: Crypto },
  range: KeyRange,
): Promise<Map<string, Uint8Array>> {
  const { store, name, crypto } = options;
  const found = new Map<string, Uint8Array>();
  for await (const chunk of store.chunks({ ...range, entriesMax: Number.POSITIVE_INFINITY })) {
    for (const [key, stored] of chunk) {
      const value = orDamagedState(name, "a note", () => unseal(crypto, key, stored));
      found.set(nameIn(key), Uint8Array.from(value));
    }
  }
  return found;
}

export function encodeApplied(applied: Applied): Uint8Array {
  const writer = new Writer(64).u32(STATE_FORMAT).u53(applied.instance).rawLatin1(applied.digest);
  return writer.u53(applied.timestampMs).finish();
}

/** @throws Malformed; QuorateError STORAGE_FORMAT */
export function decodeApplied(bytes: Uint8Array): Applied {
  const reader = new Reader(bytes);
  const applied = readApplied(reader);
  reader.end();
  return applied;
}

function readApplied(reader: Reader): Applied {
  const format = reader.u32();
  if (format !== STATE_FORMAT) {
    throw new QuorateError(
      "STORAGE_FORMAT",
      `the state store has format ${format}, this version reads ${STATE_FORMAT}; run the version that wrote it`,
      { store: "state", found: format, expected: STATE_FORMAT },
    );
  }
  return { instance: reader.u53(), digest: reader.rawLatin1(32), timestampMs: reader.u53() };
}

/** Says that a state was installed here in place of another one, and where it stood then. */
export interface InstallNote {
  readonly applied: Applied;
  readonly certificate: Certificate | null;
}

export function encodeInstallNote({ applied, certificate }: InstallNote): Uint8Array {
  return new Writer(256).raw(encodeApplied(applied)).bytes(encodeCertificate(certificate)).finish();
}

/** @throws Malformed; QuorateError STORAGE_FORMAT */
export function decodeInstallNote(bytes: Uint8Array): InstallNote {
  const reader = new Reader(bytes);
  const applied = readApplied(reader);
  const certificate = decodeCertificate(reader.bytes(CERTIFICATE_BYTES_MAX));
  reader.end();
  return { applied, certificate };
}

/** The note of a sound state, or null. @throws QuorateError STORAGE_DAMAGED, STORAGE_FAILED */
export function readInstallNote(store: ByteStore, crypto: Crypto, name: StoreName): InstallNote | null {
  const stored = store.get(INSTALL_KEY);
  if (!stored) return null;
  return orDamagedState(name, "the install note", () => decodeInstallNote(unseal(crypto, INSTALL_KEY, stored)));
}
