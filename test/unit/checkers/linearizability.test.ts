/** The search itself: against brute force, on times that touch, on budgets, and what it says about a violation. */
import { describe, expect, test } from "vitest";
import {
  checkLinearizability,
  HistoryError,
  type Operation,
  validateHistory,
} from "../../simulation/checkers/linearizability.ts";
import { Memo } from "../../simulation/checkers/search.ts";
import { type Random, seeded } from "../../simulation/random.ts";
import {
  type AppendInput,
  appendModel,
  type RegisterInput,
  type RegisterOutput,
  registerModel,
} from "./public-histories.ts";

type RegisterOperation = Operation<RegisterInput, RegisterOutput>;

let processes = 0;

/** An operation of a process of its own. */
function op(
  call: number,
  returned: number | null,
  input: RegisterInput,
  output: RegisterOutput | null,
): RegisterOperation {
  processes += 1;
  return { process: `p${processes}`, call, return: returned, input, output };
}

function write(call: number, returned: number | null, value: number): RegisterOperation {
  return op(call, returned, { type: "write", value }, returned === null ? null : "written");
}

function read(call: number, returned: number | null, value: number | null): RegisterOperation {
  return op(call, returned, { type: "read" }, returned === null ? null : { value });
}

function cas(call: number, returned: number | null, pair: [number, number], swapped: boolean): RegisterOperation {
  const [from, to] = pair;
  return op(call, returned, { type: "cas", from, to }, returned === null ? null : { swapped });
}

function verdict(...history: readonly RegisterOperation[]): string {
  return checkLinearizability(registerModel, history).verdict;
}

/** Every order that respects real time, with and without the operations of unknown outcome. */
function linearizableByForce(history: readonly RegisterOperation[]): boolean {
  const extend = (left: readonly RegisterOperation[], state: number | null): boolean => {
    if (left.every((operation) => operation.return === null)) return true;
    const firstReturn = Math.min(...left.map((operation) => operation.return ?? Number.POSITIVE_INFINITY));
    return left.some((operation) => {
      if (operation.call > firstReturn) return false;
      const step = registerModel.step(state, operation.input, operation.output);
      return (
        step.ok &&
        extend(
          left.filter((other) => other !== operation),
          step.state,
        )
      );
    });
  };
  return extend(history, registerModel.init());
}

function randomHistory(random: Random): RegisterOperation[] {
  return Array.from({ length: 2 + random.below(6) }, () => {
    const call = random.below(12);
    const returned = random.chance(0.2) ? null : call + random.below(8);
    const value = random.below(3);
    if (random.chance(0.4)) return read(call, returned, random.chance(0.2) ? null : value);
    if (random.chance(0.5)) return write(call, returned, value);
    return cas(call, returned, [value, random.below(3)], random.chance(0.5));
  });
}

describe("the search", () => {
  test("agrees with brute force on small histories", () => {
    const counts = { ok: 0, illegal: 0, unknown: 0 };
    for (let seed = 1; seed <= 4_000; seed++) {
      const history = randomHistory(seeded(seed));
      const found = checkLinearizability(registerModel, history).verdict;
      counts[found] += 1;
      expect([seed, found]).toEqual([seed, linearizableByForce(history) ? "ok" : "illegal"]);
    }
    expect(Math.min(counts.ok, counts.illegal)).toBeGreaterThan(500);
  });

  test("an empty history is legal", () => {
    expect(verdict()).toBe("ok");
  });

  test("intervals are closed: a call at the time of a return overlaps it", () => {
    expect(verdict(write(0, 5, 1), read(5, 6, null))).toBe("ok");
    expect(verdict(write(0, 5, 1), read(6, 6, null))).toBe("illegal");
    expect(verdict(write(3, 3, 1), read(3, 3, null), read(3, 3, 1))).toBe("ok");
    expect(verdict(write(3, 3, 1), read(4, 4, null), read(4, 4, 1))).toBe("illegal");
  });

  test("an unknown write may take effect late, or never; an unknown read says nothing", () => {
    expect(verdict(write(0, null, 1), read(1, 2, null), read(3, 4, 1))).toBe("ok");
    expect(verdict(write(0, null, 1), read(1, 2, null), read(3, 4, null))).toBe("ok");
    expect(verdict(write(0, null, 1), read(1, 2, 1), read(3, 4, null))).toBe("illegal");
    expect(verdict(write(0, 1, 1), read(0, null, 7))).toBe("ok");
    expect(verdict(write(5, null, 1), read(1, 2, 1))).toBe("illegal");
  });

  test("deep histories need no deep stack", () => {
    const long = Array.from({ length: 30_000 }, (_, at) => write(2 * at, 2 * at + 1, at));
    expect(verdict(...long, read(60_000, 60_001, 29_999))).toBe("ok");
  });

  test("the memo compares in full: operations placed and state", () => {
    const memo = new Memo<string>(2);
    const same = (a: string, b: string): boolean => a === b;
    const add = (bits: readonly number[], state: string): boolean => memo.add(7, Uint32Array.from(bits), state, same);
    expect(add([1, 0], "a")).toBe(true);
    expect([add([0, 1], "a"), add([1, 0], "b")]).toEqual([true, true]);
    expect([add([1, 0], "a"), add([0, 1], "a"), add([1, 0], "b")]).toEqual([false, false, false]);
    // Beyond its first block of memory it still knows every one.
    for (let at = 2; at < 500; at++) expect(add([at, at], "a")).toBe(true);
    for (let at = 2; at < 500; at++) expect(add([at, at], "a")).toBe(false);
  });

  test("a hash that never tells states apart changes no verdict", () => {
    const dull = { ...registerModel, hash: () => 0 };
    for (let seed = 1; seed <= 300; seed++) {
      const history = randomHistory(seeded(seed));
      const expected = linearizableByForce(history) ? "ok" : "illegal";
      expect([seed, checkLinearizability(dull, history).verdict]).toEqual([seed, expected]);
    }
  });
});

