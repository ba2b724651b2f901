/**
 * Records for an evaluation: as many as wanted, of one size, the same in every run, and not compressible. `fill` writes all of
 * them, bundled and many at a time.
 */
import { type Kv, QuorateError } from "../../client/index.ts";

const POOL_BYTES = 4 * 1024 * 1024;
/** Puts that are issued together travel in one request. */
const BUNDLE_BYTES = 256 * 1024;
const RETRIES_MAX = 20;

export class Records {
  readonly count: number;
  readonly valueBytes: number;
  readonly #pool = new Uint8Array(POOL_BYTES);

  constructor(count: number, valueBytes: number) {
    this.count = count;
    this.valueBytes = valueBytes;
    // xorshift32: the same bytes in every run.
    let word = 0x9e37_79b9;
    for (let at = 0; at < POOL_BYTES; at++) {
      word ^= word << 13;
      word ^= word >>> 17;
      word ^= word << 5;
      this.#pool[at] = word;
    }
  }

  key(index: number): string {
    return `record/${String(index).padStart(9, "0")}`;
  }

  /** `round` makes another value of the same size. */
  value(index: number, round = 0): Uint8Array {
    const from = (index * 7_919 + round * 104_729) % (POOL_BYTES - this.valueBytes);
    return this.#pool.subarray(from, from + this.valueBytes);
  }

  /** Writes all of them. @throws QuorateError when a bundle fails again and again */
  async fill(connections: readonly Kv<Uint8Array>[], say: (text: string) => void): Promise<void> {
    const bundle = Math.max(1, Math.floor(BUNDLE_BYTES / this.valueBytes));
    let next = 0;
    let written = 0;
    let shown = 0;
    const write = async (kv: Kv<Uint8Array>): Promise<void> => {
      while (next < this.count) {
        const from = next;
        const to = Math.min(this.count, from + bundle);
        next = to;
        await this.#put(kv, from, to);
        written += to - from;
        if (written - shown < this.count / 4) continue;
        shown = written;
        say(`${written} of ${this.count} records are written\n`);
      }
    };
    await Promise.all(connections.flatMap((kv) => [write(kv), write(kv)]));
  }

  async #put(kv: Kv<Uint8Array>, from: number, to: number): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        const indexes = Array.from({ length: to - from }, (_, offset) => from + offset);
        await Promise.all(indexes.map((index) => kv.put(this.key(index), this.value(index))));
        return;
      } catch (error) {
        // Puts of the same value may be repeated.
        if (!(error instanceof QuorateError) || attempt >= RETRIES_MAX) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }
}
