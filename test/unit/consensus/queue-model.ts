/**
 * The request queues of a cluster in virtual time, without consensus: requests arrive at every replica, a little apart; the leader
 * takes batches, each served in a fixed time and a time per cost; what is overdue is forwarded. For what a queue promises under
 * load: who is let in, how long it waits, who gets how much.
 */
import type { Digest } from "../../../protocol/bytes.ts";
import { RESULTS_PACE } from "../../../protocol/limits.ts";
import { type Request, requestKey } from "../../../protocol/request.ts";
import { lotOf } from "../../../server/consensus/admission.ts";
import { Batching } from "../../../server/consensus/batching.ts";
import type { PendingRequest } from "../../../server/consensus/client-queue.ts";
import { costOf } from "../../../server/consensus/client-queue.ts";
import type { ConsensusOptions } from "../../../server/consensus/contract.ts";
import { type ResultCosts, resultCosts } from "../../../server/consensus/debts.ts";
import { RequestQueue } from "../../../server/consensus/request-queue.ts";
import { seeded } from "../../simulation/random.ts";

const REPLICAS = 4;
const SPREAD_US = 2_000;
const TIMERS_US = 50_000;
const OPTIONS: ConsensusOptions = {
  batchRequestsMax: 4_000,
  batchBytesMax: 4 * 1024 * 1024 - 1_024,
  batchWaitUs: 20_000,
  clockDriftMs: 5_000,
  requestTimeoutMs: 1_000,
  statusIntervalMs: 250,
  executionLagMax: 16,
  emptyLagMax: 64,
};
const ENVELOPE = new Uint8Array(100);

/** Requests of one client: at a rate, or so many under way. */
export type Load = { readonly bytes: number; readonly resultBytes?: number } & (
  | { readonly type: "open"; readonly perSecond: number }
  | { readonly type: "closed"; readonly underWay: number }
);

export interface ModelOptions {
  readonly clients: readonly Load[];
  readonly seconds: number;
  /** What an instance takes: this, and for every unit of cost. */
  readonly instanceUs: number;
  readonly usPerCost: number;
  readonly requestTimeoutMs?: number;
  /** Which replicas a client's request reaches; by default all. */
  readonly reaches?: (client: number, sequence: number) => readonly number[];
}

export interface ModelResult {
  /** Served per client and second, in the second half. */
  readonly served: readonly number[];
  /** Microseconds from arrival to decision, sorted, of the second half. */
  readonly latenciesUs: readonly number[];
  readonly pendingMax: number;
  readonly forwarded: number;
  /** How long the leader let the oldest request wait that a follower holds it to. */
  readonly overdueUsMax: number;
}

/** A queue that knows its last batch. */
class RecordingQueue extends RequestQueue {
  taken: readonly PendingRequest[] = [];

  override take(limits: Parameters<RequestQueue["take"]>[0]): PendingRequest[] {
    const taken = super.take(limits);
    this.taken = taken;
    return taken;
  }
}

interface Event {
  readonly atUs: number;
  readonly run: () => void;
}

export class QueueModel {
  readonly #options: ModelOptions;
  readonly #queues = Array.from({ length: REPLICAS }, () => new RecordingQueue());
  readonly #batching: Batching;
  #decidedUs = 0;
  readonly #random = seeded(7);
  readonly #arrivedUs = new Map<string, { readonly atUs: number; readonly client: number }>();
  readonly #latencies: number[] = [];
  readonly #served: number[];
  readonly #sequences: number[];
  /** A binary heap by time. */
  readonly #events: Event[] = [];
  #nowUs = 0;
  #running = false;
  #pendingMax = 0;
  #forwarded = 0;
  #overdueUsMax = 0;

  constructor(options: ModelOptions) {
    this.#options = options;
    this.#batching = new Batching(this.#leader, { ...OPTIONS, requestTimeoutMs: this.#timeoutMs });
    this.#served = options.clients.map(() => 0);
    this.#sequences = options.clients.map(() => 0);
  }

