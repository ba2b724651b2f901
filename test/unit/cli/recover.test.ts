/** `kv recover`: nothing is deleted, nothing moves under a running server, nobody is surprised. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { clusterFileText, parseClusterFile } from "../../../protocol/cluster.ts";
import { loadServerConfig } from "../../../server/config.ts";
import { openStorage } from "../../../storage/leveldb.ts";
import { kv, temporaryFolder } from "./streams.ts";

let folder: ReturnType<typeof temporaryFolder>;
let servers: Map<number, Server>;
const data = (name = ""): string => folder.in(`c/replica-1/data/${name}`);

beforeEach(async () => {
  folder = temporaryFolder();
  servers = new Map();
  await kv(["init", "--dir", folder.in("c"), "--base-port", "47100"]);
  for (const store of ["journal", "state"]) {
    mkdirSync(data(store));
    writeFileSync(data(`${store}/CURRENT`), store);
    writeFileSync(data(`${store}/LOCK`), "");
  }
});
afterEach(async () => {
  for (const id of [...servers.keys()]) await silence(id);
  folder.remove();
});

const recover = (...flags: string[]) =>
  kv(["recover", "--replica", "1", "--cluster", folder.in("c/cluster.json"), ...flags]);

/** From now on the admin ports of these replicas, by id, say that they are in these states. */
async function answering(states: Readonly<Record<number, string>>, view = 0): Promise<void> {
  const path = folder.in("c/cluster.json");
  const file = parseClusterFile(readFileSync(path, "utf8"), path);
  const place = { view, regency: 0, leader: 0, decided: 1, executed: 1, revision: "1", historyDigest: "" };
  for (const member of file.members) {
    const { id: replica } = member;
    const state = states[replica];
    if (state === undefined) continue;
    const told = JSON.stringify({ replica, cluster: file.clusterId, ...place, state, pid: 77 });
    const server = createServer((_, response) => response.end(told));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    servers.set(replica, server);
    member.adminPort = (server.address() as AddressInfo).port;
  }
  writeFileSync(path, clusterFileText(file));
}

async function silence(replica: number): Promise<void> {
  const server = servers.get(replica);
  server?.closeAllConnections();
  await new Promise((resolve) => server?.close(resolve) ?? resolve(null));
  servers.delete(replica);
}

test("moves the stores aside, every time to a new place, and says how to go on", async () => {
  await answering({ 0: "voting", 2: "voting", 3: "voting" });
  const { code, out, err } = await recover("--yes");
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(out).toContain(`journal, state moved to ${data("aside/recover-1")}\n`);
  expect(out).toContain(`  kv-server --config ${folder.in("c/replica-1/node.yaml")}\n`);
  expect(readFileSync(data("aside/recover-1/journal/CURRENT"), "utf8")).toBe("journal");
  expect(readdirSync(data()).sort()).toEqual(["aside", "founding.json"]);
  mkdirSync(data("state"));
  const again = await recover("--yes", "-o", "json");
  expect(JSON.parse(again.out)).toMatchObject({ replica: 1, aside: data("aside/recover-2"), moved: ["state"] });
  expect((await recover("--yes")).err).toMatch(/holds no data; start kv-server/);
});

test("the next open says that it was kv recover, and where the journal lies; a later loss is one of its own", async () => {
  for (const store of ["journal", "state"]) rmSync(data(store), { recursive: true });
  const { cluster, dataDir } = loadServerConfig(folder.in("c/replica-1/node.yaml"), { env: {} });
  const founding = { cluster: cluster.id, replica: 1, genesis: cluster.genesis };
  const repairs = async () => {
    const storage = await openStorage({ directory: dataDir, founding });
    await storage.close();
    return storage.repairs;
  };
  expect(await repairs()).toEqual([]);
  for (const recovered of ["aside/recover-1", "aside/recover-2"]) {
    expect((await recover("--yes")).code).toBe(0);
    expect(await repairs()).toEqual([{ store: "journal", reason: "kv recover set it aside", setAside: recovered }]);
    expect(await repairs()).toEqual([]);
  }
  rmSync(data("journal"), { recursive: true });
  const missing = "the journal is missing: what this replica voted for is not known";
  expect(await repairs()).toEqual([{ store: "journal", reason: missing, setAside: null }]);
});

