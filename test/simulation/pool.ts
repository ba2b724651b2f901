/**
 * Work spread over processes: each runs one script, takes one task after the other and answers each. A process that dies
 * fails its task, and another takes its place.
 */
import { type ChildProcess, fork } from "node:child_process";

/** Tasks take well below a minute; a process silent for so long hangs. */
const SILENCE_MS = 120_000;

export interface PoolOptions<Task, Result> {
  readonly script: URL;
  readonly processes: number;
  /** The next task, or null when there is none (any more). */
  readonly take: () => Task | null;
  readonly done: (task: Task, result: Result) => void;
  /** The process died over this task, or said nothing for too long. */
  readonly died: (task: Task, why: string) => void;
}

export async function runPool<Task, Result>(options: PoolOptions<Task, Result>): Promise<void> {
  await Promise.all(Array.from({ length: options.processes }, () => workOff(options)));
}

async function workOff<Task, Result>({ script, take, done, died }: PoolOptions<Task, Result>): Promise<void> {
  let child: ChildProcess | null = null;
  try {
    for (let task = take(); task !== null; task = take()) {
      child ??= fork(script, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
      const answer = await answerOf<Result>(child, task);
      if (typeof answer === "string") {
        child.kill("SIGKILL");
        child = null;
        died(task, answer);
      } else done(task, answer.result);
    }
  } finally {
    child?.disconnect();
  }
}

function answerOf<Result>(child: ChildProcess, task: unknown): Promise<{ readonly result: Result } | string> {
  return new Promise((resolve) => {
    const end = (answer: { readonly result: Result } | string): void => {
      clearTimeout(silence);
      child.off("message", onMessage);
      child.off("exit", onExit);
      resolve(answer);
    };
    const onMessage = (result: unknown): void => end({ result: result as Result });
    const onExit = (code: number | null, signal: string | null): void => end(`the process ended (${signal ?? code})`);
    const silence = setTimeout(() => end(`no answer within ${SILENCE_MS / 1000} s`), SILENCE_MS);
    child.on("message", onMessage);
    child.on("exit", onExit);
    child.send({ task });
  });
}

/** The other side, in the script. */
export function serveTasks<Task, Result>(run: (task: Task) => Result | Promise<Result>): void {
  process.on("message", async (message: { readonly task: Task }) => {
    try {
      process.send?.(await run(message.task));
    } catch (error) {
      console.error(error);
      process.exit(1);
    }
  });
}
