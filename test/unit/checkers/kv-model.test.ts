/** The key-value specification: each anomaly by hand, then on generated histories, legal ones and changed ones. */
import { describe, expect, test } from "vitest";
import type { HistoryRecord, KvAnswer, KvOperation } from "../../simulation/checkers/history.ts";
import { checkHistory } from "../../simulation/checkers/kv-model.ts";
import { HistoryError } from "../../simulation/checkers/linearizability.ts";
import { seeded } from "../../simulation/random.ts";
import { CHANGES, doubleExecution, generateHistory } from "./generated-histories.ts";

let processes = 0;

function call(times: readonly [number, number], op: KvOperation, answer: KvAnswer, key = "k"): HistoryRecord {
  const [callUs, returnUs] = times;
  processes += 1;
  return { process: `p${processes}`, key, op, callUs, returnUs, outcome: { type: "ok", answer } };
}

function lost(callUs: number, op: KvOperation, key = "k"): HistoryRecord {
  processes += 1;
  return { process: `p${processes}`, key, op, callUs, returnUs: null, outcome: { type: "unknown" } };
}

function failed(times: readonly [number, number], op: KvOperation): HistoryRecord {
  return { ...call(times, op, { type: "absent" }), outcome: { type: "failed" } };
}

const GET: KvOperation = { type: "get" };
const DELETE: KvOperation = { type: "delete", ifRevision: null };
const put = (value: string, ifRevision: number | null = null): KvOperation => ({ type: "put", value, ifRevision });
const cas = (value: string, expect: number): KvOperation => ({ type: "cas", value, expect });
const written = (modRevision: number): KvAnswer => ({ type: "written", modRevision });
const found = (value: string, modRevision: number): KvAnswer => ({ type: "found", value, modRevision });
const conflict = (modRevision: number): KvAnswer => ({ type: "conflict", modRevision });
const deleted = (revision: number): KvAnswer => ({ type: "deleted", revision });
const absent: KvAnswer = { type: "absent" };

function verdict(...records: readonly HistoryRecord[]): string {
  return checkHistory(records).verdict;
}

const first = call([0, 1], put("a"), written(1));

describe("one key, one call after the other", () => {
  test.each<[string, string, readonly HistoryRecord[]]>([
    ["put, get", "ok", [first, call([2, 3], GET, found("a", 1))]],
    ["another value", "illegal", [first, call([2, 3], GET, found("b", 1))]],
    ["another revision", "illegal", [first, call([2, 3], GET, found("a", 2))]],
    ["absent though written", "illegal", [first, call([2, 3], GET, absent)]],
    ["present though never written", "illegal", [call([2, 3], GET, found("a", 1))]],
    ["put of an absent key, absent", "ok", [call([0, 1], put("a", 0), written(1))]],
    ["put of a present key as absent", "illegal", [first, call([2, 3], put("b", 0), written(2))]],
    ["put with its revision", "ok", [first, call([2, 3], put("b", 1), written(2))]],
    ["put with another revision", "illegal", [first, call([2, 3], put("b", 7), written(2))]],
    ["conflict", "ok", [first, call([2, 3], put("b", 7), conflict(1))]],
    ["conflict that names the expected revision", "illegal", [first, call([2, 3], put("b", 1), conflict(1))]],
    ["conflict without a condition", "illegal", [first, call([2, 3], put("b"), conflict(1))]],
    ["conflict with another revision", "illegal", [first, call([2, 3], put("b", 7), conflict(2))]],
    ["conflict with an absent key", "ok", [call([2, 3], cas("b", 7), conflict(0))]],
    ["conflict with a key said to be absent", "illegal", [first, call([2, 3], cas("b", 7), conflict(0))]],
    [
      "a conflict changes nothing",
      "ok",
      [first, call([2, 3], cas("b", 7), conflict(1)), call([4, 5], GET, found("a", 1))],
    ],
    ["a revision that does not rise", "illegal", [first, call([2, 3], put("b"), written(1))]],
    ["delete, then absent", "ok", [first, call([2, 3], DELETE, deleted(2)), call([4, 5], GET, absent)]],
    ["delete of an absent key", "ok", [call([2, 3], DELETE, absent)]],
    ["delete that says absent of a present key", "illegal", [first, call([2, 3], DELETE, absent)]],
    ["delete of an absent key that deletes", "illegal", [call([2, 3], DELETE, deleted(1))]],
    ["conditional delete", "ok", [first, call([2, 3], { type: "delete", ifRevision: 1 }, deleted(2))]],
    ["conditional delete, refused", "ok", [first, call([2, 3], { type: "delete", ifRevision: 2 }, conflict(1))]],
    [
      "conditional delete against its condition",
      "illegal",
      [first, call([2, 3], { type: "delete", ifRevision: 2 }, deleted(3))],
    ],
    [
      "written again after a delete",
      "ok",
      [first, call([2, 3], DELETE, deleted(2)), call([4, 5], put("b", 0), written(3))],
    ],
    ["a get answers a put", "illegal", [call([0, 1], GET, written(1))]],
    ["a put answers found", "illegal", [call([0, 1], put("a"), found("a", 1))]],
    [
      "absent at a revision below one seen",
      "illegal",
      [call([0, 1], GET, { type: "absent", revision: 5 }), call([2, 3], GET, { type: "absent", revision: 4 })],
    ],
    [
      "written at a revision below one seen",
      "illegal",
      [call([0, 1], GET, { type: "absent", revision: 5 }), call([2, 3], put("a"), written(5))],
    ],
    [
      "version and creation",
      "ok",
      [
        call([0, 1], put("a"), { type: "written", modRevision: 3, version: 1, createRevision: 3 }),
        call([2, 3], put("b"), { type: "written", modRevision: 5, version: 2, createRevision: 3 }),
        call([4, 5], GET, { type: "found", value: "b", modRevision: 5, version: 2, createRevision: 3 }),
      ],
    ],
    ["a version that skips one", "illegal", [first, call([2, 3], put("b"), { ...written(2), version: 3 } as KvAnswer)]],
    ["another creation", "illegal", [first, call([2, 3], put("b"), { ...written(2), createRevision: 2 } as KvAnswer)]],
    ["a delete without a revision of its own", "illegal", [first, call([2, 3], DELETE, deleted(1))]],
    ["keys are apart", "ok", [first, call([2, 3], GET, absent, "other")]],
  ])("%s: %s", (_, expected, records) => {
    expect(verdict(...records)).toBe(expected);
  });
});

