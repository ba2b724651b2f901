/**
 * What `kv recover` has set aside and no start has said yet: it leaves a note in `aside/recover-N` beside the stores, which the next
 * open takes away (docs/data-format.md). So a store that goes missing later is not taken for one of those.
 */
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";

/** The note: an empty file. */
export const NOT_REPORTED = "not-reported";

/** Where stores lie now, relative to the data directory. */
export type Recovered = Readonly<Partial<Record<"journal" | "state", string>>>;

/** Of a directory that cannot be read nothing is known: whoever opens it says why. */
export async function recoveredIn(directory: string): Promise<{ stores: Recovered; reported(): Promise<void> }> {
  const stores: { journal?: string; state?: string } = {};
  const notes: string[] = [];
  for (const place of await recoveriesIn(directory)) {
    const note = join(directory, place, NOT_REPORTED);
    if (!(await isThere(note))) continue;
    notes.push(note);
    for (const store of ["journal", "state"] as const) {
      if (await isThere(join(directory, place, store))) stores[store] = place;
    }
  }
  return {
    stores,
    async reported() {
      // One that stays is said once more.
      for (const note of notes) await rm(note, { force: true }).catch(() => undefined);
    },
  };
}

/** The oldest first. */
async function recoveriesIn(directory: string): Promise<string[]> {
  const names = await readdir(join(directory, "aside")).catch(() => []);
  const numbers = names
    .map((name) => Number(/^recover-(\d{1,9})$/.exec(name)?.[1] ?? 0))
    .filter((number) => number > 0);
  return numbers.sort((a, b) => a - b).map((number) => join("aside", `recover-${number}`));
}

function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
