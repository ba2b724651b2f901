/**
 * `npm run sim -- --core`: many core schedules on all cores, or one by its name with a readable trace. A failure prints the
 * one command that replays it; exits like `npm run sim`.
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { runCoreSchedule } from "./core-schedules.ts";
import type { ScheduleFailure } from "./core-schedules-worker.ts";
import { type Failure, tried } from "./failures.ts";
import { runPool } from "./pool.ts";
import { scheduleOf } from "./schedule-random.ts";

const USAGE = `npm run sim -- --core [options]
  --seeds N      how many schedules (default 1000)
  --from S       the seed of the first (default: a fresh one, printed)
  --seed S       one schedule alone, by its name
  --trace        what happens in it, line by line
  --workers W    processes (default: one per core)
  --keep-going   run all, whatever fails`;

const CHUNK = 25;
const SEED_MAX = 1_000_000_000;
const PROGRESS_MS = 10_000;

export async function runCoreSchedules(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seeds: { type: "string", default: "1000" },
      from: { type: "string" },
      seed: { type: "string" },
      trace: { type: "boolean", default: false },
      workers: { type: "string", default: String(availableParallelism()) },
      "keep-going": { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  if (values.seed !== undefined) return one(values.seed, values.trace);
  const from = values.from === undefined ? Math.floor(Math.random() * SEED_MAX) : Number(values.from);
  const keepGoing = values["keep-going"];
  return many({ from, seeds: Number(values.seeds), processes: Number(values.workers), keepGoing });
}

function one(name: string, trace: boolean): number {
  const { seed, pieces } = scheduleOf(name);
  const failure = tried(() => {
    const report = runCoreSchedule(seed, {
      pieces,
      ...(trace ? { listener: (line: string) => console.log(line) } : {}),
    });
    console.log(
      `n ${report.n}, ${report.steps} steps, decided ${report.decided}, regency ${report.regency}, trace digest ${report.digest}`,
    );
  });
  if (failure) print(name, failure);
  return failure?.exit ?? 0;
}

async function many(options: { from: number; seeds: number; processes: number; keepGoing: boolean }): Promise<number> {
  const { from, seeds, processes, keepGoing } = options;
  console.log(`core schedules ${from} to ${from + seeds - 1} in ${processes} processes`);
  const startedMs = performance.now();
  const tally = { run: 0, failed: 0, exit: 0 };
  const line = (): string => {
    const rate = (1000 * tally.run) / (performance.now() - startedMs);
    return `${tally.run} core schedules, ${tally.failed} failed, ${rate.toFixed(0)} per second`;
  };
  const failed = (name: string, failure: Failure): void => {
    tally.failed++;
    tally.exit = Math.max(tally.exit, failure.exit);
    print(name, failure);
  };
  const progress = setInterval(() => console.log(line()), PROGRESS_MS);
  let next = from;
  await runPool<readonly number[], readonly ScheduleFailure[]>({
    script: new URL("./core-schedules-worker.ts", import.meta.url),
    processes,
    take: () => {
      const count = Math.min(CHUNK, from + seeds - next);
      if (count <= 0 || (tally.failed > 0 && !keepGoing)) return null;
      const chunk = Array.from({ length: count }, (_, at) => next + at);
      next += count;
      return chunk;
    },
    done: (chunk, failures) => {
      tally.run += chunk.length;
      for (const failure of failures) failed(failure.name, failure);
    },
    died: (chunk, why) => failed(String(chunk[0]), { exit: 127, text: `${why}, in one of the ${CHUNK} from here` }),
  });
  clearInterval(progress);
  console.log(line());
  return tally.exit;
}

function print(name: string, failure: Failure): void {
  console.log(`FAILED ${name}: ${failure.text}`);
  console.log(`  replay: npm run sim -- --core --seed ${name} --trace`);
}

if (process.argv[1] === import.meta.filename) process.exitCode = await runCoreSchedules(process.argv.slice(2));
