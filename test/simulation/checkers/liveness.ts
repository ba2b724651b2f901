/**
 * Liveness: once at most f replicas are faulty and the network delivers, every call of a correct client finishes within a
 * span of virtual time. Nothing is demanded before `healed`.
 */
import { Stall } from "../contract.ts";
import type { Pending, RunObserver } from "./events.ts";

export class LivenessChecker implements RunObserver {
  readonly #withinUs: number;
  readonly #pending = new Map<number, Pending>();
  #healedUs = Number.POSITIVE_INFINITY;

  /** `withinUs`: from when a call was made or the world healed, whichever came later. */
  constructor(withinUs: number) {
    this.#withinUs = withinUs;
  }

  get unfinished(): number {
    return this.#pending.size;
  }

  pending(event: Pending): void {
    if (this.#pending.has(event.id)) throw new Error(`call ${event.id} is pending already`);
    this.#pending.set(event.id, event);
  }

  finished(event: { readonly id: number; readonly nowUs: number }): void {
    const call = this.#pending.get(event.id);
    if (!call) throw new Error(`call ${event.id} finished without being pending`);
    this.#check(call, event.nowUs);
    this.#pending.delete(event.id);
  }

  healed(event: { readonly nowUs: number }): void {
    this.#healedUs = Math.min(this.#healedUs, event.nowUs);
  }

  advanced(event: { readonly nowUs: number }): void {
    // In the order in which they were made, so the first is due first.
    for (const call of this.#pending.values()) {
      this.#check(call, event.nowUs);
      return;
    }
  }

  /** After a healed run nothing may be left, however short the time was. */
  ended(event: { readonly nowUs: number }): void {
    if (event.nowUs < this.#healedUs) return;
    for (const call of this.#pending.values()) throw this.#stall(call, event.nowUs);
  }

  #check(call: Pending, nowUs: number): void {
    if (nowUs > Math.max(call.nowUs, this.#healedUs) + this.#withinUs) throw this.#stall(call, nowUs);
  }

  #stall(call: Pending, nowUs: number): Stall {
    const sinceMs = Math.round((nowUs - Math.max(call.nowUs, this.#healedUs)) / 1000);
    return new Stall(
      `${call.what} (call ${call.id}) is unfinished ${sinceMs} ms after it could have gone on; ` +
        `${this.#pending.size} calls are pending`,
    );
  }
}
