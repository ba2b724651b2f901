/**
 * The state store (docs/protocol.md section 6): the service's entries, and where they stand, written in groups of whole
 * instances, each group one atomic synced batch; beside them a few notes of this replica's own.
 *
 * Invariants: 1. `applied` is in the same batch as the changes it closes. 2. Every group writes its number under a key of
 * its own and deletes that of the group before, so that a group lost in the middle leaves two of them, or none.
 * 3. Every value carries a digest over key and value, checked whenever it is read.
 */
import type { Digest } from "../protocol/bytes.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assert } from "../protocol/errors.ts";
import type { Certificate } from "../protocol/messages.ts";
import { type ByteStore, type Change, damaged, type Entry, numberOf, type StoreName } from "./byte-store.ts";
import type { Applied, StateSnapshot, StateStore } from "./contract.ts";
import {
  decodeApplied,
  encodeApplied,
  encodeInstallNote,
  entryKey,
  groupKey,
  INSTALL_KEY,
  type InstallNote,
  nameIn,
  noteKey,
  orDamagedState,
  RANGE,
  readInstallNote,
  readNamed,
  seal,
  sealed,
  unseal,
} from "./state-records.ts";
import { WriteQueue } from "./write-queue.ts";

interface Group {
  readonly changes: ReadonlyMap<string, Uint8Array | null>;
  readonly applied: Applied;
}

/** One synced write, put together when its turn comes. */
interface Write {
  batch(): Iterable<Change>;
  written(): void;
}

/** What a state store is made of. */
interface Parts {
  readonly store: ByteStore;
  readonly crypto: Crypto;
  /** What it is called in errors. */
  readonly name: StoreName;
  readonly group: number;
  readonly applied: Applied;
  readonly notes: Map<string, Uint8Array>;
  readonly installNote: InstallNote | null;
}

async function readGroups(
  store: ByteStore,
  crypto: Crypto,
  name: StoreName,
): Promise<{ group: number; applied: Applied } | null> {
  const found: { group: number; applied: Applied }[] = [];
  for await (const chunk of store.chunks({ ...RANGE.groups, entriesMax: 2 })) {
    for (const [key, stored] of chunk) {
      const decode = () => ({ group: numberOf(key), applied: decodeApplied(unseal(crypto, key, stored)) });
      found.push(orDamagedState(name, "the applied record", decode));
    }
  }
  const [only, second] = found;
  if (second) throw damaged(name, "a group between two others is missing", { instance: second.applied.instance });
  return only ?? null;
}

/** Where a store stands that holds a group, or null. @throws QuorateError STORAGE_DAMAGED, STORAGE_FORMAT, STORAGE_FAILED */
export async function standing(store: ByteStore, crypto: Crypto, name: StoreName): Promise<Applied | null> {
  return (await readGroups(store, crypto, name))?.applied ?? null;
}

export class StoredState implements StateStore {
  readonly #store: ByteStore;
  readonly #crypto: Crypto;
  readonly #name: StoreName;
  readonly #queue: WriteQueue<Write>;
  readonly #notes: Map<string, Uint8Array>;
  #group: number;
  #applied: Applied;
  #queued: number;
  /** Groups on their way. */
  #inFlight = 0;
  #installNote: InstallNote | null;

