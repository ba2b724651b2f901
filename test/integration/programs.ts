/**
 * The programs under test, as users run them, and child processes that never outlive a test: each is ended by its own pid
 * when the test file's process ends, however that happens.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { programCommand } from "../../cli/local/replica-process.ts";

/** The compiled package: `dist` beside the sources unless `QUORATE_DIST` names another folder (an absolute path). */
const DIST = process.env.QUORATE_DIST ?? fileURLToPath(new URL("../../dist", import.meta.url));

/** @throws Error when the package is not built */
export function compiled(path: "cli/main" | "server/main" | "client/index"): URL {
  const file = join(DIST, `${path}.js`);
  if (!existsSync(file)) throw new Error(`${file} is missing: build first, with npm run build (npm test does)`);
  return pathToFileURL(file);
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface Ended extends Exit {
  readonly stdout: string;
  readonly stderr: string;
}

const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** One child process with piped streams; what it says is kept. */
export class Program {
  readonly exited: Promise<Exit>;
  stdout = "";
  stderr = "";
  readonly #child: ChildProcess;
  readonly #watchers = new Set<() => void>();

  /** A `.ts` program runs through tsx. */
  constructor(program: URL, args: readonly string[], options: { env?: NodeJS.ProcessEnv; cwd?: string } = {}) {
    const [file, ...before] = programCommand(program);
    const env = { ...process.env, ...options.env };
    const child = spawn(file, [...before, ...args], { stdio: "pipe", env, cwd: options.cwd });
    this.#child = child;
    running.add(child);
    this.exited = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => {
        running.delete(child);
        resolve({ code, signal });
        this.#changed();
      });
    });
    this.exited.catch(() => {});
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
      this.#changed();
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
    });
    child.stdin.on("error", () => {});
  }

  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw new Error("the program could not be started");
    return pid;
  }

  get ended(): boolean {
    return !running.has(this.#child);
  }

  /** Writes `text` and ends the program's standard input. */
  input(text: string | Uint8Array): void {
    this.#child.stdin?.end(text);
  }

  signal(signal: NodeJS.Signals): void {
    if (!this.ended) this.#child.kill(signal);
  }

  async kill(signal: NodeJS.Signals): Promise<Exit> {
    this.signal(signal);
    return this.exited;
  }

  /** The first line of standard output that `wanted` accepts. @throws Error with its words when the program ends before */
  async line(wanted: (line: string) => boolean, timeoutMs: number): Promise<string> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const lines = this.stdout.split("\n").slice(0, -1);
      const found = lines.find(wanted);
      if (found !== undefined) return found;
      const left = deadline - performance.now();
      if (this.ended || left <= 0) {
        const why = this.ended ? "it ended" : `nothing within ${timeoutMs} ms`;
        throw new Error(`the awaited line did not come: ${why}\n${this.stdout}${this.stderr}`);
      }
      await this.#change(left);
    }
  }

  #changed(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }

  #change(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#watchers.delete(done);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      this.#watchers.add(done);
    });
  }
}

/** Runs a program to its end; it is killed after `timeoutMs`, which fails the test by its exit code. */
export async function run(
  program: URL,
  args: readonly string[],
  options: { stdin?: string | Uint8Array; env?: NodeJS.ProcessEnv; cwd?: string; timeoutMs?: number } = {},
): Promise<Ended> {
  const { stdin = "", timeoutMs = 60_000, ...rest } = options;
  const child = new Program(program, args, rest);
  child.input(stdin);
  const timer = setTimeout(() => child.signal("SIGKILL"), timeoutMs);
  const exit = await child.exited;
  clearTimeout(timer);
  return { ...exit, stdout: child.stdout, stderr: child.stderr };
}
