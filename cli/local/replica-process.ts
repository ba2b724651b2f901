/**
 * One kv-server child process. Guarantees: it never outlives this process (its stdin is a pipe that ends with us, and
 * `QUORATE_STOP_ON_STDIN_END` makes it stop then); `stop()` ends it, by force when it does not end by itself; its
 * logs are appended to a file.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const STOP_GRACE_MS = 10_000;

/**
 * For glibc's allocator, which would keep what a fetched state took for a while (about 100 MB of 200 MB of state). It reads them
 * when a process starts: the first line of server/main.ts and docs/quorate.service say the same.
 */
export const ALLOCATOR_SETTINGS = {
  MALLOC_ARENA_MAX: "2",
  MALLOC_MMAP_THRESHOLD_: "262144",
  MALLOC_TRIM_THRESHOLD_: "1048576",
} as const;

/** Command line of a program of this package, whether it runs compiled or from its TypeScript sources. */
export function programCommand(program: URL): readonly [file: string, ...args: string[]] {
  const path = fileURLToPath(program);
  return path.endsWith(".ts")
    ? [process.execPath, "--import", import.meta.resolve("tsx"), path]
    : [process.execPath, path];
}

/** `./main.ts` beside the sources, `./main.js` in the compiled package: whatever this file itself is. */
export function siblingProgram(path: string): URL {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return new URL(`${path}.${extension}`, import.meta.url);
}

export interface ReplicaExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ReplicaProcess {
  readonly pid: number;
  /** The ready line, or how the process ended before it was ready. */
  readonly ready: Promise<string | ReplicaExit>;
  readonly exited: Promise<ReplicaExit>;
  /** Whether it said that it is no member any more; known when it has exited. */
  readonly retired: Promise<boolean>;
  kill(signal: NodeJS.Signals): void;
  /** SIGTERM, then SIGKILL when it is still there after the grace time. */
  stop(): Promise<ReplicaExit>;
}

/** Starts `kv-server --config FILE`, the one beside this program by default. @throws Error when the log cannot be written */
export function startReplica(options: {
  config: string;
  log: string;
  program?: URL;
  args?: readonly string[];
}): ReplicaProcess {
  const [file, ...args] = programCommand(options.program ?? siblingProgram("../../server/main"));
  const log = openSync(options.log, "a", 0o600);
  let child: ChildProcess;
  try {
    child = spawn(file, [...args, "--config", options.config, ...(options.args ?? [])], {
      stdio: ["pipe", "pipe", log],
      env: { ...ALLOCATOR_SETTINGS, ...process.env, QUORATE_STOP_ON_STDIN_END: "1" },
      // A Ctrl-C in the terminal reaches only this process, which then stops the replicas in its own way.
      detached: true,
    });
  } finally {
    closeSync(log);
  }
  const exited = new Promise<ReplicaExit>((resolve) => {
    child.on("exit", (code, signal) => resolve({ code, signal }));
    child.on("error", () => resolve({ code: null, signal: null }));
  });
  child.stdin?.on("error", () => {});
  const kill = (signal: NodeJS.Signals): void => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
  };
  const { ready, retired } = saidBy(child);
  return {
    pid: child.pid ?? 0,
    ready: Promise.race([ready, exited]),
    exited,
    retired,
    kill,
    async stop() {
      kill("SIGTERM");
      const force = setTimeout(() => kill("SIGKILL"), STOP_GRACE_MS);
      try {
        return await exited;
      } finally {
        clearTimeout(force);
      }
    },
  };
}

/** What a replica says on stdout: its ready line, and whether it retired. */
function saidBy(child: ChildProcess): { ready: Promise<string>; retired: Promise<boolean> } {
  const lines = child.stdout === null ? null : createInterface({ input: child.stdout });
  const ready = new Promise<string>((resolve) => {
    lines?.on("line", (line) => {
      if (line.startsWith("ready ")) resolve(line);
    });
  });
  const retired = new Promise<boolean>((resolve) => {
    lines?.on("line", (line) => {
      if (line.startsWith("retired ")) resolve(true);
    });
    if (lines) lines.on("close", () => resolve(false));
    else resolve(false);
  });
  return { ready, retired };
}

export function isExit(outcome: string | ReplicaExit): outcome is ReplicaExit {
  return typeof outcome !== "string";
}

export function exitText({ code, signal }: ReplicaExit): string {
  if (signal !== null) return `killed by ${signal}`;
  return code === null ? "could not be started" : `exit code ${code}`;
}

const LOG_TAIL_BYTES = 64 * 1024;

/** What a replica last said in its log: the message of the last line, or null. */
export function lastLogMessage(path: string): string | null {
  let text: string;
  try {
    text = readFileSync(path).subarray(-LOG_TAIL_BYTES).toString("utf8");
  } catch {
    return null;
  }
  const last = text.trimEnd().split("\n").at(-1) ?? "";
  if (last === "") return null;
  try {
    const { msg } = JSON.parse(last) as { msg?: unknown };
    return typeof msg === "string" ? msg : last;
  } catch {
    return last;
  }
}
