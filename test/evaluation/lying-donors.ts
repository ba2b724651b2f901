/**
 * Recovering among liars: clusters of real processes with as many lying donors as they must stand, each lying in its own way to
 * whoever fetches the state. One honest replica loses its data directory and must come back with the right state: the history of
 * the others, and every record in a read that needs its answer. Its log must name the liars and nobody else.
 *
 * A lie is found out only where it is used, and whoever answers first may be used first: how soon a replica has its links back
 * and its offer sent is chance. So the replicas that answer at first are as few as a choice of a donor needs, the liars among
 * them; which one is chosen follows from their newest checkpoints then. The others are frozen meanwhile.
 *
 *   npm run bench:lying-donors -- --records 3000
 */
import { existsSync } from "node:fs";
import { bytes, connect, type Kv } from "../../client/index.ts";
import type { DonorWay } from "../integration/lying-donor.ts";
import { programsIn } from "./demo-debian.ts";
import { conclude, evaluate, Findings, numbersFrom } from "./findings.ts";
import { LocalCluster, type ReplicaDetail } from "./local-cluster.ts";
import { Records } from "./records.ts";
import { phasesText, watchRecovery } from "./recovery-watch.ts";

const MINUTES_MAX = 20;
const REQUEST_TIMEOUT_MS = 1_000;
const RECOVERY_MS_MAX = 120_000;
/** So many that an empty replica fetches a checkpoint, not the whole log. */
const PUTS_MIN = 600;
const CHECKPOINT_PERIOD = 128;
/** The first root that all have, which would speak for every checkpoint, is not reached. */
const PUTS_MAX = 1_500;
const FROZEN_MS_MAX = 30_000;
const LOOK_MS = 20;
const LIAR = new URL("../integration/lying-replica.ts", import.meta.url);

interface Case {
  readonly replicas: number;
  /** Who loses its data. */
  readonly victim: number;
  readonly liars: readonly { readonly id: number; readonly way: DonorWay }[];
}

/**
 * The victim is replica n-1. Replicas n-2-f to n-2 answer at first, each with a newer checkpoint than the one before. Only that of
 * replica n-2-f has newer roots of f others: it is fetched first. If that was a lie none has them, and the newest is next, that of
 * replica n-2. Who lies about roots is no donor, and has one to compare before as many honest ones have as are needed.
 */
const CASES: readonly Case[] = [
  { replicas: 4, victim: 3, liars: [{ id: 1, way: "state" }] },
  { replicas: 4, victim: 3, liars: [{ id: 1, way: "chunk" }] },
  { replicas: 4, victim: 3, liars: [{ id: 1, way: "manifest" }] },
  { replicas: 4, victim: 3, liars: [{ id: 1, way: "history" }] },
  { replicas: 4, victim: 3, liars: [{ id: 2, way: "root" }] },
  { replicas: 4, victim: 3, liars: [{ id: 1, way: "offer" }] },
  {
    replicas: 7,
    victim: 6,
    liars: [
      { id: 3, way: "chunk" },
      { id: 5, way: "state" },
    ],
  },
  {
    replicas: 7,
    victim: 6,
    liars: [
      { id: 3, way: "manifest" },
      { id: 4, way: "root" },
    ],
  },
];

async function main(): Promise<void> {
  const options = numbersFrom({ records: 3_000, "value-bytes": 1_024, case: -1 });
  const say = (text: string): void => void process.stderr.write(text);
  const findings = new Findings();
  const records = new Records(options.records, options["value-bytes"]);
  const cases = options.case < 0 ? CASES : CASES.slice(options.case, options.case + 1);
  for (const one of cases) {
    say(`${nameOf(one)}\n`);
    await recover(one, { records, findings, say });
  }
  conclude(findings, options.json);
}

async function recover(
  { replicas, victim, liars }: Case,
  parts: { records: Records; findings: Findings; say: (text: string) => void },
): Promise<void> {
  const { records, findings, say } = parts;
  const { server } = programsIn("dist");
  if (!existsSync(server)) throw new Error("the compiled programs are missing; run: npm run build");
  const programs = new Map(
    liars.map(({ id, way }) => [id, { program: LIAR, args: ["--lies", "donor", "--donor-way", way] }] as const),
  );
  const settings = { checkpointPeriod: CHECKPOINT_PERIOD };
  const cluster = await LocalCluster.start({
    replicas,
    requestTimeoutMs: REQUEST_TIMEOUT_MS,
    server,
    settings,
    programs,
  });
  const kv = await connect({ cluster: cluster.path, timeoutMs: 60_000, codec: bytes });
  try {
    await records.fill([kv], () => {});
    await takeTurns(cluster, kv, victim);
    await cluster.rob(victim);
    const [, recovery] = await Promise.all([
      liarsAnswerFirst(cluster, { victim, liars: liars.length }),
      watchRecovery(cluster, victim, RECOVERY_MS_MAX),
    ]);
    const name = nameOf({ replicas, victim, liars });
    const blamed = blamedBy(cluster, victim);
    say(`${phasesText(recovery.phases)}\n`);
    const donors = donorsOf(cluster, victim).join(", ");
    say(`donors: ${donors}; blamed: ${blamed.map(({ id, code }) => `${id} for ${code}`).join(", ")}\n`);
    const others = cluster.ids.filter((id) => !liars.some((liar) => liar.id === id));
    const [first] = await cluster.agreement(others);
    findings.note(`${name}: votes again`, `${(recovery.totalMs / 1_000).toFixed(1)} s, instance ${first?.executed}`);
    // As many honest ones as may fail: from now on no read succeeds without the one that recovered.
    const spare = others.filter((id) => id !== victim).slice(0, liars.length);
    await Promise.all(spare.map((id) => cluster.kill(id)));
    const wrong = await wrongRecords(kv, records);
    findings.require(`${name}: records that are wrong`, `0 of ${records.count}`, String(wrong), wrong === 0);
    if (!judgeBlame(findings, name, { blamed, liars })) say(`${cluster.lastWords(victim)}\n`);
  } finally {
    await kv.close();
    await cluster.close();
  }
}

