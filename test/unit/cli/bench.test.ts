/** The benchmark's own arithmetic: what counts as an operation, medians, CPU, and the echo frames of the fan-out limit. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { latencyHistogram, runPhase } from "../../../cli/bench/closed-loop.ts";
import { CpuTotal, cpuUsOfMetrics, cpuUsOfStat } from "../../../cli/bench/cpu.ts";
import { ECHO_CLUSTER, echoReplies } from "../../../cli/bench/echo-replies.ts";
import { median, ratioOf, reportOf, reportText, roundJson } from "../../../cli/bench/report.ts";
import { operationOn, resultBytesOf, sampleCommand } from "../../../cli/bench/workload.ts";
import type { BytesKv } from "../../../cli/session.ts";
import type { Digest } from "../../../protocol/bytes.ts";
import { decodeGatewayFrame } from "../../../protocol/client-frames.ts";
import { decodeCommand, decodeResults, encodeCommand } from "../../../protocol/commands.ts";
import { isRejection } from "../../../protocol/errors.ts";
import { encodeEnvelope, encodeRequest } from "../../../protocol/request.ts";

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("a closed loop", () => {
  test("keeps one operation per client under way, and ends with none", async () => {
    const underWay = [0, 0, 0];
    let most = 0;
    const operations = underWay.map((_, client) => async () => {
      underWay[client] = (underWay[client] ?? 0) + 1;
      most = Math.max(most, underWay[client] ?? 0);
      await turn();
      underWay[client] = (underWay[client] ?? 0) - 1;
    });
    const histogram = latencyHistogram();
    const result = await runPhase({ operations, warmupMs: 5, measureMs: 40, histogram });
    expect(most).toBe(1);
    expect(underWay).toEqual([0, 0, 0]);
    expect(result.operations).toBeGreaterThan(0);
    expect(histogram.count).toBe(result.operations);
    expect(result.elapsedMs).toBeGreaterThan(0);
  });

  test("warm-up never counts", async () => {
    let measuring = false;
    let during = 0;
    const operation = async (): Promise<void> => {
      await turn();
      if (measuring) during += 1;
    };
    const onMeasure = {
      begin: () => {
        measuring = true;
      },
      end: () => {
        measuring = false;
      },
    };
    const { operations } = await runPhase({
      operations: [operation],
      warmupMs: 30,
      measureMs: 30,
      histogram: latencyHistogram(),
      onMeasure,
    });
    expect(Math.abs(operations - during)).toBeLessThanOrEqual(1);
  });

  test("errors are counted apart; if nothing ever succeeds the error comes out", async () => {
    let calls = 0;
    const flaky = async (): Promise<void> => {
      await turn();
      if (++calls % 2 === 0) throw new Error("lost");
    };
    // A pause follows every error: there is time for several, also on a machine that stands still for a while.
    const phase = { warmupMs: 0, measureMs: 1_500, histogram: latencyHistogram() };
    const { operations, errors } = await runPhase({ ...phase, operations: [flaky] });
    expect(operations).toBeGreaterThan(0);
    expect(errors).toBeGreaterThan(0);
    const broken = () => Promise.reject(new Error("no cluster"));
    await expect(runPhase({ ...phase, measureMs: 20, operations: [broken] })).rejects.toThrow("no cluster");
  });
});

describe("the report", () => {
  test("medians", () => {
    expect([median([3, 1, 2]), median([4, 1, 3, 2]), median([7]), median([])]).toEqual([2, 2.5, 7, 0]);
    fc.assert(
      fc.property(fc.array(fc.integer(), { minLength: 1 }), (values) => {
        const middle = median(values);
        expect(values.filter((value) => value < middle).length).toBeLessThanOrEqual(values.length / 2);
        expect(values.filter((value) => value > middle).length).toBeLessThanOrEqual(values.length / 2);
      }),
    );
  });

  test("the ratio is the median of the rounds' ratios, not the ratio of medians", () => {
    const rounds = [
      { opsPerSecond: 100, limitOpsPerSecond: 1_000 },
      { opsPerSecond: 300, limitOpsPerSecond: 1_000 },
      { opsPerSecond: 200, limitOpsPerSecond: 400 },
    ];
    const histogram = latencyHistogram();
    for (const us of [1_000, 2_000, 3_000, 100_000]) histogram.record(us);
    const cpu = new CpuTotal();
    const at = (clientUs: number, a: number, b: number | null) => ({
      clientUs,
      replicasUs: new Map([
        [0, a],
        [1, b],
      ]),
    });
    cpu.add(at(0, 0, 0), at(1_000, 500, 700));
    cpu.add(at(5_000, 5_000, 5_000), at(6_000, 5_500, 5_300));
    const report = reportOf({ rounds, operations: 100, errors: 3, histogram, cpu });
    expect(report).toMatchObject({
      opsPerSecond: 200,
      errors: 3,
      cpuMicrosPerOp: { client: 20, replicas: 20, byReplica: { "0": 10, "1": 10 } },
      limit: { opsPerSecond: 1_000, ratio: 0.3 },
    });
    expect(report.latencyMs.p50).toBeCloseTo(2, 1);
    expect(report.latencyMs.max).toBeGreaterThan(99);
    expect(Object.keys(report)).toEqual(["opsPerSecond", "latencyMs", "errors", "cpuMicrosPerOp", "limit", "timeline"]);
    expect(Object.keys(report.latencyMs)).toEqual(["mean", "p50", "p95", "p99", "max"]);
    expect(reportText(report)).toContain("ratio 0.3");
    cpu.add(at(0, 0, 0), at(0, 0, null));
    const unknown = reportOf({ rounds, operations: 100, errors: 0, histogram, cpu }).cpuMicrosPerOp;
    expect(unknown).toMatchObject({ replicas: null, byReplica: { "0": 10, "1": null } });
  });

  test("without the limit and without operations", () => {
    const round = { opsPerSecond: 12.34, limitOpsPerSecond: null };
    expect(ratioOf(round)).toBeNull();
    expect(roundJson(1, round)).toBe('{"round":1,"opsPerSecond":12.3,"limit":null}\n');
    const histogram = latencyHistogram();
    const report = reportOf({ rounds: [round], operations: 0, errors: 9, histogram, cpu: new CpuTotal() });
    expect(report).toMatchObject({ limit: null, latencyMs: { mean: 0, max: 0 }, cpuMicrosPerOp: { client: 0 } });
  });

  test("CPU time from /proc and from /metrics", () => {
    expect(cpuUsOfStat("7 (a) b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 11 0 9 9 9")).toBe(3_000_000);
    expect(cpuUsOfStat("")).toBeNull();
    const metrics = '# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total{a="b"} 1.5\n';
    expect(cpuUsOfMetrics(metrics)).toBe(1_500_000);
    expect(cpuUsOfMetrics("process_cpu_seconds_total 0.25\n")).toBe(250_000);
    expect(cpuUsOfMetrics("other 1\n")).toBeNull();
  });
});

describe("the workload", () => {
  test("a no-operation carries and asks for the bytes it should", async () => {
    const workload = { type: "noop", requestBytes: 17, replyBytes: 4_096 } as const;
    const command = sampleCommand(workload);
    expect(command).toMatchObject({ type: "noop", replyBytes: 4_096 });
    let sent: Uint8Array = new Uint8Array(0);
    const invokeOrderedHashed = async (bytes: Uint8Array): Promise<void> => {
      sent = bytes;
    };
    const kv = { service: { invokeOrderedHashed } } as unknown as BytesKv;
    await operationOn(kv, workload)();
    expect(decodeCommand(sent)).toMatchObject({ type: "noop", payload: Buffer.alloc(17), replyBytes: 4_096 });
    expect(resultBytesOf(workload)).toBeGreaterThan(4_096);
  });

  test("weights decide between puts and gets", async () => {
    const seen = { put: 0, get: 0 };
    const count = (name: "put" | "get") => () => {
      seen[name] += 1;
      return Promise.resolve();
    };
    const kv = { put: count("put"), get: count("get") } as unknown as BytesKv;
    const mixed = operationOn(kv, { type: "mix", mix: { put: 1, get: 3 }, valueBytes: 10 });
    for (let turns = 0; turns < 2_000; turns++) await mixed();
    expect(seen.put).toBeGreaterThan(300);
    expect(seen.get).toBeGreaterThan(1_200);
    seen.get = 0;
    const puts = operationOn(kv, { type: "mix", mix: { put: 1, get: 0 }, valueBytes: 10 });
    for (let turns = 0; turns < 100; turns++) await puts();
    expect(seen.get).toBe(0);
  });
});

describe("echo replies", () => {
  const request = (count: number, sequence: number): Uint8Array =>
    encodeRequest({
      cluster: ECHO_CLUSTER,
      client: "c".repeat(32) as Digest,
      session: 123_456_789_012_345,
      sequence,
      ackedBelow: 1,
      kind: "ordered",
      deadlineMs: 0,
      commands: Array.from({ length: count }, () => encodeCommand({ type: "get", key: new Uint8Array(8) })),
    });
  const envelope = (replier: number): Uint8Array =>
    encodeEnvelope({ view: 0, replier, keys: null, authenticator: { type: "vector", macs: "m".repeat(16) } });

  test("answer exactly the request, with a result of the right size", () => {
    const reply = echoReplies(2, 40);
    for (const [count, sequence] of [
      [1, 1],
      [25, 7],
      [1, 2_000_000],
    ] as const) {
      const frame = decodeGatewayFrame(reply(envelope(0), request(count, sequence)));
      if (isRejection(frame) || frame.type !== "REPLY") throw new Error("no reply");
      expect(frame).toMatchObject({ replica: 2, session: 123_456_789_012_345, sequence, status: "OK", body: "full" });
      expect(decodeResults(frame.result)).toHaveLength(count);
      expect(frame.result.length).toBe(4 + count * 40);
    }
  });

  test("above the large-result bound only the named replica sends it in full", () => {
    const reply = echoReplies(2, 4_096);
    const bodyFor = (replier: number): unknown => decodeGatewayFrame(reply(envelope(replier), request(1, 1)));
    expect(bodyFor(2)).toMatchObject({ body: "full" });
    expect(bodyFor(0)).toMatchObject({ body: "digest" });
  });
});
