/**
 * When a leader has had its time (docs/protocol.md section 5, "Timer"). Judged are the age of the oldest request that W replicas
 * have, of a proposal without decision, of a regency without SYNC, and how long the leader lets requests wait.
 */
import { LeaderMonitor } from "./leader-monitor.ts";
import { Patience } from "./patience.ts";

/** What there is to wait for; ages count from when the regency was installed at the earliest. */
export interface Waiting {
  readonly nowUs: number;
  readonly synced: boolean;
  /** Our own leader does not suspect itself of being slow. */
  readonly leading: boolean;
  readonly oldestDueUs: number | null;
  /** We are far behind the others: as long as we catch up, what waits here says nothing about the leader. */
  readonly behind: boolean;
  readonly proposedSinceUs: number | null;
  /** After a restart: the leader owes us instances, empty ones if need be. */
  readonly abstaining: boolean;
}

export class Suspicion {
  readonly #patience: Patience;
  readonly #monitor: LeaderMonitor;
  #regencySinceUs: number | null = null;
  #decidedUs = 0;

  constructor(requestTimeoutMs: number) {
    this.#patience = new Patience(requestTimeoutMs);
    this.#monitor = new LeaderMonitor(requestTimeoutMs);
  }

  get timeoutUs(): number {
    return this.#patience.timeoutUs;
  }

  proposedAfter(delayUs: number): void {
    this.#monitor.proposed(delayUs);
  }

  decided(nowUs: number): void {
    this.#decidedUs = nowUs;
    this.#patience.decided();
  }

  regencyInstalled(nowUs: number): void {
    this.#regencySinceUs = nowUs;
    this.#patience.installed();
    this.#monitor.leaderChanged();
  }

  /** Why the next regency should be asked for, or null. */
  verdict(waiting: Waiting): string | null {
    const { nowUs } = waiting;
    this.#regencySinceUs ??= nowUs;
    const sinceUs = this.#regencySinceUs;
    const { timeoutUs } = this;
    const older = (startUs: number | null, ageUs: number): boolean =>
      startUs !== null && nowUs - Math.max(startUs, sinceUs) >= ageUs;
    if (!waiting.synced) return older(sinceUs, timeoutUs) ? "NO_SYNC" : null;
    const progressUs = waiting.behind ? this.#decidedUs : 0;
    const dueUs = waiting.oldestDueUs === null ? null : Math.max(waiting.oldestDueUs, progressUs);
    if (older(dueUs, 2 * timeoutUs)) return "REQUEST_OVERDUE";
    if (older(waiting.proposedSinceUs, 2 * timeoutUs)) return "PROPOSAL_OVERDUE";
    if (waiting.abstaining && older(this.#decidedUs, 2 * timeoutUs)) return "ABSTENTION_OVERDUE";
    return this.#monitor.slow && !waiting.leading ? "SLOW_LEADER" : null;
  }
}
