/** A replica that is no member any more must not keep what could still sign for it (docs/protocol.md section 7). */
import { closeSync, fsyncSync, openSync, statSync, unlinkSync, writeFileSync, writeSync } from "node:fs";

/** Beside the place of a key file: its keys were erased because their replica is no member any more. */
export const RETIRED_SUFFIX = ".retired";

/**
 * Overwrites the file in place, synced, and removes it. What the file system or the disk keeps of older blocks stays. A note is
 * left first, so that no start finds the keys gone and nothing that says why.
 */
export function eraseKeys(keyPath: string): void {
  const note =
    "This replica was removed from its cluster, and its secret keys were erased. Its folder is yours to delete.\n";
  writeFileSync(`${keyPath}${RETIRED_SUFFIX}`, note, { mode: 0o600, flush: true });
  const file = openSync(keyPath, "r+");
  try {
    writeSync(file, Buffer.alloc(statSync(keyPath).size), 0, undefined, 0);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  unlinkSync(keyPath);
}
