/**
 * The malicious fault model with real processes (docs/protocol.md section 5, "Leaders in turn"): leaders change without a change of
 * regency, a member that is killed costs little once it is known, and nothing acknowledged is lost.
 */
import { expect, test } from "vitest";
import { type TestCluster, until } from "./cluster.ts";
import { isBack, leadership } from "./leadership.ts";
import { underLoad } from "./under-load.ts";

const ROTATION = 40;

/** Until so many have led within one regency; on a machine that is short of time a regency may not last that long. */
async function led(cluster: TestCluster, count: number): Promise<void> {
  const leaders = new Map<number, Set<number>>();
  await until(
    async () => {
      const now = await leadership(cluster, cluster.ids);
      if (!now) return null;
      const here = (leaders.get(now.regency) ?? new Set()).add(now.leader);
      leaders.set(now.regency, here);
      return here.size >= count ? here : null;
    },
    { timeoutMs: 60_000, everyMs: 20, what: `${count} leaders in one regency` },
  );
}

async function metric(cluster: TestCluster, replica: number, name: string): Promise<number> {
  const { host, adminPort } = cluster.member(replica);
  const text = await (await fetch(`http://${host}:${adminPort}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
}

test("leaders take turns under load; one is killed, its turns are cut short, and nothing acknowledged is lost", async () => {
  const { cluster, load, conclude } = await underLoad({ rotation: ROTATION });
  const { faultModel, rotation } = await cluster.status(0);
  expect({ faultModel, rotation }).toEqual({ faultModel: "malicious", rotation: ROTATION });
  await led(cluster, 2);
  expect(await metric(cluster, 0, "quorate_rotation")).toBe(ROTATION);
  await until(async () => (await metric(cluster, 0, "quorate_leader_handovers_total")) > 0 || null, {
    what: "replica 0 to count a handover",
  });

  const victim = 2;
  const others = cluster.ids.filter((id) => id !== victim);
  const { regency } = await cluster.status(0);
  await cluster.kill(victim, "SIGKILL");
  await until(
    async () => {
      const statuses = await Promise.all(others.map((id) => cluster.status(id)));
      const known = statuses.every(
        ({ onProbation, regency: now }) => onProbation.includes(victim) && now > regency + 1,
      );
      return known ? true : null;
    },
    { timeoutMs: 60_000, what: "two turns of the one that is gone" },
  );
  await load.progress(200);

  const shown = await until(
    async () => {
      const { stdout } = await cluster.kv(["status"]);
      // Another one may be on probation for a while, on a machine that is short of time.
      return stdout.includes("reachable=3") && /on probation: \d$/m.test(stdout) ? stdout : null;
    },
    { what: "three answers to kv status, and one on probation" },
  );
  expect(shown).toContain(`reachable=3 mode=bft fault-model=malicious rotation=${ROTATION}\n`);
  expect(shown).toMatch(/^replica \d leads up to instance \d+; on probation: \d$/m);

  await cluster.startOne(victim);
  await isBack(cluster, victim);
  await load.progress(200);
  await conclude();
});
