/**
 * How long a leader is waited for (docs/protocol.md section 5, "Timer"): T doubles with every regency that ends without a
 * decision, up to a cap, and falls back by one step with every decision.
 */
const DOUBLINGS_MAX = 5;

export class Patience {
  readonly #baseUs: number;
  #doublings = 0;
  #decidedInRegency = true;

  constructor(requestTimeoutMs: number) {
    this.#baseUs = requestTimeoutMs * 1000;
  }

  /** T as it is now, in microseconds. */
  get timeoutUs(): number {
    return this.#baseUs * 2 ** this.#doublings;
  }

  decided(): void {
    this.#decidedInRegency = true;
    if (this.#doublings > 0) this.#doublings--;
  }

  /** Another regency was installed; was the one before of any use? */
  installed(): void {
    if (!this.#decidedInRegency && this.#doublings < DOUBLINGS_MAX) this.#doublings++;
    this.#decidedInRegency = false;
  }
}
