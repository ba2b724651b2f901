/**
 * Garbage while a state is fetched. V8 lets it grow as long as there is room: copies of what came over the links, then a second
 * state, where one was just fetched and is loaded again. No client is served meanwhile, so collecting it early costs nobody
 * anything, and keeps the memory of this replica near what it needs.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Bytes of messages between two collections. */
const BYTES = 64 * 1024 * 1024;

export class Garbage {
  readonly #collect: () => void;
  #bytes = 0;

  constructor() {
    setFlagsFromString("--expose-gc");
    this.#collect = runInNewContext("gc") as () => void;
    setFlagsFromString("--no-expose-gc");
  }

  /** A message of so many bytes has come in. */
  passed(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes >= BYTES) this.collect();
  }

  collect(): void {
    this.#bytes = 0;
    this.#collect();
  }
}
