/**
 * The replicated client table: which sequences were executed, cancelled or finished, so that every request is executed
 * exactly once (docs/protocol.md section 3, "Clients, sessions, exactly once"). Deterministic: a pure function of the
 * requests judged, in order, and their batch times.
 *
 * Invariants: 1. a sequence executed or cancelled is remembered until its session's base passes it or its session goes.
 * 2. a session that went is at or below its client's watermark or the floor and never opens again. 3. every number and
 * byte kept per client is bounded by `ClientTableLimits`.
 *
 * What the protocol's text leaves open is settled so:
 * - **A request's own ackedBelow counts before it is judged**, whatever becomes of the request, in a live session. Else a
 *   client whose 1,024 sequences are all executed could never say so: the request that carries the news would itself be
 *   WINDOW_FULL. It is safe because only the client can say it, and says it about replies it holds; since every judged
 *   request raises the base, the base lags a correct client's own by less than one window.
 * - A session that is opened stays open when its first request turns out WINDOW_FULL or DEADLINE.
 * - *Last execution* of a session is the instance that opened it or last executed or cancelled a sequence of it.
 * - A client is *used* by any request judged in a live session, duplicates included.
 */
import { bytesOf, type Digest, EMPTY, utf8 } from "../../protocol/bytes.ts";
import { REPLY_STATUSES, type ReplyStatus } from "../../protocol/client-frames.ts";
import { encodeResolution, type Resolution } from "../../protocol/commands.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { assert, Malformed } from "../../protocol/errors.ts";
import {
  CACHED_REPLIES_BYTES_MAX,
  CACHED_REPLY_BYTES_MAX,
  CLIENT_IDLE_MS_MAX,
  SESSION_AHEAD_MS_MAX,
  SESSION_WINDOW,
  SESSIONS_MAX,
} from "../../protocol/limits.ts";
import { decodeResolve, type Request, type ResolveTarget } from "../../protocol/request.ts";
import {
  type Answer,
  type BatchPlace,
  type Client,
  type Executed,
  newClient,
  newExecuted,
  newSession,
  numberKey,
  type Session,
} from "./client-records.ts";
import { ClientStore } from "./client-store.ts";
import type { ReplicatedState } from "./state.ts";

/** Replicated constants: the same on every replica of a cluster. */
export interface ClientTableLimits {
  /** Clients in the table; a new one beyond is REFUSED. */
  readonly maxClients: number;
  /** Live sessions of one client. */
  readonly sessionsMax: number;
  /** Sequences from a session's base on that may be executed. */
  readonly sessionWindow: number;
  /** How far a session number may lie ahead of batch time, in milliseconds. */
  readonly sessionAheadMsMax: number;
  /** A client not used for more than this many milliseconds of batch time is dropped. */
  readonly clientIdleMsMax: number;
  /** A result of more bytes is not cached. */
  readonly cachedReplyBytesMax: number;
  /** Bytes of cached results per client. */
  readonly cachedRepliesBytesMax: number;
}

export const CLIENT_TABLE_LIMITS: Omit<ClientTableLimits, "maxClients"> = {
  sessionsMax: SESSIONS_MAX,
  sessionWindow: SESSION_WINDOW,
  sessionAheadMsMax: SESSION_AHEAD_MS_MAX,
  clientIdleMsMax: CLIENT_IDLE_MS_MAX,
  cachedReplyBytesMax: CACHED_REPLY_BYTES_MAX,
  cachedRepliesBytesMax: CACHED_REPLIES_BYTES_MAX,
};

/** Reasons in the result of a REFUSED answer. */
export type RefusalReason =
  | "SESSION_AHEAD"
  | "CLIENTS_FULL"
  | "CLUSTER_MISMATCH"
  | "INVALID_ARGUMENT"
  | "NOT_PERMITTED";

/** Outcome of a judgement: an answer, or the live session in which the request shall now be executed. */
export type Judgement =
  | { readonly execute: true; readonly session: Session }
  | { readonly execute: false; readonly answer: Answer };

type Opened = { readonly session: Session } | { readonly answer: Answer };

/** As it stands in a resolution. */
const OK = REPLY_STATUSES.indexOf("OK");
const NO_REQUEST = "\0".repeat(32) as Digest;

export class ClientTable {
  readonly #crypto: Crypto;
  readonly #limits: ClientTableLimits;
  readonly #emptyDigest: Digest;
  readonly #store: ClientStore;

  constructor(crypto: Crypto, limits: ClientTableLimits) {
    this.#crypto = crypto;
    this.#limits = limits;
    this.#emptyDigest = crypto.sha256(EMPTY);
    this.#store = new ClientStore();
  }

