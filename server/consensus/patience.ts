/**
 * How long a leader is waited for (docs/protocol.md section 5, "Timer"): T doubles with every regency that ends without a
 * decision, up to a cap, and falls back by one step with every decision. Longer waits are for whom the network slows down,
 * not for whom is gone: whoever was not heard of for long, though every member says its STATUS all the time, has T as it was
 * at first.
 */
import type { ReplicaId } from "../../protocol/view.ts";

const DOUBLINGS_MAX = 5;
/** Silent is who was not heard of for so many first T, */
const SILENT_TIMEOUTS = 4;
/** and for so many heartbeats. */
const SILENT_HEARTBEATS = 8;

export interface PatienceOptions {
  /** Nobody tells this replica of itself: it is never silent. */
  readonly self: ReplicaId;
  readonly requestTimeoutMs: number;
  readonly statusIntervalMs: number;
}

export class Patience {
  readonly #baseUs: number;
  readonly #silentUs: number;
  readonly #self: ReplicaId;
  readonly #heardUs = new Map<ReplicaId, number>();
  #firstLookUs: number | null = null;
  #doublings = 0;
  #decidedInRegency = true;

  constructor(options: PatienceOptions) {
    this.#self = options.self;
    this.#baseUs = options.requestTimeoutMs * 1000;
    const heartbeatsUs = SILENT_HEARTBEATS * options.statusIntervalMs * 1000;
    this.#silentUs = Math.max(SILENT_TIMEOUTS * this.#baseUs, heartbeatsUs);
  }

  /** T as it is now, in microseconds. */
  get timeoutUs(): number {
    return this.#baseUs * 2 ** this.#doublings;
  }

  heard(replica: ReplicaId, nowUs: number): void {
    this.#heardUs.set(replica, nowUs);
  }

  /** T for this replica. */
  timeoutOfUs(replica: ReplicaId, nowUs: number): number {
    this.#firstLookUs ??= nowUs;
    const heardUs = this.#heardUs.get(replica) ?? this.#firstLookUs;
    const silent = replica !== this.#self && nowUs - heardUs >= this.#silentUs;
    return silent ? this.#baseUs : this.timeoutUs;
  }

  decided(): void {
    this.#decidedInRegency = true;
    if (this.#doublings > 0) this.#doublings--;
  }

  /** Another regency was installed; was the one before of any use? */
  installed(): void {
    if (!this.#decidedInRegency && this.#doublings < DOUBLINGS_MAX) this.#doublings++;
    this.#decidedInRegency = false;
  }
}
