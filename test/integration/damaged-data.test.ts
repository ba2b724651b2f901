/** Damage on one replica's disk is found, set aside, said, and made good from the others (docs/protocol.md section 6). */
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { until } from "./cluster.ts";
import { dataOf, expectRecords, type Filled, filledCluster, votes, write } from "./lost-data.ts";

/** Turns one bit in the middle of the largest table of a store. */
function damage(filled: Filled, replica: number, store: "journal" | "state"): void {
  const folder = join(dataOf(filled, replica), store);
  const tables = readdirSync(folder)
    .filter((name) => /\.(ldb|sst)$/.test(name))
    .map((name) => join(folder, name))
    .sort((a, b) => statSync(b).size - statSync(a).size);
  const [table] = tables;
  if (!table) throw new Error(`${folder} has no tables: ${readdirSync(folder).join(", ")}`);
  const content = readFileSync(table);
  const at = content.length >> 1;
  content[at] = (content[at] as number) ^ 1;
  writeFileSync(table, content);
}

for (const store of ["journal", "state"] as const) {
  test(`one bit turned in a table of the ${store}: it is set aside, said in log and status, and made good`, async () => {
    // Enough for tables: what is younger is only in LevelDB's log.
    const filled = await filledCluster({ records: 8_000, together: 64 });
    const { cluster } = filled;
    await cluster.kill(3, "SIGTERM");
    damage(filled, 3, store);
    await cluster.startOne(3);
    // The state is not read as a whole at the start: a scrub, a checkpoint or the replay of the log finds it.
    await until(
      async () => {
        await write(filled, 40);
        const { alarms } = await cluster.status(3);
        return alarms.some(({ code }) => code === "REPAIRED") ? true : null;
      },
      { timeoutMs: 60_000, what: `replica 3 to notice its damaged ${store}` },
    );
    const { alarms } = await cluster.status(3);
    expect(alarms.map(({ detail }) => detail).join()).toContain(`the ${store} store`);
    const said = cluster.log(3).filter((line) => line.store === store && Number(line.level) >= 40);
    expect(said).not.toEqual([]);
    expect(existsSync(join(dataOf(filled, 3), "aside"))).toBe(true);
    expect(readdirSync(join(dataOf(filled, 3), "aside")).join()).toContain(store);
    await votes(filled, 3);
    await write(filled, 100);
    expect((await cluster.status(3)).disk.asideBytes).toBeGreaterThan(0);
    await expectRecords(filled, { recovered: 3, down: [0] });
  });
}
