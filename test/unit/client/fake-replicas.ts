/**
 * An in-memory cluster without consensus: one sequencer executes requests in the order they arrive, every fake replica
 * answers through the real frames, checks the real MACs, and can be made faulty. Time is the test's: `FakeClock`.
 */
import type { Channel, ChannelEvents, Clock, Scheduled, Transport } from "../../../client/ports.ts";
import type { Digest } from "../../../protocol/bytes.ts";
import { EMPTY, hex, utf8 } from "../../../protocol/bytes.ts";
import {
  authStatement,
  decodeClientFrame,
  encodeHello,
  encodeReply,
  encodeWelcome,
  type ReplyBody,
  type ReplyStatus,
} from "../../../protocol/client-frames.ts";
import { type Cluster, type ClusterFile, clusterOf } from "../../../protocol/cluster.ts";
import type { MacKey } from "../../../protocol/crypto/contract.ts";
import { nodeCrypto as crypto } from "../../../protocol/crypto/node.ts";
import { isRejection } from "../../../protocol/errors.ts";
import {
  clientIdOf,
  type Identity,
  newIdentity,
  type Purpose,
  publicKeysFrom,
  sharedMacKey,
} from "../../../protocol/identity.ts";
import { Writer } from "../../../protocol/layout.ts";
import { LARGE_RESULT_BYTES } from "../../../protocol/limits.ts";
import {
  decodeEnvelope,
  decodeRequest,
  type Envelope,
  EVERYBODY,
  macAt,
  type Request,
  requestStatement,
} from "../../../protocol/request.ts";
import type { Member } from "../../../protocol/view.ts";
import { Executor, foundingOf } from "../../../server/service/executor.ts";
import { KvService } from "../../../server/service/kv-service.ts";

export { crypto };

/** Time that passes only in `advance`; turns end when the test lets them. Deterministic. */
export class FakeClock implements Clock {
  now = 1_000;
  readonly #timers = new Set<{ at: number; run: () => void }>();
  readonly #turn: (() => void)[] = [];
  #seed = 1;

  monotonicMs(): number {
    return this.now;
  }

  wallMs(): number {
    return 1_790_000_000_000 + this.now;
  }

