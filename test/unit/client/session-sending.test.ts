/** Numbering, bundling, sending and resending (docs/protocol.md section 3), against fake replicas in fake time. */
import { describe, expect, test } from "vitest";
import { ConflictError, UnknownOutcomeError } from "../../../client/errors.ts";
import { EVERYBODY } from "../../../protocol/request.ts";
import { behaviours } from "./fake-replicas.ts";
import { answerOf, connected, errorOf } from "./fixture.ts";
import { ordered, requestsOf } from "./received.ts";

describe("sending", () => {
  test("a request goes to every replica, with authenticators that all of them accept", async () => {
    const { clock, cluster, kv } = await connected();
    expect(await answerOf(clock, kv.put("a", "1"))).toEqual({ revision: 1n, createRevision: 1n, version: 1n });
    for (const { received } of cluster.replicas) expect(received).toHaveLength(1);
    expect(cluster.faults).toEqual([]);
    expect(cluster.executed).toHaveLength(1);
  });

  test("what is issued in one turn travels in one request, reads and writes apart", async () => {
    const { clock, cluster, kv } = await connected();
    const writes = Array.from({ length: 50 }, (_, at) => kv.put(`k${at}`, "v"));
    const reads = Array.from({ length: 30 }, (_, at) => kv.get(`k${at}`));
    const orderedReads = Array.from({ length: 20 }, (_, at) => kv.get(`k${at}`, { ordered: true }));
    const [written] = await answerOf(
      clock,
      Promise.all([Promise.all(writes), Promise.all(reads), Promise.all(orderedReads)]),
    );
    expect(new Set(written.map(({ revision }) => revision)).size).toBe(50);
    const shapes = requestsOf(cluster).map(({ request }) => `${request.kind} ${request.commands.length}`);
    expect(shapes.sort()).toEqual(["ordered 20", "ordered 50", "unordered 30"]);
  });

  test("a bundle is bounded by count and by bytes, and by one deadline", async () => {
    const { clock, cluster, kv } = await connected();
    const many = Array.from({ length: 2_500 }, (_, at) => kv.put(`k${at}`, ""));
    await answerOf(clock, Promise.all(many));
    expect(ordered(cluster).map(({ request }) => request.commands.length)).toEqual([1024, 1024, 452]);
    const large = Array.from({ length: 5 }, (_, at) => kv.put(`l${at}`, "x".repeat(400_000)));
    await answerOf(clock, Promise.all(large));
    expect(
      ordered(cluster)
        .slice(3)
        .map(({ request }) => request.commands.length),
    ).toEqual([2, 2, 1]);
    const deadlineMs = clock.wallMs() + 10_000;
    await answerOf(
      clock,
      Promise.all([kv.put("a", ""), kv.put("b", "", { deadlineMs }), kv.put("c", "", { deadlineMs })]),
    );
    expect(
      ordered(cluster)
        .slice(6)
        .map(({ request }) => [request.deadlineMs, request.commands.length]),
    ).toEqual([
      [0, 1],
      [deadlineMs, 2],
    ]);
  });

  test("at most 64 requests are in flight; what comes after waits and is bundled", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.paused = true;
    const puts: Promise<unknown>[] = [];
    for (let at = 0; at < 100; at++) {
      puts.push(kv.put(`k${at}`, ""));
      await clock.settle();
    }
    expect(ordered(cluster)).toHaveLength(64);
    cluster.resume();
    await answerOf(clock, Promise.all(puts));
    expect(ordered(cluster)).toHaveLength(65);
    expect(ordered(cluster).at(-1)?.request.commands).toHaveLength(36);
  });

  test("keys travel until a quorum executed a request, and with every resend", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    cluster.paused = true;
    const second = kv.put("a", "2");
    await clock.advance(300);
    cluster.resume();
    await answerOf(clock, second);
    const envelopes = cluster
      .replica(0)
      .received.map(({ envelope }) => [envelope.keys !== null, envelope.replier === EVERYBODY]);
    expect(envelopes).toEqual([
      [true, false],
      [false, false],
      [true, true],
    ]);
  });

  test("the replica that sends large results rotates over the connected ones", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.replica(2).down = true;
    cluster.disconnect(cluster.replica(2));
    const repliers: number[] = [];
    for (let at = 0; at < 6; at++) {
      await answerOf(clock, kv.put("a", ""));
      repliers.push(cluster.replica(0).received.at(-1)?.envelope.replier ?? -1);
    }
    expect(new Set(repliers)).toEqual(new Set([0, 1, 3]));
  });

  test("without a quorum connected nothing is sent, so a write that times out was surely not executed", async () => {
    const { clock, cluster, kv } = await connected();
    for (const id of [1, 2]) {
      cluster.replica(id).down = true;
      cluster.disconnect(cluster.replica(id));
    }
    const error = await errorOf(clock, kv.put("a", "1", { timeoutMs: 1_000 }), 1_100);
    expect(error).not.toBeInstanceOf(UnknownOutcomeError);
    expect(error).toMatchObject({ code: "QUORUM_UNAVAILABLE", detail: { have: 2, need: 3, outcome: "not-sent" } });
    expect(cluster.replica(0).received).toHaveLength(0);
    for (const id of [1, 2]) cluster.replica(id).down = false;
    await answerOf(clock, kv.put("a", "2", { timeoutMs: 20_000 }), 12_000);
    expect(cluster.executed).toHaveLength(1);
  });
});

