/**
 * Computes the image of a state (protocol/image.ts) from a snapshot, in the background: in slices of a few milliseconds, one
 * image at a time, and with a pause as long as each slice while this replica has requests to serve (docs/protocol.md
 * section 6: "in slices, one at a time, without stopping service").
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { assert } from "../../protocol/errors.ts";
import {
  ChunkBuilder,
  type ChunkSummary,
  encodeManifest,
  type ImageHeader,
  imageHeader,
  rootOf,
} from "../../protocol/image.ts";
import type { View } from "../../protocol/view.ts";
import type { StateSnapshot } from "../../storage/contract.ts";
import { type PaceClock, pause } from "./pause.ts";

/** A slice ends after so much time or so many bytes. */
const SLICE_US = 4_000;
const SLICE_BYTES = 256 * 1024;
/** Time is looked at once per so many entries. */
const ENTRIES_PER_LOOK = 16;
/** Time of a slice that was spent waiting for the disk, or for others, is not paused for. */
const PAUSE_US_MAX = 2 * SLICE_US;

/** Above every key of a state: each begins with the letter of its name space. */
export const KEYS_END = "\u00ff";

export interface Image {
  readonly header: ImageHeader;
  readonly root: Digest;
  readonly manifest: Uint8Array;
  /** The first key of each chunk: where to read it again. */
  readonly firstKeys: readonly string[];
}

export interface ImageBuilderParts {
  readonly crypto: Crypto;
  readonly view: View;
  readonly clock: PaceClock;
  /** There are requests to serve. */
  readonly busy: () => boolean;
}

export class ImageBuilder {
  readonly #parts: ImageBuilderParts;
  /** Resolves when the builds asked for so far are over. */
  #queue: Promise<unknown> = Promise.resolve();
  #stopped = false;

  constructor(parts: ImageBuilderParts) {
    this.#parts = parts;
  }

  /**
   * The image of a snapshot, which stays open; null when `stop` came first. Builds that are asked for meanwhile wait.
   * @throws QuorateError STORAGE_DAMAGED (rejection)
   */
  build(snapshot: StateSnapshot): Promise<Image | null> {
    const built = this.#queue.then(() => this.#build(snapshot));
    this.#queue = built.catch(() => null);
    return built;
  }

  /** The root of a snapshot alone. */
  async rootOfState(snapshot: StateSnapshot): Promise<Digest | null> {
    return (await this.build(snapshot))?.root ?? null;
  }

  stop(): void {
    this.#stopped = true;
  }

  async #build(snapshot: StateSnapshot): Promise<Image | null> {
    const { crypto, view, clock } = this.#parts;
    const builder = new ChunkBuilder();
    const chunks: ChunkSummary[] = [];
    const firstKeys: string[] = [];
    const take = (): void => {
      const chunk = builder.take();
      if (!chunk) return;
      firstKeys.push(builder.firstKey);
      chunks.push({ digest: crypto.sha256(chunk), bytes: chunk.length });
    };
    let sinceUs = clock.nowUs();
    let sliceBytes = 0;
    let looked = 0;
    for await (const entries of snapshot.chunks({ from: "", to: KEYS_END })) {
      for (const [key, value] of entries) {
        if (builder.add(key, value)) take();
        sliceBytes += key.length + value.length;
        const late = ++looked % ENTRIES_PER_LOOK === 0 && clock.nowUs() - sinceUs >= SLICE_US;
        if (!late && sliceBytes < SLICE_BYTES) continue;
        await this.#breathe(clock.nowUs() - sinceUs);
        if (this.#stopped) return null;
        sinceUs = clock.nowUs();
        sliceBytes = 0;
      }
      if (this.#stopped) return null;
    }
    if (this.#stopped) return null;
    take();
    assert(firstKeys.length === chunks.length, "every chunk has a first key");
    const header = imageHeader(crypto, snapshot.applied, chunks);
    return { header, root: rootOf(crypto, view, header), manifest: encodeManifest(chunks), firstKeys };
  }

  #breathe(workedUs: number): Promise<void> {
    return pause(this.#parts.clock, this.#parts.busy() ? Math.min(Math.max(workedUs, 1), PAUSE_US_MAX) : 0);
  }
}
