/** Reads that take one replica's word (docs/protocol.md section 3, "Local reads"), against fake replicas in fake time. */
import { describe, expect, test } from "vitest";
import { QuorateError } from "../../../client/errors.ts";
import type { ConnectionOptions } from "../../../client/open.ts";
import { behaviours, FakeClock, FakeCluster } from "./fake-replicas.ts";
import { answerOf, connected, errorOf, opened } from "./fixture.ts";
import { ordered } from "./received.ts";

const local = { consistency: "local" } as const;

/** Which replicas were asked something unordered. */
const asked = (cluster: FakeCluster): number[] =>
  cluster.replicas.flatMap(({ id, received }) =>
    received.some(({ request }) => request.kind === "unordered") ? [id] : [],
  );

describe("a local read", () => {
  test("asks one replica, and believes it, whatever it says", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    expect((await answerOf(clock, kv.get("a", local)))?.value).toBe("1");
    expect(asked(cluster)).toHaveLength(1);
    // What a quorum would expose is taken from one.
    for (const replica of cluster.replicas) {
      replica.behaviour = (honest, request) => (request.kind === "unordered" ? behaviours.wrongResult(honest) : honest);
    }
    const believed = await errorOf(clock, kv.get("a", local));
    expect(believed).toMatchObject({ code: "DECODE_FAILED" });
    expect(ordered(cluster)).toHaveLength(1);
  });

  test("goes to another replica when the one asked cannot answer, or does not; it is never ordered", async () => {
    for (const behaviour of [behaviours.says("NOT_READY"), () => null]) {
      const { clock, cluster, kv } = await connected();
      await answerOf(clock, kv.put("a", "1"));
      for (const id of [0, 1, 2]) {
        cluster.replica(id).behaviour = (honest, request) => (request.kind === "unordered" ? behaviour() : honest);
      }
      expect((await answerOf(clock, kv.get("a", local), 3_000))?.value).toBe("1");
      expect(ordered(cluster)).toHaveLength(1);
    }
  });

  test("fails when nobody answers, and says so; a quorum is not asked instead", async () => {
    const { clock, cluster, kv } = await connected();
    for (const replica of cluster.replicas) replica.behaviour = behaviours.says("NOT_READY");
    const error = await errorOf(clock, kv.get("a", { ...local, timeoutMs: 1_000 }), 2_000);
    expect(error).toMatchObject({ code: "TIMEOUT", message: expect.stringContaining("local read") });
    expect(ordered(cluster)).toHaveLength(0);
  });

  test("is answered without a quorum, where a linearizable one is not", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ n: 4, mode: "bft", clock });
    for (const id of [0, 1, 2]) cluster.replica(id).down = true;
    const kv = await answerOf(clock, opened(cluster, clock, { consistency: "local" }), 2_000);
    expect(await answerOf(clock, kv.get("a"), 1_000)).toBeNull();
    const options = { consistency: "linearizable", timeoutMs: 1_000 } as const;
    expect(await errorOf(clock, kv.get("a", options), 2_000)).toMatchObject({ code: "QUORUM_UNAVAILABLE" });
    expect(await errorOf(clock, kv.put("a", "1", { timeoutMs: 1_000 }), 2_000)).toMatchObject({
      code: "QUORUM_UNAVAILABLE",
    });
  });
});

describe("what was asked for", () => {
  test("linearizable by default: a quorum is asked", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.get("a"));
    expect(asked(cluster).length).toBeGreaterThanOrEqual(cluster.cluster.view.quorum);
  });

  test("the connection's default, unless the call says otherwise; pages too", async () => {
    const { clock, cluster, kv } = await connected({ consistency: "local" });
    await answerOf(clock, kv.page());
    expect(asked(cluster)).toHaveLength(1);
    await answerOf(clock, kv.get("a", { consistency: "linearizable" }));
    expect(asked(cluster).length).toBeGreaterThanOrEqual(cluster.cluster.view.quorum);
  });

  test("contradictions and other words are errors", async () => {
    const { clock, kv } = await connected();
    expect(await errorOf(clock, kv.get("a", { ...local, ordered: true }))).toMatchObject({ code: "INVALID_ARGUMENT" });
    const wrong = { consistency: "eventual" as never };
    expect(await errorOf(clock, kv.get("a", wrong))).toMatchObject({ code: "INVALID_ARGUMENT" });
    const both: Partial<ConnectionOptions<string>> = { ...local, orderedReads: true };
    await expect(connected(both)).rejects.toBeInstanceOf(QuorateError);
  });
});
