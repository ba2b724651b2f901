/** `kv status`: what replicas say is shown, what they should not say is contained. */

import { writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { statusJson, statusTable } from "../../../cli/commands/status.ts";
import { addressesOf, firstTaken } from "../../../cli/local/ports.ts";
import { writeCluster } from "../../../cli/local/write-cluster.ts";
import { adminUrl, askReplicas } from "../../../cli/replica-status.ts";
import { type ClusterFile, clusterFileText } from "../../../protocol/cluster.ts";
import { kv, temporaryFolder } from "./streams.ts";

type Answer = (replica: number) => { code?: number; body: string } | "silence";

let folder: ReturnType<typeof temporaryFolder>;
let servers: Server[];
let file: ClusterFile;
let answer: Answer;

const good = (replica: number, extra: object = {}): { body: string } => ({
  body: JSON.stringify({
    replica,
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

const status = (...flags: string[]) => kv(["status", "--cluster", folder.in("c/cluster.json"), ...flags]);

describe("kv status", () => {
  test("a line of sizes, then a row per replica with its lag", async () => {
    const { code, out, err } = await status();
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const lines = out.trimEnd().split("\n");
    expect(lines[0]).toBe("n=4 f=1 quorum=3 reachable=4");
    expect(lines[1]?.split(/ +/)).toEqual(
      "REPLICA REACHABLE VIEW REGENCY LEADER DECIDED EXECUTED REVISION LAG STATE".split(" "),
    );
    expect(lines[5]?.split(/ +/)).toEqual(["3", "yes", "0", "0", "0", "12", "9", "9007199254740991", "3", "voting"]);
  });

  test("json keeps its shape", async () => {
    const { out } = await status("-o", "json");
    const parsed = JSON.parse(out);
    expect(Object.keys(parsed)).toEqual(["n", "f", "quorum", "reachable", "replicas"]);
    expect(parsed.replicas[1]).toMatchObject({ replica: 1, reachable: true, lag: 1, revision: "9007199254740991" });
  });

  test("one down is fine, two are no quorum: exit 3", async () => {
    answer = (replica) => (replica === 3 ? { code: 503, body: "" } : good(replica));
    const one = await status();
    expect(one.code).toBe(0);
    expect(one.out).toMatch(/3 +no .*HTTP 503/);
    answer = (replica) => (replica >= 2 ? "silence" : good(replica));
    const two = await status("--timeout", "200ms");
    expect(two.code).toBe(3);
    expect(two.out).toMatch(/2 +no .*no answer in time/);
    expect(two.err).toBe("kv: no quorum: 2 of 4 replicas answer, 3 are needed\n");
  });

  test("a replica that is not there, or answers for another one", async () => {
    servers[0]?.closeAllConnections();
    await new Promise((resolve) => servers[0]?.close(resolve));
    answer = () => good(1);
    const answers = await askReplicas(file, 2_000);
    expect(answers.map(({ problem }) => problem)).toEqual(["not running", null, "is replica 1", "is replica 1"]);
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

test("the forms of a cluster nobody answers for", () => {
  const replicas = [{ replica: 0, host: "h", adminPort: 1, status: null, problem: "not running" }];
  const cluster = { n: 1, f: 0, quorum: 1, reachable: 0, replicas };
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
  });
});
