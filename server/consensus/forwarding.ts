/**
 * Requests between replicas (docs/protocol.md sections 4.2 and 5, "Timer"): what is overdue is forwarded to all, so that
 * everybody has what a client could bring to some only, and so that everybody knows who has it.
 *
 * Invariants: 1. a forwarded request is taken when it is authentic here or W members forward it. 2. whatever one member
 * sends, what is kept of it and under verification for it is bounded.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { SignatureCheck } from "../../protocol/certificate.ts";
import { decoded, isRejection, type Rejection, reject } from "../../protocol/errors.ts";
import type { MessageOf } from "../../protocol/messages.ts";
import { decodeEnvelope, decodeRequest, type Request } from "../../protocol/request.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import { costOf, type Source } from "./client-queue.ts";
import type { CoreContext } from "./context.ts";
import type { Regency } from "./regency.ts";
import { isSigned, type RequestQueue } from "./request-queue.ts";

/** Digests kept per member; the oldest is forgotten. */
const DIGESTS_KEPT_MAX = 4_096;
/** Signatures of requests that one member forwarded, under verification at once; more of its FORWARDs are dropped. */
const VERIFYING_MAX = 256;
const PER_TICK_MAX = 256;
/** How often a member is told that a request it forwards is executed here. */
const ANSWERS_MAX = 3;
/** Requests that no leader could order are forgotten after this many timeouts. */
const HOPELESS_TIMEOUTS = 8;
/** Overdue requests asked about at once whether they need ordering still. */
const SETTLED_CHECKS_MAX = 256;

export interface ForwardingPort {
  /** Agreed time: that of the last decided batch. */
  batchTimeMs(): number;
  /** The origin of this request is proven. */
  vouched(digest: Digest): void;
}

/** What is known about one member's FORWARDs. */
class Correspondent {
  /** Requests it forwarded that are not here yet. */
  readonly voiced = new Set<Digest>();
  /** How often it was told that a request is executed here. */
  readonly answered = new Map<Digest, number>();
  verifying = 0;

  voice(digest: Digest): void {
    if (!this.voiced.has(digest) && this.voiced.size >= DIGESTS_KEPT_MAX) {
      this.voiced.delete(this.voiced.values().next().value as Digest);
    }
    this.voiced.add(digest);
  }

  /** May it be told once more? */
  mayAnswer(digest: Digest): boolean {
    const count = this.answered.get(digest) ?? 0;
    if (count >= ANSWERS_MAX) return false;
    if (count === 0 && this.answered.size >= DIGESTS_KEPT_MAX) {
      this.answered.delete(this.answered.keys().next().value as Digest);
    }
    this.answered.set(digest, count + 1);
    return true;
  }
}

export class Forwarding {
  readonly #context: CoreContext;
  readonly #queue: RequestQueue;
  readonly #regency: Regency;
  readonly #port: ForwardingPort;
  readonly #members: ReadonlyMap<ReplicaId, Correspondent>;

  constructor(context: CoreContext, queue: RequestQueue, regency: Regency, port: ForwardingPort) {
    this.#context = context;
    this.#queue = queue;
    this.#regency = regency;
    this.#port = port;
    this.#members = new Map(context.view.members.map(({ id }) => [id, new Correspondent()]));
  }

  /** A request whose origin is proven here. */
  add(request: Request, envelope: Uint8Array, replier: number, source?: Source): void {
    if (!this.#queue.add(request, envelope, replier, this.#context.nowUs, source)) return;
    for (const [replica, { voiced }] of this.#members) {
      if (voiced.delete(request.digest)) this.#queue.voice(request.digest, replica);
    }
    this.#port.vouched(request.digest);
  }

  /** A request that another member has: ours too if authentic, or once W members forward it (one of them checked). */
  onForward(from: ReplicaId, message: MessageOf<"FORWARD">): Rejection | null {
    const { crypto, cluster, view } = this.#context;
    const member = this.#members.get(from);
    const request = decoded(() => decodeRequest(crypto, message.request));
    if (isRejection(request)) return request;
    const envelope = decoded(() => decodeEnvelope(message.envelope));
    if (isRejection(envelope)) return envelope;
    if (!member || request.cluster !== cluster || request.kind === "unordered") {
      return reject("ignore", "FORWARD_REQUEST");
    }
    const { digest } = request;
    if (this.#queue.find(request.key)) {
      this.#queue.voice(digest, from);
      return null;
    }
    if (this.#isSettled(request)) {
      // Who has executed a request has it as well: without this voice those who lack its decision could blame nobody. Only
      // a few times, or two who have executed it would answer each other for ever.
      if (member.mayAnswer(digest)) this.#context.send(from, { ...message, regency: this.#regency.number });
      return null;
    }
    member.voice(digest);
    const add = (): void => {
      const wanted = { client: request.client, bytes: request.bytes.length, cost: costOf(request), lot: 0 };
      if (this.#queue.room(wanted, "replica")) this.add(request, message.envelope, envelope.replier, "replica");
    };
    const verdict = this.#context.authenticate(request, message.envelope);
    const vouched = this.#voices(digest) >= view.weakQuorum && this.#mayPropose(message.envelope);
    if (verdict === "authentic" || vouched) add();
    else if (verdict !== "unproven") this.#verify(member, verdict, add);
    return null;
  }

  /** Who takes a request may have to propose it, with this envelope: where requests are signed, never without a signature. */
  #mayPropose(envelope: Uint8Array): boolean {
    return this.#context.view.faultModel === "plain" || isSigned(envelope);
  }

  #voices(digest: Digest): number {
    let voices = 0;
    for (const { voiced } of this.#members.values()) if (voiced.has(digest)) voices++;
    return voices;
  }

  #verify(member: Correspondent, check: SignatureCheck, add: () => void): void {
    if (member.verifying >= VERIFYING_MAX) return;
    member.verifying++;
    this.#context.verify([check], ([valid]) => {
      member.verifying--;
      if (valid) add();
    });
  }

  /** Executed, cancelled, or past its deadline: nobody waits for a leader because of it. */
  #isSettled(request: Request): boolean {
    const expired = request.deadlineMs > 0 && request.deadlineMs < this.#port.batchTimeMs();
    return expired || this.#context.settled(request);
  }

  /** First timeout of a request: everybody shall know it, whoever its client could reach. */
  tick(timeoutUs: number, forwardAfterUs: number): void {
    const { nowUs, view } = this.#context;
    const regency = this.#regency.number;
    for (const { request, envelope } of this.#queue.overdue(nowUs, forwardAfterUs, PER_TICK_MAX)) {
      this.#context.broadcast({ type: "FORWARD", view: view.id, regency, request: request.bytes, envelope });
    }
    // What no leader can be blamed for does not wait: executed or expired meanwhile, or held by too few for long.
    this.#queue.dropSettled(nowUs - 2 * timeoutUs, (request) => this.#isSettled(request), SETTLED_CHECKS_MAX);
    this.#queue.dropHopeless(nowUs - HOPELESS_TIMEOUTS * timeoutUs, view.witnesses);
  }
}
