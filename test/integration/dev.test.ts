/** `kv dev`: a whole cluster from one command, stopped by Ctrl-C, with its data kept. */
import { readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { startReplica } from "../../cli/local/replica-process.ts";
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

test("kv dev follows the membership: who retires has not failed, and the next start runs the members of the newest view", async () => {
  const dir = join(temporaryFolder(), "dev");
  const basePort = await freeBasePort(5);
  const args = ["--dir", dir, "--base-port", String(basePort)];
  const kv = (...words: string[]) =>
    run(compiled("cli/main"), [...words, "--cluster", join(dir, "cluster.json"), "--timeout", "30s"]);

  const { dev } = await startDev(args);
  const home = join(dir, "replica-4");
  expect(await kv("init", "--join", "--dir", home, "--base-port", `${basePort + 40}`)).toMatchObject({ code: 0 });
  const config = join(home, "node.yaml");
  const joining = startReplica({ config, log: join(home, "server.log"), program: compiled("server/main") });
  onTestFinished(async () => void (await joining.stop()));
  const added = await kv("view", "add", join(home, "join.json"), "--yes");
  expect(added, added.stderr).toMatchObject({ code: 0 });
  expect(await kv("view", "remove", "0", "--yes")).toMatchObject({ code: 0 });
  await dev.line((line) => /^replica 0 +retired: /.test(line), 60_000);
  expect(dev.stdout).not.toContain("down");
  await joining.stop();
  expect(await dev.kill("SIGINT")).toEqual({ code: 0, signal: null });

  renameSync(join(dir, "replica-3"), join(dir, "elsewhere"));
  const second = await startDev(args);
  expect(Object.keys(second.pids)).toEqual(["1", "2", "4"]);
  expect(second.dev.stdout).toMatch(/^replica 3 +not started: .*replica-3\/node\.yaml does not exist/m);
  expect(await kv("put", "kept", "by another view")).toMatchObject({ code: 0 });
  expect(await second.dev.kill("SIGINT")).toEqual({ code: 0, signal: null });
});
