/** Where a VALUE comes from: the argument itself, `@file`, or stdin (`-`, or no argument at all). */
import { createReadStream } from "node:fs";
import { utf8 } from "../protocol/bytes.ts";
import { QuorateError } from "../protocol/errors.ts";
import { VALUE_BYTES_MAX } from "../protocol/limits.ts";
import { usageError } from "./exit.ts";
import { type Io, readAll } from "./io.ts";

/** @throws QuorateError VALUE_TOO_LARGE; CommandExit (usage) for a file that cannot be read. */
export async function readValue(argument: string | undefined, io: Io): Promise<Uint8Array> {
  if (argument === undefined || argument === "-") {
    if (io.stdin.isTTY) io.stderr.write("kv: reading the value from the terminal; end it with Ctrl-D\n");
    return notTooLarge(await readAll(io.stdin, VALUE_BYTES_MAX), "the value on stdin");
  }
  if (argument.startsWith("@")) return await readValueFile(argument.slice(1));
  const value = utf8(argument);
  return notTooLarge(value.length > VALUE_BYTES_MAX ? null : value, "the value");
}

async function readValueFile(file: string): Promise<Uint8Array> {
  if (file === "") throw usageError("VALUE @ names no file; write @FILE, or pipe the value in to store text with an @");
  let value: Uint8Array | null;
  try {
    value = await readAll(createReadStream(file), VALUE_BYTES_MAX);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    const why =
      code === "ENOENT" ? "does not exist" : code === "EISDIR" ? "is a directory" : `cannot be read (${code})`;
    throw usageError(`file ${file} ${why}; to store text that begins with @, pipe it in`);
  }
  return notTooLarge(value, `file ${file}`);
}

function notTooLarge(value: Uint8Array | null, what: string): Uint8Array {
  if (value) return value;
  const limit = `a value holds at most ${VALUE_BYTES_MAX} bytes (1 MiB)`;
  throw new QuorateError("VALUE_TOO_LARGE", `${what} is too large: ${limit}`, { limit: VALUE_BYTES_MAX });
}
