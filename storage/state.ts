/**
 * The state store (docs/protocol.md section 6): the service's entries, and where they stand, written in groups of whole
 * instances, each group one atomic synced batch.
 *
 * Invariants: 1. `applied` is in the same batch as the changes it closes. 2. Every group writes its number under a key of
 * its own and deletes that of the group before, so that a group lost in the middle leaves two of them, or none.
 * 3. Every value carries a digest over key and value, checked whenever it is read.
 */
import { type Digest, latin1, writeLatin1 } from "../protocol/bytes.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assert, Malformed, QuorateError } from "../protocol/errors.ts";
import { Reader, Writer } from "../protocol/layout.ts";
import { type ByteStore, type Change, damaged, numberedKey, numberOf } from "./byte-store.ts";
import type { Applied, StateStore } from "./contract.ts";
import { WriteQueue } from "./write-queue.ts";

/** Version of the state store's layout; a change of it raises this. */
export const STATE_FORMAT = 1;

const KIND_GROUP = 0;
const KIND_ENTRY = 1;
const DIGEST_BYTES = 8;

const GROUPS_FROM = Buffer.from([KIND_GROUP]);
const ENTRIES_FROM = Buffer.from([KIND_ENTRY]);
const STORE_TO = Buffer.from([0xff, 0xff]);

interface Group {
  readonly changes: ReadonlyMap<string, Uint8Array | null>;
  readonly applied: Applied;
}

function entryKey(key: string): Uint8Array {
  const bytes = Buffer.allocUnsafe(1 + key.length);
  bytes[0] = KIND_ENTRY;
  bytes.write(key, 1, "latin1");
  return bytes;
}

function groupKey(group: number): Uint8Array {
  return numberedKey(KIND_GROUP, group);
}

/** [digest][value] with digest = SHA-256(u32 key length, key, value), first 8 bytes; one allocation, one copy. */
function seal(crypto: Crypto, key: Uint8Array, value: Uint8Array): Uint8Array {
  const valueAt = DIGEST_BYTES + 4 + key.length;
  const bytes = Buffer.allocUnsafe(valueAt + value.length);
  bytes.writeUInt32BE(key.length, DIGEST_BYTES);
  bytes.set(key, DIGEST_BYTES + 4);
  bytes.set(value, valueAt);
  const digest = crypto.sha256(bytes.subarray(DIGEST_BYTES)).slice(0, DIGEST_BYTES);
  writeLatin1(bytes, valueAt - DIGEST_BYTES, digest);
  return bytes.subarray(valueAt - DIGEST_BYTES);
}

/** The value behind its digest, as a view. @throws Malformed */
function unseal(crypto: Crypto, key: Uint8Array, stored: Uint8Array): Uint8Array {
  if (stored.length < DIGEST_BYTES) throw new Malformed("TRUNCATED");
  const value = stored.subarray(DIGEST_BYTES);
  const bytes = Buffer.allocUnsafe(4 + key.length + value.length);
  bytes.writeUInt32BE(key.length, 0);
  bytes.set(key, 4);
  bytes.set(value, 4 + key.length);
  if (crypto.sha256(bytes).slice(0, DIGEST_BYTES) !== latin1(stored.subarray(0, DIGEST_BYTES))) {
    throw new Malformed("CHECKSUM");
  }
  return value;
}

function encodeApplied(applied: Applied): Uint8Array {
  const writer = new Writer(64).u32(STATE_FORMAT).u53(applied.instance).rawLatin1(applied.digest);
  return writer.u53(applied.timestampMs).finish();
}

function decodeApplied(bytes: Uint8Array): Applied {
  const reader = new Reader(bytes);
  const format = reader.u32();
  if (format !== STATE_FORMAT) {
    throw new QuorateError(
      "STORAGE_FORMAT",
      `the state store has format ${format}, this version reads ${STATE_FORMAT}; run the version that wrote it`,
      { store: "state", found: format, expected: STATE_FORMAT },
    );
  }
  const instance = reader.u53();
  const digest: Digest = reader.rawLatin1(32);
  const timestampMs = reader.u53();
  reader.end();
  return { instance, digest, timestampMs };
}