function judgeBlame(
  findings: Findings,
  name: string,
  { blamed, liars }: { blamed: readonly { id: number; code: string }[]; liars: Case["liars"] },
): boolean {
  const named = new Set(blamed.map(({ id }) => id));
  const expected = liars.map(({ id }) => id).sort();
  const seen = [...new Set(blamed.map(({ id, code }) => `${id} for ${code}`))].join(", ");
  const right = named.size === expected.length && expected.every((id) => named.has(id));
  findings.require(`${name}: named in its log`, `${expected.join(" and ")}, nobody else`, seen || "nobody", right);
  return right;
}

/**
 * Freezes all replicas but the victim and the W right before it, until the victim has chosen as many donors as there are liars:
 * from fewer than W offers it chooses none, so that these are the offers it chooses from.
 */
async function liarsAnswerFirst(
  cluster: LocalCluster,
  { victim, liars }: { readonly victim: number; readonly liars: number },
): Promise<void> {
  const weakQuorum = liars + 1;
  const frozen = cluster.ids.filter((id) => id < victim - weakQuorum);
  for (const id of frozen) cluster.signal(id, "SIGSTOP");
  const deadline = performance.now() + FROZEN_MS_MAX;
  while (donorsOf(cluster, victim).length < liars && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  for (const id of frozen) cluster.signal(id, "SIGCONT");
}

/** Writes until the replicas took their newest checkpoints in the order of their ids, the victim left out. */
async function takeTurns(cluster: LocalCluster, kv: Kv<Uint8Array>, victim: number): Promise<void> {
  const ids = cluster.ids.filter((id) => id !== victim);
  for (let put = 0; put < PUTS_MAX; put++) {
    await kv.put("turn", Buffer.from(String(put)));
    if (put < PUTS_MIN || put % 4 !== 0) continue;
    if (!inTurn(await Promise.all(ids.map((id) => cluster.detail(id))))) continue;
    // Whoever had not executed the last put yet may begin another checkpoint with it.
    if (inTurn(await cluster.agreement(ids))) return;
  }
  throw new Error(`after ${PUTS_MAX} puts the replicas still did not take checkpoints in turn`);
}

function inTurn(details: readonly (ReplicaDetail | null)[]): boolean {
  const instances = details.map((detail) => detail?.checkpoints?.newest?.instance ?? 0);
  const rise = instances.every((instance, index) => instance > (instances[index - 1] ?? 0));
  return rise && details.every((detail) => detail?.checkpoints?.computing === false);
}

/** From whom it began to fetch, in order. */
function donorsOf(cluster: LocalCluster, victim: number): number[] {
  return cluster
    .log(victim)
    .filter(({ msg }) => msg === "fetching the checkpoint of this replica")
    .map(({ donor }) => Number(donor));
}

function blamedBy(cluster: LocalCluster, victim: number): { id: number; code: string }[] {
  return cluster
    .log(victim)
    .filter(({ msg }) => msg === "this replica sent something false")
    .map((line) => ({ id: Number(line.peer ?? line.replica), code: String(line.code) }));
}

/** Of all records, read through the cluster, how many are missing or not what was written. */
async function wrongRecords(kv: Kv<Uint8Array>, records: Records): Promise<number> {
  let next = 0;
  let wrong = 0;
  for await (const { key, value } of kv.range({ prefix: "record/" })) {
    while (next < records.count && records.key(next) < key) {
      next++;
      wrong++;
    }
    if (records.key(next) !== key || Buffer.compare(value, records.value(next)) !== 0) wrong++;
    next++;
  }
  return wrong + Math.max(0, records.count - next);
}

function nameOf({ replicas, liars }: Case): string {
  return `n=${replicas}, ${liars.map(({ id, way }) => `replica ${id} lies about ${way}`).join(", ")}`;
}

await evaluate("lying-donors", MINUTES_MAX, main);
