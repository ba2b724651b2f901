/** `kv dev`: a whole cluster from one command, stopped by Ctrl-C, with its data kept. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { freeBasePort, temporaryFolder, until } from "./cluster.ts";
import { compiled, Program, run } from "./programs.ts";

/** Does this process exist (a zombie counts as gone)? */
function exists(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    // No /proc, or no such process.
  }
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Runs `kv dev` until it has printed its commands; the processes it runs, by replica. */
async function startDev(args: readonly string[]): Promise<{ dev: Program; pids: readonly number[] }> {
  const dev = new Program(compiled("cli/main"), ["dev", ...args]);
  onTestFinished(async () => {
    await dev.kill("SIGKILL");
  });
  await dev.line((line) => line.includes("kv put "), 60_000);
  const pids: number[] = [];
  for (const [, id, pid] of dev.stdout.matchAll(/^replica (\d+) +ready +pid (\d+)/gm)) pids[Number(id)] = Number(pid);
  return { dev, pids };
}

test("kv dev starts a cluster, Ctrl-C stops every replica, and the next one goes on with the data", async () => {
  const folder = temporaryFolder();
  const dir = join(folder, "dev");
  const args = ["--dir", dir, "--base-port", String(await freeBasePort(4))];
  const cluster = ["--cluster", join(dir, "cluster.json")];
  const kv = (...words: string[]) => run(compiled("cli/main"), [...words, ...cluster]);

  const { dev, pids } = await startDev(args);
  expect(new Set(pids).size, dev.stdout).toBe(4);
  expect(pids.every(exists)).toBe(true);
  const commands = dev.stdout.split("\n").filter((line) => line.trim().startsWith("npx kv "));
  expect(commands.length).toBeGreaterThanOrEqual(3);
  expect((await kv("put", "kept", "over a restart")).code).toBe(0);
  const again = await run(compiled("cli/main"), ["dev", ...args]);
  expect(again.code).toBe(2);
  expect(again.stderr).toMatch(/^kv: port \d+ [^\n]*in use[^\n]*\n$/);

  expect(await dev.kill("SIGINT")).toEqual({ code: 0, signal: null });
  expect(pids.filter(exists)).toEqual([]);

  const second = await startDev(args);
  const get = await kv("get", "kept", "-o", "raw");
  expect(get).toMatchObject({ code: 0, stdout: "over a restart" });
  process.kill(second.pids.at(-1) as number, "SIGKILL");
  await second.dev.line((line) => /^replica 3 +down/.test(line), 30_000);
  expect((await kv("put", "kept", "by three")).code).toBe(0);

  await second.dev.kill("SIGKILL");
  await until(() => (second.pids.some(exists) ? null : true), {
    what: "every replica to end with the kv dev that was killed",
  });
});
