/** The request engine, rule by rule (docs/protocol.md section 3), against fake replicas in fake time. */
import { describe, expect, test } from "vitest";
import { ConflictError, QuorateError, UnknownOutcomeError } from "../../../client/errors.ts";
import { utf8 } from "../../../protocol/bytes.ts";
import { encodeCommand } from "../../../protocol/commands.ts";
import { EVERYBODY } from "../../../protocol/request.ts";
import { type Answer, behaviours, type FakeCluster } from "./fake-replicas.ts";
import { answerOf, connected, errorOf } from "./fixture.ts";

const LARGE = "x".repeat(5_000);

/** Distinct requests a replica received, in order of arrival. */
function requestsOf(cluster: FakeCluster, id = 0) {
  const seen = new Set<string>();
  return cluster.replica(id).received.filter(({ request }) => !seen.has(request.digest) && seen.add(request.digest));
}

function ordered(cluster: FakeCluster, id = 0) {
  return requestsOf(cluster, id).filter(({ request }) => request.kind === "ordered");
}

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

describe("what ends an ordered request", () => {
  test("Q matching results: one silent replica is no obstacle, two are", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.replica(0).behaviour = behaviours.silent;
    await answerOf(clock, kv.put("a", "1"));
    cluster.replica(1).behaviour = behaviours.silent;
    const error = await errorOf(clock, kv.put("a", "2", { timeoutMs: 2_000 }), 2_100);
    expect(error).toBeInstanceOf(UnknownOutcomeError);
    expect(error).toMatchObject({ code: "UNKNOWN_OUTCOME", outcome: "unknown" });
  });

  test("n = 6, f = 1: the quorum is 4, not 2f + 1", async () => {
    const { clock, cluster, kv } = await connected({ n: 6, f: 1 });
    cluster.replica(0).behaviour = behaviours.silent;
    cluster.replica(1).behaviour = behaviours.silent;
    await answerOf(clock, kv.put("a", "1"));
    cluster.replica(2).behaviour = behaviours.silent;
    await errorOf(clock, kv.put("a", "2", { timeoutMs: 500 }), 600);
  });

  test("a wrong MAC never counts, and closes the connection", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.replica(0).behaviour = behaviours.silent;
    cluster.replica(1).behaviour = behaviours.wrongMac;
    await errorOf(clock, kv.put("a", "1", { timeoutMs: 1_000 }), 1_100);
    expect(kv.replicas()[1]?.faults).toBeGreaterThan(0);
    cluster.replica(0).behaviour = null;
    await answerOf(clock, kv.put("a", "2"), 300);
  });

  test("replies that name another view or another request never count", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.replica(0).behaviour = (honest) => ({ ...honest, view: 1 });
    cluster.replica(1).behaviour = (honest) => ({ ...honest, requestDigest: "\0".repeat(32) });
    await errorOf(clock, kv.put("a", "1", { timeoutMs: 500 }), 600);
  });

  test("one replica repeating itself is one vote", async () => {
    const { clock, cluster, kv } = await connected();
    for (const id of [0, 1]) cluster.replica(id).behaviour = behaviours.silent;
    cluster.replica(2).behaviour = (honest) => [honest, honest, honest];
    await errorOf(clock, kv.put("a", "1", { timeoutMs: 500 }), 600);
  });

  test("DEADLINE by a quorum: not executed", async () => {
    const { clock, cluster, kv } = await connected();
    const error = await errorOf(clock, kv.put("a", "1", { deadlineMs: clock.wallMs() - 1 }));
    expect(error).toMatchObject({ code: "DEADLINE", detail: { outcome: "not-executed" } });
    expect(error).not.toBeInstanceOf(UnknownOutcomeError);
    expect(await answerOf(clock, kv.get("a"))).toBeNull();
    expect(cluster.executed).toHaveLength(0);
  });

  test("SEQUENCE_CONFLICT by a quorum ends it, and a new session is opened", async () => {
    const { clock, cluster, kv } = await connected();
    for (const replica of cluster.replicas) replica.behaviour = behaviours.says("SEQUENCE_CONFLICT");
    expect(await errorOf(clock, kv.put("a", "1"))).toMatchObject({ code: "SEQUENCE_CONFLICT" });
    for (const replica of cluster.replicas) replica.behaviour = null;
    await answerOf(clock, kv.put("a", "2"), 500);
    const sessions = cluster.replica(0).received.map(({ request }) => request.session);
    expect(sessions[1]).toBeGreaterThan(sessions[0] ?? 0);
  });

  test("REFUSED by a quorum for one reason ends it with the reason", async () => {
    const { clock, cluster, kv } = await connected();
    for (const replica of cluster.replicas) replica.behaviour = behaviours.says("REFUSED", utf8("CLIENTS_FULL"));
    const error = await errorOf(clock, kv.put("a", "1"));
    expect(error).toMatchObject({ code: "REFUSED", detail: { reason: "CLIENTS_FULL", outcome: "unknown" } });
  });

  test.each(["BUSY", "MUST_SIGN", "NEWER_VIEW", "NOT_READY", "REFUSED"] as const)(
    "%s by f replicas ends nothing",
    async (status) => {
      const { clock, cluster, kv } = await connected();
      // It answers first, so its word is there before the quorum's.
      cluster.replica(0).behaviour = behaviours.says(status, utf8("NO"));
      await answerOf(clock, kv.put("a", "1"));
      await answerOf(clock, Promise.all([kv.put("a", "2"), kv.put("b", "2")]));
      const types = cluster.replica(1).received.map(({ envelope }) => envelope.authenticator.type);
      expect(types).toEqual(["vector", "vector"]);
    },
  );

  test.each(["BUSY", "NEWER_VIEW", "NOT_READY"] as const)("%s by all of them only delays it", async (status) => {
    const { clock, cluster, kv } = await connected();
    for (const replica of cluster.replicas) replica.behaviour = behaviours.says(status);
    const put = kv.put("a", "1", { timeoutMs: 60_000 });
    await clock.advance(2_000);
    for (const replica of cluster.replicas) replica.behaviour = null;
    await answerOf(clock, put, 10_000);
    expect(cluster.executed).toHaveLength(1);
  });

  test("BUSY by W holds new requests back, at most 5 s; by fewer it does not", async () => {
    const { clock, cluster, kv } = await connected();
    const busy = (count: number) => {
      for (const replica of cluster.replicas) replica.behaviour = replica.id < count ? behaviours.says("BUSY") : null;
    };
    busy(1);
    await answerOf(clock, kv.put("a", "1"));
    busy(4);
    const first = kv.put("a", "2", { timeoutMs: 60_000 });
    for (let round = 0; round < 40; round++) await clock.advance(500);
    const before = requestsOf(cluster).length;
    const second = kv.put("b", "1", { timeoutMs: 60_000 });
    await clock.settle();
    expect(requestsOf(cluster)).toHaveLength(before);
    busy(0);
    await answerOf(clock, Promise.all([first, second]), 5_100);
  });

  test("MUST_SIGN is obeyed on W: the same request again, signed, and all later ones", async () => {
    const { clock, cluster, kv } = await connected();
    const mustSign = behaviours.says("MUST_SIGN");
    const signed = new Set<string>();
    for (const replica of cluster.replicas) {
      replica.behaviour = (honest, request) => {
        const last = replica.received.findLast((arrival) => arrival.request.digest === request.digest);
        if (last?.envelope.authenticator.type === "signature") signed.add(request.key);
        return signed.has(request.key) ? honest : mustSign();
      };
    }
    await answerOf(clock, kv.put("a", "1"), 1_000);
    await answerOf(clock, kv.put("a", "2"));
    expect(cluster.faults).toEqual([]);
    const types = cluster.replica(0).received.map(({ envelope }) => envelope.authenticator.type);
    expect(types[0]).toBe("vector");
    expect(types.slice(1).every((type) => type === "signature")).toBe(true);
    expect(cluster.executed).toHaveLength(2);
  });

  test("advice of one round is not added to that of the next", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.paused = true;
    const put = kv.put("a", "1", { timeoutMs: 60_000 });
    await clock.settle();
    const arrived = () => cluster.replica(2).received.length;
    cluster.advise(cluster.replica(0), "MUST_SIGN");
    await clock.settle();
    for (let waited = 0; arrived() < 2 && waited < 1_000; waited += 20) await clock.advance(20);
    cluster.advise(cluster.replica(1), "MUST_SIGN");
    await clock.settle();
    expect(arrived()).toBe(2);
    cluster.resume();
    await answerOf(clock, put, 6_000);
    const types = cluster.replica(2).received.map(({ envelope }) => envelope.authenticator.type);
    expect(new Set(types)).toEqual(new Set(["vector"]));
  });

  test("signed: true signs from the first request on", async () => {
    const { clock, cluster, kv } = await connected({ signed: true });
    await answerOf(clock, kv.put("a", "1"));
    expect(cluster.faults).toEqual([]);
    expect(cluster.replica(2).received[0]?.envelope.authenticator.type).toBe("signature");
  });
});

