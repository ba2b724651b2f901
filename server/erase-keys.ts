/** A replica that is no member any more must not keep what could still sign for it (docs/protocol.md section 7). */
import { closeSync, fsyncSync, openSync, statSync, unlinkSync, writeSync } from "node:fs";

/** Overwrites the file in place, synced, and removes it. What the file system or the disk keeps of older blocks stays. */
export function eraseKeys(keyPath: string): void {
  const file = openSync(keyPath, "r+");
  try {
    writeSync(file, Buffer.alloc(statSync(keyPath).size), 0, undefined, 0);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  unlinkSync(keyPath);
}