  run(): ModelResult {
    const { clients, seconds } = this.#options;
    clients.forEach((load, client) => {
      const starts = load.type === "open" ? 1 : load.underWay;
      for (let index = 0; index < starts; index++) this.#at(this.#random.next() * 1_000, () => this.#arrive(client));
    });
    this.#at(TIMERS_US, () => this.#timers());
    for (let next = this.#next(); next && next.atUs < seconds * 1_000_000; next = this.#next()) {
      this.#nowUs = next.atUs;
      next.run();
    }
    return {
      served: this.#served.map((count) => (2 * count) / seconds),
      latenciesUs: this.#latencies.sort((a, b) => a - b),
      pendingMax: this.#pendingMax,
      forwarded: this.#forwarded,
      overdueUsMax: this.#overdueUsMax,
    };
  }

  #arrive(client: number): void {
    const load = this.#options.clients[client] as Load;
    if (load.type === "open") this.#at(this.#nowUs + 1_000_000 / load.perSecond, () => this.#arrive(client));
    const sequence = ++(this.#sequences[client] as number);
    const request = requestOf(client, sequence, load.bytes);
    this.#arrivedUs.set(request.key, { atUs: this.#nowUs, client });
    this.#offer(client, request, load.type === "closed" ? 1 : 0);
  }

  /** To every replica; again after a pause if its client waits for it and it was not let in. */
  #offer(client: number, request: Request, attempt: number): void {
    const reached = this.#options.reaches?.(client, request.sequence) ?? this.#queues.keys();
    for (const replica of reached) {
      this.#at(this.#nowUs + this.#random.next() * SPREAD_US, () => {
        const queue = this.#queues[replica] as RequestQueue;
        if (!this.#arrivedUs.has(request.key) || queue.askedAgain(request.key)) return;
        const lot = lotOf(new TextEncoder().encode(request.key), Math.floor(this.#nowUs / 1_000_000));
        const wanted = { client: request.client, bytes: request.bytes.length, cost: costOf(request), lot };
        if (queue.room(wanted, "client")) queue.add(request, ENVELOPE, 0, this.#nowUs);
        this.#pendingMax = Math.max(this.#pendingMax, queue.pending);
        if (replica === 0) this.#propose();
      });
    }
    if (attempt === 0) return;
    const pauseUs = this.#random.next() * 50_000 * 2 ** Math.min(attempt, 6) + 50_000;
    this.#at(this.#nowUs + pauseUs, () => {
      if (this.#arrivedUs.has(request.key)) this.#offer(client, request, attempt + 1);
    });
  }

