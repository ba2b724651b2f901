/** A load generator in a process of its own (wire-load-main.ts), which ends when its measurement does, or with this one. */
import { fork } from "node:child_process";
import type { WireResult } from "./wire-load.ts";
import type { WireAnswer, WireTask } from "./wire-load-main.ts";

/** `began`: what it needs is made, and the load begins. */
export async function wireLoad(task: WireTask, began = () => {}): Promise<WireResult> {
  const child = fork(new URL("./wire-load-main.ts", import.meta.url), {
    execArgv: ["--import", import.meta.resolve("tsx")],
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  try {
    const result = new Promise<WireResult>((resolve, reject) => {
      child.on("message", (answer: WireAnswer) => ("result" in answer ? resolve(answer.result) : began()));
      child.once("exit", () => reject(new Error("the load generator ended")));
    });
    child.send({ task });
    return await result;
  } finally {
    child.kill("SIGKILL");
  }
}
