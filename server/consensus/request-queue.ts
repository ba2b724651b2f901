/**
 * Requests that wait to be ordered (docs/protocol.md sections 4.1 and 8): per client first in, first out; batches take
 * round robin over clients. Nothing is dropped here: the intake asks `room` before it adds.
 *
 * Invariants: 1. `waiting` counts exactly the entries a batch could take. 2. An entry leaves when its instance has been
 * executed; between decision and execution no copy of it is taken, a first one included: it would wait for ever. 3. At
 * most one entry per (client, session, sequence): the first counts.
 */
import type { Digest } from "../../protocol/bytes.ts";
import {
  FORWARDED_BYTES_RESERVE,
  PENDING_BYTES_MAX,
  PENDING_BYTES_PER_CLIENT_MAX,
  PENDING_PER_CLIENT_MAX,
} from "../../protocol/limits.ts";
import type { Request } from "../../protocol/request.ts";

export interface PendingRequest {
  readonly request: Request;
  readonly envelope: Uint8Array;
  readonly replier: number;
  readonly arrivedUs: number;
  state: "waiting" | "proposed" | "decided";
  forwarded: boolean;
}

interface ClientQueue {
  readonly entries: PendingRequest[];
  head: number;
  count: number;
  bytes: number;
}

/** A fifo whose finished front is skipped lazily and cut off in large pieces. */
function trim(fifo: { entries: PendingRequest[]; head: number }, finished: (entry: PendingRequest) => boolean): void {
  while (fifo.head < fifo.entries.length && finished(fifo.entries[fifo.head] as PendingRequest)) fifo.head++;
  if (fifo.head > 256 && fifo.head * 2 > fifo.entries.length) {
    fifo.entries.splice(0, fifo.head);
    fifo.head = 0;
  }
}

const decided = (entry: PendingRequest): boolean => entry.state === "decided";

export class RequestQueue {
  readonly #byKey = new Map<string, PendingRequest>();
  readonly #byDigest = new Map<Digest, PendingRequest>();
  readonly #clients = new Map<Digest, ClientQueue>();
  readonly #arrivals: { entries: PendingRequest[]; head: number } = { entries: [], head: 0 };
  /** Keys of requests that were decided, and not executed yet, before a copy arrived here. */
  readonly #decidedUnseen = new Set<string>();
  #waiting = 0;
  #pending = 0;
  #bytes = 0;

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

  /** The authentic request with this digest, if it was received. */
  authentic(digest: Digest): PendingRequest | undefined {
    return this.#byDigest.get(digest);
  }

  find(key: string): PendingRequest | undefined {
    return this.#byKey.get(key);
  }

  /** False when (client, session, sequence) is here already, or decided. */
  add(request: Request, envelope: Uint8Array, replier: number, arrivedUs: number): boolean {
    if (this.#byKey.has(request.key) || this.#decidedUnseen.has(request.key)) return false;
    const entry: PendingRequest = { request, envelope, replier, arrivedUs, state: "waiting", forwarded: false };
    this.#byKey.set(request.key, entry);
    this.#byDigest.set(request.digest, entry);
    let queue = this.#clients.get(request.client);
    if (!queue) {
      queue = { entries: [], head: 0, count: 0, bytes: 0 };
      this.#clients.set(request.client, queue);
    }
    queue.entries.push(entry);
    queue.count++;
    queue.bytes += request.bytes.length;
    this.#arrivals.entries.push(entry);
    this.#waiting++;
    this.#pending++;
    this.#bytes += request.bytes.length;
    return true;
  }

  /**
   * Takes a batch: one request per client and round, at most `requestsMax` and `bytesMax`. Envelopes and `overheadBytes`
   * count as well, so that the PROPOSE around the batch fits a frame.
   */
  take(limits: { requestsMax: number; bytesMax: number; overheadBytes: number }): PendingRequest[] {
    const taken: PendingRequest[] = [];
    let bytes = 0;
    let cursors = [...this.#clients.values()].map((queue) => ({ queue, at: queue.head }));
    while (cursors.length > 0 && taken.length < limits.requestsMax) {
      const open: typeof cursors = [];
      for (const cursor of cursors) {
        const entry = nextWaiting(cursor);
        if (!entry) continue;
        const size = entry.request.bytes.length + entry.envelope.length + limits.overheadBytes;
        if (taken.length >= limits.requestsMax || bytes + size > limits.bytesMax) return this.#propose(taken);
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
  decided(requests: readonly Request[]): void {
    for (const request of requests) {
      const entry = this.#byKey.get(request.key);
      if (!entry) {
        this.#decidedUnseen.add(request.key);
        continue;
      }
      if (entry.state === "decided") continue;
      if (entry.state === "waiting") this.#waiting--;
      this.#pending--;
      entry.state = "decided";
      const { length } = entry.request.bytes;
      this.#bytes -= length;
      const queue = this.#clients.get(entry.request.client);
      if (!queue) continue;
      queue.count--;
      queue.bytes -= length;
      if (queue.count === 0) this.#clients.delete(entry.request.client);
      else trim(queue, decided);
    }
    trim(this.#arrivals, decided);
  }

  executed(requests: readonly Request[]): void {
    for (const request of requests) {
      const entry = this.#byKey.get(request.key);
      if (!entry) {
        this.#decidedUnseen.delete(request.key);
        continue;
      }
      this.#byKey.delete(request.key);
      this.#byDigest.delete(entry.request.digest);
    }
  }

  /** Not yet forwarded requests that arrived at or before `beforeUs`, oldest first; marks them. */
  overdue(beforeUs: number, max: number): PendingRequest[] {
    const late: PendingRequest[] = [];
    for (let at = this.#arrivals.head; at < this.#arrivals.entries.length && late.length < max; at++) {
      const entry = this.#arrivals.entries[at] as PendingRequest;
      if (entry.arrivedUs > beforeUs) break;
      if (entry.state === "decided" || entry.forwarded) continue;
      entry.forwarded = true;
      late.push(entry);
    }
    return late;
  }

  /** When the oldest undecided request arrived, or null. */
  get oldestUs(): number | null {
    const entry = this.#arrivals.entries[this.#arrivals.head];
    return entry ? entry.arrivedUs : null;
  }
}

function nextWaiting(cursor: { queue: ClientQueue; at: number }): PendingRequest | undefined {
  const { entries } = cursor.queue;
  while (cursor.at < entries.length) {
    const entry = entries[cursor.at++] as PendingRequest;
    if (entry.state === "waiting") return entry;
  }
  return undefined;
}
