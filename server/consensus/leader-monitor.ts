/**
 * Notices a leader that orders everything, but late (docs/protocol.md section 5, "Performance attack"). Measured is how long
 * it lets waiting requests wait before it proposes; that does not depend on load, as throughput does. A leader is slow
 * when the median of its last proposals took longer than a quarter of T and four times what earlier leaders sustained:
 * the median of the last few, so that neither one slow leader nor a client that tells the leader last counts for long.
 */
import { lowerMedian } from "./median.ts";

const WINDOW = 8;
const SHARE_OF_TIMEOUT = 1 / 4;
const TIMES_SUSTAINED = 4;
const LEADERS_REMEMBERED = 5;

export class LeaderMonitor {
  readonly #baseUs: number;
  #delays: number[] = [];
  /** Medians of the last leaders before this one. */
  #sustained: number[] = [];

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
    const sustainedUs = lowerMedian(this.#sustained) ?? 0;
    return median > Math.max(this.#baseUs * SHARE_OF_TIMEOUT, TIMES_SUSTAINED * sustainedUs);
  }

  /** Another leader: it is judged by what this one reached. */
  leaderChanged(): void {
    const median = this.#median;
    if (median !== null) this.#sustained = [...this.#sustained, median].slice(-LEADERS_REMEMBERED);
    this.#delays = [];
  }

  /** Null until the window is full. */
  get #median(): number | null {
    return this.#delays.length < WINDOW ? null : lowerMedian(this.#delays);
  }
}
