import { describe, expect, it } from "vitest";
import { COMMON_ROOT_PERIODS } from "../../../protocol/limits.ts";
import { checkpointDue, commonRootDue, leastPeriod } from "../../../server/recovery/schedule.ts";

const due = (instance: number, n: number, period: number): number[] =>
  Array.from({ length: n }, (_, position) => position).filter((position) =>
    checkpointDue({ instance, position, n, period }),
  );

describe("the schedule of checkpoints (section 6)", () => {
  for (const n of [4, 7, 10]) {
    for (const period of [leastPeriod(n), leastPeriod(n) + 1, 10 * n + 3, 1000]) {
      it(`n = ${n}, P = ${period}: everybody once a period, nobody together, never at a common root`, () => {
        const times = new Array<number>(n).fill(0);
        for (let instance = 1; instance <= COMMON_ROOT_PERIODS * period; instance++) {
          const members = due(instance, n, period);
          expect(members.length).toBeLessThanOrEqual(1);
          for (const position of members) times[position] = (times[position] ?? 0) + 1;
          if (commonRootDue({ instance, period })) expect(members).toEqual([]);
        }
        expect(times).toEqual(new Array(n).fill(COMMON_ROOT_PERIODS));
      });
    }
  }

  it("is what the protocol says", () => {
    const instances = Array.from({ length: 40 }, (_, index) => index + 1);
    expect(instances.filter((instance) => due(instance, 4, 20).includes(0))).toEqual([4, 24]);
    expect(instances.filter((instance) => due(instance, 4, 20).includes(3))).toEqual([19, 39]);
    expect(commonRootDue({ instance: 0, period: 20 })).toBe(false);
    expect(commonRootDue({ instance: 319, period: 20 })).toBe(false);
    expect(commonRootDue({ instance: 320, period: 20 })).toBe(true);
    expect(commonRootDue({ instance: 640, period: 20 })).toBe(true);
  });

  it("refuses a period at which checkpoints could meet", () => {
    expect(() => checkpointDue({ instance: 1, position: 0, n: 4, period: 7 })).toThrow("at least two instances");
  });
});
