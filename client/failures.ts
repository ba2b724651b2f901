/** The errors a call ends with, from what is known about it. Pure. */
import { type ErrorCode, QuorateError } from "../protocol/errors.ts";
import type { View } from "../protocol/view.ts";
import type { Call } from "./call.ts";
import { ASK_OUTCOME, type RequestId, UnknownOutcomeError } from "./errors.ts";
import type { EndStatus } from "./verdict.ts";

/** What the session knows about the cluster when a call fails. */
export interface Reach {
  /** Replicas connected now. */
  readonly have: number;
  /** The quorum. */
  readonly need: number;
  /** One line about those that are not connected, or "". */
  readonly missing: string;
}

function requestIdOf(call: Call): RequestId | null {
  const { entry, index } = call;
  return entry === null ? null : { session: entry.session, sequence: entry.sequence, index };
}

/** A write that was sent: its outcome is unknown from now on. */
function sentWrite(call: Call): RequestId | null {
  return call.lane === "write" ? requestIdOf(call) : null;
}

export function timedOut(call: Call, reach: Reach): QuorateError {
  const { have, need, missing } = reach;
  if (call.lane === "local") {
    const message = `timed out: none of the ${have} replicas connected answered a local read${missing}; try again`;
    return new QuorateError("TIMEOUT", message, { have });
  }
  if (call.lane === "administer" && call.entry !== null) {
    const message = "timed out: no quorum answered; the statement may be executed yet: look before signing another";
    return new QuorateError("UNKNOWN_OUTCOME", message, { have, need, outcome: "unknown" });
  }
  const short = have < need;
  const why = short ? `${have} of the ${need} replicas needed are connected${missing}` : "no quorum answered in time";
  const requestId = sentWrite(call);
  if (requestId !== null) {
    const code = short ? "QUORUM_UNAVAILABLE" : "UNKNOWN_OUTCOME";
    return new UnknownOutcomeError(code, `timed out: ${why}; ${ASK_OUTCOME}`, { requestId, detail: { have, need } });
  }
  const detail = call.lane === "write" ? { have, need, outcome: "not-sent" } : { have, need };
  return new QuorateError(short ? "QUORUM_UNAVAILABLE" : "TIMEOUT", `timed out: ${why}; try again`, detail);
}

/** The caller's signal fired, or the connection was closed under the call. */
export function interrupted(call: Call, code: "ABORTED" | "CLOSED", cause: unknown): QuorateError {
  const what = code === "ABORTED" ? "aborted by the caller's signal" : "the connection was closed";
  const requestId = sentWrite(call);
  if (requestId !== null) return new UnknownOutcomeError(code, `${what}; ${ASK_OUTCOME}`, { requestId, cause });
  return new QuorateError(code, what, call.lane === "write" ? { outcome: "not-sent" } : {}, cause);
}

export function lostSession(call: Call, status: "SESSION_EXPIRED" | "WINDOW_FULL" | "ACKED"): QuorateError {
  const requestId = requestIdOf(call);
  const message = `the cluster answered ${status}: whether the write was executed is unknown; ${ASK_OUTCOME}`;
  if (requestId === null) return new QuorateError(status, message);
  return new UnknownOutcomeError("UNKNOWN_OUTCOME", message, { requestId, detail: { status } });
}

export function resultGone(call: Call): QuorateError {
  const requestId = requestIdOf(call);
  const message = "the write was executed, but its result is no longer kept; read the key to see its revision";
  if (requestId === null) return new QuorateError("UNKNOWN_OUTCOME", message);
  return new UnknownOutcomeError("UNKNOWN_OUTCOME", message, { requestId, outcome: "executed" });
}

const ENDED: Readonly<Record<EndStatus, string>> = {
  SEQUENCE_CONFLICT: "another process used the same session and sequence; it was not executed: try again",
  DEADLINE: "its deadline passed before it was ordered; it was not executed",
  CANCELLED: "it was cancelled by outcome() before it was executed, and never will be",
  WINDOW_FULL: "too many unresolved requests in this session",
  ACKED: "the session had already given this sequence up",
};

export function endedWith(status: EndStatus): QuorateError {
  return new QuorateError(status, ENDED[status], { outcome: "not-executed" });
}

export function refusedBy(call: Call, reason: string): QuorateError {
  const detail = { reason, ...(sentWrite(call) ? { requestId: sentWrite(call), outcome: "unknown" } : {}) };
  if (reason === "NOT_PERMITTED") {
    const message = "this client has no rights, or none any more; ask an administrator for a grant (kv client grant)";
    return new QuorateError("NOT_PERMITTED", message, detail);
  }
  if (reason === "NOT_ADMINISTRATOR") {
    const message = "the statement lacks signatures of this cluster's administrators, as many as its threshold says";
    return new QuorateError("NOT_ADMINISTRATOR", `${message}; sign with more of their keys`, detail);
  }
  if (call.lane === "local") return new QuorateError("REFUSED", `the replica asked refused: ${reason}`, detail);
  return new QuorateError("REFUSED", `a quorum refused the request: ${reason}`, detail);
}

/** Keys of too few administrators, or of others, for the view that is known. */
export function notAdministrators(
  { administratorThreshold: need }: View,
  given: number,
  cause?: unknown,
): QuorateError {
  const message = `it takes ${need} of the cluster's administrators' keys, and no others; given: ${given}`;
  const todo = "name their key files with --admin-key";
  return new QuorateError("NOT_ADMINISTRATOR", `${message}; ${todo}`, { have: given, need }, cause);
}

export function undecodable(call: Call, what: string): QuorateError {
  const code: ErrorCode = "DECODE_FAILED";
  return new QuorateError(
    code,
    `the cluster's answer cannot be read: ${what}; are client and servers of one version?`,
    {
      ...(sentWrite(call) ? { requestId: sentWrite(call), outcome: "executed" } : {}),
    },
  );
}
