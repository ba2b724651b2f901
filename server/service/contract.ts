/**
 * The state machine contract: what a replicated service is given and must give back. Deterministic: nothing but state,
 * command and context may influence a result or a change (docs/protocol.md section 6, "Under the state root").
 */
import type { Digest } from "../../protocol/bytes.ts";

/** Replicated state as the service sees it: byte strings by latin1 key, in a name space of its own. */
export interface ServiceState {
  get(key: string): Uint8Array | undefined;
  set(key: string, value: Uint8Array): void;
  delete(key: string): void;
}

export interface ExecutionContext {
  readonly instance: number;
  /** Agreed time of the batch. */
  readonly timestampMs: number;
  readonly client: Digest;
}

/** What BFT-SMaRt calls Executable: ordered commands execute, queries answer without changing anything. */
export interface Service {
  /** Rebuilds whatever the service keeps in memory (indexes) from stored entries, in key order, before anything else. */
  load(key: string, value: Uint8Array): void;
  /** Executes one ordered command. Never throws for anything a client can send: a refusal is a result. */
  execute(command: Uint8Array, context: ExecutionContext): Uint8Array;
  /** Answers one command against the last executed state, or null when it is no query. */
  query(command: Uint8Array): Uint8Array | null;
  /** The store revision: what unordered answers name beside their result. */
  readonly revision: number;
}
