/**
 * A disk in memory: the production journal and state store over bytes that survive crashes of the replica, with the faults
 * of real disks on demand. A write reaches the disk when the scheduler says so; a crash before that keeps or loses it
 * (docs/protocol.md sections 4 and 6). Deterministic: no clock, no randomness of its own.
 */
import { type Digest, latin1 } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { assert, QuorateError } from "../../protocol/errors.ts";
import {
  type ByteSnapshot,
  type ByteStore,
  type Change,
  type Entry,
  failed,
  type KeyRange,
  type StoreName,
} from "../../storage/byte-store.ts";
import type { Founding, Storage } from "../../storage/contract.ts";
import type { Directory, Place } from "../../storage/directory.ts";
import { openDirectory } from "../../storage/open.ts";

const CHUNK_ENTRIES = 64;

/** More deletions than this in one write are taken out of the order together. */
const SINGLE_DELETIONS_MAX = 16;

/** Sorted bytes by latin1 key. */
class Medium {
  keys: string[] = [];
  values = new Map<string, Uint8Array>();
  /** Keys that the newest write put. */
  newest: ReadonlySet<string> = new Set();
  /** The generation that holds it open, or -1. */
  lockedBy = -1;

  /** Values are never changed in place, so that a copy may share them. */
  copy(): Medium {
    const copy = new Medium();
    copy.keys = [...this.keys];
    copy.values = new Map(this.values);
    copy.newest = this.newest;
    return copy;
  }

  apply(changes: readonly Change[]): void {
    const gone: string[] = [];
    const put = new Set<string>();
    for (const [bytes, value] of changes) {
      const key = latin1(bytes);
      const known = this.values.has(key);
      if (value !== null) {
        if (!known) this.#insert(key, gone);
        this.values.set(key, value);
        put.add(key);
      } else if (known) {
        this.values.delete(key);
        gone.push(key);
      }
    }
    this.newest = put;
    if (gone.length > SINGLE_DELETIONS_MAX) this.keys = this.keys.filter((key) => this.values.has(key));
    else for (const key of gone) if (!this.values.has(key)) this.keys.splice(this.from(key), 1);
  }

  get bytes(): number {
    let bytes = 0;
    for (const [key, value] of this.values) bytes += key.length + value.length;
    return bytes;
  }

  /** A key deleted in the same write is still in the order. */
  #insert(key: string, gone: string[]): void {
    const again = gone.indexOf(key);
    if (again >= 0) gone.splice(again, 1);
    else this.keys.splice(this.from(key), 0, key);
  }

  /** Position of the first key at or above `key`. */
  from(key: string): number {
    let low = 0;
    let high = this.keys.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.keys[middle] as string) < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

type FaultCode = "ENOSPC" | "EIO";

interface PendingWrite {
  /** Writes of a disk are numbered from 1, those of all stores and of the directory together. */
  readonly number: number;
  reach(): void;
}

/** Everything on a disk: its stores, what was set aside, and whether it may be founded. */
interface Contents {
  readonly media: Map<string, Medium>;
  readonly marked: boolean;
}

/** What a disk held at one moment. Opaque: for `restore`. */
export interface DiskCopy {
  readonly contents: Contents;
}

export interface SimulatedDiskOptions {
  /** Must be the one that the replica's history digests come from. */
  readonly crypto?: Crypto;
  /** Called with the completion of each write; by default it runs as a microtask. */
  readonly schedule?: (complete: () => void) => void;
}

export class SimulatedDisk {
  readonly #crypto: Crypto;
  readonly #schedule: (complete: () => void) => void;
  /** By place; what was set aside by its path. */
  #media = new Map<string, Medium>();
  #marked = true;
  /** Raised by a crash: stores of an earlier generation are dead. */
  #generation = 0;
  readonly #pending = new Set<PendingWrite>();
  readonly #faults = new Map<number, { code: FaultCode; reachesDisk: boolean }>();
  readonly #lost = new Set<number>();
  #full = false;
  /** Values that `flipByte` left, by identity. */
  readonly #flipped = new Set<Uint8Array>();
  #writes = 0;

  constructor(options: SimulatedDiskOptions = {}) {
    this.#crypto = options.crypto ?? nodeCrypto;
    this.#schedule = options.schedule ?? queueMicrotask;
  }

