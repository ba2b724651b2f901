/**
 * The ports of the pure core: what goes in, what comes out (ARCHITECTURE.md, "The core's ports"). `step(input)` is
 * synchronous, never re-entrant, and knows no clock, no socket and no disk: the driver feeds inputs in order and performs
 * effects in order.
 */
import type { Batch } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { SignatureCheck } from "../../protocol/certificate.ts";
import type { Certificate, Message, MessageOf } from "../../protocol/messages.ts";
import type { Request } from "../../protocol/request.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import type { Link } from "../../protocol/view-chain.ts";
import type { ResultCosts } from "./debts.ts";

export type { SignatureCheck };

/** Names an asynchronous effect in the input that answers it. */
export type Ticket = number;

/** An instance as the core journals it; the same shape as storage's records, which the core may not import. */
export interface JournaledInstance {
  readonly view: number;
  readonly instance: number;
  readonly regency: number;
  readonly digest: Digest;
  readonly batchDigest: Digest;
  readonly batch: Uint8Array;
  /** The write certificate of an accept record, null for a batch learned as decided. */
  readonly certificate: Certificate | null;
}

export type CoreRecord =
  | ({ readonly type: "instance" } & JournaledInstance)
  /** Before anything is sent in this regency. */
  | { readonly type: "regency"; readonly view: number; readonly regency: number }
  /** Before it is asked for: what others remember bounds the regencies that a replica without its journal may have installed. */
  | { readonly type: "wanted"; readonly view: number; readonly regency: number }
  /** Erases the clean-stop record. */
  | { readonly type: "started" }
  /** The journal is lost: how far this replica may have voted. */
  | { readonly type: "forgotten"; readonly until: number | null; readonly regency: number }
  | { readonly type: "remembered" };

export type Input =
  | { readonly type: "message"; readonly from: ReplicaId; readonly message: Message }
  /** A request received from its client and found authentic by the intake. */
  | { readonly type: "request"; readonly request: Request; readonly envelope: Uint8Array; readonly replier: number }
  /** `nowUs` is monotonic, `wallMs` is the clock of people (milliseconds since 1970). */
  | { readonly type: "tick"; readonly nowUs: number; readonly wallMs: number }
  | { readonly type: "journaled"; readonly ticket: Ticket }
  | { readonly type: "verified"; readonly ticket: Ticket; readonly valid: readonly boolean[] }
  /** In so much time; with its batch time, and what its results cost as far as they are large. */
  | {
      readonly type: "executed";
      readonly instance: number;
      readonly tookUs: number;
      readonly timestampMs: number;
      readonly costs: ResultCosts;
    }
  /** A fresh link to this replica stands: whatever was sent before may be lost. */
  | { readonly type: "connected"; readonly peer: ReplicaId }
  /** A link from this view to the next one, its signatures verified. */
  | { readonly type: "link"; readonly link: Link }
  /** A clean stop is near: a leader hands over. */
  | { readonly type: "draining" }
  /** A clean stop: journal what was sent, then send nothing more. */
  | { readonly type: "stop" };

export type InputOf<T extends Input["type"]> = Extract<Input, { readonly type: T }>;

/** A decided batch: execute in order of instance. */
export interface Decision {
  readonly instance: number;
  readonly digest: Digest;
  readonly batch: Batch;
}

