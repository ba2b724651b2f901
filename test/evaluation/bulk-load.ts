/** What the disk and LevelDB alone achieve here: records written in order in synced batches, as a state that is fetched is. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ClassicLevel } from "classic-level";
import type { Records } from "./records.ts";

const BATCH_BYTES = 4 * 1024 * 1024;

/** Bytes of keys and values per second. */
export async function bulkLoadRate(records: Records): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "quorate-bulk-"));
  const db = new ClassicLevel<string, Uint8Array>(join(folder, "db"), { keyEncoding: "utf8", valueEncoding: "view" });
  try {
    await db.open();
    const startedMs = performance.now();
    let bytes = 0;
    for (let index = 0; index < records.count; ) {
      const batch: { type: "put"; key: string; value: Uint8Array }[] = [];
      for (let size = 0; size < BATCH_BYTES && index < records.count; index++) {
        const key = records.key(index);
        batch.push({ type: "put", key, value: records.value(index) });
        size += key.length + records.valueBytes;
        bytes += key.length + records.valueBytes;
      }
      await db.batch(batch, { sync: true });
    }
    return (bytes * 1_000) / (performance.now() - startedMs);
  } finally {
    await db.close();
    rmSync(folder, { recursive: true, force: true });
  }
}
