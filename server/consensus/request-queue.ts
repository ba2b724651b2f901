/**
 * Requests that wait to be ordered (docs/protocol.md sections 4.1 and 8): per client first in, first out; batches take
 * round robin over clients, the same cost of each. The intake asks `room` before it adds.
 *
 * Invariants: 1. `waiting` counts exactly the entries a batch could take, now or once their client has paid (debts.ts). 2. An entry
 * leaves when its instance has been executed; between decision and execution no copy of it is taken, a first one included: it
 * would wait for ever. 3. At most one entry per (client, session, sequence): the first counts. 4. a client with little pending is
 * served as if all others had as little.
 */
import { reconfigures } from "../../protocol/administration.ts";
import type { Digest } from "../../protocol/bytes.ts";
import { decoded, isRejection } from "../../protocol/errors.ts";
import {
  BATCH_STATEMENTS_MAX,
  FORWARDED_BYTES_PER_CLIENT_MAX,
  FORWARDED_BYTES_RESERVE,
  MUST_SIGN_MAX,
  PENDING_BYTES_MAX,
  PENDING_BYTES_PER_CLIENT_MAX,
  PENDING_MAX,
  PENDING_PER_CLIENT_MAX,
  PENDING_STATEMENTS_MAX,
  RESERVED_BYTES_MAX,
  RESERVED_PER_CLIENT_MAX,
} from "../../protocol/limits.ts";
import { decodeEnvelope, type Request } from "../../protocol/request.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import { Admission } from "./admission.ts";
import { type ClientLane, ClientQueue, costOf, type PendingRequest, type Source, sourceOf } from "./client-queue.ts";
import { Debts, type ExecutedBatch } from "./debts.ts";
import { Lateness } from "./lateness.ts";
import { lowerMedian } from "./median.ts";
import { takeInTurns } from "./turns.ts";

export type { PendingRequest };

/** What wants in: `lot` decides who is turned away first (admission.ts). */
export interface Wanted {
  readonly client: Digest;
  readonly bytes: number;
  readonly cost: number;
  readonly lot: number;
}

/** What a batch may hold, when it is taken at `nowUs`. */
interface BatchLimits {
  readonly requestsMax: number;
  readonly bytesMax: number;
  readonly overheadBytes: number;
  readonly nowUs: number;
}

/** Bounds of a room per client, and of all. */
function bounds(each: number, bytesEach: number, all: number, bytes: number) {
  return { each, bytesEach, all, bytes };
}

/** By what the room is for. */
const ROOMS: Readonly<Record<Source, ReturnType<typeof bounds>>> = {
  client: bounds(PENDING_PER_CLIENT_MAX, PENDING_BYTES_PER_CLIENT_MAX, PENDING_MAX, PENDING_BYTES_MAX),
  replica: bounds(PENDING_PER_CLIENT_MAX, FORWARDED_BYTES_PER_CLIENT_MAX, PENDING_MAX, FORWARDED_BYTES_RESERVE),
  reserved: bounds(RESERVED_PER_CLIENT_MAX, RESERVED_BYTES_MAX, PENDING_MAX, RESERVED_BYTES_MAX),
  statement: bounds(PENDING_STATEMENTS_MAX, RESERVED_BYTES_MAX, PENDING_STATEMENTS_MAX, RESERVED_BYTES_MAX),
};

const NOBODY: ReadonlySet<ReplicaId> = new Set();

/** Requests of a batch whose arrival is looked up. */
const ARRIVALS_SAMPLED = 8;
/** Requests of one client forwarded at once. */
const FORWARDED_PER_CLIENT_MAX = 64;
/** Requests of a client that owes that may wait: served within that time. */
const DEBTOR_PENDING_MAX = 64;

/** A request still pending after so many timeouts is forwarded again. */
const FORWARD_AGAIN_TIMEOUTS = 4;

