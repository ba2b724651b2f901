/** `npm run sim`: its exit codes and the one command that replays a failure. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const FAILURES = [
  { plant: "violation", exit: 129 },
  { plant: "stall", exit: 128 },
  { plant: "crash", exit: 127 },
] as const;

function sim(args: readonly string[], plant?: string): Promise<{ exit: number | null; text: string }> {
  const env = { ...process.env, ...(plant ? { QUORATE_SIM_PLANT: plant } : {}) };
  const child = spawn(process.execPath, ["--import", "tsx", "test/simulation/main.ts", ...args], { cwd: ROOT, env });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
  return new Promise((resolve) => child.on("close", (exit) => resolve({ exit, text })));
}

describe("npm run sim", () => {
  it.each(FAILURES)("exits $exit after a $plant and prints one command that replays it", async ({ plant, exit }) => {
    const many = await sim(["--seeds", "3", "--from", "40", "--workers", "1"], plant);
    expect(many.exit).toBe(exit);
    expect(many.text.match(/npm run sim -- .*/g)).toEqual(["npm run sim -- --seed 40 --trace"]);
  });

  it("replays one seed with a readable trace and fails as before", async () => {
    const one = await sim(["--seed", "40", "--trace"], "violation");
    expect(one.exit).toBe(129);
    expect(one.text).toContain("r0 > 1  PROPOSE 0/1");
    expect(one.text).toContain("FAILED: planted: a checker that always fails");
    expect(one.text).toContain("npm run sim -- --seed 40 --trace");
  });

  it("prints what clean seeds add up to and exits 0", async () => {
    const { exit, text } = await sim(["--seeds", "4", "--from", "40", "--workers", "2"]);
    expect(exit).toBe(0);
    expect(text).toContain("seeds 40 to 43 in 2 processes");
    expect(text).toMatch(/4 seeds, [\d.]+ seeds per second/);
    expect(text).toMatch(/virtual to real time \d+ to 1/);
    expect(text).toMatch(/[1-9]\d* instances decided/);
    expect(text).toContain("0 failures");
  });
});
