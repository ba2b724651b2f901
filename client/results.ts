/** Results of the key-value service as a quorum gave them, and the errors they stand for. */
import { decodeResult, encodeResult, type Result } from "../protocol/commands.ts";
import { decoded, type ErrorCode, isRejection, QuorateError } from "../protocol/errors.ts";

/** Codes a service may refuse a command with; others are reported as REFUSED. */
const REFUSAL_CODES: ReadonlySet<string> = new Set<ErrorCode>([
  "INVALID_ARGUMENT",
  "KEY_EMPTY",
  "KEY_TOO_LARGE",
  "VALUE_TOO_LARGE",
  "REQUEST_TOO_LARGE",
  "DECODE_FAILED",
  "STORAGE_FULL",
  "NOT_PERMITTED",
  "BUSY",
]);

/** @throws QuorateError DECODE_FAILED */
export function readResult(bytes: Uint8Array): Result {
  const result = decoded(() => decodeResult(bytes));
  if (isRejection(result)) throw unexpected(`an unreadable result (${result.code})`, NOT_THE_STORE);
  return result;
}

const NOT_THE_STORE = ", or does this cluster run another service than the key-value store";

export function unexpected(what: string, orElse = ""): QuorateError {
  const doubt = `are client and servers of one version${orElse}?`;
  return new QuorateError("DECODE_FAILED", `the cluster answered ${what}; ${doubt}`);
}

/** The error for a result that is not one of those the command can have. */
export function refusal(result: Result): QuorateError {
  if (result.type !== "refused") return unexpected(`"${result.type}" to another command`, NOT_THE_STORE);
  const { code, message } = result;
  if (REFUSAL_CODES.has(code)) return new QuorateError(code as ErrorCode, message);
  return new QuorateError("REFUSED", `${message} (${code})`, { reason: code });
}

/** How every such refusal begins: its encoding up to the message. */
const CROWDED_OUT = encodeResult({ type: "refused", code: "BUSY", message: "" }).slice(0, -1);

/** A read that the results before it in its bundle left no room for. */
export function crowdedOut(bytes: Uint8Array): boolean {
  return CROWDED_OUT.every((byte, index) => bytes[index] === byte);
}
