/**
 * The stage in front of the intake (docs/protocol.md sections 2 and 8): takes requests as bytes, says what they are and what
 * their authenticators prove. It knows nothing of the replica's state, so it runs on the event loop or on worker threads; one
 * suite runs against both (test/unit/server/intake-stage-contract.ts).
 *
 * Invariants: 1. the outcomes of one connection come in the order of its requests. 2. every request that was taken has exactly
 * one outcome, unless an earlier one of its connection ended that. 3. what waits is bounded, as a whole and per client.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import type { Rejection } from "../../protocol/errors.ts";
import type { Envelope, Request } from "../../protocol/request.ts";
import type { ClientKeys } from "../client-keyring.ts";
import type { ClientConnection } from "../network/contract.ts";
import type { Verifier } from "../verifier.ts";

/** Unproven: unknown keys, or no MAC for this replica. Forged: a good MAC beside a signature that is none. */
export type Proof = "authentic" | "unproven" | "forged";

/** A well-formed request with what its envelope proves. */
export interface Judged {
  readonly request: Request;
  readonly envelope: Envelope;
  readonly envelopeBytes: Uint8Array;
  readonly proof: Proof;
}

export type Outcome = Judged | Rejection;

export interface StageOptions {
  readonly crypto: Crypto;
  readonly cluster: Digest;
  /** Of this replica in its view: which MAC of a vector is its own. */
  position(): number;
  /** Client keys as this thread knows them. */
  keysOf(client: Digest, given: Uint8Array | null): ClientKeys | null;
  readonly verifier: Verifier;
  /** Runs what comes in later, unless nobody wants it any more; what it throws ends the replica. */
  guard(work: () => void): void;
  /** False: the connection is ended, and whatever waits of it is let go. */
  judged(connection: ClientConnection, outcome: Outcome): boolean;
  /** A thread is gone. That is our own bug. */
  failed(error: Error): void;
}

export interface IntakeStage {
  /** Requests that were taken and have no outcome yet. */
  readonly waiting: number;
  /** Copies what it takes. False when there is no room: nothing was taken. */
  submit(connection: ClientConnection, envelope: Uint8Array, request: Uint8Array): boolean;
  /** Lets go of what waits, and ends the threads. */
  close(): Promise<void>;
}

export type OpenIntakeStage = (options: StageOptions) => IntakeStage;
