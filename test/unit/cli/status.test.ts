/** `kv status`: what replicas say is shown, what they should not say is contained. */

import { writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { addressesOf, firstTaken } from "../../../cli/local/ports.ts";
import { writeCluster } from "../../../cli/local/write-cluster.ts";
import { adminUrl, askReplicas } from "../../../cli/replica-status.ts";
import { statusJson, statusTable } from "../../../cli/status-text.ts";
import { type ClusterFile, clusterFileText } from "../../../protocol/cluster.ts";
import { kv, temporaryFolder } from "./streams.ts";

const MIB = 1024 * 1024;

type Answer = (replica: number) => { code?: number; body: string } | "silence";

let folder: ReturnType<typeof temporaryFolder>;
let servers: Server[];
let file: ClusterFile;
let answer: Answer;

const good = (replica: number, extra: object = {}): { body: string } => ({
  body: JSON.stringify({
    replica,
    cluster: file.clusterId,
    view: 0,
    regency: 0,
    leader: 0,
    decided: 12,
    executed: 12 - replica,
    revision: "9007199254740991",
    historyDigest: "ab".repeat(32),
    state: "voting",
    pid: 1,
    peers: [],
    ...extra,
  }),
});

beforeEach(async () => {
  folder = temporaryFolder();
  servers = [];
  answer = (replica) => good(replica);
  const directory = folder.in("c");
  const clients = "open";
  file = await writeCluster({
    directory,
    replicas: 4,
    hosts: ["127.0.0.1"],
    basePort: 7_000,
    clients,
    signedRequests: false,
  });
  for (const member of file.members) {
    const server = createServer((_, response) => {
      const answered = answer(member.id);
      if (answered !== "silence") response.writeHead(answered.code ?? 200).end(answered.body);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    servers.push(server);
    member.adminPort = (server.address() as AddressInfo).port;
  }
  writeFileSync(folder.in("c/cluster.json"), clusterFileText(file));
});

afterEach(async () => {
  for (const server of servers) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  folder.remove();
});

/** With time for every answer that comes. */
const status = (...flags: string[]) =>
  kv(["status", "--cluster", folder.in("c/cluster.json"), "--timeout", "20s", ...flags]);

describe("kv status", () => {
  test("a line of sizes, then a row per replica with its lag", async () => {
    const { code, out, err } = await status();
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const lines = out.trimEnd().split("\n");
    expect(lines[0]).toBe("n=4 f=1 quorum=3 reachable=4 mode=bft");
    expect(lines[1]?.split(/ +/)).toEqual(
      "REPLICA REACHABLE VIEW REGENCY LEADER DECIDED EXECUTED REVISION LAG STATE".split(" "),
    );
    expect(lines[5]?.split(/ +/)).toEqual(["3", "yes", "0", "0", "0", "12", "9", "9007199254740991", "3", "voting"]);
  });

  test("where leaders take turns: the model, who leads up to where, and who failed last", async () => {
    const malicious: ClusterFile = { ...file, faultModel: "malicious", rotation: 5, signedRequests: true };
    writeFileSync(folder.in("c/cluster.json"), clusterFileText(malicious));
    answer = (replica) => good(replica, { leader: 2, onProbation: [0, 3], decided: replica === 1 ? 13 : 12 });
    const { out } = await status();
    expect(out).toMatch(/^n=4 f=1 quorum=3 reachable=4 mode=bft fault-model=malicious rotation=5\n/);
    expect(out).toMatch(/\nreplica 2 leads up to instance 14; on probation: 0,3\n$/);
    answer = (replica) => good(replica, { leader: 3, onProbation: [], decided: 14 });
    expect((await status()).out).toMatch(/\nreplica 3 leads up to instance 19\n$/);
    expect(JSON.parse((await status("-o", "json")).out)).toMatchObject({
      rotation: 5,
      replicas: [{ onProbation: [] }, {}, {}, {}],
    });
  });

  test("json keeps its shape", async () => {
    const { out } = await status("-o", "json");
    const parsed = JSON.parse(out);
    expect(Object.keys(parsed)).toEqual(["mode", "n", "f", "quorum", "rotation", "reachable", "replicas"]);
    expect(parsed.replicas[1]).toMatchObject({ replica: 1, reachable: true, lag: 1, revision: "9007199254740991" });
  });

  test("one down is fine, two are no quorum: exit 3", async () => {
    answer = (replica) => (replica === 3 ? { code: 503, body: "" } : good(replica));
    const one = await status();
    expect(one.code).toBe(0);
    expect(one.out).toMatch(/3 +no .*HTTP 503/);
    answer = (replica) => (replica >= 2 ? "silence" : good(replica));
    const two = await status("--timeout", "2s");
    expect(two.code).toBe(3);
    expect(two.out).toMatch(/2 +no .*no answer in time/);
    expect(two.err).toBe("kv: no quorum: 2 of 4 replicas answer, 3 are needed\n");
  });

  test("a replica that is not there, or answers for another one", async () => {
    servers[0]?.closeAllConnections();
    await new Promise((resolve) => servers[0]?.close(resolve));
    answer = () => good(1);
    const answers = await askReplicas(file, 20_000);
    expect(answers.map(({ problem }) => problem)).toEqual(["not running", null, "is replica 1", "is replica 1"]);
  });

  test("replicas of another cluster on the same ports are none of this one's: exit 3", async () => {
    answer = (replica) => good(replica, replica === 0 ? {} : { cluster: "ab".repeat(32) });
    const { code, out, err } = await status();
    expect({ code, err }).toEqual({ code: 3, err: "kv: no quorum: 1 of 4 replicas answer, 3 are needed\n" });
    expect(out).toMatch(/^n=4 f=1 quorum=3 reachable=1 /);
    expect(out).toMatch(/\n3 +no .* belongs to another cluster\n/);
    expect(JSON.parse((await status("-o", "json")).out).replicas[1]).toEqual({
      replica: 1,
      reachable: false,
      state: "belongs to another cluster",
    });
  });

  test("lies in shape and terminal tricks are contained", async () => {
    const bodies = [
      "not json",
      JSON.stringify({ replica: 1, view: "0" }),
      `"${"x".repeat(2_000_000)}"`,
      good(3, { state: "\u001b[2Jgone\n" }).body,
    ];
    answer = (replica) => ({ body: bodies[replica] ?? "" });
    const { code, out } = await status();
    expect(code).toBe(3);
    expect(out).not.toContain("\u001b");
    expect(out).toMatch(/0 +no .*answers something else/);
    expect(out).toMatch(/2 +no .*answers too much/);
    expect(out).toContain("\\x1b[2Jgone\\n");
  });
});

describe("a replica that recovers", () => {
  const recovering = {
    state: "transferring",
    recovery: {
      phase: "checkpoint",
      donor: 1,
      sources: [0, 2],
      instance: 500,
      bytes: 43 * 1024 * 1024,
      bytesTotal: 100 * 1024 * 1024,
      bytesPerSecond: 3.5 * 1024 * 1024,
      secondsLeft: 16.3,
      startedMs: 1,
    },
    alarms: [{ code: "ROOT_MISMATCH", detail: "replica 2\u001b[2J", sinceMs: Date.now() }],
    checkpoints: {
      newest: { instance: 480, root: "ab".repeat(32), bytes: 9, chunks: 1 },
      computing: true,
      period: 100,
    },
    log: { first: 401, last: 512, bytes: 1_000 },
    disk: { journalBytes: 1 * MIB, stateBytes: 2 * MIB, stagingBytes: 4 * MIB, asideBytes: 8 * MIB, low: true },
  };
  const progress =
    "replica 3: checkpoint · 43% · 43.0 MiB of 100.0 MiB · 3.5 MiB/s · 16.3 s left · instance 500 · checkpoint from 1 · log from 0,2";

  beforeEach(() => {
    answer = (replica) => good(replica, replica === 3 ? recovering : {});
  });

  test("its state, progress and alarms; more columns with -o table", async () => {
    const { out } = await status();
    expect(out).toMatch(/\n3 .* transferring 43%\n/);
    expect(out).toContain(`\n${progress}\n`);
    expect(out).toMatch(/\nreplica 3: ALARM ROOT_MISMATCH: replica 2\\x1b\[2J \(for [^)]+\)\n$/);
    const wide = (await status("-o", "table")).out.split("\n");
    expect(wide[1]).toMatch(/LAG +CHECKPOINT +LOG +DISK +STATE$/);
    expect(wide[5]).toMatch(/ 480\+ +401-512 +15\.0 MiB low +transferring 43%$/);
    expect(wide[2]).toMatch(/ - +- +- +voting$/);
    const { replicas } = JSON.parse((await status("-o", "json")).out);
    expect(replicas[3]).toMatchObject(recovering);
    expect(replicas[0]).not.toHaveProperty("recovery");
  });

  test("--watch: lines in a log, a redrawn table on a terminal, then an end", async () => {
    const watch = [
      "status",
      "--cluster",
      folder.in("c/cluster.json"),
      "--watch",
      "--interval",
      "100ms",
      "--count",
      "2",
    ];
    const log = await kv(watch);
    expect(log).toMatchObject({ code: 0, err: "" });
    const lines = log.out.trimEnd().split("\n");
    expect(lines).toHaveLength(10);
    expect(lines[0]).toMatch(/^\d{4}-\S+Z replica 0: voting · executed 12 · lag 0$/);
    expect(lines[8]).toContain(progress.replace("replica 3: ", " · "));
    const drawn = await kv(watch, { terminal: true });
    expect(drawn.out.split("\x1b[H\x1b[J")).toHaveLength(3);
    expect(
      (await kv([...watch, "-o", "json"])).out
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line).n),
    ).toEqual([4, 4]);
    answer = () => "silence";
    const dead = await kv([...watch, "--timeout", "50ms"]);
    expect(dead).toMatchObject({ code: 3, err: "kv: no quorum: 0 of 4 replicas answer, 3 are needed\n" });
  });

  test("--watch ends with 0 on Ctrl-C, and leaves no listener", async () => {
    const before = process.listenerCount("SIGINT");
    const running = status("--watch", "--interval", "1h");
    await vi.waitFor(() => expect(process.listenerCount("SIGINT")).toBe(before + 1), { timeout: 20_000 });
    process.emit("SIGINT");
    expect((await running).code).toBe(0);
    expect(process.listenerCount("SIGINT")).toBe(before);
  });

  test("what belongs to --watch is refused without it", async () => {
    expect(await status("--count", "2")).toMatchObject({ code: 2, out: "" });
    expect(await status("--watch", "--interval", "10ms")).toMatchObject({
      code: 2,
      err: expect.stringContaining("at least 100ms"),
    });
  });
});

test("the forms of a cluster nobody answers for", () => {
  const replicas = [{ replica: 0, host: "h", adminPort: 1, status: null, problem: "not running" }];
  const cluster = { mode: "bft" as const, n: 1, f: 0, quorum: 1, rotation: 0, reachable: 0, replicas };
  expect(statusTable(cluster)).toContain("not running\n");
  expect(JSON.parse(statusJson(cluster)).replicas).toEqual([{ replica: 0, reachable: false, state: "not running" }]);
});

test("admin addresses of IPv6 hosts are bracketed", () => {
  expect(adminUrl({ host: "::1", adminPort: 7002 }, "/status")).toBe("http://[::1]:7002/status");
});

describe("ports", () => {
  test("the first taken one is named", async () => {
    const [member] = file.members;
    const taken = { host: "127.0.0.1", port: member?.adminPort ?? 0 };
    expect(await firstTaken([{ host: "127.0.0.1", port: 0 }, taken])).toEqual({ ...taken, code: "EADDRINUSE" });
    expect(await firstTaken([{ host: "127.0.0.1", port: 0 }])).toBeNull();
    expect(addressesOf(file)).toHaveLength(12);
  });

  test("kv dev says so at once, and starts nothing", async () => {
    const { code, err } = await kv(["dev", "--dir", folder.in("c")]);
    expect(code).toBe(2);
    expect(err).toMatch(/^kv: port \d+ of 127\.0\.0\.1 is in use; [^\n]+\n$/);
  });

  test("kv dev keeps an existing cluster's size", async () => {
    const { code, err } = await kv(["dev", "--dir", folder.in("c"), "--replicas", "7"]);
    expect(code).toBe(2);
    expect(err).toMatch(/holds a cluster of 4 replicas, not 7/);
    const other = await kv(["dev", "--dir", folder.in("c"), "--fault-model", "malicious"]);
    expect(other.code).toBe(2);
    expect(other.err).toMatch(/holds a cluster of the plain fault model/);
  });
});
