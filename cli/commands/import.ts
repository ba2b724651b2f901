/** `kv import` and `kv export`: all records as JSON lines. */
import { createReadStream, statSync } from "node:fs";
import { Command } from "commander";
import { usageError } from "../exit.ts";
import { type Format, type Globals, globalsOf, helpTail, requireFormat } from "../globals.ts";
import { type ImportCount, type ImportSource, importRecords } from "../import-records.ts";
import { type Io, writeOut } from "../io.ts";
import { recordLine } from "../jsonl.ts";
import { progressOn } from "../progress.ts";
import { openKv, withKv } from "../session.ts";
import { writeLines } from "./range.ts";

const IMPORT_TIMEOUT_MS = 15_000;

export function importCommand(io: Io): Command {
  return new Command("import")
    .description("write every record of a file of JSON lines")
    .argument("<file>", "file of JSON lines, or - for stdin")
    .addHelpText(
      "after",
      helpTail({
        notes:
          'A line per record: {"key":"…","value":"…"}, with keyBase64 and valueBase64 for bytes that are not UTF-8.\n' +
          "A wrong line ends the import with exit code 2 and its number; the records before it stay. Running an import\n" +
          "again is safe. --timeout is per put, 15s unless given.",
        json: '{"imported":60000,"repeated":0,"seconds":12.3,"recordsPerSecond":4878}',
        examples: [
          "kv import users.jsonl",
          "kv export --cluster old/cluster.json | kv import - --cluster new/cluster.json",
        ],
      }),
    )
    .action(async (file: string, _options: object, command: Command) => {
      const globals = globalsOf(command);
      const format = requireFormat(globals, ["simple", "json"]);
      const source = openSource(file, io);
      const started = performance.now();
      const count = await runImport(globals, io, source);
      await writeOut(io, importText(format, { ...count, elapsedMs: performance.now() - started }));
    });
}

async function runImport(globals: Globals, io: Io, source: ImportSource): Promise<ImportCount> {
  const kv = await openKv(globals, io, { timeoutMs: IMPORT_TIMEOUT_MS });
  try {
    return await importRecords(kv, source, progressOn(io, { label: "imported", unit: "records" }));
  } finally {
    await kv.close();
  }
}

/** @throws CommandExit (usage) when the file cannot be read. */
function openSource(file: string, io: Io): ImportSource {
  if (file === "-") return { stream: io.stdin, bytesTotal: null };
  try {
    const stat = statSync(file);
    if (stat.isDirectory()) throw usageError(`file ${file} is a directory; name a file of JSON lines`);
    return { stream: createReadStream(file), bytesTotal: stat.isFile() ? stat.size : null };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    const why = code === "ENOENT" ? "does not exist" : `cannot be read (${code})`;
    throw usageError(`file ${file} ${why}; name a file of JSON lines, or - for stdin`);
  }
}

export function importText(format: Format, result: ImportCount & { elapsedMs: number }): string {
  const { imported, repeated, elapsedMs } = result;
  const recordsPerSecond = elapsedMs > 0 ? Math.round((imported * 1_000) / elapsedMs) : 0;
  const seconds = Math.round(elapsedMs / 10) / 100;
  if (format === "json") return `${JSON.stringify({ imported, repeated, seconds, recordsPerSecond })}\n`;
  return `imported ${imported} records in ${seconds} s (${recordsPerSecond} records/s)\n`;
}

function entryLine(entry: { keyBytes: Uint8Array; value: Uint8Array }): string {
  return recordLine({ key: entry.keyBytes, value: entry.value });
}

export function exportCommand(io: Io): Command {
  return new Command("export")
    .description("print every record as a JSON line, in the order of the keys' bytes")
    .addHelpText(
      "after",
      helpTail({
        notes:
          "This is no snapshot while writes go on: the store is read page by page, and each page is read at its own\n" +
          "time. Stop the writers first if the file must be the store at one moment.\n" +
          'A line per record: {"key":"…","value":"…"}, with keyBase64 and valueBase64 for bytes that are not UTF-8.',
        examples: ["kv export > backup.jsonl", "kv export | wc -l"],
      }),
    )
    .action(async (_options: object, command: Command) => {
      const globals = globalsOf(command);
      requireFormat(globals, ["simple", "json"]);
      await withKv(globals, io, (kv) => writeLines(io, kv.range(), entryLine));
    });
}
