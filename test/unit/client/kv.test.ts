/** The public API: arguments, results, codecs, ranges. */
import { describe, expect, expectTypeOf, test } from "vitest";
import { z } from "zod";
import { bytes, json, utf8 } from "../../../client/codecs.ts";
import { ConflictError } from "../../../client/errors.ts";
import type { Entry } from "../../../client/kv-types.ts";
import { utf8 as utf8Bytes } from "../../../protocol/bytes.ts";
import { encodeResults } from "../../../protocol/commands.ts";
import { KEY_BYTES_MAX, VALUE_BYTES_MAX } from "../../../protocol/limits.ts";
import { behaviours } from "./fake-replicas.ts";
import { answerOf, connected, errorOf } from "./fixture.ts";

async function collected<T>(entries: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const entry of entries) all.push(entry);
  return all;
}

describe("writes", () => {
  test("put with conditions, delete, compare-and-swap", async () => {
    const { clock, kv } = await connected();
    const run = <T>(promise: Promise<T>) => answerOf(clock, promise);
    expect(await run(kv.put("a", "1", { ifAbsent: true }))).toEqual({ revision: 1n, createRevision: 1n, version: 1n });
    expect(await run(kv.put("a", "2", { ifRevision: 1n }))).toEqual({ revision: 2n, createRevision: 1n, version: 2n });
    await expect(errorOf(clock, kv.put("a", "3", { ifRevision: 1n }))).resolves.toMatchObject({ revision: 2n });
    await expect(errorOf(clock, kv.put("b", "3", { ifRevision: 7n }))).resolves.toMatchObject({ revision: 0n });
    await expect(errorOf(clock, kv.delete("a", { ifRevision: 1n }))).resolves.toBeInstanceOf(ConflictError);
    expect(await run(kv.cas("a", { expect: "absent", value: "x" }))).toEqual({ swapped: false, revision: 2n });
    expect(await run(kv.cas("a", { expect: 2n, value: "x" }))).toEqual({ swapped: true, revision: 3n });
    expect(await run(kv.cas("c", { expect: 5n, value: "x" }))).toEqual({ swapped: false, revision: 0n });
    expect(await run(kv.delete("a"))).toEqual({ deleted: true, revision: 4n });
    expect(await run(kv.delete("a"))).toEqual({ deleted: false, revision: 4n });
  });

  test.each([
    ["KEY_EMPTY", ""],
    ["KEY_TOO_LARGE", "k".repeat(KEY_BYTES_MAX + 1)],
    ["KEY_TOO_LARGE", new Uint8Array(KEY_BYTES_MAX + 1)],
    ["INVALID_ARGUMENT", "\ud800"],
  ])("%s is found before anything is sent", async (code, key) => {
    const { clock, cluster, kv } = await connected();
    for (const promise of [kv.put(key, ""), kv.get(key), kv.delete(key), kv.cas(key, { expect: 1n, value: "" })]) {
      expect(await errorOf(clock, promise)).toMatchObject({ code });
    }
    expect(cluster.replica(0).received).toHaveLength(0);
  });

  test("the largest key and value pass; a larger value, a wrong revision and both conditions do not", async () => {
    const { clock, kv } = await connected();
    const key = "k".repeat(KEY_BYTES_MAX);
    await answerOf(clock, kv.put(key, "v".repeat(VALUE_BYTES_MAX)));
    expect((await answerOf(clock, kv.get(key), 500))?.value).toHaveLength(VALUE_BYTES_MAX);
    const wrong = [
      [kv.put("a", "v".repeat(VALUE_BYTES_MAX + 1)), "VALUE_TOO_LARGE"],
      [kv.put("a", "", { ifRevision: -1n }), "INVALID_ARGUMENT"],
      [kv.put("a", "", { ifRevision: 2n ** 53n }), "INVALID_ARGUMENT"],
      [kv.put("a", "", { ifRevision: 1n, ifAbsent: true }), "INVALID_ARGUMENT"],
      [kv.put("a", "\udc00"), "INVALID_ARGUMENT"],
      [kv.service.invokeOrdered(new Uint8Array(2 * 1024 * 1024)), "REQUEST_TOO_LARGE"],
      [kv.outcome({ session: 0, sequence: 1 }), "INVALID_ARGUMENT"],
    ] as const;
    for (const [promise, code] of wrong) expect(await errorOf(clock, promise)).toMatchObject({ code });
  });

  test("a refusal by the service carries its code", async () => {
    const { clock, kv } = await connected();
    const result = await answerOf(clock, kv.service.invokeOrdered(utf8Bytes("nonsense")));
    expect(result).toBeInstanceOf(Uint8Array);
  });
});

