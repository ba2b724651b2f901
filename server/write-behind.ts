/**
 * The state goes to disk behind execution (docs/protocol.md section 6): one group of whole instances at a time, at a steady
 * pace, off the reply path. Only executed instances are written, and only journaled ones execute, so the state store
 * never gets ahead of the journal.
 *
 * A *cut* ends a group at exactly the instance just executed, out of turn, and hands out a snapshot of the state as it then
 * is on disk: a checkpoint begins so.
 */
import { assert } from "../protocol/errors.ts";
import type { StateSnapshot, StateStore } from "../storage/contract.ts";
import type { Executor, Group } from "./service/executor.ts";

/** The pace while there is something to write. */
const INTERVAL_US = 400_000;
/** Batch bytes executed but not yet in the state store before execution waits. */
const UNWRITTEN_BYTES_MAX = 128 * 1024 * 1024;
/** Cuts that may wait for the disk. */
const CUTS_MAX = 4;

export interface WriteBehindPort {
  nowUs(): number;
  /** Call `write` again no later than this. */
  wake(atUs: number): void;
  /** A group is on disk; `sinceUs` is when its write began. */
  written(sinceUs: number): void;
  failed(error: unknown): void;
}

interface Cut {
  readonly instance: number;
  /** What was executed up to there since the group before; null when nothing was. */
  readonly group: Group | null;
  readonly bytes: number;
  readonly then: (snapshot: StateSnapshot) => void;
}

export class WriteBehind {
  readonly #executor: Executor;
  readonly #store: StateStore;
  readonly #port: WriteBehindPort;
  /** Groups cut and not handed to the store yet, oldest first. */
  readonly #cuts: Cut[] = [];
  #active = false;
  #work: Promise<void> | null = null;
  #lastUs = 0;
  /** Of what was executed since the last group was taken. */
  #unwrittenBytes = 0;
  /** Of the groups cut and waiting. */
  #cutBytes = 0;

  constructor(executor: Executor, store: StateStore, port: WriteBehindPort) {
    this.#executor = executor;
    this.#store = store;
    this.#port = port;
  }

  /** Too much waits for the disk: execute nothing more yet. */
  get full(): boolean {
    return this.#unwrittenBytes + this.#cutBytes > UNWRITTEN_BYTES_MAX;
  }

  executed(bytes: number): void {
    this.#unwrittenBytes += bytes + 1;
  }

  /** Writes what has gathered if it is time and no write is under way. */
  write(): void {
    if (this.#active || this.#unwrittenBytes === 0) return;
    const dueUs = this.#lastUs + INTERVAL_US;
    if (this.#port.nowUs() < dueUs) {
      this.#port.wake(dueUs);
      return;
    }
    this.#start(this.#take());
  }

  /**
   * Asks for a snapshot of the state exactly as of the last executed instance: to be called before the next one executes.
   * `then` has to close it, and is called once that state is on disk; at once, if it is already. False: too many wait, and
   * nothing will come.
   */
  cut(then: (snapshot: StateSnapshot) => void): boolean {
    if (this.#cuts.length >= CUTS_MAX) return false;
    const bytes = this.#unwrittenBytes;
    const { instance } = this.#executor.applied;
    this.#cuts.push({ instance, group: this.#take(), bytes, then });
    this.#cutBytes += bytes;
    if (!this.#active) this.#start(null);
    return true;
  }

  /** Everything executed so far is on disk when this resolves. */
  async finish(): Promise<void> {
    await this.#work;
    await this.#group(this.#take());
  }

  #take(): Group | null {
    this.#unwrittenBytes = 0;
    return this.#executor.takeGroup();
  }

  #start(first: Group | null): void {
    this.#active = true;
    this.#work = this.#run(first).catch((error: unknown) => this.#port.failed(error));
  }

  /** This group, if any, and then every cut. After a failure nothing more is begun. */
  async #run(first: Group | null): Promise<void> {
    if (first) await this.#group(first);
    for (let cut = this.#cuts.shift(); cut; cut = this.#cuts.shift()) {
      this.#cutBytes -= cut.bytes;
      if (cut.group) await this.#group(cut.group);
      assert(this.#store.applied.instance === cut.instance, "a cut group leaves the state store where it was cut");
      cut.then(this.#store.snapshot());
    }
    this.#active = false;
  }

  async #group(group: Group | null): Promise<void> {
    const sinceUs = this.#port.nowUs();
    this.#lastUs = sinceUs;
    if (!group) return;
    await this.#store.write(group);
    this.#executor.groupDurable();
    this.#port.written(sinceUs);
  }
}
