/** One donor's try at giving this replica a state (docs/protocol.md section 6): where it stands, and what speaks against it. */
import type { ImageHeader, ImagePlace } from "../../protocol/image.ts";
import { Reader } from "../../protocol/layout.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import type { CheckpointFetch } from "./checkpoint-fetch.ts";
import type { Probe } from "./probe.ts";
import type { ProvenLog } from "./proven-log.ts";
import type { ProvenBatch } from "./segments.ts";
import type { Witnesses } from "./witnesses.ts";

/** What is known of, and done with, the donor in use. */
export interface Attempt {
  readonly donor: ReplicaId;
  readonly header: ImageHeader;
  readonly fetch: CheckpointFetch;
  readonly witnesses: Witnesses;
  /** "fetching" until all chunks are staged, "loading" until the state can be executed on. */
  stage: "fetching" | "loading" | "executing";
  executed: ImagePlace;
  /** A replay or a root is under way. */
  busy: boolean;
  believed: boolean;
  /** Up to here, one instance above what is proven, the state was compared on trial; 0 without a trial that matched. */
  settledFrom: number;
  /** Where the proven history ends and the next batch is tried; 0: nothing is tried yet. */
  tryAfter: number;
  /** How long roots on the proven history are waited for before that. */
  patienceUs: number;
  readonly probe: Probe;
  /** When anything last went on. */
  progressUs: number;
  /** Where nobody has proven any more of the log for long: who could may be gone. */
  provenEnd: number | null;
}

/** What the proven log says against the checkpoint it begins above: a code, or null. */
export function historyFault({ executed, header }: Attempt, log: ProvenLog): string | null {
  const { base, baseDigest } = log;
  if (baseDigest !== null && base === executed.instance && baseDigest !== executed.digest) return "CHECKPOINT_HISTORY";
  // Voters checked that time does not go back: if it does here, the checkpoint's time is false.
  if (base !== header.instance) return null;
  const next = log.first;
  return next && timestampMsOf(next) < header.timestampMs ? "CHECKPOINT_TIME" : null;
}

/** The agreed time of a proven batch, from its head. */
export function timestampMsOf({ bytes }: ProvenBatch): number {
  const reader = new Reader(bytes);
  reader.u32();
  reader.u53();
  return reader.u53();
}