test("asks on a terminal only, and needs --yes elsewhere", async () => {
  expect(await recover()).toMatchObject({ code: 2, out: "", err: expect.stringContaining("add --yes") });
  expect(existsSync(data("journal"))).toBe(true);
});

test("its help says that --wait has no end of its own", async () => {
  expect((await kv(["recover", "--help"])).out).toContain("--wait waits for ever unless --timeout is given");
});

test("refuses the configuration of another replica", async () => {
  const { code, err } = await recover("--yes", "--config", folder.in("c/replica-2/node.yaml"));
  expect(code).toBe(2);
  expect(err).toMatch(/is of replica 2, not of replica 1/);
});

test("refuses while the replica answers, and with --wait waits until it votes", async () => {
  await answering({ 1: "voting" });
  expect(await recover("--yes")).toMatchObject({
    code: 2,
    err: "kv: replica 1 is running (pid 77); stop it first, then run this again\n",
  });
  expect(existsSync(data("journal"))).toBe(true);
  await silence(1);
  const waited = await recover("--yes", "--wait", "--timeout", "600ms");
  expect(waited).toMatchObject({ code: 3, err: expect.stringContaining("replica 1 does not vote yet: waiting") });
});

describe("the others must be a quorum without it", () => {
  const short = "the others are no quorum without replica 1: 2 of 3 vote, 3 are needed (replica 3: forgotten)";

  test("with --yes it is refused while they say that they are none, unless --force is given", async () => {
    await answering({ 0: "voting", 2: "voting", 3: "forgotten" });
    const refused = await recover("--yes");
    expect(refused).toEqual({ code: 3, out: "", err: `kv: ${short}; bring them back first, or add --force\n` });
    expect(existsSync(data("journal"))).toBe(true);
    expect(await recover("--yes", "--force")).toMatchObject({ code: 0, err: `kv: warning: ${short}\n` });
  });

  test("in a view that is not known here nobody can tell: with --yes it is refused, unless --force is given", async () => {
    await answering({ 0: "voting", 2: "voting", 3: "voting" }, 2);
    const unknown =
      "the others are in view 2, and only view 0 is known here: it cannot be told whether they are a quorum without replica 1";
    const refused = await recover("--yes");
    const remedy = "name a cluster file with its .views beside it (--cluster), or add --force";
    expect(refused).toEqual({ code: 3, out: "", err: `kv: ${unknown}; ${remedy}\n` });
    expect(existsSync(data("journal"))).toBe(true);
    expect(await recover("--yes", "--force")).toMatchObject({ code: 0, err: `kv: warning: ${unknown}\n` });
  });

  test("on a terminal it is said before the question", async () => {
    await answering({ 0: "voting", 2: "voting", 3: "forgotten" });
    const asked = (stdin: string) =>
      kv(["recover", "--replica", "1", "--cluster", folder.in("c/cluster.json")], { stdin, terminal: true });
    const { code, err } = await asked("n\n");
    expect([code, err.startsWith(`kv: warning: ${short}\n`)]).toEqual([2, true]);
    expect(err).toMatch(/fetch everything anew all the same\? \(y\/N\)/);
    expect(existsSync(data("journal"))).toBe(true);
    expect((await asked("y\n")).code).toBe(0);
  });

  test("admin ports that cannot be reached prove nothing: a warning", async () => {
    await answering({ 2: "voting", 3: "voting" });
    const { code, err } = await recover("--yes");
    expect({ code, err }).toEqual({
      code: 0,
      err: "kv: warning: it cannot be told from here whether the others are a quorum without replica 1: 2 of 3 vote, 3 are needed (replica 0: not running)\n",
    });
  });
});

test("refuses while another process has LevelDB open, and touches nothing", async () => {
  folder.remove();
  mkdirSync(folder.path);
  await kv(["init", "--dir", folder.in("c"), "--base-port", "47100"]);
  const code = `import { Level } from "level"; const db = new Level(process.argv[1]); await db.open(); console.log("open"); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code, data("journal")], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    await once(child.stdout, "data");
    const { code: exit, err } = await recover("--yes");
    expect(exit).toBe(2);
    expect(err).toMatch(/a running server has .*journal open; stop it first/);
    expect(existsSync(data("journal"))).toBe(true);
  } finally {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  expect((await recover("--yes")).code).toBe(0);
  expect(readdirSync(data()).sort()).toEqual(["aside", "founding.json"]);
});
