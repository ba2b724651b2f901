/**
 * What the malicious fault model costs and what it is good for. Costs: the same load on a plain cluster, on one whose requests are
 * signed, and on one whose leaders take turns as well, one after the other in each round, so that all see the same machine. Good
 * for: one member of four delays each of its proposals by a share of T, in the plain model as the leader, in the malicious one
 * in its turns; throughput with it beside throughput before.
 *
 *   npm run bench:malicious -- --rounds 3 --seconds 5 --clients 100 --rotation 1000 --slow 0.24,0.9
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parseArgs, promisify } from "node:util";
import { programCommand } from "../../cli/local/replica-process.ts";
import { tableText } from "../../cli/text.ts";
import { programsIn } from "./demo-debian.ts";
import { LocalCluster, type LocalClusterOptions } from "./local-cluster.ts";

const REPLICAS = 4;
const REQUEST_TIMEOUT_MS = 1_000;
const WARMUP_SECONDS = 2;
/** Until a slow member has led, was replaced, and everybody knows it. */
const SETTLE_SECONDS = 8;
const LIAR = new URL("../integration/lying-leader.ts", import.meta.url);

type Model = NonNullable<LocalClusterOptions["model"]>;

interface Load {
  readonly kv: URL;
  readonly clients: number;
  readonly seconds: number;
}

interface Figures {
  readonly opsPerSecond: number;
  readonly p50Ms: number;
  readonly errors: number;
  readonly cpuMicrosPerOp: number;
}

/** One `kv bench` from start to end. */
async function measure(
  cluster: LocalCluster,
  { kv, clients, seconds }: Load,
  warmup = WARMUP_SECONDS,
): Promise<Figures> {
  const [program, ...before] = programCommand(kv);
  const load = ["--clients", `${clients}`, "--connections", "4", "--seconds", `${seconds}`, "--warmup", `${warmup}`];
  const args = [...before, "bench", "--cluster", cluster.path, ...load, "-o", "json"];
  const { stdout } = await promisify(execFile)(program, args);
  const { opsPerSecond, latencyMs, errors, cpuMicrosPerOp } = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "");
  return { opsPerSecond, p50Ms: latencyMs.p50, errors, cpuMicrosPerOp: cpuMicrosPerOp?.replicas ?? Number.NaN };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

const say = (text: string): void => void process.stdout.write(text);

async function compareCosts(
  models: ReadonlyMap<string, Model>,
  load: Load & { server: URL; rounds: number },
): Promise<void> {
  const { server, rounds } = load;
  const clusters = new Map<string, LocalCluster>();
  const found = new Map<string, Figures[]>();
  try {
    for (const [name, model] of models) {
      const started = { replicas: REPLICAS, requestTimeoutMs: REQUEST_TIMEOUT_MS, server, model };
      clusters.set(name, await LocalCluster.start(started));
    }
    for (let round = 1; round <= rounds; round++) {
      for (const [name, cluster] of clusters) {
        const figures = await measure(cluster, load);
        found.set(name, [...(found.get(name) ?? []), figures]);
        say(
          `round ${round}, ${name}: ${figures.opsPerSecond} op/s, p50 ${figures.p50Ms} ms, ${figures.errors} errors\n`,
        );
      }
    }
    const [plain = []] = found.values();
    const rows = [...found].map(([name, figures]) => {
      const of = (pick: (one: Figures) => number): number => median(figures.map(pick));
      // Round by round: the machine is not the same in all of them.
      const ratio = (pick: (one: Figures) => number): string =>
        median(figures.map((one, round) => pick(one) / pick(plain[round] as Figures))).toFixed(2);
      return [
        name,
        of(({ opsPerSecond }) => opsPerSecond).toFixed(0),
        ratio(({ opsPerSecond }) => opsPerSecond),
        of(({ p50Ms }) => p50Ms).toFixed(1),
        ratio(({ p50Ms }) => p50Ms),
        of(({ cpuMicrosPerOp }) => cpuMicrosPerOp).toFixed(0),
      ];
    });
    say(`\n${tableText(["MODEL", "OP/S", "RATIO", "P50 MS", "RATIO", "CPU US/OP"], rows)}`);
    for (const [name, cluster] of clusters) {
      const handovers = await cluster.metric(0, "quorate_leader_handovers_total");
      const changes = await cluster.metric(0, "quorate_regency_changes_total");
      say(`${name}: ${handovers} turns ended in order, ${changes} changes of regency\n`);
    }
  } finally {
    for (const cluster of clusters.values()) await cluster.close();
  }
}

/** Throughput before and while replica 0 is slow whenever it leads. */
async function slowLeader(
  name: string,
  model: Model,
  load: Load & { server: URL; share: number },
): Promise<readonly string[]> {
  const { server, share } = load;
  const programs = new Map([[0, { program: LIAR, args: ["--way", "slow", "--share", `${share}`] }]]);
  const started = { replicas: REPLICAS, requestTimeoutMs: REQUEST_TIMEOUT_MS, server, model, programs };
  const cluster = await LocalCluster.start(started);
  try {
    const before = await measure(cluster, load);
    cluster.signal(0, "SIGUSR2");
    const slow = await measure(cluster, load, SETTLE_SECONDS);
    const changes = await cluster.metric(1, "quorate_regency_changes_total");
    const ratio = slow.opsPerSecond / before.opsPerSecond;
    const figures = [before.opsPerSecond, slow.opsPerSecond].map((value) => value.toFixed(0));
    return [name, `${share} T`, ...figures, ratio.toFixed(2), slow.p50Ms.toFixed(1), String(changes)];
  } finally {
    await cluster.close();
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "3" },
      seconds: { type: "string", default: "5" },
      clients: { type: "string", default: "100" },
      rotation: { type: "string", default: "1000" },
      slow: { type: "string", default: "0.24,0.9" },
    },
  });
  const { kv, server } = programsIn("dist");
  if (!existsSync(server)) throw new Error("the compiled programs are missing; run: npm run build");
  const rotation = Number(values.rotation);
  const malicious: Model = { signedRequests: true, faultModel: "malicious", rotation };
  const load = { kv, server, clients: Number(values.clients), seconds: Number(values.seconds) };
  const models = new Map<string, Model>([
    ["plain", {}],
    ["signed", { signedRequests: true }],
    ["malicious", malicious],
  ]);
  say(
    `${REPLICAS} replicas, ${values.clients} clients, turns of ${rotation} instances, T = ${REQUEST_TIMEOUT_MS} ms\n`,
  );
  await compareCosts(models, { ...load, rounds: Number(values.rounds) });
  const rows: (readonly string[])[] = [];
  for (const share of values.slow
    .split(",")
    .filter((text) => text !== "")
    .map(Number)) {
    rows.push(await slowLeader("plain", {}, { ...load, share }));
    rows.push(await slowLeader("malicious", malicious, { ...load, share }));
  }
  if (rows.length === 0) return;
  const header = ["MODEL", "LATE BY", "OP/S BEFORE", "OP/S WITH IT", "RATIO", "P50 MS", "REGENCIES"];
  say(`\n${tableText(header, rows)}`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await main().catch((error: unknown) => {
    process.stderr.write(`malicious: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  });
}
