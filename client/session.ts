/**
 * One client session as the public API uses it: promises around the request engine (docs/protocol.md section 3). Every call is
 * settled exactly once: by the engine, by its time-out, by its signal, or by `close()`.
 */
import type { Digest } from "../protocol/bytes.ts";
import type { Cluster } from "../protocol/cluster.ts";
import { decodeResolution, type Resolution } from "../protocol/commands.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { decoded, isRejection, QuorateError } from "../protocol/errors.ts";
import type { Identity } from "../protocol/identity.ts";
import { encodeResolve, type ResolveTarget } from "../protocol/request.ts";
import type { ViewChain } from "../protocol/view-chain.ts";
import type { Call } from "./call.ts";
import { type Caller, type CallOptions, Calls } from "./calls.ts";
import { Engine } from "./engine.ts";
import { interrupted } from "./failures.ts";
import { COMMAND_BYTES_MAX } from "./lane-queue.ts";
import type { Clock, Transport } from "./ports.ts";
import type { ReplicaReply } from "./replica-reply.ts";
import type { ReplicaState } from "./replicas.ts";
import type { SessionNumbers } from "./session-numbers.ts";
import type { ViewStore } from "./view-follower.ts";

const QUEUE_BYTES_MAX = 64 * 1024 * 1024;

export interface SessionOptions {
  /** As the cluster file describes it. */
  readonly cluster: Cluster;
  /** From its first view to the newest that is known. */
  readonly chain: ViewChain;
  readonly store: ViewStore | null;
  readonly identity: Identity;
  readonly crypto: Crypto;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly numbers: SessionNumbers;
  readonly signed: boolean;
}

/** How long a caller waits (milliseconds) and what ends its waiting. */
export interface WaitOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface SubmitOptions extends WaitOptions {
  readonly lane: "write" | "read" | "query" | "local";
  readonly deadlineMs?: number | undefined;
  /** Of a read: whether this result says that the bundle left no room for it. It is issued again then. */
  readonly crowdedOut?: ((result: Uint8Array) => boolean) | undefined;
  /** Every replica sends a large result in full; else one does and the others send its digest. */
  readonly everybody?: boolean | undefined;
  /** Hears each replica's verified reply. */
  readonly onReply?: ((reply: ReplicaReply) => void) | undefined;
}

export class Session {
  readonly #engine: Engine;
  readonly #calls: Calls;
  #closed = false;

  constructor(options: SessionOptions) {
    this.#calls = new Calls(options.clock, (call, signal) =>
      this.#engine.giveUp(call, interrupted(call, "ABORTED", signal.reason)),
    );
    this.#engine = new Engine({ ...options, calls: this.#calls });
  }

  /** The client id: the fingerprint of its public keys. */
  get client(): Digest {
    return this.#engine.client;
  }

  /** The session number in use now. */
  get number(): number {
    return this.#engine.number;
  }

  /** The views of the cluster that this client has followed. */
  get chain(): ViewChain {
    return this.#engine.chain;
  }

  get replicas(): ReplicaState[] {
    return this.#engine.replicas.states;
  }

  /** @see Replicas.whenQuorumReady */
  ready(options: WaitOptions & { readonly need?: number }): Promise<void> {
    return this.#engine.replicas.whenQuorumReady(options);
  }

  /** Queues one command for the request that leaves at the end of this turn. `decode` turns its result into the answer. */
  submit<T>(command: Uint8Array, options: SubmitOptions, decode: (result: Uint8Array) => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const settle = (result: Uint8Array) => {
        try {
          resolve(decode(result));
        } catch (error) {
          reject(error);
        }
      };
      const { lane } = options;
      const call = this.#newCall(command, options, { settle, reject });
      if (call === null) return;
      if (command.length > COMMAND_BYTES_MAX) {
        const message = `the command has ${command.length} bytes; at most ${COMMAND_BYTES_MAX} are possible`;
        this.#calls.reject(call, new QuorateError("REQUEST_TOO_LARGE", message));
        return;
      }
      if (this.#engine.queuedBytes(lane) + command.length > QUEUE_BYTES_MAX) {
        const message = "too much is waiting to be sent; await earlier calls first";
        this.#calls.reject(call, new QuorateError("BUSY", message, { outcome: "not-sent" }));
        return;
      }
      this.#engine.enqueue(call);
    });
  }

  /**
   * What became of a request of this client, of this session or an earlier one. If it has not been executed, it is cancelled
   * for ever. A request that others still wait for in this session is awaited instead.
   */
  resolve(target: ResolveTarget, options: WaitOptions): Promise<Resolution> {
    return new Promise((resolve, reject) => {
      const known = this.#engine.knownOutcome(target);
      if (known) {
        resolve(known);
        return;
      }
      const settle = (result: Uint8Array) => {
        const resolution = decoded(() => decodeResolution(result));
        if (isRejection(resolution)) reject(new QuorateError("DECODE_FAILED", `unreadable answer: ${resolution.code}`));
        else resolve(resolution);
      };
      const { timeoutMs, signal } = options;
      const asked = { lane: "resolve", timeoutMs, signal } as const;
      const call = this.#newCall(encodeResolve(target), asked, { settle, reject });
      if (call === null) return;
      this.#engine.enqueueResolve(target, call);
    });
  }

  /** Brings a signed statement of administrators: the bytes of its result, from a quorum. */
  administer(command: Uint8Array, options: WaitOptions): Promise<Uint8Array> {
    return new Promise((settle, reject) => {
      const call = this.#newCall(command, { lane: "administer", ...options }, { settle, reject });
      if (call !== null) this.#engine.enqueue(call);
    });
  }

  /** Rejects what is pending with CLOSED and closes every connection. Resolves when no socket or timer is left. */
  close(): Promise<unknown> {
    this.#closed = true;
    return this.#engine.close();
  }

  /** Null, and rejected, when it cannot be sent any more. */
  #newCall(command: Uint8Array, options: CallOptions, caller: Caller): Call | null {
    const { signal } = options;
    const call = this.#calls.create(command, options, caller);
    if (!this.#closed && !signal?.aborted) return call;
    this.#calls.reject(call, interrupted(call, this.#closed ? "CLOSED" : "ABORTED", signal?.reason));
    return null;
  }
}
