/** Restarts of real processes under load (docs/protocol.md section 4, restart rules; section 6). */
import { expect, test } from "vitest";
import { sleep, TestCluster } from "./cluster.ts";
import { isBack } from "./leadership.ts";
import { Load } from "./load.ts";

test("all four stopped with SIGTERM under load and started again go on, and every acknowledged write is there", async () => {
  const cluster = await TestCluster.start();
  const connections = [await cluster.connect(), await cluster.connect()];
  const load = new Load({ connections, writers: 24, readers: 2, putTimeoutMs: 2_000 });
  for (let round = 0; round < 3; round++) {
    await load.progress(200);
    const order = [...cluster.ids].sort(() => Math.random() - 0.5);
    const exits = order.map(async (replica, position) => {
      await sleep(position * Math.random() * 40);
      return cluster.kill(replica, "SIGTERM");
    });
    expect(await Promise.all(exits)).toEqual(order.map(() => ({ code: 0, signal: null })));
    await cluster.startAll();
  }
  await load.progress(200);
  await load.stop();
  await load.verify(await cluster.connect());
  await cluster.agreement();
  for (const id of cluster.ids) await isBack(cluster, id);
});

test("a follower killed with SIGKILL again and again under load catches up each time, and nothing is lost", async () => {
  const cluster = await TestCluster.start();
  const load = new Load({
    connections: [await cluster.connect()],
    writers: 16,
    readers: 1,
    strict: true,
    putTimeoutMs: 20_000,
  });
  for (let round = 0; round < 6; round++) {
    const victim = 1 + (round % 3);
    await load.progress(100);
    expect(await cluster.kill(victim, "SIGKILL")).toEqual({ code: null, signal: "SIGKILL" });
    await load.progress(300);
    await cluster.startOne(victim);
    // Its vote, too, is needed when the next one is killed.
    await isBack(cluster, victim);
  }
  await load.stop();
  await cluster.agreement();
  await load.verify(await cluster.connect());
});
