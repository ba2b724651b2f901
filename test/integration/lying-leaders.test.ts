/**
 * Byzantine leaders (docs/protocol.md section 5), with real processes and keys: each way of leading badly gets the leader replaced
 * within the bound its test names, service goes on, and no client's answer is wrong. T is `requestTimeoutMs`.
 */

import { expect, test } from "vitest";
import { newIdentity } from "../../client/index.ts";
import { hex } from "../../protocol/bytes.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { clientIdOf } from "../../protocol/identity.ts";
import { leadershipFrom } from "./leadership.ts";
import { Load } from "./load.ts";
import { type UnderLoad, underLoad } from "./under-load.ts";

const LIAR = new URL("./lying-leader.ts", import.meta.url);
/** The leader of regency 0. */
const LEADER = 0;
const CORRECT = [1, 2, 3];
/** Longer than a machine stands still: nobody is to be blamed for anything else. */
const T_MS = 2_000;

/** A cluster under load whose first leader is still behaving. */
function led(way: string, ...args: readonly string[]): Promise<UnderLoad> {
  return underLoad({
    settings: { requestTimeoutMs: T_MS },
    start: async (cluster) => {
      await Promise.all(CORRECT.map((replica) => cluster.startOne(replica)));
      await cluster.startOne(LEADER, { program: LIAR, args: ["--way", way, ...args] });
    },
  });
}

/** Until the correct replicas have another leader, for one of these reasons, and clients are served. */
async function isReplaced({ cluster, load }: UnderLoad, reasons: readonly string[]): Promise<void> {
  const { leader } = await leadershipFrom(cluster, { regency: 1, replicas: CORRECT, timeoutMs: 60_000 });
  expect(leader).not.toBe(LEADER);
  const faults = (await Promise.all(CORRECT.map((replica) => cluster.faults(replica)))).flat();
  const suspected = faults.filter(({ source, from }) => source === "message" && from === String(LEADER));
  const codes = suspected.map(({ code }) => code);
  expect(
    codes.filter((code) => reasons.includes(code)),
    codes.join(", "),
  ).not.toEqual([]);
  await load.progress(200, 60_000);
}

for (const [way, bound, reasons] of [
  ["silent", "within 3 T", ["REQUEST_OVERDUE"]],
  ["equivocating", "within 3 T", ["BALLOT_DIVIDED", "PROPOSAL_OVERDUE", "REQUEST_OVERDUE"]],
  ["voting-twice", "within 3 T", ["BALLOT_DIVIDED", "PROPOSAL_OVERDUE", "REQUEST_OVERDUE"]],
  ["garbage", "within 3 T", ["BATCH_MAGIC"]],
] as const) {
  test(`a leader that is ${way} is replaced ${bound}`, async () => {
    const running = await led(way);
    running.cluster.server(LEADER).signal("SIGUSR2");
    await isReplaced(running, reasons);
    await running.conclude(CORRECT);
  });
}

for (const [share, bound] of [
  [0.9, "within 9 T: eight proposals show it"],
  [0.3, "within 5 T: eight proposals show it"],
] as const) {
  test(`a leader whose proposals come ${share} T late is replaced ${bound}`, async () => {
    const running = await led("slow", "--share", String(share));
    running.cluster.server(LEADER).signal("SIGUSR2");
    await isReplaced(running, ["SLOW_LEADER"]);
    await running.conclude(CORRECT);
  });
}

test("a leader that censors one client is replaced within 4 T of its request, which is executed; others are served meanwhile", async () => {
  const identity = newIdentity();
  const victim = hex(clientIdOf(nodeCrypto, identity));
  const running = await led("censoring", "--victim", victim);
  const { cluster } = running;
  const censored = await cluster.connect({ identity });
  cluster.server(LEADER).signal("SIGUSR2");
  await running.load.progress(50);
  const load = new Load({ connections: [censored], writers: 3, name: "censored", strict: true, putTimeoutMs: 60_000 });
  await load.progress(100, 60_000);
  await isReplaced(running, ["REQUEST_OVERDUE"]);
  await load.stop();
  await running.conclude(CORRECT);
  await load.verify(await cluster.connect());
});
