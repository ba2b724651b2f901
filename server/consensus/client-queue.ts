/**
 * What one client has pending (docs/protocol.md sections 4.1 and 8), in order of arrival, and what it counts for: the sums are
 * exactly those of the entries that are not decided.
 */
import type { Request, RequestKind } from "../../protocol/request.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import { requestCost, type Standing } from "./admission.ts";
import type { Lane } from "./turns.ts";

/** Which room a request takes up: its client's, that for what replicas forward, or those for what must get through. */
export type Source = "client" | "replica" | "reserved" | "statement";

/** The room of what comes from its client. */
export function sourceOf(kind: RequestKind): Source {
  if (kind === "administer") return "statement";
  return kind === "resolve" ? "reserved" : "client";
}

export interface PendingRequest {
  readonly request: Request;
  readonly envelope: Uint8Array;
  readonly replier: number;
  readonly source: Source;
  readonly cost: number;
  readonly arrivedUs: number;
  /** Arrival, and what it took at the pace of that time to serve what was queued before: patience starts here. */
  readonly dueUs: number;
  /** What every client has been served when it is this one's turn, if all are served alike. */
  readonly turn: number;
  /** Barred: not taken before it comes with a signature. */
  state: "waiting" | "barred" | "proposed" | "decided";
  /** When it was last forwarded to all. */
  forwardedUs: number;
  /** Its client sent it again: somebody waits for it. */
  asked: boolean;
  /** Who forwarded the same request. */
  voices: ReadonlySet<ReplicaId>;
}

interface Room {
  count: number;
  bytes: number;
}

export class ClientQueue implements Standing {
  /** In order of arrival, from `head` on; nothing stands before it. */
  readonly entries: (PendingRequest | undefined)[] = [];
  head = 0;
  cost = 0;
  /** Until when it has to wait for results that it was served (debts.ts), or had to; the distant past when it never had. */
  paidUs: number;
  /** What others were served meanwhile, if all were served alike: its turns come later by that. */
  passedOver = 0;
  /** When a request of this client was decided last. */
  servedUs = 0;
  /** Since when the oldest request has been that; infinite when that is not known. */
  headUs = Number.POSITIVE_INFINITY;
  /** Which of its requests are turned away for now: those with a lot below it (admission.ts). */
  shed = 0;
  /** Kept between batches (turns.ts). */
  credit = 0;
  /** Cost it may add to a batch. */
  #budget = 0;
  readonly rooms: Readonly<Record<Source, Room>> = {
    client: { count: 0, bytes: 0 },
    replica: { count: 0, bytes: 0 },
    reserved: { count: 0, bytes: 0 },
    statement: { count: 0, bytes: 0 },
  };

  constructor(paidUs: number) {
    this.paidUs = paidUs;
  }

  /** Did it have to wait for results since it has had something pending? */
  get debtor(): boolean {
    return this.paidUs !== Number.NEGATIVE_INFINITY;
  }

  get count(): number {
    const { client, replica, reserved, statement } = this.rooms;
    return client.count + replica.count + reserved.count + statement.count;
  }

  /** Could a batch take something of it? */
  get waits(): boolean {
    return new ClientLane(this, false).next() !== undefined;
  }

  get oldest(): PendingRequest | undefined {
    return this.entries[this.head];
  }

  push(entry: PendingRequest): void {
    if (this.count === 0) this.headUs = entry.arrivedUs;
    this.entries.push(entry);
    this.#tally(entry, 1);
  }

  /** This entry was decided or dropped. */
  leave(entry: PendingRequest): void {
    this.#tally(entry, -1);
    this.#trim();
  }

  /** Lets go of the finished front at once; its places are cut off in large pieces. */
  #trim(): void {
    const { entries } = this;
    while (this.head < entries.length && entries[this.head]?.state === "decided") entries[this.head++] = undefined;
    if (this.head <= 256 || this.head * 2 <= entries.length) return;
    entries.splice(0, this.head);
    this.head = 0;
  }

  #tally({ source, cost, request }: PendingRequest, sign: 1 | -1): void {
    const room = this.rooms[source];
    room.count += sign;
    room.bytes += sign * request.bytes.length;
    this.cost += sign * cost;
  }

  /** What waits here, from the first one on, for another batch, to which this client may add so much; null: as much as fits. */
  lane(costMax: number | null): ClientLane {
    if (costMax !== null) this.#budget = Math.min(this.#budget, this.cost) + costMax;
    return new ClientLane(this, costMax !== null);
  }

  /** May a request of this cost go into the batch? What one is too large for is kept for the next. */
  affords(cost: number): boolean {
    return cost <= this.#budget;
  }

  pay(cost: number): void {
    this.#budget -= cost;
  }
}

/** A client's queue while a batch is put together. */
export class ClientLane implements Lane<PendingRequest> {
  readonly queue: ClientQueue;
  readonly #bounded: boolean;
  #at: number;

  constructor(queue: ClientQueue, bounded: boolean) {
    this.queue = queue;
    this.#bounded = bounded;
    this.#at = queue.head;
  }

  get credit(): number {
    return this.queue.credit;
  }

  set credit(credit: number) {
    this.queue.credit = credit;
  }

  next(): PendingRequest | undefined {
    const { entries } = this.queue;
    while (this.#at < entries.length && entries[this.#at]?.state !== "waiting") this.#at++;
    const entry = entries[this.#at];
    return entry && (!this.#bounded || this.queue.affords(entry.cost)) ? entry : undefined;
  }

  advance(): void {
    const cost = this.queue.entries[this.#at++]?.cost ?? 0;
    if (this.#bounded) this.queue.pay(cost);
  }
}

export function costOf({ bytes, commands }: Request): number {
  return requestCost(bytes.length, commands.length);
}
