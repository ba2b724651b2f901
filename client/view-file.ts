/** A `ViewStore` in a file. Node only. A file is replaced by a rename: it is whole at any time, whoever writes at once. */
import { randomBytes } from "node:crypto";
import { readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import type { ViewStore } from "./view-follower.ts";

/** Thousands of views; nothing larger is read. */
const FILE_BYTES_MAX = 64 * 1024 * 1024;

/** Where `kv` keeps the views that were followed from this cluster file on. */
export function viewsBeside(clusterPath: string): string {
  return `${clusterPath}.views`;
}

export function viewFile(path: string): ViewStore {
  return {
    async load() {
      const { size } = await stat(path);
      return size > FILE_BYTES_MAX ? null : await readFile(path);
    },
    async save(bytes) {
      const staged = `${path}.${randomBytes(6).toString("hex")}`;
      try {
        await writeFile(staged, bytes, { flag: "wx", mode: 0o644 });
        await rename(staged, path);
      } finally {
        await rm(staged, { force: true });
      }
    },
  };
}
