/** The key-value service: revisions, conditions, ranges, refusals. */
import { describe, expect, test } from "vitest";
import { EMPTY, utf8 } from "../../../protocol/bytes.ts";
import { type Command, decodeResult, encodeCommand, type Result, type ResultOf } from "../../../protocol/commands.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import {
  KEY_BYTES_MAX,
  RANGE_BYTES_MAX,
  RANGE_ENTRIES_MAX,
  REQUEST_BYTES_MAX,
  VALUE_BYTES_MAX,
} from "../../../protocol/limits.ts";
import type { ServiceState } from "../../../server/service/contract.ts";
import { KvService } from "../../../server/service/kv-service.ts";

class MapState extends Map<string, Uint8Array> implements ServiceState {
  override set(key: string, value: Uint8Array): this {
    return super.set(key, Uint8Array.from(value));
  }
}

class Kv {
  readonly state = new MapState();
  readonly service = new KvService(this.state);
  replyFull = false;

  raw(bytes: Uint8Array): Result {
    const context = { instance: 1, timestampMs: 1, client: nodeCrypto.sha256(EMPTY), replyFull: this.replyFull };
    return decodeResult(this.service.execute(bytes, context));
  }

  run(command: Command): Result {
    return this.raw(encodeCommand(command));
  }

  put(key: string | Uint8Array, value: string | Uint8Array = "v", ifRevision: number | null = null): Result {
    return this.run({ type: "put", key: raw(key), value: raw(value), ifRevision });
  }

  delete(key: string, ifRevision: number | null = null): Result {
    return this.run({ type: "delete", key: utf8(key), ifRevision });
  }

  get(key: string): Result {
    return this.run({ type: "get", key: utf8(key) });
  }

  page(options: Partial<Extract<Command, { type: "range" }>> = {}): ResultOf<"page"> {
    const result = this.run({
      type: "range",
      from: EMPTY,
      to: null,
      limit: 0,
      reverse: false,
      keysOnly: false,
      ...options,
    });
    if (result.type !== "page") throw new Error(result.type);
    return result;
  }

  keys(options: Parameters<Kv["page"]>[0] = {}): string {
    return this.page(options)
      .entries.map((entry) => Buffer.from(entry.key).toString())
      .join(" ");
  }
}

function raw(value: string | Uint8Array): Uint8Array {
  return typeof value === "string" ? utf8(value) : value;
}

function written(createRevision: number, modRevision: number, version: number): Result {
  return { type: "written", createRevision, modRevision, version };
}

describe("revisions", () => {
  test("the store revision rises by one per mutation, entries carry theirs", () => {
    const kv = new Kv();
    expect(kv.put("a", "1")).toEqual(written(1, 1, 1));
    expect(kv.put("b", "2")).toEqual(written(2, 2, 1));
    expect(kv.put("a", "3")).toEqual(written(1, 3, 2));
    expect(kv.get("a")).toMatchObject({ type: "found", createRevision: 1, modRevision: 3, version: 2 });
    expect(kv.service.revision).toBe(3);
  });

  test("a deleted key is absent; recreated it starts again with version 1", () => {
    const kv = new Kv();
    kv.put("a");
    expect(kv.delete("a")).toEqual({ type: "deleted", revision: 2 });
    expect(kv.get("a")).toEqual({ type: "absent", revision: 2 });
    expect(kv.state.has("a")).toBe(false);
    expect(kv.put("a")).toEqual(written(3, 3, 1));
  });

  test("what changes nothing leaves the revision", () => {
    const kv = new Kv();
    kv.put("a");
    expect(kv.delete("missing")).toEqual({ type: "absent", revision: 1 });
    kv.put("a", "x", 9);
    kv.get("a");
    kv.page();
    kv.run({ type: "noop", payload: utf8("x"), replyBytes: 1 });
    kv.put("", "x");
    expect(kv.service.revision).toBe(1);
  });
});

