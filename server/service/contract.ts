/**
 * The state machine contract: what a replicated service is given and must give back (docs/library.md). Deterministic: nothing
 * but state, commands and context may influence a result or a change (docs/protocol.md section 6, "Under the state root").
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { KeyRange } from "../../protocol/key-ranges.ts";

/** Replicated state as the service sees it: byte strings by latin1 key, in a name space of its own. */
export interface ServiceState {
  /** A view of the stored bytes: read, never written to. */
  get(key: string): Uint8Array | undefined;
  /** Copies `value`: the caller may reuse its buffer. */
  set(key: string, value: Uint8Array): void;
  delete(key: string): void;
}

/** What of a state store execution needs: the value of a key as of the last durable group. */
export interface StoredState {
  get(key: string): Uint8Array | undefined;
}

/** Where a state stands: the last executed instance, its history digest and its batch's agreed time. */
export interface Position {
  readonly instance: number;
  readonly digest: Digest;
  readonly timestampMs: number;
}

export interface ExecutionContext {
  readonly instance: number;
  /** Agreed time of the batch. */
  readonly timestampMs: number;
  readonly client: Digest;
  /**
   * True when the results before this one fill the request's reply or the batch's share of memory: whatever could answer
   * with more than a few bytes must be refused instead, so that every reply fits a frame.
   */
  readonly replyFull: boolean;
}

/** The keys a command may read and write, whatever the state. */
export interface Access {
  readonly reads: readonly KeyRange[];
  readonly writes: readonly KeyRange[];
}

/** How a service takes part in rights per key prefix (docs/protocol.md section 2, "Rights"). */
export interface AccessRules {
  /** Null: no command of this service. It touches nothing and the service refuses it. */
  access(command: Uint8Array): Access | null;
  /** The result of a command whose client lacks a right; it is not executed. */
  readonly notPermitted: Uint8Array;
}

/** One client's bundle of commands in a batch. */
export interface OrderedRequest {
  readonly client: Digest;
  readonly commands: readonly Uint8Array[];
}

/** A decided batch as a service sees it: everything in it, in the order in which it will be executed. */
export interface OrderedBatch {
  readonly instance: number;
  /** Agreed time. */
  readonly timestampMs: number;
  /** What was executed before, cancelled, too late or not permitted is among them, and will not be executed. */
  readonly requests: readonly OrderedRequest[];
}

/**
 * A replicated service. Per batch: `beginBatch`, `execute` once per command that is executed, in order, `endBatch`. Whatever
 * must survive is kept as entries of its `ServiceState`: they are written, checkpointed, transferred and compared by the
 * library; `load` gives them back. What BFT-SMaRt calls BatchExecutable and Recoverable.
 */
export interface Service {
  /**
   * Rebuilds whatever the service keeps in memory (indexes) from stored entries, in key order, before anything else.
   * @throws Malformed when the service never stored such an entry
   */
  load(key: string, value: Uint8Array): void;
  /** The whole batch before any of it is executed: to look ahead, or for what is done once per batch. */
  beginBatch?(batch: OrderedBatch): void;
  /** Executes one ordered command. Never throws for anything a client can send: a refusal is a result. */
  execute(command: Uint8Array, context: ExecutionContext): Uint8Array;
  /** All of the batch is executed: the last moment to put what changed in memory into the state. */
  endBatch?(): void;
  /** Answers one command against the last executed state, or null when it is no query. Changes nothing. */
  query(command: Uint8Array): Uint8Array | null;
  /**
   * Would this command add to the state? Asked only while the disk is nearly full; malformed commands add nothing. Without it
   * every ordered command is taken to do so.
   */
  grows?(command: Uint8Array): boolean;
  /** Without, only clients with all rights may use the service. */
  readonly accessRules?: AccessRules | undefined;
  /** What unordered answers name beside their result; without it the last executed instance. */
  readonly revision?: number | undefined;
}

/** Makes a service on a state. Called for every life of a replica and every state that is verified: they share nothing. */
export type ServiceFactory = (state: ServiceState) => Service;
