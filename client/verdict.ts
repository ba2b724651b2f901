/**
 * When a request ends and how (docs/protocol.md section 3), as pure functions of the verified votes. Nothing here ends
 * on fewer than `view.quorum` equal votes; advice (BUSY, MUST_SIGN) counts from `view.weakQuorum` on, because then one
 * correct replica gives it.
 */
import { textOf } from "../protocol/bytes.ts";
import type { Reply, ReplyStatus } from "../protocol/client-frames.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assertNever, decoded, isRejection } from "../protocol/errors.ts";
import { Reader } from "../protocol/layout.ts";
import type { View } from "../protocol/view.ts";
import { credibleMaximum, type Votes } from "./quorum.ts";

/** Statuses that end a request without a result. */
export type EndStatus = "SEQUENCE_CONFLICT" | "DEADLINE" | "CANCELLED" | "WINDOW_FULL" | "ACKED";

export type Verdict =
  | { readonly type: "wait" }
  /** A quorum agrees on a result whose bytes nobody has sent intact yet. */
  | { readonly type: "bytesMissing" }
  | { readonly type: "result"; readonly result: Uint8Array }
  /** Executed, and at least one correct replica no longer has the result. */
  | { readonly type: "gone" }
  | { readonly type: "ended"; readonly status: EndStatus }
  | { readonly type: "expired"; readonly watermark: number }
  | { readonly type: "refused"; readonly reason: string }
  | { readonly type: "busy" }
  | { readonly type: "mustSign" }
  /** Unordered only: no quorum can come about any more. */
  | { readonly type: "reorder" }
  /** Local reads only: this replica cannot answer now. */
  | { readonly type: "elsewhere" };

const WAIT: Verdict = { type: "wait" };
const BYTES_MISSING: Verdict = { type: "bytesMissing" };
const GONE: Verdict = { type: "gone" };
const BUSY: Verdict = { type: "busy" };
const MUST_SIGN: Verdict = { type: "mustSign" };
const REORDER: Verdict = { type: "reorder" };
const ELSEWHERE: Verdict = { type: "elsewhere" };

/** Advice of single replicas; a resend asks for it anew. */
export const ADVICE: ReadonlySet<ReplyStatus> = new Set([
  "BUSY",
  "MUST_SIGN",
  "NEWER_VIEW",
  "REFUSED",
  "NOT_READY",
] as const);

export interface Judge {
  readonly crypto: Crypto;
  readonly view: View;
  readonly votes: Votes;
}

/** After `reply` was added to the votes on an ordered request or a RESOLVE. */
export function judgeOrdered(judge: Judge, reply: Reply): Verdict {
  const { view, votes } = judge;
  const { status } = reply;
  switch (status) {
    case "OK":
      return votes.count(status, reply.resultDigest) >= view.quorum ? resultOf(judge, reply) : WAIT;
    case "SEQUENCE_CONFLICT":
    case "DEADLINE":
    case "CANCELLED":
    case "WINDOW_FULL":
    case "ACKED":
      return votes.count(status, reply.resultDigest) >= view.quorum ? { type: "ended", status } : WAIT;
    case "SESSION_EXPIRED":
      return votes.countStatus(status) >= view.quorum ? { type: "expired", watermark: watermarkOf(judge) } : WAIT;
    case "REFUSED":
      return votes.count(status, reply.resultDigest) >= view.quorum
        ? { type: "refused", reason: reasonOf(judge, reply) }
        : WAIT;
    case "BUSY":
      return votes.countStatus(status) >= view.weakQuorum ? BUSY : WAIT;
    case "MUST_SIGN":
      return votes.countStatus(status) >= view.weakQuorum ? MUST_SIGN : WAIT;
    case "NEWER_VIEW":
    case "NOT_READY":
      return WAIT;
    default:
      return assertNever(status);
  }
}

/** After `reply` was added to the votes on an unordered request that `pending` more members may still answer. */
export function judgeUnordered(judge: Judge, reply: Reply, pending: number): Verdict {
  const { view, votes } = judge;
  if (reply.status === "OK" && votes.count("OK", reply.resultDigest) >= view.quorum) {
    const verdict = resultOf(judge, reply);
    return verdict.type === "result" || pending > 0 ? verdict : REORDER;
  }
  if (reply.status === "MUST_SIGN" && votes.countStatus("MUST_SIGN") >= view.weakQuorum) return MUST_SIGN;
  if (reply.status === "BUSY" && votes.countStatus("BUSY") >= view.weakQuorum) return BUSY;
  return votes.okPossible(view.quorum, pending) ? WAIT : REORDER;
}

/** The word of the one replica that was asked for a local read: nobody vouches for it. */
export function judgeLocal({ crypto }: Pick<Judge, "crypto">, reply: Reply): Verdict {
  switch (reply.status) {
    case "OK":
      if (reply.body !== "full" || crypto.sha256(reply.result) !== reply.resultDigest) return ELSEWHERE;
      return { type: "result", result: reply.result };
    case "REFUSED":
      return { type: "refused", reason: textOf(reply.result.subarray(0, 256)) ?? "unknown" };
    default:
      return ELSEWHERE;
  }
}

/** The bytes the quorum vouches for. A body that contradicts its header is dropped; its member's vote stays. */
function resultOf({ crypto, view, votes }: Judge, reply: Reply): Verdict {
  const { status, resultDigest } = reply;
  for (;;) {
    const at = votes.fullAt(status, resultDigest);
    if (at < 0) break;
    const result = votes.at(at)?.result;
    if (result !== undefined && crypto.sha256(result) === resultDigest) return { type: "result", result };
    votes.dropBody(at);
  }
  return votes.countGone(status, resultDigest) >= view.weakQuorum ? GONE : BYTES_MISSING;
}

function watermarkOf({ crypto, view, votes }: Judge): number {
  const claims: number[] = [];
  for (const reply of votes.full("SESSION_EXPIRED")) {
    if (crypto.sha256(reply.result) !== reply.resultDigest) continue;
    const claim = decoded(() => {
      const reader = new Reader(reply.result);
      const watermark = reader.u53();
      reader.end();
      return watermark;
    });
    if (!isRejection(claim)) claims.push(claim);
  }
  return credibleMaximum(view, claims);
}

function reasonOf({ crypto, votes }: Judge, { resultDigest }: Reply): string {
  for (const reply of votes.full("REFUSED")) {
    if (reply.resultDigest !== resultDigest || crypto.sha256(reply.result) !== resultDigest) continue;
    return textOf(reply.result.subarray(0, 256)) ?? "unknown";
  }
  return "unknown";
}
