/**
 * A state on disk for the length of one verification: entries in key order, values read one by one, and the root of it all
 * (docs/protocol.md section 6). Nothing in it is synced, and closing it deletes it.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { Level } from "level";
import { bytesOf, latin1 } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import {
  ChunkBuilder,
  type ChunkSummary,
  type ImageHeader,
  type ImagePlace,
  imageHeader,
} from "../../protocol/image.ts";
import type { StoredState } from "../service/contract.ts";

type Database = Level<Uint8Array, Uint8Array>;
export type ScratchChange = readonly [key: string, value: Uint8Array | null];

const ENTRIES_AT_ONCE = 1_000;

export class ScratchState implements StoredState {
  readonly #directory: string;
  readonly #level: Database;

  private constructor(directory: string, level: Database) {
    this.#directory = directory;
    this.#level = level;
  }

  /** In a new directory of its own inside `parent`. */
  static async open(parent: string): Promise<ScratchState> {
    const directory = await mkdtemp(join(parent, "quorate-verify-"));
    const level: Database = new Level(directory, { keyEncoding: "view", valueEncoding: "view", compression: false });
    await level.open();
    return new ScratchState(directory, level);
  }

  get(key: string): Uint8Array | undefined {
    return this.#level.getSync(bytesOf(key));
  }

  async write(changes: Iterable<ScratchChange>): Promise<void> {
    const batch = this.#level.batch();
    for (const [key, value] of changes) {
      if (value) batch.put(bytesOf(key), value);
      else batch.del(bytesOf(key));
    }
    await batch.write();
  }

  /** All entries in key order. */
  async *entries(): AsyncGenerator<readonly [key: string, value: Uint8Array]> {
    const iterator = this.#level.iterator({ fillCache: false });
    try {
      for (;;) {
        const pairs = await iterator.nextv(ENTRIES_AT_ONCE);
        if (pairs.length === 0) return;
        for (const [key, value] of pairs) yield [latin1(key), value];
      }
    } finally {
      await iterator.close();
    }
  }

  /** The image of the entries as they are now. */
  async header(crypto: Crypto, place: ImagePlace): Promise<ImageHeader> {
    const builder = new ChunkBuilder();
    const chunks: ChunkSummary[] = [];
    const end = (): void => {
      const chunk = builder.take();
      if (chunk) chunks.push({ digest: crypto.sha256(chunk), bytes: chunk.length });
    };
    for await (const [key, value] of this.entries()) if (builder.add(key, value)) end();
    end();
    return imageHeader(crypto, place, chunks);
  }

  async close(): Promise<void> {
    await this.#level.close();
    await rm(this.#directory, { recursive: true, force: true });
  }
}
