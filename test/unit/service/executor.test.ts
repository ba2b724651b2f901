/** Execution of batches, groups of changes, unordered queries; and the Service contract with a second service. */
import { describe, expect, test } from "vitest";
import { EMPTY, latin1, textOf, utf8 } from "../../../protocol/bytes.ts";
import { decodeResults } from "../../../protocol/commands.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { InvariantViolation, QuorateError } from "../../../protocol/errors.ts";
import { FRAME_BYTES_MAX, VALUE_BYTES_MAX } from "../../../protocol/limits.ts";
import { BATCH_RESULTS_BYTES_MAX } from "../../../server/service/executor.ts";
import { CounterService } from "./counter-service.ts";
import { ALICE, Bench, command, dump, GENESIS, get, only, put, request, resultsOf } from "./fixtures.ts";

describe("execute", () => {
  test("only the next instance, and batch time never goes back", () => {
    const { executor } = new Bench();
    const batch = (instance: number, timestampMs: number) => () =>
      executor.execute({ instance, timestampMs, requests: [] }, GENESIS);
    expect(batch(2, 5)).toThrow(InvariantViolation);
    batch(1, 5)();
    expect(batch(1, 5)).toThrow(InvariantViolation);
    expect(batch(2, 4)).toThrow(InvariantViolation);
    batch(2, 5)();
    expect(executor.applied).toEqual({ instance: 2, digest: GENESIS, timestampMs: 5 });
  });

  test("answers in the order of the requests, with the digest of the result", () => {
    const bench = new Bench();
    const requests = [3, 1, 2].map((sequence) => request({ sequence }));
    const replies = bench.batch(requests);
    expect(replies.map((reply) => reply.request)).toEqual(requests);
    for (const reply of replies) expect(reply.resultDigest).toBe(nodeCrypto.sha256(reply.result ?? EMPTY));
  });

  test("nothing kept aliases the batch", () => {
    const bench = new Bench();
    const network = request({ commands: [put("key", "value")] });
    bench.one(network);
    bench.one(request({ sequence: 2, commands: [get("key")] }));
    network.bytes.fill(0xee);
    bench.write();
    for (const line of dump(bench.store)) expect(line).not.toContain("eeeeeeee");
    const [found] = resultsOf(bench.one(request({ sequence: 3, commands: [get("key")] })));
    expect(found?.type === "found" ? textOf(found.value) : null).toBe("value");
  });

  test("a bundle of large reads stops where its reply would outgrow a frame; its writes go on", () => {
    const bench = new Bench();
    bench.one(
      request({
        commands: [command({ type: "put", key: utf8("a"), value: new Uint8Array(VALUE_BYTES_MAX), ifRevision: null })],
      }),
    );
    const commands = [
      ...new Array<Uint8Array>(9_998).fill(get("a")),
      put("b"),
      command({ type: "delete", key: utf8("b"), ifRevision: null }),
    ];
    const reply = bench.one(request({ sequence: 2, commands }));
    expect(reply.result?.length).toBeLessThan(FRAME_BYTES_MAX - 1024);
    const types = resultsOf(reply).map((result) => (result.type === "refused" ? result.code : result.type));
    expect(types.slice(0, 6)).toEqual(["found", "found", "found", "found", "BUSY", "BUSY"]);
    expect(types.slice(-3)).toEqual(["BUSY", "written", "deleted"]);
  });

  test("the reads of a batch together are bounded", () => {
    const bench = new Bench();
    const replyBytes = 2 * 1024 * 1024;
    const noop = command({ type: "noop", payload: EMPTY, replyBytes });
    const replies = bench.batch(
      Array.from({ length: 40 }, (_, index) => request({ sequence: index + 1, commands: [noop] })),
    );
    const bytes = replies.reduce((sum, reply) => sum + (reply.result?.length ?? 0), 0);
    expect(bytes).toBeGreaterThan(BATCH_RESULTS_BYTES_MAX - replyBytes);
    expect(bytes).toBeLessThan(BATCH_RESULTS_BYTES_MAX + 2 * replyBytes);
    expect(resultsOf(replies.at(-1) ?? { result: null })).toMatchObject([{ type: "refused", code: "BUSY" }]);
  });
});

