/**
 * A replica loses its disk: four kv-server processes with many records, steady load of half of what they can take, one replica
 * killed, its data directory deleted, and started again. Shows how long it takes until it votes, how fast it fetches, what
 * clients notice, and how much memory it takes; then the same with an idle cluster, beside a bulk load of plain LevelDB.
 *
 *   npm run bench:transfer -- --records 200000 --value-bytes 1024 --load-share 0.5
 */
import { existsSync } from "node:fs";
import { bytes, connect, type Kv } from "../../client/index.ts";
import { bulkLoadRate } from "./bulk-load.ts";
import { programsIn } from "./demo-debian.ts";
import { conclude, evaluate, Findings, numbersFrom } from "./findings.ts";
import { LocalCluster, type ReplicaDetail, untilFound } from "./local-cluster.ts";
import { type Latencies, PacedLoad, peakOf } from "./paced-load.ts";
import { Records } from "./records.ts";
import { phasesText, type Recovery, watchRecovery } from "./recovery-watch.ts";

const MINUTES_MAX = 20;
const REPLICAS = 4;
const REQUEST_TIMEOUT_MS = 1_000;
const RECOVERY_MS_MAX = 240_000;
const CALM_MS = 10_000;
/** p99 during the transfer, against before. */
const MEMORY_MAX = 400_000_000;
const SLOWDOWN_MAX = 3;
const RATE_MIN = 40e6;
/** Of a bulk load of plain LevelDB. */
const BULK_SHARE_MIN = 0.5;

interface Options {
  readonly records: number;
  readonly "value-bytes": number;
  readonly "load-share": number;
  readonly clients: number;
  readonly connections: number;
  readonly "checkpoint-period": number;
  readonly json: boolean;
}

interface Run {
  readonly cluster: LocalCluster;
  readonly connections: readonly Kv<Uint8Array>[];
  readonly records: Records;
  readonly findings: Findings;
  readonly say: (text: string) => void;
}

async function main(): Promise<void> {
  const usual = { records: 200_000, "value-bytes": 1_024, "load-share": 0.5, clients: 200, connections: 2 };
  const options = numbersFrom({ ...usual, "checkpoint-period": 200 });
  const say = (text: string): void => void process.stderr.write(text);
  const { server } = programsIn("dist");
  if (!existsSync(server)) throw new Error("the compiled programs are missing; run: npm run build");
  const findings = new Findings();
  const records = new Records(options.records, options["value-bytes"]);
  const settings = { checkpointPeriod: options["checkpoint-period"] };
  const cluster = await LocalCluster.start({
    replicas: REPLICAS,
    requestTimeoutMs: REQUEST_TIMEOUT_MS,
    server,
    settings,
  });
  const connections: Kv<Uint8Array>[] = [];
  try {
    for (let index = 0; index < options.connections; index++) {
      connections.push(await connect({ cluster: cluster.path, timeoutMs: 60_000, codec: bytes }));
    }
    const run = { cluster, connections, records, findings, say };
    await load(run);
    await underLoad(run, options);
    await whileIdle(run);
  } finally {
    await Promise.all(connections.map((kv) => kv.close()));
    await cluster.close();
  }
  conclude(findings, options.json);
}

async function load({ connections, records, findings, say }: Run): Promise<void> {
  const startedMs = performance.now();
  await records.fill(connections, say);
  const seconds = (performance.now() - startedMs) / 1_000;
  const rate = `${Math.round(records.count / seconds)} records/s`;
  findings.note(`${records.count} records of ${records.valueBytes} bytes written`, `${seconds.toFixed(1)} s, ${rate}`);
}

/** Some replica that does not lead, so that losing it is no change of leader. */
async function follower(cluster: LocalCluster): Promise<number> {
  const { leader } = await cluster.leadership({ from: 0 });
  return cluster.ids.find((id) => id !== leader) as number;
}

async function underLoad(run: Run, options: Options): Promise<void> {
  const { cluster, connections, records, findings, say } = run;
  const { clients } = options;
  const peak = await peakOf({ connections, records, clients, warmupMs: 2_000, measureMs: 8_000 });
  const perSecond = peak * options["load-share"];
  findings.note("peak of puts, closed loop", `${Math.round(peak)} puts/s, ${clients} clients`);
  const victim = await follower(cluster);
  const steady = new PacedLoad({ connections, records, perSecond });
  const startedMs = performance.now();
  try {
    // The first two seconds are warm-up.
    await passed(2_000 + CALM_MS);
    const killedMs = performance.now();
    await cluster.rob(victim);
    say(`replica ${victim} has lost its data directory, at ${Math.round(perSecond)} puts/s\n`);
    const recovery = await watchRecovery(cluster, victim, RECOVERY_MS_MAX);
    const votesMs = performance.now();
    await passed(CALM_MS);
    await steady.stop();
    const before = steady.latencies(startedMs + 2_000, killedMs);
    const during = steady.latencies(killedMs, votesMs);
    const after = steady.latencies(votesMs, votesMs + CALM_MS);
    say(`${phasesText(recovery.phases)}\n`);
    judgeRecovery(findings, `under ${Math.round(perSecond)} puts/s`, { recovery, victim });
    judgeLatencies(findings, { before, during, after });
    const failed = [...steady.errors].map(([code, count]) => `${count} ${code}`).join(", ");
    findings.require("puts that failed", "none", failed || "none", steady.errors.size === 0);
  } finally {
    await steady.stop();
  }
  await judgeState(run, victim, "after the load");
}

