/** What a cluster does with one and with two of four replicas down (docs/protocol.md section 1), with real processes. */
import { expect, test } from "vitest";
import type { TestCluster as Cluster } from "./cluster.ts";
import { sleep, TestCluster, until } from "./cluster.ts";

/** Every operation once, through the command line where it has a word for it. */
async function everyOperation(cluster: Cluster, name: string): Promise<void> {
  const kv = await cluster.connect();
  const { revision } = await kv.put(`${name}/a`, "one");
  await kv.put(`${name}/b`, "two", { ifAbsent: true });
  await expect(kv.put(`${name}/b`, "x", { ifAbsent: true })).rejects.toMatchObject({ code: "CONFLICT" });
  expect(await kv.get(`${name}/a`)).toMatchObject({ value: "one", modRevision: revision, version: 1n });
  expect(await kv.get(`${name}/a`, { ordered: true })).toMatchObject({ value: "one" });
  expect(await kv.get(`${name}/none`)).toBeNull();
  expect(await kv.cas(`${name}/a`, { expect: revision, value: "three" })).toMatchObject({ swapped: true });
  expect(await kv.cas(`${name}/a`, { expect: revision, value: "four" })).toMatchObject({ swapped: false });
  const large = "v".repeat(1024 * 1024);
  await kv.put(`${name}/large`, large);
  expect((await kv.get(`${name}/large`))?.value).toBe(large);
  const seen: string[] = [];
  for await (const { key, value } of kv.range({ prefix: `${name}/`, pageSize: 1 })) seen.push(`${key}=${value.length}`);
  expect(seen).toEqual([`${name}/a=5`, `${name}/b=3`, `${name}/large=${large.length}`]);
  expect(await kv.delete(`${name}/b`)).toMatchObject({ deleted: true });
  expect(await kv.delete(`${name}/b`)).toMatchObject({ deleted: false });
  await kv.close();
}

/** The same through the command line, a process each. */
async function everyVerb(cluster: Cluster): Promise<void> {
  const records = ['{"key":"cli/a","value":"1"}', '{"key":"cli/b","valueBase64":"/wA="}', ""].join("\n");
  expect((await cluster.kv(["import", "-"], { stdin: records })).code).toBe(0);
  expect(await cluster.kv(["put", "cli/c"], { stdin: "from stdin" })).toMatchObject({ code: 0, stderr: "" });
  expect(await cluster.kv(["get", "cli/c", "-o", "raw"])).toMatchObject({ code: 0, stdout: "from stdin" });
  expect(await cluster.kv(["cas", "cli/c", "--expect", "absent", "x"])).toMatchObject({ code: 4 });
  expect(await cluster.kv(["delete", "cli/c"])).toMatchObject({ code: 0 });
  expect(await cluster.kv(["get", "cli/c"])).toMatchObject({ code: 1, stdout: "" });
  const keys = await cluster.kv(["range", "--prefix", "cli/", "--keys-only", "-o", "json"]);
  expect(keys.code).toBe(0);
  expect(keys.stdout).toContain("cli/b");
  const exported = await cluster.kv(["export"]);
  expect(exported.stdout.split("\n").filter((line) => line.includes('"cli/'))).toEqual(records.split("\n").slice(0, 2));
  const status = await cluster.kv(["status", "-o", "json", "--timeout", "10s"]);
  expect(JSON.parse(status.stdout)).toMatchObject({ n: 4, f: 1, quorum: 3, reachable: 3 });
}

/** `kv put` ends by itself with 3, and says in one line what is missing. */
async function refusesToWrite(cluster: Cluster, missing: readonly number[]): Promise<void> {
  // Time enough to connect with the two that are there.
  const put = await cluster.kv(["put", "blocked", "x", "--timeout", "4s"], { timeoutMs: 30_000 });
  expect(put).toMatchObject({ code: 3, stdout: "" });
  expect(put.stderr).toMatch(/^kv: [^\n]*2 of the 3 replicas needed are connected[^\n]*\n$/);
  for (const replica of missing) expect(put.stderr).toContain(`replica ${replica} `);
  expect((await cluster.kv(["get", "before", "--timeout", "1s"], { timeoutMs: 30_000 })).code).toBe(3);
}

test("one follower down: every operation works, and it has them all when it is back", async () => {
  const cluster = await TestCluster.start();
  await cluster.kill(2, "SIGKILL");
  await everyOperation(cluster, "down");
  await everyVerb(cluster);
  await cluster.startOne(2);
  await cluster.agreement();
  await cluster.kill(3, "SIGKILL");
  const kv = await cluster.connect();
  expect((await kv.get("down/a", { ordered: true }))?.value).toBe("three");
});

test("two followers down: writes end with exit code 3, and service resumes when one stopped with SIGTERM starts", async () => {
  const cluster = await TestCluster.start();
  const kv = await cluster.connect();
  const { revision } = await kv.put("before", "safe");
  await cluster.kill(2, "SIGKILL");
  expect(await cluster.kill(3, "SIGTERM")).toEqual({ code: 0, signal: null });
  await refusesToWrite(cluster, [2, 3]);
  const waiting = kv.put("waiting", "until they are back", { timeoutMs: 60_000 });
  await sleep(500);
  await cluster.startOne(3);
  await waiting;
  expect(await kv.get("before")).toMatchObject({ value: "safe", modRevision: revision, version: 1n });
  expect((await kv.get("waiting"))?.version).toBe(1n);
  expect((await cluster.kv(["put", "blocked", "free again"])).code).toBe(0);
});

test("two followers down: service resumes when one stopped with SIGSTOP goes on", async () => {
  const cluster = await TestCluster.start();
  const kv = await cluster.connect();
  const { revision } = await kv.put("before", "safe");
  await cluster.kill(1, "SIGKILL");
  cluster.signal(2, "SIGSTOP");
  const sent = kv.put("sent", "once", { timeoutMs: 60_000 });
  await refusesToWrite(cluster, [1, 2]);
  cluster.signal(2, "SIGCONT");
  await sent;
  expect((await kv.get("sent"))?.version).toBe(1n);
  expect(await kv.get("before")).toMatchObject({ value: "safe", modRevision: revision, version: 1n });
  await until(async () => ((await cluster.http(2, "/readyz")).code === 200 ? true : null), { what: "readiness" });
  await cluster.agreement([0, 2, 3]);
});
