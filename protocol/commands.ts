/**
 * Commands and results of the key-value service, and how a request's bundle of results is laid out.
 * Revisions are integers from 1; as a condition, 0 means "the key must be absent".
 */
import { bool, bytes, decode, encode, type Infer, list, nullable, record, text, u32, u53, union } from "./codec.ts";
import { Malformed } from "./errors.ts";
import { Reader, Writer } from "./layout.ts";
import {
  KEY_BYTES_MAX,
  RANGE_ENTRIES_MAX,
  REQUEST_BYTES_MAX,
  REQUEST_COMMANDS_MAX,
  VALUE_BYTES_MAX,
} from "./limits.ts";

// Slightly above the service's limits, so that a key or value too large gets a named refusal instead of a closed link.
const key = bytes({ max: 2 * KEY_BYTES_MAX });
const value = bytes({ max: VALUE_BYTES_MAX + 64 * 1024 });
const condition = nullable(u53);

export const commandSchema = union({
  put: [1, { key, value, ifRevision: condition }],
  get: [2, { key }],
  delete: [3, { key, ifRevision: condition }],
  /** Keys in [from, to), `to` null for no end; `limit` 0 for the largest page. */
  range: [4, { from: key, to: nullable(key), limit: u32, reverse: bool, keysOnly: bool }],
  /** Compare-and-swap: writes when the key's modRevision is `expect` (0: absent). */
  cas: [5, { key, expect: u53, value }],
  /** The micro-benchmark's operation: answers `replyBytes` zero bytes and changes nothing. */
  noop: [6, { payload: value, replyBytes: u32 }],
});
export type Command = Infer<typeof commandSchema>;

const entry = record({ key, value: nullable(value), createRevision: u53, modRevision: u53, version: u53 });
export type WireEntry = Infer<typeof entry>;

export const resultSchema = union({
  /** A put or cas that wrote: the entry's revisions after it. */
  written: [1, { createRevision: u53, modRevision: u53, version: u53 }],
  found: [2, { value, createRevision: u53, modRevision: u53, version: u53 }],
  /** get or delete of a missing key, at this store revision. */
  absent: [3, { revision: u53 }],
  deleted: [4, { revision: u53 }],
  /** A failed condition: the key's modRevision now (0: absent). */
  conflict: [5, { modRevision: u53 }],
  /** One atomic page; `more` when entries of the range are left beyond it. */
  page: [6, { revision: u53, more: bool, entries: list(entry, { max: RANGE_ENTRIES_MAX }) }],
  noop: [7, { payload: bytes({ max: REQUEST_BYTES_MAX }) }],
  /** Not executed: `code` is an ErrorCode. */
  refused: [8, { code: text({ max: 64 }), message: text({ max: 512 }) }],
});
export type Result = Infer<typeof resultSchema>;
export type ResultOf<T extends Result["type"]> = Extract<Result, { type: T }>;

export const encodeCommand = (command: Command): Uint8Array => encode(commandSchema, command);
/** @throws Malformed */
export const decodeCommand = (input: Uint8Array): Command => decode(commandSchema, input);
export const encodeResult = (result: Result): Uint8Array => encode(resultSchema, result);
/** @throws Malformed */
export const decodeResult = (input: Uint8Array): Result => decode(resultSchema, input);

const writer = new Writer(4096);

/** A request's result: u32 count, then u32 length and bytes per command, in the commands' order. */
export function encodeResults(results: readonly Uint8Array[]): Uint8Array {
  writer.reset().u32(results.length);
  for (const result of results) writer.bytes(result);
  return writer.finish();
}

/** @throws Malformed */
export function decodeResults(input: Uint8Array): Uint8Array[] {
  const reader = new Reader(input);
  const count = reader.u32();
  if (count > REQUEST_COMMANDS_MAX) throw new Malformed("RESULT_COUNT");
  const results: Uint8Array[] = [];
  for (let index = 0; index < count; index++) results.push(reader.bytes(input.length));
  reader.end();
  return results;
}

/** What RESOLVE found out; the result bytes of a `resolve` request. */
export const resolutionSchema = union({
  /** Executed; the results of its commands. */
  replied: [1, { status: u32, results: bytes({ max: REQUEST_BYTES_MAX }) }],
  /** Executed; the cached reply was dropped. */
  executed: [2, {}],
  /** Not executed, and never will be. */
  cancelled: [3, {}],
  /** The session is gone: nobody knows any more. */
  unknown: [4, {}],
});
export type Resolution = Infer<typeof resolutionSchema>;
export const encodeResolution = (resolution: Resolution): Uint8Array => encode(resolutionSchema, resolution);
/** @throws Malformed */
export const decodeResolution = (input: Uint8Array): Resolution => decode(resolutionSchema, input);
