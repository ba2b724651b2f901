/**
 * Copies of the working tree in which bugs are planted. The working tree itself is only read. A copy holds one bug at a time:
 * files come back from the working tree as it was when the copy was made.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { changed, type Mutation } from "./mutation.ts";

const ROOT = join(import.meta.dirname, "../../..");
/** What hunting needs. */
const PARTS = [
  "protocol",
  "storage",
  "client",
  "server",
  "cli",
  "examples",
  "test",
  "package.json",
  "tsconfig.json",
  "vitest.config.ts",
];

export class Tree {
  readonly directory = mkdtempSync(join(tmpdir(), "quorate-planted-"));

  constructor() {
    for (const part of PARTS) cpSync(join(ROOT, part), join(this.directory, part), { recursive: true });
    symlinkSync(join(ROOT, "node_modules"), join(this.directory, "node_modules"));
  }

  /** Plants a bug for as long as `hunt` runs. @throws Error when the list no longer fits the code. */
  async during<T>(mutation: Mutation, hunt: () => Promise<T>): Promise<T> {
    const originals = new Map<string, string>();
    for (const change of mutation.changes) {
      const path = join(this.directory, change.file);
      const text = readFileSync(path, "utf8");
      if (!originals.has(path)) originals.set(path, text);
      writeFileSync(path, changed(text, change));
    }
    try {
      return await hunt();
    } finally {
      for (const [path, text] of originals) writeFileSync(path, text);
    }
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