describe("anomalies", () => {
  const second = call([2, 3], put("b"), written(2));

  test("stale read", () => {
    expect(verdict(first, second, call([3, 5], GET, found("a", 1)))).toBe("ok");
    expect(verdict(first, second, call([4, 5], GET, found("a", 1)))).toBe("illegal");
  });

  test("lost update: two swaps from one revision", () => {
    const swap = call([4, 9], cas("x", 2), written(3));
    expect(verdict(first, second, swap, call([5, 8], cas("y", 2), conflict(3)))).toBe("ok");
    expect(verdict(first, second, swap, call([5, 8], cas("y", 2), written(4)))).toBe("illegal");
  });

  test("read of a value whose write failed", () => {
    expect(verdict(first, failed([2, 3], put("b")), call([4, 5], GET, found("a", 1)))).toBe("ok");
    expect(verdict(first, failed([2, 3], put("b")), call([4, 5], GET, found("b", 2)))).toBe("illegal");
  });

  test("resurrected delete", () => {
    const gone = call([2, 3], DELETE, deleted(2));
    expect(verdict(first, gone, call([4, 5], GET, found("a", 1)))).toBe("illegal");
    expect(verdict(first, gone, call([3, 5], GET, found("a", 1)))).toBe("ok");
  });

  test("real-time inversion across clients", () => {
    const slow = call([2, 20], put("b"), written(2));
    const saw = call([4, 5], GET, found("b", 2));
    expect(verdict(first, slow, saw, call([5, 7], GET, found("a", 1)))).toBe("ok");
    expect(verdict(first, slow, saw, call([6, 7], GET, found("a", 1)))).toBe("illegal");
  });
});

