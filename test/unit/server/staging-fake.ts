/** A storage in memory of which only the staged state can be used, and the live state's place. */
import type { Digest } from "../../../protocol/bytes.ts";
import { InvariantViolation } from "../../../protocol/errors.ts";
import type { Applied, Journal, StagedChunk, StagedState, StateStore, Storage } from "../../../storage/contract.ts";

type Entry = readonly [key: string, value: Uint8Array];

const unused = (): never => {
  throw new InvariantViolation("a transfer has no use for this");
};

function sorted(entries: ReadonlyMap<string, Uint8Array>): Entry[] {
  return [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
}

class FakeState implements StateStore {
  readonly entriesByKey: Map<string, Uint8Array>;
  applied: Applied;
  closed = false;

  constructor(entries: ReadonlyMap<string, Uint8Array>, applied: Applied) {
    this.entriesByKey = new Map(entries);
    this.applied = applied;
  }

  get(key: string): Uint8Array | undefined {
    return this.entriesByKey.get(key);
  }

  async *chunks(): AsyncIterable<Entry[]> {
    for (const [key, value] of sorted(this.entriesByKey)) yield [[key, Buffer.from(value)]];
  }

  async write(group: { changes: ReadonlyMap<string, Uint8Array | null>; applied: Applied }): Promise<void> {
    await Promise.resolve();
    for (const [key, value] of group.changes) {
      if (value) this.entriesByKey.set(key, new Uint8Array(value));
      else this.entriesByKey.delete(key);
    }
    this.applied = group.applied;
  }

  snapshot() {
    const entries = sorted(this.entriesByKey);
    const { applied } = this;
    async function* chunks(): AsyncIterable<readonly Entry[]> {
      for (let at = 0; at < entries.length; at += 4) yield entries.slice(at, at + 4);
    }
    return { applied, chunks, close: async () => {} };
  }

  readonly notes = new Map<string, Uint8Array>();

  note(name: string): Uint8Array | null {
    return this.notes.get(name) ?? null;
  }

  async writeNote(name: string, value: Uint8Array | null): Promise<void> {
    if (value) this.notes.set(name, value);
    else this.notes.delete(name);
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

export class FakeStorage implements Storage {
  readonly chunks = new Map<Digest, StagedChunk>();
  /** Synced writes of chunks. */
  writes: number[] = [];
  completed: FakeState | null = null;
  #open = false;
  readonly state: StateStore;
  readonly repairs = [];

  constructor(genesis: Digest) {
    this.state = new FakeState(new Map(), { instance: 0, digest: genesis, timestampMs: 0 });
  }

  /** Begins above the state: a transfer cannot be done without. */
  readonly journal = { base: { instance: 1, digest: "" } } as unknown as Journal;

  async stage(): Promise<StagedState> {
    if (this.#open) throw new InvariantViolation("one staged state at a time");
    this.#open = true;
    const { chunks } = this;
    return {
      get held() {
        return new Map([...chunks].map(([digest, chunk]) => [digest, chunk.bytes]));
      },
      retain: async (digests) => {
        for (const digest of [...chunks.keys()]) if (!digests.has(digest)) chunks.delete(digest);
      },
      add: async (added) => {
        this.writes.push(added.reduce((sum, chunk) => sum + chunk.bytes, 0));
        for (const chunk of added) chunks.set(chunk.digest, chunk);
        return true;
      },
      complete: async (applied) => {
        const entries = new Map([...chunks.values()].flatMap((chunk) => chunk.entries));
        this.completed = new FakeState(entries, applied);
        return this.completed;
      },
      close: async () => {
        this.#open = false;
      },
    };
  }

  unstage = unused;
  install = unused;
  condemn = unused;
  diskUse = unused;
  lost = unused;

  async close(): Promise<void> {}
}
