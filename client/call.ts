/** What a caller waits for (`Call`), and the request that carries it (`InFlight`), as the session's tables hold them. */
import type { Digest } from "../protocol/bytes.ts";
import type { RequestKind } from "../protocol/request.ts";
import type { RequestProof } from "./credentials.ts";
import type { Votes } from "./quorum.ts";
import type { ReplicaReply } from "./replica-reply.ts";

/**
 * How a command travels: `write` and `read` are ordered, in requests of their own (a read can be issued again, a write
 * must not be); `query` is unordered first; `local` is unordered at one replica, whose word is enough; `resolve` is a
 * RESOLVE; `administer` is a statement of administrators, which stands for itself: it may travel any number of times.
 */
export type Lane = "write" | "read" | "query" | "local" | "resolve" | "administer";

/** Numbered apart: replicas never execute them in the session. */
export function isUnordered(lane: Lane): boolean {
  return lane === "query" || lane === "local";
}

export const LANE_KINDS: Readonly<Record<Lane, RequestKind>> = {
  write: "ordered",
  read: "ordered",
  query: "unordered",
  local: "unordered",
  resolve: "resolve",
  administer: "administer",
};

/** One command and its caller's promise. `done` once the promise is settled. */
export interface Call {
  readonly command: Uint8Array;
  lane: Lane;
  /** Milliseconds since 1970 in batch time, 0 for none. */
  readonly deadlineMs: number;
  /** On the monotonic clock. */
  readonly timeoutAt: number;
  readonly settle: (result: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
  /** True of a read's result that says: the results before it in the bundle left no room, ask again. */
  readonly crowdedOut: ((result: Uint8Array) => boolean) | null;
  /** Every replica is to send a large result in full, instead of one of them in full and the others its digest. */
  readonly everybody: boolean;
  /** Hears every verified reply to the request it travels in. */
  readonly onReply: ((reply: ReplicaReply) => void) | null;
  /** Of a RESOLVE for one of our own requests: that request. */
  readonly target: InFlight | null;
  done: boolean;
  /** The request it was sent in, and its place there. */
  entry: InFlight | null;
  index: number;
  signal: AbortSignal | null;
  onAbort: (() => void) | null;
}

/**
 * One request. Invariants: 1. `bytes` and `digest` never change: a retry resends the same request. 2. `open` counts the
 * calls not done. 3. an `abandoned` request (a write nobody waits for) is not resent and holds back `ackedBelow`.
 */
export interface InFlight {
  readonly lane: Lane;
  readonly session: number;
  readonly sequence: number;
  readonly ackedBelow: number;
  readonly bytes: Uint8Array;
  readonly digest: Digest;
  readonly calls: readonly Call[];
  /** Callers of `outcome()` for this very request. */
  readonly waiters: Call[];
  /** Of the view it is proved for. */
  votes: Votes;
  readonly sentAt: number;
  proof: RequestProof;
  /** Position of the member asked for the full result; `everybody`: all are. */
  replier: number;
  readonly everybody: boolean;
  attempts: number;
  resendAt: number;
  timeoutAt: number;
  open: number;
  abandoned: boolean;
  /** The RESOLVE on its way for this request. */
  resolver: Call | null;
}
