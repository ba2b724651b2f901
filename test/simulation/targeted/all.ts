/**
 * Attacks aimed at one rule each, beside the random schedules: a few lines that make certain what luck would need long for. Each
 * is seeded, and passes whatever the seed; `evaluation/planted-bugs/` shows which bugs they find.
 */
import { crashMode } from "./crash-mode.ts";
import { equivocation } from "./equivocation.ts";
import { falseHistory } from "./false-history.ts";
import { falseSynchronization } from "./false-synchronization.ts";
import { forgetting } from "./forgetting.ts";
import { lateVerification } from "./late-verification.ts";
import { lostRegencies } from "./lost-regencies.ts";
import { lyingProposer } from "./lying-proposer.ts";
import { oldRegencies } from "./old-regencies.ts";
import { reads } from "./reads.ts";
import { regencyClaims } from "./regency-claims.ts";
import { repairs } from "./repairs.ts";
import { replayedRequests } from "./replayed-requests.ts";
import { rights } from "./rights.ts";
import { slowNetwork } from "./slow-network.ts";
import { unservableRecord } from "./unservable-record.ts";
import { votesBeforeTheJournal } from "./votes-before-the-journal.ts";

export const ATTACKS: Readonly<Record<string, (seed: number) => void>> = {
  "crash mode": crashMode,
  equivocation,
  "false history": falseHistory,
  "false synchronization": falseSynchronization,
  forgetting,
  "late verification": lateVerification,
  "lost regencies": lostRegencies,
  "lying proposer": lyingProposer,
  "old regencies": oldRegencies,
  reads,
  "regency claims": regencyClaims,
  repairs,
  "replayed requests": replayedRequests,
  rights,
  "slow network": slowNetwork,
  "unservable record": unservableRecord,
  "votes before the journal": votesBeforeTheJournal,
};

/** All of them with this seed. @throws Violation, Stall, or whatever the code under test throws. */
export function runTargeted(seed: number): void {
  for (const attack of Object.values(ATTACKS)) attack(seed);
}
