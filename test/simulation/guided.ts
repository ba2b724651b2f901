/**
 * Guided search over core schedules: keeps, for each kind of danger (danger.ts), a schedule that leads into it, and tries
 * other futures from there. A schedule is a seed and the steps from which other seeds take over, so what is kept is exact
 * and a failure has a name that replays it.
 */
import { parseArgs } from "node:util";
import { runCoreSchedule } from "./core-schedules.ts";
import { cellOf, type Danger, DangerWatch, inWords, scoreOf } from "./danger.ts";
import { type Failure, failureOf } from "./failures.ts";
import { type Random, seeded } from "./random.ts";
import { type Piece, scheduleName } from "./schedule-random.ts";

const USAGE = `npm run sim -- --guided [options]
  --seconds N    how long (default 60)
  --runs N       at most so many schedules
  --from S       the seed of the search (default: a fresh one, printed)
  --random       without guidance, for comparison`;

/** Every so many steps the danger is looked at. */
const LOOK_STEPS = 4;
/** Share of schedules that begin anew. */
const FRESH_SHARE = 0.25;
/** Another future begins up to so many steps before the danger was reached. */
const BACK_STEPS = 60;
const PIECES_MAX = 8;
const SEED_MAX = 1_000_000_000;
const PROGRESS_MS = 10_000;

interface Schedule {
  readonly seed: number;
  readonly pieces: readonly Piece[];
}

interface Kept extends Schedule {
  readonly danger: Danger;
  readonly step: number;
  tries: number;
}

export class GuidedSearch {
  readonly #random: Random;
  readonly #kept = new Map<string, Kept>();
  runs = 0;

  constructor(seed: number) {
    this.#random = seeded(seed);
  }

  get cells(): number {
    return this.#kept.size;
  }

  get worst(): Danger | null {
    let worst: Kept | null = null;
    for (const kept of this.#kept.values()) if (!worst || scoreOf(kept.danger) > scoreOf(worst.danger)) worst = kept;
    return worst?.danger ?? null;
  }

  /** One more schedule; what failed in it, or null. */
  try(guided: boolean): { readonly name: string; readonly failure: Failure } | null {
    this.runs++;
    const schedule = this.#next(guided);
    const { seed, pieces } = schedule;
    const watch = new ScheduleWatch((danger, step) => this.#reached(schedule, danger, step));
    try {
      runCoreSchedule(seed, { pieces, watch });
      return null;
    } catch (error) {
      return { name: scheduleName(seed, pieces), failure: failureOf(error) };
    }
  }

  #next(guided: boolean): Schedule {
    const random = this.#random;
    if (!guided || this.#kept.size === 0 || random.chance(FRESH_SHARE))
      return { seed: random.below(SEED_MAX), pieces: [] };
    const kept = this.#drawn();
    kept.tries++;
    const from = Math.max(0, kept.step - random.below(random.chance(0.5) ? 2 : BACK_STEPS));
    const before = kept.pieces.filter((piece) => piece.from < from);
    return { seed: kept.seed, pieces: [...before, { from, seed: random.below(SEED_MAX) }] };
  }

  /** The worse the danger, and the less tried, the likelier. */
  #drawn(): Kept {
    const all = [...this.#kept.values()];
    const weights = all.map((kept) => (1 + scoreOf(kept.danger)) ** 2 / (1 + kept.tries));
    let left = this.#random.next() * weights.reduce((sum, weight) => sum + weight, 0);
    for (const [at, kept] of all.entries()) {
      left -= weights[at] as number;
      if (left <= 0) return kept;
    }
    return all.at(-1) as Kept;
  }

  /** The first way into a danger is kept, until a simpler one comes. */
  #reached(schedule: Schedule, danger: Danger, step: number): void {
    const pieces = schedule.pieces.filter((piece) => piece.from <= step);
    const cell = cellOf(danger);
    const known = this.#kept.get(cell);
    if (pieces.length > PIECES_MAX || (known && known.step <= step)) return;
    this.#kept.set(cell, { seed: schedule.seed, pieces, danger, step, tries: known?.tries ?? 0 });
  }
}

/** Reports each danger of one schedule when it is first reached. */
class ScheduleWatch {
  readonly #report: (danger: Danger, step: number) => void;
  readonly #seen = new Set<string>();
  #early: Parameters<DangerWatch["sent"]>[] = [];
  #watch: DangerWatch | null = null;

  constructor(report: (danger: Danger, step: number) => void) {
    this.#report = report;
  }

  sent(...sent: Parameters<DangerWatch["sent"]>): void {
    if (this.#watch) this.#watch.sent(...sent);
    else this.#early.push(sent);
  }

  step(cluster: Parameters<DangerWatch["at"]>[0], step: number): void {
    if (step % LOOK_STEPS !== 0) return;
    if (!this.#watch) {
      this.#watch = new DangerWatch(cluster.view);
      for (const sent of this.#early) this.#watch.sent(...sent);
      this.#early = [];
    }
    const danger = this.#watch.at(cluster);
    const cell = cellOf(danger);
    if (this.#seen.has(cell)) return;
    this.#seen.add(cell);
    this.#report(danger, step);
  }
}

export async function runGuided(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seconds: { type: "string", default: "60" },
      runs: { type: "string", default: String(Number.MAX_SAFE_INTEGER) },
      from: { type: "string" },
      random: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const seed = values.from === undefined ? Math.floor(Math.random() * SEED_MAX) : Number(values.from);
  console.log(`guided search of seed ${seed}`);
  const search = new GuidedSearch(seed);
  const startedMs = performance.now();
  const seconds = (): number => (performance.now() - startedMs) / 1000;
  let printedMs = startedMs;
  const line = (): string => {
    const { worst, runs, cells } = search;
    return `${runs} schedules, ${(runs / seconds()).toFixed(0)} per second, ${cells} dangers, worst: ${worst ? inWords(worst) : "none"}`;
  };
  while (seconds() < Number(values.seconds) && search.runs < Number(values.runs)) {
    const failed = search.try(!values.random);
    if (failed) {
      console.log(line());
      console.log(`FAILED ${failed.name}: ${failed.failure.text}`);
      console.log(`  replay: npm run sim -- --core --seed ${failed.name} --trace`);
      return failed.failure.exit;
    }
    if (performance.now() - printedMs < PROGRESS_MS) continue;
    printedMs = performance.now();
    console.log(line());
  }
  console.log(line());
  return 0;
}

if (process.argv[1] === import.meta.filename) process.exitCode = await runGuided(process.argv.slice(2));
