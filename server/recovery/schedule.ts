/**
 * When a replica takes a checkpoint by itself (docs/protocol.md section 6): the members take turns, so that at most one at a
 * time pays for it; and every so many periods all of them compute a root at the same instance, to be compared.
 */
import { assert } from "../../protocol/errors.ts";
import { COMMON_ROOT_PERIODS } from "../../protocol/limits.ts";

/** Below two instances per member a checkpoint and a common root could meet. */
export function leastPeriod(n: number): number {
  return 2 * n;
}

/** Is the state after this instance a checkpoint of the member at `position` (from 0) of n? */
export function checkpointDue(at: { instance: number; position: number; n: number; period: number }): boolean {
  const { instance, position, n, period } = at;
  assert(period >= leastPeriod(n), "a checkpoint period is at least two instances per member");
  return instance % period === Math.floor((period * (position + 1)) / n) - 1;
}

/** Does every member compute the root of the state after this instance? */
export function commonRootDue({ instance, period }: { instance: number; period: number }): boolean {
  return instance > 0 && instance % (COMMON_ROOT_PERIODS * period) === 0;
}
