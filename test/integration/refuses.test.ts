/** Starts that must fail: one line that says what to do, exit code 2, nothing changed (README, docs/errors.md). */
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { newIdentity } from "../../client/index.ts";
import { hex } from "../../protocol/bytes.ts";
import { occupy, TestCluster, temporaryFolder } from "./cluster.ts";
import { compiled, type Ended, run } from "./programs.ts";

/** Starts a replica that must refuse, and gives what it said. */
async function refusal(cluster: TestCluster, replica: number): Promise<string> {
  const config = join(cluster.home(replica), "node.yaml");
  return expectRefusal(await run(compiled("server/main"), ["--config", config, "--log-level", "error"]));
}

function expectRefusal({ code, stdout, stderr }: Ended): string {
  expect({ code, stdout }, stderr).toEqual({ code: 2, stdout: "" });
  expect(stderr).toMatch(/^kv-server: [^\n]+ \[[A-Z_]+\]\n$/);
  return stderr;
}

test("a second server on one directory", async () => {
  const cluster = await TestCluster.start();
  const said = await refusal(cluster, 2);
  expect(said).toContain("[STORAGE_LOCKED]");
  expect((await cluster.http(2, "/livez")).code).toBe(200);
  expect((await cluster.kv(["put", "still", "served"])).code).toBe(0);
});

test("the data directory of the only replica that was removed after the founding", async () => {
  const cluster = await TestCluster.start({ replicas: 1 });
  const kv = await cluster.connect();
  await kv.put("a", "1");
  await cluster.kill(0, "SIGKILL");
  const path = join(cluster.home(0), "data");
  const aside = join(cluster.folder, "aside");
  renameSync(path, aside);
  for (let start = 0; start < 2; start++) {
    const said = await refusal(cluster, 0);
    expect(said).toContain("[STORAGE_UNFOUNDED]");
    expect(said).toMatch(/put the directory back/);
  }
  rmSync(path, { recursive: true, force: true });
  renameSync(aside, path);
  await cluster.startOne(0);
  await kv.put("a", "2");
});

test("a cluster file of another cluster, and one in which another member's key was changed", async () => {
  const cluster = await TestCluster.start();
  const kv = await cluster.connect();
  await kv.put("a", "1");
  await cluster.kill(3, "SIGTERM");
  const original = readFileSync(cluster.clusterPath, "utf8");
  const yaml = join(cluster.home(3), "node.yaml");
  const changed = join(cluster.folder, "changed.json");
  writeFileSync(yaml, readFileSync(yaml, "utf8").replace("../cluster.json", changed));
  for (const change of [
    { ...cluster.file, clusterId: "0".repeat(64) },
    {
      ...cluster.file,
      members: cluster.file.members.map((member) =>
        member.id === 1 ? { ...member, signKey: hex(newIdentity().signKey) } : member,
      ),
    },
  ]) {
    writeFileSync(changed, JSON.stringify(change));
    expect(await refusal(cluster, 3)).toContain("[CLUSTER_MISMATCH]");
  }
  writeFileSync(changed, original);
  await cluster.startOne(3);
  await kv.put("a", "2");
  await cluster.agreement();
});

test("ports in use, keys that others may read, files that are missing or wrong", async () => {
  const cluster = await TestCluster.create();
  const [client, peer, admin] = [0, 1, 2].map((replica) => cluster.member(replica));
  if (!client || !peer || !admin) throw new Error("a cluster of four has three members");
  await Promise.all([occupy(client.clientPort), occupy(peer.peerPort), occupy(admin.adminPort)]);
  for (const [replica, port] of [client.clientPort, peer.peerPort, admin.adminPort].entries()) {
    const said = await refusal(cluster, replica);
    expect(said).toContain("[PORT_IN_USE]");
    expect(said).toContain(String(port));
  }
  const key = join(cluster.home(3), "replica.key");
  chmodSync(key, 0o644);
  const loose = await refusal(cluster, 3);
  expect(loose).toContain("[KEY_FILE_PERMISSIONS]");
  expect(loose).toContain(`chmod 600 ${key}`);
  chmodSync(key, 0o600);
  writeFileSync(key, readFileSync(join(cluster.home(2), "replica.key"), "utf8"));
  expect(await refusal(cluster, 3)).toContain("[KEY_FILE_INVALID]");
  rmSync(key);
  expect(await refusal(cluster, 3)).toContain("[KEY_FILE_UNREADABLE]");
  rmSync(join(cluster.home(2), "node.yaml"));
  expect(await refusal(cluster, 2)).toContain("[CONFIG_MISSING]");
  writeFileSync(join(cluster.home(2), "node.yaml"), "replica: [");
  expect(await refusal(cluster, 2)).toContain("[CONFIG_INVALID]");
  expect(existsSync(join(cluster.home(3), "data", "journal"))).toBe(false);
});

test("kv-server says what it takes: its words, its environment, and config validate", async () => {
  const server = (...args: string[]): Promise<Ended> => run(compiled("server/main"), args);
  const help = await server("--help");
  expect(help.code).toBe(0);
  for (const word of ["--config", "config validate", "QUORATE_LOG_LEVEL", "QUORATE_DATA_DIR"])
    expect(help.stdout).toContain(word);
  for (const args of [
    ["config", "--help"],
    ["config", "validate", "--help"],
  ]) {
    const { code, stdout } = await server(...args);
    expect([code, stdout]).toEqual([0, expect.stringContaining("validate")]);
  }
  for (const args of [["config"], ["config", "check"], ["config", "validate"]]) {
    expect(await server(...args)).toMatchObject({ code: 2, stdout: "" });
  }
  const cluster = await TestCluster.create();
  const valid = await server("config", "validate", "--config", join(cluster.home(0), "node.yaml"));
  expect(valid).toMatchObject({ code: 0, stdout: expect.stringContaining("is valid: replica 0 of 4") });
});

test("kv init into an existing directory, and kv with bad input, change nothing", async () => {
  const folder = temporaryFolder();
  const dir = join(folder, "here");
  mkdirSync(dir);
  writeFileSync(join(dir, "precious"), "x");
  const kv = (args: readonly string[]): Promise<Ended> => run(compiled("cli/main"), args, { cwd: folder });
  for (const [args, says] of [
    [["init", "--dir", dir], "exists already"],
    [["get", "x"], "kv dev"],
    [["get", "x", "--cluster", "nowhere.json"], "does not exist"],
    [["put", "", "x"], "key"],
    [["import", join(folder, "none.jsonl")], "none.jsonl"],
    [["--timeout", "soon", "get", "x"], "soon"],
    [["frobnicate"], "frobnicate"],
  ] as const) {
    const { code, stdout, stderr } = await kv(args);
    expect({ code, stdout }, `kv ${args.join(" ")}: ${stderr}`).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/^kv: [^\n]+\n$/);
    expect(stderr).toContain(says);
  }
  expect(readFileSync(join(dir, "precious"), "utf8")).toBe("x");
});