describe("reads", () => {
  test("results of another service are said to be that, perhaps", async () => {
    const { clock, cluster, kv } = await connected();
    for (const replica of cluster.replicas)
      replica.behaviour = behaviours.says("OK", encodeResults([Uint8Array.of(1)]));
    const error = await errorOf(clock, kv.get("k"));
    expect(error).toMatchObject({ code: "DECODE_FAILED", message: expect.stringContaining("another service than") });
  });

  test("keys and values are bytes, whatever they are", async () => {
    const { clock, kv } = await connected();
    const raw = kv.withCodec(bytes);
    const key = new Uint8Array([0, 255, 128, 10]);
    const value = Uint8Array.from({ length: 256 }, (_, at) => at);
    await answerOf(clock, raw.put(key, value));
    const entry = await answerOf(clock, raw.get(key));
    expect(entry?.keyBytes).toEqual(key);
    expect(entry?.value).toEqual(value);
    expect(await errorOf(clock, kv.get(key))).toMatchObject({ code: "DECODE_FAILED" });
  });

  test("text comes back as it was, a byte order mark included", async () => {
    const { clock, kv } = await connected();
    for (const text of ["", "\ufeffmark", "grüße 🙂", "\0"]) {
      await answerOf(clock, kv.put("\ufeffkey", text));
      expect(await answerOf(clock, kv.get("\ufeffkey"))).toMatchObject({ key: "\ufeffkey", value: text });
    }
    expect((await answerOf(clock, kv.page())).entries[0]?.key).toBe("\ufeffkey");
  });

  test("range: prefix, bounds, limit, reverse, keysOnly, over pages of any size", async () => {
    const { clock, kv } = await connected();
    const keys = ["a", "b/1", "b/2", "b/3", "b\uffff", "c"];
    await answerOf(clock, Promise.all(keys.map((key) => kv.put(key, `v ${key}`))));
    const names = async (options: Parameters<typeof kv.range>[0]) =>
      (await answerOf(clock, collected(kv.range(options)))).map(({ key }) => key);
    for (const pageSize of [undefined, 1, 2, 100]) {
      const page = { pageSize };
      expect(await names({ ...page })).toEqual(keys);
      expect(await names({ ...page, prefix: "b/" })).toEqual(["b/1", "b/2", "b/3"]);
      expect(await names({ ...page, from: "b/2", to: "c" })).toEqual(["b/2", "b/3", "b\uffff"]);
      expect(await names({ ...page, prefix: "b/", reverse: true })).toEqual(["b/3", "b/2", "b/1"]);
      expect(await names({ ...page, limit: 4 })).toEqual(keys.slice(0, 4));
      expect(await names({ ...page, limit: 3, reverse: true })).toEqual(["c", "b\uffff", "b/3"]);
      expect(await names({ ...page, limit: 0 })).toEqual([]);
      expect(await names({ ...page, prefix: "z" })).toEqual([]);
    }
    const only = await answerOf(clock, collected(kv.range({ keysOnly: true, pageSize: 2 })));
    expect(only.map((entry) => "value" in entry)).toEqual(keys.map(() => false));
  });

  test("page: atomic, with the store revision and a continuation", async () => {
    const { clock, kv } = await connected();
    await answerOf(clock, Promise.all(["a", "b", "c"].map((key) => kv.put(key, key))));
    const first = await answerOf(clock, kv.page({ limit: 2 }));
    expect(first).toMatchObject({ revision: 3n, entries: [{ key: "a" }, { key: "b", value: "b" }] });
    if (first.continuation === null) throw new Error("there is more");
    const second = await answerOf(clock, kv.page({ limit: 2, continuation: first.continuation }));
    expect(second).toMatchObject({ entries: [{ key: "c" }], continuation: null });
    const back = await answerOf(clock, kv.page({ limit: 2, reverse: true }));
    const rest = await answerOf(clock, kv.page({ limit: 2, reverse: true, continuation: back.continuation ?? "" }));
    expect(rest.entries.map(({ key }) => key)).toEqual(["a"]);
    for (const wrong of [
      { continuation: "zz" },
      { continuation: "" },
      { prefix: "a", from: "b" },
      { limit: -1 },
      { limit: 1.5 },
    ]) {
      expect(await errorOf(clock, kv.page(wrong))).toMatchObject({ code: "INVALID_ARGUMENT" });
    }
  });

  test("an abort ends a range between and within pages", async () => {
    const { clock, kv } = await connected();
    await answerOf(clock, Promise.all(["a", "b", "c"].map((key) => kv.put(key, key))));
    const controller = new AbortController();
    const seen: string[] = [];
    const reading = (async () => {
      for await (const { key } of kv.range({ pageSize: 1, signal: controller.signal })) {
        seen.push(key);
        controller.abort();
      }
    })();
    expect(await errorOf(clock, reading)).toMatchObject({ code: "ABORTED" });
    expect(seen).toEqual(["a"]);
  });
});

describe("codecs", () => {
  test("json: typed, and checked by a schema both ways", async () => {
    const { clock, kv } = await connected();
    const users = kv.withCodec(json(z.object({ name: z.string() })));
    await answerOf(clock, users.put("u", { name: "Ada" }));
    const entry = await answerOf(clock, users.get("u"));
    expectTypeOf(entry).toEqualTypeOf<Entry<{ name: string }> | null>();
    expect(entry?.value).toEqual({ name: "Ada" });
    expect(await errorOf(clock, users.put("u", { name: 1 } as unknown as { name: string }))).toMatchObject({
      code: "INVALID_ARGUMENT",
    });
    await answerOf(clock, kv.put("u", '{"name":1}'));
    expect(await errorOf(clock, users.get("u"))).toMatchObject({ code: "DECODE_FAILED" });
    await answerOf(clock, kv.put("u", "{"));
    expect(await errorOf(clock, kv.withCodec(json<unknown>()).get("u"))).toMatchObject({ code: "DECODE_FAILED" });
    expect(await errorOf(clock, kv.withCodec(json<unknown>()).put("u", undefined))).toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });

  test("utf8 and bytes refuse what they are not for", () => {
    expect(() => utf8.encode(1 as unknown as string)).toThrow(/no string/);
    expect(() => bytes.encode("x" as unknown as Uint8Array)).toThrow(/no Uint8Array/);
    expect(() => utf8.decode(new Uint8Array([255]))).toThrow(/not UTF-8/);
    const raw = new Uint8Array([1, 2]);
    expect(bytes.decode(raw)).not.toBe(raw);
  });

  test("an asynchronous schema is refused", () => {
    const codec = json<number>({ "~standard": { validate: (value) => Promise.resolve({ value: value as number }) } });
    expect(() => codec.decode(utf8Bytes("1"))).toThrow(/asynchronously/);
  });
});
