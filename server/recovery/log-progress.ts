/** How far catching up by log is (docs/protocol.md section 6, "Small gap"): while W members claim much more than we have. */
import type { ReplicaId } from "../../protocol/view.ts";

export interface LogProgress {
  /** Who is asked, or whose answers wait to be learned; ascending. */
  readonly sources: readonly ReplicaId[];
  /** Learned so far; where that began; what W members claim. */
  readonly instance: number;
  readonly from: number;
  readonly to: number;
  /** Of batches learned since `sinceUs`. */
  readonly bytes: number;
  readonly sinceUs: number;
}
