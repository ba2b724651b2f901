/**
 * Commands waiting to be sent, and how they are bundled into requests (docs/protocol.md section 3): in the order issued, one
 * deadline and one way to reply per request, bounded by count and bytes.
 */
import { assert } from "../protocol/errors.ts";
import { CACHED_REPLY_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_COMMANDS_MAX } from "../protocol/limits.ts";
import type { Call, Lane } from "./call.ts";

/** Room for the request's own header beside its commands. */
const HEADER_BYTES = 256;
const BUNDLE_BYTES_MAX = 1024 * 1024;
/** A put's or cas's result, length prefix included, is never longer. */
const WRITTEN_BYTES_MAX = 48;
const BUNDLE_COMMANDS_MAX = 1_024;
const READ_BUNDLE_BYTES_TARGET = 1024 * 1024;

assert(BUNDLE_COMMANDS_MAX <= REQUEST_COMMANDS_MAX, "a bundle fits a request");
assert(BUNDLE_COMMANDS_MAX * WRITTEN_BYTES_MAX < CACHED_REPLY_BYTES_MAX, "a bundle's write results stay cached");

/** The largest command that fits a request of its own. */
export const COMMAND_BYTES_MAX = REQUEST_BYTES_MAX - HEADER_BYTES;

export class LaneQueue {
  readonly #lane: Lane;
  #calls: Call[] = [];
  #head = 0;
  #bytes = 0;
  #timeoutAt = Number.POSITIVE_INFINITY;
  /** Recent size of a command's result. */
  #resultBytes: number;

  constructor(lane: Lane) {
    this.#lane = lane;
    this.#resultBytes = lane === "write" ? WRITTEN_BYTES_MAX : 256;
  }

  get empty(): boolean {
    return this.#head === this.#calls.length;
  }

  /** Bytes of the commands waiting. */
  get bytes(): number {
    return this.#bytes;
  }

  push(call: Call): void {
    this.#calls.push(call);
    this.#bytes += call.command.length;
    if (call.timeoutAt < this.#timeoutAt) this.#timeoutAt = call.timeoutAt;
  }

  /**
   * Learns how large results are, so that a bundle's result stays near 1 MiB, or, of writes, stays cached. Grows at once,
   * shrinks slowly.
   */
  observe(resultBytes: number): void {
    this.#resultBytes = Math.max(resultBytes, this.#resultBytes * 0.9);
  }

  /** The next bundle: calls still waited for, at least one if any is left. */
  take(): Call[] {
    const bundle: Call[] = [];
    let bytes = 0;
    const countMax = this.#countMax;
    while (this.#head < this.#calls.length && bundle.length < countMax) {
      const call = this.#calls[this.#head] as Call;
      const size = call.command.length + 4;
      if (!call.done && bundle.length > 0) {
        if (bytes + size > BUNDLE_BYTES_MAX || !alike(call, bundle[0])) break;
      }
      this.#head++;
      this.#bytes -= call.command.length;
      if (call.done) continue;
      bundle.push(call);
      bytes += size;
    }
    this.#shrink();
    return bundle;
  }

  /** The calls whose time is up; settled ones are forgotten on the way. */
  expired(now: number): Call[] {
    if (now < this.#timeoutAt) return [];
    const expired: Call[] = [];
    const left: Call[] = [];
    this.#timeoutAt = Number.POSITIVE_INFINITY;
    this.#bytes = 0;
    for (let at = this.#head; at < this.#calls.length; at++) {
      const call = this.#calls[at] as Call;
      if (call.done) continue;
      if (now >= call.timeoutAt) {
        expired.push(call);
        continue;
      }
      left.push(call);
      this.#bytes += call.command.length;
      if (call.timeoutAt < this.#timeoutAt) this.#timeoutAt = call.timeoutAt;
    }
    this.#calls = left;
    this.#head = 0;
    return expired;
  }

  /** Everything still waited for, in order; the queue is empty then. */
  drain(): Call[] {
    const calls = this.#calls.slice(this.#head).filter((call) => !call.done);
    this.#calls = [];
    this.#head = 0;
    this.#bytes = 0;
    return calls;
  }

  get #countMax(): number {
    if (this.#lane === "local") return 1;
    const write = this.#lane === "write";
    const fitting = Math.floor((write ? CACHED_REPLY_BYTES_MAX : READ_BUNDLE_BYTES_TARGET) / this.#resultBytes);
    return Math.min(BUNDLE_COMMANDS_MAX, Math.max(write ? 1 : 4, fitting));
  }

  #shrink(): void {
    if (this.#head === this.#calls.length) {
      this.#calls = [];
      this.#head = 0;
      this.#timeoutAt = Number.POSITIVE_INFINITY;
    } else if (this.#head > 4_096) {
      this.#calls.splice(0, this.#head);
      this.#head = 0;
    }
  }
}

/** May these travel in one request? It has one deadline, and one answer to who sends the result. */
function alike(call: Call, first: Call | undefined): boolean {
  return call.deadlineMs === first?.deadlineMs && call.everybody === first.everybody;
}
