import { expect, it } from "vitest";
import { seeded } from "../../simulation/random.ts";
import {
  mirrored,
  PARTITIONS,
  ROLES,
  runScenario,
  scenarioName,
  scenarioOf,
  scenarios,
} from "../../simulation/twins.ts";

it("a random sample of Twins: two of one identity break nothing, and the rest goes on without one of them", () => {
  const random = seeded(2);
  let early = 0;
  for (let drawn = 0; drawn < 200; drawn++) {
    const scenario = {
      twin: random.pick(ROLES),
      partitions: Array.from({ length: 4 }, () => random.below(PARTITIONS)),
    };
    try {
      const report = runScenario(scenario);
      expect(report.regency).toBeGreaterThanOrEqual(4);
      early += report.decidedEarly;
    } catch (error) {
      const name = scenarioName(scenario);
      throw new Error(`replay it: npm run sim -- --twins --scenario ${name} --trace`, { cause: error });
    }
  }
  expect(early).toBeGreaterThan(200);
});

it("and where leaders take turns", () => {
  const random = seeded(3);
  let early = 0;
  for (let drawn = 0; drawn < 100; drawn++) {
    const scenario = {
      twin: random.pick([0, 1, 2, 3]),
      partitions: Array.from({ length: 4 }, () => random.below(PARTITIONS)),
      rotation: random.pick([1, 2]),
    };
    try {
      early += runScenario(scenario).decidedEarly;
    } catch (error) {
      const name = scenarioName(scenario);
      throw new Error(`replay it: npm run sim -- --twins --scenario ${name} --trace`, { cause: error });
    }
  }
  expect(early).toBeGreaterThan(100);
});

it("the same scenario has the same trace, and its name is all that a replay needs", () => {
  const scenario = { twin: 1, partitions: [3, 5, 12, 1] };
  expect(scenarioOf(scenarioName(scenario))).toEqual(scenario);
  expect(scenarioOf("1:3.5.12.1/2")).toEqual({ ...scenario, rotation: 2 });
  expect(scenarioName({ ...scenario, rotation: 2 })).toBe("1:3.5.12.1/2");
  expect(() => scenarioOf("1:3.5.12.1/0")).toThrow("no scenario of twins");
  expect(runScenario(scenario).digest).toBe(runScenario(scenario).digest);
});

it("of scenarios that differ in the names of the twins only, one is kept", () => {
  for (const twin of ROLES) {
    for (let partition = 0; partition < PARTITIONS; partition++) {
      expect(mirrored(twin, mirrored(twin, partition))).toBe(partition);
    }
  }
  const names = new Set([...scenarios([0], 2)].map(scenarioName));
  expect(names.size).toBe((PARTITIONS ** 2 + 8 ** 2) / 2);
  for (let first = 0; first < PARTITIONS; first++) {
    for (let second = 0; second < PARTITIONS; second++) {
      const partitions = [first, second];
      const mirror = partitions.map((partition) => mirrored(0, partition));
      const kept = [partitions, mirror].filter((rounds) => names.has(scenarioName({ twin: 0, partitions: rounds })));
      expect(new Set(kept.map(String)).size).toBe(1);
    }
  }
});
