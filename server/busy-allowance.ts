/**
 * How often this replica says BUSY (docs/protocol.md section 8): saying so costs a hash, a MAC and a frame, so that answering
 * everybody who is turned away would eat up what those who are let in need. A client needs few: one pauses it.
 */
import type { Digest } from "../protocol/bytes.ts";
import { BUSY_MAX, BUSY_PER_CLIENT_MAX, BUSY_WINDOW_US } from "../protocol/limits.ts";

export class BusyAllowance {
  readonly #said = new Map<Digest, number>();
  #total = 0;
  #window = -1;

  /** May this client be told now? Counts it. */
  takes(client: Digest, nowUs: number): boolean {
    const window = Math.floor(nowUs / BUSY_WINDOW_US);
    if (window !== this.#window) {
      this.#window = window;
      this.#said.clear();
      this.#total = 0;
    }
    const said = this.#said.get(client) ?? 0;
    if (said >= BUSY_PER_CLIENT_MAX || this.#total >= BUSY_MAX) return false;
    this.#said.set(client, said + 1);
    this.#total++;
    return true;
  }
}
