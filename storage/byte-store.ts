/**
 * The narrow floor under both stores: ordered bytes, one atomic synced batch at a time. LevelDB provides it in
 * production and memory in the simulator, so that `StoredJournal` and `StoredState` are the same code in both.
 */
import { QuorateError } from "../protocol/errors.ts";
import { Reader } from "../protocol/layout.ts";

/** `staging` is a state under construction. */
export type StoreName = "journal" | "state" | "staging";

/** A value of `null` deletes the key. */
export type Change = readonly [key: Uint8Array, value: Uint8Array | null];
export type Entry = readonly [key: Uint8Array, value: Uint8Array];

export interface KeyRange {
  readonly from: Uint8Array;
  readonly to: Uint8Array;
}

/** The bytes as they stood when it was taken, whatever is written later. Gone when its store closes. */
export interface ByteSnapshot {
  /** Entries with from <= key < to in key order, in chunks of at most 512 entries and about 256 KiB. @throws QuorateError */
  chunks(range: KeyRange): AsyncIterable<readonly Entry[]>;
  close(): Promise<void>;
}

export interface ByteStore {
  /** The value as it stood after the last completed write; blocks while it is read. @throws QuorateError */
  get(key: Uint8Array): Uint8Array | undefined;
  /**
   * Entries with from <= key < to in key order, at most `entriesMax` in all, in chunks of bounded memory, none of them
   * empty. @throws QuorateError
   */
  chunks(range: KeyRange & { entriesMax: number }): AsyncIterable<readonly Entry[]>;
  snapshot(): ByteSnapshot;
  /**
   * One atomic batch, on disk when the promise resolves. The bytes of a change must not change until the next one is asked
   * for: they are copied then. A long batch is put together in slices, so that the event loop goes on. At most one write may
   * be outstanding.
   * @throws QuorateError STORAGE_FULL, STORAGE_FAILED
   */
  write(changes: Iterable<Change>): Promise<void>;
  /**
   * Moves what was written so far out of reach of a damaged log (for LevelDB: into a table) and gives back the room of what
   * was deleted in the range. Reads and writes go on meanwhile.
   */
  compact(range: KeyRange): Promise<void>;
  /** Bytes on disk. */
  sizeBytes(): Promise<number>;
  /** Do its files still lie where they were opened? What was deleted or replaced goes on being written to, for nothing. */
  present(): Promise<boolean>;
  close(): Promise<void>;
}

/** Of every store of ours: no key begins with this byte. */
export const WHOLE_STORE: KeyRange = { from: Buffer.from([0]), to: Buffer.from([0xff]) };

const NUMBERED_KEY_BYTES = 9;

/** One byte of kind, then the number in eight bytes big-endian: keys of a kind are in the order of their numbers. */
export function numberedKey(kind: number, number: number): Uint8Array {
  const key = Buffer.allocUnsafe(NUMBERED_KEY_BYTES);
  key[0] = kind;
  key.writeUInt32BE(Math.floor(number / 0x1_0000_0000), 1);
  key.writeUInt32BE(number >>> 0, 5);
  return key;
}

/** The number in a numbered key. @throws Malformed */
export function numberOf(key: Uint8Array): number {
  const reader = new Reader(key);
  reader.u8();
  const number = reader.u53();
  reader.end();
  return number;
}

/** What happens about damage: nothing that anybody has to do by hand. */
const REMEDY: Readonly<Record<StoreName, string>> = {
  journal: "it is set aside, and this replica does not vote until the others have shown what it may have forgotten",
  state: "it is set aside and rebuilt from the journal or from the other replicas",
  staging: "it is thrown away, and the transfer begins again",
};

export function damaged(
  store: StoreName,
  what: string,
  detail: Readonly<Record<string, unknown>> = {},
  cause?: unknown,
): QuorateError {
  return new QuorateError(
    "STORAGE_DAMAGED",
    `the ${store} store is damaged: ${what}; ${REMEDY[store]}`,
    { store, ...detail },
    cause,
  );
}

export function failed(store: StoreName, what: string, cause?: unknown): QuorateError {
  return new QuorateError("STORAGE_FAILED", `the ${store} store ${what}; the replica has to stop`, { store }, cause);
}
