/**
 * The state machine contract: what a replicated service is given and must give back. Deterministic: nothing but state,
 * command and context may influence a result or a change (docs/protocol.md section 6, "Under the state root").
 */
import type { Digest } from "../../protocol/bytes.ts";

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

/** What BFT-SMaRt calls Executable: ordered commands execute, queries answer without changing anything. */
export interface Service {
  /** Rebuilds whatever the service keeps in memory (indexes) from stored entries, in key order, before anything else. */
  load(key: string, value: Uint8Array): void;
  /** Executes one ordered command. Never throws for anything a client can send: a refusal is a result. */
  execute(command: Uint8Array, context: ExecutionContext): Uint8Array;
  /** Answers one command against the last executed state, or null when it is no query. */
  query(command: Uint8Array): Uint8Array | null;
  /** Would this command add to the state? Asked only while the disk is nearly full; malformed commands add nothing. */
  grows(command: Uint8Array): boolean;
  /** The store revision: what unordered answers name beside their result. */
  readonly revision: number;
}