  after(delayMs: number, run: () => void): Scheduled {
    const timer = { at: this.now + delayMs, run };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  turnEnd(run: () => void): void {
    this.#turn.push(run);
  }

  random(): number {
    this.#seed = (this.#seed * 48_271) % 2_147_483_647;
    return this.#seed / 2_147_483_647;
  }

  get timers(): number {
    return this.#timers.size;
  }

  /** Runs everything that is ready, microtasks included, without letting time pass. */
  async settle(): Promise<void> {
    for (let idle = 0; idle < 40; idle++) {
      await Promise.resolve();
      if (this.#turn.length > 0) idle = 0;
      for (const run of this.#turn.splice(0)) run();
    }
  }

  /** Lets time pass, timer by timer. */
  async advance(ms: number): Promise<void> {
    const end = this.now + ms;
    await this.settle();
    for (;;) {
      let next: { at: number; run: () => void } | undefined;
      for (const timer of this.#timers) if (timer.at <= end && (!next || timer.at < next.at)) next = timer;
      if (!next) break;
      this.#timers.delete(next);
      this.now = Math.max(this.now, next.at);
      next.run();
      await this.settle();
    }
    this.now = end;
  }
}

/** What a replica says instead of the truth. Null: nothing at all. */
export interface Answer {
  status: ReplyStatus;
  body: ReplyBody;
  result: Uint8Array;
  resultDigest?: Digest;
  view?: number;
  requestDigest?: Digest;
  corruptMac?: boolean;
  corruptBody?: boolean;
  delayMs?: number;
}

/** Turns the honest answer into what the replica sends. */
export type Behaviour = (honest: Answer, request: Request, replica: FakeReplica) => Answer | Answer[] | null;

export const behaviours = {
  silent: () => null,
  wrongResult: (honest: Answer) => {
    const result = utf8("lies");
    return { ...honest, body: "full" as const, result, resultDigest: crypto.sha256(result) };
  },
  wrongMac: (honest: Answer) => ({ ...honest, corruptMac: true }),
  wrongBody: (honest: Answer) => ({ ...honest, body: "full" as const, corruptBody: true }),
  /** Keeps the bytes to itself, digests only. */
  withholding: (honest: Answer) => ({ ...honest, body: "digest" as const }),
  gone: (honest: Answer) => ({ ...honest, body: "gone" as const }),
  delayed: (delayMs: number) => (honest: Answer) => ({ ...honest, delayMs }),
  says:
    (status: ReplyStatus, result: Uint8Array = EMPTY) =>
    () => ({ status, body: "full" as const, result }),
  expired: (watermark: number) => () => ({
    status: "SESSION_EXPIRED" as const,
    body: "full" as const,
    result: new Writer(8).u53(watermark).finish(),
  }),
} satisfies Record<string, unknown>;

interface FakeConnection {
  readonly replica: FakeReplica;
  readonly events: ChannelEvents;
  readonly nonce: Uint8Array;
  open: boolean;
  client: Digest | null;
  session: number;
  keys: Uint8Array;
}

export class FakeReplica {
  readonly member: Member;
  readonly identity: Identity;
  behaviour: Behaviour | null = null;
  /** Refuses connections. */
  down = false;
  hello: { cluster?: Digest; replica?: number } = {};
  closeCode: number | null = null;
  /** Requests received, with their envelopes. */
  readonly received: { request: Request; envelope: Envelope }[] = [];
  readonly sessions: number[] = [];

  constructor(member: Member, identity: Identity) {
    this.member = member;
    this.identity = identity;
  }

  get id(): number {
    return this.member.id;
  }
}

export class FakeCluster implements Transport {
  readonly clock: Clock;
  readonly file: ClusterFile;
  readonly cluster: Cluster;
  readonly replicas: FakeReplica[];
  /** Frames that failed an honest replica's checks. */
  readonly faults: string[] = [];
  /** Every ordered request, once, in the order it was executed. */
  readonly executed: Request[] = [];
  /** Stops executing; requests wait in order. */
  paused = false;
  openChannels = 0;
  #executor: Executor;
  #instance = 0;
  readonly #connections = new Set<FakeConnection>();
  readonly #waiting: { request: Request; arrivals: [FakeConnection, Envelope][] }[] = [];
  readonly #answers = new Map<string, Answer>();
  readonly #keys = new Map<string, MacKey>();

  constructor(options: { n?: number; f?: number; mode?: "bft" | "cft"; clock: Clock }) {
    const { n = 4, f = Math.floor((n - 1) / 3), mode = "bft" } = options;
    this.clock = options.clock;
    const identities = Array.from({ length: n }, () => newIdentity(crypto));
    this.file = {
      format: 1,
      clusterId: hex(crypto.random(32)),
      mode,
      f,
      members: identities.map((identity, id) => ({
        id,
        host: "127.0.0.1",
        clientPort: 7000 + 10 * id,
        peerPort: 7001 + 10 * id,
        adminPort: 7002 + 10 * id,
        signKey: hex(identity.signKey),
        boxKey: hex(identity.boxKey),
      })),
      administrators: [hex(crypto.random(32))],
      clients: "open",
      signedRequests: false,
      maxClients: 100,
    };
    this.cluster = clusterOf(crypto, this.file);
    this.replicas = this.cluster.view.members.map((member, at) => new FakeReplica(member, identities[at] as Identity));
    this.#executor = new Executor({
      crypto,
      ...foundingOf(this.cluster),
      stored: { get: () => undefined },
      applied: { instance: 0, digest: this.cluster.genesis, timestampMs: 0 },
      service: (state) => new KvService(state),
    });
  }

  replica(id: number): FakeReplica {
    const replica = this.replicas[id];
    if (!replica) throw new Error(`no replica ${id}`);
    return replica;
  }

  #key(replica: FakeReplica, keys: Uint8Array, purpose: Purpose): MacKey {
    const name = `${replica.id} ${purpose} ${hex(keys)}`;
    let key = this.#keys.get(name);
    if (!key) {
      const theirs = publicKeysFrom(keys);
      key = sharedMacKey(crypto, { cluster: this.cluster.id, mine: replica.identity, theirs, purpose });
      this.#keys.set(name, key);
    }
    return key;
  }

  /** Drops this replica's connections, as a crash would. */
  disconnect(replica: FakeReplica): void {
    for (const connection of [...this.#connections]) {
      if (connection.replica === replica) this.#close(connection, { code: 1006, reason: "" });
    }
  }

  /** Sends bytes of the test's choice on this replica's connections. */
  inject(replica: FakeReplica, bytes: Uint8Array): void {
    for (const connection of [...this.#connections]) {
      if (connection.replica === replica) connection.events.onFrame(bytes);
    }
  }

  /** This replica answers every request that waits with advice. */
  advise(replica: FakeReplica, status: ReplyStatus): void {
    for (const { request, arrivals } of this.#waiting) {
      const arrival = arrivals.find(([connection]) => connection.replica === replica && connection.open);
      if (!arrival) continue;
      const [connection] = arrival;
      connection.events.onFrame(this.#encode(connection, request, { status, body: "full", result: EMPTY }));
    }
  }

  /** Requests that wait are lost, as if they had never arrived. */
  forgetWaiting(): void {
    this.#waiting.length = 0;
  }

  resume(): void {
    this.paused = false;
    this.#drain();
  }

  open(member: Member, events: ChannelEvents): Channel {
    const replica = this.replica(member.id);
    const connection: FakeConnection = {
      replica,
      events,
      nonce: crypto.random(32),
      open: true,
      client: null,
      session: 0,
      keys: EMPTY,
    };
    this.#connections.add(connection);
    this.openChannels++;
    this.clock.turnEnd(() => {
      if (!connection.open) return;
      if (replica.down) this.#close(connection, { code: 0, reason: "ECONNREFUSED" });
      else if (replica.closeCode !== null) this.#close(connection, { code: replica.closeCode, reason: "" });
      else {
        const { cluster = this.cluster.id, replica: id = replica.id } = replica.hello;
        events.onFrame(encodeHello({ cluster, replica: id, view: this.cluster.view.id, nonce: connection.nonce }));
      }
    });
    return {
      queuedBytes: 0,
      send: (frame) => {
        const copy = Uint8Array.from(frame);
        this.clock.turnEnd(() => {
          if (connection.open) this.#onFrame(connection, copy);
        });
      },
      close: () => this.clock.turnEnd(() => this.#close(connection, { code: 1000, reason: "" })),
    };
  }

  #close(connection: FakeConnection, closed: { code: number; reason: string }): void {
    if (!connection.open) return;
    connection.open = false;
    this.openChannels--;
    this.#connections.delete(connection);
    connection.events.onClosed(closed);
  }

  #onFrame(connection: FakeConnection, bytes: Uint8Array): void {
    const frame = decodeClientFrame(bytes);
    const { replica } = connection;
    if (isRejection(frame)) {
      this.faults.push(frame.code);
      return;
    }
    if (frame.type === "AUTH") {
      const theirs = publicKeysFrom(frame.keys);
      const client = clientIdOf(crypto, theirs);
      const { session } = frame;
      const key = sharedMacKey(crypto, {
        cluster: this.cluster.id,
        mine: replica.identity,
        theirs,
        purpose: "connect",
      });
      const { nonce } = connection;
      const statement = authStatement({ cluster: this.cluster.id, replica: replica.id, nonce, client, session });
      if (crypto.mac(key, statement) !== frame.mac) this.faults.push("AUTH");
      connection.client = client;
      connection.session = session;
      connection.keys = frame.keys;
      replica.sessions.push(session);
      connection.events.onFrame(encodeWelcome());
      return;
    }
    const request = decodeRequest(crypto, frame.request);
    const envelope = decodeEnvelope(frame.envelope);
    if (!this.#authentic(connection, request, envelope)) {
      this.faults.push("AUTHENTICATOR");
      return;
    }
    replica.received.push({ request, envelope });
    this.#serve(connection, request, envelope);
  }

  #authentic(connection: FakeConnection, request: Request, envelope: Envelope): boolean {
    const { replica } = connection;
    if (request.client !== connection.client || request.session !== connection.session) return false;
    const theirs = publicKeysFrom(connection.keys);
    const key = this.#key(replica, connection.keys, "client-to-replica");
    const statement = Uint8Array.from(requestStatement(this.cluster.id, envelope.view, request.digest));
    const expected = crypto.mac(key, statement).slice(0, 16);
    const { authenticator } = envelope;
    if (authenticator.type === "vector") return macAt(authenticator.macs, replica.id) === expected;
    return authenticator.mac === expected && crypto.verify(theirs.signKey, statement, authenticator.signature);
  }

  #serve(connection: FakeConnection, request: Request, envelope: Envelope): void {
    if (request.kind === "unordered") {
      const answer = this.#executor.query(request);
      const honest: Answer = answer
        ? { status: "OK", body: "full", result: answer.result }
        : { status: "NOT_READY", body: "full", result: EMPTY };
      this.#reply(connection, request, envelope, honest);
      return;
    }
    const known = this.#answers.get(request.digest);
    if (known) {
      this.#reply(connection, request, envelope, known);
      return;
    }
    const waiting = this.#waiting.find(({ request: other }) => other.digest === request.digest);
    if (waiting) waiting.arrivals.push([connection, envelope]);
    else this.#waiting.push({ request, arrivals: [[connection, envelope]] });
    if (!this.paused) this.#drain();
  }

  /** Executes what waits, each request as a batch of its own. */
  #drain(): void {
    for (const { request, arrivals } of this.#waiting.splice(0)) {
      const batch = { instance: ++this.#instance, timestampMs: this.clock.wallMs(), requests: [request] };
      const [reply] = this.#executor.execute(batch, this.cluster.genesis);
      if (!reply) throw new Error("no reply");
      if (reply.status === "OK" && request.kind === "ordered") this.executed.push(request);
      const honest: Answer = {
        status: reply.status,
        body: reply.result ? "full" : "gone",
        result: reply.result ?? EMPTY,
        resultDigest: reply.resultDigest,
      };
      if (reply.status === "OK") this.#answers.set(request.digest, honest);
      for (const [connection, envelope] of arrivals) this.#reply(connection, request, envelope, honest);
    }
  }

  #reply(connection: FakeConnection, request: Request, envelope: Envelope, truth: Answer): void {
    const { replica } = connection;
    const mine = envelope.replier === replica.id || envelope.replier === EVERYBODY;
    const large = truth.result.length > LARGE_RESULT_BYTES && !mine;
    const honest: Answer = { ...truth, body: truth.body === "full" && large ? "digest" : truth.body };
    const said = replica.behaviour ? replica.behaviour({ ...honest, result: truth.result }, request, replica) : honest;
    for (const answer of said === null ? [] : Array.isArray(said) ? said : [said]) {
      const frame = this.#encode(connection, request, answer);
      const deliver = () => {
        if (connection.open) connection.events.onFrame(frame);
      };
      if (answer.delayMs) this.clock.after(answer.delayMs, deliver);
      else this.clock.turnEnd(deliver);
    }
  }

  #encode(connection: FakeConnection, request: Request, answer: Answer): Uint8Array {
    const { replica } = connection;
    const key = this.#key(replica, connection.keys, "replica-to-client");
    const ids = { cluster: this.cluster.id, client: request.client };
    const { status, body, result, corruptMac = false, corruptBody = false } = answer;
    const { session, sequence, kind } = request;
    const frame = encodeReply(crypto, key, ids, {
      replica: replica.id,
      view: answer.view ?? this.cluster.view.id,
      session,
      sequence,
      kind,
      requestDigest: answer.requestDigest ?? request.digest,
      status,
      position: this.#instance,
      resultDigest: answer.resultDigest ?? crypto.sha256(result),
      body,
      result: body === "full" ? (corruptBody ? utf8("corrupt") : result) : EMPTY,
    });
    const macAt = 1 + 4 + 4 + 8 + 8 + 1 + 32 + 1 + 8 + 32;
    if (corruptMac) frame[macAt] = (frame[macAt] ?? 0) ^ 1;
    return frame;
  }
}
