/** The figures of a load among events: what counts in which bucket, the level of a stretch, the longest time without an answer. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  bucketsOf,
  type EventTimeline,
  levelsOf,
  longestGapMs,
  medianOf,
  parseTimelineCsv,
  timelineCsv,
} from "../../evaluation/timeline-figures.ts";

describe("buckets", () => {
  test("hold operations per second, the empty ones too, and end with the last whole one", () => {
    const answeredMs = [0, 10, 499.9, 500, 1_700, 2_100];
    expect(bucketsOf(answeredMs, { bucketMs: 500, toMs: 2_300 })).toEqual([6, 2, 0, 2]);
  });

  test("count every answer before their end exactly once", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(10_000)), fc.integer({ min: 1, max: 900 }), (answeredMs, bucketMs) => {
        const buckets = bucketsOf(answeredMs, { bucketMs, toMs: 9_000 });
        const endMs = buckets.length * bucketMs;
        const counted = buckets.reduce((sum, perSecond) => sum + (perSecond * bucketMs) / 1_000, 0);
        expect(Math.round(counted)).toBe(answeredMs.filter((atMs) => atMs < endMs).length);
      }),
    );
  });
});

describe("the level of a stretch", () => {
  test("is the median of the buckets that lie in it as a whole, beside that of the first stretch", () => {
    const buckets = [0, 100, 102, 98, 0, 0, 90, 70, 90, 0];
    const stretches = [
      { what: "before", fromMs: 900, toMs: 4_000 },
      { what: "after", fromMs: 5_100, toMs: 9_900 },
    ];
    expect(levelsOf(stretches, { buckets, bucketMs: 1_000 })).toEqual([
      { what: "before", fromMs: 900, toMs: 4_000, perSecond: 100, ratio: 1, lowest: 98 },
      { what: "after", fromMs: 5_100, toMs: 9_900, perSecond: 90, ratio: 0.9, lowest: 70 },
    ]);
  });

  test("a stretch without a whole bucket has none", () => {
    const [level] = levelsOf([{ what: "short", fromMs: 100, toMs: 900 }], { buckets: [5], bucketMs: 1_000 });
    expect(level?.perSecond).toBeNaN();
  });

  test("medians", () => {
    expect(medianOf([3, 1, 2])).toBe(2);
    expect(medianOf([4, 1, 2, 3])).toBe(2.5);
    expect(medianOf([])).toBeNaN();
  });
});

test("the longest time without an answer goes from answer to answer, and is cut off at both ends", () => {
  const answeredMs = [100, 200, 900, 1_000, 3_000];
  expect(longestGapMs(answeredMs, { fromMs: 0, toMs: 1_100 })).toBe(700);
  expect(longestGapMs(answeredMs, { fromMs: 300, toMs: 850 })).toBe(550);
  expect(longestGapMs(answeredMs, { fromMs: 950, toMs: 2_000 })).toBe(1_000);
  expect(longestGapMs(answeredMs, { fromMs: 3_500, toMs: 4_000 })).toBe(500);
});

describe("the text form", () => {
  const timeline: EventTimeline = {
    load: "100 clients, 2,000 operations/s",
    bucketMs: 500,
    buckets: [2_000, 0, 1_996],
    events: [{ what: "leader 0 killed, with SIGKILL", fromMs: 512, toMs: 1_250 }],
    levels: [{ what: "4 replicas", fromMs: 0, toMs: 500, perSecond: 2_000, ratio: 1, lowest: 1_996 }],
  };

  test("gives back what it was written from", () => {
    expect(parseTimelineCsv(timelineCsv(timeline))).toEqual(timeline);
  });

  test("another text is refused", () => {
    expect(() => parseTimelineCsv("time,value\n1,2\n")).toThrow("the first line");
    expect(() => parseTimelineCsv(`${timelineCsv(timeline)}pause,0,1,,,\n`)).toThrow("pause");
  });
});
