/** Data deleted under a running replica is noticed and made good like other damage (docs/protocol.md section 6): real processes. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { TestCluster, until } from "./cluster.ts";
import { dataOf, expectRecords, type Filled, filledCluster, robUntilTransfers, votes, write } from "./lost-data.ts";

const WHAT = "are not where they were opened any more";

/** Until the replica says that this store is gone; nobody else does anything meanwhile. */
async function notices({ cluster }: Filled, replica: number, store: "journal" | "state"): Promise<void> {
  const said = () =>
    cluster.log(replica).some((line) => line.store === store && String(line.reason ?? "").includes(WHAT));
  await until(() => said() || null, { what: `replica ${replica} to notice that its ${store} is gone` });
}

test("the data directory deleted under load: the replica votes again in the same process, and nothing is lost", async () => {
  const filled = await filledCluster();
  const { cluster } = filled;
  const { pid } = await cluster.status(3);
  const writing = write(filled, 4_000);
  rmSync(dataOf(filled, 3), { recursive: true, maxRetries: 5 });
  await notices(filled, 3, "journal");
  await writing;
  await write(filled, 100);
  const { pid: now, alarms } = await votes(filled, 3);
  expect(now).toBe(pid);
  expect(alarms).toMatchObject([{ code: "REPAIRED", detail: expect.stringContaining(WHAT) }]);
  expect(await cluster.metric(3, "quorate_repairs_total")).toBeGreaterThan(0);
  await cluster.agreement();
  await expectRecords(filled, { recovered: 3, down: [0] });
});

test("the state alone deleted in an idle cluster is noticed without a request", async () => {
  const filled = await filledCluster();
  const { cluster } = filled;
  rmSync(join(dataOf(filled, 3), "state"), { recursive: true, maxRetries: 5 });
  await notices(filled, 3, "state");
  await votes(filled, 3);
  await cluster.agreement();
  await expectRecords(filled, { recovered: 3, down: [0] });
});

test("the data directory deleted while a state is fetched into it: that is noticed at the latest when it is to be installed", async () => {
  const filled = await filledCluster({ records: 6_000, together: 20 });
  const { pid } = await robUntilTransfers(filled, 3);
  rmSync(dataOf(filled, 3), { recursive: true, maxRetries: 5 });
  expect((await votes(filled, 3)).pid).toBe(pid);
  await write(filled, 100);
  await expectRecords(filled, { recovered: 3, down: [0] });
});

test("the data of the only replica: nobody could give it back, so it halts and says what an operator finds it by", async () => {
  const cluster = await TestCluster.start({ replicas: 1 });
  rmSync(join(cluster.home(0), "data"), { recursive: true, maxRetries: 5 });
  expect(await cluster.server(0).exited).toMatchObject({ code: 1 });
  expect(cluster.log(0).at(-1)).toMatchObject({ msg: expect.stringMatching(/^halted: /), code: "STORAGE_UNFOUNDED" });
});
