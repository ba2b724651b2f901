/** Opaque commands (docs/library.md): ordered, unordered, hashed, and with a handle, against fake replicas in fake time. */
import { describe, expect, test } from "vitest";
import { type ReplicaReply, UnknownOutcomeError } from "../../../client/index.ts";
import { utf8 } from "../../../protocol/bytes.ts";
import { type Command, decodeResult, encodeCommand } from "../../../protocol/commands.ts";
import { CACHED_REPLY_BYTES_MAX } from "../../../protocol/limits.ts";
import { EVERYBODY } from "../../../protocol/request.ts";
import { behaviours, type FakeCluster } from "./fake-replicas.ts";
import { answerOf, connected, errorOf } from "./fixture.ts";
import { LARGE, ordered, requestsOf } from "./received.ts";

const command = (made: Command): Uint8Array => Uint8Array.from(encodeCommand(made));
const put = (key: string, value = "1") =>
  command({ type: "put", key: utf8(key), value: utf8(value), ifRevision: null });
const get = (key: string) => command({ type: "get", key: utf8(key) });
const noop = (replyBytes: number) => command({ type: "noop", payload: new Uint8Array(0), replyBytes });
const found = (result: Uint8Array): string => {
  const decoded = decodeResult(result);
  return decoded.type === "found" ? new TextDecoder().decode(decoded.value) : decoded.type;
};
const repliers = (cluster: FakeCluster) => requestsOf(cluster).map(({ envelope }) => envelope.replier === EVERYBODY);

describe("who sends the result", () => {
  test("plain: everybody; hashed: one, and the others its digest; each in requests of their own", async () => {
    const { clock, cluster, kv } = await connected();
    const { service } = kv;
    await answerOf(clock, service.invokeOrdered(put("a", LARGE)));
    const all: ReplicaReply[] = [];
    const one: ReplicaReply[] = [];
    const results = await answerOf(
      clock,
      Promise.all([
        service.invokeOrdered(get("a"), { onReply: (reply) => all.push(reply) }),
        service.invokeOrderedHashed(get("a"), { onReply: (reply) => one.push(reply) }),
        service.invokeUnordered(get("a"), { onReply: (reply) => all.push(reply) }),
        service.invokeUnorderedHashed(get("a"), { onReply: (reply) => one.push(reply) }),
      ]),
      500,
    );
    expect(results.map(found)).toEqual([LARGE, LARGE, LARGE, LARGE]);
    expect(repliers(cluster)).toEqual([true, true, true, false, false]);
    expect(all.length).toBeGreaterThanOrEqual(6);
    expect(all.every(({ result }) => result !== null)).toBe(true);
    expect(one.filter(({ result }) => result !== null)).toHaveLength(2);
  });

  test("a replica that withholds the bytes costs the hashed variant a resend, the plain one nothing", async () => {
    const { clock, cluster, kv } = await connected();
    const { service } = kv;
    await answerOf(clock, service.invokeOrdered(put("a", LARGE)));
    for (const id of [0, 1]) cluster.replica(id).behaviour = behaviours.withholding;
    const frames = () => cluster.replica(3).received.length;
    const before = frames();
    for (let at = 0; at < 4; at++) expect(found(await answerOf(clock, service.invokeOrdered(get("a"))))).toBe(LARGE);
    expect(frames() - before).toBe(4);
    for (let at = 0; at < 4; at++) {
      expect(found(await answerOf(clock, service.invokeOrderedHashed(get("a")), 1_000))).toBe(LARGE);
    }
    expect(frames() - before).toBeGreaterThan(8);
  });

  test("no replica alone is believed, however it is asked", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.service.invokeOrdered(put("a")));
    cluster.replica(2).behaviour = behaviours.wrongResult;
    const { service } = kv;
    const calls = [service.invokeOrdered(get("a")), service.invokeUnordered(get("a"))];
    const hashed = [service.invokeOrderedHashed(get("a")), service.invokeUnorderedHashed(get("a"))];
    const results = await answerOf(clock, Promise.all([...calls, ...hashed]), 1_000);
    expect(results.map(found)).toEqual(["1", "1", "1", "1"]);
  });
});

test("ordered commands with large results travel in bundles whose results the replicas keep", async () => {
  const { clock, cluster, kv } = await connected();
  const bytes = 20_000;
  await answerOf(clock, kv.service.invokeOrdered(noop(bytes)));
  await answerOf(clock, Promise.all(Array.from({ length: 20 }, () => kv.service.invokeOrdered(noop(bytes)))), 1_000);
  const sizes = ordered(cluster).map(({ request }) => request.commands.length);
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(21);
  expect(Math.max(...sizes) * bytes).toBeLessThanOrEqual(CACHED_REPLY_BYTES_MAX);
  expect(Math.max(...sizes)).toBeGreaterThan(1);
});

