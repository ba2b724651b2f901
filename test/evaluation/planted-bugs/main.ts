/**
 * `npm run planted-bugs`: plants one bug after the other in a copy of the tree and demands that the simulations find each
 * within so many seeds. First the tree as it is must pass the same seeds: else a failure would say nothing. Exits 1 when a
 * bug survives, or when the tree fails without one.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { PLANTED_BUGS } from "./all.ts";
import type { Finding, Report } from "./hunt.ts";
import type { Mutation, Suite } from "./mutation.ts";
import { Tree } from "./tree.ts";

const USAGE = `npm run planted-bugs -- [options]
  --seeds N       how many seeds each bug may survive (default 2000)
  --from S        the first of them (default 1)
  --workers W     bugs hunted at a time (default 2)
  --only A,B,...  these bugs alone
  --suite NAME    hunts every bug in core, targeted, scenario, world or unit, whichever suite is expected to find it
  --no-control    skip the run without any bug`;

/** A process that is silent for so long hangs in the seed it is at. */
const SILENCE_MS = 120_000;
const MESSAGE_WIDTH = 100;

interface Options {
  readonly seeds: number;
  readonly from: number;
  readonly suite: Suite | undefined;
  readonly tests?: readonly string[];
}

interface Outcome {
  readonly mutation: Mutation;
  readonly suite: Suite;
  readonly finding: Finding | null;
  readonly seconds: number;
}

const SUITES: readonly Suite[] = ["core", "targeted", "scenario", "world", "unit"];

const running = new Set<ChildProcess>();
const trees: Tree[] = [];

/** Ends a hunt, and whatever it has started. */
function end({ pid, exitCode, signalCode }: ChildProcess): void {
  if (pid !== undefined && exitCode === null && signalCode === null) process.kill(-pid, "SIGKILL");
}

/** Seeds of one suite in the tree at `directory`, in a process of their own. */
function hunt(directory: string, suite: Suite, { from, seeds, tests }: Options): Promise<Finding | null> {
  const script = join(directory, "test/evaluation/planted-bugs/hunt.ts");
  const args = ["--import", "tsx", script, "--suite", suite, "--from", `${from}`, "--seeds", `${seeds}`];
  if (tests) args.push("--tests", tests.join(","));
  // A group of its own, to end the test run that it may have started with it.
  const child = spawn(process.execPath, args, { cwd: directory, stdio: ["ignore", "pipe", "pipe"], detached: true });
  running.add(child);
  /** Null until the tree is loaded: what does not even load shows nothing about its rules. */
  let at: number | null = null;
  let found: Finding | null | undefined;
  let hung = false;
  let errors = "";
  const onSilence = (): void => {
    hung = true;
    end(child);
  };
  let silence = setTimeout(onSilence, SILENCE_MS);
  child.stderr.on("data", (chunk: Buffer) => {
    errors = (errors + chunk.toString()).slice(-2_000);
  });
  createInterface({ input: child.stdout }).on("line", (line) => {
    clearTimeout(silence);
    silence = setTimeout(onSilence, SILENCE_MS);
    if (!line.startsWith("{")) return;
    const report = JSON.parse(line) as Report;
    if ("at" in report) at = report.at;
    else found = report.found;
  });
  return new Promise((resolve, reject) => {
    child.on("close", () => {
      clearTimeout(silence);
      running.delete(child);
      if (at === null) reject(new Error(`${suite} does not start: ${errors}`));
      else if (hung) resolve({ seed: at, how: "hang", message: `silent for ${SILENCE_MS / 1000} s` });
      else if (found === undefined) resolve({ seed: at, how: "crash", message: errors.trim() });
      else resolve(found);
    });
  });
}

