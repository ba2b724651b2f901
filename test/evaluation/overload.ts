/**
 * Overload (docs/protocol.md section 8), on four kv-server processes: finds the load that saturates them, then offers twice as much,
 * and shows goodput, latency of what is let in, and memory; then ten clients alone and beside one that floods, with small
 * requests and with large ones. Says PASS or FAIL for each promise.
 *
 *   npm run bench:overload -- --seconds 60
 */
import { existsSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { tableText } from "../../cli/text.ts";
import { bytes, connect, type Kv, newIdentity, QuorateError } from "../../client/index.ts";
import { programsIn } from "./demo-debian.ts";
import { LocalCluster } from "./local-cluster.ts";
import type { WireResult } from "./wire-load.ts";
import type { WireTask } from "./wire-load-main.ts";
import { wireLoad } from "./wire-load-process.ts";

const REPLICAS = 4;
const OFFERED_TIMES = 2;
const GOODPUT_MIN = 0.9;
const P99_TIMES_MAX = 5;
const POLITE_CLIENTS = 10;
const POLITE_KEPT_MIN = 0.8;
/** Memory late in the overload, in multiples of what it was early in it, and in all. */
const RSS_GROWTH_MAX = 1.25;
const RSS_BYTES_MAX = 1024 * 1024 * 1024;
/** Puts under way in the closed loop, tried in turn; the first within `KNEE` of the best throughput saturates. */
const LOOPS = [16, 32, 64, 128, 256, 512];
const KNEE = 0.95;
const WARMUP_MS = 2_000;
/** Puts made ahead, in multiples of what the load is expected to issue. */
const MADE_FOR = 1.2;
/** Of larger values there is no memory for all: they are made as they go. */
const MADE_BYTES_MAX = 4 * 1024;
const KEYS = 10_000;
const FAIRNESS_ROUNDS = 5;
const LARGE_BYTES = 256 * 1024;
const LARGE_PER_SECOND = 200;

type Say = (text: string) => void;

interface Verdict {
  readonly promise: string;
  readonly measured: string;
  readonly kept: boolean;
}

export interface OverloadOptions {
  readonly seconds: number;
  readonly valueBytes: number;
  /** Loops of each of the ten clients. */
  readonly loops: number;
  readonly say: Say;
}

/** Runs everything; nothing is left behind. */
export async function runOverload(options: OverloadOptions): Promise<Verdict[]> {
  const programs = programsIn("dist");
  if (!existsSync(programs.kv)) throw new Error("the compiled programs are missing; run: npm run build");
  const settings = { replicas: REPLICAS, requestTimeoutMs: 1_000, clients: "open" } as const;
  const cluster = await LocalCluster.start({ ...settings, server: programs.server });
  try {
    options.say(
      `${REPLICAS} replicas and the load on ${availableParallelism()} cores, puts of ${options.valueBytes} bytes\n\n`,
    );
    const { verdicts, peak } = await overloaded(cluster, options);
    const small = { perSecond: OFFERED_TIMES * peak, valueBytes: options.valueBytes };
    const large = { perSecond: LARGE_PER_SECOND, valueBytes: LARGE_BYTES };
    return [...verdicts, ...(await fairness(cluster, options, small)), ...(await fairness(cluster, options, large))];
  } finally {
    await cluster.close();
  }
}

const COLUMNS = ["LOAD", "OFFERED/S", "ANSWERED/S", "P50 MS", "P99 MS", "MAX MS", "BUSY", "SILENT", "GENERATOR"];

function row(name: string, result: WireResult): string[] {
  const { duePerSecond, answeredPerSecond, p50Ms, p99Ms, maxMs, busy, unanswered, generatorCpu } = result;
  const figures = [duePerSecond, answeredPerSecond, p50Ms, p99Ms, maxMs, busy, unanswered];
  return [name, ...figures.map((figure) => String(Math.round(figure))), `${generatorCpu.toFixed(2)} cores`];
}

interface Saturation extends Omit<WireTask, "measureMs"> {
  readonly load: { readonly type: "closed"; readonly loops: number };
  /** The best throughput of the tries. */
  readonly perSecond: number;
}

/** Made ahead, of what such a load may need in that time: else the generator takes from the machine what it offers. */
function madeAhead(perSecond: number, measureMs: number): number {
  return Math.ceil((MADE_FOR * perSecond * (WARMUP_MS + measureMs)) / 1_000);
}

/** Puts that one session has under way. */
function underWayEach({ load, identities, sessionsEach }: Saturation): number {
  return Math.max(1, Math.round(load.loops / (identities * sessionsEach)));
}

/** The closed loop that saturates, as a load to be run again and again. */
async function saturating(cluster: LocalCluster, { valueBytes, say }: OverloadOptions): Promise<Saturation> {
  const common = { file: cluster.file, identities: 8, sessionsEach: 4, keys: KEYS, valueBytes, warmupMs: WARMUP_MS };
  const tries: { loops: number; result: WireResult }[] = [];
  for (const loops of LOOPS) {
    const result = await wireLoad({ ...common, load: { type: "closed", loops }, measureMs: 4_000 });
    tries.push({ loops, result });
  }
  const best = Math.max(...tries.map(({ result }) => result.answeredPerSecond));
  const knee = tries.find(({ result }) => result.answeredPerSecond >= KNEE * best)?.loops ?? 0;
  say(
    `${tableText(
      COLUMNS,
      tries.map(({ loops, result }) => row(`closed, ${loops} under way`, result)),
    )}\n`,
  );
  return { ...common, load: { type: "closed", loops: knee }, perSecond: best };
}

/**
 * Twice what saturates, between two halves of saturation that together take as long: what happens once in a while happens in both,
 * and a machine that changes its pace in the meantime has it on either side.
 */
async function overloaded(
  cluster: LocalCluster,
  options: OverloadOptions,
): Promise<{ verdicts: Verdict[]; peak: number }> {
  const { seconds, valueBytes, say } = options;
  const saturation = await saturating(cluster, options);
  const halfMs = seconds * 500;
  const made = madeAhead(saturation.perSecond, halfMs);
  const half = (): Promise<WireResult> => wireLoad({ ...saturation, made, measureMs: halfMs });
  const first = await half();
  const before = await cluster.leadership({ from: 0 });
  const memory = new MemoryWatch(cluster);
  const perSecond = OFFERED_TIMES * first.answeredPerSecond;
  const result = await wireLoad({
    file: cluster.file,
    identities: 8,
    sessionsEach: 8,
    keys: KEYS,
    valueBytes,
    // In writes as large as those of the closed loop, whose sessions are answered, and ask again, a batch at a time.
    load: { type: "open", perSecond, together: underWayEach(saturation) },
    made: madeAhead(perSecond, seconds * 1_000),
    warmupMs: WARMUP_MS,
    measureMs: seconds * 1_000,
  });
  const { growth, rssMax, text } = await memory.stop();
  const after = await cluster.leadership({ from: before.regency });
  const second = await half();
  const rows = [
    row("saturation, first half", first),
    row(`open, ${OFFERED_TIMES} times the first half`, result),
    row("saturation, second half", second),
  ];
  say(`${tableText(COLUMNS, rows)}\n${text}\n`);
  const peak = (first.answeredPerSecond + second.answeredPerSecond) / 2;
  const p99Ms = (first.p99Ms + second.p99Ms) / 2;
  const goodput = result.answeredPerSecond / peak;
  const slower = result.p99Ms / p99Ms;
  const mib = (rssMax / 2 ** 20).toFixed(0);
  const verdicts = [
    {
      promise: `goodput at ${OFFERED_TIMES} times saturation at least ${GOODPUT_MIN} of the peak`,
      measured: goodput.toFixed(3),
      kept: goodput >= GOODPUT_MIN,
    },
    {
      promise: `p99 of what is let in at most ${P99_TIMES_MAX} times its value at saturation`,
      measured: `${slower.toFixed(2)} (${Math.round(p99Ms)} ms, then ${Math.round(result.p99Ms)} ms)`,
      kept: slower <= P99_TIMES_MAX,
    },
    {
      promise: `memory bounded: last third at most ${RSS_GROWTH_MAX} of the first, never above 1 GiB`,
      measured: `${growth.toFixed(2)}, at most ${mib} MiB`,
      kept: growth <= RSS_GROWTH_MAX && rssMax <= RSS_BYTES_MAX,
    },
    {
      promise: "nobody blames the leader for the load",
      measured: `${after.regency - before.regency} leader changes`,
      kept: after.regency === before.regency,
    },
  ];
  return { verdicts, peak };
}

/** Resident memory of every replica, once a second. */
class MemoryWatch {
  readonly #cluster: LocalCluster;
  readonly #rss = new Map<number, number[]>();
  readonly #timer: NodeJS.Timeout;
  readonly #pending: number[] = [];

  constructor(cluster: LocalCluster) {
    this.#cluster = cluster;
    this.#timer = setInterval(() => void this.#look(), 1_000);
  }

  async #look(): Promise<void> {
    for (const id of this.#cluster.ids) {
      const kib = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.#cluster.pid(id)}/status`, "latin1"))?.[1];
      this.#rss.set(id, [...(this.#rss.get(id) ?? []), Number(kib ?? 0) * 1_024]);
    }
    const detail = await this.#cluster.detail(0);
    if (detail?.queues) this.#pending.push(detail.queues.pendingRequests ?? 0);
  }

  async stop(): Promise<{ growth: number; rssMax: number; text: string }> {
    clearInterval(this.#timer);
    const mean = (values: readonly number[]): number => values.reduce((sum, one) => sum + one, 0) / values.length;
    let growth = 0;
    let rssMax = 0;
    const rows: string[][] = [];
    for (const [id, all] of this.#rss) {
      const third = Math.max(1, Math.floor(all.length / 3));
      const thirds = [all.slice(0, third), all.slice(third, -third), all.slice(-third)].map((part) => mean(part));
      growth = Math.max(growth, (thirds[2] as number) / (thirds[0] as number));
      rssMax = Math.max(rssMax, ...all);
      rows.push([String(id), ...[...thirds, Math.max(...all)].map((one) => (one / 2 ** 20).toFixed(0))]);
    }
    const queue = `requests pending at replica 0: at most ${Math.max(0, ...this.#pending)}`;
    const text = `${tableText(["REPLICA", "RSS MIB, FIRST THIRD", "SECOND", "LAST", "HIGHEST"], rows)}${queue}\n`;
    return { growth, rssMax, text };
  }
}

/** Ten clients of the SDK, alone and beside a flood, several times each; which comes first changes from round to round. */
async function fairness(
  cluster: LocalCluster,
  { seconds, valueBytes, loops, say }: OverloadOptions,
  flood: { readonly perSecond: number; readonly valueBytes: number },
): Promise<Verdict[]> {
  const measureMs = Math.min(15_000, seconds * 500);
  const clients: Kv<Uint8Array>[] = [];
  try {
    for (let index = 0; index < POLITE_CLIENTS; index++) {
      clients.push(await connect({ cluster: cluster.file, identity: newIdentity(), codec: bytes, timeoutMs: 30_000 }));
    }
    const polite = (): Promise<PoliteResult> => politeLoad(clients, { loops, valueBytes, measureMs });
    const alone: PoliteResult[] = [];
    const beside: PoliteResult[] = [];
    const floods: WireResult[] = [];
    const undisturbed = async (): Promise<void> => void alone.push(await polite());
    const disturbed = async (): Promise<void> => {
      let began = (): void => {};
      const beginning = new Promise<void>((resolve) => {
        began = resolve;
      });
      const floodMs = measureMs + WARMUP_MS + 2_000;
      const task: WireTask = {
        file: cluster.file,
        identities: 1,
        sessionsEach: 32,
        keys: KEYS,
        valueBytes: flood.valueBytes,
        made: flood.valueBytes <= MADE_BYTES_MAX ? madeAhead(flood.perSecond, floodMs) : 0,
        load: { type: "open", perSecond: flood.perSecond, together: 1 },
        warmupMs: 1_000,
        measureMs: floodMs,
      };
      const flooding = wireLoad(task, began);
      await Promise.race([beginning, flooding]);
      await new Promise((resolve) => setTimeout(resolve, 2_000));
      beside.push(await polite());
      floods.push(await flooding);
    };
    for (let round = 0; round < FAIRNESS_ROUNDS; round++) {
      const [first, second] = round % 2 === 0 ? [undisturbed, disturbed] : [disturbed, undisturbed];
      await first();
      await second();
    }
    const kept = sumOf(beside) / sumOf(alone);
    const each = clients.map((_, at) => sumOf(beside, at) / sumOf(alone, at));
    const worst = Math.min(...each);
    const name = `${Math.round(flood.perSecond)}/s of ${flood.valueBytes} bytes`;
    const rows = alone.map((one, round) => [
      String(round + 1),
      one.perSecond.toFixed(0),
      (beside[round]?.perSecond ?? 0).toFixed(0),
      (floods[round]?.answeredPerSecond ?? 0).toFixed(0),
      String(one.errors + (beside[round]?.errors ?? 0)),
    ]);
    say(`a flood of ${name} by one client, ${POLITE_CLIENTS} others with ${loops} puts under way each\n`);
    say(`${tableText(["ROUND", "ALONE/S", "BESIDE THE FLOOD/S", "FLOOD ANSWERED/S", "ERRORS"], rows)}\n`);
    return [
      {
        promise: `${POLITE_CLIENTS} clients keep ${POLITE_KEPT_MIN} of what they have alone beside ${name}`,
        measured: `${kept.toFixed(3)} together, ${worst.toFixed(3)} the worst of them`,
        kept: kept >= POLITE_KEPT_MIN && worst >= POLITE_KEPT_MIN * 0.9,
      },
    ];
  } finally {
    await Promise.all(clients.map((kv) => kv.close()));
  }
}

interface PoliteResult {
  readonly perSecond: number;
  readonly each: readonly number[];
  readonly errors: number;
}

function sumOf(results: readonly PoliteResult[], client?: number): number {
  return results.reduce(
    (sum, { perSecond, each }) => sum + (client === undefined ? perSecond : (each[client] ?? 0)),
    0,
  );
}

async function politeLoad(
  clients: readonly Kv<Uint8Array>[],
  { loops, valueBytes, measureMs }: { loops: number; valueBytes: number; measureMs: number },
): Promise<PoliteResult> {
  const beganMs = performance.now() + WARMUP_MS;
  const endMs = beganMs + measureMs;
  const value = new Uint8Array(valueBytes).fill(120);
  const counts = clients.map(() => 0);
  let errors = 0;
  const loop = async (client: number): Promise<void> => {
    while (performance.now() < endMs) {
      try {
        await (clients[client] as Kv<Uint8Array>).put(`polite/${client}/${Math.floor(Math.random() * 1_000)}`, value);
      } catch (error) {
        if (!(error instanceof QuorateError)) throw error;
        errors++;
        continue;
      }
      const nowMs = performance.now();
      if (nowMs >= beganMs && nowMs < endMs) counts[client] = (counts[client] ?? 0) + 1;
    }
  };
  await Promise.all(clients.flatMap((_, client) => Array.from({ length: loops }, () => loop(client))));
  const each = counts.map((count) => (count * 1_000) / measureMs);
  return { perSecond: each.reduce((sum, one) => sum + one, 0), each, errors };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string", default: "60" },
      value: { type: "string", default: "100" },
      loops: { type: "string", default: "8" },
    },
  });
  const say: Say = (text) => void process.stdout.write(text);
  const [seconds, valueBytes, loops] = [Number(values.seconds), Number(values.value), Number(values.loops)];
  const verdicts = await runOverload({ seconds, valueBytes, loops, say });
  const rows = verdicts.map(({ promise, measured, kept }) => [kept ? "PASS" : "FAIL", promise, measured]);
  say(tableText(["", "PROMISE", "MEASURED"], rows));
  if (verdicts.some(({ kept }) => !kept)) process.exitCode = 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await main().catch((error: unknown) => {
    process.stderr.write(`overload: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  });
}
