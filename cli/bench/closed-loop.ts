/**
 * A closed loop: every client issues its next operation when the last one is answered. Guarantees: an operation counts if it
 * ends inside the measured time; warm-up never counts; all loops have ended when the phase ends.
 */
import { createHistogram, type RecordableHistogram } from "node:perf_hooks";
import type { Operation } from "./workload.ts";

const LATENCY_US_MAX = 3_600_000_000;
const ERROR_PAUSE_MS = 50;
const TICK_MS = 100;

/** Latencies in microseconds. */
export function latencyHistogram(): RecordableHistogram {
  return createHistogram({ lowest: 1, highest: LATENCY_US_MAX, figures: 3 });
}

/** Told of the measured time as it passes. */
export interface PhaseObserver {
  begin(): void;
  end(): void;
  answered(latencyUs: number): void;
  failed(error: unknown): void;
  tick(): void;
}

export interface Phase {
  readonly operations: readonly Operation[];
  readonly warmupMs: number;
  readonly measureMs: number;
  /** Latencies of the measured operations go here, in microseconds. */
  readonly histogram: RecordableHistogram;
  /** Called when the measured time begins and ends. */
  readonly onMeasure?: { begin(): void; end(): void };
  readonly onTick?: (state: { operations: number; elapsedMs: number }) => void;
  readonly observer?: PhaseObserver | undefined;
}

export interface PhaseResult {
  readonly operations: number;
  readonly errors: number;
  readonly elapsedMs: number;
}

/** @throws what the operations throw, when the whole warm-up and measured time brought not one answer */
export async function runPhase(phase: Phase): Promise<PhaseResult> {
  const { operations, warmupMs, measureMs, histogram, onMeasure, observer } = phase;
  let measuring = false;
  let ended = false;
  let answered = 0;
  let counted = 0;
  let errors = 0;
  let lastError: unknown = null;
  const loop = async (operation: Operation): Promise<void> => {
    while (!ended) {
      const start = performance.now();
      try {
        await operation();
      } catch (error) {
        lastError = error;
        if (measuring) {
          errors += 1;
          observer?.failed(error);
        }
        await sleep(ERROR_PAUSE_MS);
        continue;
      }
      answered += 1;
      if (!measuring) continue;
      counted += 1;
      const latencyUs = Math.max(1, Math.round((performance.now() - start) * 1_000));
      histogram.record(latencyUs);
      observer?.answered(latencyUs);
    }
  };
  const loops = Promise.all(operations.map(loop));
  await sleep(warmupMs);
  onMeasure?.begin();
  observer?.begin();
  measuring = true;
  const begin = performance.now();
  const ticker = setInterval(() => {
    phase.onTick?.({ operations: counted, elapsedMs: performance.now() - begin });
    observer?.tick();
  }, TICK_MS);
  await sleep(measureMs);
  clearInterval(ticker);
  measuring = false;
  const elapsedMs = performance.now() - begin;
  observer?.end();
  onMeasure?.end();
  ended = true;
  await loops;
  if (answered === 0 && lastError !== null) throw lastError;
  return { operations: counted, errors, elapsedMs };
}

function sleep(durationMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, durationMs));
}
