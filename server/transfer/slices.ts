/** Long work in slices: after a few milliseconds the event loop gets its turn, on the clock of whoever drives it. */
import type { Clock } from "../driver-contract.ts";

const SLICE_US = 5_000;

export class Slices {
  readonly #clock: Clock;
  #sinceUs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#sinceUs = clock.nowUs();
  }

  /** Call it between small steps: it waits for a turn of the event loop once the slice is used up. */
  async pause(): Promise<void> {
    if (this.due) await this.turn();
  }

  get due(): boolean {
    return this.#clock.nowUs() - this.#sinceUs >= SLICE_US;
  }

  async turn(): Promise<void> {
    await new Promise<void>((resolve) => this.#clock.defer(resolve));
    this.#sinceUs = this.#clock.nowUs();
  }
}
