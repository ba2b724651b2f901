/** What many runs add up to, in words for whoever started them. */
import type { Report } from "./run.ts";

export class Totals {
  readonly failures: Report[] = [];
  #seeds = 0;
  #virtualUs = 0;
  #events = 0;
  #decided = 0;
  #regencyChanges = 0;
  #calls = 0;
  #slowestUs = 0;
  #recoveriesUs = 0;
  readonly #counts = new Map<string, number>();

  get seeds(): number {
    return this.#seeds;
  }

  add(report: Report): void {
    this.#seeds++;
    this.#virtualUs += report.virtualUs;
    this.#events += report.events;
    this.#decided += report.decided;
    this.#regencyChanges += report.regencyChanges;
    this.#calls += report.calls;
    this.#slowestUs = Math.max(this.#slowestUs, report.recoveryUs ?? 0);
    this.#recoveriesUs += report.recoveryUs ?? 0;
    for (const [name, count] of Object.entries(report.counts))
      this.#counts.set(name, (this.#counts.get(name) ?? 0) + count);
    if (report.failure) this.failures.push(report);
  }

  /** `realSeconds`: how long it took all workers together to get here. */
  lines(realSeconds: number): string[] {
    const virtualSeconds = this.#virtualUs / 1_000_000;
    return [
      `${this.#seeds} seeds, ${(this.#seeds / realSeconds).toFixed(1)} seeds per second`,
      `virtual to real time ${Math.round(virtualSeconds / realSeconds)} to 1 (${Math.round(virtualSeconds)} s in ${realSeconds.toFixed(1)} s)`,
      `${this.#decided} instances decided, ${this.#regencyChanges} regency changes, ${this.#calls} calls, ${this.#events} events`,
      `everything finished ${seconds(this.#recoveriesUs / this.#seeds)} s after healing on average, ${seconds(this.#slowestUs)} s at most (virtual)`,
      ...[...this.#counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, count]) => `  ${name}: ${count}`),
      `${this.failures.length} failures`,
    ];
  }
}

function seconds(us: number): string {
  return (us / 1_000_000).toFixed(1);
}

/** The one command that runs a seed again. */
export function replayOf(report: Report): string {
  return `npm run sim -- --seed ${report.seed} --trace`;
}

export function failureLines(report: Report): string[] {
  const { failure, seed } = report;
  if (!failure) return [];
  const detail = failure.exit === 127 ? failure.stack : failure.message;
  return [`seed ${seed} failed (${failure.exit}): ${detail}`, `  ${replayOf(report)}`];
}
