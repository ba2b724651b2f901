/**
 * Errors of the SDK: `QuorateError` with a stable code, and two subclasses whose detail callers branch on. docs/errors.md
 * explains every code.
 */
import { type ErrorCode, QuorateError } from "../protocol/errors.ts";

export { type ErrorCode, QuorateError };

/** Names one command of this client for ever: what `Kv.outcome` asks about. */
export interface RequestId {
  readonly session: number;
  readonly sequence: number;
  /** Position of the command in its bundle. Absent: 0. */
  readonly index?: number;
}

/** A condition failed; nothing was written. Code CONFLICT. */
export class ConflictError extends QuorateError {
  override name = "ConflictError";
  /** The key's modRevision now; 0n when the key is absent. Also `detail.revision`. */
  readonly revision: bigint;

  constructor(revision: bigint) {
    const now = revision === 0n ? "the key is absent" : `the key is at revision ${revision}`;
    super("CONFLICT", `the condition failed: ${now}; read it and decide again`, { revision });
    this.revision = revision;
  }
}

/** What a program does about an unknown outcome, as messages say it. `kv` says something else: its users hold no `error`. */
export const ASK_OUTCOME = "ask with outcome(error.requestId) before writing again";

/**
 * A write was sent and its result is not known: it may have been executed, may be executed later, or never. Ask with
 * `kv.outcome(error.requestId)`. Codes: UNKNOWN_OUTCOME (time-out, session or window lost), QUORUM_UNAVAILABLE (fewer
 * than a quorum connected at the time-out), ABORTED (the signal), CLOSED (`kv.close()`).
 */
export class UnknownOutcomeError extends QuorateError {
  override name = "UnknownOutcomeError";
  readonly requestId: RequestId;
  /** "executed": it was executed, but its result is gone at every replica. */
  readonly outcome: "unknown" | "executed";

  constructor(
    code: ErrorCode,
    message: string,
    options: {
      requestId: RequestId;
      outcome?: "unknown" | "executed";
      detail?: Readonly<Record<string, unknown>>;
      cause?: unknown;
    },
  ) {
    const { requestId, outcome = "unknown", detail, cause } = options;
    super(code, message, { ...detail, outcome, requestId }, cause);
    this.requestId = requestId;
    this.outcome = outcome;
  }
}