describe("single replies", () => {
  test("each is heard once verified, with this command's own result, and a liar's differs", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.replica(1).behaviour = behaviours.wrongMac;
    cluster.replica(2).behaviour = behaviours.wrongResult;
    const heard: ReplicaReply[] = [];
    void kv.service.invokeOrdered(put("a"), { timeoutMs: 300 }).catch(() => undefined);
    const call = kv.service.invokeOrdered(noop(3), { timeoutMs: 300, onReply: (reply) => heard.push(reply) });
    expect(await errorOf(clock, call, 400)).toMatchObject({ code: "UNKNOWN_OUTCOME" });
    expect(new Set(heard.map(({ replica }) => replica))).toEqual(new Set([0, 2, 3]));
    const honest = heard.filter(({ replica }) => replica !== 2);
    expect(new Set(honest.map(({ digest }) => digest)).size).toBe(1);
    expect(decodeResult(honest[0]?.result ?? new Uint8Array(0))).toMatchObject({ type: "noop" });
    const [lie] = heard.filter(({ replica }) => replica === 2);
    expect(lie?.digest).not.toBe(honest[0]?.digest);
    expect(lie?.result).toBeNull();
  });

  test("a listener that throws ends its own waiting, and nobody else's", async () => {
    const { clock, kv } = await connected();
    const wrong = new Error("no");
    const throwing = kv.service.invokeOrdered(put("a"), {
      onReply: () => {
        throw wrong;
      },
    });
    const other = kv.service.invokeOrdered(put("b"));
    const error = await errorOf(clock, throwing);
    expect(error).toBeInstanceOf(UnknownOutcomeError);
    expect(error).toMatchObject({ code: "ABORTED", cause: wrong });
    expect(decodeResult(await answerOf(clock, other)).type).toBe("written");
  });
});

describe("with a handle", () => {
  test("the result, and the outcome of what was answered", async () => {
    const { clock, kv } = await connected();
    const write = kv.service.invokeOrderedAsync(put("a"), { hashed: true });
    expect(decodeResult(await answerOf(clock, write.result)).type).toBe("written");
    const outcome = await answerOf(clock, write.outcome());
    expect(outcome.type === "replied" && decodeResult(outcome.bytes).type).toBe("written");
    const read = kv.service.invokeUnorderedAsync(get("a"));
    expect(found(await answerOf(clock, read.result))).toBe("1");
    read.cancel();
    expect(found(await read.result)).toBe("1");
  });

  test("cancelled before it left: never executed", async () => {
    const { clock, cluster, kv } = await connected();
    const write = kv.service.invokeOrderedAsync(put("a"));
    write.cancel("changed my mind");
    expect(await errorOf(clock, write.result)).toMatchObject({ code: "ABORTED", cause: "changed my mind" });
    expect(await answerOf(clock, write.outcome())).toEqual({ type: "cancelled" });
    expect(ordered(cluster)).toHaveLength(0);
  });

  test("cancelled under way: asking finds what became of it, or rules it out for ever", async () => {
    const { clock, cluster, kv } = await connected();
    const executed = kv.service.invokeOrderedAsync(put("a"));
    cluster.paused = true;
    await clock.settle();
    executed.cancel();
    cluster.resume();
    await clock.settle();
    expect(await answerOf(clock, executed.outcome(), 1_000)).toMatchObject({ type: "replied", status: "OK" });

    cluster.paused = true;
    const lost = kv.service.invokeOrderedAsync(put("b"));
    await clock.settle();
    lost.cancel();
    expect(await errorOf(clock, lost.result)).toBeInstanceOf(UnknownOutcomeError);
    cluster.forgetWaiting();
    cluster.resume();
    expect(await answerOf(clock, lost.outcome(), 1_000)).toEqual({ type: "cancelled" });
    expect(await answerOf(clock, kv.get("b"))).toBeNull();
  });

  test("the caller's own signal still counts", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.paused = true;
    const controller = new AbortController();
    const read = kv.service.invokeUnorderedAsync(get("a"), { signal: controller.signal, ordered: true });
    await clock.settle();
    controller.abort();
    expect(await errorOf(clock, read.result)).toMatchObject({ code: "ABORTED" });
  });
});
