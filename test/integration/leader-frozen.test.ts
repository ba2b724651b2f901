/**
 * A leader that stands still and goes on later (docs/protocol.md section 5), with real processes: SIGSTOP and SIGCONT. Its
 * connections stay open all the while, and it wakes up believing that it leads.
 */
import { expect, test } from "vitest";
import { until } from "./cluster.ts";
import { leadershipFrom } from "./leadership.ts";
import { underLoad } from "./under-load.ts";

test("three leaders in a row frozen under load and thawed: each follows the next one, and its vote counts again", async () => {
  const { cluster, load, conclude } = await underLoad();
  let thawed = -1;
  for (let round = 0; round < 3; round++) {
    const { regency, leader } = await leadershipFrom(cluster, { regency: round });
    const others = cluster.ids.filter((id) => id !== leader);
    cluster.signal(leader, "SIGSTOP");
    await leadershipFrom(cluster, { regency: regency + 1, replicas: others });
    await load.progress(100);
    const target = Math.max(...(await Promise.all(others.map(async (id) => (await cluster.status(id)).executed))));
    cluster.signal(leader, "SIGCONT");
    thawed = leader;
    await until(
      async () => {
        const status = await cluster.status(leader);
        return status.regency > regency && status.executed >= target ? true : null;
      },
      { what: `replica ${leader} to leave regency ${regency} and execute instance ${target}` },
    );
  }
  // With one of the others gone no quorum is without the one that was thawed last.
  const { leader } = await leadershipFrom(cluster, { regency: 3 });
  const follower = cluster.ids.find((id) => id !== leader && id !== thawed);
  expect(follower).toBeDefined();
  await cluster.kill(follower as number, "SIGKILL");
  await load.progress(100);
  await conclude(cluster.ids.filter((id) => id !== follower));
});

test("a leader frozen for a moment, shorter than T: it may go on leading, and nothing is lost", async () => {
  const { cluster, load, conclude } = await underLoad();
  for (let round = 0; round < 3; round++) {
    const { leader } = await leadershipFrom(cluster, { regency: 0 });
    cluster.signal(leader, "SIGSTOP");
    await new Promise((resolve) => setTimeout(resolve, 300));
    cluster.signal(leader, "SIGCONT");
    await load.progress(50);
  }
  await conclude();
});
