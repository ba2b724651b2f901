/** Below the disk reserve, writes get STORAGE_FULL while deletes and reads go on (docs/protocol.md section 8). */
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { TestCluster } from "./cluster.ts";

test("a disk below its reserve refuses puts, and takes deletes and reads", async () => {
  const cluster = await TestCluster.create();
  await cluster.startAll();
  const before = await cluster.connect();
  await before.put("a", "1");
  for (const replica of cluster.ids) {
    expect(await cluster.kill(replica, "SIGTERM")).toMatchObject({ code: 0 });
    appendFileSync(join(cluster.home(replica), "node.yaml"), `diskReserveBytes: ${Number.MAX_SAFE_INTEGER}\n`);
  }
  await cluster.startAll();
  for (const replica of cluster.ids) {
    expect((await cluster.status(replica)).alarms.map(({ code }) => code)).toEqual(["DISK_LOW"]);
  }
  const kv = await cluster.connect();
  await expect(kv.put("b", "2")).rejects.toMatchObject({ code: "REFUSED", detail: { reason: "STORAGE_FULL" } });
  expect((await kv.get("a"))?.value).toBe("1");
  expect(await kv.delete("a")).toMatchObject({ deleted: true });
  expect(await kv.get("b")).toBeNull();
});