export type Effect =
  | { readonly type: "send"; readonly to: ReplicaId; readonly message: Message }
  | { readonly type: "broadcast"; readonly message: Message }
  /** One synced write; answered by `journaled`. */
  | { readonly type: "journal"; readonly ticket: Ticket; readonly records: readonly CoreRecord[] }
  /** Off the event loop; answered by `verified`, in the order of the checks. */
  | { readonly type: "verify"; readonly ticket: Ticket; readonly checks: readonly SignatureCheck[] }
  | { readonly type: "decide"; readonly decision: Decision }
  /** Instances up to this one are in the own journal as decided: their replies may leave once executed. */
  | { readonly type: "durable"; readonly instance: number }
  /** Send log from this instance on, up to `upTo`, to a replica that lags: a HISTORY, without batches if it is not held. */
  | { readonly type: "serveHistory"; readonly to: ReplicaId; readonly from: number; readonly upTo: number }
  /** Send one decided batch (a BATCH) from the log. */
  | { readonly type: "serveBatch"; readonly to: ReplicaId; readonly instance: number; readonly digest: Digest }
  /** Answer with an OFFER: what the core knows of it. */
  | { readonly type: "offer"; readonly to: ReplicaId; readonly rootsFrom: number; readonly facts: OfferFacts }
  /** Answer from a checkpoint. */
  | { readonly type: "serveImage"; readonly to: ReplicaId; readonly message: ImageRequest }
  /** A member says what root its state had; its signature is not verified yet. */
  | { readonly type: "root"; readonly from: ReplicaId; readonly message: MessageOf<"ROOT"> }
  /** The log of nobody reaches down to us, or there is too much of it for an empty state: a checkpoint has to be fetched. */
  | { readonly type: "transfer"; readonly reason: string }
  /** This replica does not know any more what it voted: its journal is older than a vote of its own. */
  | { readonly type: "forgotten"; readonly reason: string }
  /** And now that cannot matter any more. */
  | { readonly type: "remembered" }
  /** The view ends with this link; nothing more is decided in it. */
  | { readonly type: "link"; readonly link: Link }
  /** The leader broke a rule, holds something up, or is too slow: why. */
  | { readonly type: "suspect"; readonly leader: ReplicaId; readonly reason: string }
  /** This regency is installed. */
  | { readonly type: "regency"; readonly regency: number; readonly leader: ReplicaId }
  /** W members could not prove this client's requests: only its signatures count from now on. */
  | { readonly type: "mustSign"; readonly client: Digest }
  /** A member sent something that no correct replica sends. */
  | { readonly type: "misbehaved"; readonly replica: ReplicaId; readonly code: string }
  /** Feed a `tick` no later than this. */
  | { readonly type: "wake"; readonly atUs: number }
  /**
   * Nothing more is sent: `messages` left beyond the accept records and belong into the clean-stop record. Null: this replica
   * abstains after a crash, so it does not know what it sent, and no clean-stop record may be written.
   */
  | { readonly type: "stopping"; readonly messages: readonly Message[] | null };

export type ImageRequest = MessageOf<"FETCH_MANIFEST"> | MessageOf<"FETCH_CHUNK">;
export type OfferFacts = Pick<MessageOf<"OFFER">, "view" | "regency" | "wanted" | "decided" | "newest" | "yourWrite">;

/** What a replica may conclude about a batched request from its envelope alone. */
export type Authentication = "authentic" | "unproven" | SignatureCheck;

/** How the core asks whether a request in a PROPOSE or FORWARD is its client's. Pure: same arguments, same answer. */
export type Authenticate = (request: Request, envelope: Uint8Array) => Authentication;

/** Does this request need no ordering any more, because it was executed or cancelled? */
export type Settled = (request: Request) => boolean;

/** Tunables of the ordering; none of them can break safety. */
export interface ConsensusOptions {
  readonly batchRequestsMax: number;
  readonly batchBytesMax: number;
  /** Under load the leader waits for the batch to fill: at most this long, and in proportion to the last instance. */
  readonly batchWaitUs: number;
  /** Proposals whose timestamp is further from the own clock than this are held. */
  readonly clockDriftMs: number;
  /** T: a request pending longer is forwarded to all; after twice as long another leader is asked for. */
  readonly requestTimeoutMs: number;
  readonly statusIntervalMs: number;
  /** Decided batches that may wait for execution before this replica stops voting. */
  readonly executionLagMax: number;
  /** An empty state that is more instances behind than this is fetched as a checkpoint, not by log. */
  readonly emptyLagMax: number;
  /** The log is out of reach for so long before a checkpoint is asked for; 0 unless given. */
  readonly outOfReachMs?: number;
}
