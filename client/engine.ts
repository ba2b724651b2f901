/**
 * The request engine of one client session (docs/protocol.md section 3): numbers requests, bundles what is issued in one turn,
 * sends to every replica, resends with back-off and jitter, counts verified replies, and ends each request by the rules
 * of `verdict.ts`. Synchronous, no I/O of its own: it runs on the ports of `ports.ts`.
 *
 * Invariants: 1. a sequence is never used for two requests. 2. a write is never sent under two sequences.
 * 3. `ackedBelow` never exceeds the lowest sequence that is unfinished: waiting, or of unknown outcome. 4. every ordered
 * sequence is inside the window (`RequestTable`), else a new session is opened first. 5. votes on a request are those of
 * members of one view, on proofs for that view: another view begins them anew, for the same bytes under the same sequence.
 */
import { type Links, REPLY_STATUSES, type Reply } from "../protocol/client-frames.ts";
import type { Cluster } from "../protocol/cluster.ts";
import { decodeResolution, decodeResults, encodeResolution, type Resolution } from "../protocol/commands.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assertNever, decoded, isRejection, type QuorateError } from "../protocol/errors.ts";
import type { Identity } from "../protocol/identity.ts";
import { SESSION_WINDOW } from "../protocol/limits.ts";
import { encodeResolve, type ResolveTarget } from "../protocol/request.ts";
import type { View } from "../protocol/view.ts";
import type { ViewChain } from "../protocol/view-chain.ts";
import { type Call, type InFlight, isUnordered, type Lane } from "./call.ts";
import type { Calls } from "./calls.ts";
import { Credentials } from "./credentials.ts";
import { endedWith, interrupted, lostSession, refusedBy, resultGone, timedOut, undecodable } from "./failures.ts";
import { LaneQueue } from "./lane-queue.ts";
import { Outcomes } from "./outcomes.ts";
import type { Clock, Scheduled, Transport } from "./ports.ts";
import { heardIn } from "./replica-reply.ts";
import { Replicas } from "./replicas.ts";
import { RequestTable } from "./request-table.ts";
import { RetryPolicy } from "./retry-policy.ts";
import { Sender } from "./sender.ts";
import type { SessionNumbers } from "./session-numbers.ts";
import { type EndStatus, judgeLocal, judgeOrdered, judgeUnordered, type Verdict } from "./verdict.ts";
import { ViewFollower, type ViewStore } from "./view-follower.ts";

const TICK_MS = 50;
/** Local reads travel alone, so that one that fits no bundle's reply cannot hold up others. */
const LOCAL_IN_FLIGHT_MAX = 256;
const IN_FLIGHT_BYTES_MAX = 16 * 1024 * 1024;

export interface EngineOptions {
  /** As the cluster file describes it. */
  readonly cluster: Cluster;
  /** From its first view to the newest that is known. */
  readonly chain: ViewChain;
  readonly store: ViewStore | null;
  readonly identity: Identity;
  readonly crypto: Crypto;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly numbers: SessionNumbers;
  readonly signed: boolean;
  readonly calls: Calls;
}

