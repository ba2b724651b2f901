/**
 * The leader ends under load (docs/protocol.md sections 4 and 5), with real processes: by SIGKILL again and again, together with
 * all others, by SIGTERM. Each time service is back by itself.
 */
import { expect, test } from "vitest";
import { PROXY_WORKS } from "./cluster.ts";
import { isBack, leadership, leadershipFrom } from "./leadership.ts";
import { underLoad } from "./under-load.ts";

test("three leaders in a row, each killed with SIGKILL under load and started again: nothing acknowledged is lost", async () => {
  const { cluster, load, conclude } = await underLoad();
  const led = new Set<number>();
  for (let round = 0; round < 3; round++) {
    const { regency, leader } = await leadershipFrom(cluster, { regency: round });
    led.add(leader);
    const others = cluster.ids.filter((id) => id !== leader);
    await cluster.kill(leader, "SIGKILL");
    await leadershipFrom(cluster, { regency: regency + 1, replicas: others });
    await load.progress(100);
    await cluster.startOne(leader);
    await isBack(cluster, leader);
  }
  expect(led.size).toBeGreaterThan(1);
  await conclude();
});

test.runIf(PROXY_WORKS)(
  "two leaders killed while every link is late: another leads each time, and nothing acknowledged is lost",
  async () => {
    const { cluster, load, conclude } = await underLoad({ proxied: true });
    cluster.proxy.delay(cluster.ids, cluster.ids, { msMin: 10, msMax: 60 });
    for (let round = 0; round < 3; round++) {
      const { regency, leader } = await leadershipFrom(cluster, { regency: round });
      await load.progress(20);
      await cluster.kill(leader, "SIGKILL");
      const others = cluster.ids.filter((id) => id !== leader);
      await leadershipFrom(cluster, { regency: regency + 1, replicas: others });
      await load.progress(20);
      await cluster.startOne(leader);
      await isBack(cluster, leader);
    }
    await conclude();
  },
);

test("all replicas killed at once under load: started again, service resumes without help", async () => {
  const { cluster, load, conclude } = await underLoad();
  for (let round = 0; round < 2; round++) {
    await Promise.all(cluster.ids.map((id) => cluster.kill(id, "SIGKILL")));
    await cluster.startAll();
    await load.progress(100, 60_000);
  }
  await conclude();
});

test("all replicas killed at once, and the leader is gone for good: the others go on", async () => {
  const { cluster, load, conclude } = await underLoad();
  const { leader } = await leadershipFrom(cluster, { regency: 0 });
  const others = cluster.ids.filter((id) => id !== leader);
  await Promise.all(cluster.ids.map((id) => cluster.kill(id, "SIGKILL")));
  await Promise.all(others.map((id) => cluster.startOne(id)));
  await load.progress(100, 60_000);
  expect((await leadership(cluster, others))?.leader).not.toBe(leader);
  await conclude(others);
});

test("the leader stopped with SIGTERM under load: another leads, and it follows when it is started again", async () => {
  const { cluster, load, conclude } = await underLoad();
  const { leader } = await leadershipFrom(cluster, { regency: 0 });
  const others = cluster.ids.filter((id) => id !== leader);
  expect(await cluster.kill(leader, "SIGTERM")).toEqual({ code: 0, signal: null });
  await load.progress(100);
  expect((await leadership(cluster, others))?.leader).not.toBe(leader);
  await cluster.startOne(leader);
  await isBack(cluster, leader);
  await load.progress(100);
  await conclude();
});

test("seven replicas, the leader and the one after it killed at once: the third leads", async () => {
  const { cluster, load, conclude } = await underLoad({ replicas: 7 });
  const { regency, leader } = await leadershipFrom(cluster, { regency: 0 });
  const victims = [leader, (leader + 1) % 7];
  const others = cluster.ids.filter((id) => !victims.includes(id));
  await Promise.all(victims.map((id) => cluster.kill(id, "SIGKILL")));
  await leadershipFrom(cluster, { regency: regency + 2, replicas: others });
  await load.progress(100, 60_000);
  await conclude(others);
});