describe("resending", () => {
  test("from 200 ms on, with growing pauses, the same bytes each time", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.paused = true;
    const put = kv.put("a", "1", { timeoutMs: 60_000 });
    const times: number[] = [];
    let seen = 0;
    for (let at = 0; at < 400; at++) {
      await clock.advance(50);
      const count = cluster.replica(0).received.length;
      if (count > seen) times.push(at * 50);
      seen = count;
    }
    expect(seen).toBeGreaterThan(5);
    expect(seen).toBeLessThan(16);
    const pauses = times.slice(1).map((time, at) => time - (times[at] ?? 0));
    expect(pauses[0]).toBeLessThan(400);
    expect(Math.max(...pauses)).toBeLessThanOrEqual(6_300);
    expect(new Set(cluster.replica(0).received.map(({ request }) => request.digest)).size).toBe(1);
    cluster.resume();
    await answerOf(clock, put);
    expect(cluster.executed).toHaveLength(1);
  });

  test("a replica that comes back gets what is in flight", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.replica(0).behaviour = behaviours.silent;
    const put = kv.put("a", "1");
    cluster.disconnect(cluster.replica(1));
    await clock.settle();
    await answerOf(clock, put, 190);
    expect(cluster.replica(1).received.length).toBeGreaterThan(0);
  });

  test("late replies to a finished request are dropped", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.replica(3).behaviour = behaviours.delayed(500);
    await answerOf(clock, kv.put("a", "1"));
    cluster.replica(3).behaviour = (honest) => ({ ...honest, corruptMac: true, delayMs: 50 });
    await answerOf(clock, kv.put("a", "2"));
    await clock.advance(1_000);
    expect(kv.replicas()[3]?.faults).toBe(0);
  });
});

describe("closing", () => {
  test("pending calls are rejected, sent writes as unknown; no channel and no timer is left", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.paused = true;
    const sent = kv.put("a", "1");
    await clock.settle();
    const queued = kv.put("b", "1");
    const closing = kv.close();
    expect(await errorOf(clock, sent)).toMatchObject({ code: "CLOSED", outcome: "unknown" });
    expect(await errorOf(clock, queued)).toMatchObject({ code: "CLOSED", detail: { outcome: "not-sent" } });
    await answerOf(clock, closing);
    await answerOf(clock, kv.close());
    expect(await errorOf(clock, kv.get("a"))).toMatchObject({ code: "CLOSED" });
    expect(cluster.openChannels).toBe(0);
    expect(clock.timers).toBe(0);
  });

  test("an idle client has no timer", async () => {
    const { clock, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    await clock.advance(100);
    expect(clock.timers).toBe(0);
    await answerOf(clock, kv[Symbol.asyncDispose]());
  });

  test("ConflictError carries the current revision", async () => {
    const { clock, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    const error = await errorOf(clock, kv.put("a", "2", { ifAbsent: true }));
    expect(error).toBeInstanceOf(ConflictError);
    expect(error).toMatchObject({ code: "CONFLICT", revision: 1n, detail: { revision: 1n } });
  });
});
