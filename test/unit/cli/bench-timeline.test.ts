/** The timeline of a benchmark: what counts in which interval, the longest time without an answer, and what is told of replicas. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { latencyHistogram, runPhase } from "../../../cli/bench/closed-loop.ts";
import { ClusterNews } from "../../../cli/bench/cluster-watch.ts";
import { CpuTotal } from "../../../cli/bench/cpu.ts";
import { intervalJson, reportOf, reportText, timelineText } from "../../../cli/bench/report.ts";
import { type Interval, opsPerSecond, Timeline } from "../../../cli/bench/timeline.ts";
import type { StatusAnswer } from "../../../cli/replica-status.ts";
import { QuorateError } from "../../../protocol/errors.ts";

/** A timeline on a clock that the test sets. */
function timelineAt(intervalMs: number): { timeline: Timeline; at: (ms: number) => Timeline; told: Interval[] } {
  let nowMs = 5_000;
  const told: Interval[] = [];
  const onInterval = (interval: Interval): void => {
    told.push(interval);
  };
  const timeline = new Timeline({ intervalMs, now: () => nowMs, onInterval });
  const at = (ms: number): Timeline => {
    nowMs = 5_000 + ms;
    return timeline;
  };
  return { timeline, at, told };
}

describe("a timeline", () => {
  test("an outage shows as intervals without answers, and its length from answer to answer", () => {
    const { timeline, at, told } = timelineAt(100);
    at(0).begin();
    at(10).answered(2_000);
    at(90).answered(80_000);
    at(130).mark("replica 0: not running");
    at(140).failed(new QuorateError("TIMEOUT", "too late"));
    at(150).failed(new Error("another"));
    at(350).tick();
    at(420).answered(3_000);
    at(470).end();
    expect(timeline.longestGap).toEqual({ ms: 330, fromMs: 90 });
    expect(timeline.intervals.map(({ operations }) => operations)).toEqual([2, 0, 0, 0, 1]);
    expect(timeline.intervals.map(({ errors }) => errors)).toEqual([0, 2, 0, 0, 0]);
    expect(timeline.intervals.map(({ gapMs }) => gapMs)).toEqual([80, 110, 210, 310, 330]);
    expect(timeline.intervals.map(({ marks }) => marks.length)).toEqual([0, 1, 0, 0, 0]);
    expect(timeline.intervals[0]?.p99Ms).toBeCloseTo(80, 0);
    expect(timeline.intervals[1]?.p99Ms).toBeNull();
    expect(timeline.intervals.at(-1)?.p99Ms).toBeCloseTo(3, 0);
    expect(timeline.intervals.at(-1)).toMatchObject({ fromMs: 400, toMs: 470 });
    expect([...timeline.errorsByCode]).toEqual([
      ["TIMEOUT", 1],
      ["OTHER", 1],
    ]);
    expect(told).toEqual(timeline.intervals);
  });

  test("what happens before it begins and after it ends is no part of it", () => {
    const { timeline, at } = timelineAt(100);
    at(0).answered(1_000);
    at(0).mark("before");
    at(50).begin();
    at(60).answered(1_000);
    at(150).end();
    at(160).answered(1_000);
    at(170).failed(new Error("late"));
    at(400).tick();
    expect(timeline.intervals).toHaveLength(1);
    expect(timeline.intervals[0]).toMatchObject({ fromMs: 0, toMs: 100, operations: 1, errors: 0, marks: [] });
  });

  test("every answer counts once, and intervals follow each other without holes", () => {
    const moments = fc.array(fc.record({ afterMs: fc.nat(400), ok: fc.boolean() }), { maxLength: 60 });
    fc.assert(
      fc.property(moments, fc.integer({ min: 10, max: 300 }), (events, intervalMs) => {
        const { timeline, at } = timelineAt(intervalMs);
        at(0).begin();
        let nowMs = 0;
        let longest = 0;
        let last = 0;
        for (const { afterMs, ok } of events) {
          nowMs += afterMs;
          if (!ok) at(nowMs).failed(new Error("no"));
          else {
            at(nowMs).answered(1_000);
            longest = Math.max(longest, nowMs - last);
            last = nowMs;
          }
        }
        at(nowMs).end();
        const { intervals } = timeline;
        const endMs = intervals.at(-1)?.toMs ?? 0;
        expect(nowMs - endMs).toBeLessThanOrEqual(intervalMs / 10);
        longest = Math.max(longest, endMs - last);
        const sum = (of: (interval: Interval) => number): number => intervals.reduce((all, one) => all + of(one), 0);
        expect(sum(({ operations }) => operations)).toBe(events.filter(({ ok }) => ok).length);
        expect(sum(({ errors }) => errors)).toBe(events.filter(({ ok }) => !ok).length);
        expect(intervals.map(({ fromMs }) => fromMs)).toEqual([0, ...intervals.map(({ toMs }) => toMs)].slice(0, -1));
        expect(timeline.longestGap.ms).toBe(longest);
        expect(Math.max(0, ...intervals.map(({ gapMs }) => gapMs))).toBe(longest);
      }),
    );
  });

  test("a measured phase tells it exactly what it counts", async () => {
    let calls = 0;
    const operation = async (): Promise<void> => {
      await new Promise((resolve) => setImmediate(resolve));
      if (++calls % 50 === 0) throw new QuorateError("QUORUM_UNAVAILABLE", "two are down");
    };
    const timeline = new Timeline({ intervalMs: 20 });
    const phase = { operations: [operation], warmupMs: 20, measureMs: 1_500, histogram: latencyHistogram() };
    const { operations, errors } = await runPhase({ ...phase, observer: timeline });
    const total = (of: (interval: Interval) => number): number =>
      timeline.intervals.reduce((sum, interval) => sum + of(interval), 0);
    expect(total((interval) => interval.operations)).toBe(operations);
    expect(total((interval) => interval.errors)).toBe(errors);
    expect(timeline.errorsByCode.get("QUORUM_UNAVAILABLE") ?? 0).toBe(errors);
    expect(errors).toBeGreaterThan(0);
  });
});

