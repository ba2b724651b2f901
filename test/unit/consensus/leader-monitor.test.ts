import { describe, expect, it } from "vitest";
import { LeaderMonitor } from "../../../server/consensus/leader-monitor.ts";

const T_MS = 1_000;
const QUARTER_US = 250_000;

function times(count: number, delayUs: number): number[] {
  return Array.from({ length: count }, () => delayUs);
}

/** One list of delays per leader, the last of whom is judged. */
function isSlow(leaders: readonly (readonly number[])[]): boolean {
  const monitor = new LeaderMonitor(T_MS);
  leaders.forEach((delays, index) => {
    if (index > 0) monitor.leaderChanged();
    for (const delayUs of delays) monitor.proposed(delayUs);
  });
  return monitor.slow;
}

describe("section 5, performance attack: a leader that orders everything, but late", () => {
  const slow = QUARTER_US + 1;
  const fast = 1_000;
  const ROWS: readonly (readonly [string, boolean, readonly (readonly number[])[]])[] = [
    ["is not judged before eight proposals", false, [times(7, slow)]],
    ["is slow when they took more than a quarter of T", true, [times(8, slow)]],
    ["is not when they took just a quarter", false, [times(8, QUARTER_US)]],
    [
      "is judged by the median: three late ones prove nothing",
      false,
      [[...times(3, fast), ...times(3, 9 * slow), ...times(2, fast)]],
    ],
    ["nor do three quick ones excuse it", true, [[...times(3, slow), ...times(3, fast), ...times(2, slow)]]],
    ["is judged by its last eight: it has become slow", true, [[...times(50, fast), ...times(8, slow)]]],
    ["or quick", false, [[...times(50, slow), ...times(8, fast)]]],
    ["starts anew", false, [times(8, slow), times(7, 5 * slow)]],
    [
      "where nobody was faster than a quarter of T, four times that is slow",
      false,
      [times(8, slow), times(8, 4 * slow)],
    ],
    ["and more than four times", true, [times(8, slow), times(8, 4 * slow + 1)]],
    [
      "the median of those before counts, not the last",
      true,
      [times(8, slow), times(8, 3 * slow), times(8, 4 * slow + 1)],
    ],
    ["one slow leader among quick ones lowers nothing", true, [times(8, fast), times(8, 3 * slow), times(8, slow)]],
    [
      "several slow ones in a row are taken for a slow network or a client that tells leaders last",
      false,
      [times(8, fast), times(8, 4 * slow), times(8, 4 * slow), times(8, 4 * slow)],
    ],
    ["a leader that made too few proposals sets no measure", true, [times(7, 9 * slow), times(8, slow)]],
    ["quick leaders before lower nobody's bound below a quarter", false, [times(8, fast), times(8, QUARTER_US)]],
  ];
  for (const [rule, expected, leaders] of ROWS) {
    it(`${rule}: ${expected ? "slow" : "not slow"}`, () => {
      expect(isSlow(leaders)).toBe(expected);
    });
  }
});
