/**
 * Work that waits for its client's turn (docs/protocol.md section 8): bounded per client and in all, served round robin by cost, so
 * that a client with much to do delays others by no more than a round.
 */
import type { Digest } from "../protocol/bytes.ts";
import { WAITING_BYTES_MAX, WAITING_MAX, WAITING_PER_CLIENT_MAX } from "../protocol/limits.ts";
import { type Lane, takeInTurns } from "./consensus/turns.ts";

interface Waiting<T> {
  readonly task: T;
  readonly cost: number;
  readonly bytes: number;
  readonly lane: TaskLane<T>;
}

class TaskLane<T> implements Lane<Waiting<T>> {
  credit = 0;
  readonly client: Digest;
  readonly #tasks: Waiting<T>[] = [];
  #head = 0;

  constructor(client: Digest) {
    this.client = client;
  }

  get size(): number {
    return this.#tasks.length - this.#head;
  }

  push(task: Waiting<T>): void {
    this.#tasks.push(task);
  }

  next(): Waiting<T> | undefined {
    return this.#tasks[this.#head];
  }

  advance(): void {
    this.#head++;
    if (this.#head === this.#tasks.length) {
      this.#tasks.length = 0;
      this.#head = 0;
    }
  }
}

export class FairTasks<T> {
  readonly #lanes = new Map<Digest, TaskLane<T>>();
  #size = 0;
  #bytes = 0;

  get size(): number {
    return this.#size;
  }

  /** False when nothing more of this size must be added for this client. */
  room(client: Digest, bytes: number): boolean {
    if (this.#size >= WAITING_MAX || this.#bytes + bytes > WAITING_BYTES_MAX) return false;
    return (this.#lanes.get(client)?.size ?? 0) < WAITING_PER_CLIENT_MAX;
  }

  add(client: Digest, task: T, size: { cost: number; bytes: number }): void {
    let lane = this.#lanes.get(client);
    if (!lane) {
      lane = new TaskLane(client);
      this.#lanes.set(client, lane);
    }
    lane.push({ task, lane, ...size });
    this.#size++;
    this.#bytes += size.bytes;
  }

  /** Serves clients in turn while `more` says so; `serve` returns what the task cost beyond what was said. */
  run(more: () => boolean, serve: (task: T) => number): void {
    if (this.#size === 0) return;
    const served = takeInTurns<Waiting<T>, TaskLane<T>>(
      this.#lanes.values(),
      ({ cost }) => cost,
      ({ task, bytes, lane }) => {
        if (!more()) return false;
        this.#size--;
        this.#bytes -= bytes;
        lane.credit -= serve(task);
        return true;
      },
    );
    for (const lane of served) {
      this.#lanes.delete(lane.client);
      this.#lanes.set(lane.client, lane);
    }
    for (const lane of this.#lanes.values()) if (lane.size === 0) this.#lanes.delete(lane.client);
  }
}
