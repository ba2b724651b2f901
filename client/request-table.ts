/**
 * The requests of one session that are not finished (docs/protocol.md section 3). Invariants: 1. sequences ascend in the ordered
 * table, so its first one bounds `ackedBelow`. 2. every ordered sequence is below its own `ackedBelow` + SESSION_WINDOW;
 * replicas raise the session's base to it before they judge the request, so it is inside the window. Unordered
 * requests are numbered apart: replicas never execute them in the session, and their numbers must not use up its window.
 */
import type { Reply } from "../protocol/client-frames.ts";
import { type InFlight, isUnordered, LANE_KINDS } from "./call.ts";

export class RequestTable {
  readonly ordered = new Map<number, InFlight>();
  readonly unordered = new Map<number, InFlight>();
  #nextOrdered = 1;
  #nextUnordered = 1;
  #live = 0;
  #liveBytes = 0;

  /** Ordered requests somebody waits for, RESOLVEs left out. */
  get live(): number {
    return this.#live;
  }

  get liveBytes(): number {
    return this.#liveBytes;
  }

  /** How much of the window the unfinished requests take up: 0 to SESSION_WINDOW. */
  get windowUsed(): number {
    return this.#nextOrdered - this.#lowest;
  }

  nextOrdered(): { sequence: number; ackedBelow: number } {
    const ackedBelow = this.#lowest;
    return { sequence: this.#nextOrdered++, ackedBelow };
  }

  nextUnordered(): { sequence: number; ackedBelow: number } {
    return { sequence: this.#nextUnordered++, ackedBelow: 0 };
  }

  add(entry: InFlight): void {
    if (isUnordered(entry.lane)) {
      this.unordered.set(entry.sequence, entry);
      return;
    }
    this.ordered.set(entry.sequence, entry);
    this.#count(entry, 1);
  }

  /** The request a reply is about, or undefined: finished, or never sent. */
  find(reply: Reply): InFlight | undefined {
    if (reply.kind === "unordered") return this.unordered.get(reply.sequence);
    const entry = this.ordered.get(reply.sequence);
    return entry && LANE_KINDS[entry.lane] === reply.kind ? entry : undefined;
  }

  /** False when it was removed before. */
  remove(entry: InFlight): boolean {
    const table = isUnordered(entry.lane) ? this.unordered : this.ordered;
    if (table.get(entry.sequence) !== entry) return false;
    table.delete(entry.sequence);
    if (!entry.abandoned) this.#count(entry, -1);
    return true;
  }

  /** Nobody waits for it any more, but whether it is executed still matters. */
  abandon(entry: InFlight): void {
    this.#count(entry, -1);
    entry.abandoned = true;
  }

  *all(): Iterable<InFlight> {
    yield* this.ordered.values();
    yield* this.unordered.values();
  }

  /** Empties both tables and starts numbering anew, for another session; returns what was in them. */
  reset(): InFlight[] {
    const entries = [...this.all()];
    this.ordered.clear();
    this.unordered.clear();
    this.#nextOrdered = 1;
    this.#nextUnordered = 1;
    this.#live = 0;
    this.#liveBytes = 0;
    return entries;
  }

  /** The lowest unfinished sequence; the next one when all are finished. */
  get #lowest(): number {
    for (const lowest of this.ordered.keys()) return lowest;
    return this.#nextOrdered;
  }

  #count(entry: InFlight, sign: 1 | -1): void {
    if (entry.lane !== "write" && entry.lane !== "read") return;
    this.#live += sign;
    this.#liveBytes += sign * entry.bytes.length;
  }
}
