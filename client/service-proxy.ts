/**
 * `ServiceProxy`: a replicated service as its callers see it, whatever its commands mean (docs/library.md). Every answer is one
 * that a quorum of replicas gave; an ordered command is executed exactly once or not at all (docs/protocol.md section 3).
 * `Kv` is built on it.
 */
import { hex } from "../protocol/bytes.ts";
import { REPLY_STATUSES, type ReplyStatus } from "../protocol/client-frames.ts";
import { decodeResults } from "../protocol/commands.ts";
import { decoded, isRejection, QuorateError } from "../protocol/errors.ts";
import type { View } from "../protocol/view.ts";
import { type RequestId, UnknownOutcomeError } from "./errors.ts";
import type { CallOptions, Consistency, WriteOptions } from "./kv-types.ts";
import type { ReplicaReply } from "./replica-reply.ts";
import type { ReplicaState } from "./replicas.ts";
import { unexpected } from "./results.ts";
import type { Session, SubmitOptions } from "./session.ts";

/** Options of every command. */
export interface InvokeOptions extends CallOptions {
  /** Hears each replica's reply as it comes, before a quorum stands. One that throws ends the waiting, like an abort. */
  readonly onReply?: ((reply: ReplicaReply) => void) | undefined;
}

export interface OrderedOptions extends InvokeOptions, Pick<WriteOptions, "deadlineMs"> {}

export interface UnorderedOptions extends InvokeOptions {
  /** The connection's `consistency` by default. */
  readonly consistency?: Consistency | undefined;
  /** Order it at once, like a command that changes something; not for what is asked locally. */
  readonly ordered?: boolean | undefined;
  /** Says of a result that the results before it in the reply left no room (`ExecutionContext.replyFull`): ask again. */
  readonly crowdedOut?: ((result: Uint8Array) => boolean) | undefined;
}

/** What became of an ordered command. */
export type ServiceOutcome =
  /** Executed; its result as the service gave it. */
  | { readonly type: "replied"; readonly status: ReplyStatus; readonly bytes: Uint8Array }
  /** Executed; its result is gone. */
  | { readonly type: "executed" }
  /** Not executed, and never will be. */
  | { readonly type: "cancelled" }
  /** The session is gone: nobody knows any more. */
  | { readonly type: "unknown" };

/** A command under way. */
export interface Invocation {
  /** What the promise of the synchronous variant would be. It need not be listened to. */
  readonly result: Promise<Uint8Array>;
  /** Ends the waiting: `result` rejects with ABORTED, unless it has settled. What was sent may still be executed. */
  cancel(reason?: unknown): void;
}

/** An ordered command under way. */
export interface OrderedInvocation extends Invocation {
  /**
   * What became of it, once `result` has settled. If it was given up and is not executed by then, it is cancelled for ever.
   * @throws QuorateError as `ServiceProxy.outcome`
   */
  outcome(options?: CallOptions): Promise<ServiceOutcome>;
}

/**
 * A connection to a replicated service. Calls may run concurrently: what is issued in one turn of the event loop travels in
 * one request, and its commands may be executed in any order.
 *
 * @example
 * ```ts
 * const counter = await connectService({ cluster: ".kv/cluster.json" });
 * const total = await counter.invokeOrdered(new TextEncoder().encode("+1"));
 * await counter.close();
 * ```
 */
export class ServiceProxy implements AsyncDisposable {
  readonly #session: Session;
  readonly #timeoutMs: number;
  readonly #consistency: Consistency;

  /** Use `connectService()`. */
  constructor(session: Session, defaults: { readonly timeoutMs: number; readonly consistency: Consistency }) {
    this.#session = session;
    this.#timeoutMs = defaults.timeoutMs;
    this.#consistency = defaults.consistency;
  }

