/**
 * The leader fails under load: four kv-server processes, `kv bench` on them, and each leader in turn ended with SIGKILL and
 * started again, or frozen with SIGSTOP and thawed. Shows the benchmark's timeline before, during and after, and how long
 * no write was acknowledged, in request timeouts T. Then holds the cluster to its promises: every acknowledged write is
 * there, and what recording clients saw is linearizable.
 *
 *   npm run bench:leader-kill -- --rounds 2 --clients 100 --request-timeout 1000
 */
import { existsSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { timelineText } from "../../cli/bench/report.ts";
import type { Interval } from "../../cli/bench/timeline.ts";
import { tableText } from "../../cli/text.ts";
import { connect } from "../../client/index.ts";
import { RecordedLoad } from "../integration/recorded-load.ts";
import { BenchRun } from "./bench-run.ts";
import { programsIn } from "./demo-debian.ts";
import { KeptWrites } from "./kept-writes.ts";
import { LocalCluster } from "./local-cluster.ts";

/** Service is to be back within so many T. */
export const OUTAGE_TIMEOUTS_MAX = 3;
const REPLICAS = 4;
const INTERVAL_MS = 250;
/** Intervals of undisturbed load before, between and after. */
const CALM_INTERVALS = 8;
const CLIENT_TIMEOUT_MS = 60_000;

const WAYS = ["SIGKILL", "SIGSTOP"] as const;
type Way = (typeof WAYS)[number];

export interface LeaderKillOptions {
  /** How many leaders are ended in each way. */
  readonly rounds: number;
  readonly clients: number;
  readonly connections: number;
  readonly requestTimeoutMs: number;
  readonly ways?: readonly Way[];
  readonly say?: (text: string) => void;
}

export interface Outage {
  readonly way: Way;
  readonly regency: number;
  readonly leader: number;
  /** The longest time without an answer in `kv bench`, and without an acknowledged write of a few calm writers. */
  readonly benchGapMs: number;
  readonly writersGapMs: number;
}

export interface LeaderKillResult {
  readonly intervals: readonly Interval[];
  readonly outages: readonly Outage[];
  /** Acknowledged writes of keys that are written once, all of which were found. */
  readonly acknowledged: number;
  /** Operations of the recorded history, which is linearizable. */
  readonly recorded: number;
}

/** @throws Error when a write is lost, the history is not linearizable, or service does not come back; nothing is left behind */
export async function runLeaderKill(options: LeaderKillOptions): Promise<LeaderKillResult> {
  const { requestTimeoutMs, clients, connections, ways = WAYS, say = () => {} } = options;
  const programs = programsIn("dist");
  if (!existsSync(programs.kv)) throw new Error("the compiled programs are missing; run: npm run build");
  const cluster = await LocalCluster.start({ replicas: REPLICAS, requestTimeoutMs, server: programs.server });
  const kv = await connect({ cluster: cluster.path, timeoutMs: CLIENT_TIMEOUT_MS });
  const load = { kv: programs.kv, cluster: cluster.path, clients, connections, intervalMs: INTERVAL_MS };
  const bench = new BenchRun(load);
  try {
    say(`${REPLICAS} replicas, ${clients} clients on ${connections} connections, T = ${requestTimeoutMs} ms\n`);
    const kept = new KeptWrites(kv, 5);
    const recorded = new RecordedLoad({ connections: [kv], clients: 5, keys: 3, timeoutMs: CLIENT_TIMEOUT_MS });
    await bench.passes(CALM_INTERVALS);
    const outages: Outage[] = [];
    for (const way of ways) {
      for (let round = 0; round < options.rounds; round++) {
        outages.push(await failLeader({ cluster, bench, kept, way }));
        say(`${outageText(outages.at(-1) as Outage, requestTimeoutMs)}\n`);
      }
    }
    await bench.stop();
    await Promise.all([kept.stop(), recorded.stop()]);
    const missing = await kept.missing();
    if (missing.length > 0) throw new Error(`${missing.length} acknowledged writes are lost, ${missing[0]} first`);
    recorded.verify();
    const { intervals } = bench;
    return { intervals, outages, acknowledged: kept.acknowledged, recorded: recorded.operations };
  } finally {
    await bench.stop();
    await kv.close();
    await cluster.close();
  }
}

/** Ends or freezes whoever leads, waits for the next leader and for calm, and brings the old one back. */
async function failLeader(parts: {
  cluster: LocalCluster;
  bench: BenchRun;
  kept: KeptWrites;
  way: Way;
}): Promise<Outage> {
  const { cluster, bench, kept, way } = parts;
  const { regency, leader } = await cluster.leadership({ from: 0 });
  const others = cluster.ids.filter((id) => id !== leader);
  const from = { benchMs: bench.nowMs, ms: performance.now() };
  bench.mark(`${way} to replica ${leader}, the leader of regency ${regency}`);
  if (way === "SIGKILL") await cluster.kill(leader);
  else cluster.signal(leader, "SIGSTOP");
  const next = await cluster.leadership({ from: regency + 1, ids: others });
  await bench.passes(CALM_INTERVALS);
  bench.mark(way === "SIGKILL" ? `replica ${leader} starts again` : `SIGCONT to replica ${leader}`);
  if (way === "SIGKILL") await cluster.startOne(leader);
  else cluster.signal(leader, "SIGCONT");
  await cluster.isBack(leader, next.regency);
  bench.mark(`replica ${leader} votes`);
  await bench.passes(CALM_INTERVALS);
  const gaps = bench.intervals.filter(({ toMs }) => toMs > from.benchMs).map(({ gapMs }) => gapMs);
  const writersGapMs = kept.longestGapMs(from.ms, performance.now());
  return { way, regency, leader, benchGapMs: Math.max(0, ...gaps), writersGapMs };
}

function inTimeouts(ms: number, requestTimeoutMs: number): string {
  return `${Math.round(ms)} ms = ${(ms / requestTimeoutMs).toFixed(2)} T`;
}

function outageText({ way, regency, leader, ...gaps }: Outage, requestTimeoutMs: number): string {
  const bench = inTimeouts(gaps.benchGapMs, requestTimeoutMs);
  const writers = inTimeouts(gaps.writersGapMs, requestTimeoutMs);
  return `${way} to replica ${leader}, regency ${regency}: without an answer ${bench}; without an acknowledged write ${writers}`;
}

function resultText(result: LeaderKillResult, requestTimeoutMs: number): string {
  const rows = result.outages.map(({ way, regency, leader, benchGapMs, writersGapMs }) => [
    way,
    String(regency),
    String(leader),
    inTimeouts(benchGapMs, requestTimeoutMs),
    inTimeouts(writersGapMs, requestTimeoutMs),
  ]);
  return [
    timelineText(result.intervals),
    tableText(["SIGNAL", "REGENCY", "LEADER", "WITHOUT AN ANSWER", "WITHOUT AN ACKNOWLEDGED WRITE"], rows),
    `${result.acknowledged} acknowledged writes, none lost; ${result.recorded} recorded operations, linearizable\n`,
  ].join("\n");
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "4" },
      clients: { type: "string", default: "100" },
      connections: { type: "string", default: "4" },
      "request-timeout": { type: "string", default: "1000" },
    },
  });
  const requestTimeoutMs = Number(values["request-timeout"]);
  const say = (text: string): void => void process.stdout.write(text);
  const result = await runLeaderKill({
    rounds: Number(values.rounds),
    clients: Number(values.clients),
    connections: Number(values.connections),
    requestTimeoutMs,
    say,
  });
  say(`\n${resultText(result, requestTimeoutMs)}`);
  const longest = Math.max(...result.outages.map((outage) => Math.max(outage.benchGapMs, outage.writersGapMs)));
  say(`longest outage ${inTimeouts(longest, requestTimeoutMs)}; at most ${OUTAGE_TIMEOUTS_MAX} T are allowed\n`);
  if (longest > OUTAGE_TIMEOUTS_MAX * requestTimeoutMs) process.exitCode = 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await main().catch((error: unknown) => {
    process.stderr.write(`leader-kill: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  });
}
