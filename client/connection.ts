/**
 * One connection to one replica: handshake (HELLO, AUTH, WELCOME), reconnection with jittered back-off, and the faults met
 * on the way (docs/protocol.md section 2). A connection belongs to one session at a time; requests are sent only once
 * the gateway has welcomed it. A replica that names a newer view is asked for links (section 7) at once, even before it is
 * known to be the member: links prove themselves. Invariants: 1. at most one channel is open. 2. `onReady` is called once per
 * channel. 3. nothing is reported after `close()`. 4. links are asked for at most once per `LINKS_PAUSE_MS`, unless the last
 * answer led on.
 */
import type { Digest } from "../protocol/bytes.ts";
import {
  CLOSE_CODES,
  decodeGatewayFrame,
  encodeFetchLinks,
  type Hello,
  type Links,
  type Reply,
} from "../protocol/client-frames.ts";
import { assertNever, type ErrorCode, isRejection } from "../protocol/errors.ts";
import { CONNECTION_QUEUE_BYTES_MAX, HANDSHAKE_MS_MAX } from "../protocol/limits.ts";
import type { Member } from "../protocol/view.ts";
import type { Credentials } from "./credentials.ts";
import type { Channel, ChannelClosed, Clock, Scheduled, Transport } from "./ports.ts";
import type { LinksVerdict } from "./view-follower.ts";

const BACKOFF_MS_MIN = 100;
/** Short, because a client without a quorum waits for the next try; an attempt costs next to nothing. */
const BACKOFF_MS_MAX = 1_000;
/** For a replica that waiting will not cure: another cluster, a refused identity. */
const DEFINITE_BACKOFF_MS = 5_000;
/** A replica that was sent requests and said nothing for so long: the connection may be half open, so try another. */
const SILENCE_MS_MAX = 15_000;
const LINKS_PAUSE_MS = 500;

/** Why a replica cannot be used now. `definite`: waiting will not help. */
export interface ConnectionFault {
  readonly code: ErrorCode;
  readonly message: string;
  readonly definite: boolean;
}

export interface ConnectionEvents {
  onReady(position: number): void;
  /** Not verified yet. */
  onReply(position: number, reply: Reply): void;
  /** May lead to another view: this connection may have another place, or be closed, when it returns. */
  onLinks(links: Links): LinksVerdict;
  onFault(position: number, fault: ConnectionFault): void;
}

/** Which member of which view a connection leads to, and what proves the client to it. */
export interface Place {
  readonly position: number;
  readonly view: number;
  readonly credentials: Credentials;
}

export interface ConnectionOptions {
  readonly place: Place;
  readonly member: Member;
  readonly cluster: Digest;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly events: ConnectionEvents;
}

