/**
 * Memory for byte strings that live together (docs/protocol.md section 6, "a bounded cache of values"). Small strings
 * are packed into slabs: one allocation per slab instead of one per value, and no value keeps a network buffer alive.
 */

const SLAB_BYTES = 64 * 1024;
const PACKED_BYTES_MAX = 4 * 1024;

/** Copies byte strings into slabs. A slab lives as long as any string in it, so strings of one arena should die together. */
export class Arena {
  #slab = new Uint8Array(0);
  #used = 0;

  copy(bytes: Uint8Array): Uint8Array {
    const { length } = bytes;
    if (length > PACKED_BYTES_MAX) return new Uint8Array(bytes);
    if (this.#used + length > this.#slab.length) {
      this.#slab = new Uint8Array(SLAB_BYTES);
      this.#used = 0;
    }
    const copy = this.#slab.subarray(this.#used, this.#used + length);
    copy.set(bytes);
    this.#used += length;
    return copy;
  }
}

/** What a Map entry and a view cost beside key and value, roughly. */
const ENTRY_BYTES = 128;

/**
 * Values by key, the recently used ones. Two generations: when the young one has taken half of `bytesMax`, the old one is
 * dropped as a whole and the young one takes its place. Each generation has an arena, so what is counted is what is held.
 */
export class ValueCache {
  readonly #generationBytesMax: number;
  #young = new Map<string, Uint8Array>();
  #old = new Map<string, Uint8Array>();
  #youngBytes = 0;
  #arena = new Arena();

  constructor(bytesMax: number) {
    this.#generationBytesMax = bytesMax / 2;
  }

  get(key: string): Uint8Array | undefined {
    const young = this.#young.get(key);
    if (young) return young;
    const old = this.#old.get(key);
    if (old) this.set(key, old);
    return old;
  }

  set(key: string, value: Uint8Array): void {
    const bytes = key.length + value.length + ENTRY_BYTES;
    if (bytes > this.#generationBytesMax) {
      this.delete(key);
      return;
    }
    if (this.#youngBytes + bytes > this.#generationBytesMax) {
      this.#old = this.#young;
      this.#young = new Map();
      this.#youngBytes = 0;
      this.#arena = new Arena();
    }
    this.#young.set(key, this.#arena.copy(value));
    this.#youngBytes += bytes;
  }

  /** Replaces a value that is held: a write alone does not say that anybody will read. */
  refresh(key: string, value: Uint8Array): void {
    if (this.#young.has(key) || this.#old.has(key)) this.set(key, value);
  }

  delete(key: string): void {
    this.#young.delete(key);
    this.#old.delete(key);
  }
}
