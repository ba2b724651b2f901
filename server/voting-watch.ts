/**
 * Whether this replica does its part. A member that does not vote is one fault the cluster stands less, and nothing else shows it: reads
 * and writes go on. Looked at once a second, so that the alarm says since when, whoever asks (docs/operations.md, NOT_VOTING).
 */
import type { Alarm, DriverLogger } from "./driver-contract.ts";

const LOOK_MS = 1_000;
/** Coming back takes a while; what takes longer than this somebody should look at. */
const PATIENCE_MS = 120_000;
/** Whose vote nobody waits for, or of whom an alarm of its own says why there is none. */
const EXCUSED: ReadonlySet<string> = new Set(["voting", "draining", "following", "disk full", "halted"]);

interface Silence {
  readonly fromMs: number;
  readonly sinceMs: number;
}

export class VotingWatch {
  readonly #logger: DriverLogger;
  #silence: Silence | null = null;
  #alarm: Alarm | null = null;

  constructor(logger: DriverLogger) {
    this.#logger = logger;
  }

  /** Null while it votes, or has not done so for a short while only. */
  get alarm(): Alarm | null {
    return this.#alarm;
  }

  /** `nowMs` never goes back, `wallMs` is what people read. */
  look({ state, nowMs, wallMs }: { readonly state: string; readonly nowMs: number; readonly wallMs: number }): void {
    if (EXCUSED.has(state)) {
      if (this.#alarm) this.#logger.info({ state }, "this replica does its part again");
      this.#silence = null;
      this.#alarm = null;
      return;
    }
    this.#silence ??= { fromMs: nowMs, sinceMs: wallMs };
    if (nowMs - this.#silence.fromMs < PATIENCE_MS) return;
    const detail = `its state is "${state}", and it does not vote: the cluster stands one fault less meanwhile`;
    if (!this.#alarm) this.#logger.warn({ state }, detail);
    this.#alarm = { code: "NOT_VOTING", detail, sinceMs: this.#silence.sinceMs };
  }
}

/** Looks while the process runs; returns a function that ends it. */
export function watchVoting(watch: VotingWatch, state: () => string): () => void {
  const look = (): void => watch.look({ state: state(), nowMs: performance.now(), wallMs: Date.now() });
  const timer = setInterval(look, LOOK_MS);
  return () => clearInterval(timer);
}
