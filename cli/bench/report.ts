/** What a benchmark found, as text and as the one stable JSON object. */
import type { RecordableHistogram } from "node:perf_hooks";
import { tableText } from "../text.ts";
import type { CpuTotal } from "./cpu.ts";
import { type Gap, type Interval, opsPerSecond, type Timeline } from "./timeline.ts";

export interface Round {
  readonly opsPerSecond: number;
  /** Of the fan-out limit in the same round; null when it was not measured. */
  readonly limitOpsPerSecond: number | null;
}

export interface BenchReport {
  readonly opsPerSecond: number;
  readonly latencyMs: { mean: number; p50: number; p95: number; p99: number; max: number };
  readonly errors: number;
  /** Microseconds of CPU per operation; `replicas` is their sum, null while one of them tells nothing. */
  readonly cpuMicrosPerOp: { client: number; replicas: number | null; byReplica: Record<string, number | null> };
  /** The fan-out limit and the median over the rounds of our share of it; null without --limit. */
  readonly limit: { opsPerSecond: number; ratio: number } | null;
  /** The longest time without an answer in any round, and errors by code; null without --timeline. */
  readonly timeline: { longestGap: Gap; errorsByCode: Record<string, number> } | null;
}

/** Medians over the rounds; latencies over all measured operations. */
export function reportOf(measured: {
  rounds: readonly Round[];
  operations: number;
  errors: number;
  histogram: RecordableHistogram;
  cpu: CpuTotal;
  /** One per round, or none. */
  timelines?: readonly Timeline[];
}): BenchReport {
  const { rounds, operations, errors, histogram, cpu, timelines = [] } = measured;
  const perOp = (us: number): number => (operations === 0 ? 0 : rounded(us / operations, 1));
  const each = [...cpu.replicasUs].map(([replica, us]): [string, number | null] => [
    String(replica),
    us === null ? null : perOp(us),
  ]);
  const replicasUs = [...cpu.replicasUs.values()];
  const total = replicasUs.reduce<number | null>((sum, us) => (sum === null || us === null ? null : sum + us), 0);
  return {
    opsPerSecond: rounded(median(rounds.map((round) => round.opsPerSecond)), 1),
    latencyMs: latencyOf(histogram),
    errors,
    cpuMicrosPerOp: {
      client: perOp(cpu.clientUs),
      replicas: total === null ? null : perOp(total),
      byReplica: Object.fromEntries(each),
    },
    limit: limitOf(rounds),
    timeline: timelineOf(timelines),
  };
}

function timelineOf(timelines: readonly Timeline[]): BenchReport["timeline"] {
  const [longest] = timelines.map(({ longestGap }) => longestGap).sort((a, b) => b.ms - a.ms);
  if (!longest) return null;
  const errorsByCode: Record<string, number> = {};
  for (const [code, count] of timelines.flatMap((timeline) => [...timeline.errorsByCode])) {
    errorsByCode[code] = (errorsByCode[code] ?? 0) + count;
  }
  return { longestGap: { ms: rounded(longest.ms, 1), fromMs: rounded(longest.fromMs, 1) }, errorsByCode };
}

function limitOf(rounds: readonly Round[]): BenchReport["limit"] {
  const limits = rounds.flatMap((round) => (round.limitOpsPerSecond === null ? [] : [round.limitOpsPerSecond]));
  if (limits.length === 0) return null;
  return {
    opsPerSecond: rounded(median(limits), 1),
    ratio: rounded(median(rounds.flatMap((round) => ratioOf(round) ?? [])), 4),
  };
}

export function ratioOf({ opsPerSecond, limitOpsPerSecond }: Round): number | null {
  if (limitOpsPerSecond === null) return null;
  return limitOpsPerSecond === 0 ? 0 : opsPerSecond / limitOpsPerSecond;
}

function latencyOf(histogram: RecordableHistogram): BenchReport["latencyMs"] {
  if (histogram.count === 0) return { mean: 0, p50: 0, p95: 0, p99: 0, max: 0 };
  const ms = (us: number): number => rounded(us / 1_000, 3);
  return {
    mean: ms(histogram.mean),
    p50: ms(histogram.percentile(50)),
    p95: ms(histogram.percentile(95)),
    p99: ms(histogram.percentile(99)),
    max: ms(histogram.max),
  };
}

