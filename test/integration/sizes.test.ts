/** Clusters of other sizes (docs/protocol.md section 1): quorums by formula, f followers killed. */
import { expect, test } from "vitest";
import { TestCluster } from "./cluster.ts";
import { Load } from "./load.ts";

for (const { n, f } of [
  { n: 5, f: 1 },
  { n: 7, f: 2 },
  { n: 10, f: 3 },
]) {
  test(`n = ${n}: writes, reads and ranges, also with ${f} killed, who catch up`, async () => {
    const cluster = await TestCluster.start({ replicas: n });
    const kv = await cluster.connect({ timeoutMs: 60_000 });
    const load = new Load({ connections: [kv], writers: 8, readers: 1, strict: true, putTimeoutMs: 30_000 });
    await load.progress(50);
    const victims = cluster.ids.slice(-f);
    await Promise.all(victims.map((replica) => cluster.kill(replica, "SIGKILL")));
    await load.progress(100, 60_000);
    await Promise.all(victims.map((replica) => cluster.startOne(replica)));
    await load.stop();
    await cluster.agreement(cluster.ids, 60_000);
    await load.verify(kv);
    const keys: string[] = [];
    for await (const { key } of kv.range({ prefix: "load/", keysOnly: true })) keys.push(key);
    expect(keys).toEqual(Array.from({ length: 8 }, (_, index) => `load/000${index}`));
  });
}
