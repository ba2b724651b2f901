/**
 * A state under construction (docs/protocol.md section 6, "Large gap or empty disk"): verified chunks of an image, each
 * written with its entries in one synced batch, so that a chunk is there whole or not at all. Once completed it is a state
 * store like the live one. Chunks held together never overlap, whatever a manifest says: dropping one would else take
 * entries of another with it.
 *
 * Nothing but entries is written, in key order, so that LevelDB only moves its tables. Which chunks are held is found out
 * again by cutting what is there into chunks: where they end depends on the keys alone (protocol/image.ts).
 */
import type { Digest } from "../protocol/bytes.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assert } from "../protocol/errors.ts";
import { ChunkBuilder } from "../protocol/image.ts";
import type { ByteStore, Change } from "./byte-store.ts";
import type { Applied, StagedChunk, StagedState } from "./contract.ts";
import { StoredState, standing } from "./state.ts";
import { entryKey, nameIn, orDamagedState, RANGE, readInstallNote, sealed, unseal } from "./state-records.ts";
import { WriteQueue } from "./write-queue.ts";

/** What is dropped is deleted in batches of about this many changes, whole chunks each. */
const DROP_CHANGES = 4_096;

/** Where a chunk lies; `span` null when it has no entries. */
interface ChunkNote {
  readonly bytes: number;
  readonly span: { readonly first: string; readonly last: string } | null;
}

export class StoredStaging implements StagedState {
  readonly #store: ByteStore;
  readonly #crypto: Crypto;
  readonly #notes: Map<Digest, ChunkNote>;
  readonly #held: Map<Digest, number>;
  /** Of the chunks held. */
  #spans: Spans;
  readonly #queue: WriteQueue<() => Promise<void>>;
  #state: StoredState | null = null;
  #closed = false;