function judgeRecovery(
  findings: Findings,
  when: string,
  { recovery, victim }: { recovery: Recovery; victim: number },
): void {
  const { totalMs, bytes: fetched, fetchMs, donor } = recovery;
  findings.note(`${when}: until it votes`, `${(totalMs / 1_000).toFixed(1)} s`);
  findings.note(
    `${when}: checkpoint`,
    `${mb(fetched)} in ${(fetchMs / 1_000).toFixed(2)} s: ${rateText(fetched, fetchMs)}`,
  );
  findings.note(`${when}: over all of it`, rateText(fetched, totalMs));
  for (const [id, most] of recovery.memoryBytes) {
    const role = id === victim ? "the receiver" : id === donor ? "the donor" : `replica ${id}`;
    const before = recovery.memoryBytesBefore.get(id);
    const seen = before === undefined || id === victim ? mb(most) : `${mb(most)}, ${mb(before)} before`;
    if (id !== victim && id !== donor) findings.note(`${when}: largest memory of ${role}`, seen);
    else findings.require(`${when}: largest memory of ${role}`, `< ${mb(MEMORY_MAX)}`, seen, most < MEMORY_MAX);
  }
}

function judgeLatencies(findings: Findings, parts: { before: Latencies; during: Latencies; after: Latencies }): void {
  for (const [when, { count, perSecond, p50Ms, p99Ms, maxMs }] of Object.entries(parts)) {
    const ms = `p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms, longest ${maxMs.toFixed(0)} ms`;
    findings.note(`puts ${when}`, `${count}, ${Math.round(perSecond)}/s: ${ms}`);
  }
  const ratio = parts.during.p99Ms / parts.before.p99Ms;
  findings.require("p99 during / before", `<= ${SLOWDOWN_MAX}`, ratio.toFixed(2), ratio <= SLOWDOWN_MAX);
}

/** All have the same history, and no replica sees another root than its own. */
async function judgeState({ cluster, findings }: Run, victim: number, when: string): Promise<void> {
  const details = await cluster.agreement();
  const { executed, historyDigest } = details[0] as ReplicaDetail;
  findings.require(
    `${when}: executed and history`,
    "the same four times",
    `instance ${executed}, ${historyDigest.slice(0, 12)}`,
    new Set(details.map((detail) => detail.historyDigest)).size === 1,
  );
  // Its first checkpoint comes by itself, soon after the start.
  const newest = await untilFound(120_000, `a checkpoint of replica ${victim}`, async () => {
    const detail = await cluster.detail(victim);
    return detail?.checkpoints?.newest ?? null;
  });
  const alarms = (await Promise.all(cluster.ids.map((id) => cluster.detail(id)))).flatMap(
    (detail, id) => detail?.alarms.map(({ code }) => `${code} at replica ${id}`) ?? [`replica ${id} is silent`],
  );
  const expected = alarms.filter((alarm) => alarm !== `REPAIRED at replica ${victim}`);
  const mismatches = await Promise.all(cluster.ids.map((id) => cluster.metric(id, "quorate_root_mismatches_total")));
  const sum = mismatches.reduce((a, b) => a + b, 0);
  const seen = `${sum}; root ${newest.root.slice(0, 12)} at ${newest.instance}; alarms: ${alarms.join(", ") || "none"}`;
  findings.require(`${when}: roots that disagree`, "0, no alarm", seen, sum === 0 && expected.length === 0);
}

async function whileIdle(run: Run): Promise<void> {
  const { cluster, records, findings, say } = run;
  const victim = await follower(cluster);
  await cluster.rob(victim);
  say(`replica ${victim} has lost its data directory; nobody writes\n`);
  const recovery = await watchRecovery(cluster, victim, RECOVERY_MS_MAX);
  say(`${phasesText(recovery.phases)}\n`);
  judgeRecovery(findings, "idle", { recovery, victim });
  const bulk = await bulkLoadRate(records);
  const rate = (recovery.bytes * 1_000) / Math.max(1, recovery.fetchMs);
  findings.note("bulk load of plain LevelDB", `${mb(bulk)}/s`);
  const share = rate / bulk;
  const required = `>= ${mb(RATE_MIN)}/s, or ${BULK_SHARE_MIN} of the bulk load`;
  const seen = `${mb(rate)}/s, ${share.toFixed(2)} of it`;
  findings.require("idle: rate of the checkpoint", required, seen, rate >= RATE_MIN || share >= BULK_SHARE_MIN);
  await judgeState(run, victim, "idle");
}

function mb(count: number): string {
  return `${(count / 1e6).toFixed(1)} MB`;
}

function rateText(count: number, ms: number): string {
  return `${mb((count * 1_000) / Math.max(1, ms))}/s`;
}

function passed(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

await evaluate("state-transfer", MINUTES_MAX, main);