export class Engine {
  readonly #options: EngineOptions;
  readonly #views: ViewFollower;
  #credentials: Credentials;
  readonly #replicas: Replicas;
  readonly #retry: RetryPolicy;
  readonly #sender: Sender;
  readonly #calls: Calls;
  readonly #table = new RequestTable();
  readonly #outcomes = new Outcomes();
  readonly #queues: Readonly<Record<Lane, LaneQueue>> = {
    write: new LaneQueue("write"),
    read: new LaneQueue("read"),
    query: new LaneQueue("query"),
    local: new LaneQueue("local"),
    resolve: new LaneQueue("resolve"),
    administer: new LaneQueue("administer"),
  };
  #number: number;
  /** The session cannot go on: a new one is opened as soon as nothing in it is unfinished. */
  #mustRoll = false;
  #flushScheduled = false;
  #timer: Scheduled | null = null;
  #closed: Promise<unknown> | null = null;

  constructor(options: EngineOptions) {
    this.#options = options;
    const { crypto, identity, transport, clock, numbers, signed, chain, store } = options;
    this.#views = new ViewFollower({ crypto, chain, store, onAdopted: (view) => this.#adopt(view) });
    const cluster = { ...options.cluster, view: chain.newest };
    const credentials = new Credentials(crypto, cluster, identity);
    const retry = new RetryPolicy(clock);
    const replicas = new Replicas({
      view: cluster.view,
      credentials,
      transport,
      clock,
      events: {
        onReady: (position) => this.#onReady(position),
        onReply: (position, reply) => this.#onReply(position, reply),
        onLinks: (links: Links) => this.#views.take(links),
        onFault: () => this.#scheduleFlush(),
      },
    });
    this.#credentials = credentials;
    this.#retry = retry;
    this.#replicas = replicas;
    this.#sender = new Sender({ cluster, crypto, credentials, replicas, retry, signed });
    this.#calls = options.calls;
    this.#number = numbers.next(clock);
    replicas.open(this.#number);
  }

  get client(): string {
    return this.#credentials.client;
  }

  get number(): number {
    return this.#number;
  }

  /** The views followed so far. */
  get chain(): ViewChain {
    return this.#views.chain;
  }

  /** The connections: their states, and `whenQuorumReady`. */
  get replicas(): Replicas {
    return this.#replicas;
  }

  /** Bytes of commands waiting to be sent in this lane. */
  queuedBytes(lane: Lane): number {
    return this.#queues[lane].bytes;
  }

  /** Queues a call for the request that leaves at the end of this turn. */
  enqueue(call: Call): void {
    this.#queues[call.lane].push(call);
    this.#scheduleFlush();
    this.#arm();
  }

  /** What became of a request, if this process knows. */
  knownOutcome(target: ResolveTarget): Resolution | undefined {
    return this.#outcomes.get(target);
  }

  /** Answers `call` with the resolution of `target`: of its own end, if others still wait for it here; else by a RESOLVE. */
  enqueueResolve(target: ResolveTarget, call: Call): void {
    const entry = target.session === this.#number ? this.#table.ordered.get(target.sequence) : undefined;
    if (entry?.lane !== "write") {
      this.enqueue(call);
      return;
    }
    entry.waiters.push(call);
    if (entry.abandoned) this.#resolveUnasked(entry);
    this.#arm();
  }

  /** Rejects what is pending with CLOSED and closes every connection. Resolves when no socket or timer is left. */
  close(): Promise<unknown> {
    if (this.#closed) return this.#closed;
    this.#closed = Promise.all([this.#replicas.close(), this.#views.saved]);
    this.#timer?.cancel();
    this.#timer = null;
    const fail = (call: Call) => this.#calls.reject(call, interrupted(call, "CLOSED", undefined));
    for (const { calls, waiters } of this.#table.reset()) for (const call of [...calls, ...waiters]) fail(call);
    for (const queue of Object.values(this.#queues)) for (const call of queue.drain()) fail(call);
    return this.#closed;
  }

  /** The caller no longer waits; the request goes on for the others in it, if any. */
  giveUp(call: Call, error: unknown): void {
    const { entry } = call;
    this.#calls.reject(call, error);
    if (entry && entry.open === 0 && !entry.abandoned) this.#abandon(entry);
  }

  #abandon(entry: InFlight): void {
    if (entry.lane === "write") {
      this.#table.abandon(entry);
      if (entry.waiters.length > 0) this.#resolveUnasked(entry);
    } else {
      this.#table.remove(entry);
    }
    this.#scheduleFlush();
  }

  /** Sends a RESOLVE for an abandoned request of this session, once. */
  #resolveUnasked(entry: InFlight): void {
    if (entry.resolver) return;
    const { session, sequence } = entry;
    const asked = { lane: "resolve", timeoutMs: Number.POSITIVE_INFINITY, target: entry } as const;
    entry.resolver = this.#calls.create(encodeResolve({ session, sequence }), asked, {
      settle: (result) => {
        const resolution = decoded(() => decodeResolution(result));
        this.#conclude(entry, isRejection(resolution) ? { type: "unknown" } : resolution);
      },
      reject: () => this.#conclude(entry, { type: "unknown" }),
    });
    this.enqueue(entry.resolver);
  }

  /** The request's outcome stands: it no longer holds back `ackedBelow`. */
  #conclude(entry: InFlight, resolution: Resolution): void {
    if (!this.#table.remove(entry)) return;
    this.#scheduleFlush();
    if (entry.lane !== "write") return;
    if (entry.open < entry.calls.length) this.#outcomes.set(entry, resolution);
    this.#tellWaiters(entry, resolution);
  }

  /** Answers those who asked for this request's outcome; a RESOLVE on its way for it is no longer needed. */
  #tellWaiters(entry: InFlight, resolution: Resolution): void {
    const { resolver, waiters } = entry;
    if (waiters.length > 0) {
      const bytes = encodeResolution(resolution);
      for (const waiter of waiters) this.#calls.settle(waiter, bytes);
    }
    if (resolver && this.#calls.detach(resolver) && resolver.entry) this.#table.remove(resolver.entry);
  }

  #scheduleFlush(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    this.#options.clock.turnEnd(this.#flush);
  }

  /** Sends what waits, a bundle per lane in turn, while there is room and a quorum to send it to. */
  readonly #flush = (): void => {
    this.#flushScheduled = false;
    if (this.#closed) return;
    const now = this.#options.clock.monotonicMs();
    if (this.#retry.paused(now)) return;
    this.#keepWindowOpen();
    const { write, read, query, local, resolve, administer } = this.#queues;
    // One replica's word is enough for these.
    while (this.#replicas.readyCount > 0 && this.#table.unordered.size < LOCAL_IN_FLIGHT_MAX && !local.empty) {
      this.#dispatch("local", local.take(), now);
    }
    if (!this.#replicas.quorumReady) {
      this.#turnedAway();
      return;
    }
    for (const call of resolve.drain()) this.#dispatch("resolve", [call], now);
    for (const call of administer.drain()) this.#dispatch("administer", [call], now);
    let sent = true;
    while (sent) {
      sent = false;
      if (this.#orderedRoom && !write.empty) sent = this.#dispatch("write", write.take(), now);
      if (this.#orderedRoom && !read.empty) sent = this.#dispatch("read", read.take(), now) || sent;
      if (this.#table.unordered.size < this.#retry.window && !query.empty) {
        sent = this.#dispatch("query", query.take(), now) || sent;
      }
    }
  };

  /** What waits for replicas that will not have this client fails at once: nothing of it was sent. */
  #turnedAway(): void {
    for (const [lane, queue] of Object.entries(this.#queues)) {
      const error = queue.empty ? null : this.#replicas.refusal(lane === "local" ? 1 : undefined);
      if (error) for (const call of queue.drain()) this.#calls.reject(call, error);
    }
  }

  get #orderedRoom(): boolean {
    const { live, liveBytes, windowUsed } = this.#table;
    return (
      !this.#mustRoll && windowUsed < SESSION_WINDOW && live < this.#retry.window && liveBytes < IN_FLIGHT_BYTES_MAX
    );
  }

  /** Requests of unknown outcome hold the window back: they are resolved unasked before it is full. */
  #keepWindowOpen(): void {
    if (!this.#mustRoll && this.#table.windowUsed < SESSION_WINDOW / 2) return;
    for (const entry of this.#table.ordered.values()) if (entry.abandoned) this.#resolveUnasked(entry);
    if (this.#mustRoll && this.#table.ordered.size === 0) this.#roll(0);
  }

  #dispatch(lane: Lane, calls: Call[], now: number): boolean {
    if (calls.length === 0) return false;
    const numbers = isUnordered(lane) ? this.#table.nextUnordered() : this.#table.nextOrdered();
    const entry = this.#sender.build({ lane, calls, session: this.#number, ...numbers, now });
    this.#table.add(entry);
    this.#sender.transmit(entry, lane === "local" ? entry.replier : undefined);
    return true;
  }

  /** Another view is in force: what is in flight begins anew in it, under its numbers; reads that ran at once are ordered. */
  #adopt(view: View): void {
    const { crypto, cluster, identity, clock } = this.#options;
    const now = clock.monotonicMs();
    const adopted = { ...cluster, view };
    this.#credentials = new Credentials(crypto, adopted, identity);
    this.#sender.adopt(adopted, this.#credentials);
    this.#replicas.adopt(view, this.#credentials);
    for (const entry of [...this.#table.all()]) {
      this.#sender.renew(entry);
      if (isUnordered(entry.lane)) this.#issueAgain(entry);
      else if (!entry.abandoned) this.#sender.resend(entry, now);
    }
    this.#scheduleFlush();
  }

  /** A replica came (back): it gets what is in flight, and what waited for a quorum may leave. */
  #onReady(position: number): void {
    for (const entry of this.#table.all()) {
      if (!entry.abandoned && entry.lane !== "local") this.#sender.transmit(entry, position);
    }
    this.#scheduleFlush();
  }

  /** Late replies are dropped before any hashing; every other one is verified before it counts. */
  #onReply(position: number, reply: Reply): void {
    const connection = this.#replicas.connections[position];
    if (connection === undefined || reply.session !== this.#number) return;
    const entry = this.#table.find(reply);
    if (entry === undefined || reply.requestDigest !== entry.digest) return;
    if (reply.replica !== connection.member.id || !this.#credentials.verify(position, reply)) {
      connection.punish("its reply carries a wrong MAC");
      return;
    }
    connection.vouch();
    const { view } = this.#views;
    if (reply.view > view.id) connection.onNamedView(reply.view);
    if (reply.view !== view.id) return;
    this.#tellObservers(entry, reply);
    entry.votes.add(position, reply);
    const verdict = this.#judge(entry, reply);
    if (verdict.type !== "wait") this.#actOn(entry, verdict);
  }

  #judge(entry: InFlight, reply: Reply): Verdict {
    const { votes, lane } = entry;
    const judge = { crypto: this.#options.crypto, view: this.#views.view, votes };
    if (lane === "local") return judgeLocal(judge, reply);
    return lane === "query"
      ? judgeUnordered(judge, reply, this.#replicas.unanswered(votes))
      : judgeOrdered(judge, reply);
  }

  /** Those who want to hear single replies. One that throws waits no longer, as if it had aborted. */
  #tellObservers({ calls }: InFlight, reply: Reply): void {
    const observed = calls.filter((call) => call.onReply !== null && !call.done);
    if (observed.length === 0) return;
    const said = heardIn(this.#options.crypto, reply);
    for (const call of observed) {
      try {
        call.onReply?.(said(call.index));
      } catch (error) {
        this.giveUp(call, interrupted(call, "ABORTED", error));
      }
    }
  }

  #actOn(entry: InFlight, verdict: Exclude<Verdict, { type: "wait" }>): void {
    const now = this.#options.clock.monotonicMs();
    switch (verdict.type) {
      case "result":
        this.#finish(entry, verdict.result, now);
        return;
      case "bytesMissing":
        this.#hurry(entry, now);
        return;
      case "reorder":
        this.#issueAgain(entry);
        return;
      case "elsewhere":
        // With the next tick: replicas that all cannot answer must not be asked in a circle without a pause.
        entry.resendAt = now;
        return;
      case "gone":
        if (entry.lane === "write") this.#fail(entry, resultGone, { type: "executed" });
        else this.#issueAgain(entry);
        return;
      case "ended":
        this.#end(entry, verdict.status);
        return;
      case "expired":
        this.#roll(verdict.watermark);
        return;
      case "refused":
        this.#fail(entry, (call) => refusedBy(call, verdict.reason), { type: "unknown" });
        return;
      case "busy":
        entry.resendAt = this.#retry.busy(now);
        if (entry.lane === "query") this.#postpone(entry);
        return;
      case "mustSign":
        this.#sender.signed = true;
        if (isUnordered(entry.lane)) this.#issueAgain(entry);
        else if (entry.proof.signature === null) this.#sender.resend(entry, now);
        return;
      default:
        assertNever(verdict);
    }
  }

  #finish(entry: InFlight, result: Uint8Array, now: number): void {
    const { calls, lane } = entry;
    if (lane === "resolve" || lane === "administer") {
      this.#conclude(entry, { type: "unknown" });
      for (const call of calls) this.#calls.settle(call, result);
      return;
    }
    if (!isUnordered(lane)) this.#sender.keysKnown = true;
    this.#retry.answered(isUnordered(lane) || entry.attempts > 1 ? null : now - entry.sentAt);
    const results = decoded(() => decodeResults(result));
    if (isRejection(results) || results.length !== calls.length) {
      const what = isRejection(results) ? results.code : "RESULT_COUNT";
      this.#fail(entry, (call) => undecodable(call, what), { type: "executed" });
      return;
    }
    this.#conclude(entry, { type: "replied", status: REPLY_STATUSES.indexOf("OK"), results: result });
    this.#queues[lane].observe(result.length / calls.length);
    for (let index = 0; index < calls.length; index++) {
      const call = calls[index] as Call;
      const answer = results[index] as Uint8Array;
      if (lane !== "write" && calls.length > 1 && !call.done && call.crowdedOut?.(answer)) this.#queueAgain(call);
      else this.#calls.settle(call, answer);
    }
  }

  #fail(entry: InFlight, errorOf: (call: Call) => QuorateError, resolution: Resolution): void {
    this.#conclude(entry, resolution);
    for (const call of entry.calls) if (!call.done) this.#calls.reject(call, errorOf(call));
  }

  #end(entry: InFlight, status: EndStatus): void {
    if (status === "WINDOW_FULL" || status === "SEQUENCE_CONFLICT") this.#mustRoll = true;
    const again = entry.lane !== "write" && status !== "DEADLINE" && status !== "CANCELLED";
    if (again) this.#issueAgain(entry);
    else if (status === "ACKED") this.#fail(entry, (call) => lostSession(call, status), { type: "unknown" });
    else if (status === "WINDOW_FULL") {
      for (const call of entry.calls) if (!call.done) this.giveUp(call, lostSession(call, status));
    } else this.#fail(entry, () => endedWith(status), { type: "cancelled" });
  }

  /** A quorum stands, the bytes do not: the named replica gets a moment, then everybody is asked. */
  #hurry(entry: InFlight, now: number): void {
    if (entry.attempts > 1 || entry.everybody) return;
    const { replier, votes } = entry;
    const hopeless = votes.has(replier) || !this.#replicas.connections[replier]?.ready;
    if (hopeless) {
      this.#replicas.suspect(replier);
      if (isUnordered(entry.lane)) this.#issueAgain(entry);
      else this.#sender.resend(entry, now);
      return;
    }
    entry.resendAt = Math.min(entry.resendAt, now + this.#retry.bytesMissingDelayMs);
  }

  /** Under a new sequence, as ordered: for what changes nothing. After a pause if it was ordered before. */
  #issueAgain(entry: InFlight): void {
    this.#table.remove(entry);
    if (entry.lane === "read") this.#retry.pause(this.#options.clock.monotonicMs());
    for (const call of entry.calls) this.#queueAgain(call);
    this.#scheduleFlush();
  }

  /** Unordered as it was, once the pause is over: as ordered it would ask more of replicas that are busy. */
  #postpone(entry: InFlight): void {
    this.#table.remove(entry);
    for (const call of entry.calls) {
      if (call.done) continue;
      call.entry = null;
      this.#queues.query.push(call);
    }
  }

  #queueAgain(call: Call): void {
    if (call.done) return;
    call.entry = null;
    if (call.lane === "query") call.lane = "read";
    this.#queues[call.lane].push(call);
  }

  /** Opens a new session. Writes in flight become unknown, everything else is issued again. */
  #roll(watermark: number): void {
    const { clock, numbers } = this.#options;
    const entries = this.#table.reset();
    this.#mustRoll = false;
    this.#retry.pause(clock.monotonicMs());
    this.#sender.keysKnown = false;
    this.#number = numbers.next(clock, watermark);
    for (const entry of entries) {
      if (entry.lane === "write") {
        for (const call of entry.calls) this.#calls.reject(call, lostSession(call, "SESSION_EXPIRED"));
        this.#tellWaiters(entry, { type: "unknown" });
      }
    }
    for (const { lane, calls } of entries) if (lane !== "write") for (const call of calls) this.#queueAgain(call);
    this.#replicas.open(this.#number);
    this.#scheduleFlush();
  }

  #arm(): void {
    if (this.#timer === null && !this.#closed) this.#timer = this.#options.clock.after(TICK_MS, this.#tick);
  }

  /** Time-outs and resends. Runs only while somebody waits. */
  readonly #tick = (): void => {
    this.#timer = null;
    const now = this.#options.clock.monotonicMs();
    let repeats = Math.ceil(this.#retry.window);
    for (const entry of this.#table.ordered.values()) {
      this.#expire(entry, now);
      if (entry.abandoned || entry.open === 0 || now < entry.resendAt) continue;
      if (repeats-- > 0) this.#repeat(entry, now);
      else entry.resendAt = now + this.#retry.resendDelayMs(1);
    }
    for (const entry of this.#table.unordered.values()) {
      this.#expire(entry, now);
      if (entry.open === 0 || now < entry.resendAt) continue;
      if (entry.lane === "local") this.#sender.elsewhere(entry, now);
      else this.#issueAgain(entry);
    }
    for (const queue of Object.values(this.#queues)) {
      for (const call of queue.expired(now)) this.#calls.reject(call, timedOut(call, this.#replicas.reach));
    }
    if (this.#mayFlush) this.#scheduleFlush();
    if (this.#calls.pending > 0) this.#arm();
  };

  /** Something waits to be sent, or the window must be kept open. */
  get #mayFlush(): boolean {
    if (this.#mustRoll || this.#table.windowUsed >= SESSION_WINDOW / 2) return true;
    return Object.values(this.#queues).some((queue) => !queue.empty);
  }

  #repeat(entry: InFlight, now: number): void {
    if (entry.attempts === 1 && !entry.everybody && entry.votes.voters >= this.#views.view.quorum) {
      if (entry.votes.at(entry.replier)?.body !== "full") this.#replicas.suspect(entry.replier);
    }
    this.#sender.resend(entry, now);
  }

  #expire(entry: InFlight, now: number): void {
    for (const waiter of entry.waiters) {
      if (!waiter.done && now >= waiter.timeoutAt) this.#calls.reject(waiter, timedOut(waiter, this.#replicas.reach));
    }
    if (now < entry.timeoutAt || entry.abandoned) return;
    entry.timeoutAt = Number.POSITIVE_INFINITY;
    for (const call of entry.calls) {
      if (call.done) continue;
      if (now >= call.timeoutAt) this.giveUp(call, timedOut(call, this.#replicas.reach));
      else entry.timeoutAt = Math.min(entry.timeoutAt, call.timeoutAt);
    }
  }
}
