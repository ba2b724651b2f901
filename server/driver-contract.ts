/**
 * What a running replica is made of and what it reports (ARCHITECTURE.md, "The core's ports"): the parts of the world it
 * touches, so that the simulator runs the very same driver, and how its life may end.
 */
import type { Digest } from "../protocol/bytes.ts";
import type { Cluster } from "../protocol/cluster.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import type { Identity } from "../protocol/identity.ts";
import type { ReplicaId } from "../protocol/view.ts";
import type { Storage } from "../storage/contract.ts";
import type { ConsensusOptions } from "./consensus/contract.ts";
import type { Start } from "./consensus/restart.ts";
import type { OpenIntakeStage } from "./intake-stage/contract.ts";
import type { RequestHooks } from "./request-hooks.ts";
import type { Executor } from "./service/executor.ts";
import type { Verifier } from "./verifier.ts";
import type { Views } from "./views.ts";

/** The parts of the world a replica touches. */
export interface Clock {
  nowUs(): number;
  wallMs(): number;
  /** Runs once, after the inputs at hand were taken in. */
  defer(callback: () => void): void;
  /** Runs once, at or soon after; the returned function cancels. */
  at(us: number, callback: () => void): () => void;
}

export interface DriverLogger {
  info(detail: Readonly<Record<string, unknown>>, message: string): void;
  warn(detail: Readonly<Record<string, unknown>>, message: string): void;
  error(detail: Readonly<Record<string, unknown>>, message: string): void;
}

/** What the driver reports; the metrics registry and the simulator's checkers listen. */
export interface DriverObserver {
  decided(batch: { instance: number; requests: number; bytes: number; digest: Digest }): void;
  phase(name: "journal" | "verify" | "execute" | "state_write", seconds: number): void;
  fault(source: "message", from: ReplicaId, code: string): void;
  /** A client sent what no correct client sends: its connection is closed. */
  clientFault(client: Digest, code: string): void;
  suspected(leader: ReplicaId, reason: string): void;
  regencyInstalled(regency: number, leader: ReplicaId): void;
  fetched(kind: "batch" | "history"): void;
  /** A store was set aside and begun anew. */
  repaired(): void;
  checkpoint(taken: { instance: number; root: Digest; bytes: number; chunks: number; seconds: number }): void;
  /** A member's root at this instance is not ours. */
  rootMismatch(replica: ReplicaId, instance: number): void;
}

export interface ReplicaParts {
  /** With the view that this replica is in. */
  readonly cluster: Cluster;
  /** The chain of views, as far as it is known. */
  readonly views: Views;
  readonly self: ReplicaId;
  readonly identity: Identity;
  readonly crypto: Crypto;
  readonly storage: Storage;
  readonly executor: Executor;
  readonly hooks: RequestHooks;
  readonly start: Start;
  /** Below this instance the state is neither read nor vouched for (transfer/settled.ts); 0: it is right as it stands. */
  readonly settledFrom: number;
  readonly options: ConsensusOptions;
  readonly clock: Clock;
  readonly verifier: Verifier;
  /** Where requests are parsed and their authenticators checked. */
  readonly openIntakeStage: OpenIntakeStage;
  readonly logger: DriverLogger;
  readonly observer: DriverObserver;
  /** Instances between two checkpoints: P. */
  readonly checkpointPeriod: number;
  /** Its disk is older than a vote of this replica. */
  rolledBack(): void;
  /** What it had forgotten matters no more, and that is on its disk. */
  remembered(): void;
}

/** Something an operator should look at. */
export interface Alarm {
  readonly code: string;
  readonly detail: string;
  readonly sinceMs: number;
}

/** How a stage of a replica's life ends, and what has to come next. */
export type Ending =
  /** As asked for. */
  | { readonly type: "stopped" }
  /** A checkpoint has to be fetched: the log of nobody reaches down to this replica. */
  | { readonly type: "transfer"; readonly reason: string }
  /** No checkpoint was to be had, or none was needed: the log has to do. */
  | { readonly type: "needless" }
  /** The view is over, and its link written down: the next one begins on the same state. */
  | { readonly type: "view" }
  /** The members of the next view can do without this replica, which is none of them. */
  | { readonly type: "retired" }
  /** A fetched state was put in the place of the old one. */
  | { readonly type: "installed" }
  /** A store is not what the others say it should be. */
  | { readonly type: "repair"; readonly store: "journal" | "state"; readonly reason: string }
  /** This replica can no longer keep its promises as it is. */
  | { readonly type: "failed"; readonly error: unknown };
