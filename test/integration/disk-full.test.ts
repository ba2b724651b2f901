/** A full disk (docs/protocol.md section 8): a real one, a small tmpfs, where mounting is permitted. */
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { type Status, temporaryFolder, until } from "./cluster.ts";
import { expectRecords, type Filled, filledCluster, votes, write } from "./lost-data.ts";

const DISK = "160m";
const LEFT_BYTES = 6 * 1024 * 1024;
const SKIPPED = mountProblem();

/** Why nothing can be mounted here, or null. */
function mountProblem(): string | null {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return "only root can mount a tmpfs";
  const folder = join(process.cwd(), "node_modules", ".quorate-tmpfs-try");
  try {
    execFileSync("mkdir", ["-p", folder]);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "quorate-try", folder], { stdio: "pipe" });
    execFileSync("umount", [folder], { stdio: "pipe" });
    return null;
  } catch (error) {
    return `mount -t tmpfs: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A cluster whose replica 3 has its data on a disk of its own, and the ballast that fills it. */
async function onSmallDisk(): Promise<{ filled: Filled; ballast: string; fill(leftBytes: number): void }> {
  const disk = join(temporaryFolder(), "disk");
  execFileSync("mkdir", [disk]);
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${DISK},mode=700`, "quorate-test", disk]);
  onTestFinished(() => void execFileSync("umount", ["--lazy", disk]));
  const filled = await filledCluster({
    records: 200,
    settings: { diskReserveBytes: 0 },
    start: async (cluster) => {
      execFileSync("cp", ["-a", join(cluster.home(3), "data"), join(disk, "data")]);
      await Promise.all([0, 1, 2].map((replica) => cluster.startOne(replica)));
      const config = join(cluster.home(3), "node.yaml");
      writeFileSync(config, readFileSync(config, "utf8").replace("dataDir: data", `dataDir: ${join(disk, "data")}`));
      await cluster.startOne(3);
    },
  });
  const ballast = join(disk, "ballast");
  const fill = (leftBytes: number): void => {
    const { bavail, bsize } = statfsSync(disk);
    writeFileSync(ballast, new Uint8Array(bavail * bsize - leftBytes));
  };
  return { filled, ballast, fill };
}

function full({ cluster }: Filled, between: () => Promise<void> = async () => undefined): Promise<Status> {
  return until(
    async () => {
      await between();
      const status = await cluster.status(3);
      return status.state === "disk full" ? status : null;
    },
    { timeoutMs: 60_000, what: "replica 3 to find its disk full" },
  );
}

/** There is room again: the replica goes on by itself. */
async function expectGoesOn(filled: Filled): Promise<void> {
  const { cluster } = filled;
  const { alarms } = await votes(filled, 3);
  expect(alarms.map(({ code }) => code)).not.toContain("DISK_FULL");
  await write(filled, 100);
  await cluster.agreement();
  await expectRecords(filled, { recovered: 3, down: [0] });
}

test("a replica on a full disk acknowledges nothing and says so, and goes on when there is room", async ({ skip }) => {
  skip(SKIPPED !== null, SKIPPED ?? "");
  const { filled, ballast, fill } = await onSmallDisk();
  const { cluster } = filled;
  fill(LEFT_BYTES);
  const { alarms, disk } = await full(filled, () => write(filled, 200));
  expect(alarms.map(({ code }) => code)).toContain("DISK_FULL");
  expect(disk.low).toBe(true);
  expect(disk.journalBytes).toBeGreaterThan(0);
  expect(cluster.log(3).map(({ msg }) => String(msg))).toContainEqual(expect.stringContaining("the disk is full"));
  // The others go on without it.
  await write(filled, 100);
  rmSync(ballast);
  await expectGoesOn(filled);
});

test("a replica that is started on a full disk waits for room, and says so", async ({ skip }) => {
  skip(SKIPPED !== null, SKIPPED ?? "");
  const { filled, ballast, fill } = await onSmallDisk();
  const { cluster } = filled;
  await cluster.kill(3, "SIGKILL");
  fill(0);
  await cluster.startOne(3);
  const { alarms } = await full(filled);
  expect(alarms.map(({ code }) => code)).toContain("DISK_FULL");
  expect((await cluster.http(3, "/livez")).code).toBe(200);
  expect((await cluster.http(3, "/readyz")).code).toBe(503);
  await write(filled, 100);
  rmSync(ballast);
  await expectGoesOn(filled);
});