  get #leader(): RecordingQueue {
    return this.#queues[0] as RecordingQueue;
  }

  get #timeoutMs(): number {
    return this.#options.requestTimeoutMs ?? 1_000;
  }

  #propose(): void {
    if (this.#running) return;
    const dueUs = this.#batching.due(this.#nowUs, this.#decidedUs);
    if (dueUs === null) return;
    if (dueUs > this.#nowUs) {
      this.#at(dueUs, () => this.#propose());
      return;
    }
    this.#running = true;
    this.#batching.take(1, { timestampMs: 0, nowUs: this.#nowUs });
    const requests = this.#leader.taken.map((entry) => entry.request);
    const cost = requests.reduce((sum, request) => sum + costOf(request), 0);
    const { instanceUs, usPerCost } = this.#options;
    this.#at(this.#nowUs + instanceUs + cost * usPerCost, () => this.#decide(requests));
  }

  #decide(requests: readonly Request[]): void {
    const halfUs = this.#options.seconds * 500_000;
    const costs = this.#resultCosts(requests);
    let resultsUs = 0;
    for (const cost of costs.values()) resultsUs += (1_000 * cost) / RESULTS_PACE;
    this.#batching.decided(requests, this.#nowUs);
    this.#decidedUs = this.#nowUs;
    for (const queue of this.#queues) {
      this.#at(this.#nowUs + (queue === this.#queues[0] ? 0 : this.#random.next() * SPREAD_US), () => {
        queue.decided(requests, this.#nowUs);
        queue.executed({ requests, costs, timestampMs: this.#decidedUs / 1_000 }, this.#nowUs);
      });
    }
    for (const { key } of requests) {
      const arrived = this.#arrivedUs.get(key);
      if (!arrived) continue;
      this.#arrivedUs.delete(key);
      if (this.#nowUs >= halfUs) {
        this.#latencies.push(this.#nowUs - arrived.atUs);
        this.#served[arrived.client] = (this.#served[arrived.client] ?? 0) + 1;
      }
      const { client } = arrived;
      if (this.#options.clients[client]?.type === "closed") this.#at(this.#nowUs, () => this.#arrive(client));
    }
    this.#at(this.#nowUs + resultsUs, () => {
      this.#running = false;
      this.#propose();
    });
  }

  #resultCosts(requests: readonly Request[]): ResultCosts {
    return resultCosts(
      requests.map((request) => {
        const client = this.#arrivedUs.get(request.key)?.client ?? 0;
        return { request, instance: 1, result: bodyOf(this.#options.clients[client]?.resultBytes ?? 0) };
      }),
      1,
    );
  }

  /** First timeouts: what is overdue goes to everybody, who takes it and says that it has it. */
  #timers(): void {
    this.#at(this.#nowUs + TIMERS_US, () => this.#timers());
    const timeoutUs = this.#timeoutMs * 1_000;
    for (const [replica, queue] of this.#queues.entries()) {
      for (const { request } of queue.overdue(this.#nowUs, timeoutUs, 256)) {
        this.#forwarded++;
        for (const other of this.#queues) if (other !== queue) this.#forward(other, request, replica);
      }
      const dueUs = replica === 0 ? null : queue.lateness.oldestDueUs(3);
      if (dueUs !== null) this.#overdueUsMax = Math.max(this.#overdueUsMax, this.#nowUs - dueUs);
    }
    this.#propose();
  }

  #forward(queue: RequestQueue, request: Request, from: number): void {
    const wanted = { client: request.client, bytes: request.bytes.length, cost: costOf(request), lot: 0 };
    if (!this.#arrivedUs.has(request.key)) return;
    if (!queue.find(request.key) && queue.room(wanted, "replica")) {
      queue.add(request, ENVELOPE, 0, this.#nowUs, "replica");
    }
    queue.voice(request.digest, from);
  }

  #at(atUs: number, run: () => void): void {
    const events = this.#events;
    let at = events.push({ atUs, run }) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((events[parent] as Event).atUs <= atUs) break;
      [events[at], events[parent]] = [events[parent] as Event, events[at] as Event];
      at = parent;
    }
  }

  #next(): Event | undefined {
    const events = this.#events;
    const first = events[0];
    const last = events.pop();
    if (!first || !last || events.length === 0) return first;
    events[0] = last;
    for (let at = 0; ; ) {
      let least = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if (child < events.length && (events[child] as Event).atUs < (events[least] as Event).atUs) least = child;
      }
      if (least === at) return first;
      [events[at], events[least]] = [events[least] as Event, events[at] as Event];
      at = least;
    }
  }
}

export function clientOf(client: number): Digest {
  return `client ${client}`.padEnd(32) as Digest;
}

/** A request as a queue sees it. */
export function requestOf(client: number, sequence: number, bytes: number): Request {
  const id = clientOf(client);
  const key = requestKey(id, 1, sequence);
  return {
    cluster: "" as Digest,
    client: id,
    session: 1,
    sequence,
    ackedBelow: 1,
    kind: "ordered",
    deadlineMs: 0,
    commands: [new Uint8Array(0)],
    bytes: bodyOf(bytes),
    digest: key as Digest,
    key,
  };
}

const bodies = new Map<number, Uint8Array>();

function bodyOf(bytes: number): Uint8Array {
  let body = bodies.get(bytes);
  if (!body) {
    body = new Uint8Array(bytes);
    bodies.set(bytes, body);
  }
  return body;
}
