/** What a host (host.ts) is made of, what its stages hear, and what runs in it at the moment. */
import type { Digest } from "../protocol/bytes.ts";
import type { Cluster } from "../protocol/cluster.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import type { Identity } from "../protocol/identity.ts";
import type { Member, ReplicaId, View } from "../protocol/view.ts";
import type { OpenStorage, Storage } from "../storage/contract.ts";
import type { ConsensusOptions } from "./consensus/contract.ts";
import type { Driver } from "./driver.ts";
import type { Clock, DriverLogger, DriverObserver } from "./driver-contract.ts";
import type { Garbage } from "./garbage.ts";
import type { OpenIntakeStage } from "./intake-stage/contract.ts";
import type { ClientConnection, Gateway, Links } from "./network/contract.ts";
import type { RequestHooks } from "./request-hooks.ts";
import type { ServiceFactory } from "./service/contract.ts";
import type { Executor } from "./service/executor.ts";
import type { Transfer } from "./transfer/transfer.ts";
import type { Verifier } from "./verifier.ts";

/** Whom links stand to: the members of a view; `others` are former ones that may lag, and replicas invited to become members. */
export interface Peers {
  readonly view: View;
  readonly others: readonly Member[];
}

/** What a replica hears from the other replicas. */
export interface LinkListener {
  onMessage(from: ReplicaId, payload: Uint8Array): void;
  onConnected(peer: ReplicaId): void;
  onDisconnected(peer: ReplicaId): void;
}

export interface GatewayListener {
  /** May this client connect? */
  admits(client: Digest): boolean;
  onAuthenticated(connection: ClientConnection, keys: Uint8Array): void;
  onRequest(connection: ClientConnection, envelope: Uint8Array, request: Uint8Array): void;
}

export interface HostParts {
  readonly cluster: Cluster;
  readonly self: ReplicaId;
  /** The keys that this replica has in a view. @throws QuorateError KEY_FILE_INVALID */
  readonly identityOf: (view: View) => Identity;
  readonly crypto: Crypto;
  readonly openStorage: (options: Parameters<OpenStorage>[0]["founding"]) => Promise<Storage>;
  readonly openLinks: (listener: LinkListener, peers: Peers) => Promise<Links>;
  readonly openGateway: (listener: GatewayListener, view: View) => Promise<Gateway>;
  readonly service: ServiceFactory;
  /** None: every authentic request is taken, every reply leaves. */
  readonly hooks?: RequestHooks;
  readonly options: ConsensusOptions;
  readonly checkpointPeriod: number;
  readonly clock: Clock;
  readonly verifier: Verifier;
  /** Default: on the event loop. */
  readonly openIntakeStage?: OpenIntakeStage;
  readonly logger: DriverLogger;
  readonly observer: DriverObserver;
  /** Is there room again on a disk that was full? */
  readonly hasSpace: () => Promise<boolean>;
  /**
   * Gives an empty state what its cluster begins with, if it begins with anything: "installed" when that took the place of
   * the state, "gone" when it is not to be had any more, so that the state must come from the others.
   */
  readonly found?: (storage: Storage) => Promise<"ready" | "installed" | "gone">;
  /** This replica is no member any more, and nobody needs it: its keys are to be erased, and the process ends. */
  readonly retired: () => void;
  /** The process must end: this replica can no longer keep its promises. */
  readonly fatal: (error: unknown) => void;
  /** What fetching a state leaves in memory. None: that is left to V8. */
  readonly garbage?: Pick<Garbage, "passed" | "collect">;
  /** A replica is about to run: for whoever listens in. */
  readonly incarnated?: (replica: Driver, executor: Executor) => void;
}

/** What runs at the moment. */
export type Stage =
  | { readonly type: "opening" }
  | { readonly type: "transfer"; readonly transfer: Transfer; readonly storage: Storage; readonly links: Links }
  | {
      readonly type: "replica";
      readonly replica: Driver;
      readonly executor: Executor;
      readonly storage: Storage;
      readonly links: Links;
      readonly gateway: Gateway;
    }
  | { readonly type: "full"; readonly sinceMs: number }
  | { readonly type: "ended" };