describe("conditions", () => {
  test("put: 0 must be absent, R must equal modRevision; a failed one returns revisions only", () => {
    const kv = new Kv();
    expect(kv.put("a", "1", 5)).toEqual({ type: "conflict", modRevision: 0 });
    expect(kv.put("a", "1", 0)).toEqual(written(1, 1, 1));
    expect(kv.put("a", "2", 0)).toEqual({ type: "conflict", modRevision: 1 });
    expect(kv.put("a", "2", 2)).toEqual({ type: "conflict", modRevision: 1 });
    expect(kv.put("a", "2", 1)).toEqual(written(1, 2, 2));
    expect(kv.get("a")).toMatchObject({ value: Buffer.from("2") });
  });

  test("cas: the same, its condition always stands", () => {
    const kv = new Kv();
    const cas = (expected: number): Result =>
      kv.run({ type: "cas", key: utf8("a"), expect: expected, value: utf8("v") });
    expect(cas(1)).toEqual({ type: "conflict", modRevision: 0 });
    expect(cas(0)).toEqual(written(1, 1, 1));
    expect(cas(0)).toEqual({ type: "conflict", modRevision: 1 });
    expect(cas(1)).toEqual(written(1, 2, 2));
  });

  test("delete", () => {
    const kv = new Kv();
    kv.put("a");
    expect(kv.delete("a", 2)).toEqual({ type: "conflict", modRevision: 1 });
    expect(kv.delete("a", 0)).toEqual({ type: "conflict", modRevision: 1 });
    expect(kv.delete("a", 1)).toEqual({ type: "deleted", revision: 2 });
    expect(kv.delete("a", 0)).toEqual({ type: "absent", revision: 2 });
    expect(kv.delete("a", 1)).toEqual({ type: "conflict", modRevision: 0 });
  });
});

