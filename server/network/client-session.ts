/**
 * What a gateway says and demands on one client connection, whatever carries it (docs/protocol.md sections 2, 3 and 8):
 * HELLO with a fresh nonce, an AUTH that MACs it, WELCOME, then requests. Every bound is here: handshake deadline, number of
 * connections in all, of strangers and of one client, slow readers alone and together. The carriers (gateway-uws.ts, gateway-ws.ts) only move bytes.
 */
import type { Digest } from "../../protocol/bytes.ts";
import {
  type Auth,
  authStatement,
  CLOSE_CODES,
  decodeClientFrame,
  encodeHello,
  encodeLinks,
  encodeWelcome,
  NONCE_BYTES,
} from "../../protocol/client-frames.ts";
import { type Crypto, equalMacs } from "../../protocol/crypto/contract.ts";
import { isRejection, QuorateError, reject } from "../../protocol/errors.ts";
import { clientIdOf, type Identity, publicKeysFrom, sharedMacKey } from "../../protocol/identity.ts";
import {
  CLIENT_FRAME_BYTES_MAX,
  CONNECTION_QUEUE_BYTES_MAX,
  CONNECTIONS_MAX,
  CONNECTIONS_PER_CLIENT_MAX,
  CONNECTIONS_QUEUE_BYTES_MAX,
  HANDSHAKE_MS_MAX,
  IDLE_CONNECTION_MS_MAX,
  STRANGERS_MAX,
} from "../../protocol/limits.ts";
import type { ClientConnection, GatewayEvents } from "./contract.ts";
import { FloodGuard } from "./flood-guard.ts";

export type CloseName = keyof typeof CLOSE_CODES;

/** Bounds a test may tighten. */
export interface GatewayLimits {
  readonly connectionsMax: number;
  readonly connectionsPerClientMax: number;
  readonly strangersMax: number;
  readonly frameBytesMax: number;
  /** Queued to one connection, and to all of them. */
  readonly queueBytesMax: number;
  readonly queuesBytesMax: number;
  readonly handshakeMs: number;
  readonly idleMs: number;
}

export const GATEWAY_LIMITS: GatewayLimits = {
  connectionsMax: CONNECTIONS_MAX,
  connectionsPerClientMax: CONNECTIONS_PER_CLIENT_MAX,
  strangersMax: STRANGERS_MAX,
  frameBytesMax: CLIENT_FRAME_BYTES_MAX,
  queueBytesMax: CONNECTION_QUEUE_BYTES_MAX,
  queuesBytesMax: CONNECTIONS_QUEUE_BYTES_MAX,
  handshakeMs: HANDSHAKE_MS_MAX,
  idleMs: IDLE_CONNECTION_MS_MAX,
};

/** One WebSocket, as its carrier offers it. After `end` neither `send` nor `end` is called again. */
export interface Carrier {
  readonly remote: string;
  /** Bytes that wait to be read. */
  readonly queuedBytes: number;
  /** Sends at once. False when more than the queue bound waits to be read; the frame is then not sent. */
  send(frame: Uint8Array): boolean;
  /** Runs `send`, whose frames leave in one write behind it. Null: each leaves at once. */
  readonly together: ((send: () => void) => void) | null;
  end(code: number, reason: string): void;
}

/** Says who a client is, or why it may not connect. */
export type Authenticate = (auth: Auth, nonce: Uint8Array) => { client: Digest } | { refused: CloseName };

/**
 * The real check: a client, and in possession of the key (purpose `connect`) for this replica and this nonce; or an
 * administrator, who signs besides, as a client id does not tell who holds a signing key.
 */
export function authenticator(options: {
  crypto: Crypto;
  cluster: Digest;
  replica: number;
  identity: Identity;
  admit(client: Digest): boolean;
  administers(signKey: Uint8Array): boolean;
}): Authenticate {
  const { crypto, cluster, replica, identity, admit, administers } = options;
  return (auth, nonce) => {
    const theirs = publicKeysFrom(auth.keys);
    const client = clientIdOf(crypto, theirs);
    const { signature } = auth;
    const admitted = admit(client);
    if (!admitted && !(signature && administers(theirs.signKey))) return { refused: "NOT_A_CLIENT" };
    try {
      const key = sharedMacKey(crypto, { cluster, mine: identity, theirs, purpose: "connect" });
      const statement = authStatement({ cluster, replica, nonce, client, session: auth.session });
      if (!equalMacs(crypto.mac(key, statement), auth.mac)) return { refused: "UNAUTHENTICATED" };
      const proven = admitted || (signature !== null && crypto.verify(theirs.signKey, statement, signature));
      return proven ? { client } : { refused: "UNAUTHENTICATED" };
    } catch (error) {
      if (error instanceof QuorateError) return { refused: "UNAUTHENTICATED" }; // a key of low order
      throw error;
    }
  };
}

