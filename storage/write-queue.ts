/**
 * Writes in the order of the calls, one outstanding at a time; what waits meanwhile goes into the next one together (group
 * commit). After a failed write nothing is written any more: a failed fsync says nothing about what is on disk, and a
 * second one that succeeds proves nothing either (docs/protocol.md section 6).
 */
import { QuorateError } from "../protocol/errors.ts";
import { failed, type StoreName } from "./byte-store.ts";

interface Waiting<T> {
  readonly item: T;
  readonly resolve: () => void;
  readonly reject: (error: QuorateError) => void;
}

export class WriteQueue<T> {
  readonly #store: StoreName;
  readonly #bytesOf: (item: T) => number;
  readonly #bytesMax: number;
  readonly #write: (items: readonly T[]) => Promise<void>;
  #waiting: Waiting<T>[] = [];
  #writing = false;
  #refusal: QuorateError | null = null;
  #idle: (() => void)[] = [];

  /** Items are joined while their sizes add up to at most `bytesMax`; 0 writes each alone. */
  constructor(options: {
    store: StoreName;
    bytesMax: number;
    bytesOf(item: T): number;
    write(items: readonly T[]): Promise<void>;
  }) {
    this.#store = options.store;
    this.#bytesOf = options.bytesOf;
    this.#bytesMax = options.bytesMax;
    this.#write = options.write;
  }

  push(item: T): Promise<void> {
    if (this.#refusal) return Promise.reject(this.#refusal);
    const written = new Promise<void>((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
    });
    if (!this.#writing) void this.#run();
    return written;
  }

  /** Refuses whatever comes later and resolves when nothing is being written. */
  close(): Promise<void> {
    this.#refusal ??= failed(this.#store, "is closed");
    if (!this.#writing) return Promise.resolve();
    return new Promise((resolve) => {
      this.#idle.push(resolve);
    });
  }

  #take(): Waiting<T>[] {
    let count = 0;
    let bytes = 0;
    for (const { item } of this.#waiting) {
      bytes += this.#bytesOf(item);
      if (count > 0 && bytes > this.#bytesMax) break;
      count++;
    }
    return this.#waiting.splice(0, count);
  }

  /** Never rejects: every outcome goes to the callers of `push`. */
  async #run(): Promise<void> {
    this.#writing = true;
    while (this.#waiting.length > 0) {
      const group = this.#take();
      try {
        await this.#write(group.map((waiting) => waiting.item));
        for (const waiting of group) waiting.resolve();
      } catch (error) {
        this.#fail(group, error instanceof QuorateError ? error : failed(this.#store, "could not be written", error));
      }
    }
    this.#writing = false;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #fail(group: readonly Waiting<T>[], error: QuorateError): void {
    this.#refusal = failed(this.#store, "refuses writes after one failed", error);
    for (const waiting of group) waiting.reject(error);
    for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#refusal);
  }
}
