/**
 * Records as JSON lines, the form of `kv import` and `kv export`: `{"key":…,"value":…}`, with `keyBase64` and
 * `valueBase64` for bytes that are not UTF-8. Guarantees: any key and value come back byte for byte; a line that says
 * anything else is refused with the reason, never half understood.
 */
import { utf8 } from "../protocol/bytes.ts";
import { QuorateError } from "../protocol/errors.ts";
import { checkKey, checkValue } from "./keys.ts";
import { bytesField } from "./text.ts";

export interface KeyValue {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

/** A largest value whose every byte is escaped (`\u0000`) and a largest key fit a line. */
export const LINE_BYTES_MAX = 8 * 1024 * 1024;

/** What `kv range -o json` writes beside key and value; an import passes over it. */
const PASSED_OVER = new Set(["createRevision", "modRevision", "version"]);
const KNOWN = new Set(["key", "keyBase64", "value", "valueBase64", ...PASSED_OVER]);

/** Why a line is no record. `unread`: the line was not even read to its end, so nobody has counted it yet. */
export class LineError extends Error {
  override name = "LineError";
  readonly unread: boolean;
  constructor(message: string, unread = false) {
    super(message);
    this.unread = unread;
  }
}

/** One line, without its newline. */
export function recordLine(record: KeyValue): string {
  return JSON.stringify({ ...bytesField("key", record.key), ...bytesField("value", record.value) });
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @throws LineError */
export function parseRecordLine(line: Uint8Array): KeyValue {
  let text: string;
  try {
    text = strictUtf8.decode(line);
  } catch {
    throw new LineError("not UTF-8; write other bytes as keyBase64 and valueBase64");
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new LineError('not JSON; each line must be {"key":"…","value":"…"}');
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new LineError('not an object; each line must be {"key":"…","value":"…"}');
  }
  const fields = json as Record<string, unknown>;
  for (const name of Object.keys(fields)) {
    if (!KNOWN.has(name)) throw new LineError(`unknown field ${JSON.stringify(name)}; a record has key and value`);
  }
  return { key: limited(() => checkKey(part(fields, "key"))), value: limited(() => checkValue(part(fields, "value"))) };
}

function limited(check: () => Uint8Array): Uint8Array {
  try {
    return check();
  } catch (error) {
    if (error instanceof QuorateError) throw new LineError(error.message);
    throw error;
  }
}

function part(fields: Record<string, unknown>, name: "key" | "value"): Uint8Array {
  const text = fields[name];
  const base64 = fields[`${name}Base64`];
  if (text !== undefined && base64 !== undefined) throw new LineError(`both ${name} and ${name}Base64; give one`);
  if (base64 !== undefined) return fromBase64(base64, `${name}Base64`);
  if (text === undefined) throw new LineError(`${name} is missing`);
  if (typeof text !== "string") throw new LineError(`${name} is not a string`);
  if (/\p{Surrogate}/u.test(text)) throw new LineError(`${name} has half a surrogate pair, which is no Unicode text`);
  return utf8(text);
}

function fromBase64(value: unknown, name: string): Uint8Array {
  if (typeof value !== "string") throw new LineError(`${name} is not a string`);
  const decoded = Buffer.from(value, "base64");
  if (decoded.toString("base64") !== value) throw new LineError(`${name} is not base64 (RFC 4648, padded)`);
  return decoded;
}

const NEWLINE = 0x0a;
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];

/** Lines that came in one piece of input, and how many bytes were read so far. */
export interface LineGroup {
  readonly lines: readonly Uint8Array[];
  readonly bytesRead: number;
}

/** Splits a byte stream at newlines; the last line may lack one. @throws LineError when a line is too long. */
export async function* lineGroups(stream: AsyncIterable<Uint8Array | string>): AsyncGenerator<LineGroup> {
  let rest: Uint8Array[] = [];
  let restBytes = 0;
  let bytesRead = 0;
  for await (const piece of stream) {
    let chunk: Uint8Array = typeof piece === "string" ? utf8(piece) : piece;
    if (bytesRead === 0 && BYTE_ORDER_MARK.every((byte, index) => chunk[index] === byte)) chunk = chunk.subarray(3);
    bytesRead += piece.length;
    const lines: Uint8Array[] = [];
    let start = 0;
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, start)) {
      lines.push(joined(rest, chunk.subarray(start, at)));
      rest = [];
      restBytes = 0;
      start = at + 1;
    }
    if (start < chunk.length) {
      rest.push(chunk.subarray(start));
      restBytes += chunk.length - start;
    }
    yield { lines, bytesRead };
    if (restBytes > LINE_BYTES_MAX)
      throw new LineError(`longer than ${LINE_BYTES_MAX} bytes; give each record a line`, true);
  }
  if (restBytes > 0) yield { lines: [joined(rest, new Uint8Array(0))], bytesRead };
}

function joined(rest: readonly Uint8Array[], last: Uint8Array): Uint8Array {
  return rest.length === 0 ? last : Buffer.concat([...rest, last]);
}

/** True for a line of nothing but white space, which an import passes over. */
export function isBlank(line: Uint8Array): boolean {
  return line.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d);
}
