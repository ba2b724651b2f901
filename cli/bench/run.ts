/** One `kv bench`: opens the connections, alternates measured rounds with the fan-out limit, prints what it found. */
import { clusterOf } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import type { BenchOptions } from "../commands/bench.ts";
import { chooseCluster, type Globals } from "../globals.ts";
import { type Io, writeOut } from "../io.ts";
import { progressOn } from "../progress.ts";
import { type BytesKv, openKv } from "../session.ts";
import { latencyHistogram, type Phase, type PhaseResult, runPhase } from "./closed-loop.ts";
import { watchCluster } from "./cluster-watch.ts";
import { CpuMeter, type CpuSnapshot, CpuTotal } from "./cpu.ts";
import { type FanOutLimit, openFanOutLimit } from "./fan-out-limit.ts";
import { intervalJson, type Round, reportOf, reportText, roundJson, roundText, timelineText } from "./report.ts";
import { Timeline } from "./timeline.ts";
import { type Operation, operationOn, prefill, type Workload } from "./workload.ts";

const LIMIT_ROUNDS = 3;
const BENCH_TIMEOUT_MS = 30_000;

export interface BenchRun {
  readonly globals: Globals;
  readonly io: Io;
  readonly options: BenchOptions & { readonly connections: number };
  readonly workload: Workload;
  readonly json: boolean;
}

/** @throws QuorateError when no operation succeeds */
export async function runBench(run: BenchRun): Promise<void> {
  const { globals, io, options, workload } = run;
  const cluster = clusterOf(nodeCrypto, chooseCluster(globals, io).file);
  const { clients, connections } = options;
  const orderedReads = options.orderedReads === true;
  const opened: BytesKv[] = [];
  let limit: FanOutLimit | null = null;
  try {
    for (let index = 0; index < connections; index++) {
      opened.push(await openKv(globals, io, { timeoutMs: BENCH_TIMEOUT_MS, orderedReads }));
    }
    const operations = Array.from({ length: clients }, (_, index) =>
      operationOn(opened[index % connections] as BytesKv, workload),
    );
    await prefill(opened[0] as BytesKv, workload);
    if (options.limit) limit = await openFanOutLimit({ cluster, workload, clients, connections, orderedReads });
    await measure(run, operations, limit);
  } finally {
    await Promise.all(opened.map((kv) => kv.close()));
    await limit?.close();
  }
}

async function measure(run: BenchRun, operations: readonly Operation[], limit: FanOutLimit | null): Promise<void> {
  const { globals, io, options, json } = run;
  const count = options.rounds ?? (limit ? LIMIT_ROUNDS : 1);
  const meter = await CpuMeter.open(chooseCluster(globals, io).file);
  const histogram = latencyHistogram();
  const cpu = new CpuTotal();
  const rounds: Round[] = [];
  const timelines: Timeline[] = [];
  const total = { operations: 0, errors: 0 };
  for (let number = 1; number <= count; number++) {
    const label = `round ${number} of ${count}:`;
    const timeline = openTimeline(run, number);
    if (timeline) timelines.push(timeline);
    const phase = await measuredPhase({ run, operations, histogram, meter, cpu, label, timeline });
    total.operations += phase.operations;
    total.errors += phase.errors;
    const echo = limit ? await echoPhase(run, limit, label) : null;
    const round = { opsPerSecond: rate(phase), limitOpsPerSecond: echo === null ? null : rate(echo) };
    rounds.push(round);
    if (timeline && !json) await writeOut(io, timelineText(timeline.intervals));
    await writeOut(io, json ? roundJson(number, round) : roundText(number, round));
  }
  const report = reportOf({ rounds, ...total, histogram, cpu, timelines });
  await writeOut(io, json ? `${JSON.stringify(report)}\n` : reportText(report));
}

/** With -o json each interval is printed when it has ended, for whoever follows the run. */
function openTimeline({ options, io, json }: BenchRun, round: number): Timeline | undefined {
  if (options.timeline === undefined) return undefined;
  return new Timeline({
    intervalMs: options.timeline,
    onInterval: (interval) => {
      if (json) io.stdout.write(intervalJson(round, interval));
    },
  });
}

function rate({ operations, elapsedMs }: PhaseResult): number {
  return (operations * 1_000) / elapsedMs;
}

/** CPU is read at the edges of the measured time. */
async function measuredPhase(parts: {
  run: BenchRun;
  operations: readonly Operation[];
  histogram: ReturnType<typeof latencyHistogram>;
  meter: CpuMeter;
  cpu: CpuTotal;
  label: string;
  timeline: Timeline | undefined;
}): Promise<PhaseResult> {
  const { run, operations, histogram, meter, cpu, label, timeline } = parts;
  const { file } = chooseCluster(run.globals, run.io);
  const stopWatching = timeline ? watchCluster(file, (change) => timeline.mark(change)) : async () => {};
  const snapshots: Promise<CpuSnapshot>[] = [];
  const edge = (): void => {
    snapshots.push(meter.read());
  };
  const onMeasure = { begin: edge, end: edge };
  const result = await phaseOf(run, { operations, histogram, label, onMeasure, observer: timeline }).finally(
    stopWatching,
  );
  const [before, after] = await Promise.all(snapshots);
  if (before && after) cpu.add(before, after);
  return result;
}

function echoPhase(run: BenchRun, limit: FanOutLimit, label: string): Promise<PhaseResult> {
  const histogram = latencyHistogram();
  return phaseOf(run, { operations: limit.operations, histogram, label: `${label} limit` });
}

async function phaseOf(
  run: BenchRun,
  phase: Pick<Phase, "operations" | "histogram" | "onMeasure" | "observer"> & { label: string },
): Promise<PhaseResult> {
  const { label, ...parts } = phase;
  const measureMs = run.options.seconds * 1_000;
  const progress = progressOn(run.io, { label, unit: "ops" });
  try {
    return await runPhase({
      ...parts,
      warmupMs: run.options.warmup * 1_000,
      measureMs,
      onTick: ({ operations, elapsedMs }) =>
        progress.update(() => ({ count: operations, share: Math.min(1, elapsedMs / measureMs) })),
    });
  } finally {
    progress.end();
  }
}