describe("full results and digests", () => {
  test("a large result comes in full from one replica, from the others as its digest", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", LARGE));
    expect((await answerOf(clock, kv.get("a")))?.value).toBe(LARGE);
    expect((await answerOf(clock, kv.get("a", { ordered: true })))?.value).toBe(LARGE);
    expect(cluster.replica(0).received).toHaveLength(3);
  });

  test("a body that contradicts its digest is dropped, and everybody is asked", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", LARGE));
    cluster.replica(0).behaviour = behaviours.wrongBody;
    for (let round = 0; round < 4; round++) {
      expect((await answerOf(clock, kv.get("a", { ordered: true }), 300))?.value).toBe(LARGE);
    }
    expect(cluster.replica(1).received.some(({ envelope }) => envelope.replier === EVERYBODY)).toBe(true);
  });

  test("a replica that withholds large results is asked once, then passed over for a while", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", LARGE));
    cluster.replica(1).behaviour = behaviours.withholding;
    for (let round = 0; round < 12; round++) {
      expect((await answerOf(clock, kv.get("a", { ordered: true }), 300))?.value).toBe(LARGE);
    }
    const asked = ordered(cluster).filter(({ envelope }) => envelope.replier === 1);
    expect(asked.length).toBeLessThanOrEqual(1);
  });

  test("gone: a read is issued again under a new sequence", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", LARGE));
    const first = new Set<string>();
    for (const replica of cluster.replicas) {
      replica.behaviour = (honest, request) => {
        if (first.size === 0) first.add(request.key);
        return first.has(request.key) ? { ...honest, body: "gone" } : honest;
      };
    }
    expect((await answerOf(clock, kv.get("a", { ordered: true }), 1_000))?.value).toBe(LARGE);
    const sequences = ordered(cluster).map(({ request }) => request.sequence);
    expect(sequences).toEqual([1, 2, 3]);
  });

  test("gone: a write was executed, its result is not known", async () => {
    const { clock, cluster, kv } = await connected();
    for (const replica of cluster.replicas) replica.behaviour = behaviours.gone;
    const error = await errorOf(clock, kv.put("a", "1"));
    expect(error).toBeInstanceOf(UnknownOutcomeError);
    expect(error).toMatchObject({ code: "UNKNOWN_OUTCOME", outcome: "executed" });
    expect(cluster.executed).toHaveLength(1);
  });

  test("gone from f replicas only does not end anything: the others' bytes are waited for", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", LARGE));
    for (const replica of cluster.replicas) {
      replica.behaviour = replica.id === 0 ? behaviours.gone : behaviours.withholding;
    }
    const read = kv.get("a", { ordered: true, timeoutMs: 20_000 });
    await clock.advance(3_000);
    expect(ordered(cluster).map(({ request }) => request.sequence)).toEqual([1, 2]);
    for (const replica of cluster.replicas) if (replica.id > 0) replica.behaviour = null;
    expect((await answerOf(clock, read, 6_000))?.value).toBe(LARGE);
  });

  test("gone from one replica does not hide a small result", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.replica(0).behaviour = behaviours.gone;
    expect((await answerOf(clock, kv.put("a", "1"))).revision).toBe(1n);
  });
});

