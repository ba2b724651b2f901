/** `kv put` and `kv cas`: the two ways to write one key. */
import { Command, Option } from "commander";
import { EXIT, type ExitCode, usageError } from "../exit.ts";
import { type Format, globalsOf, helpTail } from "../globals.ts";
import { type Io, writeOut } from "../io.ts";
import { keyArgument } from "../keys.ts";
import { parseExpectation, parseRevision } from "../numbers.ts";
import { withKv } from "../session.ts";
import { bytesField, printable, tableText } from "../text.ts";
import { readValue } from "../value-input.ts";

const VALUE_NOTE = "VALUE is the argument, @FILE for a file's bytes, or stdin when it is - or left out.";

export interface PutOptions {
  readonly ifRevision?: bigint;
  readonly ifAbsent?: true;
}

/** The conditions as the SDK takes them. @throws CommandExit (usage) when both are given. */
export function putConditions(options: PutOptions): { ifRevision?: bigint; ifAbsent?: true } {
  if (options.ifRevision !== undefined && options.ifAbsent) {
    throw usageError("--if-revision and --if-absent exclude each other; give one");
  }
  if (options.ifRevision !== undefined) return { ifRevision: options.ifRevision };
  return options.ifAbsent ? { ifAbsent: true } : {};
}

/** Ends in exit code 4 on a failed condition: the SDK throws CONFLICT. */
export function putCommand(io: Io): Command {
  return new Command("put")
    .description("write a value")
    .argument("<key>", "key, 1 to 4096 bytes of UTF-8")
    .argument("[value]", "value, up to 1 MiB")
    .addOption(
      new Option("--if-revision <revision>", "only if the key stands at this revision").argParser(parseRevision),
    )
    .option("--if-absent", "only if the key does not exist")
    .addHelpText(
      "after",
      helpTail({
        notes: VALUE_NOTE,
        json: '{"key","revision":"12","createRevision":"12","version":1}; keyBase64 for bytes that are not UTF-8',
        examples: ["kv put greeting hello", "date | kv put now", "kv put readme @README.md --if-absent"],
      }),
    )
    .action(async (key: string, value: string | undefined, options: PutOptions, command: Command) => {
      const globals = globalsOf(command);
      const conditions = putConditions(options);
      const keyBytes = keyArgument(key);
      const valueBytes = await readValue(value, io);
      const written = await withKv(globals, io, (kv) => kv.put(keyBytes, valueBytes, conditions));
      const { revision, createRevision, version } = written;
      await writeOut(io, writtenText(globals.output, { key: keyBytes, revision, createRevision, version }));
    });
}

interface Written {
  readonly key: Uint8Array;
  readonly revision: bigint;
  readonly createRevision: bigint;
  readonly version: number | bigint;
}

export function writtenText(format: Format, written: Written): string {
  const revision = String(written.revision);
  const createRevision = String(written.createRevision);
  if (format === "raw") return revision;
  if (format === "simple") return `revision ${revision}\n`;
  if (format === "json") {
    const fields = { revision, createRevision, version: Number(written.version) };
    return `${JSON.stringify({ ...bytesField("key", written.key), ...fields })}\n`;
  }
  const row = [printable(written.key), revision, createRevision, String(written.version)];
  return tableText(["KEY", "REVISION", "CREATED", "VERSION"], [row]);
}

interface CasOptions {
  readonly expect: bigint | "absent";
}

export function casCommand(io: Io, end: (code: ExitCode) => void): Command {
  return new Command("cas")
    .description("compare and swap: write only if the key stands at the expected revision")
    .argument("<key>", "key, 1 to 4096 bytes of UTF-8")
    .argument("[value]", "value, up to 1 MiB")
    .addOption(
      new Option("--expect <revision>", "revision the key must stand at, or absent")
        .argParser(parseExpectation)
        .makeOptionMandatory(),
    )
    .addHelpText(
      "after",
      helpTail({
        notes: `${VALUE_NOTE}\nExit code 4 when the key stands at another revision; stdout says which (0: absent).`,
        json: '{"key","swapped":true,"revision":"12"}; keyBase64 for bytes that are not UTF-8',
        examples: ["kv cas lock --expect absent held-by-me", "kv cas lock --expect 12 held-by-you -o json"],
      }),
    )
    .action(async (key: string, value: string | undefined, options: CasOptions, command: Command) => {
      const globals = globalsOf(command);
      const keyBytes = keyArgument(key);
      const valueBytes = await readValue(value, io);
      const outcome = await withKv(globals, io, (kv) =>
        kv.cas(keyBytes, { expect: options.expect, value: valueBytes }),
      );
      await writeOut(io, swappedText(globals.output, { key: keyBytes, ...outcome }));
      if (outcome.swapped) return;
      const now = outcome.revision === 0n ? "is absent" : `stands at revision ${outcome.revision}`;
      io.stderr.write(`kv: not swapped: the key ${now}, expected ${options.expect}\n`);
      end(EXIT.REFUSED);
    });
}

interface Swapped {
  readonly key: Uint8Array;
  readonly swapped: boolean;
  readonly revision: bigint;
}

export function swappedText(format: Format, outcome: Swapped): string {
  const revision = String(outcome.revision);
  if (format === "raw") return revision;
  if (format === "simple") return `${outcome.swapped ? "swapped" : "not swapped"} revision ${revision}\n`;
  if (format === "json") {
    return `${JSON.stringify({ ...bytesField("key", outcome.key), swapped: outcome.swapped, revision })}\n`;
  }
  const row = [printable(outcome.key), outcome.swapped ? "yes" : "no", revision];
  return tableText(["KEY", "SWAPPED", "REVISION"], [row]);
}
