/**
 * Sets the stores of a stopped replica aside, so that its next start fetches everything from the others (docs/protocol.md
 * sections 4, "Lost journal", and 6). Guarantees: nothing is deleted; nothing moves while a server has the directory open.
 */
import { existsSync, linkSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Level } from "level";
import { QuorateError } from "../../protocol/errors.ts";
import { NOT_REPORTED } from "../../server/config.ts";

const ASIDE = "aside";
const STORES = ["journal", "state", "staging"] as const;

export interface SetAside {
  /** Where the stores lie now. */
  readonly path: string;
  readonly moved: readonly string[];
}

/** Which of the stores there are. */
export function storesIn(dataDir: string): string[] {
  return STORES.filter((store) => existsSync(join(dataDir, store)));
}

/** @throws QuorateError STORAGE_LOCKED */
export async function refuseLocked(dataDir: string): Promise<void> {
  for (const store of storesIn(dataDir)) {
    if (!(await isLocked(dataDir, join(dataDir, store, "LOCK")))) continue;
    const todo = "stop it first, then run this again";
    throw new QuorateError("STORAGE_LOCKED", `a running server has ${join(dataDir, store)} open; ${todo}`, { store });
  }
}

/**
 * LevelDB's lock is on the file, whatever its name: a new, empty database around a link to it can be opened only while
 * nobody holds it, and the store itself stays untouched.
 */
async function isLocked(dataDir: string, lock: string): Promise<boolean> {
  if (!existsSync(lock)) return false;
  const probe = mkdtempSync(join(dataDir, ".lock-probe-"));
  try {
    linkSync(lock, join(probe, "LOCK"));
    const level = new Level(probe);
    try {
      await level.open();
      return false;
    } catch (error) {
      const cause = (error as Error).cause ?? error;
      if ((cause as { code?: unknown }).code === "LEVEL_LOCKED") return true;
      throw error;
    } finally {
      await level.close();
    }
  } finally {
    rmSync(probe, { recursive: true, force: true });
  }
}

/** Moves the stores into a new directory `aside/recover-N` of the data directory. */
export function setStoresAside(dataDir: string): SetAside {
  const aside = join(dataDir, ASIDE);
  mkdirSync(aside, { recursive: true, mode: 0o700 });
  const used = readdirSync(aside).map((name) => Number(/^recover-(\d{1,9})$/.exec(name)?.[1] ?? 0));
  const path = join(aside, `recover-${Math.max(0, ...used) + 1}`);
  mkdirSync(path, { mode: 0o700 });
  // The next start says that it was this, and takes the note away.
  writeFileSync(join(path, NOT_REPORTED), "", { mode: 0o600 });
  const moved = storesIn(dataDir);
  // The journal first: with it gone, a start knows that it has forgotten votes, whatever else is still there.
  for (const store of moved) renameSync(join(dataDir, store), join(path, store));
  return { path, moved };
}
