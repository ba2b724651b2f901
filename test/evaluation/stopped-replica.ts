/**
 * A replica that was only away for a while: four kv-server processes under steady load, one of them frozen with SIGSTOP for a
 * minute and thawed. It has all it needs on disk and its peers still have the log above it, so it must catch up by log alone.
 *
 *   npm run bench:stopped -- --seconds 60 --puts 200
 */
import { existsSync } from "node:fs";
import { bytes, connect } from "../../client/index.ts";
import { programsIn } from "./demo-debian.ts";
import { conclude, evaluate, Findings, numbersFrom } from "./findings.ts";
import { LocalCluster } from "./local-cluster.ts";
import { PacedLoad } from "./paced-load.ts";
import { Records } from "./records.ts";

const MINUTES_MAX = 10;
const REPLICAS = 4;
const REQUEST_TIMEOUT_MS = 1_000;
const CATCH_UP_MS_MAX = 120_000;
const CALM_MS = 5_000;
const LOOK_MS = 50;

async function main(): Promise<void> {
  const options = numbersFrom({ seconds: 60, puts: 200, "value-bytes": 1_024, records: 10_000 });
  const { server } = programsIn("dist");
  if (!existsSync(server)) throw new Error("the compiled programs are missing; run: npm run build");
  const findings = new Findings();
  const cluster = await LocalCluster.start({ replicas: REPLICAS, requestTimeoutMs: REQUEST_TIMEOUT_MS, server });
  const kv = await connect({ cluster: cluster.path, timeoutMs: 60_000, codec: bytes });
  const records = new Records(options.records, options["value-bytes"]);
  const load = new PacedLoad({ connections: [kv], records, perSecond: options.puts });
  try {
    await passed(CALM_MS);
    const { leader } = await cluster.leadership({ from: 0 });
    const victim = cluster.ids.find((id) => id !== leader) as number;
    const fetchesBefore = await cluster.metric(victim, "quorate_fetches_total");
    const stoppedAt = (await cluster.detail(victim))?.executed ?? 0;
    cluster.signal(victim, "SIGSTOP");
    await passed(options.seconds * 1_000);
    const thawedMs = performance.now();
    cluster.signal(victim, "SIGCONT");
    const { behind, transferred, tookMs, states } = await follow(cluster, victim, thawedMs);
    await passed(CALM_MS);
    await load.stop();
    const fetches = (await cluster.metric(victim, "quorate_fetches_total")) - fetchesBefore;
    const [first] = await cluster.agreement();
    findings.note("frozen", `${options.seconds} s at ${options.puts} puts/s, at instance ${stoppedAt}`);
    findings.note("behind when it was thawed", `${behind - stoppedAt} instances`);
    findings.require("it votes again, with all they had", "", `${(tookMs / 1_000).toFixed(2)} s: ${states}`, true);
    findings.require("checkpoints fetched", "none", transferred ? "one" : "none", !transferred);
    findings.require("fetches of log", "> 0", String(fetches), fetches > 0);
    findings.note("the same history four times", `instance ${first?.executed}, ${first?.historyDigest.slice(0, 12)}`);
    const failed = [...load.errors].map(([code, count]) => `${count} ${code}`).join(", ");
    findings.require("puts that failed", "none", failed || "none", load.errors.size === 0);
  } finally {
    await load.stop();
    await kv.close();
    await cluster.close();
  }
  conclude(findings, options.json);
}

/** Until the thawed replica votes and has executed what the others had when it was thawed. */
async function follow(
  cluster: LocalCluster,
  victim: number,
  thawedMs: number,
): Promise<{ behind: number; transferred: boolean; tookMs: number; states: string }> {
  const others = await cluster.statuses(cluster.ids.filter((id) => id !== victim));
  const behind = Math.max(...others.map(({ executed }) => executed));
  const states: string[] = [];
  let transferred = false;
  for (;;) {
    const detail = await cluster.detail(victim);
    const tookMs = performance.now() - thawedMs;
    if (detail?.state === "transferring") transferred = true;
    if (detail && states.at(-1) !== detail.state) states.push(detail.state);
    if (detail?.state === "voting" && detail.executed >= behind) {
      return { behind, transferred, tookMs, states: states.join(", ") };
    }
    if (tookMs > CATCH_UP_MS_MAX) throw new Error(`replica ${victim} is still ${detail?.state}: ${states.join(", ")}`);
    await passed(LOOK_MS);
  }
}

function passed(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

await evaluate("stopped-replica", MINUTES_MAX, main);