async function readGroups(store: ByteStore, crypto: Crypto): Promise<{ group: number; applied: Applied } | null> {
  const found: { group: number; applied: Applied }[] = [];
  for await (const chunk of store.chunks({ from: GROUPS_FROM, to: ENTRIES_FROM, entriesMax: 2 })) {
    for (const [key, stored] of chunk) {
      try {
        found.push({ group: numberOf(key), applied: decodeApplied(unseal(crypto, key, stored)) });
      } catch (cause) {
        if (cause instanceof Malformed)
          throw damaged("state", "the applied record does not match its digest", {}, cause);
        throw cause;
      }
    }
  }
  const [only, second] = found;
  if (second) throw damaged("state", "a group between two others is missing", { instance: second.applied.instance });
  return only ?? null;
}

export class StoredState implements StateStore {
  readonly #store: ByteStore;
  readonly #crypto: Crypto;
  readonly #queue: WriteQueue<Group>;
  #group: number;
  #applied: Applied;
  #queued: number;

  private constructor(store: ByteStore, crypto: Crypto, at: { group: number; applied: Applied }) {
    this.#store = store;
    this.#crypto = crypto;
    this.#group = at.group;
    this.#applied = at.applied;
    this.#queued = at.applied.instance;
    this.#queue = new WriteQueue({
      store: "state",
      bytesMax: 0,
      bytesOf: () => 1,
      write: ([group]) => this.#write(group as Group),
    });
  }

  /** An empty store is founded at instance 0. @throws QuorateError STORAGE_DAMAGED, STORAGE_FORMAT, STORAGE_FAILED */
  static async open(store: ByteStore, options: { crypto: Crypto; genesis: Digest }): Promise<StoredState> {
    const { crypto, genesis } = options;
    const at = await readGroups(store, crypto);
    if (at) return new StoredState(store, crypto, at);
    for await (const _ of store.chunks({ from: ENTRIES_FROM, to: STORE_TO, entriesMax: 1 })) {
      throw damaged("state", "it holds entries but not where they stand");
    }
    const applied: Applied = { instance: 0, digest: genesis, timestampMs: 0 };
    const key = groupKey(0);
    await store.write([[key, seal(crypto, key, encodeApplied(applied))]]);
    await store.settle();
    return new StoredState(store, crypto, { group: 0, applied });
  }

  get applied(): Applied {
    return this.#applied;
  }

  get(key: string): Uint8Array | undefined {
    const bytes = entryKey(key);
    const stored = this.#store.get(bytes);
    return stored && this.#open(bytes, stored);
  }

  async *entries(options: { from: string; to: string }): AsyncIterable<readonly [string, Uint8Array]> {
    const range = { from: entryKey(options.from), to: entryKey(options.to), entriesMax: Number.POSITIVE_INFINITY };
    for await (const chunk of this.#store.chunks(range)) {
      for (const [key, stored] of chunk) yield [latin1(key.subarray(1)), this.#open(key, stored)];
    }
  }

  write(group: Group): Promise<void> {
    assert(group.applied.instance > this.#queued, "groups of instances are written in order");
    this.#queued = group.applied.instance;
    return this.#queue.push(group);
  }

  async close(): Promise<void> {
    await this.#queue.close();
    await this.#store.close();
  }

  #open(key: Uint8Array, stored: Uint8Array): Uint8Array {
    try {
      return unseal(this.#crypto, key, stored);
    } catch (cause) {
      throw damaged("state", "an entry does not match its digest", { key: latin1(key.subarray(1)) }, cause);
    }
  }

  async #write({ changes, applied }: Group): Promise<void> {
    await this.#store.write(this.#batch(changes, applied));
    this.#group++;
    this.#applied = applied;
  }

  /** Sealed one by one as they are asked for, and where the state then stands last. */
  *#batch(changes: Group["changes"], applied: Applied): Iterable<Change> {
    for (const [name, value] of changes) {
      const key = entryKey(name);
      yield [key, value && seal(this.#crypto, key, value)];
    }
    const next = groupKey(this.#group + 1);
    yield [next, seal(this.#crypto, next, encodeApplied(applied))];
    yield [groupKey(this.#group), null];
  }
}
