/**
 * Requests that wait to be ordered (docs/protocol.md sections 4.1 and 8): per client first in, first out; batches take
 * round robin over clients. Nothing is dropped here: the intake asks `room` before it adds.
 *
 * Invariants: 1. `waiting` counts exactly the entries a batch could take. 2. An entry leaves when its instance has been
 * executed; between decision and execution no copy of it is taken, a first one included: it would wait for ever. 3. At
 * most one entry per (client, session, sequence): the first counts.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { decoded, isRejection } from "../../protocol/errors.ts";
import {
  BATCH_STATEMENTS_MAX,
  FORWARDED_BYTES_RESERVE,
  MUST_SIGN_MAX,
  PENDING_BYTES_MAX,
  PENDING_BYTES_PER_CLIENT_MAX,
  PENDING_PER_CLIENT_MAX,
  PENDING_STATEMENTS_MAX,
} from "../../protocol/limits.ts";
import { decodeEnvelope, type Request } from "../../protocol/request.ts";
import type { ReplicaId } from "../../protocol/view.ts";

export interface PendingRequest {
  readonly request: Request;
  readonly envelope: Uint8Array;
  readonly replier: number;
  readonly arrivedUs: number;
  /** Arrival, and what it took at the pace of that time to serve what was queued before: patience starts here. */
  readonly dueUs: number;
  /** Barred: not taken before it comes with a signature. */
  state: "waiting" | "barred" | "proposed" | "decided";
  /** When it was last forwarded to all. */
  forwardedUs: number;
  /** Who forwarded the same request. */
  voices: ReadonlySet<ReplicaId>;
}

const NOBODY: ReadonlySet<ReplicaId> = new Set();

/** The drain time of a queue is believed up to here, in microseconds. */
const DRAIN_US_MAX = 10_000_000;
/** Entries looked at to find the oldest one that counts. */
const OLDEST_SCAN_MAX = 1_024;
/** Requests of a batch whose arrival is looked up. */
const ARRIVALS_SAMPLED = 8;

/** A request still pending after so many timeouts is forwarded again. */
const FORWARD_AGAIN_TIMEOUTS = 4;

/** In order of arrival, from `head` on; nothing stands before it. */
interface Fifo {
  readonly entries: (PendingRequest | undefined)[];
  head: number;
}

interface ClientQueue extends Fifo {
  count: number;
  bytes: number;
  /** When a request of this client was decided last. */
  servedUs: number;
}

/** Lets go of the finished front at once; its places are cut off in large pieces. */
function trim(fifo: Fifo, finished: (entry: PendingRequest) => boolean): void {
  while (fifo.head < fifo.entries.length && finished(fifo.entries[fifo.head] as PendingRequest)) {
    fifo.entries[fifo.head++] = undefined;
  }
  if (fifo.head > 256 && fifo.head * 2 > fifo.entries.length) {
    fifo.entries.splice(0, fifo.head);
    fifo.head = 0;
  }
}

const isDecided = (entry: PendingRequest): boolean => entry.state === "decided";

export class RequestQueue {
  readonly #byKey = new Map<string, PendingRequest>();
  readonly #byDigest = new Map<Digest, PendingRequest>();
  readonly #clients = new Map<Digest, ClientQueue>();
  readonly #arrivals: Fifo = { entries: [], head: 0 };
  /** Keys of requests that were decided, and not executed yet, before a copy arrived here. */
  readonly #decidedUnseen = new Set<string>();
  /** Clients whose requests must be signed: what they only authenticated is not proposed. */
  readonly #mustSign = new Set<Digest>();
  /** How long one request takes at the pace of late, in microseconds. */
  #usPerRequest = 0;
  #decidedAtUs = 0;
  #waiting = 0;
  #pending = 0;
  #bytes = 0;
  /** Statements of administrators among the pending ones. */
  #statements = 0;

  /** Requests a batch could take now. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Requests not decided yet. */
  get pending(): number {
    return this.#pending;
  }

  get pendingBytes(): number {
    return this.#bytes;
  }