describe("range", () => {
  function filled(): Kv {
    const kv = new Kv();
    for (const key of ["d", "b", "a", "c", "ab"]) kv.put(key, `value ${key}`);
    return kv;
  }

  test.each([
    ["everything", {}, "a ab b c d"],
    ["[from, to)", { from: utf8("ab"), to: utf8("c") }, "ab b"],
    ["from between keys", { from: utf8("aa") }, "ab b c d"],
    ["to between keys", { to: utf8("bb") }, "a ab b"],
    ["empty", { from: utf8("x") }, ""],
    ["to below from", { from: utf8("c"), to: utf8("b") }, ""],
    ["to the empty key", { to: EMPTY }, ""],
    ["reverse", { reverse: true }, "d c b ab a"],
    ["reverse [from, to)", { from: utf8("ab"), to: utf8("c"), reverse: true }, "b ab"],
    ["reverse, to between keys", { to: utf8("bb"), reverse: true }, "b ab a"],
    ["reverse, to beyond all", { to: utf8("zz"), reverse: true }, "d c b ab a"],
    ["reverse, to the empty key", { to: EMPTY, reverse: true }, ""],
    ["reverse, to below from", { from: utf8("c"), to: utf8("b"), reverse: true }, ""],
  ])("%s", (_name, options, keys) => {
    const kv = filled();
    expect(kv.keys(options)).toBe(keys);
    expect(kv.page(options).more).toBe(false);
  });

  test("limit: `more` only when entries of the range are left", () => {
    const kv = filled();
    const page = (limit: number, reverse: boolean): string =>
      `${kv.keys({ limit, reverse, to: utf8("c") })} ${kv.page({ limit, reverse, to: utf8("c") }).more}`;
    expect(page(2, false)).toBe("a ab true");
    expect(page(3, false)).toBe("a ab b false");
    expect(page(2, true)).toBe("b ab true");
    expect(page(3, true)).toBe("b ab a false");
  });

  test("entries carry value and revisions, keysOnly none of the value; the page names the store revision", () => {
    const kv = filled();
    kv.put("a", "new");
    const revisions = { key: Buffer.from("a"), createRevision: 3, modRevision: 6, version: 2 };
    expect(kv.page({ limit: 1 })).toMatchObject({
      revision: 6,
      entries: [{ ...revisions, value: Buffer.from("new") }],
    });
    expect(kv.page({ limit: 1, keysOnly: true })).toMatchObject({ entries: [{ ...revisions, value: null }] });
  });

  test("of an empty store, in both directions", () => {
    const kv = new Kv();
    for (const reverse of [false, true]) {
      expect(kv.page({ reverse, to: utf8("k") })).toEqual({ type: "page", revision: 0, more: false, entries: [] });
    }
  });

  test("binary keys are ordered by bytes", () => {
    const kv = new Kv();
    for (const byte of [255, 0, 128, 127]) kv.put(new Uint8Array([byte]));
    kv.put(new Uint8Array([0, 0]));
    expect(kv.page().entries.map((entry) => Buffer.from(entry.key).toString("hex"))).toEqual([
      "00",
      "0000",
      "7f",
      "80",
      "ff",
    ]);
    const reversed = kv.page({ reverse: true, from: new Uint8Array([0, 0]), to: new Uint8Array([255]) });
    expect(reversed.entries.map((entry) => Buffer.from(entry.key).toString("hex"))).toEqual(["80", "7f", "0000"]);
  });

  test("pages are bounded by bytes, with at least one entry", () => {
    const kv = new Kv();
    for (const key of ["a", "b", "c"]) kv.put(key, new Uint8Array(RANGE_BYTES_MAX / 2 - 1));
    kv.put("d", new Uint8Array(VALUE_BYTES_MAX));
    expect(`${kv.keys()} ${kv.page().more}`).toBe("a b true");
    expect(`${kv.keys({ from: utf8("d") })} ${kv.page({ from: utf8("d") }).more}`).toBe("d false");
    expect(`${kv.keys({ reverse: true })} ${kv.page({ reverse: true }).more}`).toBe("d true");
    expect(kv.keys({ keysOnly: true })).toBe("a b c d");
  });

  test("pages are bounded by entries, whatever the limit says", () => {
    const kv = new Kv();
    for (let index = 0; index <= RANGE_ENTRIES_MAX; index++) kv.put(`${index}`, EMPTY);
    for (const limit of [0, 0xffff_ffff]) {
      const page = kv.page({ limit });
      expect([page.entries.length, page.more]).toEqual([RANGE_ENTRIES_MAX, true]);
    }
  });
});

describe("refusals", () => {
  const code = (result: Result): string => (result.type === "refused" ? result.code : result.type);

  test("keys and values by size", () => {
    const kv = new Kv();
    expect(code(kv.put("", "v"))).toBe("KEY_EMPTY");
    expect(code(kv.put(new Uint8Array(KEY_BYTES_MAX + 1)))).toBe("KEY_TOO_LARGE");
    expect(code(kv.put(new Uint8Array(KEY_BYTES_MAX)))).toBe("written");
    expect(code(kv.put("a", new Uint8Array(VALUE_BYTES_MAX + 1)))).toBe("VALUE_TOO_LARGE");
    expect(code(kv.put("a", new Uint8Array(VALUE_BYTES_MAX)))).toBe("written");
    expect(code(kv.get(""))).toBe("KEY_EMPTY");
    expect(code(kv.delete(""))).toBe("KEY_EMPTY");
    expect(code(kv.get("x".repeat(KEY_BYTES_MAX + 1)))).toBe("KEY_TOO_LARGE");
    expect(code(kv.delete("x".repeat(KEY_BYTES_MAX + 1)))).toBe("KEY_TOO_LARGE");
    expect(code(kv.run({ type: "cas", key: EMPTY, expect: 0, value: EMPTY }))).toBe("KEY_EMPTY");
  });

  test("malformed commands never throw", () => {
    const kv = new Kv();
    for (const bytes of [
      EMPTY,
      utf8("garbage"),
      new Uint8Array([0x81, 99]),
      encodeCommand({ type: "get", key: utf8("k") }).subarray(1),
    ]) {
      expect(code(kv.raw(bytes))).toBe("INVALID_ARGUMENT");
    }
  });

  test("noop answers as many zero bytes as asked, up to a request's size", () => {
    const kv = new Kv();
    const noop = (replyBytes: number): Result => kv.run({ type: "noop", payload: utf8("payload"), replyBytes });
    expect(noop(3)).toEqual({ type: "noop", payload: Buffer.from([0, 0, 0]) });
    expect(code(noop(REQUEST_BYTES_MAX))).toBe("noop");
    expect(code(noop(REQUEST_BYTES_MAX + 1))).toBe("INVALID_ARGUMENT");
  });

  test("when the reply is full reads are refused and writes go on", () => {
    const kv = new Kv();
    kv.put("a");
    kv.replyFull = true;
    expect(code(kv.get("a"))).toBe("BUSY");
    expect(code(kv.run({ type: "noop", payload: EMPTY, replyBytes: 1 }))).toBe("BUSY");
    expect(() => kv.page()).toThrow("refused");
    expect([kv.put("a"), kv.delete("a")].map(code)).toEqual(["written", "deleted"]);
  });
});

