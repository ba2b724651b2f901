/**
 * Hunts in the tree this file lies in: seed after seed of one suite, until one fails. A process of its own, as the tree is a
 * copy with a bug in it. It says on stdout which seed it is at, now and then, and at last what it found.
 */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { InvariantViolation } from "../../../protocol/errors.ts";
import { Stall, Violation } from "../../simulation/contract.ts";
import type { Suite } from "./mutation.ts";

export interface Finding {
  readonly seed: number;
  readonly how: "Violation" | "Stall" | "assertion" | "crash" | "hang";
  readonly message: string;
}

/** One line on stdout. */
export type Report = { readonly at: number } | { readonly found: Finding | null };

const REPORT_EVERY_MS = 1_000;
const UNIT_MS_MAX = 240_000;

/** Throws when this seed fails. */
type Run = (seed: number) => void | Promise<void>;

/** Loaded only when asked for: the world is large. */
const SUITES: Readonly<Record<Suite, () => Promise<Run>>> = {
  async core() {
    const { runCoreSchedule } = await import("../../simulation/core-schedules.ts");
    return (seed) => void runCoreSchedule(seed);
  },
  async targeted() {
    const { runTargeted } = await import("../../simulation/targeted/all.ts");
    return runTargeted;
  },
  async scenario() {
    const { transcriptOf } = await import("../../scenario/transcript.ts");
    const directory = join(import.meta.dirname, "../../scenario");
    const files = readdirSync(directory)
      .filter((file) => file.endsWith(".txt"))
      .sort();
    // The number of a scenario is its seed.
    return (seed) => {
      const file = files[seed - 1];
      if (file === undefined) return;
      const recorded = readFileSync(join(directory, file), "utf8");
      const before = recorded.split("\n");
      const now = transcriptOf(recorded).split("\n");
      const other = before.findIndex((line, at) => line !== now[at]);
      if (other >= 0) throw new Violation("scenario", `${file}: ${now[other]?.trim()}`);
    };
  },
  /** No seeds: test files, once. */
  async unit() {
    const vitest = join(import.meta.dirname, "../../../node_modules/vitest/vitest.mjs");
    return (seed) => {
      if (seed !== from) return;
      const root = join(import.meta.dirname, "../../..");
      const tests = values.tests?.split(",") ?? [];
      const { status, stdout } = spawnSync(process.execPath, [vitest, "run", "--pool=threads", ...tests], {
        cwd: root,
        encoding: "utf8",
        // A bug may loop for ever: that is a find, and nothing of it stays behind.
        timeout: UNIT_MS_MAX,
        killSignal: "SIGKILL",
      });
      if (status !== 0) throw new Violation("unit", /FAIL.*/.exec(stdout)?.[0] ?? "a test fails");
    };
  },
  async world() {
    const { runSeed } = await import("../../simulation/run.ts");
    return async (seed) => {
      const { failure } = await runSeed({ seed });
      if (failure?.exit === 129) throw new Violation("world", failure.message);
      if (failure?.exit === 128) throw new Stall(failure.message);
      if (failure) throw new Error(failure.message);
    };
  },
};

function howOf(error: unknown): Finding["how"] {
  if (error instanceof Violation) return "Violation";
  if (error instanceof Stall) return "Stall";
  // A world reports what its replicas threw by name only.
  return error instanceof InvariantViolation || String(error).includes("InvariantViolation") ? "assertion" : "crash";
}

function say(report: Report): void {
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

async function hunt(run: Run, from: number, end: number): Promise<Finding | null> {
  let saidMs = Number.NEGATIVE_INFINITY;
  for (let seed = from; seed < end; seed++) {
    if (performance.now() - saidMs >= REPORT_EVERY_MS) {
      saidMs = performance.now();
      say({ at: seed });
    }
    try {
      await run(seed);
    } catch (error) {
      return { seed, how: howOf(error), message: error instanceof Error ? error.message : String(error) };
    }
  }
  return null;
}

const { values } = parseArgs({
  options: {
    suite: { type: "string" },
    from: { type: "string" },
    seeds: { type: "string" },
    tests: { type: "string" },
  },
});
const from = Number(values.from);
const run = await SUITES[values.suite as Suite]();
say({ found: await hunt(run, from, from + Number(values.seeds)) });
// A run that failed may leave timers behind.
process.exit(0);
