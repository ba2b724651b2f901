/**
 * One cluster through everything that may befall it, on one plot: four kv-server processes under a steady load, to which a fifth
 * replica is added; a follower is killed and started again; the leader is killed and started again; a replica is removed. Holds the
 * cluster to its promises: nothing acknowledged is lost, all that was recorded is linearizable, and between two events it serves as
 * much as before the first.
 *
 *   npm run bench:timeline -- --quiet-seconds 12 --clients 200 --load-share 0.4 --out docs/evaluation
 */
import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import { connect, type Kv } from "../../client/index.ts";
import { type Programs, programsIn } from "./demo-debian.ts";
import { conclude, evaluate, Findings } from "./findings.ts";
import { LocalCluster, untilFound } from "./local-cluster.ts";
import { phasesText, watchRecovery } from "./recovery-watch.ts";
import {
  bucketsOf,
  type ClusterEvent,
  DEVIATION_MAX,
  type EventTimeline,
  levelsOf,
  longestGapMs,
  medianOf,
  type Stretch,
} from "./timeline-figures.ts";
import { TimelineLoad } from "./timeline-load.ts";
import { writeTimeline } from "./timeline-plot.ts";

const MINUTES_MAX = 10;
const REPLICAS = 4;
const REQUEST_TIMEOUT_MS = 1_000;
const CLIENT_TIMEOUT_MS = 60_000;
const CONNECTIONS = 4;
const VALUE_BYTES = 100;
const BUCKET_MS = 500;
/** Left out of a stretch after an event is over, and after the load began. */
const SETTLE_MS = 3_000;
const PEAK_WARMUP_MS = 6_000;
const PEAK_MEASURE_MS = 6_000;
const RECOVERY_MS_MAX = 60_000;
const EXIT_MS_MAX = 30_000;

interface Options {
  readonly quietSeconds: number;
  readonly clients: number;
  /** Of the peak; 1: without a pace. */
  readonly loadShare: number;
  readonly out: string;
  readonly json: boolean;
}

interface Course {
  readonly cluster: LocalCluster;
  readonly programs: Programs;
  readonly load: TimelineLoad;
  readonly findings: Findings;
  readonly quietMs: number;
  readonly events: ClusterEvent[];
  readonly stretches: Stretch[];
}

async function main(): Promise<void> {
  const { quietSeconds, loadShare, out, json, ...wanted } = optionsOf();
  const programs = programsIn("dist");
  if (!existsSync(programs.server)) throw new Error("the compiled programs are missing; run: npm run build");
  const findings = new Findings();
  const started = { replicas: REPLICAS, requestTimeoutMs: REQUEST_TIMEOUT_MS, server: programs.server };
  const cluster = await LocalCluster.start(started);
  const connections: Kv<string>[] = [];
  try {
    for (let index = 0; index < CONNECTIONS; index++) {
      connections.push(await connect({ cluster: cluster.path, timeoutMs: CLIENT_TIMEOUT_MS }));
    }
    const clients = Array.from(
      { length: wanted.clients },
      (_, client) => connections[client % CONNECTIONS] as Kv<string>,
    );
    const usual = { clients, valueBytes: VALUE_BYTES };
    const peak = await peakOf(new TimelineLoad({ ...usual, perSecond: Number.POSITIVE_INFINITY, name: "peak" }));
    const { perSecond, pace } = paceOf(peak, loadShare);
    findings.note("peak, closed loop", `${numberText(peak)} operations/s, ${clients.length} clients`);
    findings.note("load", `${clients.length} clients, ${pace}`);
    const load = new TimelineLoad({ ...usual, perSecond, name: "timeline" });
    const quietMs = quietSeconds * 1_000;
    const course: Course = { cluster, programs, load, findings, quietMs, events: [], stretches: [] };
    try {
      await run(course);
    } finally {
      await load.stop();
    }
    const timeline = timelineOf(course, `${clients.length} clients, ${pace}`);
    writeTimeline(out, timeline);
    judgeService(course, timeline);
    await judgePromises(course);
  } finally {
    await Promise.all(connections.map((kv) => kv.close()));
    await cluster.close();
  }
  conclude(findings, json);
}

