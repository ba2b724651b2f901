/**
 * The power fails everywhere at once, again and again: four kv-server processes under load, all of them ended with SIGKILL at the
 * same moment and started again with nobody's help. Each time writes must be accepted again soon; in the end every acknowledged
 * write must be there, and what recording clients saw must be linearizable.
 *
 *   npm run bench:power-cuts -- --rounds 50
 */
import { existsSync } from "node:fs";
import { connect, type Kv } from "../../client/index.ts";
import { RecordedLoad } from "../integration/recorded-load.ts";
import { programsIn } from "./demo-debian.ts";
import { conclude, evaluate, Findings, numbersFrom } from "./findings.ts";
import { KeptWrites } from "./kept-writes.ts";
import { LocalCluster } from "./local-cluster.ts";

const MINUTES_MAX = 30;
const REPLICAS = 4;
const REQUEST_TIMEOUT_MS = 1_000;
const ACCEPTED_MS_MAX = 10_000;
const CLIENT_TIMEOUT_MS = 60_000;
/** Load between two cuts: at least so long, at most twice that. */
const CALM_MS = 500;

async function main(): Promise<void> {
  const options = numbersFrom({ rounds: 50, writers: 20, "checkpoint-period": 500 });
  const say = (text: string): void => void process.stderr.write(text);
  const { server } = programsIn("dist");
  if (!existsSync(server)) throw new Error("the compiled programs are missing; run: npm run build");
  const settings = { checkpointPeriod: options["checkpoint-period"] };
  const started = { replicas: REPLICAS, requestTimeoutMs: REQUEST_TIMEOUT_MS, server, settings };
  const cluster = await LocalCluster.start(started);
  const kv = await connect({ cluster: cluster.path, timeoutMs: CLIENT_TIMEOUT_MS });
  const findings = new Findings();
  try {
    const kept = new KeptWrites(kv, options.writers);
    const load = { connections: [kv], clients: 5, keys: 3, timeoutMs: CLIENT_TIMEOUT_MS, pauseMs: 50 };
    const recorded = new RecordedLoad(load);
    const acceptedMs: number[] = [];
    for (let round = 1; round <= options.rounds; round++) {
      await passed(CALM_MS * (1 + Math.random()));
      acceptedMs.push(await cutPower(cluster, kv, round));
      say(`round ${round}: writes are accepted ${Math.round(acceptedMs.at(-1) as number)} ms after the start\n`);
    }
    await passed(CALM_MS);
    await Promise.all([kept.stop(), recorded.stop()]);
    await judge({ findings, cluster, kept, acceptedMs });
    recorded.verify();
    findings.require("recorded history", "linearizable", `${recorded.operations} operations`, true);
  } finally {
    await kv.close();
    await cluster.close();
  }
  conclude(findings, options.json);
}

/** All at once, and all of them again; how long after the start a new write was acknowledged. */
async function cutPower(cluster: LocalCluster, kv: Kv<string>, round: number): Promise<number> {
  await Promise.all(cluster.ids.map((id) => cluster.kill(id)));
  const startedMs = performance.now();
  await Promise.all(cluster.ids.map((id) => cluster.startOne(id)));
  await kv.put(`cut/${round}`, String(round));
  return performance.now() - startedMs;
}

async function judge(parts: {
  findings: Findings;
  cluster: LocalCluster;
  kept: KeptWrites;
  acceptedMs: readonly number[];
}): Promise<void> {
  const { findings, cluster, kept, acceptedMs } = parts;
  const sorted = [...acceptedMs].sort((a, b) => a - b);
  const at = (index: number): string => `${((sorted[index] ?? 0) / 1_000).toFixed(2)} s`;
  const figures = `min ${at(0)}, median ${at(Math.floor(sorted.length / 2))}, max ${at(sorted.length - 1)}`;
  const late = sorted.filter((ms) => ms > ACCEPTED_MS_MAX).length;
  const required = `<= ${ACCEPTED_MS_MAX / 1_000} s each time`;
  findings.require(`writes accepted after ${sorted.length} power cuts`, required, figures, late === 0);
  const missing = await kept.missing();
  const seen = `${missing.length} of ${kept.acknowledged}${missing.length > 0 ? `, ${missing[0]} first` : ""}`;
  findings.require("acknowledged writes lost", "0", seen, missing.length === 0);
  const unanswered = [...kept.errors].map(([code, count]) => `${count} ${code}`).join(", ");
  findings.note("writes without an answer", unanswered || "none");
  const [first] = await cluster.agreement();
  findings.note("the same history four times", `instance ${first?.executed}, ${first?.historyDigest.slice(0, 12)}`);
}

function passed(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

await evaluate("power-cuts", MINUTES_MAX, main);
