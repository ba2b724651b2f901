/**
 * What happened in a run: counts by name, a digest over every event (two runs of one seed must agree on it), and, when
 * somebody listens, readable lines. Without a listener no text is made.
 */
import { createHash, type Hash } from "node:crypto";
import type { Scheduler } from "./scheduler.ts";

const WORDS = 4_096;

/** What the digest keeps apart. */
export const KINDS = [
  "send",
  "receive",
  "frame",
  "link",
  "machine",
  "decide",
  "execute",
  "fault",
  "client",
  "note",
] as const;
export type Kind = (typeof KINDS)[number];

export class Trace {
  readonly counts = new Map<string, number>();
  readonly #scheduler: Scheduler;
  readonly #listener: ((line: string) => void) | null;
  readonly #hash: Hash = createHash("sha256");
  readonly #words = new Float64Array(WORDS);
  #used = 0;

  constructor(scheduler: Scheduler, listener: ((line: string) => void) | null) {
    this.#scheduler = scheduler;
    this.#listener = listener;
  }

  /**
   * One event: who (a machine or client), up to two numbers that tell it from others, and, made only when somebody listens,
   * the words for it.
   */
  event(kind: Kind, who: number, a: number, b: number, words: () => string): void {
    if (this.#used + 5 > WORDS) this.#flush();
    const at = this.#used;
    this.#words[at] = this.#scheduler.nowUs;
    this.#words[at + 1] = KINDS.indexOf(kind);
    this.#words[at + 2] = who;
    this.#words[at + 3] = a;
    this.#words[at + 4] = b;
    this.#used = at + 5;
    if (!this.#listener) return;
    const seconds = (this.#scheduler.nowUs / 1_000_000).toFixed(6).padStart(10);
    this.#listener(`${seconds}  ${words()}`);
  }

  count(name: string, by = 1): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + by);
  }

  /** The digest over all events so far, in hexadecimal digits. */
  digest(): string {
    this.#flush();
    return this.#hash.copy().digest("hex");
  }

  #flush(): void {
    this.#hash.update(new Uint8Array(this.#words.buffer, 0, this.#used * 8));
    this.#used = 0;
  }
}

/** A number that tells byte strings apart well enough for a digest of a run: their length and ends. */
export function fingerprint(bytes: Uint8Array): number {
  const { length } = bytes;
  let mixed = length;
  for (let at = Math.max(0, length - 12); at < length; at++) mixed = (Math.imul(mixed, 31) + (bytes[at] as number)) | 0;
  for (let at = 0; at < Math.min(12, length); at++) mixed = (Math.imul(mixed, 33) + (bytes[at] as number)) | 0;
  return mixed;
}