export class RequestQueue {
  readonly #byKey = new Map<string, PendingRequest>();
  readonly #byDigest = new Map<Digest, PendingRequest>();
  readonly #clients = new Map<Digest, ClientQueue>();
  /** What is pending, oldest first. */
  readonly #arrivals = new Set<PendingRequest>();
  /** Keys of requests that were decided, and not executed yet, before a copy arrived here. */
  readonly #decidedUnseen = new Set<string>();
  /** A request that has a batch of its own was met while another batch was taken: the next batch is its. */
  #alone: PendingRequest | null = null;
  /** Clients whose requests must be signed: what they only authenticated is not proposed. */
  readonly #mustSign = new Set<Digest>();
  #waiting = 0;
  #pending = 0;
  #cost = 0;
  readonly #admission = new Admission();
  readonly #debts = new Debts();
  /** What of it is late, and since when. */
  readonly lateness = new Lateness(this.#arrivals, this.#clients);
  readonly #rooms: Readonly<Record<Source, { count: number; bytes: number }>> = {
    client: { count: 0, bytes: 0 },
    replica: { count: 0, bytes: 0 },
    reserved: { count: 0, bytes: 0 },
    statement: { count: 0, bytes: 0 },
  };
  /** Cost of what each client had in the last batches. */
  #lastCosts: ReadonlyMap<Digest, number> = new Map();
  #costsBefore: ReadonlyMap<Digest, number> = new Map();
  /** Somebody was turned away since the last look, and when that was. */
  #turnedAway = false;
  #turnedAwayUs = Number.NEGATIVE_INFINITY;

  /** Requests a batch could take now. */
  get waiting(): number {
    return this.#waiting;
  }