  private constructor(store: ByteStore, crypto: Crypto, notes: Map<Digest, ChunkNote>) {
    this.#store = store;
    this.#crypto = crypto;
    this.#notes = notes;
    this.#held = new Map([...notes].map(([digest, { bytes }]) => [digest, bytes]));
    this.#spans = new Spans(notes.values());
    this.#queue = new WriteQueue({
      store: "staging",
      bytesMax: 0,
      bytesOf: () => 1,
      write: async ([job]) => job?.(),
    });
  }

  /**
   * Null when it was completed: entries have changed since, and which of them is not known.
   * @throws QuorateError STORAGE_DAMAGED, STORAGE_FAILED
   */
  static async open(store: ByteStore, crypto: Crypto): Promise<StoredStaging | null> {
    if (readInstallNote(store, crypto, "staging") || (await standing(store, crypto, "staging"))) return null;
    return new StoredStaging(store, crypto, await chunksIn(store, crypto));
  }

  get held(): ReadonlyMap<Digest, number> {
    return this.#held;
  }

  /** The state store it became, or null. */
  get completed(): StoredState | null {
    return this.#state;
  }

  retain(digests: ReadonlySet<Digest>): Promise<void> {
    return this.#queue.push(() => this.#retain(digests));
  }

  async add(chunks: readonly StagedChunk[]): Promise<boolean> {
    let fit = true;
    await this.#queue.push(async () => {
      const added = chunks.filter(({ digest }) => !this.#notes.has(digest));
      const notes = added.map((chunk) => [chunk.digest, noteOf(chunk)] as const);
      fit = notes.every(([, note]) => this.#spans.add(note));
      if (!fit) {
        this.#spans = new Spans(this.#notes.values());
        return;
      }
      if (notes.length > 0) await this.#store.write(this.#added(added));
      for (const [digest, note] of notes) {
        this.#notes.set(digest, note);
        this.#held.set(digest, note.bytes);
      }
    });
    return fit;
  }

  async complete(applied: Applied): Promise<StoredState> {
    assert(this.#state === null, "a state is completed once");
    await this.#queue.push(async () => {
      const parts = { store: this.#store, crypto: this.#crypto, name: "staging" } as const;
      this.#state = await StoredState.begin(parts, { applied, changes: [] });
    });
    await this.#queue.close();
    return this.#state as unknown as StoredState;
  }

  /** Another one may be opened in its place. */
  get closed(): boolean {
    return this.#closed;
  }

  async close(): Promise<void> {
    await this.#queue.close();
    if (this.#state) await this.#state.close();
    else await this.#store.close();
    this.#closed = true;
  }

  async #retain(digests: ReadonlySet<Digest>): Promise<void> {
    let changes: Change[] = [];
    let dropped: Digest[] = [];
    const flush = async () => {
      if (changes.length > 0) await this.#store.write(changes);
      for (const digest of dropped) {
        this.#notes.delete(digest);
        this.#held.delete(digest);
      }
      changes = [];
      dropped = [];
    };
    for (const [digest, note] of [...this.#notes]) {
      if (digests.has(digest)) continue;
      for await (const key of this.#keysOf(note)) changes.push([key, null]);
      dropped.push(digest);
      if (changes.length >= DROP_CHANGES) await flush();
    }
    await flush();
    this.#spans = new Spans(this.#notes.values());
  }

  async *#keysOf({ span }: ChunkNote): AsyncIterable<Uint8Array> {
    if (!span) return;
    const range = { from: entryKey(span.first), to: entryKey(`${span.last}\0`) };
    for await (const chunk of this.#store.chunks({ ...range, entriesMax: Number.POSITIVE_INFINITY })) {
      for (const [key] of chunk) yield key;
    }
  }

  *#added(chunks: readonly StagedChunk[]): Iterable<Change> {
    for (const chunk of chunks) {
      for (const [name, value] of chunk.entries) {
        const key = entryKey(name);
        yield [key, sealed(this.#crypto, key, value)];
      }
    }
  }
}

/** Cuts the entries that are there into chunks. What lay between chunks that were not held is in one that nobody wants. */
async function chunksIn(store: ByteStore, crypto: Crypto): Promise<Map<Digest, ChunkNote>> {
  const notes = new Map<Digest, ChunkNote>();
  const builder = new ChunkBuilder();
  let last = "";
  const end = (): void => {
    const { firstKey } = builder;
    const chunk = builder.take();
    if (chunk) notes.set(crypto.sha256(chunk), { bytes: chunk.length, span: { first: firstKey, last } });
  };
  for await (const entries of store.chunks({ ...RANGE.entries, entriesMax: Number.POSITIVE_INFINITY })) {
    for (const [key, stored] of entries) {
      const value = orDamagedState("staging", "an entry", () => unseal(crypto, key, stored));
      last = nameIn(key);
      if (builder.add(last, value)) end();
    }
  }
  end();
  return notes;
}

/** Entries of a chunk are in key order. */
function noteOf({ bytes, entries }: StagedChunk): ChunkNote {
  const first = entries[0];
  const last = entries.at(-1);
  return { bytes, span: first && last ? { first: first[0], last: last[0] } : null };
}

/** Spans of keys that do not overlap, in order. */
class Spans {
  readonly #spans: { readonly first: string; readonly last: string }[];

  constructor(notes: Iterable<ChunkNote>) {
    this.#spans = [...notes].flatMap(({ span }) => span ?? []).sort((a, b) => (a.first < b.first ? -1 : 1));
  }

  /** False, and it is not added, when it overlaps one of them. */
  add({ span }: ChunkNote): boolean {
    if (!span) return true;
    let at = 0;
    for (let end = this.#spans.length; at < end; ) {
      const middle = (at + end) >> 1;
      if ((this.#spans[middle]?.first ?? "") <= span.first) at = middle + 1;
      else end = middle;
    }
    const before = this.#spans[at - 1];
    const after = this.#spans[at];
    if ((before && before.last >= span.first) || (after && after.first <= span.last)) return false;
    this.#spans.splice(at, 0, span);
    return true;
  }
}
