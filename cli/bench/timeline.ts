/**
 * What happened when: answers, errors and latency per interval of a measured time, and marks of what befell the cluster.
 * Guarantees: every operation counts in exactly one interval; the intervals follow each other without holes; the longest
 * time without an answer is measured from answer to answer, not from interval to interval.
 */
import type { RecordableHistogram } from "node:perf_hooks";
import { QuorateError } from "../../protocol/errors.ts";
import { latencyHistogram, type PhaseObserver } from "./closed-loop.ts";

/** One stretch of the measured time. Times are in milliseconds since it began. */
export interface Interval {
  readonly fromMs: number;
  readonly toMs: number;
  readonly operations: number;
  readonly errors: number;
  /** Of the operations answered in it; null without any. */
  readonly p99Ms: number | null;
  /** The longest time that had passed without an answer at any moment of this interval. */
  readonly gapMs: number;
  readonly marks: readonly string[];
}

/** The longest time without an answer, and when it began. */
export interface Gap {
  readonly ms: number;
  readonly fromMs: number;
}

export interface TimelineOptions {
  readonly intervalMs: number;
  readonly now?: () => number;
  /** Called with each interval when it has ended. */
  readonly onInterval?: (interval: Interval) => void;
}

/** A measured time overshoots by a millisecond: that makes no interval. */
const REST_SHARE_MIN = 0.1;

export class Timeline implements PhaseObserver {
  readonly intervals: Interval[] = [];
  readonly errorsByCode = new Map<string, number>();
  longestGap: Gap = { ms: 0, fromMs: 0 };
  readonly #intervalMs: number;
  readonly #now: () => number;
  readonly #onInterval: (interval: Interval) => void;
  readonly #latencies: RecordableHistogram = latencyHistogram();
  #beginMs: number | null = null;
  #lastAnswerMs = 0;
  #fromMs = 0;
  #operations = 0;
  #errors = 0;
  #gapMs = 0;
  #marks: string[] = [];

  constructor(options: TimelineOptions) {
    this.#intervalMs = options.intervalMs;
    this.#now = options.now ?? (() => performance.now());
    this.#onInterval = options.onInterval ?? (() => {});
  }

  /** The measured time begins. */
  begin(): void {
    this.#beginMs = this.#now();
  }

  /** An operation was answered; those outside of the measured time are no part of it. */
  answered(latencyUs: number): void {
    const atMs = this.#advance();
    if (atMs === null) return;
    this.#operations++;
    this.#latencies.record(latencyUs);
    this.#gapUntil(atMs);
    this.#lastAnswerMs = atMs;
  }

  failed(error: unknown): void {
    if (this.#advance() === null) return;
    this.#errors++;
    const code = error instanceof QuorateError ? error.code : "OTHER";
    this.errorsByCode.set(code, (this.errorsByCode.get(code) ?? 0) + 1);
  }

  mark(text: string): void {
    if (this.#advance() !== null) this.#marks.push(text);
  }

  /** Closes the intervals that have passed although nothing happened in them. */
  tick(): void {
    this.#advance();
  }

  /** The measured time ends; the last interval is as long as what is left, unless that is next to nothing. */
  end(): void {
    const atMs = this.#advance();
    if (atMs === null) return;
    const counted = this.#operations + this.#errors + this.#marks.length > 0;
    if (counted || atMs - this.#fromMs > this.#intervalMs * REST_SHARE_MIN) this.#close(atMs);
    this.#beginMs = null;
  }

  /** Milliseconds since the beginning, with all intervals before closed; null outside of the measured time. */
  #advance(): number | null {
    if (this.#beginMs === null) return null;
    const atMs = this.#now() - this.#beginMs;
    while (atMs >= this.#fromMs + this.#intervalMs) this.#close(this.#fromMs + this.#intervalMs);
    return atMs;
  }

  #gapUntil(atMs: number): void {
    const ms = atMs - this.#lastAnswerMs;
    this.#gapMs = Math.max(this.#gapMs, ms);
    if (ms > this.longestGap.ms) this.longestGap = { ms, fromMs: this.#lastAnswerMs };
  }

  #close(toMs: number): void {
    this.#gapUntil(toMs);
    const interval: Interval = {
      fromMs: this.#fromMs,
      toMs,
      operations: this.#operations,
      errors: this.#errors,
      p99Ms: this.#operations === 0 ? null : this.#latencies.percentile(99) / 1_000,
      gapMs: this.#gapMs,
      marks: this.#marks,
    };
    this.#fromMs = toMs;
    this.#operations = 0;
    this.#errors = 0;
    this.#gapMs = 0;
    this.#marks = [];
    this.#latencies.reset();
    this.intervals.push(interval);
    this.#onInterval(interval);
  }
}

export function opsPerSecond({ operations, fromMs, toMs }: Interval): number {
  return toMs > fromMs ? (operations * 1_000) / (toMs - fromMs) : 0;
}