  /** This client's id: 64 hexadecimal digits. */
  get clientId(): string {
    return hex(this.#session.client);
  }

  /** The membership in force as far as this client has followed it; see `Kv.view`. */
  get view(): View {
    return this.#session.chain.newest;
  }

  /** The replicas of the cluster, and which of them are connected. */
  replicas(): ReplicaState[] {
    return this.#session.replicas;
  }

  /**
   * Has a command ordered and executed exactly once; every replica sends the whole result.
   * @throws UnknownOutcomeError UNKNOWN_OUTCOME, QUORUM_UNAVAILABLE, ABORTED, CLOSED when it was sent and its result is not
   *   known: see `outcome()`.
   * @throws QuorateError REQUEST_TOO_LARGE, BUSY, DEADLINE, STORAGE_FULL, REFUSED, TIMEOUT, QUORUM_UNAVAILABLE (not sent)
   */
  invokeOrdered(command: Uint8Array, options: OrderedOptions = {}): Promise<Uint8Array> {
    return this.#submit(command, this.#ordered(options, { everybody: true }));
  }

  /**
   * The same, but one replica sends a result above 1 KiB and the others its digest: less traffic, and a replica that withholds
   * the bytes costs a resend. @throws as `invokeOrdered`
   */
  invokeOrderedHashed(command: Uint8Array, options: OrderedOptions = {}): Promise<Uint8Array> {
    return this.#submit(command, this.#ordered(options, { everybody: false }));
  }

  /**
   * Asks for something that changes nothing, without ordering it; every replica sends the whole result. Ordered after all when
   * no quorum answers alike within 100 ms, or when the service says that it is no query: so it may be executed more than once.
   * With `consistency: "local"` one replica is asked, and believed; nothing is ordered.
   * @throws QuorateError INVALID_ARGUMENT, REQUEST_TOO_LARGE, BUSY, REFUSED, TIMEOUT, QUORUM_UNAVAILABLE, ABORTED, CLOSED
   */
  invokeUnordered(command: Uint8Array, options: UnorderedOptions = {}): Promise<Uint8Array> {
    return this.#ask(command, options, { everybody: true });
  }

  /** The same, but one replica sends a result above 1 KiB and the others its digest. @throws as `invokeUnordered` */
  invokeUnorderedHashed(command: Uint8Array, options: UnorderedOptions = {}): Promise<Uint8Array> {
    return this.#ask(command, options, { everybody: false });
  }

  /** `invokeOrdered`, or `invokeOrderedHashed`, with a handle on what is under way. */
  invokeOrderedAsync(command: Uint8Array, options: OrderedOptions & { hashed?: boolean } = {}): OrderedInvocation {
    const everybody = options.hashed !== true;
    const invocation = this.#invocation(options, (signal) =>
      this.#submit(command, this.#ordered({ ...options, signal }, { everybody })),
    );
    return { ...invocation, outcome: (asking) => this.#outcomeOf(invocation.result, asking) };
  }

  /** `invokeUnordered`, or `invokeUnorderedHashed`, with a handle on what is under way. */
  invokeUnorderedAsync(command: Uint8Array, options: UnorderedOptions & { hashed?: boolean } = {}): Invocation {
    const everybody = options.hashed !== true;
    return this.#invocation(options, (signal) => this.#ask(command, { ...options, signal }, { everybody }));
  }

  /**
   * What became of an ordered command whose outcome was unknown. If it has not been executed by then, it is cancelled for ever:
   * after an answer other than "unknown", issuing it again is safe.
   * @throws QuorateError INVALID_ARGUMENT; TIMEOUT, QUORUM_UNAVAILABLE, ABORTED, CLOSED: ask again
   */
  async outcome(requestId: RequestId, options: CallOptions = {}): Promise<ServiceOutcome> {
    const { session, sequence, index = 0 } = requestId;
    if (!Number.isSafeInteger(session) || session < 1 || !Number.isSafeInteger(sequence) || sequence < 1) {
      throw new QuorateError("INVALID_ARGUMENT", "a request id has a session and a sequence, both integers from 1");
    }
    const { timeoutMs = this.#timeoutMs, signal } = options;
    const resolution = await this.#session.resolve({ session, sequence }, { timeoutMs, signal });
    if (resolution.type !== "replied") return resolution;
    const status = REPLY_STATUSES[resolution.status];
    const results = decoded(() => decodeResults(resolution.results));
    const bytes = isRejection(results) ? undefined : results[index];
    if (status === undefined || bytes === undefined) throw unexpected("an unreadable resolution");
    return { type: "replied", status, bytes };
  }

  /** Rejects what is pending with CLOSED and closes every connection. Await your calls first. */
  async close(): Promise<void> {
    await this.#session.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #submit(command: Uint8Array, options: SubmitOptions): Promise<Uint8Array> {
    return this.#session.submit(command, options, (result) => result);
  }

  #ordered(options: OrderedOptions, { everybody }: { everybody: boolean }): SubmitOptions {
    const { timeoutMs = this.#timeoutMs, deadlineMs, signal, onReply } = options;
    return { lane: "write", timeoutMs, deadlineMs, signal, onReply, everybody };
  }

  /** An option that makes no sense rejects, like everything else that goes wrong. */
  async #ask(
    command: Uint8Array,
    options: UnorderedOptions,
    { everybody }: { everybody: boolean },
  ): Promise<Uint8Array> {
    const { timeoutMs = this.#timeoutMs, signal, crowdedOut, onReply } = options;
    const lane = this.#laneOf(options);
    return await this.#submit(command, { lane, timeoutMs, signal, crowdedOut, onReply, everybody });
  }

  /** What was asked for and nothing weaker: a local answer is never taken for a linearizable one that failed. */
  #laneOf({ consistency = this.#consistency, ordered = false }: UnorderedOptions): SubmitOptions["lane"] {
    switch (consistency) {
      case "local":
        if (ordered) throw new QuorateError("INVALID_ARGUMENT", "a read is either local or ordered, not both");
        return "local";
      case "linearizable":
        return ordered ? "read" : "query";
      default:
        throw new QuorateError("INVALID_ARGUMENT", `consistency is "linearizable" or "local", not "${consistency}"`);
    }
  }

  #invocation({ signal }: InvokeOptions, submit: (signal: AbortSignal) => Promise<Uint8Array>): Invocation {
    const cancelled = new AbortController();
    const either = signal ? AbortSignal.any([signal, cancelled.signal]) : cancelled.signal;
    const result = submit(either);
    // Whoever holds a handle may look at the outcome instead.
    result.catch(() => undefined);
    return { result, cancel: (reason) => cancelled.abort(reason) };
  }

  async #outcomeOf(result: Promise<Uint8Array>, options: CallOptions | undefined): Promise<ServiceOutcome> {
    try {
      return { type: "replied", status: "OK", bytes: await result };
    } catch (error) {
      if (!(error instanceof QuorateError)) throw error;
      if (error instanceof UnknownOutcomeError && error.outcome === "executed") return { type: "executed" };
      const { outcome, requestId } = error.detail as { outcome?: string; requestId?: RequestId };
      if (requestId) return this.outcome(requestId, options);
      if (outcome === "not-sent" || outcome === "not-executed") return { type: "cancelled" };
      throw error;
    }
  }
}
