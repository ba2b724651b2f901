/**
 * What each member has shown as a leader, where leaders take turns (docs/protocol.md section 5, "Leaders in turn"). Everything in it
 * is this replica's own observation and decides only when it says STOP, so nothing of it can break agreement.
 *
 * Invariants
 *  1. A leader is compared with what the *others* sustain, so neither its own pace nor that of f liars sets its measure.
 *  2. Its lateness adds up and is paid back by instances that are quicker than allowed: however it spreads delays, it never
 *     gains more than one budget over what is allowed per instance.
 *  3. On probation are at most f members, the last that failed: of those who can be correct, enough have all patience.
 */
import type { ReplicaId } from "../../protocol/view.ts";
import { lowerMedian } from "./median.ts";

/** Instances of a leader that its pace is the median of. */
const WINDOW = 8;
/** May take as many times as long as what the others sustain. */
const TIMES_SUSTAINED = 4;
/** Shares of T: what an instance may always take, while nobody else was measured too, and what a leader may be late in all. */
const SHARE_ALWAYS_ALLOWED = 1 / 50;
const SHARE_UNCOMPARED = 1 / 10;
const SHARE_BUDGET = 1 / 2;
/** What the content of a batch may take on top: signatures, links and disks. */
const US_PER_REQUEST = 100;
const US_PER_BYTE = 0.06;
/** On probation a leader has this share of patience, and of its budget. */
export const PROBATION_PATIENCE = 1 / 16;
const PROBATION_BUDGET = 1 / 8;
/** It ends after as many instances as a turn has, and at least so many. */
const PROBATION_INSTANCES_MIN = 100;

/** One instance that a leader proposed and that was decided. */
export interface LedInstance {
  readonly leader: ReplicaId;
  /** From when it could have been proposed, with some of its requests waiting here; null when none of them was. */
  readonly startedUs: number | null;
  readonly requests: number;
  readonly bytes: number;
}

export class LeaderRecord {
  readonly #f: number;
  readonly #probationInstances: number;
  readonly #baseUs: number;
  /** What the last instances of each took. */
  readonly #times = new Map<ReplicaId, number[]>();
  readonly #lateUs = new Map<ReplicaId, number>();
  /** Who failed last, the oldest first, and how many instances each has led since. */
  readonly #failed = new Map<ReplicaId, number>();

  constructor(options: { readonly f: number; readonly rotation: number; readonly requestTimeoutMs: number }) {
    this.#f = options.f;
    this.#probationInstances = Math.max(PROBATION_INSTANCES_MIN, options.rotation);
    this.#baseUs = options.requestTimeoutMs * 1_000;
  }

  get onProbation(): readonly ReplicaId[] {
    return [...this.#failed.keys()].sort((a, b) => a - b);
  }

  isOnProbation(leader: ReplicaId): boolean {
    return this.#failed.has(leader);
  }

  /** An instance of this leader was decided, `tookUs` after it began. */
  led({ leader, requests, bytes }: LedInstance, tookUs: number | null): void {
    this.#redeem(leader);
    if (tookUs === null) return;
    const allowedUs = this.#allowedUs(leader) + requests * US_PER_REQUEST + bytes * US_PER_BYTE;
    this.#lateUs.set(leader, Math.max(0, (this.#lateUs.get(leader) ?? 0) + tookUs - allowedUs));
    this.#times.set(leader, [...(this.#times.get(leader) ?? []), tookUs].slice(-WINDOW));
  }

  #redeem(leader: ReplicaId): void {
    const since = this.#failed.get(leader);
    if (since === undefined) return;
    if (since + 1 >= this.#probationInstances) this.#failed.delete(leader);
    else this.#failed.set(leader, since + 1);
  }

  /** A regency was left while it was this member's to act. */
  failed(leader: ReplicaId): void {
    this.#lateUs.delete(leader);
    this.#failed.delete(leader);
    this.#failed.set(leader, 0);
    for (const oldest of this.#failed.keys()) {
      if (this.#failed.size <= this.#f) break;
      this.#failed.delete(oldest);
    }
  }

  /** Has it been late for longer in all than one may be? */
  isSlow(leader: ReplicaId): boolean {
    const budgetUs = this.#baseUs * SHARE_BUDGET * (this.isOnProbation(leader) ? PROBATION_BUDGET : 1);
    return (this.#lateUs.get(leader) ?? 0) > budgetUs;
  }

  /** Per instance: a few times what the others take, but no less than any machine may. */
  #allowedUs(leader: ReplicaId): number {
    const compared = [...this.#times].filter(([other, times]) => other !== leader && times.length >= WINDOW);
    const paceUs = lowerMedian(compared.flatMap(([, times]) => lowerMedian(times) ?? []));
    if (paceUs === null) return this.#baseUs * SHARE_UNCOMPARED;
    return Math.max(this.#baseUs * SHARE_ALWAYS_ALLOWED, TIMES_SUSTAINED * paceUs);
  }
}
