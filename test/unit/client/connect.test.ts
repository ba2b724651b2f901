/** `connect()` on Node: real WebSockets, files, faults while connecting. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { connect as connectBrowser } from "../../../client/browser.ts";
import { systemClock } from "../../../client/clock.ts";
import { connect, newIdentity } from "../../../client/connect.ts";
import { SessionNumbers } from "../../../client/session-numbers.ts";
import { CLOSE_CODES } from "../../../protocol/client-frames.ts";
import { type ClusterFile, clusterFileText } from "../../../protocol/cluster.ts";
import { keyFileText } from "../../../protocol/identity.ts";
import { FakeClock, FakeCluster } from "./fake-replicas.ts";
import { answerOf, errorOf, opened } from "./fixture.ts";

/** A poll gives up after a second, which a busy machine may need. */
const PATIENT = { timeout: 20_000 };

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Real gateways' sockets in front of fake replicas. `sockets` counts those open. */
async function listening(options: { only?: readonly number[] } = {}) {
  const cluster = new FakeCluster({ clock: systemClock() });
  const state = { sockets: 0 };
  const members = [];
  for (const [at, member] of cluster.file.members.entries()) {
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as AddressInfo;
    const close = () => {
      for (const socket of server.clients) socket.terminate();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    };
    if (options.only && !options.only.includes(at)) await close();
    else cleanups.push(close);
    server.on("connection", (socket) => {
      state.sockets++;
      const channel = cluster.open(cluster.replica(at).member, {
        onFrame: (bytes) => socket.send(bytes),
        onClosed: ({ code }) => socket.close(code === 0 || code === 1006 ? 1011 : code),
      });
      socket.on("message", (data) => channel.send(data as Buffer));
      socket.on("close", () => {
        state.sockets--;
        channel.close();
      });
    });
    members.push({ ...member, clientPort: port });
  }
  const file: ClusterFile = { ...cluster.file, members };
  return { cluster, file, state };
}

function files(file: ClusterFile | string, key: string, mode = 0o600): string {
  const directory = mkdtempSync(join(tmpdir(), "quorate-client-"));
  cleanups.push(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, "cluster.json");
  writeFileSync(path, typeof file === "string" ? file : clusterFileText(file));
  writeFileSync(join(directory, "client.key"), key);
  chmodSync(join(directory, "client.key"), mode);
  return path;
}

const clientKey = () => keyFileText("client", newIdentity());

describe("over WebSockets", () => {
  test("put, get, range; a replica lost and found; nothing left after close", async () => {
    const { cluster, file, state } = await listening();
    // `fake.cluster` names other ports than the file, so its view digest differs: replies only name the view's id.
    const kv = await connect({ cluster: files(file, clientKey()) });
    await kv.put("greeting", "hello", { ifAbsent: true });
    const value = "x".repeat(200_000);
    await Promise.all([kv.put("large", value), kv.put("small", "1")]);
    expect((await kv.get("large"))?.value).toBe(value);
    cluster.disconnect(cluster.replica(1));
    await kv.put("greeting", "again");
    expect(cluster.faults).toEqual([]);
    const keys: string[] = [];
    for await (const { key } of kv.range()) keys.push(key);
    expect(keys).toEqual(["greeting", "large", "small"]);
    expect(kv.replicas().filter(({ connected }) => connected).length).toBeGreaterThanOrEqual(3);
    await kv.close();
    await expect.poll(() => state.sockets, PATIENT).toBe(0);
  });

  test("the browser's transport does the same on a global WebSocket", async () => {
    const { cluster, file, state } = await listening();
    vi.stubGlobal("WebSocket", WebSocket);
    cleanups.push(() => {
      vi.unstubAllGlobals();
    });
    const kv = await connectBrowser({ cluster: file, identity: newIdentity() });
    const value = "x".repeat(100_000);
    await kv.put("large", value);
    expect((await kv.get("large"))?.value).toBe(value);
    expect(cluster.faults).toEqual([]);
    await kv.close();
    await expect.poll(() => state.sockets, PATIENT).toBe(0);
  });

  test("one replica down is no obstacle, two are: the message names them", async () => {
    const three = await listening({ only: [0, 1, 2] });
    const kv = await connect({ cluster: three.file, identity: newIdentity() });
    await kv.put("a", "1");
    await kv.close();
    const two = await listening({ only: [0, 3] });
    const error = await connect({ cluster: two.file, identity: newIdentity(), timeoutMs: 3_000 }).catch(
      (thrown) => thrown,
    );
    expect(error).toMatchObject({ code: "QUORUM_UNAVAILABLE", detail: { have: 2, need: 3 } });
    expect(error.message).toMatch(/replica 1 .*replica 2 /);
    await expect.poll(() => two.state.sockets, PATIENT).toBe(0);
  });
});

