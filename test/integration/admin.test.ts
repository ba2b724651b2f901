/** Admin HTTP of a running replica (docs/operations.md): what it tells, and when it is not ready. */
import { expect, test } from "vitest";
import { PATIENT, TestCluster, until } from "./cluster.ts";

const DIGEST = expect.stringMatching(/^[0-9a-f]{64}$/);

test("livez, readyz, metrics and status of a cluster that works, and of one that lost its quorum", async () => {
  const cluster = await TestCluster.start(PATIENT);
  const kv = await cluster.connect();
  for (let index = 0; index < 20; index++) await kv.put(`key/${index}`, "value");
  await kv.get("key/1");
  const { revision } = await cluster.agreement();
  expect(revision).toBe("20");
  // All agree before every link stands: one that was dialled too early is dialled again after a while. And a client goes on
  // when a quorum has let it in.
  const linked = async (): Promise<true | null> => {
    const all = await Promise.all(cluster.ids.map((replica) => cluster.status(replica)));
    const stand = all.every(({ peers }) => peers.every(({ connected, decided }) => connected && decided !== null));
    return (stand && all.every(({ queues }) => queues.clientConnections === 1)) || null;
  };
  await until(linked, { what: "every link to stand" });
  for (const replica of cluster.ids) {
    const pid = cluster.server(replica).pid;
    expect(await cluster.status(replica)).toMatchObject({
      replica,
      pid,
      n: 4,
      f: 1,
      quorum: 3,
      view: 0,
      regency: 0,
      leader: 0,
      decided: expect.any(Number),
      executed: expect.any(Number),
      revision: "20",
      historyDigest: DIGEST,
      state: "voting",
      peers: cluster.ids
        .filter((other) => other !== replica)
        .map((other) => expect.objectContaining({ replica: other, connected: true, decided: expect.any(Number) })),
      queues: expect.objectContaining({
        pendingRequests: 0,
        pendingBytes: 0,
        executionBacklog: 0,
        clientConnections: 1,
      }),
      disk: { journalBytes: expect.any(Number), stateBytes: expect.any(Number), low: false },
    });
    expect(await cluster.http(replica, "/livez")).toEqual({ code: 200, text: "ok\n" });
    expect((await cluster.http(replica, "/readyz")).code).toBe(200);
    expect((await cluster.http(replica, "/nothing")).code).toBe(404);
  }
  expect((await cluster.status(0)).disk.journalBytes).toBeGreaterThan(0);
  expect(await cluster.metric(0, "quorate_instances_decided")).toBeGreaterThan(0);
  expect(await cluster.metric(0, "quorate_rejected_total")).toBe(0);

  cluster.signal(2, "SIGSTOP");
  await cluster.kill(3, "SIGKILL");
  await cluster.kill(2, "SIGKILL");
  for (const replica of [0, 1]) {
    const unready = await until(
      async () => {
        const answer = await cluster.http(replica, "/readyz");
        return answer.code === 503 ? answer : null;
      },
      { what: `replica ${replica} to be unready` },
    );
    expect(unready.text).toContain("[-]quorum failed");
    expect((await cluster.http(replica, "/livez")).code).toBe(200);
    const { peers } = await cluster.status(replica);
    expect(peers.filter(({ connected }) => !connected).map((peer) => peer.replica)).toEqual([2, 3]);
  }
  const status = await cluster.kv(["status", "--timeout", "10s"]);
  expect(status.code).toBe(3);
  expect(status.stderr).toMatch(/^kv: no quorum: 2 of 4 [^\n]*\n$/);
  expect(status.stdout).toContain("not running");
  await cluster.startOne(2);
  await until(async () => ((await cluster.http(0, "/readyz")).code === 200 ? true : null), { what: "readiness" });
});