async function control(tree: Tree, suites: readonly Suite[], options: Options): Promise<boolean> {
  let clean = true;
  for (const suite of suites) {
    const startedMs = performance.now();
    const tests = [...new Set(PLANTED_BUGS.flatMap((mutation) => mutation.tests ?? []))];
    const finding = await hunt(tree.directory, suite, { ...options, tests });
    const seconds = (performance.now() - startedMs) / 1000;
    console.log(`without a bug: ${suite} ${finding ? describe(finding) : "passes all seeds"}, ${seconds.toFixed(0)} s`);
    if (finding) clean = false;
  }
  return clean;
}

function describe({ seed, how, message }: Finding): string {
  const [line = ""] = message.split("\n");
  return `seed ${seed}: ${how}: ${line.length > MESSAGE_WIDTH ? `${line.slice(0, MESSAGE_WIDTH)}...` : line}`;
}

function verdictOf({ mutation, finding }: Outcome): string {
  if (finding) return describe(finding);
  return mutation.redundant ? "survives, as it may" : "SURVIVES";
}

function line(outcome: Outcome): string {
  const { mutation, suite, seconds } = outcome;
  return `${mutation.name.padEnd(40)} ${suite.padEnd(8)} ${seconds.toFixed(1).padStart(6)} s  ${verdictOf(outcome)}`;
}

async function plant(mutations: readonly Mutation[], options: Options): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const queue = [...mutations];
  const work = async (tree: Tree): Promise<void> => {
    for (let mutation = queue.shift(); mutation; mutation = queue.shift()) {
      const suite = options.suite ?? mutation.suite;
      const startedMs = performance.now();
      const finding = await tree.during(mutation, () =>
        hunt(tree.directory, suite, { ...options, tests: mutation.tests ?? [] }),
      );
      const outcome = { mutation, suite, finding, seconds: (performance.now() - startedMs) / 1000 };
      outcomes.push(outcome);
      console.log(line(outcome));
    }
  };
  await Promise.all(trees.map(work));
  return outcomes;
}

function summary(outcomes: readonly Outcome[]): number {
  const survivors = outcomes.filter(({ finding, mutation }) => !finding && !mutation.redundant);
  const redundant = outcomes.filter(({ finding, mutation }) => !finding && mutation.redundant);
  const seconds = outcomes.reduce((sum, outcome) => sum + outcome.seconds, 0);
  if (redundant.length > 0) console.log("\nredundant, defence in depth:");
  for (const { mutation } of redundant) console.log(`  ${mutation.name}: ${mutation.redundant}`);
  if (survivors.length > 0) console.log("\nuntested rules:");
  for (const { mutation } of survivors) console.log(`  ${mutation.name}: ${mutation.rule}`);
  const found = outcomes.length - survivors.length - redundant.length;
  console.log(
    `\n${outcomes.length} bugs planted: ${found} found, ${redundant.length} redundant, ${survivors.length} survive; ${seconds.toFixed(0)} s of hunting`,
  );
  return survivors.length;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seeds: { type: "string", default: "2000" },
      from: { type: "string", default: "1" },
      workers: { type: "string", default: "2" },
      only: { type: "string" },
      suite: { type: "string" },
      "no-control": { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const names = values.only?.split(",");
  const mutations = PLANTED_BUGS.filter(({ name }) => !names || names.includes(name));
  if (names && mutations.length !== names.length) throw new Error(`not all of these are known: ${values.only}`);
  const suite = SUITES.find((known) => known === values.suite);
  if (values.suite !== undefined && suite === undefined) throw new Error(`no suite ${values.suite}`);
  const options: Options = { seeds: Number(values.seeds), from: Number(values.from), suite };
  for (let left = Number(values.workers); left > 0; left--) trees.push(new Tree());
  try {
    const suites = [...new Set(mutations.map((mutation) => suite ?? mutation.suite))];
    const clean = values["no-control"] || (await control(trees[0] as Tree, suites, options));
    const survivors = clean ? summary(await plant(mutations, options)) : 1;
    return survivors > 0 ? 1 : 0;
  } finally {
    cleanUp();
  }
}

function cleanUp(): void {
  for (const child of running) end(child);
  for (const tree of trees) tree.remove();
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    cleanUp();
    process.exit(130);
  });
}
process.exitCode = await main();
