/** `kv get` and `kv delete`: both end in exit code 1 when the key does not exist. */
import { Command, Option } from "commander";
import type { Consistency } from "../../client/kv-types.ts";
import { EXIT, type ExitCode } from "../exit.ts";
import { type Format, globalsOf, helpTail } from "../globals.ts";
import { type Io, writeOut } from "../io.ts";
import { keyArgument } from "../keys.ts";
import { parseRevision } from "../numbers.ts";
import { withKv } from "../session.ts";
import { bytesField, printable, tableText } from "../text.ts";

/** An entry as commands print it. `value` is null when only keys were asked for. */
export interface ShownEntry {
  readonly key: Uint8Array;
  readonly value: Uint8Array | null;
  readonly createRevision: bigint;
  readonly modRevision: bigint;
  readonly version: number | bigint;
}

/** The stable JSON form of one entry, without a newline. */
export function entryJson(entry: ShownEntry): string {
  return JSON.stringify({
    ...bytesField("key", entry.key),
    ...(entry.value === null ? {} : bytesField("value", entry.value)),
    createRevision: String(entry.createRevision),
    modRevision: String(entry.modRevision),
    version: Number(entry.version),
  });
}

export function entryTable(entries: readonly ShownEntry[]): string {
  const rows = entries.map((entry) => [
    printable(entry.key),
    String(entry.createRevision),
    String(entry.modRevision),
    String(entry.version),
    entry.value === null ? "" : printable(entry.value),
  ]);
  return tableText(["KEY", "CREATED", "MODIFIED", "VERSION", "VALUE"], rows);
}

interface GetOptions {
  readonly consistency: Consistency;
}

export function consistencyOption(): Option {
  const text = "linearizable: a quorum's answer; local: one replica's, which may be old, or a lie";
  return new Option("--consistency <how>", text).choices(["linearizable", "local"]).default("linearizable");
}

export function getCommand(io: Io, end: (code: ExitCode) => void): Command {
  return new Command("get")
    .description("read a value")
    .argument("<key>", "key, 1 to 4096 bytes of UTF-8")
    .addOption(consistencyOption())
    .addHelpText(
      "after",
      helpTail({
        notes: "Exit code 1 when the key does not exist. -o raw writes the value's bytes and no newline.",
        json:
          '{"key","value","createRevision":"12","modRevision":"15","version":3}, or null when the key does not exist; ' +
          "keyBase64 and valueBase64 for bytes that are not UTF-8",
        examples: ["kv get greeting", "kv get readme -o raw > copy-of-readme", "kv get greeting -o json"],
      }),
    )
    .action(async (key: string, options: GetOptions, command: Command) => {
      const globals = globalsOf(command);
      const keyBytes = keyArgument(key);
      const entry = await withKv(globals, io, (kv) => kv.get(keyBytes), options);
      if (entry) return await writeEntry(io, globals.output, { ...entry, key: keyBytes });
      if (globals.output === "json") await writeOut(io, "null\n");
      io.stderr.write(`kv: not found: ${printable(keyBytes)}\n`);
      end(EXIT.NOT_FOUND);
    });
}

async function writeEntry(io: Io, format: Format, entry: ShownEntry & { value: Uint8Array }): Promise<void> {
  if (format === "json") return await writeOut(io, `${entryJson(entry)}\n`);
  if (format === "table") return await writeOut(io, entryTable([entry]));
  await writeOut(io, entry.value);
  if (format === "simple") await writeOut(io, "\n");
}

interface DeleteOptions {
  readonly ifRevision?: bigint;
}

export function deleteCommand(io: Io, end: (code: ExitCode) => void): Command {
  return new Command("delete")
    .description("delete a key")
    .argument("<key>", "key, 1 to 4096 bytes of UTF-8")
    .addOption(
      new Option("--if-revision <revision>", "only if the key stands at this revision").argParser(parseRevision),
    )
    .addHelpText(
      "after",
      helpTail({
        notes: "Exit code 1 when the key does not exist.",
        json: '{"key","deleted":true,"revision":"16"}; keyBase64 for bytes that are not UTF-8',
        examples: ["kv delete greeting", "kv delete lock --if-revision 12"],
      }),
    )
    .action(async (key: string, options: DeleteOptions, command: Command) => {
      const globals = globalsOf(command);
      const keyBytes = keyArgument(key);
      const condition = options.ifRevision === undefined ? {} : { ifRevision: options.ifRevision };
      const outcome = await withKv(globals, io, (kv) => kv.delete(keyBytes, condition));
      await writeOut(io, deletedText(globals.output, { key: keyBytes, ...outcome }));
      if (outcome.deleted) return;
      io.stderr.write(`kv: not found: ${printable(keyBytes)}\n`);
      end(EXIT.NOT_FOUND);
    });
}

interface Deleted {
  readonly key: Uint8Array;
  readonly deleted: boolean;
  readonly revision: bigint;
}

/** Empty for a missing key in the forms for people: stderr says so. */
export function deletedText(format: Format, outcome: Deleted): string {
  const revision = String(outcome.revision);
  if (format === "json") {
    return `${JSON.stringify({ ...bytesField("key", outcome.key), deleted: outcome.deleted, revision })}\n`;
  }
  if (format === "table") {
    const row = [printable(outcome.key), outcome.deleted ? "yes" : "no", revision];
    return tableText(["KEY", "DELETED", "REVISION"], [row]);
  }
  if (!outcome.deleted) return "";
  return format === "raw" ? revision : `revision ${revision}\n`;
}