/** Time for the handshake deadline; the simulator brings its own. */
export interface SessionTime {
  /** Milliseconds that never go back. */
  nowMs(): number;
  /** Runs again and again; the returned function ends it. */
  every(periodMs: number, run: () => void): () => void;
}

const REAL_TIME: SessionTime = {
  nowMs: () => performance.now(),
  every(periodMs, run) {
    const timer = setInterval(run, periodMs);
    return () => clearInterval(timer);
  },
};

export interface ClientSessionsOptions {
  readonly crypto: Crypto;
  readonly cluster: Digest;
  readonly replica: number;
  readonly view: number;
  readonly authenticate: Authenticate;
  readonly events: Omit<GatewayEvents, "admit" | "administers">;
  readonly limits: GatewayLimits;
  /** Default: the real one. */
  readonly time?: SessionTime;
}

const WELCOME = encodeWelcome();
/** A connection gets an answer of links at this rate, and as many at once; what it asks beyond is dropped. */
const LINKS_MS_MIN = 250;
const LINKS_AT_ONCE_MAX = 8;
const TEXT_FRAME = reject("punish", "TEXT_FRAME");

/** One connection. The carrier calls `received`, `gone` and `broken`; everybody else uses it as a `ClientConnection`. */
export class ClientSession implements ClientConnection {
  readonly id: number;
  client: Digest = "";
  session = 0;
  readonly openedMs: number;
  readonly nonce: Uint8Array;
  authenticated = false;
  /** Cut off for flooding: not told so before the time for its handshake is over, or it would be back at once, again and again. */
  held = false;
  closed = false;
  /** When its answers of links so far are paid off, at the rate of one per `LINKS_MS_MIN`. */
  linksPaidMs = 0;
  readonly together: ((send: () => void) => void) | null;
  readonly #owner: ClientSessions;
  readonly #carrier: Carrier;

  constructor(options: {
    id: number;
    owner: ClientSessions;
    carrier: Carrier;
    nonce: Uint8Array;
    openedMs: number;
  }) {
    this.id = options.id;
    this.openedMs = options.openedMs;
    this.#owner = options.owner;
    this.#carrier = options.carrier;
    this.nonce = options.nonce;
    const { together } = options.carrier;
    this.together =
      together &&
      ((send) => {
        if (!this.closed) together(send);
      });
  }

  get remote(): string {
    return this.#carrier.remote;
  }