test("query: get, range and noop are answered, nothing that writes", () => {
  const kv = new Kv();
  kv.put("a", "1");
  const query = (command: Command): string | null => {
    const result = kv.service.query(encodeCommand(command));
    return result && decodeResult(result).type;
  };
  const key = utf8("a");
  expect(query({ type: "get", key })).toBe("found");
  expect(query({ type: "range", from: EMPTY, to: null, limit: 0, reverse: false, keysOnly: false })).toBe("page");
  expect(query({ type: "noop", payload: EMPTY, replyBytes: 2 })).toBe("noop");
  expect(query({ type: "put", key, value: key, ifRevision: null })).toBeNull();
  expect(query({ type: "delete", key, ifRevision: null })).toBeNull();
  expect(query({ type: "cas", key, expect: 1, value: key })).toBeNull();
  expect(kv.service.query(utf8("garbage"))).not.toBeNull();
  expect([kv.service.revision, kv.service.size]).toEqual([1, 1]);
});

test("loads what it stored", () => {
  const kv = new Kv();
  for (const key of ["b", "a", "c"]) kv.put(key, `value ${key}`);
  kv.put("a", "again");
  kv.delete("c");
  const again = new KvService(kv.state);
  for (const key of [...kv.state.keys()].sort()) again.load(key, kv.state.get(key) as Uint8Array);
  expect([again.revision, again.size]).toEqual([5, 2]);
  const range = encodeCommand({ type: "range", from: EMPTY, to: null, limit: 0, reverse: false, keysOnly: false });
  expect(again.query(range)).toEqual(kv.service.query(range));
});

test("a get that was answered before is answered as the store is now: found again, written, deleted, made anew", () => {
  const kv = new Kv();
  const key = utf8("a");
  const plain = (result: Result): Result =>
    result.type === "found" ? { ...result, value: Uint8Array.from(result.value) } : result;
  const queried = (): Result => decodeResult(kv.service.query(encodeCommand({ type: "get", key })) as Uint8Array);
  const answers = (): Result[] => [queried(), kv.get("a"), queried(), kv.get("a")].map(plain);
  for (const [step, size] of [0, 1, 100, 0, 5_000, 100, VALUE_BYTES_MAX, 1].entries()) {
    const value = new Uint8Array(size).fill(step);
    const written = kv.put(key, value);
    if (written.type !== "written") throw new Error(written.type);
    const { createRevision, modRevision, version } = written;
    const found: Result = { type: "found", value, createRevision, modRevision, version };
    // Refused by its condition: nothing changed, and nothing else is said.
    expect(kv.put(key, "other", modRevision + 1)).toMatchObject({ type: "conflict" });
    expect(answers()).toEqual([found, found, found, found]);
    if (step % 3 !== 2) continue;
    kv.delete("a");
    const absent: Result = { type: "absent", revision: kv.service.revision };
    expect(answers()).toEqual([absent, absent, absent, absent]);
  }
});
