/** What a benchmark found, as text and as the one stable JSON object. */
import type { RecordableHistogram } from "node:perf_hooks";
import type { CpuTotal } from "./cpu.ts";

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
}

/** Medians over the rounds; latencies over all measured operations. */
export function reportOf(measured: {
  rounds: readonly Round[];
  operations: number;
  errors: number;
  histogram: RecordableHistogram;
  cpu: CpuTotal;
}): BenchReport {
  const { rounds, operations, errors, histogram, cpu } = measured;
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
  };
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
  const { opsPerSecond, latencyMs, errors, cpuMicrosPerOp, limit } = report;
  const { mean, p50, p95, p99, max } = latencyMs;
  const known = (us: number | null): string => (us === null ? "unknown" : `${us} us`);
  const each = Object.entries(cpuMicrosPerOp.byReplica).map(([replica, us]) => `${replica}: ${known(us)}`);
  const lines = [
    `${opsPerSecond} ops/s, ${errors} errors`,
    `latency ms: mean ${mean}  p50 ${p50}  p95 ${p95}  p99 ${p99}  max ${max}`,
    `CPU per operation: client ${known(cpuMicrosPerOp.client)}, replicas ${known(cpuMicrosPerOp.replicas)} (${each.join(", ")})`,
  ];
  if (limit) lines.push(`fan-out limit: ${limit.opsPerSecond} ops/s, ratio ${limit.ratio}`);
  return `${lines.join("\n")}\n`;
}
