/**
 * Which pending requests are late, and since when (docs/protocol.md sections 4.1, 5 and 8): no leader is blamed for what waits
 * behind others that are served alike, or whose client owes for results (debts.ts), as long as instances are decided.
 *
 * Invariant: what is late here is late at every correct replica that has it, but for when it arrived there.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { DEBT_MS_MAX } from "../../protocol/limits.ts";
import type { ClientQueue, PendingRequest } from "./client-queue.ts";

/** The drain time of a queue is believed up to here, in microseconds. */
const DRAIN_US_MAX = 10_000_000;
/** Entries looked at to find the oldest one that counts. */
const OLDEST_SCAN_MAX = 1_024;
/** A client that has more pending than others waits for its turn: no leader is blamed meanwhile, at most so long. */
const TURN_US_MAX = 10_000_000;
/** And one that owes for results, so long, or as long as all that it has pending may take. */
const DEBTOR_TURN_US_MAX = 60_000_000;

export class Lateness {
  /** What is pending, oldest first. */
  readonly #arrivals: Iterable<PendingRequest>;
  readonly #clients: ReadonlyMap<Digest, ClientQueue>;
  /** How long one request takes at the pace of late, in microseconds. */
  #usPerRequest = 0;
  #decidedAtUs = 0;
  /** What every client has been served, if all were served alike: fair time. */
  #served = 0;
  #servedAtUs = 0;

  constructor(arrivals: Iterable<PendingRequest>, clients: ReadonlyMap<Digest, ClientQueue>) {
    this.#arrivals = arrivals;
    this.#clients = clients;
  }

  /** When patience with a request starts that arrives behind so many: after what these take at the pace of late. */
  dueOnArrival(arrivedUs: number, pending: number): number {
    return arrivedUs + Math.min(DRAIN_US_MAX, pending * this.#usPerRequest);
  }

  /** The fair time at which another request of this cost has its turn. */
  turn(queue: ClientQueue, cost: number): number {
    return this.#served - queue.passedOver + queue.cost + cost;
  }

  /** A batch of so many requests was decided, which served so many clients alike. */
  decided({ requests, cost, clients }: { requests: number; cost: number; clients: number }, nowUs: number): void {
    this.#measure(requests, nowUs);
    if (cost === 0) return;
    const servedEach = cost / Math.max(1, clients);
    this.#served += servedEach;
    this.#servedAtUs = nowUs;
    for (const queue of this.#clients.values()) if (queue.paidUs > nowUs) queue.passedOver += servedEach;
  }

  #measure(requests: number, nowUs: number): void {
    const sinceUs = nowUs - this.#decidedAtUs;
    this.#decidedAtUs = nowUs;
    if (requests === 0) return;
    const usEach = Math.min(sinceUs, 1_000_000) / requests;
    this.#usPerRequest = this.#usPerRequest === 0 ? usEach : 0.8 * this.#usPerRequest + 0.2 * usEach;
  }

  /** Since when it has been due: not before its client has had its turn, as long as instances are decided, and owes nothing. */
  dueUs(entry: PendingRequest): number {
    const { dueUs, turn, arrivedUs, request } = entry;
    const queue = this.#clients.get(request.client);
    if (!queue) return dueUs;
    const { passedOver, paidUs, headUs } = queue;
    const turnUsMax = queue.debtor ? Math.max(DEBTOR_TURN_US_MAX, queue.count * 1_000 * DEBT_MS_MAX) : TURN_US_MAX;
    const turnUs = this.#served - passedOver >= turn ? dueUs : Math.min(this.#servedAtUs, arrivedUs + turnUsMax);
    // The oldest one is next some time, whatever else of its client is served before.
    return Math.max(dueUs, turnUs, queue.oldest === entry ? Math.min(paidUs, headUs + turnUsMax) : paidUs);
  }

  /** And to be forwarded, which blames nobody: what only some have must not wait for as long as a debtor may. */
  forwardUs(entry: PendingRequest): number {
    return Math.min(this.dueUs(entry), Math.max(entry.dueUs, entry.arrivedUs + TURN_US_MAX));
  }

  /**
   * Since when the oldest request has been due that `witnesses` replicas (this one included) say they have: fewer may be
   * liars and we, and no leader can be blamed for what only we can check. Null when there is none.
   */
  oldestDueUs(witnesses: number): number | null {
    let oldest: number | null = null;
    for (const entry of this.#witnessed(witnesses)) {
      const dueUs = this.dueUs(entry);
      if (oldest === null || dueUs < oldest) oldest = dueUs;
    }
    return oldest;
  }

  /**
   * Since when some client has waited for a leader to serve it, whose oldest request `witnesses` replicas have: a leader takes
   * the oldest request of each client first, in turn. Null when there is none.
   */
  neglectedSinceUs(witnesses: number): number | null {
    let since: number | null = null;
    for (const entry of this.#witnessed(witnesses)) {
      const queue = this.#clients.get(entry.request.client);
      if (queue?.oldest !== entry) continue;
      const waitingUs = Math.max(this.dueUs(entry), queue.servedUs);
      if (since === null || waitingUs < since) since = waitingUs;
    }
    return since;
  }

  /**
   * The oldest requests that so many replicas have. Those of a client that owes behind its oldest one come on top of what is looked
   * at: they wait for long, and would hide others.
   */
  *#witnessed(witnesses: number): Generator<PendingRequest> {
    let left = OLDEST_SCAN_MAX;
    for (const entry of this.#arrivals) {
      if (left <= 0) return;
      const queue = this.#clients.get(entry.request.client);
      if (!queue?.debtor || queue.oldest === entry) left--;
      if (entry.state === "barred" || entry.voices.size + 1 < witnesses) continue;
      yield entry;
    }
  }
}