  send(frame: Uint8Array): boolean {
    if (this.closed) return false;
    if (this.#carrier.send(frame)) {
      if (this.#carrier.queuedBytes > 0) this.#owner.queued(this);
      return !this.closed;
    }
    this.fail("TOO_SLOW", "TOO_SLOW");
    return false;
  }

  /** Bytes that the client has not read yet. */
  get queuedBytes(): number {
    return this.closed ? 0 : this.#carrier.queuedBytes;
  }

  turnedAway(bytes: number): void {
    this.#owner.floods.turnedAway(this.client, bytes);
  }

  close(code: number, reason: string): void {
    if (this.closed) return;
    this.closed = true;
    this.#carrier.end(code, reason);
    this.#owner.remove(this);
  }

  /** Counts a fault, then closes. */
  fail(name: CloseName, fault: string): void {
    if (this.closed) return;
    this.#owner.fault(fault, this.remote);
    this.close(CLOSE_CODES[name], name);
  }

  /** One message of the client; a view that is valid during the call. */
  received(frame: Uint8Array, isBinary: boolean): void {
    if (this.closed) return;
    const decoded = isBinary ? decodeClientFrame(frame) : TEXT_FRAME;
    if (isRejection(decoded)) this.fail("BAD_FRAME", decoded.code);
    else if (decoded.type === "FETCH_LINKS") this.#owner.answerLinks(this, decoded.fromView);
    else if (decoded.type === "AUTH") this.#owner.auth(this, decoded);
    else if (this.authenticated) this.#owner.request(this, decoded.envelope, decoded.request);
    else this.fail("UNAUTHENTICATED", "UNAUTHENTICATED");
  }

  /** The carrier lost the connection, or gave it up (`fault`: a message too large, broken framing). */
  gone(fault: string | null): void {
    if (this.closed) return;
    this.closed = true;
    if (fault !== null) this.#owner.fault(fault, this.remote);
    this.#owner.remove(this);
  }
}

/** All connections of one gateway. */
export class ClientSessions {
  readonly events: Omit<GatewayEvents, "admit" | "administers">;
  readonly limits: GatewayLimits;
  readonly floods = new FloodGuard((client) => this.#cutOff(client));
  readonly #options: ClientSessionsOptions;
  readonly #open = new Set<ClientSession>();
  /** Not authenticated yet, oldest first. */
  readonly #strangers = new Set<ClientSession>();
  readonly #bySession = new Map<Digest, Map<number, ClientSession>>();
  /** Those that have not read everything, with what they had to read when last looked at; and the sum. */
  readonly #slow = new Map<ClientSession, number>();
  #queuedBytes = 0;
  readonly #time: SessionTime;
  readonly #endWatch: () => void;
  #lastId = 0;

  constructor(options: ClientSessionsOptions) {
    this.#options = options;
    this.events = options.events;
    this.limits = options.limits;
    this.#time = options.time ?? REAL_TIME;
    this.#endWatch = this.#time.every(Math.min(1_000, options.limits.handshakeMs / 4), () => this.#expire());
  }

  get size(): number {
    return this.#open.size;
  }

  /** Bytes that clients have not read yet, as of the last look at each. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** A new connection: greeted, unless there are too many, when the oldest stranger gives way or else it does. */
  open(carrier: Carrier): ClientSession {
    const { crypto, cluster, replica, view } = this.#options;
    const nonce = crypto.random(NONCE_BYTES);
    const openedMs = this.#time.nowMs();
    const session = new ClientSession({ id: ++this.#lastId, owner: this, carrier, nonce, openedMs });
    if (this.#open.size >= this.limits.connectionsMax || this.#strangers.size >= this.limits.strangersMax) {
      const [oldest] = this.#strangers;
      (oldest ?? session).fail("TOO_MANY_CONNECTIONS", "TOO_MANY_CONNECTIONS");
      if (session.closed) return session;
    }
    this.#open.add(session);
    this.#strangers.add(session);
    session.send(encodeHello({ cluster, replica, view, nonce }));
    return session;
  }

  /** This client has not read everything. When all together have too much to read, the one with most of it is cut off. */
  queued(session: ClientSession): void {
    this.#look(session);
    if (this.#queuedBytes <= this.limits.queuesBytesMax) return;
    for (const each of [...this.#slow.keys()]) this.#look(each);
    if (this.#queuedBytes <= this.limits.queuesBytesMax) return;
    let slowest = session;
    for (const [each, bytes] of this.#slow) if (bytes > (this.#slow.get(slowest) ?? 0)) slowest = each;
    slowest.fail("TOO_SLOW", "TOO_SLOW");
  }

  /** It may have read some by now. */
  #look(session: ClientSession): void {
    const { queuedBytes } = session;
    this.#queuedBytes += queuedBytes - (this.#slow.get(session) ?? 0);
    if (queuedBytes > 0) this.#slow.set(session, queuedBytes);
    else this.#slow.delete(session);
  }

  connectionOf(client: Digest, session: number): ClientConnection | undefined {
    return this.#bySession.get(client)?.get(session);
  }

  /** The last frame of a flood is not looked at any more. */
  request(session: ClientSession, envelope: Uint8Array, request: Uint8Array): void {
    this.floods.came(session.client, request.length, this.#time.nowMs());
    if (!session.closed) this.events.onRequest(session, envelope, request);
  }

  #cutOff(client: Digest): void {
    for (const session of [...(this.#bySession.get(client)?.values() ?? [])]) session.fail("FLOOD", "FLOOD");
  }

  auth(session: ClientSession, auth: Auth): void {
    if (session.authenticated || session.held || auth.session === 0) {
      session.fail("BAD_FRAME", "UNEXPECTED_AUTH");
      return;
    }
    const { crypto, authenticate } = this.#options;
    // Before any key is agreed on: that costs more than all the rest.
    session.held = this.floods.barred(clientIdOf(crypto, publicKeysFrom(auth.keys)), this.#time.nowMs());
    if (session.held) return;
    const outcome = authenticate(auth, session.nonce);
    if ("refused" in outcome) session.fail(outcome.refused, outcome.refused);
    else {
      this.#welcome(session, outcome.client, auth.session);
      if (session.authenticated) this.events.onAuthenticated?.(session, auth.keys);
    }
  }

  /** Anybody may follow the chain of views: who lags behind it has no key that members of now would know. */
  answerLinks(session: ClientSession, fromView: number): void {
    const nowMs = this.#time.nowMs();
    const paidMs = Math.max(session.linksPaidMs, nowMs) + LINKS_MS_MIN;
    if (paidMs - nowMs > LINKS_MS_MIN * LINKS_AT_ONCE_MAX) {
      this.fault("LINKS_RATE", session.remote);
      return;
    }
    session.linksPaidMs = paidMs;
    session.send(encodeLinks(fromView, this.events.links?.(fromView) ?? []));
  }

  #welcome(session: ClientSession, client: Digest, number: number): void {
    if (!this.#mayStay(client, number)) {
      session.fail("TOO_MANY_CONNECTIONS", "TOO_MANY_CONNECTIONS");
      return;
    }
    this.#strangers.delete(session);
    session.client = client;
    session.session = number;
    session.authenticated = true;
    let sessions = this.#bySession.get(client);
    if (!sessions) {
      sessions = new Map();
      this.#bySession.set(client, sessions);
    }
    const older = sessions.get(number);
    sessions.set(number, session);
    older?.close(CLOSE_CODES.SUPERSEDED, "SUPERSEDED");
    session.send(WELCOME);
  }

  /** Room for one more connection of this client? Who has most of them gives one up for a client that has fewer. */
  #mayStay(client: Digest, session: number): boolean {
    const { connectionsMax, connectionsPerClientMax, strangersMax } = this.limits;
    const own = this.#bySession.get(client);
    if (own?.has(session)) return true;
    if (own && own.size >= connectionsPerClientMax) return false;
    const kept = Math.min(strangersMax, Math.floor(connectionsMax / 10));
    if (this.#open.size - this.#strangers.size < connectionsMax - kept) return true;
    let most: ReadonlyMap<number, ClientSession> = new Map();
    for (const sessions of this.#bySession.values()) if (sessions.size > most.size) most = sessions;
    if (most.size <= (own?.size ?? 0) + 1) return false;
    [...most.values()].at(-1)?.fail("TOO_MANY_CONNECTIONS", "TOO_MANY_CONNECTIONS");
    return true;
  }

  fault(code: string, remote: string): void {
    this.events.onFault({ code, remote });
  }

  remove(session: ClientSession): void {
    this.#strangers.delete(session);
    this.#queuedBytes -= this.#slow.get(session) ?? 0;
    this.#slow.delete(session);
    if (!this.#open.delete(session) || !session.authenticated) return;
    const sessions = this.#bySession.get(session.client);
    if (sessions?.get(session.session) === session) {
      sessions.delete(session.session);
      if (sessions.size === 0) this.#bySession.delete(session.client);
    }
    this.events.onClosed(session);
  }

  /** Says goodbye to everybody. */
  close(): void {
    this.#endWatch();
    for (const session of this.#open) session.close(CLOSE_CODES.GOING_AWAY, "GOING_AWAY");
  }

  #expire(): void {
    for (const session of [...this.#slow.keys()]) this.#look(session);
    const openedBefore = this.#time.nowMs() - this.limits.handshakeMs;
    for (const session of this.#strangers) {
      if (session.openedMs > openedBefore) return;
      if (session.held) session.fail("FLOOD", "FLOOD");
      else session.fail("UNAUTHENTICATED", "HANDSHAKE_TIMEOUT");
    }
  }
}
