/**
 * `npm run sim`: runs seeds of the simulator, many on all cores or one with a readable trace. Exits 129 when a promise was
 * broken, 128 when something stalled, 127 when something threw; each failure prints the one command that replays it.
 */
import { type ChildProcess, fork } from "node:child_process";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { planted } from "./planted.ts";
import { type Report, runSeed } from "./run.ts";
import { failureLines, Totals } from "./totals.ts";

const USAGE = `npm run sim -- [options]
  --seeds N      how many seeds (default 1000)
  --from S       the first of them (default: a fresh one, printed)
  --workers W    processes (default: one per core)
  --keep-going   run all seeds, whatever fails
  --seed S       one seed alone
  --trace        what happens in it, line by line`;

const SEEDS = 1_000;
const SEED_MAX = 1_000_000_000;
/** A seed takes a tenth of a second; a worker silent for so long hangs. */
const SILENCE_MS = 120_000;
const PROGRESS_MS = 10_000;

interface Batch {
  readonly from: number;
  readonly seeds: number;
  readonly workers: number;
  readonly keepGoing: boolean;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
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
  await Promise.all(Array.from({ length: batch.workers }, () => work(take, report)));
  clearInterval(progress);
  for (const line of totals.lines(seconds())) console.log(line);
  return totals.failures.reduce((exit, { failure }) => Math.max(exit, failure?.exit ?? 0), 0);
}

/** One worker process, seed after seed; a process that dies or hangs is a crash of its seed, and another takes its place. */
async function work(take: () => number | null, report: (done: Report) => void): Promise<void> {
  let child: ChildProcess | null = null;
  for (let seed = take(); seed !== null; seed = take()) {
    child ??= fork(new URL("./worker.ts", import.meta.url), { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    const done = await reportOf(child, seed);
    if (typeof done === "string") {
      child.kill("SIGKILL");
      child = null;
      report(crashed(seed, done));
    } else report(done);
  }
  child?.disconnect();
}

/** The report of one seed, or why there is none. */
function reportOf(child: ChildProcess, seed: number): Promise<Report | string> {
  return new Promise((resolve) => {
    const end = (outcome: Report | string): void => {
      clearTimeout(timer);
      child.off("message", onMessage);
      child.off("exit", onExit);
      resolve(outcome);
    };
    const onMessage = (message: unknown): void => end(message as Report);
    const onExit = (code: number | null, signal: string | null): void => end(`its process ended (${signal ?? code})`);
    const timer = setTimeout(() => end(`no report within ${SILENCE_MS / 1000} s`), SILENCE_MS);
    child.on("message", onMessage);
    child.on("exit", onExit);
    child.send(seed);
  });
}

function crashed(seed: number, message: string): Report {
  const failure = { exit: 127, message, stack: message } as const;
  const nothing = { virtualUs: 0, events: 0, decided: 0, regencyChanges: 0, calls: 0, recoveryUs: null, counts: {} };
  return { seed, failure, digest: "", ...nothing };
}

process.exitCode = await main();
