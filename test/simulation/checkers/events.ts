/**
 * What checkers are told beyond `SimulationObserver`: what clients experienced, when replicas came back, and how virtual
 * time passes. Every method is optional; a checker listens to what its rule needs.
 */
import type { Digest } from "../../../protocol/bytes.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import type { SimulationObserver } from "../contract.ts";

/** A correct client's caller got this result for its command: encoded as on the wire, one command of a bundle. */
export interface Acknowledged {
  readonly client: Digest;
  readonly command: Uint8Array;
  readonly result: Uint8Array;
  /** When the call was made and when it returned, on one clock for all clients; without them its order is not checked. */
  readonly callUs?: number;
  readonly returnUs?: number;
}

/** A call of a correct client; `id` names it until it has finished. */
export interface Pending {
  readonly id: number;
  /** For the report of a stall. */
  readonly what: string;
  readonly nowUs: number;
}

export interface RunObserver extends SimulationObserver {
  /**
   * A correct replica runs again, after a crash, a clean stop or a transfer. `newestInstance`: the newest instance that its
   * journal or state holds; `executedInstance`: where its state stands.
   */
  restarted?(event: {
    readonly replica: ReplicaId;
    readonly newestInstance?: number;
    readonly executedInstance?: number;
  }): void;
  /** The disk of a correct replica is gone, damaged, or as it was some time ago: it holds nothing for certain. */
  lost?(event: { readonly replica: ReplicaId }): void;
  /** This replica's STOPDATA has reached one that may use it. */
  promised?(event: { readonly replica: ReplicaId; readonly view: number; readonly regency: number }): void;
  /** An older disk was put back, nobody could show the replica so, and by now nothing it had said matters any more. */
  unnoticed?(event: { readonly replica: ReplicaId }): void;
  /** Reported before anything else happens in the run: what a client knows, the replicas have done already. */
  acknowledged?(event: Acknowledged): void;
  pending?(event: Pending): void;
  /** The call returned or failed: either ends the waiting. */
  finished?(event: { readonly id: number; readonly nowUs: number }): void;
  /** From now on at most f replicas are faulty and the network delivers: deadlines count from here. */
  healed?(event: { readonly nowUs: number }): void;
  advanced?(event: { readonly nowUs: number }): void;
  /** The run is over. */
  ended?(event: { readonly nowUs: number }): void;
}