/** The middle value; of an even number of values the mean of the middle two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[sorted.length / 2 - 1] ?? 0) + upper) / 2;
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

export function roundText(number: number, round: Round): string {
  const ratio = ratioOf(round);
  const limit =
    ratio === null ? "" : `  limit ${Math.round(round.limitOpsPerSecond ?? 0)} ops/s  ratio ${ratio.toFixed(3)}`;
  return `round ${number}: ${Math.round(round.opsPerSecond)} ops/s${limit}\n`;
}

export function roundJson(number: number, round: Round): string {
  const ratio = ratioOf(round);
  const opsPerSecond = rounded(round.opsPerSecond, 1);
  const limit =
    ratio === null ? null : { opsPerSecond: rounded(round.limitOpsPerSecond ?? 0, 1), ratio: rounded(ratio, 4) };
  return `${JSON.stringify({ round: number, opsPerSecond, limit })}\n`;
}

export function reportText(report: BenchReport): string {
  const { latencyMs, errors, cpuMicrosPerOp, limit, timeline } = report;
  const { mean, p50, p95, p99, max } = latencyMs;
  const known = (us: number | null): string => (us === null ? "unknown" : `${us} us`);
  const each = Object.entries(cpuMicrosPerOp.byReplica).map(([replica, us]) => `${replica}: ${known(us)}`);
  const lines = [
    `${report.opsPerSecond} ops/s, ${errors} errors`,
    `latency ms: mean ${mean}  p50 ${p50}  p95 ${p95}  p99 ${p99}  max ${max}`,
    `CPU per operation: client ${known(cpuMicrosPerOp.client)}, replicas ${known(cpuMicrosPerOp.replicas)} (${each.join(", ")})`,
  ];
  if (limit) lines.push(`fan-out limit: ${limit.opsPerSecond} ops/s, ratio ${limit.ratio}`);
  if (timeline) {
    const { ms, fromMs } = timeline.longestGap;
    lines.push(`longest time without an answer: ${Math.round(ms)} ms, from ${(fromMs / 1_000).toFixed(2)} s on`);
    const byCode = Object.entries(timeline.errorsByCode).map(([code, count]) => `${code} ${count}`);
    if (byCode.length > 0) lines.push(`errors: ${byCode.join(", ")}`);
  }
  return `${lines.join("\n")}\n`;
}

/** One interval as a line of JSON, printed as soon as it has ended. */
export function intervalJson(number: number, interval: Interval): string {
  const { fromMs, toMs, operations, errors, p99Ms, gapMs, marks } = interval;
  const times = { fromMs: rounded(fromMs, 1), toMs: rounded(toMs, 1) };
  const p99 = p99Ms === null ? null : rounded(p99Ms, 3);
  const rate = rounded(opsPerSecond(interval), 1);
  const figures = { operations, opsPerSecond: rate, errors, p99Ms: p99, gapMs: rounded(gapMs, 1) };
  return `${JSON.stringify({ round: number, interval: times, ...figures, marks })}\n`;
}

const BAR_COLUMNS = 30;

/** The intervals of a round as a table, with a bar per interval; a mark stands in the interval in which it was made. */
export function timelineText(intervals: readonly Interval[]): string {
  const most = Math.max(1, ...intervals.map(opsPerSecond));
  const rows = intervals.map((interval) => {
    const rate = opsPerSecond(interval);
    const { toMs, errors, p99Ms, gapMs, marks } = interval;
    const cells = [(toMs / 1_000).toFixed(2), Math.round(rate), errors, p99Ms?.toFixed(1) ?? "-", Math.round(gapMs)];
    const bar = "#".repeat(rate === 0 ? 0 : Math.max(1, Math.round((rate / most) * BAR_COLUMNS)));
    return [...cells.map(String), [bar, ...marks.map((mark) => `<- ${mark}`)].filter(Boolean).join(" ")];
  });
  return tableText(["UNTIL_S", "OPS/S", "ERRORS", "P99_MS", "GAP_MS", ""], rows);
}
