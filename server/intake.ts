/**
/**
 * Client intake: there is room for a request, or as much as the allowance permits is told BUSY, before any hash or MAC is computed;
 * what the stage behind that (intake-stage/) found authentic meets this replica's state: rights, duplicates; what passes goes to
 * the core as bytes that are never encoded again (docs/protocol.md sections 2, 3 and 8). What is refused is answered, bound to
 * the request.
 */
import { type Digest, EMPTY, utf8 } from "../protocol/bytes.ts";
import { CLOSE_CODES, encodeReply, type ReplyBody, type ReplyStatus } from "../protocol/client-frames.ts";
import type { Cluster } from "../protocol/cluster.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assertNever, decoded, isRejection, type Rejection, reject } from "../protocol/errors.ts";
import { LARGE_RESULT_BYTES, READS_TURN_COST } from "../protocol/limits.ts";
import { decodeRequest, type Envelope, EVERYBODY, type Glance, glance, type Request } from "../protocol/request.ts";
import type { ReplicaId } from "../protocol/view.ts";
import type { Authenticity } from "./authenticity.ts";
import { BusyAllowance } from "./busy-allowance.ts";
import { lotOf, requestCost } from "./consensus/admission.ts";
import { costOf, sourceOf } from "./consensus/client-queue.ts";
import type { RequestQueue } from "./consensus/request-queue.ts";
import type { Clock } from "./driver-contract.ts";
import { FairTasks } from "./fair-tasks.ts";
import type { IntakeStage, Judged, OpenIntakeStage, Outcome } from "./intake-stage/contract.ts";
import type { ClientConnection } from "./network/contract.ts";
import type { OrderedReply } from "./service/executor.ts";
import type { Verifier } from "./verifier.ts";

/** Requests answered on the connection of a client that is none any more, before it is closed. */
const TURNED_AWAY_MAX = 64;

/** What the intake asks of the replica around it. */
export interface IntakePort {
  /** False while draining: everything new is refused. */
  accepting(): boolean;
  /** W others are far ahead: what they order reaches this replica by log. */
  behind(): boolean;
  /** May unordered requests be answered now (section 3, "Unordered requests")? */
  answersReads(): boolean;
  /** May this client be one now, as far as the executed state and the clock here tell? */
  permits(client: Digest): boolean;
  /** An answer that needs no ordering, or null. */
  lookup(request: Request): OrderedReply | null;
  /** May this answer, given again, leave? */
  leaves(reply: OrderedReply): boolean;
  /** Why the application does not want it ordered, or null. */
  refusal(request: Request): string | null;
  query(request: Request): { readonly result: Uint8Array; readonly revision: number } | null;
  /** Would it add to the state while the disk is below its reserve? */
  refusesGrowth(request: Request): boolean;
  /** Is the statement of an `administer` request signed by the administrators in force? */
  administered(request: Request): boolean;
  /** Where requests wait: is there room, and is one there already, so that its client still waits for it? */
  readonly queue: Pick<RequestQueue, "room" | "askedAgain">;
  readonly clock: Pick<Clock, "nowUs" | "wallMs">;
  /** Work is left for the next turn: `turn` is to be called in it. */
  turnDue(): void;
  submit(request: Request, envelope: Uint8Array, replier: number): void;
  /** A client sent what no correct client sends. */
  misbehaved(client: Digest, code: string): void;
  /** Runs what the stage says later, while this replica runs. */
  guard(work: () => void): void;
  failed(error: Error): void;
}

/** Where replies of a batch go. */
export interface ReplyPort {
  connectionOf(client: Digest, session: number): ClientConnection | undefined;
  /** Who was asked to send a large result in full. */
  replierOf(request: Request): number;
}

export interface IntakeCounts {
  admitted: number;
  unordered: number;
  repeated: number;
  busy: number;
  /** Turned away without an answer. */
  shed: number;
  refused: number;
}

/** A request, whose it is, and where its answer goes. */
interface Received {
  readonly connection: ClientConnection;
  readonly request: Request;
  readonly envelope: Envelope;
  readonly envelopeBytes: Uint8Array;
}

/** What a request takes up. */
interface Size {
  readonly bytes: number;
  readonly cost: number;
}

