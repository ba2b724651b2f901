/** `kv recover`: nothing is deleted, nothing moves under a running server, nobody is surprised. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { clusterFileText, parseClusterFile } from "../../../protocol/cluster.ts";
import { kv, temporaryFolder } from "./streams.ts";

let folder: ReturnType<typeof temporaryFolder>;
const data = (name = ""): string => folder.in(`c/replica-1/data/${name}`);

beforeEach(async () => {
  folder = temporaryFolder();
  await kv(["init", "--dir", folder.in("c"), "--base-port", "47100"]);
  for (const store of ["journal", "state"]) {
    mkdirSync(data(store));
    writeFileSync(data(`${store}/CURRENT`), store);
    writeFileSync(data(`${store}/LOCK`), "");
  }
});
afterEach(() => folder.remove());

const recover = (...flags: string[]) =>
  kv(["recover", "--replica", "1", "--cluster", folder.in("c/cluster.json"), ...flags]);

test("moves the stores aside, every time to a new place, and says how to go on", async () => {
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
  const path = folder.in("c/cluster.json");
  const file = parseClusterFile(readFileSync(path, "utf8"), path);
  const cluster = file.clusterId;
  let state = "voting";
  const server = createServer((_, response) => {
    const place = { view: 0, regency: 0, leader: 0, decided: 1, executed: 1, revision: "1", historyDigest: "" };
    response.end(JSON.stringify({ replica: 1, cluster, ...place, state, pid: 77 }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    for (const member of file.members) if (member.id === 1) member.adminPort = (server.address() as AddressInfo).port;
    writeFileSync(path, clusterFileText(file));
    const running = await recover("--yes");
    expect(running).toMatchObject({
      code: 2,
      err: "kv: replica 1 is running (pid 77); stop it first, then run this again\n",
    });
    expect(existsSync(data("journal"))).toBe(true);
    state = "transferring";
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  const waited = await recover("--yes", "--wait", "--timeout", "600ms");
  expect(waited).toMatchObject({ code: 3, err: expect.stringContaining("replica 1 does not vote yet: waiting") });
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
