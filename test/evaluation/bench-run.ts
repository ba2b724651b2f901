/**
 * A running `kv bench --timeline` as a child process: its intervals as they come, and marks of whoever watches it. Guarantees: a
 * mark stands in the interval in which it was made, to within what a line needs from process to process.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Interval } from "../../cli/bench/timeline.ts";
import { programCommand } from "../../cli/local/replica-process.ts";

const SECONDS_MAX = 3_600;

export interface BenchRunOptions {
  readonly kv: URL;
  readonly cluster: string;
  readonly clients: number;
  readonly connections: number;
  readonly intervalMs: number;
}

export class BenchRun {
  readonly #child: ChildProcess;
  readonly #intervals: Interval[] = [];
  readonly #marks: { readonly atMs: number; readonly text: string }[] = [];
  #stderr = "";
  /** When the measured time began, on our own clock. */
  #beganMs: number | null = null;
  #waiters: (() => void)[] = [];

  constructor(options: BenchRunOptions) {
    const { kv, cluster, clients, connections, intervalMs } = options;
    const [program, ...before] = programCommand(kv);
    const load = ["--clients", String(clients), "--connections", String(connections), "--warmup", "1"];
    const shown = ["--seconds", String(SECONDS_MAX), "--timeline", String(intervalMs), "-o", "json"];
    const args = ["bench", "--cluster", cluster, ...load, ...shown];
    this.#child = spawn(program, [...before, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
    });
    if (this.#child.stdout) createInterface({ input: this.#child.stdout }).on("line", (line) => this.#take(line));
    this.#child.once("close", () => this.#wake());
  }

  /** The intervals so far, with the marks in them. */
  get intervals(): Interval[] {
    return this.#intervals.map((interval) => {
      const here = this.#marks.filter(({ atMs }) => atMs >= interval.fromMs && atMs < interval.toMs);
      return { ...interval, marks: [...here.map(({ text }) => text), ...interval.marks] };
    });
  }

  /** Milliseconds since the measured time began. */
  get nowMs(): number {
    return this.#beganMs === null ? 0 : performance.now() - this.#beganMs;
  }

  mark(text: string): void {
    this.#marks.push({ atMs: this.nowMs, text });
  }

  /** Until so many more intervals have ended. @throws Error with what the benchmark said when it has ended itself */
  async passes(count: number): Promise<void> {
    const target = this.#intervals.length + count;
    while (this.#intervals.length < target) {
      if (this.#child.exitCode !== null)
        throw new Error(`kv bench ended with ${this.#child.exitCode}: ${this.#stderr}`);
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGTERM");
    await once(this.#child, "close");
  }

  #take(line: string): void {
    const parsed = JSON.parse(line) as Omit<Interval, "fromMs" | "toMs"> & {
      interval?: Pick<Interval, "fromMs" | "toMs">;
    };
    if (!parsed.interval) return;
    const { interval, ...figures } = parsed;
    this.#intervals.push({ ...figures, ...interval });
    this.#beganMs ??= performance.now() - interval.toMs;
    this.#wake();
  }

  #wake(): void {
    for (const waiter of this.#waiters.splice(0)) waiter();
  }
}
