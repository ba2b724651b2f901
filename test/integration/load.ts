/**
 * Writers and readers that know what must be there: one writer per key, values that only rise, every acknowledged write
 * recorded, every unknown outcome asked about. `verify` then holds the store to it: nothing acknowledged is missing, nothing
 * cancelled is there, and every put was executed exactly once (an entry's version counts its writes).
 */
import { expect } from "vitest";
import { type Kv, QuorateError, UnknownOutcomeError } from "../../client/index.ts";
import { sleep } from "./cluster.ts";

export interface LoadOptions {
  /** Each connection carries its own share of the writers. */
  readonly connections: readonly Kv<string>[];
  readonly writers: number;
  /** Prefix of the keys, so that loads do not meet. */
  readonly name?: string;
  /** Also read keys back all the time, and check that they never go back. */
  readonly readers?: number;
  readonly putTimeoutMs?: number;
  /** Errors other than unknown outcomes and missing quorums are always failures; with this, those are too. */
  readonly strict?: boolean;
  /** Characters of filling in each value. */
  readonly valueChars?: number;
  /** Pause of a writer between two puts, in milliseconds. */
  readonly pauseMs?: number;
}

interface Written {
  readonly key: string;
  /** The newest value that is known to be written, and how many were. */
  acknowledged: number;
  revision: bigint;
  executed: number;
  attempted: number;
  /** A value whose outcome nobody can tell (session gone): it may be there, for ever. */
  doubtful: number | null;
}

const RETRY: ReadonlySet<string> = new Set(["QUORUM_UNAVAILABLE", "TIMEOUT", "UNKNOWN_OUTCOME"]);

export class Load {
  acknowledged = 0;
  unknown = 0;
  cancelled = 0;
  reads = 0;
  readonly errors: unknown[] = [];
  readonly #options: LoadOptions;
  readonly #keys: Written[];
  readonly #loops: Promise<void>[];
  #stopping = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    const { writers, connections, name = "load", readers = 0 } = options;
    this.#keys = Array.from({ length: writers }, (_, index) => ({
      key: `${name}/${String(index).padStart(4, "0")}`,
      acknowledged: 0,
      revision: 0n,
      executed: 0,
      attempted: 0,
      doubtful: null,
    }));
    const connection = (index: number): Kv<string> => connections[index % connections.length] as Kv<string>;
    const loops = this.#keys.map((written, index) => this.#write(connection(index), written));
    for (let index = 0; index < readers; index++) loops.push(this.#read(connection(index), index));
    this.#loops = loops.map((loop) => loop.catch((error: unknown) => void this.errors.push(error)));
  }

  /** Ends the loops; outcomes that are unknown are asked about first, so a quorum must be up. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#loops);
  }

  /** Waits until `count` more writes are acknowledged. @throws Error after `timeoutMs` */
  async progress(count: number, timeoutMs = 30_000): Promise<void> {
    const target = this.acknowledged + count;
    const deadline = performance.now() + timeoutMs;
    while (this.acknowledged < target) {
      if (this.errors.length > 0) throw this.errors[0];
      if (performance.now() > deadline) {
        const missing = target - this.acknowledged;
        throw new Error(`${missing} of ${count} writes were not acknowledged within ${timeoutMs} ms`);
      }
      await sleep(20);
    }
  }

  /** Every key against the store, read through `kv`. Call after `stop`. */
  async verify(kv: Kv<string>): Promise<void> {
    expect(this.errors).toEqual([]);
    for (const written of this.#keys) {
      const entry = await kv.get(written.key);
      const value = entry === null ? 0 : numberIn(entry.value);
      const allowed = written.doubtful === null ? [written.acknowledged] : [written.acknowledged, written.doubtful];
      expect(allowed, `${written.key} after ${written.attempted} attempts`).toContain(value);
      if (entry === null) continue;
      expect(entry.modRevision >= written.revision, `${written.key}: revision went back`).toBe(true);
      if (written.doubtful === null) {
        expect(Number(entry.version), `${written.key}: executed exactly once`).toBe(written.executed);
      }
    }
  }

  async #write(kv: Kv<string>, written: Written): Promise<void> {
    const { putTimeoutMs = 5_000, valueChars = 40, pauseMs = 0, strict = false } = this.#options;
    const filling = "x".repeat(valueChars);
    while (!this.#stopping) {
      const value = ++written.attempted;
      try {
        const { revision } = await kv.put(written.key, `${value}:${filling}`, { timeoutMs: putTimeoutMs });
        this.#wrote(written, value, revision);
      } catch (error) {
        if (strict || !isRetriable(error)) throw error;
        if (error instanceof UnknownOutcomeError && !(await this.#resolve(kv, error, written, value))) return;
      }
      if (pauseMs > 0) await sleep(pauseMs);
    }
  }

  #wrote(written: Written, value: number, revision: bigint): void {
    expect(revision > written.revision, `${written.key}: revisions of one writer rise`).toBe(true);
    written.acknowledged = value;
    written.revision = revision;
    written.executed++;
    this.acknowledged++;
  }

  /** False when nobody can tell any more: this key is then left alone. */
  async #resolve(kv: Kv<string>, error: UnknownOutcomeError, written: Written, value: number): Promise<boolean> {
    this.unknown++;
    for (;;) {
      try {
        const outcome = await kv.outcome(error.requestId);
        if (outcome.type === "unknown") {
          written.doubtful = value;
          return false;
        }
        if (outcome.type === "cancelled") this.cancelled++;
        else {
          const { result } = outcome.type === "replied" ? outcome : { result: null };
          if (result !== null) expect(result.type).toBe("written");
          const revision = result?.type === "written" ? BigInt(result.modRevision) : written.revision + 1n;
          this.#wrote(written, value, revision);
        }
        return true;
      } catch (again) {
        if (!isRetriable(again)) throw again;
      }
    }
  }

  /** One writer per key: what a reader sees is never below what was acknowledged before, nor above what was attempted. */
  async #read(kv: Kv<string>, first: number): Promise<void> {
    for (let index = first; !this.#stopping; index = (index + 1) % this.#keys.length) {
      const written = this.#keys[index] as Written;
      const before = written.acknowledged;
      try {
        const entry = await kv.get(written.key);
        this.reads++;
        const seen = entry === null ? 0 : numberIn(entry.value);
        if (seen < before || seen > written.attempted) {
          throw new Error(`${written.key}: read ${seen}, acknowledged ${before}, attempted ${written.attempted}`);
        }
      } catch (error) {
        if (this.#options.strict || !isRetriable(error)) throw error;
      }
    }
  }
}

function numberIn(text: string): number {
  const [number, filling] = text.split(":");
  expect(filling, "the value is as it was written").toMatch(/^x*$/);
  return Number(number);
}

function isRetriable(error: unknown): boolean {
  return error instanceof QuorateError && RETRY.has(error.code);
}
