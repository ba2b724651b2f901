/** The evaluation behind `npm run bench:leader-kill`, once per signal: `kv bench` runs on while leaders are killed and frozen. */
import { expect, test } from "vitest";
import { runLeaderKill } from "../evaluation/leader-kill.ts";

test("leaders killed and frozen under kv bench: the timeline shows outage and recovery, nothing is lost", async () => {
  const result = await runLeaderKill({ rounds: 1, clients: 20, connections: 2, requestTimeoutMs: 1_000 });
  expect(result.outages.map(({ way }) => way)).toEqual(["SIGKILL", "SIGSTOP"]);
  expect(result.acknowledged).toBeGreaterThan(0);
  expect(result.recorded).toBeGreaterThan(0);
  for (const { way, regency, leader, benchGapMs } of result.outages) {
    const mark = `${way} to replica ${leader}, the leader of regency ${regency}`;
    const at = result.intervals.findIndex(({ marks }) => marks.includes(mark));
    expect(at, mark).toBeGreaterThanOrEqual(0);
    expect(benchGapMs).toBeGreaterThan(0);
    const after = result.intervals.slice(at + 1);
    expect(Math.max(...after.map(({ operations }) => operations)), `answers after ${mark}`).toBeGreaterThan(0);
    const told = after.flatMap(({ marks }) => marks);
    expect(told.join("; ")).toMatch(/regency [1-9]\d*, replica \d leads/);
  }
});
