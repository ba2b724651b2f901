/**
 * The contract of durable storage (docs/protocol.md section 6): a journal, every write synced, which is also the log;
 * and the state, written behind in groups of whole instances, each group one atomic synced batch with its applied
 * instance. `test/unit/storage/contract.ts` is the suite that every implementation must pass.
 */
import type { Digest } from "../protocol/bytes.ts";
import type { Certificate } from "../protocol/messages.ts";

/** What a directory was founded for. A directory without it is a lost journal. */
export interface Founding {
  readonly cluster: Digest;
  readonly replica: number;
  readonly genesis: Digest;
}

/**
 * One instance in the journal. With a certificate it is an *accept record* (it counts as accepted once the certificate
 * verifies); without, the batch was learned as decided.
 */
export interface InstanceRecord {
  readonly view: number;
  readonly instance: number;
  /** The regency of the WRITEs in the certificate; of a decided record, the regency it was learned in. */
  readonly regency: number;
  readonly digest: Digest;
  /** SHA-256 of `batch`. */
  readonly batchDigest: Digest;
  readonly batch: Uint8Array;
  readonly certificate: Certificate | null;
}

/**
 * What `append` writes, all of it in one synced batch, in the order given. An instance record replaces an earlier one of
 * the same instance. Instances are contiguous: the next one, or one already held.
 */
export type JournalRecord =
  | ({ readonly type: "instance" } & InstanceRecord)
  | { readonly type: "regency"; readonly view: number; readonly regency: number }
  /**
   * The messages a clean stop sent beyond its accept records, encoded, to be resent exactly. It counts only while nothing
   * was written after it.
   */
  | { readonly type: "cleanStop"; readonly messages: readonly Uint8Array[] }
  /** Erases the clean-stop record: synced before any new vote. */
  | { readonly type: "started" };

/** Everything a start needs to know from the journal without its batches: how it stood when it was opened. */
export interface JournalSummary {
  readonly founding: Founding;
  /** The oldest and newest instance held, contiguous; both 0 when none is. */
  readonly first: number;
  readonly last: number;
  /** The newest accept record (highest instance that has a certificate), or null. */
  readonly newestAccepted: InstanceRecord | null;
  /** The newest journaled regency of the newest journaled view; 0 and 0 at first. */
  readonly regency: { readonly view: number; readonly regency: number };
  /** Messages of the clean-stop record (perhaps none), or null after anything but a clean stop. */
  readonly cleanStop: readonly Uint8Array[] | null;
}

export interface Journal {
  readonly summary: JournalSummary;
  /**
   * Resolves when the records are on disk. Calls are written in order; those that wait share a synced write. After one
   * failure every later call is refused with STORAGE_FAILED: an fsync is never retried. The records are read later than the
   * call: leave them unchanged until the promise settles.
   * @throws QuorateError STORAGE_FAILED, STORAGE_FULL (rejections); InvariantViolation at once on a gap
   */
  append(records: readonly JournalRecord[]): Promise<void>;
  /** The record of one instance, or null when it is not held. @throws QuorateError STORAGE_DAMAGED */
  read(instance: number): Promise<InstanceRecord | null>;
  /**
   * Records from `from` on in order, up to and including `to`, `maxRecords` or `maxBytes` of batches (at least one record);
   * none when `from` is not held. @throws QuorateError STORAGE_DAMAGED
   */
  range(options: { from: number; to: number; maxRecords: number; maxBytes: number }): Promise<InstanceRecord[]>;
  /** Resolves when what was appended before is on disk; later appends are refused. */
  close(): Promise<void>;
}

/** Where the state store stands: written in the same atomic batch as the group it closes. */
export interface Applied {
  readonly instance: number;
  readonly digest: Digest;
  readonly timestampMs: number;
}

export interface StateStore {
  /** The instance the stored state stands at, exactly; instance 0 and the genesis digest at first. */
  readonly applied: Applied;
  /**
   * The value as of the last completed write. Keys and values are byte strings; keys as latin1 strings, ordered by bytes.
   * @throws QuorateError STORAGE_DAMAGED
   */
  get(key: string): Uint8Array | undefined;
  /** Entries with from <= key < to, in order. */
  entries(options: { from: string; to: string }): AsyncIterable<readonly [key: string, value: Uint8Array]>;
  /**
   * One atomic synced batch: all changes (null deletes) of whole instances and where the state then stands. Calls are
   * written in order, each alone; only for instances whose journal records are on disk. Fails like `append`.
   * @throws QuorateError STORAGE_FAILED, STORAGE_FULL (rejections); InvariantViolation at once when instances do not rise
   */
  write(group: { changes: ReadonlyMap<string, Uint8Array | null>; applied: Applied }): Promise<void>;
  close(): Promise<void>;
}

export interface DiskUse {
  readonly journalBytes: number;
  readonly stateBytes: number;
}

/** An open data directory: locked, checked, both stores. `close` closes both. */
export interface Storage {
  readonly journal: Journal;
  readonly state: StateStore;
  diskUse(): Promise<DiskUse>;
  close(): Promise<void>;
}

/**
 * Opens a directory. `founding` is what the caller's configuration says; a directory founded for anything else is refused.
 * A directory may be founded once: while it holds the marker that `kv init` left there.
 * @throws QuorateError STORAGE_LOCKED (another server), STORAGE_UNFOUNDED (founding record missing), CLUSTER_MISMATCH,
 *   STORAGE_DAMAGED (digest, contiguity, LevelDB error), STORAGE_FORMAT (another version), STORAGE_FAILED
 */
export type OpenStorage = (options: { directory: string; founding: Founding }) => Promise<Storage>;
