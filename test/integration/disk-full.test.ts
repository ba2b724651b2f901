/** A full disk (docs/protocol.md section 8): a real one, a small tmpfs, where mounting is permitted. */
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { temporaryFolder, until } from "./cluster.ts";
import { expectRecords, filledCluster, votes, write } from "./lost-data.ts";

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

test("a replica on a full disk acknowledges nothing and says so, and goes on when there is room", async ({ skip }) => {
  skip(SKIPPED !== null, SKIPPED ?? "");
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
  const { cluster } = filled;
  const { bavail, bsize } = statfsSync(disk);
  writeFileSync(join(disk, "ballast"), new Uint8Array(bavail * bsize - LEFT_BYTES));
  const full = await until(
    async () => {
      await write(filled, 200);
      const status = await cluster.status(3);
      return status.state === "disk full" ? status : null;
    },
    { timeoutMs: 60_000, what: "replica 3 to find its disk full" },
  );
  expect(full.alarms.map(({ code }) => code)).toContain("DISK_FULL");
  expect(cluster.log(3).map(({ msg }) => String(msg))).toContainEqual(expect.stringContaining("the disk is full"));
  // The others go on without it.
  await write(filled, 100);
  rmSync(join(disk, "ballast"));
  const { alarms } = await votes(filled, 3);
  expect(alarms.map(({ code }) => code)).not.toContain("DISK_FULL");
  await write(filled, 100);
  await cluster.agreement();
  await expectRecords(filled, { recovered: 3, down: [0] });
});
