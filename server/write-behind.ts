/**
 * The state goes to disk behind execution (docs/protocol.md section 6): one group of whole instances at a time, at a steady
 * pace, off the reply path. Only executed instances are written, and only journaled ones execute, so the state store
 * never gets ahead of the journal.
 */
import type { StateStore } from "../storage/contract.ts";
import type { Executor } from "./service/executor.ts";

/** The pace while there is something to write. */
const INTERVAL_US = 400_000;
/** Batch bytes executed but not yet in the state store before execution waits. */
const UNWRITTEN_BYTES_MAX = 128 * 1024 * 1024;

export interface WriteBehindPort {
  nowUs(): number;
  /** Call `write` again no later than this. */
  wake(atUs: number): void;
  /** A group is on disk; `sinceUs` is when its write began. */
  written(sinceUs: number): void;
  failed(error: unknown): void;
}

export class WriteBehind {
  readonly #executor: Executor;
  readonly #store: StateStore;
  readonly #port: WriteBehindPort;
  #writing: Promise<void> | null = null;
  #lastUs = 0;
  #unwrittenBytes = 0;

  constructor(executor: Executor, store: StateStore, port: WriteBehindPort) {
    this.#executor = executor;
    this.#store = store;
    this.#port = port;
  }

  /** Too much waits for the disk: execute nothing more yet. */
  get full(): boolean {
    return this.#unwrittenBytes > UNWRITTEN_BYTES_MAX;
  }

  executed(bytes: number): void {
    this.#unwrittenBytes += bytes + 1;
  }

  /** Writes what has gathered if it is time and no write is under way. */
  write(): void {
    if (this.#writing || this.#unwrittenBytes === 0) return;
    const dueUs = this.#lastUs + INTERVAL_US;
    if (this.#port.nowUs() < dueUs) {
      this.#port.wake(dueUs);
      return;
    }
    this.#writing = this.#group().then(
      () => {
        this.#writing = null;
      },
      (error: unknown) => this.#port.failed(error),
    );
  }

  /** Everything executed so far is on disk when this resolves. */
  async finish(): Promise<void> {
    await this.#writing;
    await this.#group();
  }

  async #group(): Promise<void> {
    const sinceUs = this.#port.nowUs();
    this.#lastUs = sinceUs;
    const group = this.#executor.takeGroup();
    this.#unwrittenBytes = 0;
    if (!group) return;
    await this.#store.write(group);
    this.#executor.groupDurable();
    this.#port.written(sinceUs);
  }
}
