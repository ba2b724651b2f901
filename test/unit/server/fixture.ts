/** Fakes for what works in the background: a clock that runs when told to, and storage in memory. */
import { encodeBatch, historyDigest } from "../../../protocol/batch.ts";
import { type Digest, utf8 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { QuorateError } from "../../../protocol/errors.ts";
import { identityFrom } from "../../../protocol/identity.ts";
import { type View, viewOf } from "../../../protocol/view.ts";
import type { Applied, InstanceRecord, Journal, StateSnapshot, StateStore } from "../../../storage/contract.ts";

export const CLUSTER = nodeCrypto.sha256(utf8("a cluster"));
export const GENESIS = nodeCrypto.sha256(utf8("genesis"));

const seed = (id: number, use: string): Uint8Array => Buffer.from(nodeCrypto.sha256(utf8(`${use} ${id}`)), "latin1");
export const identityOf = (id: number) => identityFrom(seed(id, "sign"), seed(id, "box"));
export const signerOf = (id: number) => nodeCrypto.signer(identityOf(id).signSeed);

export function viewOfSize(n: number, f = Math.floor((n - 1) / 3)): View {
  const members = Array.from({ length: n }, (_, id) => {
    const { signKey, boxKey } = identityOf(id);
    return { id, signKey, boxKey, host: "localhost", clientPort: 1, peerPort: 2, adminPort: 3 };
  });
  return viewOf(nodeCrypto, { id: 0, cluster: CLUSTER, mode: "bft", f, members, administrators: [] });
}

/** Lets everything that is ready happen. */
export async function settle(): Promise<void> {
  for (let round = 0; round < 3; round++) await new Promise((resolve) => setImmediate(resolve));
}

export class FakeClock {
  us = 1_000_000;
  /** Callbacks given to `defer` so far. */
  deferrals = 0;
  #deferred: (() => void)[] = [];
  readonly #timers: { us: number; callback: () => void }[] = [];

  nowUs(): number {
    return this.us;
  }

  wallMs(): number {
    return Math.floor(this.us / 1000);
  }

  defer(callback: () => void): void {
    this.deferrals += 1;
    this.#deferred.push(callback);
  }

  at(us: number, callback: () => void): () => void {
    const timer = { us, callback };
    this.#timers.push(timer);
    return () => {
      const index = this.#timers.indexOf(timer);
      if (index >= 0) this.#timers.splice(index, 1);
    };
  }

  get timers(): number {
    return this.#timers.length;
  }

  /** Everything that happens in the next `us`. */
  async run(us = 0): Promise<void> {
    const untilUs = this.us + us;
    for (;;) {
      await settle();
      const deferred = this.#deferred;
      this.#deferred = [];
      for (const callback of deferred) callback();
      if (deferred.length > 0) continue;
      this.#timers.sort((a, b) => a.us - b.us);
      const next = this.#timers[0];
      if (!next || next.us > untilUs) break;
      this.#timers.shift();
      this.us = Math.max(this.us, next.us);
      next.callback();
    }
    this.us = untilUs;
  }
}

export type Entries = ReadonlyMap<string, Uint8Array>;

export class MemorySnapshot implements StateSnapshot {
  readonly applied: Applied;
  readonly #entries: (readonly [string, Uint8Array])[];
  readonly #pieceEntries: number;
  closed = false;

  constructor(entries: Entries, applied: Applied, pieceEntries = 7) {
    this.applied = applied;
    this.#entries = [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
    this.#pieceEntries = pieceEntries;
  }

  async *chunks({ from, to }: { from: string; to: string }) {
    const within = this.#entries.filter(([key]) => from <= key && key < to);
    for (let at = 0; at < within.length; at += this.#pieceEntries) {
      if (this.closed) throw new Error("read after close");
      yield within.slice(at, at + this.#pieceEntries);
    }
  }

  async close(): Promise<void> {
    if (this.closed) throw new Error("closed twice");
    this.closed = true;
  }
}

/** A state store whose writes complete at once, or, when `held`, one by one by `complete`. */
export class MemoryState implements StateStore {
  readonly values = new Map<string, Uint8Array>();
  readonly notes = new Map<string, Uint8Array>();
  readonly snapshots: MemorySnapshot[] = [];
  readonly groups: number[] = [];
  applied: Applied = { instance: 0, digest: GENESIS, timestampMs: 0 };
  held = false;
  readonly #waiting: (() => void)[] = [];

  get(key: string): Uint8Array | undefined {
    return this.values.get(key);
  }

  async *chunks({ from, to }: { from: string; to: string }) {
    const sorted = [...this.values].sort(([a], [b]) => (a < b ? -1 : 1));
    for (const entry of sorted) if (from <= entry[0] && entry[0] < to) yield [entry];
  }

  async write(group: { changes: ReadonlyMap<string, Uint8Array | null>; applied: Applied }): Promise<void> {
    if (this.held) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    for (const [key, value] of group.changes) {
      if (value) this.values.set(key, Uint8Array.from(value));
      else this.values.delete(key);
    }
    this.applied = group.applied;
    this.groups.push(group.applied.instance);
  }

  get pendingWrites(): number {
    return this.#waiting.length;
  }

  async complete(): Promise<void> {
    this.#waiting.shift()?.();
    await settle();
  }

  snapshot(): MemorySnapshot {
    if (this.#waiting.length > 0) throw new Error("a group is on its way");
    const snapshot = new MemorySnapshot(this.values, this.applied);
    this.snapshots.push(snapshot);
    return snapshot;
  }

  note(name: string): Uint8Array | null {
    return this.notes.get(name) ?? null;
  }

  async writeNote(name: string, value: Uint8Array | null): Promise<void> {
    if (value) this.notes.set(name, value);
    else this.notes.delete(name);
  }

  async close(): Promise<void> {}
}

/** A journal of empty batches, or of those given. */
export class MemoryJournal implements Journal {
  records: InstanceRecord[] = [];
  base = { instance: 0, digest: GENESIS };
  logBytes = 0;
  readonly truncated: number[] = [];

  grow(count: number): void {
    for (let added = 0; added < count; added++) {
      const before = this.records.at(-1) ?? this.base;
      const instance = before.instance + 1;
      const batch = encodeBatch({ instance, timestampMs: instance, requests: [] });
      const batchDigest = nodeCrypto.sha256(batch);
      const link = { cluster: CLUSTER, instance, previous: before.digest, batchDigest };
      const digest = historyDigest(nodeCrypto, link);
      this.records.push({ view: 0, instance, regency: 0, digest, batchDigest, batch, certificate: null });
    }
  }

  get summary(): Journal["summary"] {
    throw new Error("not asked for");
  }

  get last(): number {
    return this.records.at(-1)?.instance ?? this.base.instance;
  }

  async append(): Promise<void> {}

  async read(instance: number): Promise<InstanceRecord | null> {
    return this.records.find((record) => record.instance === instance) ?? null;
  }

  async range({ from, to, maxRecords }: { from: number; to: number; maxRecords: number }): Promise<InstanceRecord[]> {
    if (from <= this.base.instance || from > this.last) return [];
    const upTo = Math.min(to, this.last, from + maxRecords - 1);
    const records = this.records.filter(({ instance }) => from <= instance && instance <= upTo);
    for (let instance = from; instance <= upTo; instance++) {
      if (records[instance - from]?.instance === instance) continue;
      throw new QuorateError("STORAGE_DAMAGED", "an instance is missing", { store: "journal", instance });
    }
    return records;
  }

  async digestAt(instance: number): Promise<Digest | null> {
    return instance === this.base.instance ? this.base.digest : ((await this.read(instance))?.digest ?? null);
  }

  async truncate(instance: number): Promise<void> {
    this.truncated.push(instance);
    const first = this.records.find((record) => record.instance === instance);
    if (!first) throw new Error(`instance ${instance} is not held`);
    const below = this.records.find((record) => record.instance === instance - 1);
    if (below) this.base = { instance: below.instance, digest: below.digest };
    this.records = this.records.filter((record) => record.instance >= instance);
  }

  async close(): Promise<void> {}
}

/** So many entries of about `bytes` each, under keys as a state has them. */
export function someEntries(count: number, bytes: number, salt = ""): Map<string, Uint8Array> {
  const entries = new Map<string, Uint8Array>();
  for (let index = 0; index < count; index++) {
    const value = new Uint8Array(bytes).fill(index);
    value.set(utf8(`${salt}${index}`).subarray(0, bytes));
    entries.set(`k${String(index).padStart(8, "0")}`, value);
  }
  return entries;
}