/** Who is turned away is drawn anew this often: what is sent again gets another chance. */
const LOTS_MS = 1_000;

export class Intake {
  readonly counts: IntakeCounts = { admitted: 0, unordered: 0, repeated: 0, busy: 0, shed: 0, refused: 0 };
  readonly #crypto: Crypto;
  readonly #cluster: Cluster;
  readonly #self: ReplicaId;
  readonly #authenticity: Authenticity;
  readonly #stage: IntakeStage;
  readonly #port: IntakePort;
  readonly #emptyDigest: Digest;
  /** Requests of a connection answered since its client lost its rights. */
  readonly #turnedAway = new WeakMap<ClientConnection, number>();
  readonly #allowance = new BusyAllowance();
  readonly #reads = new FairTasks<Received>();
  /** Cost of reads that may still be answered in this turn. */
  #readsLeft = READS_TURN_COST;

  constructor(options: {
    crypto: Crypto;
    cluster: Cluster;
    self: ReplicaId;
    authenticity: Authenticity;
    verifier: Verifier;
    openStage: OpenIntakeStage;
    port: IntakePort;
  }) {
    this.#crypto = options.crypto;
    this.#cluster = options.cluster;
    this.#self = options.self;
    this.#authenticity = options.authenticity;
    this.#port = options.port;
    this.#emptyDigest = options.crypto.sha256(EMPTY);
    const { crypto, cluster, authenticity, verifier, port } = options;
    this.#stage = options.openStage({
      crypto,
      cluster: cluster.id,
      position: () => authenticity.position,
      keysOf: (client, given) => authenticity.keysOf(client, given),
      verifier,
      guard: (work) => port.guard(work),
      judged: (connection, outcome) => this.#judged(connection, outcome),
      failed: (error) => port.failed(error),
    });
  }

  /** Requests that the stage has not judged yet. */
  get waiting(): number {
    return this.#stage.waiting;
  }

  /** Reads that wait for their client's turn. */
  get readsWaiting(): number {
    return this.#reads.size;
  }

  /** Ends the stage's threads. */
  close(): Promise<void> {
    return this.#stage.close();
  }

  /** One REQUEST frame's parts: copied by the stage, once, if there is room where it is going to and in the stage. */
  receive(connection: ClientConnection, envelope: Uint8Array, bytes: Uint8Array): void {
    const { client } = connection;
    const seen = glance(bytes);
    // It would only wait here: the others have it as well, and their log brings it.
    if (seen?.kind === "ordered" && this.#port.behind()) {
      this.counts.shed++;
      return;
    }
    const size = { bytes: bytes.length, cost: requestCost(bytes.length, 1) };
    const room = seen === null || this.#room(client, seen, size);
    if (room && this.#stage.submit(connection, envelope, bytes)) return;
    connection.turnedAway(bytes.length);
    if (!this.#allowance.takes(client, this.#port.clock.nowUs())) {
      this.counts.shed++;
      return;
    }
    const request = decoded(() => decodeRequest(this.#crypto, bytes));
    const rejection = isRejection(request) ? request : this.#foreign(connection, request);
    if (rejection) this.#reject(connection, rejection);
    else if (!isRejection(request)) this.#withoutRoom(connection, request);
  }

  /** The stage is done with a request. False when its connection is ended. */
  #judged(connection: ClientConnection, outcome: Outcome): boolean {
    const rejection = isRejection(outcome) ? outcome : this.#take(connection, outcome);
    return rejection === null || this.#reject(connection, rejection);
  }

  #reject(connection: ClientConnection, { action, code }: Rejection): boolean {
    this.#port.misbehaved(connection.client, code);
    if (action === "ignore") return true;
    connection.close(4400, code);
    return false;
  }

  /** A request that is not of this connection, or not of this cluster. */
  #foreign(connection: ClientConnection, request: Request): Rejection | null {
    if (request.client !== connection.client || request.session !== connection.session)
      return reject("punish", "REQUEST_OWNER");
    return request.cluster === this.#cluster.id ? null : reject("punish", "REQUEST_CLUSTER");
  }

  #hasRights(request: Request): boolean {
    return request.kind === "administer" || this.#port.permits(request.client);
  }

  #take(connection: ClientConnection, { request, envelope, envelopeBytes, proof }: Judged): Rejection | null {
    const foreign = this.#foreign(connection, request);
    if (foreign) return foreign;
    if (!this.#hasRights(request)) return this.#turnAway(connection, request);
    if (!this.#port.accepting()) return this.#busy(connection, request);
    if (envelope.view !== this.#cluster.view.id) return this.#advise(connection, request, "NEWER_VIEW");
    if (this.#authenticity.mustSign(request.client) && envelope.authenticator.type !== "signature") {
      return this.#advise(connection, request, "MUST_SIGN");
    }
    switch (proof) {
      case "authentic":
        this.#admit({ connection, request, envelope, envelopeBytes });
        return null;
      case "unproven":
        return reject("punish", "REQUEST_MAC");
      case "forged":
        return reject("punish", "REQUEST_SIGNATURE");
      default:
        return assertNever(proof);
    }
  }

  #room(client: Digest, { kind, name }: Glance, { bytes, cost }: Size): boolean {
    if (kind === "unordered") return this.#reads.room(client, bytes);
    const lot = lotOf(name, Math.floor(this.#port.clock.wallMs() / LOTS_MS));
    return this.#port.queue.room({ client, bytes, cost, lot }, sourceOf(kind));
  }

  #admit(received: Received): void {
    const { connection, request, envelope, envelopeBytes } = received;
    if (request.kind === "unordered") {
      this.#read(received);
      return;
    }
    const known = this.#port.lookup(request);
    if (known) {
      this.counts.repeated++;
      if (this.#port.leaves(known)) this.reply(connection, known, envelope.replier);
      return;
    }
    const refusal = this.#port.refusal(request);
    if (refusal !== null) {
      this.#refuse(connection, request, refusal);
      return;
    }
    if (this.#port.queue.askedAgain(request.key)) {
      // A signed copy may replace an unsigned one, which only the queue can tell.
      if (envelope.authenticator.type === "signature") this.#port.submit(request, envelopeBytes, envelope.replier);
      return;
    }
    if (this.#port.refusesGrowth(request)) {
      this.#refuse(connection, request, "STORAGE_FULL");
      return;
    }
    if (request.kind === "administer" && !this.#port.administered(request)) {
      this.#refuse(connection, request, "NOT_ADMINISTRATOR");
      return;
    }
    const seen = glance(request.bytes);
    if (seen && !this.#room(request.client, seen, sizeOf(request))) {
      this.#busy(connection, request);
      return;
    }
    this.counts.admitted++;
    this.#port.submit(request, envelopeBytes, envelope.replier);
  }

  /** There is no room for it, and it may be told so; unless it needs none. */
  #withoutRoom(connection: ClientConnection, request: Request): null {
    if (!this.#hasRights(request)) return this.#turnAway(connection, request);
    const known = request.kind === "unordered" ? null : this.#port.lookup(request);
    if (known) {
      this.counts.repeated++;
      if (this.#port.leaves(known)) this.reply(connection, known, EVERYBODY);
      return null;
    }
    return this.#port.queue.askedAgain(request.key) ? null : this.#busy(connection, request);
  }

  /** At once while little is read in this turn; else when its client's turn comes. */
  #read(received: Received): void {
    const { request } = received;
    if (this.#reads.size === 0 && this.#readsLeft > 0) {
      this.#readsLeft -= costOf(request) + this.#answerUnordered(received);
      return;
    }
    // What was in the stage meanwhile has taken up no room yet.
    if (!this.#reads.room(request.client, request.bytes.length)) {
      this.#busy(received.connection, request);
      return;
    }
    this.#reads.add(request.client, received, sizeOf(request));
    this.#port.turnDue();
  }

  /** Once per turn of the event loop: reads that wait, each client's in turn. */
  turn(): void {
    this.#readsLeft = READS_TURN_COST;
    this.#reads.run(
      () => this.#readsLeft > 0,
      (received) => {
        const more = this.#answerUnordered(received);
        this.#readsLeft -= costOf(received.request) + more;
        return more;
      },
    );
    if (this.#reads.size > 0) this.#port.turnDue();
  }

  /** @returns what the answer cost, beyond the request */
  #answerUnordered({ connection, request, envelope }: Received): number {
    this.counts.unordered++;
    const answer = this.#port.answersReads() ? this.#port.query(request) : null;
    if (!answer) {
      this.#advise(connection, request, "NOT_READY");
      return 0;
    }
    const { result, revision } = answer;
    this.#send(connection, request, {
      status: "OK",
      position: revision,
      resultDigest: this.#crypto.sha256(result),
      result,
      replier: envelope.replier,
    });
    return requestCost(result.length, 0);
  }

  /** Sends the replies of an executed batch: those of one connection together, where it can. */
  replies(replies: readonly OrderedReply[], port: ReplyPort): void {
    const lines = new Map<ClientConnection, OrderedReply[]>();
    for (const reply of replies) {
      const { request } = reply;
      const connection = port.connectionOf(request.client, request.session);
      const line = connection && lines.get(connection);
      if (line) line.push(reply);
      else if (connection?.together) lines.set(connection, [reply]);
      else if (connection) this.reply(connection, reply, port.replierOf(request));
    }
    for (const [connection, line] of lines) {
      const send = (): void => {
        for (const reply of line) this.reply(connection, reply, port.replierOf(reply.request));
      };
      if (connection.together && line.length > 1) connection.together(send);
      else send();
    }
  }

  /** Sends the reply of an executed request to a connection of its session. */
  reply(connection: ClientConnection, reply: OrderedReply, replier: number): void {
    this.#send(connection, reply.request, {
      status: reply.status,
      position: reply.instance,
      resultDigest: reply.resultDigest,
      result: reply.result,
      replier,
    });
  }

  /** Revoked or expired since it connected. It hears so for what it has sent; then the connection goes. */
  #turnAway(connection: ClientConnection, request: Request): null {
    const known = this.#port.lookup(request);
    if (!known) this.#refuse(connection, request, "NOT_PERMITTED");
    else if (this.#port.leaves(known)) this.reply(connection, known, EVERYBODY);
    const count = (this.#turnedAway.get(connection) ?? 0) + 1;
    this.#turnedAway.set(connection, count);
    if (count >= TURNED_AWAY_MAX) connection.close(CLOSE_CODES.NOT_A_CLIENT, "NOT_A_CLIENT");
    return null;
  }

  #refuse(connection: ClientConnection, request: Request, reason: string): null {
    this.counts.refused++;
    const result = utf8(reason);
    const resultDigest = this.#crypto.sha256(result);
    this.#send(connection, request, { status: "REFUSED", position: 0, resultDigest, result, replier: EVERYBODY });
    return null;
  }

  /** No room, or shutting down: advice, so that the client asks the others, or this replica again once it is back. */
  #busy(connection: ClientConnection, request: Request): null {
    this.counts.busy++;
    return this.#advise(connection, request, "BUSY");
  }

  #advise(connection: ClientConnection, request: Request, status: ReplyStatus): null {
    const resultDigest = this.#emptyDigest;
    this.#send(connection, request, { status, position: 0, resultDigest, result: EMPTY, replier: EVERYBODY });
    return null;
  }

  #send(
    connection: ClientConnection,
    request: Request,
    answer: { status: ReplyStatus; position: number; resultDigest: Digest; result: Uint8Array | null; replier: number },
  ): void {
    const keys = this.#authenticity.keysOf(request.client, null);
    if (!keys) return;
    const { status, position, resultDigest, result, replier } = answer;
    const frame = encodeReply(
      this.#crypto,
      keys.outgoing,
      { cluster: this.#cluster.id, client: request.client },
      {
        replica: this.#self,
        view: this.#cluster.view.id,
        session: request.session,
        sequence: request.sequence,
        kind: request.kind,
        requestDigest: request.digest,
        status,
        position,
        resultDigest,
        body: this.#bodyOf(result, replier),
        result: result ?? EMPTY,
      },
    );
    connection.send(frame);
  }

  /** One full reply and digests for large results. */
  #bodyOf(result: Uint8Array | null, replier: number): ReplyBody {
    if (!result) return "gone";
    return result.length <= LARGE_RESULT_BYTES || replier === this.#self || replier === EVERYBODY ? "full" : "digest";
  }
}

function sizeOf(request: Request): Size {
  return { cost: costOf(request), bytes: request.bytes.length };
}