/** @throws Error naming an option that makes no sense */
function optionsOf(): Options {
  const { values } = parseArgs({
    options: {
      "quiet-seconds": { type: "string", default: "12" },
      clients: { type: "string", default: "200" },
      "load-share": { type: "string", default: "0.4" },
      out: { type: "string", default: "docs/evaluation" },
      json: { type: "boolean", default: false },
    },
  });
  const above0 = (name: "quiet-seconds" | "clients" | "load-share"): number => {
    const value = Number(values[name]);
    if (!(value > 0)) throw new Error(`--${name} must be a number above 0`);
    return value;
  };
  const [quietSeconds, clients, loadShare] = [above0("quiet-seconds"), above0("clients"), above0("load-share")];
  return { quietSeconds, clients, loadShare, out: values.out, json: values.json };
}

/** Operations per second at the end of this load, which ends. */
async function peakOf(load: TimelineLoad): Promise<number> {
  await passed(PEAK_WARMUP_MS + PEAK_MEASURE_MS);
  const toMs = load.nowMs;
  await load.stop();
  const measured = load.answers.filter(({ atMs }) => atMs >= PEAK_WARMUP_MS && atMs < toMs);
  return (measured.length * 1_000) / (toMs - PEAK_WARMUP_MS);
}

function paceOf(peak: number, loadShare: number): { perSecond: number; pace: string } {
  if (loadShare >= 1) return { perSecond: Number.POSITIVE_INFINITY, pace: "as fast as answers come" };
  const perSecond = Math.round(peak * loadShare);
  return { perSecond, pace: `${numberText(perSecond)} operations/s, ${loadShare * 100} % of the peak` };
}

async function run(course: Course): Promise<void> {
  const { cluster, programs } = course;
  const added = REPLICAS;
  await quiet(course, "4 replicas");
  await event(course, `replica ${added} added: n = 5`, async () => {
    await cluster.startJoining(programs.kv, added);
    await cluster.addToView(programs.kv, added);
  });
  await quiet(course, "5 replicas");
  const { regency, leader } = await cluster.leadership({ from: 0 });
  const follower = cluster.ids.find((id) => id !== leader && id !== added) as number;
  await event(course, `follower ${follower} killed`, () => cluster.kill(follower));
  await quiet(course, "4 of 5 replicas");
  await event(course, `follower ${follower} started again`, () => backAgain(cluster, follower, regency));
  await quiet(course, "5 replicas");
  let next = regency;
  await event(course, `leader ${leader} killed`, async () => {
    await cluster.kill(leader);
    const ids = cluster.ids.filter((id) => id !== leader);
    ({ regency: next } = await cluster.leadership({ from: regency + 1, ids }));
  });
  await quiet(course, "4 of 5 replicas");
  await event(course, `replica ${leader} started again`, () => backAgain(cluster, leader, next));
  await quiet(course, "5 replicas");
  await event(course, `replica ${added} removed: n = 4`, () => remove(course, added));
  await quiet(course, "4 replicas");
}

async function quiet({ load, stretches, quietMs }: Course, what: string): Promise<void> {
  await passed(SETTLE_MS);
  const fromMs = load.nowMs;
  await passed(quietMs);
  stretches.push({ what, fromMs, toMs: load.nowMs });
}

async function event({ load, events }: Course, what: string, act: () => Promise<void>): Promise<void> {
  const fromMs = load.nowMs;
  process.stderr.write(`${(fromMs / 1_000).toFixed(1)} s: ${what}\n`);
  await act();
  events.push({ what, fromMs, toMs: load.nowMs });
}

