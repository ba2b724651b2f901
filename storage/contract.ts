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
  /**
   * What this replica must not do because it lost its journal (docs/protocol.md section 4, "Lost journal"): nothing up to
   * instance `until`, and nothing in regencies below `regency`. `until` null: how far is not known yet.
   */
  | { readonly type: "forgotten"; readonly until: number | null; readonly regency: number }
  /** The end of that: synced before the first vote. */
  | { readonly type: "remembered" }
  | { readonly type: "regency"; readonly view: number; readonly regency: number }
  /** This regency is asked for: synced before the STOP that says so. */
  | { readonly type: "wanted"; readonly view: number; readonly regency: number }
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
  /** Where the records begin: the first one is of the next instance. Instance 0 and the genesis digest at first. */
  readonly base: JournalBase;
  /** The oldest and newest instance held, contiguous; both 0 when none is. */
  readonly first: number;
  readonly last: number;
  /** The newest accept record (highest instance that has a certificate), or null. */
  readonly newestAccepted: InstanceRecord | null;
  /** The newest certificate held whose record is not in the journal (any more), or null: for STOPDATA. */
  readonly keptCertificate: Certificate | null;
  /** Set while this replica has forgotten votes: see the record of that name. */
  readonly forgotten: { readonly until: number | null; readonly regency: number } | null;
  /** The newest journaled regency of the newest journaled view, and the highest one asked for there; 0 at first. */
  readonly regency: JournaledRegency;
  /** Messages of the clean-stop record (perhaps none), or null after anything but a clean stop. */
  readonly cleanStop: readonly Uint8Array[] | null;
}

export interface JournaledRegency {
  readonly view: number;
  readonly regency: number;
  readonly wanted: number;
}

/** The instance below the first record, and its history digest. */
export interface JournalBase {
  readonly instance: number;
  readonly digest: Digest;
}

export interface Journal {
  readonly summary: JournalSummary;
  /** As it stands on disk now. */
  readonly base: JournalBase;
  /** The newest instance on disk, or that of the base. */
  readonly last: number;
  /** Rough bytes of the instance records held. */
  readonly logBytes: number;
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
  /** h(instance), of a record or of the base; null when neither is held. @throws QuorateError STORAGE_DAMAGED */
  digestAt(instance: number): Promise<Digest | null>;
  /**
   * Drops the records below `instance`, which must be held and stays, in one synced write; the newest certificate among
   * them is kept. Asked in the order of appends. @throws like `append`
   */
  truncate(instance: number): Promise<void>;
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
  /** Entries with from <= key < to in order, in chunks of bounded size. @throws QuorateError STORAGE_DAMAGED */
  chunks(options: { from: string; to: string }): AsyncIterable<readonly (readonly [key: string, value: Uint8Array])[]>;
  /**
   * One atomic synced batch: all changes (null deletes) of whole instances and where the state then stands. Calls are
   * written in order, each alone; only for instances whose journal records are on disk. Fails like `append`.
   * @throws QuorateError STORAGE_FAILED, STORAGE_FULL (rejections); InvariantViolation at once when instances do not rise
   */
  write(group: { changes: ReadonlyMap<string, Uint8Array | null>; applied: Applied }): Promise<void>;
  /** The entries as of `applied`, now: no group may be on its way. */
  snapshot(): StateSnapshot;
  /** A record of this replica's own, outside the state and its root; null when there is none. */
  note(name: string): Uint8Array | null;
  /** Writes a note, or removes it (null), synced, in the order of groups. */
  writeNote(name: string, value: Uint8Array | null): Promise<void>;
  close(): Promise<void>;
}

/** The entries exactly as of one instance, whatever is written later. Closed with the store at the latest. */
export interface StateSnapshot {
  readonly applied: Applied;
  /** Entries with from <= key < to in order, in chunks of bounded size. @throws QuorateError STORAGE_DAMAGED */
  chunks(options: { from: string; to: string }): AsyncIterable<readonly (readonly [key: string, value: Uint8Array])[]>;
  close(): Promise<void>;
}

/**
 * A state under construction beside the live one, put together from the chunks of an image (protocol/image.ts). What is in it
 * survives a restart: chunks are known by their digests.
 */
export interface StagedState {
  /** Bytes of the chunks held, by digest. */
  readonly held: ReadonlyMap<Digest, number>;
  /** Drops every chunk that is not among these, with its entries. @throws like `StateStore.write` */
  retain(digests: ReadonlySet<Digest>): Promise<void>;
  /**
   * Adds verified chunks in one synced batch. False, and nothing is added, when keys of one lie between those of another:
   * no image has two such chunks, and dropping one would take entries of the other with it. @throws like `StateStore.write`
   */
  add(chunks: readonly StagedChunk[]): Promise<boolean>;
  /**
   * All chunks are here: from now on it is a state store that stands at `applied`. Closed without `install`, it is of no use
   * any more, and the next one begins empty. @throws like `StateStore.write`
   */
  complete(applied: Applied): Promise<StateStore>;
  close(): Promise<void>;
}

export interface StagedChunk {
  readonly digest: Digest;
  readonly bytes: number;
  readonly entries: readonly (readonly [key: string, value: Uint8Array])[];
}

export interface DiskUse {
  readonly journalBytes: number;
  readonly stateBytes: number;
  /** Of the state under construction. */
  readonly stagingBytes: number;
  /** Of everything damaged that was ever set aside. */
  readonly asideBytes: number;
}

/** Something found damaged or missing at open, and what was done about it. */
export interface Repair {
  readonly store: "journal" | "state";
  readonly reason: string;
  /** Where the damaged store lies now, relative to the data directory; null when there was nothing to set aside. */
  readonly setAside: string | null;
}

/** An open data directory: locked, checked, both stores. `close` closes everything opened through it. */
export interface Storage {
  readonly journal: Journal;
  /**
   * Where `state.applied.instance + 1 < journal.base.instance + 1`, the journal does not reach down to the state: it has
   * to be replaced by one from the other replicas.
   */
  readonly state: StateStore;
  /** What open had to set aside or found missing; empty after a sound start. */
  readonly repairs: readonly Repair[];
  /** Opens, or goes on with, the state under construction. One at a time. */
  stage(): Promise<StagedState>;
  /** Deletes whatever is under construction. */
  unstage(): Promise<void>;
  /**
   * Closes everything, puts the staged state in the place of the live one, and leaves the directory so that the next open
   * finds the journal beginning above it, with `certificate` kept. Atomic: a crash leaves the old state or the new one.
   */
  install(certificate: Certificate | null): Promise<void>;
  /**
   * Damage met at run time: closes everything and sets that store aside; the next open finds it missing and begins it anew.
   * Resolves with where it lies now, as `Repair.setAside` says.
   */
  condemn(store: "journal" | "state"): Promise<string | null>;
  diskUse(): Promise<DiskUse>;
  /** A store whose files do not lie any more where they were opened, the journal first; null while both do. Never rejects. */
  lost(): Promise<"journal" | "state" | null>;
  close(): Promise<void>;
}

/**
 * Opens a directory. `founding` is what the caller's configuration says; a directory founded for anything else is refused.
 * A directory may be founded as new once: while it holds the marker that `kv init` left there. What is damaged is set aside,
 * never deleted, and begun anew: a journal as *forgotten*, based where the state stands; a state at instance 0.
 * @throws QuorateError STORAGE_LOCKED (another server), CLUSTER_MISMATCH, STORAGE_FORMAT (another version),
 *   STORAGE_FULL, STORAGE_FAILED
 */
export type OpenStorage = (options: { directory: string; founding: Founding }) => Promise<Storage>;
