/**
 * How much may wait to be ordered, and whose requests are let in when that is reached (docs/protocol.md section 8, "Admission"):
 * so much as is served in a bounded time at the pace of late, so that what is let in is answered in time and the rest learns
 * at once that it is not.
 *
 * Invariants: 1. a client that wants less than its share of what may wait is let in, whatever others want. 2. what waits is bounded by
 * time, not by memory alone. 3. which requests are let in follows from their own bytes as far as possible: replicas judge
 * alone, and a request let in by some only would wait there for nothing.
 */
import {
  BATCH_COST_EACH_MIN,
  BYTES_PER_COST,
  COMMAND_COST,
  QUEUE_COST_MIN,
  QUEUE_COST_START,
  QUEUE_CROWDED_MAX,
  QUEUE_US_MAX,
  QUEUE_US_MIN,
  REQUEST_COST,
} from "../../protocol/limits.ts";

/** Instances are smoothed over about this many. */
const SMOOTHED_OVER = 8;
/** The shortest instance of late is forgotten in about this many. */
const SHORTEST_KEPT = 4_096;
/** What is aimed at to be pending when an instance ends, as a part of what may be; deviations move `shed` by so much. */
const FILL_AIM = 0.75;
const SHED_GAIN = 0.1;
const SHED_MAX = 0.98;
/** Below this part of its share no client is turned away: there is no queue to speak of. */
const SHED_ABOVE = 0.25;
/** The fastest pace of late is forgotten in about this many instances. */
const FASTEST_KEPT = 512;
/** What one client wants beyond others may make an instance longer by its share of a short one, or this part of it. */
const LONGER_BY_MIN = 1 / 8;

export function requestCost(bytes: number, commands: number): number {
  return REQUEST_COST + commands * COMMAND_COST + Math.ceil(bytes / BYTES_PER_COST);
}

/** What one client has pending: cost, requests, and which of its requests are turned away for now. */
export interface Standing {
  readonly cost: number;
  readonly count: number;
  /** Those with a lot below it. */
  readonly shed: number;
}

/** Who wants in, and how full it is. */
export interface Applicant extends Standing {
  /** Cost of the request that wants in. */
  readonly wanted: number;
  /** In [0, 1), the same at every replica. */
  readonly lot: number;
  /** Cost of everything pending. */
  readonly total: number;
  /** Clients with something pending, this one included. */
  readonly clients: number;
}

export class Admission {
  /** Of the instances of late, the newest counting most: what they cost, how long they took, and how many they are. */
  #cost = 0;
  #us = 0;
  #shortestUs = Number.POSITIVE_INFINITY;
  #instances = 0;
  #fastest = 0;
  #decidedAtUs = 0;
  /** Was anything left waiting after the last decision? Else the time since then is idleness. */
  #backlog = false;

  /**
   * Cost per microsecond. What many instances took together, not the mean of their paces: decisions come in bursts where
   * the processor is shared, and one instance right after another would count as a thousand times the pace.
   */
  get #pace(): number {
    return this.#us === 0 ? 0 : this.#cost / this.#us;
  }

  /** Cost that may wait. */
  get capacity(): number {
    if (this.#us === 0) return QUEUE_COST_START;
    const us = Math.min(QUEUE_US_MAX, Math.max(QUEUE_US_MIN, 2 * this.#shortestUs));
    return Math.max(QUEUE_COST_MIN, us * this.#pace);
  }

  /** Cost that one of so many clients may put into a batch if others want less: they wait for all of it. */
  extra(clients: number): number {
    const longerBy = Math.max(LONGER_BY_MIN, 1 / clients);
    // Not of the mean: what one client makes longer would make room for more of it.
    const us = Number.isFinite(this.#shortestUs) ? this.#shortestUs : 0;
    return Math.max(BATCH_COST_EACH_MIN, longerBy * this.#fastest * us);
  }

  /** An instance of this cost was decided; is anything left waiting? */
  decided(instance: { cost: number; backlog: boolean; nowUs: number }): void {
    const { cost, backlog, nowUs } = instance;
    const sinceUs = nowUs - this.#decidedAtUs;
    if (this.#backlog && cost > 0 && sinceUs > 0) this.#measure(cost, sinceUs);
    this.#decidedAtUs = nowUs;
    this.#backlog = backlog;
  }

  #measure(cost: number, sinceUs: number): void {
    const kept = 1 - 1 / SMOOTHED_OVER;
    this.#cost = this.#cost * kept + cost;
    this.#us = this.#us * kept + sinceUs;
    this.#instances = this.#instances * kept + 1;
    const shortest = Math.min(this.#shortestUs, sinceUs);
    this.#shortestUs = shortest + (sinceUs - shortest) / SHORTEST_KEPT;
    // A first instance alone may be part of a burst.
    if (this.#instances >= SMOOTHED_OVER / 2) {
      this.#fastest = Math.max(this.#pace, this.#fastest * (1 - 1 / FASTEST_KEPT));
    }
  }

  /** The new `shed` of a client, judged when an instance ends, before what it decided leaves. */
  shedNext({ cost, shed, total, clients }: Pick<Applicant, "cost" | "shed" | "total" | "clients">): number {
    const { capacity } = this;
    const fill = Math.min(1, total / capacity, (cost * clients) / capacity);
    return Math.min(SHED_MAX, Math.max(0, shed + SHED_GAIN * (fill - FILL_AIM)));
  }

  admits({ wanted, lot, cost, count, shed, total, clients }: Applicant): boolean {
    const { capacity } = this;
    if (count === 0) return total + wanted <= QUEUE_CROWDED_MAX * capacity;
    const share = capacity / clients;
    if (cost + wanted <= SHED_ABOVE * share) return true;
    if (lot < shed) return false;
    return cost + wanted <= share || total + wanted <= capacity;
  }
}

/** FNV-1a over the bytes of a request that name its session and sequence, and a number: a lot in [0, 1). */
export function lotOf(name: Uint8Array, round: number): number {
  let hash = 0x811c_9dc5;
  for (const byte of name) hash = Math.imul(hash ^ byte, 0x0100_0193);
  hash = Math.imul(hash ^ (round & 0xffff), 0x0100_0193);
  // Its high bits follow the last bytes too little.
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b_3c6d);
  return ((hash ^ (hash >>> 12)) >>> 0) / 0x1_0000_0000;
}