  /** As `OpenStorage`; a new disk is prepared for whatever it is founded for first. */
  open(options: { founding: Founding }): Promise<Storage> {
    const { founding } = options;
    return openDirectory(this.#directory(founding.cluster), { founding, crypto: this.#crypto });
  }

  /** Writes started so far; the next one has this number plus one. */
  get writes(): number {
    return this.#writes;
  }

  /** Writes that were started and not completed. */
  get pendingWrites(): number {
    return this.#pending.size;
  }

  /**
   * The replica is gone at once: its open storage never answers again. Of the writes not completed those are on the disk
   * that `keep` says (by number); each is atomic, a torn one is as good as lost.
   */
  crash(options: { keep: "none" | "all" | ((write: number) => boolean) }): void {
    const { keep } = options;
    for (const pending of this.#pending) {
      if (keep === "all" || (keep !== "none" && keep(pending.number))) pending.reach();
    }
    this.#pending.clear();
    this.#generation++;
  }

  /**
   * Makes the `nth` write from now on fail (1: the next). With `reachesDisk` the bytes are there nevertheless, as after a
   * failed fsync.
   */
  failWrite(options: { nth: number; code: FaultCode; reachesDisk?: boolean }): void {
    this.#faults.set(this.#writes + options.nth, { code: options.code, reachesDisk: options.reachesDisk ?? false });
  }

  /** Makes the `nth` write from now on get lost though it is acknowledged, as writes in the middle of a damaged log do. */
  loseWrite(options: { nth: number }): void {
    this.#lost.add(this.#writes + options.nth);
  }

  /** From now on the disk is full: every write fails (ENOSPC), until `mend`. */
  fill(): void {
    this.#full = true;
  }

  get full(): boolean {
    return this.#full;
  }

  /** The disk is sound and has room: forgets every `failWrite` and `loseWrite` that did not happen yet. */
  mend(): void {
    this.#faults.clear();
    this.#lost.clear();
    this.#full = false;
  }

  /** What is on the disk now. */
  copy(): DiskCopy {
    return { contents: this.#copyOf({ media: this.#media, marked: this.#marked }) };
  }

  /** The disk is as it was when the copy was taken: an old backup, or a virtual machine rolled back. The replica is gone. */
  restore({ contents }: DiskCopy): void {
    this.crash({ keep: "none" });
    const { media, marked } = this.#copyOf(contents);
    this.#media = media;
    this.#marked = marked;
  }

  /** Paths of what was set aside, in order. */
  get aside(): readonly string[] {
    return [...this.#media.keys()].filter((path) => path.startsWith("aside/"));
  }

  holds(place: Place): boolean {
    return this.#media.has(place);
  }

  /** Records of a store in key order: what `flipByte` and `dropRecord` count by. */
  records(store: StoreName): number {
    return this.#media.get(store)?.keys.length ?? 0;
  }

  /** Inverts the bits of `mask` in one byte of a stored value. */
  flipByte(options: { store: StoreName; record: number; byte: number; mask?: number }): void {
    const { medium, key } = this.#record(options);
    const value = Uint8Array.from(medium.values.get(key) as Uint8Array);
    const at = options.byte % value.length;
    value[at] = (value[at] as number) ^ (options.mask ?? 0xff);
    medium.values.set(key, value);
    this.#flipped.add(value);
  }

  /** No byte that was flipped lies in a store of the replica any more: what was set aside harms nobody. */
  get sound(): boolean {
    if (this.#flipped.size === 0) return true;
    for (const [path, { values }] of this.#media) {
      if (path.startsWith("aside/")) continue;
      for (const value of values.values()) if (this.#flipped.has(value)) return false;
    }
    this.#flipped.clear();
    return true;
  }

  /** Did the record come with the newest write of its store? */
  isNewest(options: { store: StoreName; record: number }): boolean {
    const { medium, key } = this.#record(options);
    return medium.newest.has(key);
  }

  /** Loses one record without a trace, as LevelDB does with damaged ones. */
  dropRecord(options: { store: StoreName; record: number }): void {
    const { medium, key } = this.#record(options);
    medium.apply([[Buffer.from(key, "latin1"), null]]);
  }

  /** An empty disk in place of the old one, without the marker that allows its founding. */
  lose(): void {
    this.crash({ keep: "none" });
    this.#media = new Map();
    this.#marked = false;
  }

  /** The state store alone is gone. */
  loseState(): void {
    assert(this.#media.get("state")?.lockedBy !== this.#generation, "the disk is not in use");
    this.#media.delete("state");
  }

  #copyOf({ media, marked }: Contents): Contents {
    return { media: new Map([...media].map(([path, medium]) => [path, medium.copy()])), marked };
  }

  #record(options: { store: StoreName; record: number }): { medium: Medium; key: string } {
    const medium = this.#media.get(options.store);
    const key = medium?.keys[options.record];
    assert(medium && key !== undefined, "the record exists");
    return { medium, key };
  }

  #directory(cluster: Digest): Directory {
    const generation = this.#generation;
    /** Of a crashed replica nothing reaches the disk any more, and it hears nothing. */
    const change = (reach: () => void): Promise<void> =>
      generation === this.#generation ? this.#write("state", reach, { needsRoom: false }) : new Promise(() => {});
    const move = (from: string, to: string) => () => {
      const medium = this.#media.get(from);
      assert(medium && !this.#media.has(to), "a store is renamed to where none is");
      this.#media.delete(from);
      this.#media.set(to, medium);
    };
    return {
      marker: async () => (this.#marked ? { cluster } : null),
      removeMarker: async () => {
        if (generation !== this.#generation) return new Promise(() => {});
        this.#marked = false;
      },
      exists: async (place) => this.#media.has(place),
      open: async (store) => {
        if (generation !== this.#generation) return new Promise(() => {});
        const medium = this.#media.get(store) ?? new Medium();
        if (medium.lockedBy === generation)
          throw new QuorateError("STORAGE_LOCKED", "the simulated disk is in use", { store });
        this.#media.set(store, medium);
        medium.lockedBy = generation;
        return this.#storeOf(store, medium);
      },
      move: (from, to) => change(move(from, to)),
      setAside: async (place) => {
        if (!this.#media.has(place)) return null;
        let number = 1;
        while (this.#media.has(`aside/${place}-${number}`)) number++;
        await change(move(place, `aside/${place}-${number}`));
        return `aside/${place}-${number}`;
      },
      remove: async (place) => {
        if (this.#media.has(place)) await change(() => this.#media.delete(place));
      },
      sizeBytes: async (what) => {
        let bytes = 0;
        for (const [path, medium] of this.#media) if (path.split("/")[0] === what) bytes += medium.bytes;
        return bytes;
      },
    };
  }

  #storeOf(store: StoreName, medium: Medium): ByteStore {
    const generation = this.#generation;
    let closed = false;
    const assertAlive = () => {
      if (closed || generation !== this.#generation) throw failed(store, "is closed, or its replica crashed");
    };
    return {
      get: (key) => {
        assertAlive();
        return medium.values.get(latin1(key));
      },
      chunks: (range) => chunksOf(medium, range, { assertAlive, entriesMax: range.entriesMax }),
      snapshot: () => {
        assertAlive();
        return snapshotOf(medium, assertAlive, () => failed(store, "snapshot is closed"));
      },
      write: (changes) => {
        // A crashed replica hears nothing any more, not even an error.
        if (generation !== this.#generation) return new Promise(() => {});
        assertAlive();
        const all = Array.from(changes, ([key, value]) => [Buffer.from(key), value && Buffer.from(value)] as const);
        return this.#write(store, () => medium.apply(all), { needsRoom: true });
      },
      compact: async () => {},
      sizeBytes: async () => medium.bytes,
      present: async () => true,
      close: async () => {
        if (!closed && generation === this.#generation) medium.lockedBy = -1;
        closed = true;
      },
    };
  }

  #write(store: StoreName, reach: () => void, { needsRoom }: { needsRoom: boolean }): Promise<void> {
    const pending: PendingWrite = { number: ++this.#writes, reach };
    this.#pending.add(pending);
    return new Promise((resolve, reject) => {
      this.#schedule(() => {
        if (!this.#pending.delete(pending)) return;
        const fault = this.#full && needsRoom ? NO_ROOM : this.#faults.get(pending.number);
        if ((!fault || fault.reachesDisk) && !this.#lost.has(pending.number)) pending.reach();
        if (!fault) resolve();
        else if (fault.code === "EIO") reject(failed(store, "could not be written (EIO)"));
        else reject(new QuorateError("STORAGE_FULL", `the disk under the ${store} store is full`, { store }));
      });
    });
  }
}

const NO_ROOM = { code: "ENOSPC", reachesDisk: false } as const;

/** What is written while they are being read is seen or not; what is written to a copy is not. */
async function* chunksOf(
  medium: Medium,
  range: KeyRange,
  options: { assertAlive(): void; entriesMax: number },
): AsyncIterable<readonly Entry[]> {
  const to = latin1(range.to);
  let next = latin1(range.from);
  let left = options.entriesMax;
  while (left > 0) {
    options.assertAlive();
    const chunk = entriesFrom(medium, next, to, Math.min(CHUNK_ENTRIES, left));
    if (chunk.length === 0) return;
    left -= chunk.length;
    next = `${latin1((chunk.at(-1) as Entry)[0])}\0`;
    yield chunk;
  }
}

function snapshotOf(medium: Medium, storeAlive: () => void, closedError: () => QuorateError): ByteSnapshot {
  const copy = medium.copy();
  let closed = false;
  const assertAlive = () => {
    storeAlive();
    if (closed) throw closedError();
  };
  return {
    chunks: (range) => chunksOf(copy, range, { assertAlive, entriesMax: Number.POSITIVE_INFINITY }),
    close: async () => {
      closed = true;
    },
  };
}

function entriesFrom(medium: Medium, from: string, to: string, count: number): Entry[] {
  const entries: Entry[] = [];
  for (let at = medium.from(from); entries.length < count; at++) {
    const key = medium.keys[at];
    if (key === undefined || key >= to) break;
    entries.push([Buffer.from(key, "latin1"), medium.values.get(key) as Uint8Array]);
  }
  return entries;
}
