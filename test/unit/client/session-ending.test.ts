/** What ends an ordered request (docs/protocol.md section 3), against fake replicas in fake time. */
import { describe, expect, test } from "vitest";
import { UnknownOutcomeError } from "../../../client/errors.ts";
import { utf8 } from "../../../protocol/bytes.ts";
import { CLOSE_CODES } from "../../../protocol/client-frames.ts";
import { EVERYBODY } from "../../../protocol/request.ts";
import { behaviours } from "./fake-replicas.ts";
import { answerOf, connected, errorOf } from "./fixture.ts";
import { LARGE, ordered, requestsOf } from "./received.ts";

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

  test("whom too many replicas turn away is told at once, and goes on when they let it in again", async () => {
    const { clock, cluster, kv } = await connected();
    const turnAway = (ids: readonly number[], closeCode: number | null) => {
      for (const id of ids) {
        cluster.replica(id).closeCode = closeCode;
        cluster.disconnect(cluster.replica(id));
      }
    };
    turnAway([1, 2], CLOSE_CODES.NOT_A_CLIENT);
    const waiting = kv.put("a", "1", { timeoutMs: 60_000 });
    expect(await errorOf(clock, waiting, 1_000)).toMatchObject({ code: "REFUSED" });
    expect(await errorOf(clock, kv.get("a", { timeoutMs: 60_000 }))).toMatchObject({ code: "REFUSED" });
    turnAway([1, 2], null);
    await clock.advance(10_000);
    await answerOf(clock, kv.put("a", "2"), 1_000);
    expect(cluster.executed).toHaveLength(1);
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
