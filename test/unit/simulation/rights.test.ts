/** A lying client under an administrator's hand, in whole simulated worlds with faults (docs/protocol.md section 2, "Rights"). */
import { expect, test } from "vitest";
import { drawPlan } from "../../simulation/plan.ts";
import { runSeed } from "../../simulation/run.ts";
import { rights } from "../../simulation/targeted/rights.ts";

test("no command runs without the right to its keys, whatever breaks meanwhile", async () => {
  const counts: Record<string, number> = {};
  for (let seed = 1; seed <= 12; seed++) {
    const plan = { ...drawPlan(seed), mallory: true, rights: true };
    const report = await runSeed({ seed, plan });
    expect(report.failure, `seed ${seed}`).toBeNull();
    for (const [name, count] of Object.entries(report.counts)) counts[name] = (counts[name] ?? 0) + count;
  }
  // Else nothing was granted, or nothing tried.
  expect(counts["registrar: orders executed"]).toBeGreaterThan(20);
  expect(counts["mallory: NOT_PERMITTED"]).toBeGreaterThan(5);
}, 240_000);

test("execution agrees with a naive model of grants, revocations and time", () => {
  for (let seed = 1; seed <= 60; seed++) rights(seed);
});
