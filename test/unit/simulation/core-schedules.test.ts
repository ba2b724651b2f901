import { describe, expect, it } from "vitest";
import { runCoreSchedule } from "../../simulation/core-schedules.ts";
import { scheduleName, scheduleOf } from "../../simulation/schedule-random.ts";

const FIXED = 300;
const FRESH = 20;

/** The schedule as a failure names it: its seed replays it. */
function run(seed: number): ReturnType<typeof runCoreSchedule> {
  try {
    return runCoreSchedule(seed);
  } catch (error) {
    throw new Error(`core schedule ${seed} fails; replay it: npm run sim -- --core --seed ${seed} --trace`, {
      cause: error,
    });
  }
}

describe("schedules of real cores: safe while anything fails, live once at most f do", () => {
  it(`${FIXED} fixed seeds, in which every kind of fault happens`, () => {
    const counts = new Map<string, number>();
    let changed = 0;
    let lied = 0;
    let turns = 0;
    for (let seed = 1; seed <= FIXED; seed++) {
      const report = run(seed);
      for (const [name, count] of report.counts) counts.set(name, (counts.get(name) ?? 0) + count);
      if (report.regency > 0) changed++;
      if (report.liars > 0) lied++;
      if (report.rotation > 0 && report.handovers > 1) turns++;
      if (report.rotation === 0) expect(report.handovers).toBe(0);
    }
    expect([...counts.keys()].sort()).toEqual([
      "ambush",
      "clean stop",
      "clock skew",
      "crash",
      "cut",
      "duplicate",
      "false request",
      "leader isolated",
      "one-way cut",
      "power loss",
      "reorder",
      "restart",
      "slow journal",
    ]);
    expect(changed).toBeGreaterThan(FIXED / 2);
    expect(lied).toBeGreaterThan(FIXED / 3);
    expect(turns).toBeGreaterThan(FIXED / 8);
  });

  it(`${FRESH} fresh seeds`, () => {
    const from = Math.floor(Math.random() * 1_000_000_000);
    console.log(`core schedules ${from} to ${from + FRESH - 1}`);
    for (let seed = from; seed < from + FRESH; seed++) run(seed);
  });

  it("the same schedule has the same trace; another last piece changes it from there", () => {
    for (const seed of [3, 8, 21]) {
      const { digest } = run(seed);
      expect(run(seed).digest).toBe(digest);
      const pieces = [{ from: 150, seed: 99 }];
      const changed = runCoreSchedule(seed, { pieces });
      expect(changed.digest).not.toBe(digest);
      expect(runCoreSchedule(seed, { pieces }).digest).toBe(changed.digest);
    }
  });

  it("a schedule's name is all that a replay needs", () => {
    const schedule = {
      seed: 17,
      pieces: [
        { from: 240, seed: 99 },
        { from: 310, seed: 5 },
      ],
    };
    expect(scheduleOf(scheduleName(schedule.seed, schedule.pieces))).toEqual(schedule);
    expect(() => scheduleOf("17+a")).toThrow("no schedule");
  });
});