  /** When a batch could take the first of what waits: now, or once its client has paid. Null: nothing waits. */
  readyUs(nowUs: number): number | null {
    if (this.#waiting === 0) return null;
    if (this.#debts.none) return nowUs;
    let readyUs = Number.POSITIVE_INFINITY;
    for (const queue of this.#clients.values()) {
      const paidUs = Math.max(nowUs, queue.paidUs);
      if (paidUs >= readyUs || !queue.waits) continue;
      if (paidUs === nowUs) return nowUs;
      readyUs = paidUs;
    }
    return readyUs;
  }

  /** Requests not decided yet. */
  get pending(): number {
    return this.#pending;
  }

  get pendingBytes(): number {
    const { client, replica, reserved, statement } = this.#rooms;
    return client.bytes + replica.bytes + reserved.bytes + statement.bytes;
  }

  /** Clients with something pending. */
  get clients(): number {
    return this.#clients.size;
  }

  /** Cost of what is pending, and how much may be before clients beyond their share are turned away. */
  get pendingCost(): number {
    return this.#cost;
  }

  get capacity(): number {
    return this.#admission.capacity;
  }

  /** False when it must not be added: answer BUSY. Each source has bounds of its own, so that none can use up another's. */
  room(wanted: Wanted, source: Source): boolean {
    const most = ROOMS[source];
    const all = this.#rooms[source];
    const queue = this.#clients.get(wanted.client);
    const own = queue?.rooms[source] ?? { count: 0, bytes: 0 };
    // This turns away nobody else, and is no sign of a crowd.
    if (source === "client" && own.count >= DEBTOR_PENDING_MAX && this.#debts.owes(wanted.client)) return false;
    const bounded =
      all.count < most.all &&
      all.bytes + wanted.bytes <= most.bytes &&
      own.count < most.each &&
      own.bytes + wanted.bytes <= most.bytesEach;
    if (!bounded || (source === "client" && !this.#admits(wanted, queue))) {
      this.#turnedAway = true;
      return false;
    }
    return true;
  }

  #admits({ cost: wanted, lot }: Wanted, queue: ClientQueue | undefined): boolean {
    const { cost, count, shed } = queue ?? { cost: 0, count: 0, shed: 0 };
    const clients = this.#clients.size + (queue ? 0 : 1);
    return this.#admission.admits({ wanted, lot, cost, count, shed, total: this.#cost, clients });
  }

  /** The authentic request with this digest, if it was received. */
  authentic(digest: Digest): PendingRequest | undefined {
    return this.#byDigest.get(digest);
  }

  find(key: string): PendingRequest | undefined {
    return this.#byKey.get(key);
  }

  /** False when (client, session, sequence) is here already, or decided. A signed copy replaces an unsigned one. */
  add(
    request: Request,
    envelope: Uint8Array,
    replier: number,
    arrivedUs: number,
    source: Source = sourceOf(request.kind),
  ): boolean {
    const known = this.#byKey.get(request.key);
    if (known && !this.#yields(known, request, envelope)) return false;
    if (known) this.#drop(known);
    if (this.#decidedUnseen.has(request.key)) return false;
    let queue = this.#clients.get(request.client);
    if (!queue) {
      queue = new ClientQueue(this.#debts.paidUs(request.client));
      this.#clients.set(request.client, queue);
    }
    const cost = costOf(request);
    const entry: PendingRequest = {
      request,
      envelope,
      replier,
      source,
      cost,
      arrivedUs,
      dueUs: this.lateness.dueOnArrival(arrivedUs, this.#pending),
      turn: this.lateness.turn(queue, cost),
      state: "waiting",
      forwardedUs: Number.NEGATIVE_INFINITY,
      asked: false,
      voices: NOBODY,
    };
    this.#byKey.set(request.key, entry);
    this.#byDigest.set(request.digest, entry);
    queue.push(entry);
    this.#arrivals.add(entry);
    this.#waiting++;
    this.#tally(entry, 1);
    return true;
  }

  #tally({ source, cost, request }: PendingRequest, sign: 1 | -1): void {
    const room = this.#rooms[source];
    room.count += sign;
    room.bytes += sign * request.bytes.length;
    this.#pending += sign;
    this.#cost += sign * cost;
  }

  /** The client sent it again. False when it is not pending. */
  askedAgain(key: string): boolean {
    const entry = this.#byKey.get(key);
    if (entry) entry.asked = true;
    return entry !== undefined;
  }

  /** A barred request gives way to its signed copy, which no leader has let wait yet. */
  #yields(known: PendingRequest, request: Request, envelope: Uint8Array): boolean {
    return known.state === "barred" && known.request.digest === request.digest && isSigned(envelope);
  }

  /** From now on this client's requests are taken only with a signature. False when that was so before. */
  mustSign(client: Digest): boolean {
    if (this.#mustSign.has(client)) return false;
    this.#mustSign.add(client);
    if (this.#mustSign.size > MUST_SIGN_MAX) this.#mustSign.delete(this.#mustSign.values().next().value as Digest);
    for (const entry of this.#clients.get(client)?.entries ?? []) if (entry) this.#bar(entry);
    return true;
  }

  #bar(entry: PendingRequest): void {
    if (entry.state !== "waiting" || isSigned(entry.envelope)) return;
    entry.state = "barred";
    this.#waiting--;
  }

  /** Another regency: what was proposed and not decided waits again. */
  proposalsDropped(): void {
    for (const entry of this.#arrivals) {
      if (entry.state !== "proposed") continue;
      entry.state = "waiting";
      this.#waiting++;
      if (this.#mustSign.has(entry.request.client)) this.#bar(entry);
    }
  }

  /**
   * Takes a batch: of each client the same cost per round, in all at most `requestsMax` and `bytesMax`. Envelopes and `overheadBytes`
   * count as well, so that the PROPOSE around the batch fits a frame. Who owes for results waits.
   */
  take(limits: BatchLimits): PendingRequest[] {
    const alone = this.#alone;
    this.#alone = null;
    const taken = alone?.state === "waiting" ? [alone] : this.#takeInTurns(limits, this.#costMaxEach);
    // What is too large for a turn waits for the next, unless there is nothing else: then one goes, as others are about to come.
    if (taken.length === 0 && this.#waiting > 0) taken.push(...this.#takeInTurns({ ...limits, requestsMax: 1 }, null));
    for (const entry of taken) entry.state = "proposed";
    this.#waiting -= taken.length;
    return taken;
  }

  #takeInTurns(
    { requestsMax, bytesMax, overheadBytes, nowUs }: BatchLimits,
    costMaxEach: number | null,
  ): PendingRequest[] {
    const taken: PendingRequest[] = [];
    let bytes = 0;
    let statements = 0;
    const lanes: ClientLane[] = [];
    // Where most are debtors, the median of what clients want bounds none of them.
    const costMaxOfDebtor = costMaxEach && Math.min(costMaxEach, this.#admission.extra(this.#clients.size));
    for (const queue of this.#clients.values()) {
      if (queue.paidUs <= nowUs) lanes.push(queue.lane(queue.debtor ? costMaxOfDebtor : costMaxEach));
    }
    const served = takeInTurns<PendingRequest, ClientLane>(
      lanes,
      (entry) => entry.cost,
      (entry) => {
        const size = entry.request.bytes.length + entry.envelope.length + overheadBytes;
        if (taken.length >= requestsMax || bytes + size > bytesMax) return false;
        const [first] = taken;
        if (first && reconfigures(first.request)) return false;
        if (first && reconfigures(entry.request)) {
          this.#alone = entry;
          return true;
        }
        if (entry.request.kind === "administer" && ++statements > BATCH_STATEMENTS_MAX) return false;
        bytes += size;
        taken.push(entry);
        return true;
      },
    );
    for (const lane of served) this.#goesLast(lane.queue);
    return taken;
  }

  /**
   * A client with more than others gets no more into a batch than half of the others want, and a little: all others wait
   * until the whole batch is served. Who was in the last batches counts, too: it is about to come back.
   */
  get #costMaxEach(): number | null {
    const wants = new Map<Digest, number>();
    for (const costs of [this.#costsBefore, this.#lastCosts]) {
      for (const [client, cost] of costs) wants.set(client, Math.max(cost, wants.get(client) ?? 0));
    }
    for (const [client, { cost }] of this.#clients) wants.set(client, Math.max(cost, wants.get(client) ?? 0));
    if (wants.size < 2) return null;
    return Math.max(lowerMedian([...wants.values()]) ?? 0, this.#admission.extra(wants.size));
  }

  #goesLast(queue: ClientQueue): void {
    const client = queue.oldest?.request.client;
    if (client === undefined) return;
    this.#clients.delete(client);
    this.#clients.set(client, queue);
  }

  /** A decided batch leaves pending at once, whatever copy of a request was held. */
  decided(requests: readonly Request[], nowUs: number): void {
    const total = this.#cost;
    const clients = this.#clients.size;
    for (const queue of this.#clients.values())
      queue.shed = this.#admission.shedNext({ cost: queue.cost, shed: queue.shed, total, clients });
    let cost = 0;
    const costs = new Map<Digest, number>();
    for (const request of requests) {
      const each = costOf(request);
      cost += each;
      costs.set(request.client, (costs.get(request.client) ?? 0) + each);
      const entry = this.#byKey.get(request.key);
      const queue = this.#clients.get(request.client);
      // The one before was dropped: from now on this one is passed over.
      if (queue?.headUs === Number.POSITIVE_INFINITY) queue.headUs = nowUs;
      if (!entry) {
        this.#decidedUnseen.add(request.key);
        continue;
      }
      const oldest = queue?.oldest;
      if (queue) queue.servedUs = nowUs;
      if (entry.state !== "decided") this.#leave(entry);
      if (queue && queue.oldest !== oldest) queue.headUs = nowUs;
    }
    this.#costsBefore = this.#lastCosts;
    this.#lastCosts = costs;
    this.lateness.decided({ requests: requests.length, cost, clients }, nowUs);
    this.#admission.decided({ cost, backlog: this.readyUs(nowUs) === nowUs, nowUs });
  }

  /** Out of pending and of its client's queue. */
  #leave(entry: PendingRequest): void {
    if (entry.state === "waiting") this.#waiting--;
    entry.state = "decided";
    this.#arrivals.delete(entry);
    this.#tally(entry, -1);
    const queue = this.#clients.get(entry.request.client);
    if (!queue) return;
    queue.leave(entry);
    if (queue.count === 0) this.#clients.delete(entry.request.client);
  }

  executed(batch: ExecutedBatch, nowUs: number): void {
    this.#debts.executed(batch, nowUs);
    for (const client of batch.costs.keys()) {
      const queue = this.#clients.get(client);
      if (queue) queue.paidUs = Math.max(queue.paidUs, this.#debts.paidUs(client));
    }
    for (const request of batch.requests) {
      const entry = this.#byKey.get(request.key);
      if (!entry) {
        this.#decidedUnseen.delete(request.key);
        continue;
      }
      // A copy that came after the decision of a first occurrence waits for its own.
      if (entry.state !== "decided") continue;
      this.#byKey.delete(request.key);
      this.#byDigest.delete(entry.request.digest);
    }
  }

  /** Somebody else has this request too. */
  voice(digest: Digest, replica: ReplicaId): void {
    const entry = this.#byDigest.get(digest);
    if (entry && !entry.voices.has(replica)) entry.voices = new Set([...entry.voices, replica]);
  }

  /**
   * Requests due for `timeoutUs`, oldest first, to be forwarded now; marks them. They are due again later: what went into
   * a broken link is lost. While clients are turned away here, what a client did not ask for again is forgotten instead: the
   * leader has turned it away, and nobody waits for it.
   */
  overdue(nowUs: number, timeoutUs: number, max: number): PendingRequest[] {
    if (this.#turnedAway) this.#turnedAwayUs = nowUs;
    this.#turnedAway = false;
    const crowded = nowUs - this.#turnedAwayUs < 2 * timeoutUs;
    const late: PendingRequest[] = [];
    const ofClient = new Map<Digest, number>();
    for (const entry of this.#arrivals) {
      if (late.length >= max) break;
      if (entry.dueUs > nowUs - timeoutUs) break;
      if (entry.state === "barred") continue;
      if (this.lateness.forwardUs(entry) > nowUs - timeoutUs) continue;
      if (entry.forwardedUs > nowUs - FORWARD_AGAIN_TIMEOUTS * timeoutUs) continue;
      if (crowded && entry.state === "waiting" && entry.source === "client" && !entry.asked) {
        this.#drop(entry);
        continue;
      }
      const { client } = entry.request;
      const forwarded = ofClient.get(client) ?? 0;
      if (forwarded >= FORWARDED_PER_CLIENT_MAX) continue;
      ofClient.set(client, forwarded + 1);
      entry.forwardedUs = nowUs;
      late.push(entry);
    }
    return late;
  }

  /**
   * Forgets requests that have waited since before `beforeUs` and that no leader could order: too few others have them, or their
   * client did not sign them. It sends them again if it is honest.
   */
  dropHopeless(beforeUs: number, witnesses: number): void {
    for (const entry of this.#arrivals) {
      if (entry.dueUs > beforeUs) break;
      const alone = entry.state === "waiting" && entry.voices.size + 1 < witnesses;
      if (alone || entry.state === "barred") this.#drop(entry);
    }
  }

  /** Forgets requests due before `beforeUs` that need no ordering any more, whatever became of them. */
  dropSettled(beforeUs: number, settled: (request: Request) => boolean, max: number): void {
    let left = max;
    for (const entry of this.#arrivals) {
      if (left-- <= 0) break;
      if (entry.dueUs > beforeUs) break;
      if (entry.state === "waiting" && settled(entry.request)) this.#drop(entry);
    }
  }

  #drop(entry: PendingRequest): void {
    const queue = this.#clients.get(entry.request.client);
    if (queue?.oldest === entry) queue.headUs = Number.POSITIVE_INFINITY;
    this.#leave(entry);
    this.#byKey.delete(entry.request.key);
    this.#byDigest.delete(entry.request.digest);
  }

  /** When the first requests of this batch arrived here, or their clients had paid: the earliest of them, or null when none did. */
  waitingSinceUs(requests: readonly Request[], sampled = ARRIVALS_SAMPLED): number | null {
    let earliest: number | null = null;
    for (const { digest } of requests.slice(0, sampled)) {
      const entry = this.#byDigest.get(digest);
      if (!entry) continue;
      const sinceUs = Math.max(entry.arrivedUs, this.#clients.get(entry.request.client)?.paidUs ?? 0);
      if (earliest === null || sinceUs < earliest) earliest = sinceUs;
    }
    return earliest;
  }
}

export function isSigned(bytes: Uint8Array): boolean {
  const envelope = decoded(() => decodeEnvelope(bytes));
  return !isRejection(envelope) && envelope.authenticator.type === "signature";
}
