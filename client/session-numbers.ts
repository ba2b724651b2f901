/**
 * Session numbers (docs/protocol.md section 3): microseconds since 1970 whose low ten bits are random, never at or below
 * one handed out before. Safe integers until the year 2255.
 */
import type { Clock } from "./ports.ts";

const LOW = 1_024;

export class SessionNumbers {
  #last = 0;

  /** The next number, above `floor` (the watermark of a session that expired) and above every earlier one. */
  next(clock: Clock, floor = 0): number {
    const micros = Math.floor((clock.wallMs() * 1_000) / LOW) * LOW + Math.floor(clock.random() * LOW);
    this.#last = Math.max(micros, this.#last + 1, floor + 1);
    return this.#last;
  }
}
