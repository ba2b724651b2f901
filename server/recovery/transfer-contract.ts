/**
 * The ports of the pure part of a state transfer (docs/protocol.md section 6): what goes in, what comes out. The shell feeds
 * inputs in order and performs effects in order, those that touch the staged state strictly one after another.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { SignatureCheck } from "../../protocol/certificate.ts";
import type { ImageHeader, ImagePlace } from "../../protocol/image.ts";
import type { Certificate, Message } from "../../protocol/messages.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import type { ProvenBatch } from "./segments.ts";

export type { ProvenBatch } from "./segments.ts";

/** A chunk that is what its manifest says, with its entries: the shape of storage, which this room may not import. */
export interface VerifiedChunk {
  readonly digest: Digest;
  readonly bytes: number;
  readonly entries: readonly (readonly [key: string, value: Uint8Array])[];
}

export type TransferInput =
  /**
   * `instance`: where the live state stands, so that only what is newer helps; `optional`: the journal reaches down to it, so
   * that log would do as well; `held`: bytes of staged chunks by digest.
   */
  | {
      readonly type: "started";
      readonly nowUs: number;
      readonly instance: number;
      readonly optional: boolean;
      readonly held: ReadonlyMap<Digest, number>;
    }
  | { readonly type: "tick"; readonly nowUs: number }
  | { readonly type: "message"; readonly from: ReplicaId; readonly message: Message }
  | { readonly type: "connected"; readonly peer: ReplicaId }
  | { readonly type: "disconnected"; readonly peer: ReplicaId }
  | { readonly type: "verified"; readonly ticket: number; readonly valid: readonly boolean[] }
  /** These chunks are on disk. */
  | { readonly type: "staged"; readonly digests: readonly Digest[] }
  /** The staged chunks are a state that batches can be executed on. */
  | { readonly type: "completed" }
  | { readonly type: "replayed"; readonly instance: number }
  | { readonly type: "root"; readonly instance: number; readonly root: Digest }
  /** The root the state would have after that instance; null: its batch cannot be executed. */
  | { readonly type: "tried"; readonly instance: number; readonly root: Digest | null }
  /** The chunks overlap, or the staged state cannot be loaded or executed on: no honest one is like that. */
  | { readonly type: "unusable" }
  /** The answer to `discard`: what is staged now. */
  | { readonly type: "discarded"; readonly held: ReadonlyMap<Digest, number> };

export type TransferEffect =
  | { readonly type: "send"; readonly to: ReplicaId; readonly message: Message }
  | { readonly type: "verify"; readonly ticket: number; readonly checks: readonly SignatureCheck[] }
  /** Drop every staged chunk but these. */
  | { readonly type: "retain"; readonly digests: ReadonlySet<Digest> }
  /** One synced write; answered by `staged`. */
  | { readonly type: "stage"; readonly chunks: readonly VerifiedChunk[] }
  /** All chunks are staged; answered by `completed` or `unusable`. */
  | { readonly type: "complete"; readonly place: ImagePlace }
  /** Execute in order; answered by `replayed` or `unusable`. */
  | { readonly type: "replay"; readonly batches: readonly ProvenBatch[] }
  /** Execute one batch on the staged state, compute the root, and undo it; answered by `tried`. */
  | { readonly type: "try"; readonly batch: ProvenBatch }
  /** The root of the staged state as it stands, which is after this instance; answered by `root`. */
  | { readonly type: "computeRoot"; readonly instance: number }
  /** The donor was dropped: forget what was executed, keep the chunks; answered by `discarded`. */
  | { readonly type: "discard" }
  | { readonly type: "chosen"; readonly donor: ReplicaId; readonly header: ImageHeader }
  | { readonly type: "dropped"; readonly donor: ReplicaId; readonly code: string }
  /** Something provably false; `final`: not used again in that role. */
  | { readonly type: "blame"; readonly replica: ReplicaId; readonly code: string; readonly final: boolean }
  /** f others reproduce the root at this instance: from here on the staged state is believed. */
  | { readonly type: "believed"; readonly instance: number }
  /** The end, too: nobody has anything newer, or nobody can be fetched from while log may do. */
  | { readonly type: "needless" }
  /**
   * The end: the staged state stands at `place`; `certificate` is the newest one verified, if any. Above 0, `settledFrom` is
   * the instance from which on the state is certainly right, whatever is decided there (docs/decisions/021).
   */
  | {
      readonly type: "accepted";
      readonly certificate: Certificate | null;
      readonly place: ImagePlace;
      readonly settledFrom: number;
    };

export type TransferPhase = "offers" | "checkpoint" | "log" | "verify" | "install";

export interface TransferState {
  readonly phase: TransferPhase;
  readonly donor: ReplicaId | null;
  /** Members that delivered proven log. */
  readonly sources: readonly ReplicaId[];
  /** Where the staged state stands, or that of the checkpoint being fetched; 0 without one. */
  readonly instance: number;
  /** The height known to be decided. */
  readonly target: number;
  readonly bytes: number;
  readonly bytesTotal: number;
}

/** What the parts of a transfer share. */
export interface TransferPort {
  nowUs(): number;
  send(to: ReplicaId, message: Message): void;
  verify(checks: readonly SignatureCheck[], then: (valid: readonly boolean[]) => void): void;
  blame(replica: ReplicaId, code: string, final: boolean): void;
}