describe("configuration", () => {
  test.each([
    ["CONFIG_MISSING", () => "/nonexistent/cluster.json"],
    ["CONFIG_INVALID", () => files("{", clientKey())],
    ["CONFIG_INVALID", () => files('{"format":1}', clientKey())],
    ["KEY_FILE_INVALID", () => files(new FakeCluster({ clock: new FakeClock() }).file, "nonsense")],
    [
      "KEY_FILE_INVALID",
      () => files(new FakeCluster({ clock: new FakeClock() }).file, keyFileText("replica", newIdentity())),
    ],
    ["KEY_FILE_PERMISSIONS", () => files(new FakeCluster({ clock: new FakeClock() }).file, clientKey(), 0o644)],
  ])("%s", async (code, path) => {
    await expect(connect({ cluster: path() })).rejects.toMatchObject({ code });
  });

  test("a missing key file, missing keys, a wrong time-out", async () => {
    const { file } = new FakeCluster({ clock: new FakeClock() });
    const path = files(file, clientKey());
    await expect(connect({ cluster: path, identity: "/nonexistent" })).rejects.toMatchObject({
      code: "KEY_FILE_UNREADABLE",
    });
    await expect(connect({ cluster: file })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    const identity = newIdentity();
    await expect(connect({ cluster: file, identity, timeoutMs: 0 })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });
});

describe("the handshake", () => {
  test("waits for a quorum, connects the others in the background, retries with back-off", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    for (const id of [2, 3]) cluster.replica(id).down = true;
    const opening = opened(cluster, clock, { timeoutMs: 5_000 });
    await clock.advance(1_000);
    cluster.replica(2).down = false;
    const kv = await answerOf(clock, opening, 4_000);
    expect(kv.replicas().map(({ connected }) => connected)).toEqual([true, true, true, false]);
    cluster.replica(3).down = false;
    await clock.advance(5_000);
    expect(kv.replicas().map(({ connected }) => connected)).toEqual([true, true, true, true]);
    await answerOf(clock, kv.close());
  });

  test("CLUSTER_MISMATCH at once when replicas belong to another cluster or are others; one such replica is no obstacle", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    cluster.replica(0).hello = { cluster: "\x01".repeat(32) };
    const kv = await answerOf(clock, opened(cluster, clock));
    expect(kv.replicas()[0]?.fault).toMatchObject({ code: "CLUSTER_MISMATCH" });
    await answerOf(clock, kv.close());
    cluster.replica(1).hello = { replica: 2 };
    expect(await errorOf(clock, opened(cluster, clock))).toMatchObject({ code: "CLUSTER_MISMATCH" });
    expect(cluster.openChannels).toBe(0);
    expect(clock.timers).toBe(0);
  });

  test("REFUSED at once when this identity may not be a client", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    for (const id of [1, 3]) cluster.replica(id).closeCode = CLOSE_CODES.NOT_A_CLIENT;
    const error = await errorOf(clock, opened(cluster, clock));
    expect(error).toMatchObject({ code: "REFUSED" });
    expect(String(error)).toMatch(/may not be a client.*; ask an administrator .*: kv client grant$/);
  });

  test("what to do is said also when not enough replicas have turned this identity away yet", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    cluster.replica(1).closeCode = CLOSE_CODES.NOT_A_CLIENT;
    for (const id of [0, 2]) cluster.replica(id).down = true;
    const error = await errorOf(clock, opened(cluster, clock, { timeoutMs: 1_000 }), 1_000);
    expect(error).toMatchObject({ code: "QUORUM_UNAVAILABLE", message: expect.stringMatching(/: kv client grant$/) });
    cluster.replica(1).closeCode = null;
    cluster.replica(1).down = true;
    const down = await errorOf(clock, opened(cluster, clock, { timeoutMs: 1_000 }), 1_000);
    expect(String(down)).not.toContain("kv client grant");
  });

  test("an abort ends connecting and leaves nothing open", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    for (const replica of cluster.replicas) replica.down = true;
    const controller = new AbortController();
    const opening = opened(cluster, clock, { signal: controller.signal });
    controller.abort();
    expect(await errorOf(clock, opening)).toMatchObject({ code: "ABORTED" });
    expect([cluster.openChannels, clock.timers]).toEqual([0, 0]);
  });

  test("garbage from a replica is counted and closes its connection only", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    const kv = await answerOf(clock, opened(cluster, clock));
    for (const garbage of [new Uint8Array(0), new Uint8Array([3, 1, 2]), new Uint8Array(300).fill(255)]) {
      cluster.inject(cluster.replica(2), garbage);
      await clock.advance(6_000);
    }
    expect(kv.replicas()[2]).toMatchObject({ connected: true, faults: 3 });
    expect(kv.replicas()[1]).toMatchObject({ connected: true, faults: 0 });
    await answerOf(clock, kv.put("a", "1"));
    await answerOf(clock, kv.close());
  });
});

describe("session numbers", () => {
  test("microseconds since 1970, ten random bits, above every earlier one and above the floor", () => {
    const clock = new FakeClock();
    const numbers = new SessionNumbers();
    const first = numbers.next(clock);
    expect(Number.isSafeInteger(first)).toBe(true);
    expect(Math.abs(first - clock.wallMs() * 1_000)).toBeLessThan(2_048);
    let last = first;
    const lows = new Set<number>();
    for (let at = 0; at < 50; at++) {
      clock.now += 10;
      const next = numbers.next(clock);
      expect(next).toBeGreaterThan(last);
      lows.add(next % 1_024);
      last = next;
    }
    expect(lows.size).toBeGreaterThan(20);
    clock.now -= 400;
    expect(numbers.next(clock)).toBe(last + 1);
    expect(numbers.next(clock, last + 1_000_000)).toBe(last + 1_000_001);
  });
});
