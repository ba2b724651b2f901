/**
 * `npm run sim`: runs seeds of the simulator, many on all cores or one with a readable trace. Exits 129 when a promise was
 * broken, 128 when something stalled, 127 when something threw; each failure prints the one command that replays it.
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { runCoreSchedules } from "./core-schedules-main.ts";
import { runGuided } from "./guided.ts";
import { planted } from "./planted.ts";
import { runPool } from "./pool.ts";
import { type Report, runSeed } from "./run.ts";
import { failureLines, Totals } from "./totals.ts";
import { runTwins } from "./twins-main.ts";

const USAGE = `npm run sim -- [options]
  --seeds N      how many seeds (default 1000)
  --from S       the first of them (default: a fresh one, printed)
  --workers W    processes (default: one per core)
  --keep-going   run all seeds, whatever fails
  --seed S       one seed alone
  --trace        what happens in it, line by line
  --core ...     cores alone, without driver, disk and SDK: several times faster
  --twins ...    every scenario in which one replica runs twice
  --guided ...   the search for schedules close to trouble
Each of the last three has options of its own: add --help.`;

/** Ways of running that have a command line of their own. */
const WAYS: Readonly<Record<string, (args: readonly string[]) => Promise<number>>> = {
  "--core": runCoreSchedules,
  "--twins": runTwins,
  "--guided": runGuided,
};

const SEEDS = 1_000;
const SEED_MAX = 1_000_000_000;
const PROGRESS_MS = 10_000;

interface Batch {
  readonly from: number;
  readonly seeds: number;
  readonly workers: number;
  readonly keepGoing: boolean;
}

async function main(args: readonly string[]): Promise<number> {
  const way = args.find((arg) => Object.hasOwn(WAYS, arg));
  if (way) return WAYS[way]?.(args.filter((arg) => arg !== way)) ?? 2;
  const { values } = parseArgs({
    args: [...args],
    options: {
      seeds: { type: "string" },
      from: { type: "string" },
      workers: { type: "string" },
      seed: { type: "string" },
      trace: { type: "boolean", default: false },
      "keep-going": { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  if (values.seed !== undefined) return one(numberOf(values.seed), values.trace);
  return many({
    from: values.from === undefined ? Math.floor(Math.random() * SEED_MAX) : numberOf(values.from),
    seeds: values.seeds === undefined ? SEEDS : numberOf(values.seeds),
    workers: values.workers === undefined ? availableParallelism() : numberOf(values.workers),
    keepGoing: values["keep-going"],
  });
}

function numberOf(text: string): number {
  const number = Number(text);
  if (!Number.isSafeInteger(number) || number < 0) throw new Error(`not a number from 0: ${text}`);
  return number;
}

async function one(seed: number, trace: boolean): Promise<number> {
  const startedMs = performance.now();
  const observers = () => planted(process.env.QUORATE_SIM_PLANT);
  const listener = trace ? { listener: (line: string) => void process.stdout.write(`${line}\n`) } : {};
  const report = await runSeed({ seed, observers, ...listener });
  const totals = new Totals();
  totals.add(report);
  for (const line of totals.lines((performance.now() - startedMs) / 1000)) console.log(line);
  console.log(`trace digest ${report.digest}`);
  for (const line of failureLines(report)) console.log(line);
  return report.failure?.exit ?? 0;
}

async function many(batch: Batch): Promise<number> {
  const startedMs = performance.now();
  const totals = new Totals();
  const seconds = (): number => (performance.now() - startedMs) / 1000;
  console.log(`seeds ${batch.from} to ${batch.from + batch.seeds - 1} in ${batch.workers} processes`);
  const progress = setInterval(() => {
    console.log(`${totals.seeds} seeds, ${(totals.seeds / seconds()).toFixed(1)} per second`);
  }, PROGRESS_MS);
  let next = batch.from;
  const end = batch.from + batch.seeds;
  const take = (): number | null => {
    if (next >= end || (totals.failures.length > 0 && !batch.keepGoing)) return null;
    return next++;
  };
  const report = (done: Report): void => {
    totals.add(done);
    for (const line of failureLines(done)) console.log(line);
  };
  await runPool<number, Report>({
    script: new URL("./worker.ts", import.meta.url),
    processes: batch.workers,
    take,
    done: (_, done) => report(done),
    died: (seed, why) => report(crashed(seed, why)),
  });
  clearInterval(progress);
  for (const line of totals.lines(seconds())) console.log(line);
  return totals.failures.reduce((exit, { failure }) => Math.max(exit, failure?.exit ?? 0), 0);
}

function crashed(seed: number, message: string): Report {
  const failure = { exit: 127, message, stack: message } as const;
  const nothing = { virtualUs: 0, events: 0, decided: 0, regencyChanges: 0, calls: 0, recoveryUs: null, counts: {} };
  return { seed, failure, digest: "", ...nothing };
}

process.exitCode = await main(process.argv.slice(2));
