/**
 * One client floods a real cluster with all it may send, on many connections, paying no heed to BUSY (docs/protocol.md section 8):
 * every write and read of the others succeeds, what waits stays within its bounds at every replica, and no leader is blamed.
 */
import { expect, test } from "vitest";
import { newIdentity } from "../../client/index.ts";
import { PENDING_BYTES_MAX, PENDING_PER_CLIENT_MAX, QUEUE_COST_START, WAITING_MAX } from "../../protocol/limits.ts";
import { wireLoad } from "../evaluation/wire-load-process.ts";
import { type Status, TestCluster } from "./cluster.ts";
import { Load } from "./load.ts";

const FLOODS = [
  { perSecond: 6_000, valueBytes: 100 },
  { perSecond: 60, valueBytes: 500_000 },
];
const FLOOD_MS = 5_000;

function expectBounded({ queues }: Status): void {
  expect(queues.pendingRequests).toBeLessThanOrEqual(2 * PENDING_PER_CLIENT_MAX + 1_000);
  expect(queues.pendingBytes).toBeLessThanOrEqual(PENDING_BYTES_MAX);
  // The flood may fill what may wait; the others have their shares beside it.
  expect(queues.pendingCost).toBeLessThanOrEqual(4 * QUEUE_COST_START);
  expect(queues.waitingForTurn).toBeLessThanOrEqual(2 * WAITING_MAX);
  expect(queues.clientConnections).toBeLessThan(100);
}

test("a flood by one client fails nobody else's write or read, and fills nothing", async () => {
  const cluster = await TestCluster.start();
  const others = await Promise.all([1, 2, 3].map(() => cluster.connect({ identity: newIdentity() })));
  const load = new Load({ connections: others, writers: 12, readers: 3, strict: true, putTimeoutMs: 60_000 });
  await load.progress(50);
  const common = { file: cluster.file, identities: 1, sessionsEach: 16, keys: 1_000, warmupMs: 0, measureMs: FLOOD_MS };
  for (const { perSecond, valueBytes } of FLOODS) {
    let flooding = true;
    const flood = wireLoad({ ...common, valueBytes, load: { type: "open", perSecond, together: 1 } }).finally(() => {
      flooding = false;
    });
    while (flooding) {
      await load.progress(10, 60_000);
      for (const { id } of cluster.file.members) expectBounded(await cluster.status(id));
    }
    await flood;
  }
  await load.progress(50, 60_000);
  await load.stop();
  await load.verify(others[0] as (typeof others)[0]);
  await cluster.agreement();
  const statuses = await Promise.all(cluster.file.members.map(({ id }) => cluster.status(id)));
  const turnedAway = statuses.map(({ requests }) => (requests.busy ?? 0) + (requests.shed ?? 0));
  expect(Math.max(...turnedAway), "the flood was more than there was room for").toBeGreaterThan(0);
});
