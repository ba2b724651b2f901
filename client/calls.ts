/** The books on callers' promises: each is settled exactly once, its abort listener removed, its request told. */
import type { Call, InFlight, Lane } from "./call.ts";
import type { Clock } from "./ports.ts";
import type { ReplicaReply } from "./replica-reply.ts";

/** What of a call its caller chooses. */
export interface CallOptions {
  readonly lane: Lane;
  readonly timeoutMs: number;
  readonly deadlineMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly target?: InFlight;
  readonly crowdedOut?: ((result: Uint8Array) => boolean) | undefined;
  readonly everybody?: boolean | undefined;
  readonly onReply?: ((reply: ReplicaReply) => void) | undefined;
}

/** The caller's promise. */
export interface Caller {
  readonly settle: (result: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

export class Calls {
  readonly #clock: Clock;
  readonly #onAbort: (call: Call, signal: AbortSignal) => void;
  #pending = 0;

  constructor(clock: Clock, onAbort: (call: Call, signal: AbortSignal) => void) {
    this.#clock = clock;
    this.#onAbort = onAbort;
  }

  /** Calls not settled. */
  get pending(): number {
    return this.#pending;
  }

  create(command: Uint8Array, options: CallOptions, { settle, reject }: Caller): Call {
    const { lane, signal = null } = options;
    const call: Call = {
      command,
      lane,
      deadlineMs: options.deadlineMs ?? 0,
      timeoutAt: this.#clock.monotonicMs() + options.timeoutMs,
      settle,
      reject,
      target: options.target ?? null,
      crowdedOut: options.crowdedOut ?? null,
      everybody: options.everybody ?? false,
      onReply: options.onReply ?? null,
      done: false,
      entry: null,
      index: 0,
      signal,
      onAbort: null,
    };
    if (signal) {
      call.onAbort = () => this.#onAbort(call, signal);
      signal.addEventListener("abort", call.onAbort, { once: true });
    }
    this.#pending++;
    return call;
  }

  /** Takes the call off the books without an answer. False when it was settled before. */
  detach(call: Call): boolean {
    if (call.done) return false;
    call.done = true;
    this.#pending--;
    if (call.entry) call.entry.open--;
    if (call.onAbort) call.signal?.removeEventListener("abort", call.onAbort);
    return true;
  }

  settle(call: Call, result: Uint8Array): void {
    if (this.detach(call)) call.settle(result);
  }

  reject(call: Call, error: unknown): void {
    if (this.detach(call)) call.reject(error);
  }
}
