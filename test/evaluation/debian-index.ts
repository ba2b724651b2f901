/**
 * Debian's package index as records: about 60,000 of about 1 KB. Guarantees: every stanza of `apt-cache dumpavail` becomes one
 * record, its value the stanza's bytes as they are; keys are unique.
 */
import { execFileSync, spawn } from "node:child_process";
import type { KeyValue } from "../../cli/jsonl.ts";

/** Splits text (latin1: a character per byte) at blank lines. */
export async function* stanzas(chunks: AsyncIterable<string>): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of chunks) {
    const parts = (rest + chunk).split("\n\n");
    rest = parts.pop() ?? "";
    for (const part of parts) if (part.trim() !== "") yield part.replace(/^\n+/, "");
  }
  if (rest.trim() !== "") yield rest.replace(/^\n+|\n+$/g, "");
}

/** Key: Package/Version/Architecture, with #2, #3 … where the index repeats one. */
export async function* recordsOf(index: AsyncIterable<string>): AsyncGenerator<KeyValue> {
  const seen = new Map<string, number>();
  for await (const stanza of index) {
    const field = (name: string): string => new RegExp(`^${name}: (.*)$`, "m").exec(stanza)?.[1]?.trim() ?? "";
    const name = `${field("Package")}/${field("Version")}/${field("Architecture")}`;
    const count = (seen.get(name) ?? 0) + 1;
    seen.set(name, count);
    yield { key: Buffer.from(count === 1 ? name : `${name}#${count}`, "latin1"), value: Buffer.from(stanza, "latin1") };
  }
}

async function* dumpavail(): AsyncGenerator<string> {
  const child = spawn("apt-cache", ["dumpavail"], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) =>
      code === 0 ? resolve() : reject(new Error(`apt-cache dumpavail: exit code ${code}`)),
    );
  });
  ended.catch(() => {});
  child.stdout.setEncoding("latin1");
  yield* child.stdout as AsyncIterable<string>;
  await ended;
}

/** The whole index; runs `apt-get update` when there is none yet. @throws Error where there is no apt, or no index after that */
export async function debianRecords(): Promise<KeyValue[]> {
  for (const update of [false, true]) {
    if (update) execFileSync("apt-get", ["update"], { stdio: ["ignore", "inherit", "inherit"] });
    const records: KeyValue[] = [];
    for await (const record of recordsOf(stanzas(dumpavail()))) records.push(record);
    if (records.length > 0) return records;
  }
  throw new Error("apt-cache dumpavail prints nothing, even after apt-get update: no package index is configured here");
}