describe("groups", () => {
  test("hold everything since the last one, and where the state then stands", () => {
    const bench = new Bench();
    expect(bench.executor.takeGroup()).toBeNull();
    bench.one(request({ commands: [put("a")] }));
    bench.one(request({ sequence: 2, commands: [put("b")] }));
    const group = bench.executor.takeGroup();
    expect(group?.applied).toEqual(bench.executor.applied);
    expect([...(group?.changes.keys() ?? [])].filter((key) => key.startsWith("k"))).toEqual(["k", "ka", "kb"]);
    expect(bench.executor.takeGroup()).toBeNull();
    bench.batch([]);
    expect(bench.executor.takeGroup()).toMatchObject({ changes: new Map(), applied: { instance: 3 } });
  });

  test("reads see changes while collected, in flight and on disk", () => {
    const bench = new Bench();
    let sequence = 0;
    const read = (): string => {
      const result = only(decodeResults(bench.executor.query(request({ commands: [get("a")] }))?.result ?? EMPTY));
      return latin1(result).includes("one") ? "one" : latin1(result).includes("two") ? "two" : "none";
    };
    const write = (value: string): void =>
      void bench.one(request({ sequence: ++sequence, commands: [put("a", value)] }));
    write("one");
    expect(read()).toBe("one");
    bench.write();
    expect(read()).toBe("one");
    write("two");
    bench.write();
    expect(read()).toBe("two");
    bench.executor.groupDurable();
    expect(read()).toBe("two");
    bench.executor.groupDurable();
    expect(read()).toBe("two");
    bench.one(
      request({ sequence: ++sequence, commands: [command({ type: "delete", key: utf8("a"), ifRevision: null })] }),
    );
    expect(read()).toBe("none");
    bench.write();
    bench.executor.groupDurable();
    expect(read()).toBe("none");
    expect(() => bench.executor.groupDurable()).toThrow(InvariantViolation);
  });

  test("a sequence finished before its group is taken is never written", () => {
    const bench = new Bench();
    for (let sequence = 1; sequence <= 50; sequence++) bench.one(request({ sequence, ackedBelow: sequence }));
    const sequences = [...(bench.executor.takeGroup()?.changes.keys() ?? [])].filter((key) => key.startsWith("q"));
    expect(sequences).toHaveLength(1);
  });

  test("only what changed is written again", () => {
    const bench = new Bench();
    bench.batch([request(), request({ client: nodeCrypto.sha256(utf8("another")) })], 10);
    bench.write();
    bench.one(request({ sequence: 2 }), 11);
    const keys = [...(bench.executor.takeGroup()?.changes.keys() ?? [])];
    expect(
      keys.filter((key) => !key.startsWith("k")).map((key) => key[0] + key.slice(1, 33).replace(ALICE, "A")),
    ).toEqual(["cA", "cA", "qA"]);
  });
});

describe("load", () => {
  test.each([
    ["an unknown name space", "zebra", EMPTY],
    ["another meta value", "mother", EMPTY],
    ["a client cut short", `c${ALICE}`, new Uint8Array(15)],
    ["a client key cut short", "cabc", new Uint8Array(16)],
    ["a session without its client", `c${ALICE}12345678`, new Uint8Array(16)],
    ["a sequence without its session", `q${ALICE}1234567812345678`, new Uint8Array(80)],
    ["an entry cut short", "kkey", new Uint8Array(23)],
    ["a revision too long", "k", new Uint8Array(9)],
  ])("%s is damage", (_name, key, value) => {
    expect(() => new Bench().executor.load(key, value)).toThrow(QuorateError);
  });
});

describe("query", () => {
  test("results of all commands and the store revision, or null when one is no query", () => {
    const bench = new Bench();
    bench.one(request({ commands: [put("a"), put("b")] }));
    const answer = bench.executor.query(request({ kind: "unordered", commands: [get("a"), get("x")] }));
    expect(answer?.revision).toBe(2);
    expect(resultsOf({ result: answer?.result ?? null }).map((result) => result.type)).toEqual(["found", "absent"]);
    expect(bench.executor.query(request({ commands: [get("a"), put("a")] }))).toBeNull();
    expect(bench.executor.revision).toBe(2);
  });

  test("null when the results would not fit one reply", () => {
    const bench = new Bench();
    const noop = command({ type: "noop", payload: EMPTY, replyBytes: 2 * 1024 * 1024 });
    expect(bench.executor.query(request({ commands: [noop, noop] }))).not.toBeNull();
    expect(bench.executor.query(request({ commands: [noop, noop, noop] }))).toBeNull();
  });
});

test("a second service runs on the same contract, across a restart", () => {
  const bench = new Bench({ service: (state) => new CounterService(state) });
  const run = (sequence: number, ...texts: string[]): string[] => {
    const reply = bench.one(request({ sequence, commands: texts.map(utf8) }));
    return decodeResults(reply.result ?? EMPTY).map(latin1);
  };
  expect(run(1, "+hits", "+hits", "?hits", "nonsense")).toEqual(["1", "2", "2", ""]);
  expect(run(1, "+hits", "+hits", "?hits", "nonsense")).toEqual(["1", "2", "2", ""]);
  bench.restart();
  expect(run(2, "+hits")).toEqual(["3"]);
  expect(bench.executor.revision).toBe(3);
  expect(bench.executor.query(request({ commands: [utf8("?hits")] }))?.revision).toBe(3);
  expect(bench.executor.query(request({ commands: [utf8("+hits")] }))).toBeNull();
});
