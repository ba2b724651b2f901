/**
 * The pure core of a replica: ordering, catching up, heartbeats and the request queue behind one synchronous
 * `step(input) -> effects` (docs/protocol.md section 4). The same code runs under the driver and in simulation.
 */
import type { Digest } from "../protocol/bytes.ts";
import { assert, assertNever, decoded, isRejection, type Rejection, reject } from "../protocol/errors.ts";
import { STATUS_INSTANCES_MAX } from "../protocol/limits.ts";
import { type Message, type MessageOf, statusStatement } from "../protocol/messages.ts";
import { decodeEnvelope, decodeRequest } from "../protocol/request.ts";
import { memberOf, type ReplicaId } from "../protocol/view.ts";
import { type ContextOptions, CoreContext } from "./consensus/context.ts";
import type { Effect, Input } from "./consensus/contract.ts";
import { Ordering } from "./consensus/ordering.ts";
import { RequestQueue } from "./consensus/request-queue.ts";
import type { Position, Start } from "./consensus/restart.ts";
import { CatchUp } from "./recovery/catch-up.ts";

/** Digests whose FORWARDs are being counted; the oldest is forgotten. */
const FORWARDS_KEPT_MAX = 4_096;
const FORWARDS_PER_TICK_MAX = 256;

export interface CoreState {
  readonly view: number;
  readonly regency: number;
  readonly leader: ReplicaId;
  readonly lastDecided: Position;
  readonly abstainingUntil: number;
  readonly holding: boolean;
  readonly catchingUp: boolean;
  readonly pendingRequests: number;
  readonly pendingBytes: number;
  readonly bufferedMessages: number;
}

export class Core {
  readonly queue = new RequestQueue();
  readonly #context: CoreContext;
  readonly #ordering: Ordering;
  readonly #catchUp: CatchUp;
  readonly #forwards = new Map<Digest, Set<ReplicaId>>();
  #statusAtUs = Number.NEGATIVE_INFINITY;
  #statusInstance = 0;
  #timersAtUs = 0;
  #stepping = false;
  #stopped = false;