  /** Clients in the table. */
  get size(): number {
    return this.#store.clients.size;
  }

  /** One stored entry; all of them in key order, before anything else. @throws Malformed */
  load(key: string, value: Uint8Array): void {
    this.#store.load(key, value);
  }

  /** Writes what changed since the last call into the state, to go with the group about to be taken. */
  writeChanges(state: ReplicatedState): void {
    this.#store.writeChanges(state);
  }

  /** Drops idle clients at the start of a batch: nothing in it can use them any more. */
  beginBatch(timestampMs: number): void {
    this.#store.dropIdle(timestampMs, this.#limits.clientIdleMsMax);
  }

  /** Decides an ordered request at execution. When it is to be executed, `record` must follow. */
  judge(request: Request, place: BatchPlace): Judgement {
    const opened = this.#sessionFor(request.client, request.session, place);
    if ("answer" in opened) return { execute: false, answer: opened.answer };
    const { session } = opened;
    this.#store.used(session.client, place.timestampMs);
    this.#store.raiseBase(session, request.ackedBelow);
    const { instance } = place;
    if (request.sequence < session.base) return this.#final("ACKED", instance);
    const earlier = session.executed.get(request.sequence);
    if (earlier) return { execute: false, answer: this.#again(earlier, request, instance) };
    if (request.sequence >= session.base + this.#limits.sessionWindow) return this.#final("WINDOW_FULL", instance);
    if (pastDeadline(request, place)) return this.#final("DEADLINE", instance);
    return { execute: true, session };
  }

  /** Remembers the result of a request that `judge` let through. */
  record(session: Session, request: Request, place: BatchPlace, result: Uint8Array): Answer {
    const { sequence, digest } = request;
    const { instance, index } = place;
    const resultDigest = this.#crypto.sha256(result);
    const cached = result.length > this.#limits.cachedReplyBytesMax ? null : result;
    const status = "OK";
    const fields = { sequence, status, digest, resultDigest, result: cached, instance, index } as const;
    this.#store.add(newExecuted(session, fields));
    this.#store.dropReplies(session.client, this.#limits.cachedRepliesBytesMax);
    return { status, instance, resultDigest, result };
  }

  /**
   * Decides a RESOLVE: what became of `target`, which is cancelled for ever unless it was executed. The request's own
   * session and sequence only name its reply: none is opened or consumed, and judging it again changes nothing. Its
   * ackedBelow counts if its session is live.
   *
   * - Executed or cancelled before: that. Below the base: `unknown`, the client said it was finished with it.
   * - Not executed, up to two windows from the base: cancelled. One window is what can be executed; the base here may lag
   *   the client's own by almost another, so this covers whatever a correct client can have sent. Beyond: `unknown`, as
   *   marks without a bound would be memory without a bound.
   * - A session never seen is opened for the mark, under the rules of any first request: a delayed request of it then
   *   finds itself cancelled. A session gone, expired: `unknown`.
   */
  resolve(request: Request, place: BatchPlace): Answer {
    const target = readTarget(request);
    if (target === null) return this.refusal("INVALID_ARGUMENT", place.instance);
    if (pastDeadline(request, place)) return this.#answer("DEADLINE", place.instance, EMPTY);
    const own = this.#store.session(request.client, request.session);
    if (own) {
      this.#store.used(own.client, place.timestampMs);
      this.#store.raiseBase(own, request.ackedBelow);
    }
    const live = this.#store.session(request.client, target.session);
    const base = live?.base ?? 1;
    if (target.sequence >= base + 2 * this.#limits.sessionWindow) return this.#resolution({ type: "unknown" }, place);
    const opened = live ? { session: live } : this.#sessionFor(request.client, target.session, place);
    if ("answer" in opened) {
      return opened.answer.status === "SESSION_EXPIRED" ? this.#resolution({ type: "unknown" }, place) : opened.answer;
    }
    this.#store.used(opened.session.client, place.timestampMs);
    return this.#resolution(this.#resolveIn(opened.session, target.sequence, place), place);
  }

  /**
   * What an ordered request would certainly be answered now and at any later time, or null when it must be ordered.
   * Changes nothing. Expired sessions, finished and executed sequences stay so: the answer can only become less helpful.
   */
  lookup(request: Request, instance: number): Answer | null {
    const client = this.#store.clients.get(request.client);
    const session = client?.sessions.get(request.session);
    if (!session) {
      const expired = this.#expiredBelow(client);
      return request.session <= expired ? this.#sessionExpired(expired, instance) : null;
    }
    if (request.sequence < session.base) return this.#answer("ACKED", instance, EMPTY);
    const earlier = session.executed.get(request.sequence);
    return earlier ? this.#again(earlier, request, instance) : null;
  }

  /** A revoked client makes room. Its sessions never open again, like those of an idle one. */
  forget(id: Digest): void {
    const client = this.#store.clients.get(id);
    if (client) this.#store.drop(client);
  }

  /** What the client table does not judge: answered with these bytes. */
  answerOf(result: Uint8Array, instance: number): Answer {
    return this.#answer("OK", instance, result);
  }

  refusal(reason: RefusalReason, instance: number): Answer {
    return this.#answer("REFUSED", instance, utf8(reason));
  }

  #resolveIn(session: Session, sequence: number, place: BatchPlace): Resolution {
    const earlier = session.executed.get(sequence);
    if (earlier?.status === "CANCELLED") return { type: "cancelled" };
    if (earlier?.result) return { type: "replied", status: OK, results: earlier.result };
    if (earlier) return { type: "executed" };
    if (sequence < session.base) return { type: "unknown" };
    const { instance, index } = place;
    const resultDigest = this.#emptyDigest;
    const fields = { sequence, status: "CANCELLED", digest: NO_REQUEST, resultDigest, result: EMPTY } as const;
    this.#store.add(newExecuted(session, { ...fields, instance, index }));
    return { type: "cancelled" };
  }

  /** The live session, or a new one; an answer when it may not be opened. */
  #sessionFor(id: Digest, number: number, place: BatchPlace): Opened {
    const known = this.#store.clients.get(id);
    const live = known?.sessions.get(number);
    if (live) return { session: live };
    const expired = this.#expiredBelow(known);
    if (number <= expired) return { answer: this.#sessionExpired(expired, place.instance) };
    const { sessionAheadMsMax, maxClients, sessionsMax } = this.#limits;
    if (number > (place.timestampMs + sessionAheadMsMax) * 1000) {
      return { answer: this.refusal("SESSION_AHEAD", place.instance) };
    }
    if (!known && this.size >= maxClients) return { answer: this.refusal("CLIENTS_FULL", place.instance) };
    const session = newSession(known ?? newClient(id), number);
    this.#store.open(session, place);
    if (session.client.sessions.size > sessionsMax) this.#store.evict(longestUnused(session.client, session));
    return { session };
  }

  /** Numbers up to this one do not open a session of the client any more. */
  #expiredBelow(client: Client | undefined): number {
    return Math.max(client?.watermark ?? 0, this.#store.floor);
  }

  /** The answer for a sequence that the table holds. */
  #again(earlier: Executed, request: Request, instance: number): Answer {
    if (earlier.status === "CANCELLED" || earlier.digest === request.digest) return earlier;
    return this.#answer("SEQUENCE_CONFLICT", instance, EMPTY);
  }

  #final(status: ReplyStatus, instance: number): Judgement {
    return { execute: false, answer: this.#answer(status, instance, EMPTY) };
  }

  #sessionExpired(watermark: number, instance: number): Answer {
    return this.#answer("SESSION_EXPIRED", instance, bytesOf(numberKey(watermark)));
  }

