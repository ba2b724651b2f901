/**
 * How the process ends: 0 ok, 1 key not found, 2 bad usage or input, 3 no quorum or timeout, 4 refused by the cluster.
 * Guarantees: every way to fail prints one line that says what to do, never a stack trace; an error with a stable code names it.
 */
import { CommanderError } from "commander";
import { ASK_OUTCOME } from "../client/errors.ts";
import { type ErrorCode, QuorateError } from "../protocol/errors.ts";

export const EXIT = {
  OK: 0,
  NOT_FOUND: 1,
  USAGE: 2,
  UNAVAILABLE: 3,
  REFUSED: 4,
  /** A defect in kv itself (EX_SOFTWARE). */
  DEFECT: 70,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** A command that ends with a code after saying what it has to say; `message`, when not empty, goes to stderr. */
export class CommandExit extends Error {
  override name = "CommandExit";
  readonly exitCode: ExitCode;
  constructor(exitCode: ExitCode, message = "") {
    super(message);
    this.exitCode = exitCode;
  }
}

/** Wrong usage or input, found by the command itself. */
export function usageError(message: string): CommandExit {
  return new CommandExit(EXIT.USAGE, message);
}

const EXIT_OF_CODE: Readonly<Record<ErrorCode, ExitCode>> = {
  CONFLICT: EXIT.REFUSED,
  SEQUENCE_CONFLICT: EXIT.REFUSED,
  WINDOW_FULL: EXIT.REFUSED,
  ACKED: EXIT.REFUSED,
  CANCELLED: EXIT.REFUSED,
  SESSION_EXPIRED: EXIT.REFUSED,
  REFUSED: EXIT.REFUSED,
  NOT_PERMITTED: EXIT.REFUSED,
  NOT_ADMINISTRATOR: EXIT.REFUSED,
  STORAGE_FULL: EXIT.REFUSED,
  DEADLINE: EXIT.UNAVAILABLE,
  UNKNOWN_OUTCOME: EXIT.UNAVAILABLE,
  ABORTED: EXIT.UNAVAILABLE,
  TIMEOUT: EXIT.UNAVAILABLE,
  QUORUM_UNAVAILABLE: EXIT.UNAVAILABLE,
  BUSY: EXIT.UNAVAILABLE,
  CLOSED: EXIT.UNAVAILABLE,
  INVALID_ARGUMENT: EXIT.USAGE,
  KEY_EMPTY: EXIT.USAGE,
  KEY_TOO_LARGE: EXIT.USAGE,
  VALUE_TOO_LARGE: EXIT.USAGE,
  REQUEST_TOO_LARGE: EXIT.USAGE,
  DECODE_FAILED: EXIT.USAGE,
  CONFIG_MISSING: EXIT.USAGE,
  CONFIG_INVALID: EXIT.USAGE,
  CLUSTER_MISMATCH: EXIT.USAGE,
  KEY_FILE_UNREADABLE: EXIT.USAGE,
  KEY_FILE_PERMISSIONS: EXIT.USAGE,
  KEY_FILE_INVALID: EXIT.USAGE,
  REPLICA_RETIRED: EXIT.USAGE,
  DIRECTORY_EXISTS: EXIT.USAGE,
  PORT_IN_USE: EXIT.USAGE,
  STORAGE_LOCKED: EXIT.USAGE,
  STORAGE_UNFOUNDED: EXIT.USAGE,
  STORAGE_DAMAGED: EXIT.USAGE,
  STORAGE_FORMAT: EXIT.USAGE,
  STORAGE_FAILED: EXIT.USAGE,
  SNAPSHOT_INVALID: EXIT.USAGE,
};

export interface Ending {
  readonly exitCode: ExitCode;
  /** What stderr shows, one line, or empty. */
  readonly line: string;
}

/** How a thrown value ends the process. `verb` is the command that was running, for the hint of a usage error. */
export function endingOf(error: unknown, verb: string | null): Ending {
  if (error instanceof CommandExit) return { exitCode: error.exitCode, line: prefixed(error.message) };
  if (error instanceof QuorateError) return { exitCode: EXIT_OF_CODE[error.code], line: prefixed(textOf(error)) };
  if (error instanceof CommanderError) return usageEnding(error, verb);
  const { code, syscall, message } = (error ?? {}) as NodeJS.ErrnoException;
  if (error instanceof Error && code !== undefined && syscall !== undefined) {
    return { exitCode: EXIT.USAGE, line: prefixed(message) };
  }
  return { exitCode: EXIT.DEFECT, line: prefixed(`defect in kv: ${String(message ?? error)}; please report it`) };
}

/** The message, with what a person at a terminal can do where it names a call of the SDK, and the code unless it names that. */
function textOf({ message, code }: QuorateError): string {
  const text = message.replace(ASK_OUTCOME, "the write may still take effect: read the key before writing again");
  return text.includes(code) ? text : `${text} [${code}]`;
}

function usageEnding(error: CommanderError, verb: string | null): Ending {
  // Help and version were asked for and are on stdout already.
  if (error.exitCode === 0) return { exitCode: EXIT.OK, line: "" };
  if (error.code === "commander.help") return { exitCode: EXIT.USAGE, line: "" };
  const help = verb === null ? "kv --help" : `kv ${verb} --help`;
  return {
    exitCode: EXIT.USAGE,
    line: prefixed(`${error.message.replace(/^error: /, "").replace(/\.$/, "")}; see ${help}`),
  };
}

function prefixed(message: string): string {
  const line = message.replace(/\s*\n\s*/g, " ").trim();
  return line === "" ? "" : `kv: ${line}`;
}