  constructor(options: ContextOptions, start: Start) {
    this.#context = new CoreContext(options);
    this.#ordering = new Ordering(this.#context, this.queue, start);
    const context = this.#context;
    this.#catchUp = new CatchUp({
      view: context.view,
      self: context.self,
      crypto: context.crypto,
      nowUs: () => context.nowUs,
      regency: () => this.#ordering.regency,
      position: () => this.#ordering.lastDecided,
      busy: () => this.#ordering.executionLags,
      send: (to, message) => context.send(to, message),
      verify: (checks, then) => context.verify(checks, then),
      learn: (batches) => this.#ordering.learn(batches),
      misbehaved: (replica, code) => context.emit({ type: "misbehaved", replica, code }),
    });
  }

  get state(): CoreState {
    return {
      view: this.#context.view.id,
      regency: this.#ordering.regency,
      leader: this.#ordering.leader,
      lastDecided: this.#ordering.lastDecided,
      abstainingUntil: this.#ordering.abstainingUntil,
      holding: this.#ordering.holding,
      catchingUp: this.#catchUp.active,
      pendingRequests: this.queue.pending,
      pendingBytes: this.queue.pendingBytes,
      bufferedMessages: this.#ordering.bufferedMessages,
    };
  }

  get lastDecided(): number {
    return this.#ordering.lastDecided.instance;
  }

  /** The newest STATUS a member sent: its own word, unverified. */
  statusOf(replica: ReplicaId): MessageOf<"STATUS"> | undefined {
    return this.#catchUp.statusOf(replica);
  }

  /** One input, all its effects. Never re-entrant. */
  step(input: Input): readonly Effect[] {
    assert(!this.#stepping, "step is not re-entrant");
    this.#stepping = true;
    if (!this.#stopped) this.#handle(input);
    this.#stepping = false;
    return this.#context.takeEffects();
  }

  #handle(input: Input): void {
    switch (input.type) {
      case "message": {
        const rejection = this.#receive(input.from, input.message);
        if (rejection) this.#context.emit({ type: "misbehaved", replica: input.from, code: rejection.code });
        return;
      }
      case "request":
        if (this.queue.add(input.request, input.envelope, input.replier, this.#context.nowUs)) {
          this.#ordering.vouched(input.request.digest);
        }
        return;
      case "tick":
        this.#context.nowUs = input.nowUs;
        this.#context.wallMs = input.wallMs;
        this.#tick();
        return;
      case "journaled":
        this.#context.journaled(input.ticket);
        return;
      case "verified":
        this.#context.verified(input.ticket, input.valid);
        return;
      case "executed":
        this.#ordering.executed(input.instance);
        return;
      case "connected":
        this.#context.send(input.peer, this.#status());
        this.#ordering.resend(input.peer);
        return;
      case "stop":
        this.#stopped = true;
        this.#ordering.stop();
        return;
      default:
        assertNever(input);
    }
  }

  #receive(from: ReplicaId, message: Message): Rejection | null {
    if (!memberOf(this.#context.view, from)) return reject("ignore", "NOT_A_MEMBER");
    if (message.view !== this.#context.view.id) return reject("ignore", "OTHER_VIEW");
    switch (message.type) {
      case "PROPOSE":
      case "WRITE":
      case "ACCEPT":
        return this.#ordering.receive(from, message);
      case "STATUS":
        this.#catchUp.onStatus(from, message);
        return null;
      case "FORWARD":
        return this.#onForward(from, message);
      case "FETCH_BATCH":
        this.#serveBatch(from, message);
        return null;
      case "BATCH":
        return this.#ordering.onBatch(message);
      case "FETCH_HISTORY":
        this.#serveHistory(from, message);
        return null;
      case "HISTORY":
        return this.#catchUp.onHistory(from, message);
      case "STOP":
      case "STOPDATA":
      case "SYNC":
        return null;
      default:
        return assertNever(message);
    }
  }

  /** A request that somebody else received: ours too if authentic, or once W replicas forward it (one of them checked). */
  #onForward(from: ReplicaId, message: MessageOf<"FORWARD">): Rejection | null {
    const { crypto, cluster, view } = this.#context;
    const request = decoded(() => decodeRequest(crypto, message.request));
    if (isRejection(request)) return request;
    const envelope = decoded(() => decodeEnvelope(message.envelope));
    if (isRejection(envelope)) return envelope;
    if (request.cluster !== cluster || request.kind === "unordered") return reject("ignore", "FORWARD_REQUEST");
    if (this.queue.find(request.key)) return null;
    const add = (): void => {
      this.#forwards.delete(request.digest);
      if (!this.queue.room(request.client, request.bytes.length, "replica")) return;
      this.queue.add(request, message.envelope, envelope.replier, this.#context.nowUs);
      this.#ordering.vouched(request.digest);
    };
    const verdict = this.#context.authenticate(request, message.envelope);
    if (verdict === "authentic") {
      add();
      return null;
    }
    const voices = this.#voices(request.digest);
    voices.add(from);
    if (voices.size >= view.weakQuorum) add();
    else if (verdict !== "unproven") this.#context.verify([verdict], ([valid]) => (valid ? add() : undefined));
    return null;
  }

  #voices(digest: Digest): Set<ReplicaId> {
    let voices = this.#forwards.get(digest);
    if (!voices) {
      voices = new Set();
      if (this.#forwards.size >= FORWARDS_KEPT_MAX) this.#forwards.delete(this.#forwards.keys().next().value as Digest);
      this.#forwards.set(digest, voices);
    }
    return voices;
  }

  #serveBatch(to: ReplicaId, message: MessageOf<"FETCH_BATCH">): void {
    const { instance, digest, view } = message;
    const batch = this.#ordering.batchOf(instance, digest);
    const { regency } = this.#ordering;
    if (batch) this.#context.send(to, { type: "BATCH", view, regency, instance, digest, batch });
    else if (instance <= this.#ordering.lastDecided.instance) {
      this.#context.emit({ type: "serveBatch", to, instance, digest });
    }
  }

  /** Only what is in our journal as decided is ours to give. */
  #serveHistory(to: ReplicaId, message: MessageOf<"FETCH_HISTORY">): void {
    const decided = Math.min(this.#ordering.lastDecided.instance, this.#ordering.durableUpTo);
    if (message.from > 0 && message.from <= decided) {
      this.#context.emit({ type: "serveHistory", to, from: message.from, decided });
    }
  }

  #tick(): void {
    const { nowUs, options } = this.#context;
    const intervalUs = options.statusIntervalMs * 1000;
    const due = nowUs - this.#statusAtUs >= intervalUs;
    if (due || this.lastDecided - this.#statusInstance >= STATUS_INSTANCES_MAX) {
      this.#statusAtUs = nowUs;
      this.#statusInstance = this.lastDecided;
      this.#context.broadcast(this.#status());
      if (due && this.#catchUp.abstainingUntil > this.lastDecided) this.#ordering.wantEmptyBatch();
    }
    if (nowUs - this.#timersAtUs >= 50_000) {
      this.#timersAtUs = nowUs;
      this.#catchUp.tick();
      this.#ordering.tick();
      this.#forwardOverdue();
    }
    this.#ordering.propose();
    // In every tick: a timer that fires a little early must not be the last one.
    this.#context.emit({ type: "wake", atUs: this.#statusAtUs + intervalUs });
  }

  /** First timeout of a request: everybody shall know it, whoever the client could reach. */
  #forwardOverdue(): void {
    const { nowUs, options, view } = this.#context;
    const { regency } = this.#ordering;
    const overdue = this.queue.overdue(nowUs - options.requestTimeoutMs * 1000, FORWARDS_PER_TICK_MAX);
    for (const { request, envelope } of overdue) {
      this.#context.broadcast({ type: "FORWARD", view: view.id, regency, request: request.bytes, envelope });
    }
  }

  #status(): MessageOf<"STATUS"> {
    const { view, cluster, signer } = this.#context;
    const { lastDecided, regency, abstainingUntil } = this.#ordering;
    const statement = {
      view: view.id,
      regency,
      decided: lastDecided.instance,
      digest: lastDecided.digest,
      abstainingUntil,
    };
    return { type: "STATUS", ...statement, signature: signer(statusStatement(cluster, statement)) };
  }
}
