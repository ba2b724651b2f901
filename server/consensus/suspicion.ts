/**
 * When a leader has had its time (docs/protocol.md section 5, "Timer" and "Leaders in turn"). Judged are the age of the oldest
 * request that W replicas have, of a proposal without decision, of a regency without SYNC, and how long the leader lets
 * requests wait. Ages count from when this leader, or this regency, began: nobody answers for the one before.
 */
import type { ReplicaId } from "../../protocol/view.ts";
import { LeaderMonitor } from "./leader-monitor.ts";
import { type LeaderRecord, type LedInstance, PROBATION_PATIENCE } from "./leader-record.ts";
import { Patience, type PatienceOptions } from "./patience.ts";

/** Whoever serves others so often while a client waits neglects that client. */
const SERVED_OTHERS = 8;
/** And for this share of T. */
const NEGLECTED_SHARE = 1 / 2;
/** Where leaders take turns, requests are forwarded after this share of T, so that a neglected client has its witnesses by then. */
const FORWARD_SHARE = 1 / 4;
/** For its SYNC a member on probation has this share of T: it takes more than a proposal does. */
const PROBATION_SYNC_SHARE = 1 / 4;

/** What there is to wait for; ages count from when the regency was installed at the earliest. */
export interface Waiting {
  readonly nowUs: number;
  readonly synced: boolean;
  /** Whose turn it is to act: the leader, or while there is no SYNC the synchronizer. */
  readonly acting: ReplicaId;
  /** Our own leader does not suspect itself of being slow. */
  readonly leading: boolean;
  readonly oldestDueUs: number | null;
  /** Since when a client, whose oldest request enough others have, has not been served; only where leaders take turns. */
  readonly neglectedSinceUs: number | null;
  /** We are far behind the others: as long as we catch up, what waits here says nothing about the leader. */
  readonly behind: boolean;
  readonly proposedSinceUs: number | null;
  /** After a restart: the leader owes us instances, empty ones if need be. */
  readonly abstaining: boolean;
}

export class Suspicion {
  readonly #patience: Patience;
  readonly #monitor: LeaderMonitor;
  /** Where leaders take turns. */
  readonly #record: LeaderRecord | null;
  #regencySinceUs: number | null = null;
  #leaderSinceUs = 0;
  #decidedUs = 0;
  /** When this leader's last instances with requests were decided. */
  #servedUs: number[] = [];

  constructor(options: PatienceOptions, record: LeaderRecord | null) {
    this.#patience = new Patience(options);
    this.#monitor = new LeaderMonitor(options.requestTimeoutMs);
    this.#record = record;
  }

  get timeoutUs(): number {
    return this.#patience.timeoutUs;
  }

  /** After how long a waiting request is forwarded to all, when it is this replica's turn to act. */
  forwardAfterUs(acting: ReplicaId, nowUs: number): number {
    return this.#patience.timeoutOfUs(acting, nowUs) * (this.#record ? FORWARD_SHARE : 1);
  }

  /** A member gives a sign of life in this view. */
  heard(replica: ReplicaId, nowUs: number): void {
    this.#patience.heard(replica, nowUs);
  }

  get onProbation(): readonly ReplicaId[] {
    return this.#record?.onProbation ?? [];
  }

  isOnProbation(replica: ReplicaId): boolean {
    return this.#record?.isOnProbation(replica) ?? false;
  }

  proposedAfter(delayUs: number): void {
    this.#monitor.proposed(delayUs);
  }

  /** An instance was decided; `led` says what its leader made of it, unless it came with a SYNC or from the log. */
  decided(nowUs: number, led: LedInstance | null): void {
    this.#decidedUs = nowUs;
    this.#patience.decided();
    if (!led || !this.#record) return;
    const { startedUs, requests } = led;
    this.#record.led(led, startedUs === null ? null : nowUs - Math.max(startedUs, this.#leaderSinceUs));
    if (requests > 0) this.#servedUs = [...this.#servedUs, nowUs].slice(-SERVED_OTHERS);
  }

  /** A turn is over: the next leader's begins. */
  handedOver(nowUs: number): void {
    this.#leaderSinceUs = nowUs;
    this.#servedUs = [];
  }

  /** `failed`: whose turn it was to act, if that can be told. */
  regencyInstalled(nowUs: number, failed: ReplicaId | null): void {
    this.#regencySinceUs = nowUs;
    this.#patience.installed();
    this.#monitor.leaderChanged();
    if (failed !== null) this.#record?.failed(failed);
    this.handedOver(nowUs);
  }

  /** Why the next regency should be asked for, or null. */
  verdict(waiting: Waiting): string | null {
    const { nowUs } = waiting;
    this.#regencySinceUs ??= nowUs;
    const regencySinceUs = this.#regencySinceUs;
    const sinceUs = Math.max(regencySinceUs, this.#leaderSinceUs);
    const probation = this.isOnProbation(waiting.acting);
    const fullUs = this.#patience.timeoutOfUs(waiting.acting, nowUs);
    const timeoutUs = fullUs * (probation ? PROBATION_PATIENCE : 1);
    const older = (startUs: number | null, ageUs: number): boolean =>
      startUs !== null && nowUs - Math.max(startUs, sinceUs) >= ageUs;
    if (!waiting.synced) {
      const patienceUs = fullUs * (probation ? PROBATION_SYNC_SHARE : 1);
      return nowUs - regencySinceUs >= patienceUs ? "NO_SYNC" : null;
    }
    const progressUs = waiting.behind ? this.#decidedUs : 0;
    const dueUs = waiting.oldestDueUs === null ? null : Math.max(waiting.oldestDueUs, progressUs);
    if (older(dueUs, 2 * timeoutUs)) return "REQUEST_OVERDUE";
    if (older(waiting.proposedSinceUs, 2 * timeoutUs)) return "PROPOSAL_OVERDUE";
    if (waiting.abstaining && older(this.#decidedUs, 2 * fullUs)) return "ABSTENTION_OVERDUE";
    if (!this.#record) return this.#monitor.slow && !waiting.leading ? "SLOW_LEADER" : null;
    if (waiting.leading || waiting.behind) return null;
    if (this.#neglects(waiting, older)) return "CLIENT_NEGLECTED";
    return this.#record.isSlow(waiting.acting) ? "SLOW_LEADER" : null;
  }

  /** A client has waited for long while this leader went on serving others: it leaves that client out. */
  #neglects({ neglectedSinceUs }: Waiting, older: (startUs: number | null, ageUs: number) => boolean): boolean {
    const [first] = this.#servedUs;
    if (neglectedSinceUs === null || first === undefined) return false;
    if (this.#servedUs.length < SERVED_OTHERS || first < neglectedSinceUs) return false;
    return older(neglectedSinceUs, this.timeoutUs * NEGLECTED_SHARE);
  }
}
