/**
 * A disk in memory: the production journal and state store over bytes that survive crashes of the replica, with the faults
 * of real disks on demand. A write reaches the disk when the scheduler says so; a crash before that keeps or loses it
 * (docs/protocol.md sections 4 and 6). Deterministic: no clock, no randomness of its own.
 */
import { type Digest, latin1 } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { assert, QuorateError } from "../../protocol/errors.ts";
import { type ByteStore, type Change, type Entry, failed, type StoreName } from "../../storage/byte-store.ts";
import type { Founding, Storage } from "../../storage/contract.ts";
import { type Directory, openDirectory } from "../../storage/open.ts";

const CHUNK_ENTRIES = 64;

/** Sorted bytes by latin1 key. */
class Medium {
  readonly keys: string[] = [];
  readonly values = new Map<string, Uint8Array>();

  apply(changes: readonly Change[]): void {
    for (const [bytes, value] of changes) {
      const key = latin1(bytes);
      const known = this.values.has(key);
      if (value === null) {
        if (known) this.keys.splice(this.from(key), 1);
        this.values.delete(key);
      } else {
        if (!known) this.keys.splice(this.from(key), 0, key);
        this.values.set(key, value);
      }
    }
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
  /** Writes of a disk are numbered from 1, both stores together. */
  readonly number: number;
  readonly store: StoreName;
  readonly changes: readonly Change[];
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
  #media: Record<StoreName, Medium | null> = { journal: null, state: null };
  #marked = true;
  /** Raised by a crash: stores of an earlier generation are dead. */
  #generation = 0;
  readonly #locked = new Set<StoreName>();
  readonly #pending = new Set<PendingWrite>();
  readonly #faults = new Map<number, { code: FaultCode; reachesDisk: boolean }>();
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
      if (keep === "all" || (keep !== "none" && keep(pending.number))) this.#reach(pending);
    }
    this.#pending.clear();
    this.#locked.clear();
    this.#generation++;
  }

  /**
   * Makes the `nth` write from now on fail (1: the next). With `reachesDisk` the bytes are there nevertheless, as after a
   * failed fsync.
   */
  failWrite(options: { nth: number; code: FaultCode; reachesDisk?: boolean }): void {
    this.#faults.set(this.#writes + options.nth, { code: options.code, reachesDisk: options.reachesDisk ?? false });
  }

  /** Forgets every `failWrite` that did not happen yet. */
  mend(): void {
    this.#faults.clear();
  }

  /** Records of a store in key order: what `flipByte` and `dropRecord` count by. */
  records(store: StoreName): number {
    return this.#media[store]?.keys.length ?? 0;
  }

  /** Inverts the bits of `mask` in one byte of a stored value. */
  flipByte(options: { store: StoreName; record: number; byte: number; mask?: number }): void {
    const { medium, key } = this.#record(options);
    const value = Uint8Array.from(medium.values.get(key) as Uint8Array);
    const at = options.byte % value.length;
    value[at] = (value[at] as number) ^ (options.mask ?? 0xff);
    medium.values.set(key, value);
  }

  /** Loses one record without a trace, as LevelDB does with damaged ones. */
  dropRecord(options: { store: StoreName; record: number }): void {
    const { medium, key } = this.#record(options);
    medium.apply([[Buffer.from(key, "latin1"), null]]);
  }

  /** An empty disk in place of the old one: never to be founded again. */
  lose(): void {
    this.crash({ keep: "none" });
    this.#media = { journal: null, state: null };
    this.#marked = false;
  }

  /** The state store alone is set aside. */
  loseState(): void {
    assert(!this.#locked.has("state"), "the disk is not in use");
    this.#media.state = null;
  }

  #record(options: { store: StoreName; record: number }): { medium: Medium; key: string } {
    const medium = this.#media[options.store];
    const key = medium?.keys[options.record];
    assert(medium && key !== undefined, "the record exists");
    return { medium, key };
  }

  #directory(cluster: Digest): Directory {
    return {
      marker: async () => (this.#marked ? { cluster } : null),
      removeMarker: async () => {
        this.#marked = false;
      },
      open: async (store, { create }) => {
        if (this.#locked.has(store))
          throw new QuorateError("STORAGE_LOCKED", "the simulated disk is in use", { store });
        const medium = this.#media[store] ?? (create ? new Medium() : null);
        if (!medium) return null;
        this.#media[store] = medium;
        this.#locked.add(store);
        return this.#storeOf(store, medium);
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
      async *chunks(range) {
        const to = latin1(range.to);
        let next = latin1(range.from);
        let left = range.entriesMax;
        while (left > 0) {
          assertAlive();
          const chunk = entriesFrom(medium, next, to, Math.min(CHUNK_ENTRIES, left));
          if (chunk.length === 0) return;
          left -= chunk.length;
          next = `${latin1((chunk.at(-1) as Entry)[0])}\0`;
          yield chunk;
        }
      },
      write: (changes) => {
        // A crashed replica hears nothing any more, not even an error.
        if (generation !== this.#generation) return new Promise(() => {});
        assertAlive();
        return this.#write(store, [...changes]);
      },
      settle: async () => {},
      sizeBytes: async () => {
        let bytes = 0;
        for (const [key, value] of medium.values) bytes += key.length + value.length;
        return bytes;
      },
      close: async () => {
        if (!closed && generation === this.#generation) this.#locked.delete(store);
        closed = true;
      },
    };
  }

  #write(store: StoreName, changes: readonly Change[]): Promise<void> {
    const pending: PendingWrite = { number: ++this.#writes, store, changes };
    this.#pending.add(pending);
    return new Promise((resolve, reject) => {
      this.#schedule(() => {
        if (!this.#pending.delete(pending)) return;
        const fault = this.#faults.get(pending.number);
        if (!fault || fault.reachesDisk) this.#reach(pending);
        if (!fault) resolve();
        else if (fault.code === "EIO") reject(failed(store, "could not be written (EIO)"));
        else reject(new QuorateError("STORAGE_FULL", `the disk under the ${store} store is full`, { store }));
      });
    });
  }

  #reach(pending: PendingWrite): void {
    this.#media[pending.store]?.apply(pending.changes);
  }
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