describe("writes of unknown outcome", () => {
  test("seen or not, but not seen and then unseen", () => {
    expect(verdict(first, lost(2, put("b")), call([4, 5], GET, found("a", 1)))).toBe("ok");
    expect(verdict(first, lost(2, put("b")), call([4, 5], GET, found("b", 7)))).toBe("ok");
    const saw = call([4, 5], GET, found("b", 7));
    expect(verdict(first, lost(2, put("b")), saw, call([6, 7], GET, found("a", 1)))).toBe("illegal");
    expect(verdict(first, lost(6, put("b")), saw)).toBe("illegal");
  });

  test("the revision that is seen first is the revision", () => {
    const unseen = lost(2, put("b"));
    const saw = call([4, 5], GET, found("b", 7));
    expect(verdict(first, unseen, saw, call([6, 7], GET, found("b", 7)))).toBe("ok");
    expect(verdict(first, unseen, saw, call([6, 7], GET, found("b", 8)))).toBe("illegal");
    expect(verdict(first, unseen, call([4, 5], cas("c", 7), written(8)))).toBe("ok");
    expect(verdict(first, unseen, call([4, 5], cas("c", 9), conflict(7)), call([6, 7], GET, found("b", 7)))).toBe("ok");
    expect(verdict(first, unseen, call([4, 5], cas("c", 9), conflict(7)), call([6, 7], GET, found("b", 8)))).toBe(
      "illegal",
    );
  });

  test("it took a revision of its own above the ones before it", () => {
    const saw = call([4, 5], GET, found("b", 1));
    expect(verdict(call([0, 1], put("a"), written(3)), lost(2, put("b")), saw)).toBe("illegal");
    const twice = [first, lost(2, put("b")), lost(2, put("c"))];
    expect(verdict(...twice, call([4, 5], GET, { ...found("c", 2), version: 3 } as KvAnswer))).toBe("illegal");
    expect(verdict(...twice, call([4, 5], GET, { ...found("c", 3), version: 3 } as KvAnswer))).toBe("ok");
  });

  test("it counts in versions and creations", () => {
    const detail = (version: number, createRevision: number): KvAnswer => ({
      type: "found",
      value: "b",
      modRevision: 7,
      version,
      createRevision,
    });
    expect(verdict(first, lost(2, put("b")), call([4, 5], GET, detail(2, 1)))).toBe("ok");
    expect(verdict(first, lost(2, put("b")), call([4, 5], GET, detail(3, 1)))).toBe("illegal");
    expect(verdict(lost(2, put("b")), call([4, 5], GET, detail(1, 7)))).toBe("ok");
    expect(verdict(lost(2, put("b")), call([4, 5], GET, detail(1, 6)))).toBe("illegal");
    expect(verdict(lost(0, put("a")), lost(2, put("b")), call([4, 5], GET, detail(2, 6)))).toBe("ok");
    expect(verdict(lost(0, put("a")), lost(2, put("b")), call([4, 5], GET, detail(2, 7)))).toBe("illegal");
  });

  test("conditions hold for it too", () => {
    expect(verdict(first, lost(2, cas("b", 9)), call([4, 5], GET, found("b", 2)))).toBe("illegal");
    expect(verdict(first, lost(2, cas("b", 1)), call([4, 5], GET, found("b", 2)))).toBe("ok");
    expect(verdict(first, lost(2, { type: "delete", ifRevision: 1 }), call([4, 5], GET, absent))).toBe("ok");
    expect(verdict(first, lost(2, { type: "delete", ifRevision: 9 }), call([4, 5], GET, absent))).toBe("illegal");
  });

  test("an unknown read is nothing", () => {
    expect(verdict(first, lost(2, GET))).toBe("ok");
  });
});

describe("generated histories", () => {
  test("legal ones are ok", () => {
    for (let seed = 1; seed <= 200; seed++) {
      const history = generateHistory(seeded(seed)).map(({ record }) => record);
      const result = checkHistory(history);
      if (result.verdict === "illegal") throw new Error(`seed ${seed}: ${result.text}`);
      expect([seed, result.verdict]).toEqual([seed, "ok"]);
    }
  });

  test("long and crowded ones too", () => {
    const options = { processes: 20, keys: 5, operations: 5_000 };
    for (let seed = 1; seed <= 3; seed++) {
      const history = generateHistory(seeded(seed), options).map(({ record }) => record);
      expect([seed, checkHistory(history).verdict]).toEqual([seed, "ok"]);
    }
  });

  test.each(Object.entries(CHANGES))("changed: %s is illegal", (_, change) => {
    let changed = 0;
    for (let seed = 1; seed <= 80; seed++) {
      const random = seeded(seed);
      const history = change(generateHistory(random), random);
      if (!history) continue;
      changed++;
      expect([seed, checkHistory(history).verdict]).toEqual([seed, "illegal"]);
    }
    expect(changed).toBeGreaterThan(20);
  });

  test("changed: a write that counts twice is illegal", () => {
    for (let seed = 1; seed <= 100; seed++) {
      const random = seeded(seed);
      const history = doubleExecution(generateHistory(random, { lossless: true }), random);
      expect([seed, history && checkHistory(history).verdict]).toEqual([seed, "illegal"]);
    }
  });
});

describe("impossible records are refused", () => {
  test("a return of unknown outcome, and none of a known one", () => {
    expect(() => checkHistory([{ ...first, returnUs: null }])).toThrow(HistoryError);
    expect(() => checkHistory([{ ...lost(0, GET), returnUs: 1 }])).toThrow(HistoryError);
    expect(() => checkHistory([{ ...failed([0, 1], GET), returnUs: null }])).toThrow(HistoryError);
  });

  test("two open calls of one process", () => {
    const overlapping = { ...call([0, 2], put("b"), written(2)), process: first.process };
    expect(() => checkHistory([first, overlapping])).toThrow("open since 0");
  });
});
