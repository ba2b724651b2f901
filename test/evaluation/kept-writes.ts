/**
 * Writers that never write a key twice, so that every acknowledged write can be looked for afterwards, one by one. Guarantees: a
 * key counts as acknowledged only when its put was answered; what failed or was never answered may be there or not.
 */
import { type Kv, QuorateError } from "../../client/index.ts";

const PREFIX = "kept/";
const PAUSE_MS = 20;

export class KeptWrites {
  readonly #kv: Kv<string>;
  readonly #acknowledged = new Set<string>();
  readonly #loops: Promise<void>[];
  /** When writes were acknowledged, by `performance.now()`. */
  readonly #momentsMs: number[] = [];
  readonly errors = new Map<string, number>();
  #stopping = false;

  constructor(kv: Kv<string>, writers: number) {
    this.#kv = kv;
    this.#momentsMs.push(performance.now());
    this.#loops = Array.from({ length: writers }, (_, writer) => this.#write(writer));
  }

  get acknowledged(): number {
    return this.#acknowledged.size;
  }

  /** The longest time without an acknowledged write that ended, or went on, between these moments. */
  longestGapMs(fromMs: number, toMs: number): number {
    let longest = 0;
    let last = this.#momentsMs[0] ?? fromMs;
    for (const moment of [...this.#momentsMs.slice(1), toMs]) {
      if (moment > fromMs && last < toMs) longest = Math.max(longest, Math.min(moment, toMs) - last);
      last = moment;
    }
    return longest;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#loops);
  }

  /** The acknowledged keys that are gone or hold another value. */
  async missing(): Promise<string[]> {
    const found = new Set<string>();
    for await (const { key, value } of this.#kv.range({ prefix: PREFIX })) if (value === key) found.add(key);
    return [...this.#acknowledged].filter((key) => !found.has(key));
  }

  async #write(writer: number): Promise<void> {
    for (let index = 0; !this.#stopping; index++) {
      const key = `${PREFIX}${writer}/${index}`;
      try {
        await this.#kv.put(key, key);
        this.#acknowledged.add(key);
        this.#momentsMs.push(performance.now());
      } catch (error) {
        if (!(error instanceof QuorateError)) throw error;
        this.errors.set(error.code, (this.errors.get(error.code) ?? 0) + 1);
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}