describe("budgets", () => {
  /** Many concurrent writes, and a read of what nobody wrote: every order must be tried. */
  function hard(key: string, writes: number): Operation<AppendInput, string>[] {
    const appends = Array.from({ length: writes }, (_, at): Operation<AppendInput, string> => {
      const input = { type: "append", key, value: `${at},` } as const;
      return { process: `${key} ${at}`, call: 0, return: 1_000, input, output: "" };
    });
    const input = { type: "get", key, value: "" } as const;
    return [...appends, { process: `${key} reader`, call: 2_000, return: 2_001, input, output: "never" }];
  }

  test("exhausted: unknown, with the number of undecided parts, never ok", () => {
    const history = [...hard("a", 12), ...hard("b", 12)];
    expect(checkLinearizability(appendModel, history, { stepsMax: 30_000 })).toEqual({
      verdict: "unknown",
      undecided: 2,
    });
  });

  test("a violation in an easy part is found although a hard part comes first", () => {
    const history = [...hard("a", 14), ...hard("b", 2)];
    expect(checkLinearizability(appendModel, history, { stepsMax: 100_000 }).verdict).toBe("illegal");
  });

  test("a part goes on where its last budget ended", () => {
    expect(checkLinearizability(appendModel, hard("a", 8)).verdict).toBe("illegal");
  });
});

describe("what it says about a violation", () => {
  test("the longest partial linearization, what has no place, and a smaller history", () => {
    const history = [
      write(0, 1, 1),
      read(2, 3, 1),
      write(4, 5, 2),
      read(6, 7, 2),
      write(8, 9, 3),
      read(10, 11, 2),
      write(12, 13, 4),
    ];
    const result = checkLinearizability(registerModel, history);
    if (result.verdict !== "illegal") throw new Error("a stale read is illegal");
    expect(result.placed).toEqual(history.slice(0, 5));
    expect(result.stuck).toBe(history[5]);
    const known = result.minimal.filter((operation) => operation.output !== null);
    // Of unknown outcome, the write before could take effect after the newer one.
    expect(known).toEqual([history[2], history[4], history[5]]);
    expect(result.minimal.map(({ process }) => process)).not.toContain(history[6]?.process);
    expect(checkLinearizability(registerModel, result.minimal).verdict).toBe("illegal");
    expect(result.text).toContain("5 of 7 operations have a place");
    expect(result.text).toMatch(/no place for:\n {2}\[10, 11\] p\d+: .*"read"/);
  });

  test("of several longest ones, the first", () => {
    const [first, second, third] = [write(0, 9, 1), write(1, 9, 2), read(10, 11, 3)];
    const result = checkLinearizability(registerModel, [first, second, third]);
    expect(result).toMatchObject({ verdict: "illegal", placed: [first, second], stuck: third });
  });

  test("minimising never makes a violation out of a cause that it dropped", () => {
    for (let seed = 1; seed <= 500; seed++) {
      const history = randomHistory(seeded(seed));
      const result = checkLinearizability(registerModel, history);
      if (result.verdict !== "illegal") continue;
      expect(linearizableByForce(result.minimal)).toBe(false);
      // A write may be forgotten or cut off behind the end, but is there whenever a kept read could have seen it.
      const lastReturn = Math.max(...result.minimal.map((operation) => operation.return ?? 0));
      const writes = history.filter(({ input, call }) => input.type !== "read" && call <= lastReturn);
      const kept = new Set(result.minimal.map((operation) => operation.process));
      expect(writes.filter((operation) => !kept.has(operation.process))).toEqual([]);
    }
  });
});

describe("impossible histories are refused", () => {
  const base = write(0, 5, 1);
  test.each([
    ["a return before its call", [{ ...base, call: 6 }]],
    ["no time", [{ ...base, call: Number.NaN }]],
    ["a return at no time", [{ ...base, return: Number.POSITIVE_INFINITY }]],
    ["a return without an outcome", [{ ...base, output: null }]],
    ["an outcome without a return", [{ ...base, return: null }]],
    ["two open calls of one process", [base, { ...base, call: 4, return: 8 }]],
    [
      "a call after one of unknown outcome",
      [
        { ...base, return: null, output: null },
        { ...base, call: 9, return: 9 },
      ],
    ],
  ])("%s", (_, history) => {
    expect(() => validateHistory(history)).toThrow(HistoryError);
    expect(() => checkLinearizability(registerModel, history)).toThrow(HistoryError);
  });

  test("calls one after the other are fine, in whatever order they are listed", () => {
    const calls = [
      { ...base, call: 5, return: 7 },
      { ...base, call: 7, return: 7 },
      { ...base, call: 7, return: null, output: null },
      base,
    ];
    expect(() => validateHistory(calls)).not.toThrow();
  });
});
