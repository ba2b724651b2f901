/**
 * When to send again, and how much at once (docs/protocol.md section 3): exponential back-off with jitter, capped, never below what
 * replies usually take; half as many requests in flight after each BUSY, slowly more while they are answered.
 */
import type { Clock } from "./ports.ts";

const START_MS = 200;
const CAP_MS = 5_000;
const BYTES_MISSING_MS_MIN = 50;
const PAUSE_START_MS = 50;
/** Requests in flight of each kind, at most; further commands wait and are bundled. */
const WINDOW_MAX = 64;

export class RetryPolicy {
  readonly #clock: Clock;
  /** Smoothed time from request to quorum. */
  #latencyMs = 0;
  #pauses = 0;
  #pausedUntil = 0;
  #window = WINDOW_MAX;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Until the next resend after `attempts` sends. Under load answers take longer than 200 ms: then wait longer too. */
  resendDelayMs(attempts: number): number {
    const start = Math.max(START_MS, 3 * this.#latencyMs);
    const delay = Math.min(CAP_MS, start * 2 ** Math.min(attempts - 1, 16));
    return delay * (0.75 + this.#clock.random() / 2);
  }

  /** How long the named replica may lag behind the quorum with the full result. */
  get bytesMissingDelayMs(): number {
    return Math.max(BYTES_MISSING_MS_MIN, this.#latencyMs);
  }

  /** So many requests may be in flight. */
  get window(): number {
    return this.#window;
  }

  /** A request got its answer: pauses start small again, one more may be in flight for as many as are. */
  answered(latencyMs: number | null): void {
    this.#pauses = 0;
    this.#window = Math.min(WINDOW_MAX, this.#window + 1 / this.#window);
    if (latencyMs === null) return;
    this.#latencyMs = this.#latencyMs === 0 ? latencyMs : this.#latencyMs * 0.875 + latencyMs * 0.125;
  }

  /** A weak quorum is busy: a pause, and less afterwards. */
  busy(now: number): number {
    if (!this.paused(now)) this.#window = Math.max(1, this.#window / 2);
    return this.pause(now);
  }

  /** A weak quorum is busy, or a quorum would not answer: nothing new is sent until the returned time (full jitter). */
  pause(now: number): number {
    if (now < this.#pausedUntil) return this.#pausedUntil;
    const ceiling = Math.min(CAP_MS, PAUSE_START_MS * 2 ** Math.min(this.#pauses, 16));
    this.#pauses++;
    this.#pausedUntil = now + this.#clock.random() * ceiling;
    return this.#pausedUntil;
  }

  paused(now: number): boolean {
    return now < this.#pausedUntil;
  }
}
