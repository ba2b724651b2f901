/** Checkpoints make the log below them superfluous, and it goes (docs/protocol.md section 6, "Checkpoints"). */
import { expect, test } from "vitest";
import { until } from "./cluster.ts";
import { advance, expectRecords, fetched, filledCluster, SHORT_PERIOD, votes } from "./lost-data.ts";

test("the log is truncated as checkpoints are taken, and a replica that was down for long fetches one", async () => {
  const filled = await filledCluster({ records: 400 });
  const { cluster } = filled;
  const away = (await cluster.status(3)).executed;
  await cluster.kill(3, "SIGKILL");
  for (let round = 0; round < 20; round++) {
    await advance(filled, SHORT_PERIOD);
    const statuses = await Promise.all([0, 1, 2].map((id) => cluster.status(id)));
    if (statuses.every(({ log }) => (log?.first ?? 0) > away + 1)) break;
  }
  for (const id of [0, 1, 2]) {
    // The log reaches down to the second-newest checkpoint: two periods, and what is decided while one is computed.
    const log = await until(
      async () => {
        const { log: now } = await cluster.status(id);
        return now && now.first > away + 1 && now.last - now.first <= 4 * SHORT_PERIOD ? now : null;
      },
      { what: `replica ${id} to truncate its log` },
    );
    expect(log.first).toBeGreaterThan(away + 1);
  }
  await cluster.startOne(3);
  await votes(filled, 3);
  expect(fetched(filled, 3)).toBe(true);
  await cluster.agreement();
  await expectRecords(filled, { recovered: 3, down: [0] });
});
