/**
 * A steady load: puts begin at a fixed rate whatever becomes of those before, as those of many independent clients do. Latency
 * counts from when a put was due, so that a stall is seen by everything that was due during it.
 */
import { type Kv, QuorateError } from "../../client/index.ts";
import type { Records } from "./records.ts";

/** Puts under way at most: the load of a cluster that stands still does not grow for ever. */
const UNDER_WAY_MAX = 4_000;
const TICK_MS = 5;

interface Sample {
  readonly dueMs: number;
  readonly latencyMs: number;
}

export interface Latencies {
  readonly count: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export class PacedLoad {
  readonly errors = new Map<string, number>();
  readonly #connections: readonly Kv<Uint8Array>[];
  readonly #records: Records;
  readonly #perSecond: number;
  readonly #samples: Sample[] = [];
  readonly #underWay = new Set<Promise<void>>();
  readonly #startedMs = performance.now();
  readonly #timer: NodeJS.Timeout;
  #issued = 0;

  constructor(options: { connections: readonly Kv<Uint8Array>[]; records: Records; perSecond: number }) {
    this.#connections = options.connections;
    this.#records = options.records;
    this.#perSecond = options.perSecond;
    this.#timer = setInterval(() => this.#issue(), TICK_MS);
  }

  /** Of the puts that were due between these moments (`performance.now()`). */
  latencies(fromMs: number, toMs: number): Latencies {
    const sorted = this.#samples.filter(({ dueMs }) => dueMs >= fromMs && dueMs < toMs).map((one) => one.latencyMs);
    sorted.sort((a, b) => a - b);
    const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
    const perSecond = (sorted.length * 1_000) / Math.max(1, toMs - fromMs);
    return { count: sorted.length, perSecond, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: sorted.at(-1) ?? 0 };
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#underWay);
  }

  #issue(): void {
    const due = ((performance.now() - this.#startedMs) * this.#perSecond) / 1_000;
    while (this.#issued < due && this.#underWay.size < UNDER_WAY_MAX) {
      const dueMs = this.#startedMs + (this.#issued * 1_000) / this.#perSecond;
      const put = this.#put(this.#issued++, dueMs).finally(() => this.#underWay.delete(put));
      this.#underWay.add(put);
    }
  }

  async #put(number: number, dueMs: number): Promise<void> {
    const kv = this.#connections[number % this.#connections.length] as Kv<Uint8Array>;
    const index = Math.floor(Math.random() * this.#records.count);
    try {
      await kv.put(this.#records.key(index), this.#records.value(index, number));
      this.#samples.push({ dueMs, latencyMs: performance.now() - dueMs });
    } catch (error) {
      if (!(error instanceof QuorateError)) throw error;
      this.errors.set(error.code, (this.errors.get(error.code) ?? 0) + 1);
    }
  }
}

/** Puts per second that `clients` achieve, each beginning the next when the last is answered. */
export async function peakOf(options: {
  connections: readonly Kv<Uint8Array>[];
  records: Records;
  clients: number;
  warmupMs: number;
  measureMs: number;
}): Promise<number> {
  const { connections, records, clients, warmupMs, measureMs } = options;
  const beganMs = performance.now() + warmupMs;
  const endMs = beganMs + measureMs;
  let counted = 0;
  const loop = async (client: number): Promise<void> => {
    const kv = connections[client % connections.length] as Kv<Uint8Array>;
    for (let round = client; performance.now() < endMs; round++) {
      const index = Math.floor(Math.random() * records.count);
      await kv.put(records.key(index), records.value(index, round));
      const nowMs = performance.now();
      if (nowMs >= beganMs && nowMs < endMs) counted++;
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, client) => loop(client)));
  return (counted * 1_000) / measureMs;
}
