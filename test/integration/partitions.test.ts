/**
 * Links between real replicas that fail (docs/protocol.md sections 2 and 4): cut, one-way, flapping, late. After each, service goes
 * on or resumes by itself, nothing acknowledged is lost, and what all clients saw is linearizable.
 */
import { expect, test } from "vitest";
import { PROXY_WORKS, sleep, type TestCluster, until } from "./cluster.ts";
import { leadershipFrom } from "./leadership.ts";
import { underLoad } from "./under-load.ts";

/** Until `replica` has noticed that it hears from exactly these. */
async function hearsFrom(cluster: TestCluster, replica: number, peers: readonly number[]): Promise<void> {
  await until(
    async () => {
      const status = await cluster.status(replica);
      const connected = status.peers.filter((peer) => peer.connected).map((peer) => peer.replica);
      return JSON.stringify(connected) === JSON.stringify(peers) ? true : null;
    },
    { what: `replica ${replica} to be connected with ${peers.join(", ") || "nobody"}` },
  );
}

/** Until a replica that hears from nobody has executed all it knows; the last instance of that. */
async function restsAt(cluster: TestCluster, replica: number): Promise<number> {
  let before = -1;
  return until(
    async () => {
      const { decided, executed } = await cluster.status(replica);
      const rests = executed === decided && executed === before;
      before = executed;
      return rests ? executed : null;
    },
    { everyMs: 500, what: `replica ${replica} to have executed what it knows` },
  );
}

test.runIf(PROXY_WORKS)(
  "a follower cut off from everybody: service goes on, and it catches up when healed",
  async () => {
    const { cluster, load, conclude } = await underLoad({ proxied: true });
    const follower = 3;
    cluster.proxy.cut([follower], cluster.proxy.others(follower));
    await hearsFrom(cluster, follower, []);
    const executed = await restsAt(cluster, follower);
    await load.progress(200);
    expect((await cluster.status(follower)).executed).toBe(executed);
    cluster.proxy.heal();
    await load.progress(100);
    await conclude();
  },
);

test.runIf(PROXY_WORKS)(
  "a follower that hears and is not heard: service goes on, and it follows all the time",
  async () => {
    const { cluster, load, conclude } = await underLoad({ proxied: true });
    cluster.proxy.swallow([2], cluster.proxy.others(2));
    await load.progress(200);
    const { executed } = await cluster.status(0);
    await until(async () => ((await cluster.status(2)).executed >= executed ? true : null), {
      what: "the unheard follower to execute what it hears",
    });
    cluster.proxy.heal();
    await load.progress(100);
    await conclude();
  },
);

test.runIf(PROXY_WORKS)("links that flap between all replicas: service goes on between and after", async () => {
  const { cluster, load, conclude } = await underLoad({ proxied: true });
  for (let round = 0; round < 9; round++) {
    const one = round % 4;
    const other = (one + 1 + (round % 3)) % 4;
    cluster.proxy.cut([one], [other]);
    await sleep(50 + 50 * (round % 5));
    cluster.proxy.heal();
    await sleep(100);
  }
  await load.progress(200);
  await conclude();
});

test.runIf(PROXY_WORKS)("every link 50 to 200 ms late: service goes on, only slower", async () => {
  const { cluster, load, conclude } = await underLoad({ proxied: true });
  cluster.proxy.delay(cluster.ids, cluster.ids, { msMin: 50, msMax: 200 });
  await load.progress(100);
  cluster.proxy.heal();
  await load.progress(100);
  await conclude();
});

test.runIf(PROXY_WORKS)(
  "the leader cut off from everybody: another leads within 4 T, and it follows when healed",
  async () => {
    const { cluster, load, conclude } = await underLoad({ proxied: true });
    const before = await leadershipFrom(cluster, { regency: 0 });
    const others = cluster.proxy.others(before.leader);
    cluster.proxy.cut([before.leader], others);
    const after = await leadershipFrom(cluster, { regency: before.regency + 1, replicas: others });
    expect(after.leader).not.toBe(before.leader);
    await load.progress(200);
    cluster.proxy.heal();
    await until(async () => ((await cluster.status(before.leader)).regency >= after.regency ? true : null), {
      what: "the old leader to learn of the new one",
    });
    await load.progress(100);
    await conclude();
  },
);

test.runIf(PROXY_WORKS)("a leader that hears and is not heard is replaced, and follows when healed", async () => {
  const { cluster, load, conclude } = await underLoad({ proxied: true });
  const before = await leadershipFrom(cluster, { regency: 0 });
  const others = cluster.proxy.others(before.leader);
  cluster.proxy.swallow([before.leader], others);
  const after = await leadershipFrom(cluster, { regency: before.regency + 1, replicas: others });
  await load.progress(200);
  cluster.proxy.heal();
  await until(async () => ((await cluster.status(before.leader)).regency >= after.regency ? true : null), {
    what: "the old leader to learn of the new one",
  });
  await conclude();
});

test.runIf(PROXY_WORKS)(
  "a leader that is heard and hears nothing is replaced; what was held for it arrives late and harms nothing",
  async () => {
    const { cluster, load, conclude } = await underLoad({ proxied: true });
    const before = await leadershipFrom(cluster, { regency: 0 });
    const others = cluster.proxy.others(before.leader);
    cluster.proxy.hold(others, [before.leader]);
    await leadershipFrom(cluster, { regency: before.regency + 1, replicas: others });
    await load.progress(200);
    cluster.proxy.heal();
    await load.progress(100);
    await conclude();
  },
);

test.runIf(PROXY_WORKS)(
  "two halves that hear nothing of each other: neither writes; healed, service resumes by itself",
  async () => {
    const { cluster, load, conclude } = await underLoad({ proxied: true });
    cluster.proxy.cut([0, 1], [2, 3]);
    await hearsFrom(cluster, 0, [1]);
    await hearsFrom(cluster, 3, [2]);
    const acknowledged = load.acknowledged;
    await sleep(2_500);
    // What was decided just before the cut may still be answered; with no quorum on either side nothing else can.
    expect(load.acknowledged - acknowledged).toBeLessThanOrEqual(10);
    cluster.proxy.heal();
    await load.progress(200);
    await conclude();
  },
);