async function backAgain(cluster: LocalCluster, id: number, regency: number): Promise<void> {
  const { phases } = await watchRecovery(cluster, id, RECOVERY_MS_MAX);
  process.stderr.write(`  ${phasesText(phases)}\n`);
  await cluster.isBack(id, regency);
}

/** Until the replica is no member and its process has ended by itself. */
async function remove({ cluster, programs, findings }: Course, id: number): Promise<void> {
  await cluster.removeFromView(programs.kv, id);
  const { code, signal } = await untilFound(EXIT_MS_MAX, `the end of replica ${id}`, async () =>
    cluster.hasEnded(id) ? await cluster.exited(id) : null,
  );
  const seen = code === null ? `killed by ${signal}` : `exit code ${code}`;
  findings.require(`the removed replica ${id} ends by itself`, "exit code 0", seen, code === 0);
}

function timelineOf({ load, events, stretches }: Course, name: string): EventTimeline {
  const answeredMs = load.answers.map(({ atMs }) => atMs);
  const toMs = stretches.at(-1)?.toMs as number;
  const buckets = bucketsOf(answeredMs, { bucketMs: BUCKET_MS, toMs });
  const levels = levelsOf(stretches, { buckets, bucketMs: BUCKET_MS });
  return { load: name, bucketMs: BUCKET_MS, buckets, events, levels };
}

/** What clients noticed. */
function judgeService({ load, findings }: Course, { events, levels }: EventTimeline): void {
  const { answers } = load;
  const base = levels[0]?.perSecond as number;
  for (const [index, { what, fromMs, toMs, perSecond, ratio, lowest }] of levels.entries()) {
    const latencies = answers.filter(({ atMs }) => atMs >= fromMs && atMs < toMs).map((one) => one.latencyMs);
    const rates = `${numberText(perSecond)}/s, lowest bucket ${numberText(lowest)}/s`;
    const seen = `${ratio.toFixed(3)}: ${rates}; median latency ${medianOf(latencies).toFixed(1)} ms`;
    const name = `level ${seconds(fromMs)} to ${seconds(toMs)} s: ${what}`;
    const required = `${numberText(base)}/s ± ${DEVIATION_MAX * 100} %`;
    if (index === 0) findings.note(name, seen);
    else findings.require(name, required, seen, Math.abs(ratio - 1) <= DEVIATION_MAX);
  }
  const answeredMs = answers.map(({ atMs }) => atMs);
  for (const { what, fromMs, toMs } of events) {
    const gapMs = longestGapMs(answeredMs, { fromMs: fromMs - BUCKET_MS, toMs: toMs + SETTLE_MS });
    findings.note(
      `${seconds(fromMs)} s: ${what}`,
      `over after ${seconds(toMs - fromMs)} s; longest without an answer ${Math.round(gapMs)} ms`,
    );
  }
}

/** What must be true whatever happened. */
async function judgePromises({ cluster, load, findings }: Course): Promise<void> {
  const failed = [...load.errors].map(([code, count]) => `${count} ${code}`).join(", ");
  findings.require("operations that failed", "none", failed || "none", load.errors.size === 0);
  const details = await cluster.agreement();
  const [first] = details;
  const same = `${details.length} replicas at instance ${first?.executed}, ${first?.historyDigest.slice(0, 12)}`;
  findings.require("the same history at all members", "4 replicas", same, details.length === REPLICAS);
  const lost = await load.lost();
  const seen = `${lost.length} of ${load.acknowledged}${lost.length > 0 ? `, ${lost[0]} first` : ""}`;
  findings.require("acknowledged writes lost", "0", seen, lost.length === 0);
  const violation = await load.violation();
  const verdict = violation === null ? `linearizable, ${load.recorded} operations` : violation;
  findings.require("recorded history, all of it", "linearizable", verdict, violation === null);
}

function numberText(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

function seconds(ms: number): string {
  return (ms / 1_000).toFixed(1);
}

function passed(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

await evaluate("timeline", MINUTES_MAX, main);
