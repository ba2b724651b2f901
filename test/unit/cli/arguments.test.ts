/** What the command line understands: durations, numbers, mixes. */
import { InvalidArgumentError } from "commander";
import { describe, expect, test } from "vitest";
import { parseMix } from "../../../cli/bench/workload.ts";
import { formatDurationMs, parseDurationMs } from "../../../cli/duration.ts";
import { integerIn, numberIn, parseExpectation, parseRevision } from "../../../cli/numbers.ts";

const refuses = (parse: (text: string) => unknown, texts: readonly string[]): void => {
  for (const text of texts) expect(() => parse(text), text).toThrow(InvalidArgumentError);
};

describe("durations", () => {
  test.each([
    ["500ms", 500],
    ["3s", 3_000],
    ["1.5s", 1_500],
    ["1m", 60_000],
    ["24h", 86_400_000],
  ])("%s", (text, durationMs) => {
    expect(parseDurationMs(text)).toBe(durationMs);
  });

  test("anything else is a usage error", () => {
    refuses(parseDurationMs, [
      "",
      "3",
      "s",
      "-3s",
      "3 s",
      "3S",
      "0s",
      "0.1ms",
      "25h",
      "1e3s",
      "3s5",
      "١s",
      "Infinitys",
    ]);
  });

  test.each([
    [0, "0 ms"],
    [850.4, "850 ms"],
    [12_340, "12.3 s"],
    [125_000, "2 min 05 s"],
    [3_720_000, "1 h 02 min"],
  ])("%d ms is shown as %s", (durationMs, text) => {
    expect(formatDurationMs(durationMs)).toBe(text);
  });
});

describe("numbers", () => {
  test("integers and numbers in range", () => {
    expect(integerIn({ min: 1, max: 64 })("4")).toBe(4);
    expect(numberIn({ min: 0.1, max: 10 })("2.5")).toBe(2.5);
    refuses(integerIn({ min: 1, max: 64 }), ["0", "65", "4.0", "", " 4", "0x4", "1e1", "four", "NaN"]);
    refuses(numberIn({ min: 0.1, max: 10 }), ["0", "11", "", "-1", ".", "1e0", "Infinity"]);
  });

  test("revisions are positive and exact", () => {
    expect(parseRevision("9007199254740991")).toBe(9_007_199_254_740_991n);
    expect(parseExpectation("absent")).toBe("absent");
    expect(parseExpectation("7")).toBe(7n);
    refuses(parseRevision, ["0", "-1", "1.5", "9007199254740992", "absent", "", "0x1", "99999999999999999999"]);
    refuses(parseExpectation, ["Absent", "0", ""]);
  });

  test("mixes of puts and gets", () => {
    expect(parseMix("put=1,get=0")).toEqual({ put: 1, get: 0 });
    expect(parseMix("get=9")).toEqual({ put: 0, get: 9 });
    expect(parseMix("get=9, put=1")).toEqual({ put: 1, get: 9 });
    refuses(parseMix, ["", "put", "put=0,get=0", "put=1,put=1", "scan=1", "put=-1", "put=1.5", "put=1,"]);
  });
});
