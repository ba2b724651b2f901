/** A load generator in a process of its own (wire-load-main.ts), which ends when its measurement does, or with this one. */
import { fork } from "node:child_process";
import { once } from "node:events";
import type { WireResult } from "./wire-load.ts";
import type { WireTask } from "./wire-load-main.ts";

export async function wireLoad(task: WireTask): Promise<WireResult> {
  const child = fork(new URL("./wire-load-main.ts", import.meta.url), {
    execArgv: ["--import", import.meta.resolve("tsx")],
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  try {
    child.send({ task });
    const ended = once(child, "exit").then(() => {
      throw new Error("the load generator ended");
    });
    const [answer] = (await Promise.race([once(child, "message"), ended])) as [{ result: WireResult }];
    return answer.result;
  } finally {
    child.kill("SIGKILL");
  }
}
