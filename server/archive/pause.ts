/** Waiting on the replica's clock, so that work in the background gives the event loop back; the simulator runs it, too. */
import type { Clock } from "../driver-contract.ts";

/** What work in the background needs of a clock. */
export type PaceClock = Pick<Clock, "nowUs" | "defer" | "at">;

/** Resolves after `us`, or, for 0, once the inputs at hand were taken in. */
export function pause(clock: PaceClock, us: number): Promise<void> {
  return new Promise((resolve) => {
    if (us > 0) clock.at(clock.nowUs() + us, resolve);
    else clock.defer(resolve);
  });
}
