/**
 * Notices a leader that orders everything, but late (docs/protocol.md section 5, "Performance attack"). Measured is how long
 * it lets waiting requests wait before it proposes; that does not depend on load, as throughput does. A leader is slow
 * when the median of its last proposals took longer than a quarter of T and four times what earlier leaders sustained.
 */
const WINDOW = 8;
const SHARE_OF_TIMEOUT = 1 / 4;
const TIMES_SUSTAINED = 4;

export class LeaderMonitor {
  readonly #baseUs: number;
  #delays: number[] = [];
  /** The best median of any leader before this one. */
  #sustainedUs = Number.POSITIVE_INFINITY;

  constructor(requestTimeoutMs: number) {
    this.#baseUs = requestTimeoutMs * 1000;
  }

  /** A proposal came `delayUs` after it could have been made, with requests waiting all that time. */
  proposed(delayUs: number): void {
    this.#delays.push(delayUs);
    if (this.#delays.length > WINDOW) this.#delays.shift();
  }

  get slow(): boolean {
    const median = this.#median;
    if (median === null) return false;
    const sustained = Number.isFinite(this.#sustainedUs) ? TIMES_SUSTAINED * this.#sustainedUs : 0;
    return median > Math.max(this.#baseUs * SHARE_OF_TIMEOUT, sustained);
  }

  /** Another leader: it is judged by what this one reached. */
  leaderChanged(): void {
    const median = this.#median;
    if (median !== null) this.#sustainedUs = Math.min(this.#sustainedUs, median);
    this.#delays = [];
  }

  /** Null until the window is full. */
  get #median(): number | null {
    if (this.#delays.length < WINDOW) return null;
    return [...this.#delays].sort((a, b) => a - b)[WINDOW / 2] as number;
  }
}
