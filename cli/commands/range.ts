/** `kv range`: the entries of a prefix or of [from, to), page by page. */
import { Command, Option } from "commander";
import type { Consistency } from "../../client/kv-types.ts";
import { utf8 } from "../../protocol/bytes.ts";
import { usageError } from "../exit.ts";
import { globalsOf, helpTail, requireFormat } from "../globals.ts";
import { type Io, writeOut } from "../io.ts";
import { integerIn } from "../numbers.ts";
import { type BytesKv, withKv } from "../session.ts";
import { printable } from "../text.ts";
import { consistencyOption, entryJson, entryTable, type ShownEntry } from "./get.ts";

export interface RangeOptions {
  readonly prefix?: string;
  readonly from?: string;
  readonly to?: string;
  readonly limit?: number;
  readonly reverse?: true;
  readonly keysOnly?: true;
  readonly consistency: Consistency;
}

const FLUSH_CHARACTERS = 64 * 1024;

/** The range as the SDK takes it; without any option, all keys. @throws CommandExit (usage) */
export function rangeOf(options: RangeOptions): { prefix: Uint8Array } | { from?: Uint8Array; to?: Uint8Array } {
  const { prefix, from, to } = options;
  if (prefix !== undefined) {
    if (from !== undefined || to !== undefined) {
      throw usageError("--prefix excludes --from and --to; give one or the other");
    }
    return { prefix: utf8(prefix) };
  }
  return { ...(from === undefined ? {} : { from: utf8(from) }), ...(to === undefined ? {} : { to: utf8(to) }) };
}

export function rangeCommand(io: Io): Command {
  return new Command("range")
    .description("list entries in the order of their keys' bytes")
    .option("--prefix <prefix>", "keys that begin with this")
    .option("--from <key>", "keys from this one on")
    .option("--to <key>", "keys before this one")
    .addOption(
      new Option("--limit <count>", "at most this many entries").argParser(
        integerIn({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      ),
    )
    .option("--reverse", "from the last key to the first")
    .option("--keys-only", "without the values")
    .addOption(consistencyOption())
    .addHelpText(
      "after",
      helpTail({
        notes:
          "Without --prefix, --from and --to: every key. Each page is atomic, the whole listing is not while writes go on.\n" +
          "-o simple: key, tab, value, with control characters escaped.",
        json:
          'a line per entry, {"key","value","createRevision":"12","modRevision":"15","version":3}; ' +
          "keyBase64 and valueBase64 for bytes that are not UTF-8",
        examples: ["kv range --prefix user/", "kv range --from a --to b --limit 10 -o table", "kv range --keys-only"],
      }),
    )
    .action(async (options: RangeOptions, command: Command) => {
      const globals = globalsOf(command);
      const format = requireFormat(globals, ["simple", "json", "table"]);
      const range = rangeOf(options);
      const { consistency } = options;
      const list = async (kv: BytesKv): Promise<void> => {
        const entries = scan(kv, range, options);
        if (format === "table") await writeTable(io, entries);
        else await writeLines(io, entries, format === "json" ? entryJson : simpleLine);
      };
      await withKv(globals, io, list, { consistency });
    });
}

async function* scan(
  kv: BytesKv,
  range: ReturnType<typeof rangeOf>,
  options: RangeOptions,
): AsyncGenerator<ShownEntry> {
  const { limit, reverse, keysOnly, consistency } = options;
  const how = {
    consistency,
    ...(limit === undefined ? {} : { limit }),
    ...(reverse ? { reverse } : {}),
    ...(keysOnly ? { keysOnly } : {}),
  };
  for await (const entry of kv.range({ ...range, ...how })) {
    yield { ...entry, key: entry.keyBytes, value: "value" in entry ? entry.value : null };
  }
}

/** The widths of the columns need every entry first: give a --limit for a large range. */
async function writeTable(io: Io, entries: AsyncIterable<ShownEntry>): Promise<void> {
  const collected: ShownEntry[] = [];
  for await (const entry of entries) collected.push(entry);
  await writeOut(io, entryTable(collected));
}

function simpleLine(entry: ShownEntry): string {
  return entry.value === null ? printable(entry.key) : `${printable(entry.key)}\t${printable(entry.value)}`;
}

/** Writes a line per entry, in pieces large enough to be cheap, waiting for a slow reader. */
export async function writeLines<T>(io: Io, entries: AsyncIterable<T>, line: (entry: T) => string): Promise<number> {
  let pending = "";
  let count = 0;
  for await (const entry of entries) {
    pending += `${line(entry)}\n`;
    count += 1;
    if (pending.length < FLUSH_CHARACTERS) continue;
    await writeOut(io, pending);
    pending = "";
  }
  if (pending !== "") await writeOut(io, pending);
  return count;
}
