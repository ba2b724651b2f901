/**
 * An in-memory cluster without consensus: one sequencer executes requests in the order they arrive, every fake replica
 * answers through the real frames, checks the real MACs, and can be made faulty. Time is the test's: `FakeClock`.
 */
import type { Channel, ChannelEvents, Clock, Scheduled, Transport } from "../../../client/ports.ts";
import { encodeAdministrationResult } from "../../../protocol/administration.ts";
import { encodeBatch } from "../../../protocol/batch.ts";
import type { Digest } from "../../../protocol/bytes.ts";
import { EMPTY, hex, utf8 } from "../../../protocol/bytes.ts";
import {
  authStatement,
  CLOSE_CODES,
  decodeClientFrame,
  encodeHello,
  encodeLinks,
  encodeReply,
  encodeWelcome,
  type ReplyBody,
  type ReplyStatus,
} from "../../../protocol/client-frames.ts";
import { type Cluster, type ClusterFile, clusterOf } from "../../../protocol/cluster.ts";
import type { MacKey } from "../../../protocol/crypto/contract.ts";
import { nodeCrypto as crypto } from "../../../protocol/crypto/node.ts";
import { isRejection } from "../../../protocol/errors.ts";
import { clientIdOf, type Identity, type Purpose, publicKeysFrom, sharedMacKey } from "../../../protocol/identity.ts";
import { Writer } from "../../../protocol/layout.ts";
import { LARGE_RESULT_BYTES } from "../../../protocol/limits.ts";
import { type DecidedBatch, nextView, reconfigurationResult } from "../../../protocol/next-view.ts";
import type { Change } from "../../../protocol/reconfiguration.ts";
import {
  decodeEnvelope,
  decodeRequest,
  type Envelope,
  EVERYBODY,
  macAt,
  type Request,
  requestStatement,
} from "../../../protocol/request.ts";
import { type Member, positionOf, type View } from "../../../protocol/view.ts";
import { encodeLink, type Link } from "../../../protocol/view-chain.ts";
import { Executor, foundingOf } from "../../../server/service/executor.ts";
import { KvService } from "../../../server/service/kv-service.ts";
import { Reconfigured } from "../protocol/view-fixture.ts";

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
  member: Member;
  identity: Identity;
  /** Installed here. */
  view: View;
  /** The links it serves. */
  links: (fromView: number) => readonly Uint8Array[];
  /** How often it was asked for links. */
  fetches = 0;
  silentAboutLinks = false;
  behaviour: Behaviour | null = null;
  /** Refuses connections. */
  down = false;
  hello: { cluster?: Digest; replica?: number; view?: number } = {};
  closeCode: number | null = null;
  /** Requests received, with their envelopes. */
  readonly received: { request: Request; envelope: Envelope }[] = [];
  readonly sessions: number[] = [];

  constructor(options: {
    member: Member;
    identity: Identity;
    view: View;
    links: (fromView: number) => readonly Uint8Array[];
  }) {
    this.member = options.member;
    this.identity = options.identity;
    this.view = options.view;
    this.links = options.links;
  }

  get id(): number {
    return this.member.id;
  }
}

export class FakeCluster implements Transport {
  readonly clock: Clock;
  readonly file: ClusterFile;
  readonly cluster: Cluster;
  /** Every replica that ever was a member, also those that left. */
  readonly replicas: FakeReplica[];
  /** Who signs what. */
  readonly world: Reconfigured;
  /** Made by `reconfigure`, oldest first. */
  readonly links: Link[] = [];
  /** Frames that failed an honest replica's checks. */
  readonly faults: string[] = [];
  /** Every ordered request, once, in the order it was executed. */
  readonly executed: Request[] = [];
  /** Called when a view is about to be installed. */
  onInstall: () => void = () => undefined;
  /** How far the agreed time is ahead of the client's. */
  aheadMs = 0;
  /** Stops executing; requests wait in order. */
  paused = false;
  openChannels = 0;
  #executor: Executor;
  #instance = 0;
  readonly #connections = new Set<FakeConnection>();
  readonly #waiting: { request: Request; arrivals: [FakeConnection, Envelope][] }[] = [];
  readonly #answers = new Map<string, Answer>();
  readonly #keys = new Map<string, MacKey>();

