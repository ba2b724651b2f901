/**
 * `npm run sim -- --twins`: every scenario of Twins for four replicas and one twin, or a sample, or one with its trace.
 * Prints progress, and for each failure the one command that replays it; exits like `npm run sim`.
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { type Failure, tried } from "./failures.ts";
import { runPool } from "./pool.ts";
import { seeded } from "./random.ts";
import { PARTITIONS, ROLES, ROUNDS, runScenario, type Scenario, scenarioName, scenarioOf, scenarios } from "./twins.ts";
import type { ScenarioFailure } from "./twins-worker.ts";

const USAGE = `npm run sim -- --twins [options]
  --scenario S   one scenario alone, such as 0:3.5.12.1 (the twinned member, then the partition of each round)
  --trace        what happens in it, line by line
  --sample N     N scenarios drawn by chance instead of all
  --from S       the seed of the sample (default: a fresh one, printed)
  --roles R      the members to twin (default ${ROLES.join(",")})
  --rounds K     rounds (default ${ROUNDS})
  --rotation K   leaders take turns of K instances: the malicious fault model
  --workers W    processes (default: one per core)
  --keep-going   run all, whatever fails`;

const CHUNK = 64;
const PROGRESS_MS = 10_000;
const FAILURES_PRINTED_MAX = 20;

interface Tally {
  run: number;
  failed: number;
  exit: number;
}

export async function runTwins(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      scenario: { type: "string" },
      trace: { type: "boolean", default: false },
      sample: { type: "string" },
      from: { type: "string" },
      roles: { type: "string", default: ROLES.join(",") },
      rounds: { type: "string", default: String(ROUNDS) },
      rotation: { type: "string" },
      workers: { type: "string", default: String(availableParallelism()) },
      "keep-going": { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  if (values.scenario !== undefined) return one(values.scenario, values.trace);
  const roles = values.roles.split(",").map(Number);
  const rounds = Number(values.rounds);
  const seed = values.from === undefined ? Math.floor(Math.random() * 1_000_000_000) : Number(values.from);
  const turns = values.rotation === undefined ? {} : { rotation: Number(values.rotation) };
  const names =
    values.sample === undefined
      ? all(roles, rounds, turns)
      : sampled({ roles, rounds, seed, count: Number(values.sample), turns });
  if (values.sample !== undefined) console.log(`sample of seed ${seed}`);
  return many(names, { processes: Number(values.workers), keepGoing: values["keep-going"] });
}

function one(name: string, trace: boolean): number {
  const failure = tried(() => {
    const report = runScenario(scenarioOf(name), trace ? (line) => console.log(line) : null);
    console.log(`decided ${report.decided}, regency ${report.regency}, trace digest ${report.digest}`);
  });
  if (failure) print(name, failure);
  return failure?.exit ?? 0;
}

type Turns = Pick<Scenario, "rotation">;

function* all(roles: readonly number[], rounds: number, turns: Turns): Generator<string> {
  for (const scenario of scenarios(roles, rounds)) yield scenarioName({ ...scenario, ...turns });
}

function* sampled(options: {
  readonly roles: readonly number[];
  readonly rounds: number;
  readonly seed: number;
  readonly count: number;
  readonly turns: Turns;
}): Generator<string> {
  const random = seeded(options.seed);
  for (let drawn = 0; drawn < options.count; drawn++) {
    const twin = random.pick(options.roles);
    const partitions = Array.from({ length: options.rounds }, () => random.below(PARTITIONS));
    yield scenarioName({ twin, partitions, ...options.turns });
  }
}

async function many(names: Iterator<string>, options: { processes: number; keepGoing: boolean }): Promise<number> {
  const tally: Tally = { run: 0, failed: 0, exit: 0 };
  const startedMs = performance.now();
  const rate = (): string => {
    const seconds = (performance.now() - startedMs) / 1000;
    return `${(tally.run / seconds).toFixed(0)} scenarios per second, ${seconds.toFixed(0)} s`;
  };
  const progress = setInterval(
    () => console.log(`${tally.run} scenarios, ${tally.failed} failed; ${rate()}`),
    PROGRESS_MS,
  );
  const failed = (name: string, failure: Failure): void => {
    tally.failed++;
    tally.exit = Math.max(tally.exit, failure.exit);
    if (tally.failed <= FAILURES_PRINTED_MAX) print(name, failure);
  };
  await runPool<readonly string[], readonly ScenarioFailure[]>({
    script: new URL("./twins-worker.ts", import.meta.url),
    processes: options.processes,
    take: () => {
      if (tally.failed > 0 && !options.keepGoing) return null;
      const chunk: string[] = [];
      while (chunk.length < CHUNK) {
        const next = names.next();
        if (next.done) break;
        chunk.push(next.value);
      }
      return chunk.length > 0 ? chunk : null;
    },
    done: (chunk, failures) => {
      tally.run += chunk.length;
      for (const failure of failures) failed(failure.name, failure);
    },
    died: (chunk, why) => failed(chunk[0] ?? "", { exit: 127, text: `${why}, in one of ${chunk.join(" ")}` }),
  });
  clearInterval(progress);
  console.log(`${tally.run} scenarios of twins, ${tally.failed} failed; ${rate()}`);
  return tally.exit;
}

function print(name: string, failure: Failure): void {
  console.log(`FAILED ${name}: ${failure.text}`);
  console.log(`  replay: npm run sim -- --twins --scenario ${name} --trace`);
}

if (process.argv[1] === import.meta.filename) process.exitCode = await runTwins(process.argv.slice(2));
