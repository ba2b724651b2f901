/** What waits for a worker: first in, first out for each client, and one of each client in turn, so that a flood delays itself. */
import type { Digest } from "../../protocol/bytes.ts";

export class Turns<T> {
  /** Whose turn it is comes first. */
  readonly #lines = new Map<Digest, T[]>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  push(client: Digest, item: T): void {
    this.#size++;
    const line = this.#lines.get(client);
    if (line) line.push(item);
    else this.#lines.set(client, [item]);
  }

  /** The next item of the client whose turn it is, unless `fits` refuses it; then nothing is taken. */
  take(fits: (item: T) => boolean): T | undefined {
    for (const [client, line] of this.#lines) {
      const item = line[0] as T;
      if (!fits(item)) return undefined;
      line.shift();
      this.#size--;
      if (line.length === 0) this.#lines.delete(client);
      else if (this.#lines.size > 1) {
        this.#lines.delete(client);
        this.#lines.set(client, line);
      }
      return item;
    }
    return undefined;
  }

  clear(): void {
    this.#lines.clear();
    this.#size = 0;
  }
}
