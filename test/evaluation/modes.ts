/**
 * What crash mode saves: two clusters on this machine that stand the same f faults, one in bft mode (3f+1 replicas), one in cft mode
 * (2f+1), under the same closed loop of ordered no-operations, in turn, so that whatever else the machine does hits both. Guarantees:
 * the order of the two modes changes from round to round; each figure, the ratio included, is the median over the rounds.
 *
 *   npm run bench:modes -- --seconds 5 --rounds 3
 */
import { existsSync } from "node:fs";
import { median } from "../../cli/bench/report.ts";
import { tableText } from "../../cli/text.ts";
import type { Mode } from "../../protocol/view.ts";
import { type Load, type Measured, measuredBy } from "./bench-once.ts";
import { programsIn } from "./demo-debian.ts";
import { evaluate, numbersFrom } from "./findings.ts";
import { LocalCluster } from "./local-cluster.ts";

const MINUTES_MAX = 60;
const REQUEST_TIMEOUT_MS = 2_000;
const MODES: readonly Mode[] = ["bft", "cft"];
/** Payload bytes of a request and of its reply. */
const SIZES = [
  { request: 0, reply: 0 },
  { request: 0, reply: 1_024 },
  { request: 1_024, reply: 0 },
  { request: 1_024, reply: 1_024 },
] as const;

type Sizes = (typeof SIZES)[number];
type Figures = Readonly<Record<Mode, number>>;

interface Cell {
  readonly f: number;
  readonly sizes: Sizes;
  readonly opsPerSecond: Figures;
  /** Of cft to bft in the same round. */
  readonly ratio: number;
  readonly p50Ms: Figures;
  /** Of client and replicas together. */
  readonly cpuMicrosPerOp: Figures;
  readonly errors: number;
}

const COLUMNS = ["F", "REPLICAS", "REQUEST/REPLY", "BFT OPS/S", "CFT OPS/S", "RATIO", "P50 MS", "CPU US/OP", ""];

async function main(): Promise<void> {
  const options = numbersFrom({
    seconds: 5,
    warmup: 1,
    rounds: 3,
    clients: 200,
    connections: 4,
    "faults-from": 1,
    "faults-to": 3,
  });
  const { server } = programsIn("dist");
  if (!existsSync(server)) throw new Error("the compiled programs are missing; run: npm run build");
  const cells: Cell[] = [];
  for (let f = options["faults-from"]; f <= options["faults-to"]; f++) {
    for (const cell of await cellsOf(f, server, options)) {
      cells.push(cell);
      process.stderr.write(`${rowOf(cell).join("  ")}\n`);
    }
  }
  process.stdout.write(
    options.json ? `${JSON.stringify(cells, null, 2)}\n` : `\n${tableText(COLUMNS, cells.map(rowOf))}`,
  );
  if (!cells.every(passes)) process.exitCode = 1;
}

/** Both clusters for one f are up for all sizes. */
async function cellsOf(f: number, server: URL, options: Load & { readonly rounds: number }): Promise<Cell[]> {
  const clusters = new Map<Mode, LocalCluster>();
  try {
    for (const mode of MODES) {
      const replicas = replicasOf(f)[mode];
      clusters.set(mode, await LocalCluster.start({ replicas, mode, requestTimeoutMs: REQUEST_TIMEOUT_MS, server }));
    }
    const cells: Cell[] = [];
    for (const sizes of SIZES) {
      const measured: Record<Mode, Measured[]> = { bft: [], cft: [] };
      for (let round = 0; round < options.rounds; round++) {
        for (const mode of round % 2 === 0 ? MODES : [...MODES].reverse()) {
          measured[mode].push(await bench((clusters.get(mode) as LocalCluster).path, sizes, options));
        }
      }
      cells.push(cellOf(f, sizes, measured));
    }
    return cells;
  } finally {
    for (const cluster of clusters.values()) await cluster.close();
  }
}

function replicasOf(f: number): Figures {
  return { bft: 3 * f + 1, cft: 2 * f + 1 };
}

function cellOf(f: number, sizes: Sizes, measured: Readonly<Record<Mode, readonly Measured[]>>): Cell {
  const figures = (of: (one: Measured) => number): Figures => ({
    bft: median(measured.bft.map(of)),
    cft: median(measured.cft.map(of)),
  });
  return {
    f,
    sizes,
    opsPerSecond: figures((one) => one.opsPerSecond),
    ratio: median(
      measured.cft.map(({ opsPerSecond }, round) => opsPerSecond / (measured.bft[round]?.opsPerSecond ?? Number.NaN)),
    ),
    p50Ms: figures((one) => one.latencyMs.p50),
    cpuMicrosPerOp: figures(({ cpuMicrosPerOp: { client, replicas } }) => client + (replicas ?? Number.NaN)),
    errors: MODES.flatMap((mode) => measured[mode]).reduce((sum, { errors }) => sum + errors, 0),
  };
}

function passes({ ratio, errors }: Cell): boolean {
  return ratio > 1 && errors === 0;
}

function rowOf(cell: Cell): string[] {
  const { f, sizes, opsPerSecond, ratio, p50Ms, cpuMicrosPerOp } = cell;
  const replicas = replicasOf(f);
  return [
    String(f),
    `${replicas.bft} / ${replicas.cft}`,
    `${sizes.request}/${sizes.reply}`,
    opsPerSecond.bft.toFixed(0),
    opsPerSecond.cft.toFixed(0),
    ratio.toFixed(2),
    `${p50Ms.bft.toFixed(1)} / ${p50Ms.cft.toFixed(1)}`,
    `${cpuMicrosPerOp.bft.toFixed(0)} / ${cpuMicrosPerOp.cft.toFixed(0)}`,
    passes(cell) ? "PASS" : "FAIL",
  ];
}

/** No-operations of these sizes. @throws Error as `measuredBy` */
function bench(cluster: string, { request, reply }: Sizes, load: Load): Promise<Measured> {
  return measuredBy(cluster, load, ["--noop", "--request-bytes", String(request), "--reply-bytes", String(reply)]);
}

await evaluate("modes", MINUTES_MAX, main);
