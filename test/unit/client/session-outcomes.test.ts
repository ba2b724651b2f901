/** Giving up, unknown outcomes, RESOLVE, sessions (docs/protocol.md section 3), against fake replicas in fake time. */
import { describe, expect, test } from "vitest";
import { QuorateError, UnknownOutcomeError } from "../../../client/errors.ts";
import { behaviours } from "./fake-replicas.ts";
import { answerOf, connected, errorOf } from "./fixture.ts";
import { ordered, requestsOf } from "./received.ts";

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
