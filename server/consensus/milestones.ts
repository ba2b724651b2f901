/**
 * How far this replica has come: decided, in the own journal, executed (docs/protocol.md section 4.5).
 *
 * Invariants: 1. decisions follow each other without a gap. 2. `durableUpTo` and `executedUpTo` never exceed the last
 * decided instance and never fall.
 */
import { assert } from "../../protocol/errors.ts";
import type { Request } from "../../protocol/request.ts";
import type { Position } from "./restart.ts";

export class Milestones {
  #decided: Position;
  #durableUpTo: number;
  #executedUpTo: number;
  readonly #executing = new Map<number, readonly Request[]>();

  constructor(start: Position) {
    this.#decided = start;
    this.#durableUpTo = start.instance;
    this.#executedUpTo = start.instance;
  }

  get lastDecided(): Position {
    return this.#decided;
  }

  /** Up to here every instance is in the own journal with the decided digest. */
  get durableUpTo(): number {
    return this.#durableUpTo;
  }

  get executedUpTo(): number {
    return this.#executedUpTo;
  }

  /** All that is decided is in the own journal: only then may this replica propose or vote in the next instance. */
  get settled(): boolean {
    return this.#durableUpTo === this.#decided.instance;
  }

  /** Decided batches that wait for execution. */
  get executionLag(): number {
    return this.#decided.instance - this.#executedUpTo;
  }

  decide(position: Position, requests: readonly Request[]): void {
    assert(position.instance === this.#decided.instance + 1, "decisions are in order");
    this.#decided = position;
    this.#executing.set(position.instance, requests);
  }

  /** False when it was known before. Journal writes complete in order, so what is below is durable as well. */
  durable(instance: number): boolean {
    assert(instance <= this.#decided.instance, "only decided instances become durable");
    if (instance <= this.#durableUpTo) return false;
    this.#durableUpTo = instance;
    return true;
  }

  /** The requests of an executed instance. */
  executed(instance: number): readonly Request[] {
    const requests = this.#executing.get(instance);
    assert(requests, "executed: an instance that was not decided");
    this.#executing.delete(instance);
    this.#executedUpTo = instance;
    return requests;
  }
}
