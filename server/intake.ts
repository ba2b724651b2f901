/**
 * Client intake: what the stage in front of it (intake-stage/) found authentic meets this replica's state: bounds, duplicates;
 * what passes goes to the core as bytes that are never encoded again (docs/protocol.md sections 2, 3 and 8). Everything refused
 * is answered, bound to the request.
 */
import { type Digest, EMPTY, utf8 } from "../protocol/bytes.ts";
import { CLOSE_CODES, encodeReply, type ReplyBody, type ReplyStatus } from "../protocol/client-frames.ts";
import type { Cluster } from "../protocol/cluster.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assertNever, decoded, isRejection, type Rejection, reject } from "../protocol/errors.ts";
import { LARGE_RESULT_BYTES } from "../protocol/limits.ts";
import { decodeRequest, type Envelope, EVERYBODY, type Request } from "../protocol/request.ts";
import type { ReplicaId } from "../protocol/view.ts";
import type { Authenticity } from "./authenticity.ts";
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
  /** Room in the request queue for this client? Statements of administrators have their own. */
  room(request: Request): boolean;
  /** Is the statement of an `administer` request signed by the administrators in force? */
  administered(request: Request): boolean;
  submit(request: Request, envelope: Uint8Array, replier: number): void;
  /** A client sent what no correct client sends. */
  misbehaved(client: Digest, code: string): void;
  /** Runs what the stage says later, while this replica runs. */
  guard(work: () => void): void;
  failed(error: Error): void;
}

export interface IntakeCounts {
  admitted: number;
  unordered: number;
  repeated: number;
  busy: number;
  refused: number;
}

export class Intake {
  readonly counts: IntakeCounts = { admitted: 0, unordered: 0, repeated: 0, busy: 0, refused: 0 };
  readonly #crypto: Crypto;
  readonly #cluster: Cluster;
  readonly #self: ReplicaId;
  readonly #authenticity: Authenticity;
  readonly #stage: IntakeStage;
  readonly #port: IntakePort;
  readonly #emptyDigest: Digest;
  /** Requests of a connection answered since its client lost its rights. */
  readonly #turnedAway = new WeakMap<ClientConnection, number>();

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

  /** Ends the stage's threads. */
  close(): Promise<void> {
    return this.#stage.close();
  }

  /** One REQUEST frame's parts: copied by the stage, once. */
  receive(connection: ClientConnection, envelope: Uint8Array, bytes: Uint8Array): void {
    if (this.#stage.submit(connection, envelope, bytes)) return;
    const request = decoded(() => decodeRequest(this.#crypto, bytes));
    const rejection = isRejection(request) ? request : this.#foreign(connection, request);
    if (rejection) this.#reject(connection, rejection);
    else if (!isRejection(request)) this.#busy(connection, request);
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

  #take(connection: ClientConnection, { request, envelope, envelopeBytes, proof }: Judged): Rejection | null {
    const foreign = this.#foreign(connection, request);
    if (foreign) return foreign;
    if (request.kind !== "administer" && !this.#port.permits(request.client))
      return this.#turnAway(connection, request);
    if (!this.#port.accepting()) return this.#busy(connection, request);
    if (envelope.view !== this.#cluster.view.id) return this.#advise(connection, request, "NEWER_VIEW");
    if (this.#authenticity.mustSign(request.client) && envelope.authenticator.type !== "signature") {
      return this.#advise(connection, request, "MUST_SIGN");
    }
    switch (proof) {
      case "authentic":
        this.#admit(connection, request, envelope, envelopeBytes);
        return null;
      case "unproven":
        return reject("punish", "REQUEST_MAC");
      case "forged":
        return reject("punish", "REQUEST_SIGNATURE");
      default:
        return assertNever(proof);
    }
  }

  #admit(connection: ClientConnection, request: Request, envelope: Envelope, envelopeBytes: Uint8Array): void {
    if (request.kind === "unordered") {
      this.counts.unordered++;
      this.#answerUnordered(connection, request, envelope.replier);
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
    if (this.#port.refusesGrowth(request)) {
      this.#refuse(connection, request, "STORAGE_FULL");
      return;
    }
    if (request.kind === "administer" && !this.#port.administered(request)) {
      this.#refuse(connection, request, "NOT_ADMINISTRATOR");
      return;
    }
    if (request.kind !== "resolve" && !this.#port.room(request)) {
      this.#busy(connection, request);
      return;
    }
    this.counts.admitted++;
    this.#port.submit(request, envelopeBytes, envelope.replier);
  }

  #answerUnordered(connection: ClientConnection, request: Request, replier: number): void {
    const answer = this.#port.answersReads() ? this.#port.query(request) : null;
    if (!answer) {
      this.#advise(connection, request, "NOT_READY");
      return;
    }
    const { result, revision } = answer;
    this.#send(connection, request, {
      status: "OK",
      position: revision,
      resultDigest: this.#crypto.sha256(result),
      result,
      replier,
    });
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
    if (known) this.reply(connection, known, EVERYBODY);
    else this.#refuse(connection, request, "NOT_PERMITTED");
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
    const { result, replier, ...outcome } = answer;
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
        ...outcome,
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