describe("unordered reads", () => {
  test("Q matching answers suffice: nothing is ordered", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    cluster.replica(0).behaviour = behaviours.wrongResult;
    expect(await answerOf(clock, kv.get("a"))).toMatchObject({ key: "a", value: "1", modRevision: 1n, version: 1n });
    expect(await answerOf(clock, kv.get("b"))).toBeNull();
    expect(ordered(cluster)).toHaveLength(1);
  });

  test.each([
    ["answers that differ", (id: number) => (honest: Answer) => (id < 2 ? behaviours.wrongResult(honest) : honest)],
    ["NOT_READY", (id: number) => (honest: Answer) => (id < 2 ? behaviours.says("NOT_READY")() : honest)],
  ])("%s that rule a quorum out order the read at once", async (_, behaviour) => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    for (const replica of cluster.replicas) {
      const faulty = behaviour(replica.id);
      replica.behaviour = (honest, request) => (request.kind === "unordered" ? faulty(honest) : honest);
    }
    expect((await answerOf(clock, kv.get("a")))?.value).toBe("1");
    expect(ordered(cluster)).toHaveLength(2);
  });

  test("answers that do not come order the read after 100 ms", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    for (const id of [0, 1]) {
      cluster.replica(id).behaviour = (honest, request) => (request.kind === "unordered" ? null : honest);
    }
    const get = kv.get("a");
    await clock.advance(90);
    expect(ordered(cluster)).toHaveLength(1);
    expect((await answerOf(clock, get, 60))?.value).toBe("1");
    expect(ordered(cluster)).toHaveLength(2);
  });

  test("they use numbers of their own: any number of reads leaves the window of writes alone", async () => {
    const { clock, cluster, kv } = await connected();
    for (let at = 0; at < 1_100; at++) await answerOf(clock, kv.get("a"));
    await answerOf(clock, kv.put("a", "1"));
    expect(cluster.executed[0]?.sequence).toBe(1);
    expect(new Set(cluster.replica(0).sessions).size).toBe(1);
  });

  test("orderedReads orders every read", async () => {
    const { clock, cluster, kv } = await connected({ orderedReads: true });
    await answerOf(clock, kv.get("a"));
    expect(ordered(cluster)).toHaveLength(1);
  });

  test("a command that is no query is ordered", async () => {
    const { clock, kv } = await connected();
    const put = encodeCommand({ type: "put", key: utf8("a"), value: utf8("1"), ifRevision: null });
    await answerOf(clock, kv.invoke(put, { ordered: false }));
    expect((await answerOf(clock, kv.get("a")))?.value).toBe("1");
  });

  test("reads that a full reply crowded out are issued again", async () => {
    const { clock, cluster, kv } = await connected();
    const value = "x".repeat(1024 * 1024);
    for (let at = 0; at < 8; at++) await answerOf(clock, kv.put(`k${at}`, value));
    const gets = await answerOf(clock, Promise.all(Array.from({ length: 8 }, (_, at) => kv.get(`k${at}`))), 1_000);
    expect(gets.every((entry) => entry?.value === value)).toBe(true);
    expect(cluster.faults).toEqual([]);
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

describe("giving up", () => {
  test("a read times out with TIMEOUT", async () => {
    const { clock, cluster, kv } = await connected({ timeoutMs: 700 });
    for (const replica of cluster.replicas) replica.behaviour = behaviours.silent;
    const error = await errorOf(clock, kv.get("a"), 800);
    expect(error).toBeInstanceOf(QuorateError);
    expect(error).not.toBeInstanceOf(UnknownOutcomeError);
    expect(error).toMatchObject({ code: "TIMEOUT" });
  });

  test("an abort before sending: ABORTED, surely not executed", async () => {
    const { clock, cluster, kv } = await connected();
    expect(await errorOf(clock, kv.put("a", "1", { signal: AbortSignal.abort() }))).toMatchObject({ code: "ABORTED" });
    const controller = new AbortController();
    const put = kv.put("a", "1", { signal: controller.signal });
    controller.abort(new Error("enough"));
    const error = await errorOf(clock, put);
    expect(error).not.toBeInstanceOf(UnknownOutcomeError);
    expect(error).toMatchObject({ code: "ABORTED", detail: { outcome: "not-sent" }, cause: { message: "enough" } });
    await clock.advance(1_000);
    expect(cluster.replica(0).received).toHaveLength(0);
  });

  test("an abort after sending: ABORTED with outcome unknown, and not resent", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.paused = true;
    const controller = new AbortController();
    const put = kv.put("a", "1", { signal: controller.signal });
    await clock.settle();
    controller.abort();
    const error = await errorOf(clock, put);
    expect(error).toBeInstanceOf(UnknownOutcomeError);
    expect(error).toMatchObject({ code: "ABORTED", outcome: "unknown", requestId: { sequence: 1, index: 0 } });
    await clock.advance(10_000);
    expect(cluster.replica(0).received).toHaveLength(1);
  });

  test("an abort of one command leaves the others of its request alone", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.paused = true;
    const controller = new AbortController();
    const lost = kv.put("a", "1", { signal: controller.signal });
    const kept = kv.put("b", "1");
    await clock.settle();
    controller.abort();
    const error = await errorOf(clock, lost);
    if (!(error instanceof UnknownOutcomeError)) throw error;
    const outcome = kv.outcome(error.requestId);
    cluster.resume();
    expect((await answerOf(clock, kept)).version).toBe(1n);
    expect(await answerOf(clock, outcome)).toMatchObject({ type: "replied", result: { type: "written" } });
    expect(requestsOf(cluster).every(({ request }) => request.kind === "ordered")).toBe(true);
  });
});

