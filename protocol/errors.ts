/**
 * The three kinds of error, never mixed (ARCHITECTURE.md, "Errors"):
 * our bug (`InvariantViolation`), an operating error (`QuorateError` with a stable code), and a fault of
 * a peer or client (`Rejection`, returned and never thrown across a module's border).
 */

/** A broken invariant of our own: only the driver's top sees it, and the process ends. */
export class InvariantViolation extends Error {
  override name = "InvariantViolation";
}

/** @throws InvariantViolation when `condition` is false. Never reachable from bytes of a peer or client. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantViolation(message);
}

/** Closes a `switch` over a discriminated union: the compiler proves that no case is missing. */
export function assertNever(value: never): never {
  throw new InvariantViolation(`unexpected variant: ${String(value)}`);
}

/** Every code that a caller of the SDK, the command line or a server operator can meet; docs/errors.md explains each. */
export type ErrorCode =
  // outcomes of a request
  | "CONFLICT"
  | "SEQUENCE_CONFLICT"
  | "DEADLINE"
  | "WINDOW_FULL"
  | "ACKED"
  | "CANCELLED"
  | "SESSION_EXPIRED"
  | "UNKNOWN_OUTCOME"
  | "ABORTED"
  | "TIMEOUT"
  | "QUORUM_UNAVAILABLE"
  | "REFUSED"
  | "NOT_PERMITTED"
  | "NOT_ADMINISTRATOR"
  | "BUSY"
  // input
  | "INVALID_ARGUMENT"
  | "KEY_EMPTY"
  | "KEY_TOO_LARGE"
  | "VALUE_TOO_LARGE"
  | "REQUEST_TOO_LARGE"
  | "DECODE_FAILED"
  | "CLOSED"
  // configuration and start
  | "CONFIG_MISSING"
  | "CONFIG_INVALID"
  | "CLUSTER_MISMATCH"
  | "KEY_FILE_UNREADABLE"
  | "KEY_FILE_PERMISSIONS"
  | "KEY_FILE_INVALID"
  | "REPLICA_RETIRED"
  | "DIRECTORY_EXISTS"
  | "PORT_IN_USE"
  // storage
  | "STORAGE_LOCKED"
  | "STORAGE_UNFOUNDED"
  | "STORAGE_DAMAGED"
  | "STORAGE_FORMAT"
  | "STORAGE_FULL"
  | "STORAGE_FAILED"
  // snapshot files
  | "SNAPSHOT_INVALID";

/** An operating error: a stable `code`, a one-line message with what to do, typed detail, and its `cause`. */
export class QuorateError extends Error {
  override name = "QuorateError";
  readonly code: ErrorCode;
  readonly detail: Readonly<Record<string, unknown>>;
  constructor(code: ErrorCode, message: string, detail: Readonly<Record<string, unknown>> = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.detail = detail;
  }
}

/** Why bytes of a peer or client were not taken. `punish` closes its connection, `ignore` only counts. */
export interface Rejection {
  readonly rejected: true;
  readonly action: "ignore" | "punish";
  /** UPPER_SNAKE code, used as a metric label: a fixed, small set. */
  readonly code: string;
}

export function reject(action: Rejection["action"], code: string): Rejection {
  return { rejected: true, action, code };
}

export function isRejection(value: unknown): value is Rejection {
  return typeof value === "object" && value !== null && (value as Rejection).rejected === true;
}

/** Thrown by decoders on malformed bytes, inside protocol/ only: `decoded()` turns it into a `Rejection`. */
export class Malformed extends Error {
  override name = "Malformed";
  readonly code: string;
  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/** Runs a decoder; malformed bytes become a `Rejection { action: "punish" }`, anything else is our bug and passes on. */
export function decoded<T>(decode: () => T): T | Rejection {
  try {
    return decode();
  } catch (error) {
    if (error instanceof Malformed) return reject("punish", error.code);
    throw error;
  }
}
