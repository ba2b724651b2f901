/** A cluster in crash mode (docs/protocol.md section 4, "Crash mode"), with real processes: three replicas stand one crash. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { isBack, leadership, leadershipFrom } from "./leadership.ts";
import { expectRecords, fetched, filledCluster, rob, votes, write } from "./lost-data.ts";
import { underLoad } from "./under-load.ts";

const CRASH_MODE = { mode: "cft", replicas: 3 } as const;

test("leaders killed with SIGKILL under load and started again: another leads each time, and nothing acknowledged is lost", async () => {
  const { cluster, load, conclude } = await underLoad(CRASH_MODE);
  const { stdout } = await cluster.kv(["status", "--timeout", "10s"]);
  expect(stdout).toContain("n=3 f=1 quorum=2 reachable=3 mode=cft\n");
  for (let round = 0; round < 3; round++) {
    const { regency, leader } = await leadershipFrom(cluster, { regency: round });
    const others = cluster.ids.filter((id) => id !== leader);
    await cluster.kill(leader, "SIGKILL");
    const next = await leadershipFrom(cluster, { regency: regency + 1, replicas: others });
    expect(next.leader).not.toBe(leader);
    await load.progress(100);
    await cluster.startOne(leader);
    await isBack(cluster, leader);
  }
  await conclude();
});

test("all replicas killed at once under load, and the leader gone for good: the two others go on", async () => {
  const { cluster, load, conclude } = await underLoad(CRASH_MODE);
  await Promise.all(cluster.ids.map((id) => cluster.kill(id, "SIGKILL")));
  await cluster.startAll();
  await load.progress(100, 60_000);
  const { leader } = await leadershipFrom(cluster, { regency: 0 });
  const others = cluster.ids.filter((id) => id !== leader);
  await Promise.all(cluster.ids.map((id) => cluster.kill(id, "SIGKILL")));
  await Promise.all(others.map((id) => cluster.startOne(id)));
  await load.progress(100, 60_000);
  expect((await leadership(cluster, others))?.leader).not.toBe(leader);
  await conclude(others);
});

test("five replicas, two of them killed at once, the leader among them: the third leads", async () => {
  const { cluster, load, conclude } = await underLoad({ mode: "cft", replicas: 5 });
  const { regency, leader } = await leadershipFrom(cluster, { regency: 0 });
  const victims = [leader, (leader + 1) % 5];
  const others = cluster.ids.filter((id) => !victims.includes(id));
  await Promise.all(victims.map((id) => cluster.kill(id, "SIGKILL")));
  await leadershipFrom(cluster, { regency: regency + 2, replicas: others });
  await load.progress(100, 60_000);
  await conclude(others);
});

test("all stopped with SIGTERM under load and started again go on", async () => {
  const { cluster, load, conclude } = await underLoad(CRASH_MODE);
  for (let round = 0; round < 2; round++) {
    const exits = await Promise.all(cluster.ids.map((id) => cluster.kill(id, "SIGTERM")));
    expect(exits).toEqual(cluster.ids.map(() => ({ code: 0, signal: null })));
    await cluster.startAll();
    await load.progress(100, 60_000);
  }
  await conclude();
});

test("a data directory deleted while its replica is down: the replica fetches the state, and is one of a majority again", async () => {
  const filled = await filledCluster({ ...CRASH_MODE, records: 1_200 });
  const { cluster } = filled;
  await rob(filled, 2);
  await write(filled, 200);
  await cluster.startOne(2);
  await votes(filled, 2);
  expect(fetched(filled, 2)).toBe(true);
  await write(filled, 200);
  await cluster.agreement();
  const file = join(cluster.folder, "saved.qsnap");
  expect(await cluster.kv(["snapshot", "save", file])).toMatchObject({ code: 0 });
  expect(await cluster.kv(["snapshot", "verify", file])).toMatchObject({ code: 0 });
  await expectRecords(filled, { recovered: 2, down: [0] });
  await write(filled, 50);
});