describe("a timeline's text", () => {
  const interval = { fromMs: 0, toMs: 250, operations: 500, errors: 0, p99Ms: 12.34, gapMs: 3, marks: [] };
  const outage = { ...interval, fromMs: 250, toMs: 500, operations: 0, errors: 7, p99Ms: null, gapMs: 240 };

  test("is a row per interval, the bar as long as its rate, the marks beside it", () => {
    const marks = ["replica 0: not running", "regency 1, replica 1 leads"];
    const lines = timelineText([interval, { ...outage, marks }, { ...interval, operations: 1 }]).split("\n");
    expect(lines[1]).toMatch(/^0\.25 +2000 +0 +12\.3 +3 +#{30}$/);
    expect(lines[2]).toMatch(/^0\.50 +0 +7 +- +240 +<- replica 0: not running <- regency 1, replica 1 leads$/);
    expect(lines[3]).toMatch(/ #$/);
    expect(timelineText([])).toContain("GAP_MS");
    expect(opsPerSecond({ ...interval, toMs: 0 })).toBe(0);
  });

  test("is a line of JSON each with -o json", () => {
    const parsed = JSON.parse(intervalJson(2, { ...outage, marks: ["x"] })) as object;
    expect(parsed).toEqual({
      round: 2,
      interval: { fromMs: 250, toMs: 500 },
      operations: 0,
      opsPerSecond: 0,
      errors: 7,
      p99Ms: null,
      gapMs: 240,
      marks: ["x"],
    });
  });

  test("the report names the longest gap of all rounds and adds up errors by code", () => {
    const timelines = [1, 2].map((round) => {
      const { timeline, at } = timelineAt(100);
      at(0).begin();
      at(round * 1_000).answered(1_000);
      at(round * 1_000).failed(new QuorateError("TIMEOUT", "late"));
      at(round * 1_000).end();
      return timeline;
    });
    const round = { opsPerSecond: 1, limitOpsPerSecond: null };
    const measured = { rounds: [round, round], operations: 2, errors: 2, histogram: latencyHistogram() };
    const report = reportOf({ ...measured, cpu: new CpuTotal(), timelines });
    expect(report.timeline).toEqual({ longestGap: { ms: 2_000, fromMs: 0 }, errorsByCode: { TIMEOUT: 2 } });
    expect(reportText(report)).toContain("longest time without an answer: 2000 ms, from 0.00 s on\nerrors: TIMEOUT 2");
    expect(reportOf({ ...measured, cpu: new CpuTotal() }).timeline).toBeNull();
  });
});

describe("news of the cluster", () => {
  const answer = (replica: number, regency: number): StatusAnswer => ({
    replica,
    host: "127.0.0.1",
    adminPort: 1,
    problem: null,
    status: {
      replica,
      cluster: "",
      view: 0,
      regency,
      leader: regency % 4,
      decided: 1,
      executed: 1,
      revision: "1",
      historyDigest: "",
      state: undefined,
      pid: undefined,
    },
  });
  const silent = (replica: number): StatusAnswer => {
    return { replica, host: "127.0.0.1", adminPort: 1, problem: "not running", status: null };
  };

  test("a replica that answers no more, and again, once each", () => {
    const news = new ClusterNews(2);
    const told = [answer(0, 0), answer(0, 0), silent(0), silent(0), answer(0, 0)].map((one) => news.changes(one));
    expect(told).toEqual([[], [], ["replica 0: not running"], [], ["replica 0 answers again"]]);
    expect(new ClusterNews(2).changes(silent(3))).toEqual(["replica 3: not running"]);
  });

  test("another leader counts once f+1 replicas name it: one liar names none", () => {
    const news = new ClusterNews(2);
    for (const replica of [0, 1, 2, 3]) news.changes(answer(replica, 0));
    expect(news.changes(answer(3, 1_000_000))).toEqual([]);
    expect(news.changes(answer(1, 1))).toEqual(["regency 1, replica 1 leads"]);
    expect(news.changes(answer(2, 1))).toEqual([]);
    expect(news.changes(answer(0, 2))).toEqual(["regency 2, replica 2 leads"]);
  });
});