  constructor(options: {
    n?: number;
    f?: number;
    mode?: "bft" | "cft";
    administrators?: number;
    threshold?: number;
    clock: Clock;
  }) {
    this.clock = options.clock;
    this.world = new Reconfigured(options);
    const { genesis, administrators } = this.world;
    this.file = {
      format: 1,
      clusterId: hex(this.world.cluster),
      mode: genesis.mode,
      f: genesis.f,
      members: genesis.members.map((member) => ({
        ...member,
        signKey: hex(member.signKey),
        boxKey: hex(member.boxKey),
      })),
      administrators: administrators.map(({ signKey }) => hex(signKey)),
      administratorThreshold: genesis.administratorThreshold,
      clients: "open",
      signedRequests: false,
      maxClients: 100,
    };
    this.cluster = clusterOf(crypto, this.file);
    this.replicas = genesis.members.map((member) => this.#newReplica(member, genesis));
    this.#executor = new Executor({
      crypto,
      ...foundingOf(this.cluster),
      stored: { get: () => undefined },
      applied: { instance: 0, digest: this.cluster.genesis, timestampMs: 0 },
      service: (state) => new KvService(state),
    });
  }

  replica(id: number): FakeReplica {
    const replica = this.replicas.find((other) => other.id === id);
    if (!replica) throw new Error(`no replica ${id}`);
    return replica;
  }

  #newReplica(member: Member, view: View): FakeReplica {
    const identity = this.world.identities.get(member.id) as Identity;
    return new FakeReplica({ member, identity, view, links: (from) => this.links.slice(from).map(encodeLink) });
  }

  /** The newest view. */
  get view(): View {
    return this.replicas.reduce((newest, { view }) => (view.id > newest.id ? view : newest), this.world.genesis);
  }

  /**
   * Another view: its members, and those that left, install it at once, `except` some. Connections stay, but those that a
   * replica with other keys, or at another address, cannot go on with.
   */
  reconfigure(changeOf: (view: View) => Change, options: { except?: readonly number[] } = {}): View {
    const before = this.view;
    const { link, view } = this.world.step(before, changeOf, 1_000 * (before.id + 1));
    this.#install({ link, view, except: options.except ?? [] });
    return view;
  }

  #install({ link, view, except }: { link: Link; view: View; except: readonly number[] }): void {
    this.links.push(link);
    this.onInstall();
    for (const member of view.members) {
      const known = this.replicas.find(({ id }) => id === member.id);
      if (!known) this.replicas.push(this.#newReplica(member, view));
      else if (JSON.stringify(known.member) !== JSON.stringify(member)) {
        known.member = member;
        known.identity = this.world.identities.get(member.id) as Identity;
        this.disconnect(known);
      }
    }
    for (const replica of this.replicas) if (!except.includes(replica.id)) replica.view = view;
  }

  /** The result of an `administer` request: a RECONFIGURE is made, and in force at once. */
  #administer(batch: DecidedBatch): Uint8Array {
    const before = this.view;
    const next = nextView(crypto, before, batch);
    if ("view" in next) {
      const requests = batch.requests.map(({ bytes }) => bytes);
      const instance = 1_000 * (before.id + 1);
      const encoded = encodeBatch({ instance, timestampMs: batch.timestampMs, requests });
      const link = this.world.link(before, encoded, { instance, identities: this.world.identitiesOf(before) });
      this.#install({ link, view: next.view, except: [] });
    }
    return encodeAdministrationResult(reconfigurationResult(next));
  }

  #key(replica: FakeReplica, keys: Uint8Array, purpose: Purpose): MacKey {
    const name = `${hex(replica.identity.boxKey)} ${purpose} ${hex(keys)}`;
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

  /** Who listens there: the newest replica, or, where nobody is left, one that is down. */
  #listener({ clientPort, id }: Member): FakeReplica {
    const there = this.replicas.filter(({ member }) => member.clientPort === clientPort);
    return there[there.length - 1] ?? new FakeReplica({ ...this.replica(id), links: () => [] });
  }

  open(member: Member, events: ChannelEvents): Channel {
    const replica = this.#listener(member);
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
      if (replica.down || !this.replicas.includes(replica))
        this.#close(connection, { code: 0, reason: "ECONNREFUSED" });
      else if (replica.closeCode !== null) this.#close(connection, { code: replica.closeCode, reason: "" });
      else {
        const { cluster = this.cluster.id, replica: id = replica.id, view = replica.view.id } = replica.hello;
        events.onFrame(encodeHello({ cluster, replica: id, view, nonce: connection.nonce }));
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
    if (frame.type === "FETCH_LINKS") {
      replica.fetches++;
      if (!replica.silentAboutLinks)
        connection.events.onFrame(encodeLinks(frame.fromView, replica.links(frame.fromView)));
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
      if (crypto.mac(key, statement) !== frame.mac) {
        this.faults.push("AUTH");
        this.#close(connection, { code: CLOSE_CODES.UNAUTHENTICATED, reason: "UNAUTHENTICATED" });
        return;
      }
      connection.client = client;
      connection.session = session;
      connection.keys = frame.keys;
      replica.sessions.push(session);
      connection.events.onFrame(encodeWelcome());
      return;
    }
    const request = decodeRequest(crypto, frame.request);
    const envelope = decodeEnvelope(frame.envelope);
    const installed = replica.view.id;
    if (envelope.view !== installed) {
      if (envelope.view < installed) {
        const advice: Answer = { status: "NEWER_VIEW", body: "full", result: EMPTY };
        connection.events.onFrame(this.#encode(connection, request, advice));
      }
      return;
    }
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
    if (authenticator.type === "vector")
      return macAt(authenticator.macs, positionOf(replica.view, replica.id)) === expected;
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
      const batch = {
        instance: ++this.#instance,
        timestampMs: this.clock.wallMs() + this.aheadMs,
        requests: [request],
      };
      const [executed] = this.#executor.execute(batch, this.cluster.genesis);
      if (!executed) throw new Error("no reply");
      const administered = request.kind === "administer" ? this.#administer(batch) : null;
      const reply = administered
        ? { ...executed, result: administered, resultDigest: crypto.sha256(administered) }
        : executed;
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
      view: answer.view ?? replica.view.id,
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