export class Connection {
  readonly member: Member;
  readonly #options: ConnectionOptions;
  #place: Place;
  #session = 0;
  #channel: Channel | null = null;
  #ready = false;
  #closed = false;
  #greeted = false;
  /** Somebody else answers at the member's address. */
  #misplaced = false;
  /** The newest view that the replica names; proves nothing. */
  #namedView = 0;
  #linksAwaited = false;
  #linksAgainAt = 0;
  #fault: ConnectionFault | null = null;
  #faults = 0;
  #attempts = 0;
  #unansweredSince = 0;
  #timer: Scheduled | null = null;
  #whenDown: (() => void) | null = null;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#place = options.place;
    this.member = options.member;
  }

  /** Welcomed by the gateway: `send` reaches the replica. */
  get ready(): boolean {
    return this.#ready;
  }

  /** The newest fault, or null while the connection is ready. */
  get fault(): ConnectionFault | null {
    return this.#ready ? null : this.#fault;
  }

  /** How often this replica broke the protocol: garbage, a wrong MAC, another cluster. */
  get faults(): number {
    return this.#faults;
  }

  /** Opens, or opens again for another session. */
  open(session: number): void {
    this.#session = session;
    this.#attempts = 0;
    this.#drop();
    this.#connect();
  }

  /** False when it was not taken: not ready, or too much is queued. A resend repairs that. */
  send(frame: Uint8Array): boolean {
    const channel = this.#channel;
    if (!this.#ready || channel === null || channel.queuedBytes > CONNECTION_QUEUE_BYTES_MAX) return false;
    const now = this.#options.clock.monotonicMs();
    if (this.#unansweredSince === 0) this.#unansweredSince = now;
    else if (now - this.#unansweredSince > SILENCE_MS_MAX) {
      this.#fail({ code: "TIMEOUT", message: `no answer for ${SILENCE_MS_MAX / 1000} s`, definite: false });
      return false;
    }
    channel.send(frame);
    return true;
  }

  /** It answered a request with a valid MAC: forget earlier failures. */
  vouch(): void {
    this.#attempts = 0;
  }

  /** It broke the protocol: count it, close, come back later. */
  punish(message: string): void {
    this.#faults++;
    this.#fail({ code: "REFUSED", message, definite: false });
  }

  /** The same member in another view. */
  move(place: Place): void {
    this.#place = place;
    this.#fetchLinks();
  }

  /** The replica says that it is in this view. */
  onNamedView(view: number): void {
    this.#namedView = view;
    this.#fetchLinks();
  }

  /** Asks for the way to the view that the replica names, if that is a newer one. */
  #fetchLinks(): void {
    const now = this.#options.clock.monotonicMs();
    const { view } = this.#place;
    if (this.#channel === null || this.#namedView <= view || now < this.#linksAgainAt) return;
    this.#linksAgainAt = now + LINKS_PAUSE_MS;
    this.#linksAwaited = true;
    this.#channel.send(encodeFetchLinks(view));
  }

  /** Closes for good; resolves when the channel is gone. */
  close(): Promise<void> {
    this.#closed = true;
    const channel = this.#channel;
    this.#ready = false;
    this.#timer?.cancel();
    this.#timer = null;
    if (channel === null) return Promise.resolve();
    return new Promise((resolve) => {
      this.#whenDown = resolve;
      channel.close();
    });
  }

  #connect(): void {
    const { transport, clock, member } = this.#options;
    this.#greeted = false;
    this.#misplaced = false;
    this.#namedView = 0;
    this.#linksAwaited = false;
    this.#unansweredSince = 0;
    const channel: Channel = transport.open(member, {
      onFrame: (bytes) => {
        if (this.#channel === channel && !this.#closed) this.#onFrame(channel, bytes);
      },
      onClosed: (closed) => {
        if (this.#channel === channel) this.#onClosed(closed);
      },
    });
    this.#channel = channel;
    this.#timer = clock.after(HANDSHAKE_MS_MAX, () =>
      this.#fail({ code: "TIMEOUT", message: "it does not complete the handshake", definite: false }),
    );
  }

  /** Lets go of the channel; what it still reports is ignored. */
  #drop(): void {
    const channel = this.#channel;
    this.#channel = null;
    this.#ready = false;
    this.#timer?.cancel();
    this.#timer = null;
    channel?.close();
  }

  #fail(fault: ConnectionFault): void {
    this.#drop();
    this.#fault = fault;
    const { clock, events } = this.#options;
    const delay = fault.definite
      ? DEFINITE_BACKOFF_MS
      : Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(this.#attempts, 16));
    this.#attempts++;
    this.#timer = clock.after(delay * (0.5 + clock.random() / 2), () => this.#connect());
    events.onFault(this.#place.position, fault);
  }

  #onClosed(closed: ChannelClosed): void {
    this.#channel = null;
    if (this.#closed) this.#whenDown?.();
    else this.#fail(faultOf(closed));
  }

  #onFrame(channel: Channel, bytes: Uint8Array): void {
    const frame = decodeGatewayFrame(bytes);
    if (isRejection(frame)) {
      this.punish(`it sent a malformed frame (${frame.code})`);
      return;
    }
    this.#unansweredSince = 0;
    switch (frame.type) {
      case "REPLY":
        if (this.#ready) this.#options.events.onReply(this.#place.position, frame);
        return;
      case "LINKS":
        this.#onLinks(frame);
        return;
      case "HELLO":
        this.#greet(channel, frame);
        return;
      case "WELCOME":
        if (!this.#greeted || this.#ready) {
          this.punish("it sent an unexpected frame");
          return;
        }
        this.#ready = true;
        this.#timer?.cancel();
        this.#timer = null;
        this.#options.events.onReady(this.#place.position);
        return;
      default:
        assertNever(frame);
    }
  }

  #greet(channel: Channel, hello: Hello): void {
    const { cluster, member } = this.#options;
    if (this.#greeted || this.#misplaced) {
      this.punish("it greeted twice");
      return;
    }
    if (hello.cluster !== cluster) {
      this.#mismatch("it belongs to another cluster");
      return;
    }
    this.#misplaced = hello.replica !== member.id;
    this.onNamedView(hello.view);
    if (this.#misplaced) {
      if (!this.#linksAwaited) this.#mismatch(`it is replica ${hello.replica}`);
      return;
    }
    this.#greeted = true;
    const { position, credentials } = this.#place;
    channel.send(credentials.auth(position, { replica: member.id, nonce: hello.nonce, session: this.#session }));
  }

  #mismatch(what: string): void {
    this.#faults++;
    this.#fail({ code: "CLUSTER_MISMATCH", message: `${what}; use this cluster's cluster.json`, definite: true });
  }

  #onLinks(links: Links): void {
    if (!this.#linksAwaited) {
      this.punish("it sent an unexpected frame");
      return;
    }
    this.#linksAwaited = false;
    const channel = this.#channel;
    const verdict = this.#options.events.onLinks(links);
    if (this.#channel !== channel || this.#closed) return;
    if (verdict === "invalid") {
      this.punish("it sent links that prove nothing");
      return;
    }
    if (verdict === "advanced") this.#linksAgainAt = 0;
    this.#fetchLinks();
    if (this.#misplaced && !this.#linksAwaited) this.#mismatch("another replica answers at its address");
  }
}

function faultOf({ code, reason }: ChannelClosed): ConnectionFault {
  const why = reason === "" ? "" : `: ${reason}`;
  switch (code) {
    case 0:
      return { code: "QUORUM_UNAVAILABLE", message: `cannot be reached${why}`, definite: false };
    case CLOSE_CODES.NOT_A_CLIENT:
      return { code: "REFUSED", message: `this identity may not be a client${why}`, definite: true };
    case CLOSE_CODES.UNAUTHENTICATED:
      return { code: "REFUSED", message: `it does not accept this identity's proof${why}`, definite: true };
    default:
      return { code: "QUORUM_UNAVAILABLE", message: `closed the connection (${code})${why}`, definite: false };
  }
}
