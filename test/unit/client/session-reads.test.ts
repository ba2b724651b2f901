/** Unordered reads and their ordered fallback (docs/protocol.md section 3), against fake replicas in fake time. */
import { describe, expect, test } from "vitest";
import { utf8 } from "../../../protocol/bytes.ts";
import { encodeCommand } from "../../../protocol/commands.ts";
import { type Answer, behaviours } from "./fake-replicas.ts";
import { answerOf, connected } from "./fixture.ts";
import { ordered } from "./received.ts";

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

  test("BUSY by W postpones the read, unordered as it was; by fewer it does not", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    const busy = (count: number) => {
      for (const replica of cluster.replicas) {
        replica.behaviour = (honest, request) =>
          request.kind === "unordered" && replica.id < count ? behaviours.says("BUSY")() : honest;
      }
    };
    busy(1);
    expect((await answerOf(clock, kv.get("a")))?.value).toBe("1");
    busy(4);
    const get = kv.get("a", { timeoutMs: 60_000 });
    for (let round = 0; round < 20; round++) await clock.advance(500);
    expect(ordered(cluster), "busy replicas are not asked to order it").toHaveLength(1);
    busy(0);
    expect((await answerOf(clock, get, 5_100))?.value).toBe("1");
    expect(ordered(cluster)).toHaveLength(1);
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
    await answerOf(clock, kv.service.invokeUnordered(put));
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