  #resolution(resolution: Resolution, place: BatchPlace): Answer {
    return this.#answer("OK", place.instance, new Uint8Array(encodeResolution(resolution)));
  }

  #answer(status: ReplyStatus, instance: number, result: Uint8Array): Answer {
    const resultDigest = result.length === 0 ? this.#emptyDigest : this.#crypto.sha256(result);
    return { status, instance, resultDigest, result };
  }
}

function pastDeadline(request: Request, place: BatchPlace): boolean {
  return request.deadlineMs !== 0 && place.timestampMs > request.deadlineMs;
}

/** The session other than `opened` whose last execution is oldest: by instance, then by number. */
function longestUnused(client: Client, opened: Session): Session {
  let oldest: Session | null = null;
  for (const session of client.sessions.values()) {
    if (session === opened) continue;
    const older =
      oldest === null ||
      session.lastInstance < oldest.lastInstance ||
      (session.lastInstance === oldest.lastInstance && session.number < oldest.number);
    if (older) oldest = session;
  }
  assert(oldest, "a client with too many sessions has one to evict");
  return oldest;
}

/** The target of a RESOLVE, or null when its one command is none. */
function readTarget(request: Request): ResolveTarget | null {
  const command = request.commands[0];
  if (command === undefined) return null;
  try {
    const target = decodeResolve(command);
    return target.session === 0 || target.sequence === 0 ? null : target;
  } catch (error) {
    if (error instanceof Malformed) return null;
    throw error;
  }
}