  /** False when the bounds of this client or of the replica are reached: answer BUSY. Forwarded requests have a reserve. */
  room(client: Digest, bytes: number, source: "client" | "replica"): boolean {
    const max = PENDING_BYTES_MAX + (source === "replica" ? FORWARDED_BYTES_RESERVE : 0);
    if (this.#bytes + bytes > max) return false;
    const queue = this.#clients.get(client);
    return !queue || (queue.count < PENDING_PER_CLIENT_MAX && queue.bytes + bytes <= PENDING_BYTES_PER_CLIENT_MAX);
  }

  /** Statements of administrators have reserved room: however full the queue is, so many of them wait beside. */
  get roomForStatement(): boolean {
    return this.#statements < PENDING_STATEMENTS_MAX;
  }

  /** The authentic request with this digest, if it was received. */
  authentic(digest: Digest): PendingRequest | undefined {
    return this.#byDigest.get(digest);
  }

  find(key: string): PendingRequest | undefined {
    return this.#byKey.get(key);
  }

  /** False when (client, session, sequence) is here already, or decided. A signed copy replaces an unsigned one. */
  add(request: Request, envelope: Uint8Array, replier: number, arrivedUs: number): boolean {
    const known = this.#byKey.get(request.key);
    if (known && !this.#yields(known, request, envelope)) return false;
    if (known) this.#drop(known);
    if (this.#decidedUnseen.has(request.key)) return false;
    const dueUs = arrivedUs + Math.min(DRAIN_US_MAX, this.#pending * this.#usPerRequest);
    const entry: PendingRequest = {
      request,
      envelope,
      replier,
      arrivedUs,
      dueUs,
      state: "waiting",
      forwardedUs: Number.NEGATIVE_INFINITY,
      voices: NOBODY,
    };
    this.#byKey.set(request.key, entry);
    this.#byDigest.set(request.digest, entry);
    let queue = this.#clients.get(request.client);
    if (!queue) {
      queue = { entries: [], head: 0, count: 0, bytes: 0, servedUs: 0 };
      this.#clients.set(request.client, queue);
    }
    queue.entries.push(entry);
    queue.count++;
    queue.bytes += request.bytes.length;
    this.#arrivals.entries.push(entry);
    this.#waiting++;
    this.#pending++;
    this.#bytes += request.bytes.length;
    if (request.kind === "administer") this.#statements++;
    return true;
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
    for (let at = this.#arrivals.head; at < this.#arrivals.entries.length; at++) {
      const entry = this.#arrivals.entries[at] as PendingRequest;
      if (entry.state !== "proposed") continue;
      entry.state = "waiting";
      this.#waiting++;
      if (this.#mustSign.has(entry.request.client)) this.#bar(entry);
    }
  }

  /**
   * Takes a batch: one request per client and round, at most `requestsMax` and `bytesMax`. Envelopes and `overheadBytes`
   * count as well, so that the PROPOSE around the batch fits a frame.
   */
  take(limits: { requestsMax: number; bytesMax: number; overheadBytes: number }): PendingRequest[] {
    const taken: PendingRequest[] = [];
    let bytes = 0;
    let statements = 0;
    let cursors = [...this.#clients.values()].map((queue) => ({ queue, at: queue.head }));
    while (cursors.length > 0 && taken.length < limits.requestsMax) {
      const open: typeof cursors = [];
      for (const cursor of cursors) {
        const entry = nextWaiting(cursor);
        if (!entry) continue;
        const size = entry.request.bytes.length + entry.envelope.length + limits.overheadBytes;
        if (taken.length >= limits.requestsMax || bytes + size > limits.bytesMax) return this.#propose(taken);
        if (entry.request.kind === "administer" && ++statements > BATCH_STATEMENTS_MAX) return this.#propose(taken);
        bytes += size;
        taken.push(entry);
        open.push(cursor);
      }
      cursors = open;
    }
    return this.#propose(taken);
  }

  #propose(taken: PendingRequest[]): PendingRequest[] {
    for (const entry of taken) entry.state = "proposed";
    this.#waiting -= taken.length;
    const first = taken[0];
    if (first) this.#rotate(first.request.client);
    return taken;
  }

  /** The client served first goes last next time. */
  #rotate(client: Digest): void {
    const queue = this.#clients.get(client);
    if (!queue || this.#clients.size === 1) return;
    this.#clients.delete(client);
    this.#clients.set(client, queue);
  }

  /** A decided batch leaves pending at once, whatever copy of a request was held. */
  decided(requests: readonly Request[], nowUs: number): void {
    this.#measure(requests.length, nowUs);
    for (const request of requests) {
      const entry = this.#byKey.get(request.key);
      if (!entry) {
        this.#decidedUnseen.add(request.key);
        continue;
      }
      const queue = this.#clients.get(request.client);
      if (queue) queue.servedUs = nowUs;
      if (entry.state !== "decided") this.#leave(entry);
    }
    trim(this.#arrivals, isDecided);
  }

  /** Out of pending and of its client's queue. */
  #leave(entry: PendingRequest): void {
    if (entry.state === "waiting") this.#waiting--;
    this.#pending--;
    entry.state = "decided";
    const { length } = entry.request.bytes;
    this.#bytes -= length;
    if (entry.request.kind === "administer") this.#statements--;
    const queue = this.#clients.get(entry.request.client);
    if (!queue) return;
    queue.count--;
    queue.bytes -= length;
    if (queue.count === 0) this.#clients.delete(entry.request.client);
    else trim(queue, isDecided);
  }

  /** The pace of late: what one request takes, smoothed over the last instances. */
  #measure(requests: number, nowUs: number): void {
    const sinceUs = nowUs - this.#decidedAtUs;
    this.#decidedAtUs = nowUs;
    if (requests === 0) return;
    const usEach = Math.min(sinceUs, 1_000_000) / requests;
    this.#usPerRequest = this.#usPerRequest === 0 ? usEach : 0.8 * this.#usPerRequest + 0.2 * usEach;
  }

  executed(requests: readonly Request[]): void {
    for (const request of requests) {
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
   * a broken link is lost.
   */
  overdue(nowUs: number, timeoutUs: number, max: number): PendingRequest[] {
    const late: PendingRequest[] = [];
    for (let at = this.#arrivals.head; at < this.#arrivals.entries.length && late.length < max; at++) {
      const entry = this.#arrivals.entries[at] as PendingRequest;
      if (entry.dueUs > nowUs - timeoutUs) break;
      if (entry.state === "decided" || entry.state === "barred") continue;
      if (entry.forwardedUs > nowUs - FORWARD_AGAIN_TIMEOUTS * timeoutUs) continue;
      entry.forwardedUs = nowUs;
      late.push(entry);
    }
    return late;
  }

  /**
   * Since when the oldest request has been due that `witnesses` replicas (this one included) say they have: fewer may be
   * liars and we, and no leader can be blamed for what only we can check. Null when there is none.
   */
  oldestDueUs(witnesses: number): number | null {
    const { entries, head } = this.#arrivals;
    const end = Math.min(entries.length, head + OLDEST_SCAN_MAX);
    for (let at = head; at < end; at++) {
      const entry = entries[at] as PendingRequest;
      if (entry.state === "decided" || entry.state === "barred") continue;
      if (entry.voices.size + 1 >= witnesses) return entry.dueUs;
    }
    return null;
  }

  /**
   * Since when some client has waited for a leader to serve it, whose oldest request `witnesses` replicas have: a leader takes
   * the oldest request of each client first. Null when there is none.
   */
  neglectedSinceUs(witnesses: number): number | null {
    const { entries, head } = this.#arrivals;
    let since: number | null = null;
    for (let at = head; at < Math.min(entries.length, head + OLDEST_SCAN_MAX); at++) {
      const entry = entries[at] as PendingRequest;
      if (entry.state === "decided" || entry.state === "barred" || entry.voices.size + 1 < witnesses) continue;
      const queue = this.#clients.get(entry.request.client);
      if (queue?.entries[queue.head] !== entry) continue;
      const waitingUs = Math.max(entry.dueUs, queue.servedUs);
      if (since === null || waitingUs < since) since = waitingUs;
    }
    return since;
  }

  /**
   * Forgets requests that have waited since before `beforeUs` and that no leader could order: too few others have them, or their
   * client did not sign them. It sends them again if it is honest.
   */
  dropHopeless(beforeUs: number, witnesses: number): void {
    for (let at = this.#arrivals.head; at < this.#arrivals.entries.length; at++) {
      const entry = this.#arrivals.entries[at] as PendingRequest;
      if (entry.dueUs > beforeUs) break;
      const alone = entry.state === "waiting" && entry.voices.size + 1 < witnesses;
      if (alone || entry.state === "barred") this.#drop(entry);
    }
    trim(this.#arrivals, isDecided);
  }

  /** Forgets requests due before `beforeUs` that need no ordering any more, whatever became of them. */
  dropSettled(beforeUs: number, settled: (request: Request) => boolean, max: number): void {
    const { entries, head } = this.#arrivals;
    for (let at = head; at < Math.min(entries.length, head + max); at++) {
      const entry = entries[at] as PendingRequest;
      if (entry.dueUs > beforeUs) break;
      if (entry.state === "waiting" && settled(entry.request)) this.#drop(entry);
    }
    trim(this.#arrivals, isDecided);
  }

  #drop(entry: PendingRequest): void {
    this.#leave(entry);
    this.#byKey.delete(entry.request.key);
    this.#byDigest.delete(entry.request.digest);
  }

  /** When the first requests of this batch arrived here: the earliest of them, or null when none did. */
  waitingSinceUs(requests: readonly Request[], sampled = ARRIVALS_SAMPLED): number | null {
    let earliest: number | null = null;
    for (const { digest } of requests.slice(0, sampled)) {
      const entry = this.#byDigest.get(digest);
      if (entry && (earliest === null || entry.arrivedUs < earliest)) earliest = entry.arrivedUs;
    }
    return earliest;
  }
}

export function isSigned(bytes: Uint8Array): boolean {
  const envelope = decoded(() => decodeEnvelope(bytes));
  return !isRejection(envelope) && envelope.authenticator.type === "signature";
}

function nextWaiting(cursor: { queue: ClientQueue; at: number }): PendingRequest | undefined {
  const { entries } = cursor.queue;
  while (cursor.at < entries.length) {
    const entry = entries[cursor.at++] as PendingRequest;
    if (entry.state === "waiting") return entry;
  }
  return undefined;
}