describe("unknown outcomes", () => {
  test("ackedBelow never falls, and an unresolved sequence holds it back until RESOLVE", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    cluster.paused = true;
    const error = await errorOf(clock, kv.put("b", "1", { timeoutMs: 100 }), 200);
    if (!(error instanceof UnknownOutcomeError)) throw error;
    const third = kv.put("c", "1");
    await clock.settle();
    cluster.resume();
    await answerOf(clock, third);
    const acked = () => ordered(cluster).map(({ request }) => request.ackedBelow);
    expect(acked()).toEqual([1, 2, 2]);
    expect(await answerOf(clock, kv.outcome(error.requestId))).toMatchObject({ type: "replied", status: "OK" });
    await answerOf(clock, kv.put("d", "1"));
    expect(acked().at(-1)).toBeGreaterThan(3);
    expect(acked()).toEqual([...acked()].sort((a, b) => a - b));
  });

  test("outcome() of a write that never arrived cancels it for ever", async () => {
    const { clock, cluster, kv } = await connected();
    const lost: string[] = [];
    for (const replica of cluster.replicas) {
      replica.behaviour = (honest, request) => (lost.includes(request.key) ? null : honest);
    }
    cluster.paused = true;
    const error = await errorOf(clock, kv.put("a", "1", { timeoutMs: 100 }), 200);
    if (!(error instanceof UnknownOutcomeError)) throw error;
    cluster.forgetWaiting();
    cluster.resume();
    expect(await answerOf(clock, kv.outcome(error.requestId))).toEqual({ type: "cancelled" });
    expect(await answerOf(clock, kv.get("a"))).toBeNull();
    expect(await answerOf(clock, kv.outcome(error.requestId))).toEqual({ type: "cancelled" });
  });

  test("a late quorum answers outcome() without asking", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.paused = true;
    const error = await errorOf(clock, kv.put("a", "1", { timeoutMs: 100 }), 200);
    if (!(error instanceof UnknownOutcomeError)) throw error;
    cluster.resume();
    await clock.settle();
    const before = cluster.replica(0).received.length;
    expect(await answerOf(clock, kv.outcome(error.requestId))).toMatchObject({
      type: "replied",
      status: "OK",
      result: { type: "written", modRevision: 1 },
    });
    expect(cluster.replica(0).received).toHaveLength(before);
  });

  test("outcome() itself times out, aborts and can be asked again", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.paused = true;
    const error = await errorOf(clock, kv.put("a", "1", { timeoutMs: 100 }), 200);
    if (!(error instanceof UnknownOutcomeError)) throw error;
    expect(await errorOf(clock, kv.outcome(error.requestId, { timeoutMs: 300 }), 400)).toMatchObject({
      code: "TIMEOUT",
    });
    const signal = AbortSignal.abort();
    expect(await errorOf(clock, kv.outcome(error.requestId, { signal }))).toMatchObject({ code: "ABORTED" });
    cluster.resume();
    expect(await answerOf(clock, kv.outcome(error.requestId), 6_000)).toMatchObject({ type: "replied" });
  });

  test("unknown outcomes never fill the window: they are resolved unasked", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.paused = true;
    await errorOf(clock, kv.put("lost", "1", { timeoutMs: 100 }), 200);
    cluster.forgetWaiting();
    cluster.resume();
    for (let at = 0; at < 1_500; at++) await answerOf(clock, kv.put("a", `${at}`));
    expect(new Set(cluster.replica(0).sessions).size).toBe(1);
    const resolves = requestsOf(cluster).filter(({ request }) => request.kind === "resolve");
    expect(resolves).toHaveLength(1);
    expect((await answerOf(clock, kv.get("a")))?.value).toBe("1499");
  });

  // The replicas lie about the session only: the write is executed, which is why its outcome is "unknown" and not "failed".
  test("SESSION_EXPIRED: a new session above a credible watermark; writes are unknown, reads issued again", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    const [old] = cluster.replica(0).sessions;
    if (old === undefined) throw new Error("no session");
    for (const replica of cluster.replicas) {
      const watermark = replica.id === 0 ? old + 9e14 : old + 1e9 + replica.id;
      const expired = behaviours.expired(watermark);
      replica.behaviour = (honest, request) =>
        request.session === old && request.kind === "ordered" ? expired() : honest;
    }
    const [write, read] = [kv.put("a", "2"), kv.get("a", { ordered: true })];
    const error = await errorOf(clock, write, 500);
    expect(error).toBeInstanceOf(UnknownOutcomeError);
    expect(error).toMatchObject({ code: "UNKNOWN_OUTCOME", detail: { status: "SESSION_EXPIRED" } });
    expect((await answerOf(clock, read, 500))?.value).toBe("2");
    const now = cluster.replica(0).sessions.at(-1) ?? 0;
    expect(now).toBeGreaterThan(old + 1e9);
    expect(now).toBeLessThan(old + 2e9);
  });

  test.each(["WINDOW_FULL", "ACKED"] as const)(
    "%s leaves a sent write unknown; a read is issued again",
    async (status) => {
      const { clock, cluster, kv } = await connected();
      await answerOf(clock, kv.put("a", "1"));
      const hit = new Set<string>();
      let armed = true;
      for (const replica of cluster.replicas) {
        replica.behaviour = (honest, request) => {
          if (armed && request.kind === "ordered") hit.add(request.key);
          return hit.has(request.key) ? behaviours.says(status)() : honest;
        };
      }
      const error = await errorOf(clock, kv.put("b", "1"), 500);
      expect(error).toBeInstanceOf(UnknownOutcomeError);
      const read = kv.get("a", { ordered: true });
      await clock.settle();
      armed = false;
      expect((await answerOf(clock, read, 6_000))?.value).toBe("1");
      await answerOf(clock, kv.put("c", "1"), 1_000);
    },
  );
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
