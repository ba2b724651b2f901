/** The shapes of the public API: options and results of `Kv`. Revisions and versions are bigints. */

import type { ReplyStatus } from "../protocol/client-frames.ts";
import type { Result } from "../protocol/commands.ts";

/** A key: text (as UTF-8) or bytes; 1 byte to 4 KiB. Keys are ordered by bytes. */
export type Key = string | Uint8Array;

/** Options of every call. */
export interface CallOptions {
  /** Ends the waiting. A write that was sent has an unknown outcome then (`UnknownOutcomeError`, code ABORTED). */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds to wait for a quorum; the connection's `timeoutMs` by default. */
  readonly timeoutMs?: number | undefined;
}

export interface WriteOptions extends CallOptions {
  /** Milliseconds since 1970 in the cluster's time: ordered later, the write is not executed (code DEADLINE). */
  readonly deadlineMs?: number | undefined;
}

export interface PutOptions extends WriteOptions {
  /** Write only if the key's modRevision is this; 0n: only if it is absent. */
  readonly ifRevision?: bigint | undefined;
  /** Write only if the key is absent. */
  readonly ifAbsent?: true | undefined;
}

export interface DeleteOptions extends WriteOptions {
  /** Delete only if the key's modRevision is this. */
  readonly ifRevision?: bigint | undefined;
}

export interface CasOptions<T> extends WriteOptions {
  /** The modRevision the key must have, or "absent". */
  readonly expect: bigint | "absent";
  readonly value: T;
}

/**
 * How much a read promises. "linearizable": a quorum's answer, which sees every write acknowledged before it. "local": one
 * replica's last executed state. It may be stale by any amount, two reads may go back in time, and a replica that lies is
 * believed; it costs one round trip to one replica and needs no quorum. Writes are always linearizable.
 */
export type Consistency = "linearizable" | "local";

export interface ReadOptions extends CallOptions {
  /** The connection's `consistency` by default. */
  readonly consistency?: Consistency | undefined;
  /** Order the read like a write, instead of asking a quorum at once. Both are linearizable; not for "local" reads. */
  readonly ordered?: boolean | undefined;
}

/** A key and its revisions. */
export interface KeyEntry {
  /** The key as text. A byte that is not UTF-8 is shown as U+FFFD: `keyBytes` is exact. */
  readonly key: string;
  readonly keyBytes: Uint8Array;
  /** The store revision at which the key was created. */
  readonly createRevision: bigint;
  /** The store revision of its last write. */
  readonly modRevision: bigint;
  /** How often it was written since it was created: 1 at first. */
  readonly version: bigint;
}

export interface Entry<T> extends KeyEntry {
  readonly value: T;
}

/** What a write left behind. `revision` is the entry's modRevision. */
export interface Written {
  readonly revision: bigint;
  readonly createRevision: bigint;
  readonly version: bigint;
}

export interface Deleted {
  /** False when there was no such key. */
  readonly deleted: boolean;
  /** The store revision after it. */
  readonly revision: bigint;
}

/** `revision` after a swap is the new modRevision; without, the key's current one (0n: absent). */
export type Swap = { readonly swapped: boolean; readonly revision: bigint };

/** Which keys: all that start with `prefix`, or those in [from, to); everything by default. */
export interface Bounds {
  readonly prefix?: Key | undefined;
  /** Included. */
  readonly from?: Key | undefined;
  /** Excluded. */
  readonly to?: Key | undefined;
}

export interface RangeOptions extends Bounds, ReadOptions {
  /** At most so many entries. */
  readonly limit?: number | undefined;
  /** From the greatest key down. */
  readonly reverse?: boolean | undefined;
  /** Leave the values out. */
  readonly keysOnly?: boolean | undefined;
}

export interface ScanOptions extends RangeOptions {
  /** Entries fetched at once; the server's page (256 KiB or 10,000 entries) by default. */
  readonly pageSize?: number | undefined;
}

export interface PageOptions extends RangeOptions {
  /** Of the previous page: go on behind it. All other options must be the same. */
  readonly continuation?: string | undefined;
}

/** One atomic page: all its entries are of one store revision. */
export interface Page<E> {
  readonly entries: E[];
  readonly revision: bigint;
  /** Where the next page begins, or null at the end. */
  readonly continuation: string | null;
}

/** What became of a write whose caller had given up. */
export type Outcome =
  /** Executed. `result` of this command: null when it is no result of the key-value service; `bytes` as received. */
  | {
      readonly type: "replied";
      readonly status: ReplyStatus;
      readonly result: Result | null;
      readonly bytes: Uint8Array;
    }
  /** Executed; its result is gone. */
  | { readonly type: "executed" }
  /** Not executed, and never will be. */
  | { readonly type: "cancelled" }
  /** The session is gone: nobody knows any more. */
  | { readonly type: "unknown" };