  private constructor(parts: Parts) {
    const { store, crypto, name, group, applied, notes, installNote } = parts;
    this.#store = store;
    this.#crypto = crypto;
    this.#name = name;
    this.#group = group;
    this.#applied = applied;
    this.#queued = applied.instance;
    this.#notes = notes;
    this.#installNote = installNote;
    this.#queue = new WriteQueue({
      store: name,
      bytesMax: 0,
      bytesOf: () => 1,
      write: async ([write]) => {
        if (!write) return;
        await store.write(write.batch());
        write.written();
      },
    });
  }

  /** An empty store is founded at instance 0. @throws QuorateError STORAGE_DAMAGED, STORAGE_FORMAT, STORAGE_FAILED */
  static async open(store: ByteStore, options: { crypto: Crypto; genesis: Digest }): Promise<StoredState> {
    const { crypto, genesis } = options;
    const parts = { store, crypto, name: "state" } as const;
    const at = await readGroups(store, crypto, "state");
    if (at) {
      const notes = await readNamed(parts, RANGE.notes);
      return new StoredState({ ...parts, ...at, notes, installNote: readInstallNote(store, crypto, "state") });
    }
    for await (const _ of store.chunks({ ...RANGE.contents, entriesMax: 1 })) {
      throw damaged("state", "it holds entries but not where they stand");
    }
    return StoredState.begin(parts, { applied: { instance: 0, digest: genesis, timestampMs: 0 }, changes: [] });
  }

  /** Group 0 stands at `applied`, whatever entries there are already. */
  static async begin(
    parts: { store: ByteStore; crypto: Crypto; name: StoreName },
    { applied, changes }: { applied: Applied; changes: readonly Change[] },
  ): Promise<StoredState> {
    const key = groupKey(0);
    await parts.store.write([...changes, [key, seal(parts.crypto, key, encodeApplied(applied))]]);
    await parts.store.compact(RANGE.groups);
    return new StoredState({ ...parts, group: 0, applied, notes: new Map(), installNote: null });
  }

  get applied(): Applied {
    return this.#applied;
  }

  /** Set while the journal may not begin above this state yet. */
  get installNote(): InstallNote | null {
    return this.#installNote;
  }

  get(key: string): Uint8Array | undefined {
    const bytes = entryKey(key);
    const stored = this.#store.get(bytes);
    return stored && this.#open(bytes, stored);
  }

  async *chunks({ from, to }: { from: string; to: string }): AsyncIterable<(readonly [string, Uint8Array])[]> {
    const range = { from: entryKey(from), to: entryKey(to), entriesMax: Number.POSITIVE_INFINITY };
    for await (const chunk of this.#store.chunks(range)) yield this.#opened(chunk);
  }

  write(group: Group): Promise<void> {
    assert(group.applied.instance > this.#queued, "groups of instances are written in order");
    this.#queued = group.applied.instance;
    this.#inFlight++;
    const done = () => {
      this.#inFlight--;
    };
    const written = this.#queue.push({
      batch: () => this.#batch(group),
      written: () => {
        this.#group++;
        this.#applied = group.applied;
        done();
      },
    });
    written.catch(done);
    return written;
  }

  snapshot(): StateSnapshot {
    assert(this.#inFlight === 0, "a snapshot is taken between groups");
    const applied = this.#applied;
    const snapshot = this.#store.snapshot();
    const opened = (chunk: readonly Entry[]) => this.#opened(chunk);
    return {
      applied,
      async *chunks({ from, to }) {
        for await (const chunk of snapshot.chunks({ from: entryKey(from), to: entryKey(to) })) yield opened(chunk);
      },
      close: () => snapshot.close(),
    };
  }

  note(name: string): Uint8Array | null {
    return this.#notes.get(name) ?? null;
  }

  writeNote(name: string, value: Uint8Array | null): Promise<void> {
    const content = value && Uint8Array.from(value);
    return this.#put(noteKey(name), content, () => {
      if (content) this.#notes.set(name, content);
      else this.#notes.delete(name);
    });
  }

  /** Notes that this state takes the place of the live one; the last write to it before that. */
  async writeInstallNote(certificate: Certificate | null): Promise<void> {
    const note = { applied: this.#applied, certificate };
    assert(this.#inFlight === 0, "a state is installed between groups");
    await this.#put(INSTALL_KEY, encodeInstallNote(note), () => {
      this.#installNote = note;
    });
    await this.#store.compact({ from: INSTALL_KEY, to: RANGE.contents.to });
  }

  /** The journal begins above this state, or reaches beyond where it was installed. */
  removeInstallNote(): Promise<void> {
    return this.#put(INSTALL_KEY, null, () => {
      this.#installNote = null;
    });
  }

  async close(): Promise<void> {
    await this.#queue.close();
    await this.#store.close();
  }

  #put(key: Uint8Array, content: Uint8Array | null, written: () => void): Promise<void> {
    const change: Change = [key, content && seal(this.#crypto, key, content)];
    return this.#queue.push({ batch: () => [change], written });
  }

  #opened(chunk: readonly Entry[]): (readonly [string, Uint8Array])[] {
    return chunk.map(([key, stored]) => [nameIn(key), this.#open(key, stored)] as const);
  }

  #open(key: Uint8Array, stored: Uint8Array): Uint8Array {
    try {
      return unseal(this.#crypto, key, stored);
    } catch (cause) {
      throw damaged(this.#name, "an entry does not match its digest", { key: nameIn(key) }, cause);
    }
  }

  /** Sealed one by one as they are asked for, and where the state then stands last. */
  *#batch({ changes, applied }: Group): Iterable<Change> {
    for (const [name, value] of changes) {
      const key = entryKey(name);
      yield [key, value && sealed(this.#crypto, key, value)];
    }
    const next = groupKey(this.#group + 1);
    yield [next, seal(this.#crypto, next, encodeApplied(applied))];
    yield [groupKey(this.#group), null];
  }
}
