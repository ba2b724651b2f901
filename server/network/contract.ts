/**
 * The contracts of the network: authenticated links between replicas, and the gateway clients connect to. TCP and
 * WebSocket implementations live beside this file, simulated ones in test/simulation; each passes the same suite.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { Member, ReplicaId } from "../../protocol/view.ts";

/** Why bytes were refused: the label of the metric and of the log line (once per minute and peer). */
export interface LinkFault {
  /** The peer, or null when nobody was authenticated yet. */
  readonly from: ReplicaId | null;
  readonly code: string;
  readonly remote: string;
}

export interface LinkEvents {
  /** A message of an authenticated peer, exactly as sent. Valid only during the call unless copied. */
  onMessage(from: ReplicaId, payload: Uint8Array): void;
  /** A fresh link to this peer stands; whatever was queued before is gone: resend. */
  onConnected(peer: ReplicaId): void;
  onDisconnected(peer: ReplicaId): void;
  onFault(fault: LinkFault): void;
}

/** Links to every other member: reconnecting, ordered, lossy only across a reconnect. */
export interface Links {
  /** Queues a message; silently dropped while there is no link. Queued messages leave at `flush`. */
  send(peer: ReplicaId, payload: Uint8Array): void;
  /** Sends what was queued in this turn, a frame per peer where the frame limit allows. */
  flush(): void;
  /** Drops the link (a peer that sent a malformed message); it reconnects with back-off. */
  punish(peer: ReplicaId, code: string): void;
  /** A replica that is no member of the view may link, too, from now on. Default: whoever may is known from the start. */
  admit?(member: Member): void;
  connected(): readonly ReplicaId[];
  /** Bytes waiting to be sent to a peer. */
  queuedBytes(peer: ReplicaId): number;
  close(): Promise<void>;
}

/** One authenticated client connection. `id` is unique for the life of the gateway. */
export interface ClientConnection {
  readonly id: number;
  readonly client: Digest;
  readonly session: number;
  /** False when the connection is gone or was closed as a slow reader. */
  send(frame: Uint8Array): boolean;
  /** What is sent while `send` runs leaves in one write: one system call for all of it. Null: each frame leaves at once. */
  readonly together: ((send: () => void) => void) | null;
  /** There was no room for a request of so many bytes of it, whether it was told so or not. */
  turnedAway(bytes: number): void;
  close(code: number, reason: string): void;
}

export interface GatewayEvents {
  /** May this client connect? */
  admit(client: Digest): boolean;
  /** Is this an administrator's key? Whoever signs with it may connect, to bring statements. Absent: nobody's is. */
  administers?(signKey: Uint8Array): boolean;
  /** A client proved itself with these public keys (64 bytes, valid only during the call unless copied). */
  onAuthenticated?(connection: ClientConnection, keys: Uint8Array): void;
  /** A REQUEST frame's parts. Valid only during the call unless copied. */
  onRequest(connection: ClientConnection, envelope: Uint8Array, request: Uint8Array): void;
  /** Links of the chain of views, encoded, from the one that leads out of this view on: for anybody. Default: none. */
  links?(fromView: number): readonly Uint8Array[];
  onClosed(connection: ClientConnection): void;
  onFault(fault: { code: string; remote: string }): void;
}

export interface Gateway {
  readonly port: number;
  /** The newest connection of a client's session, to send its replies to. */
  connectionOf(client: Digest, session: number): ClientConnection | undefined;
  readonly connections: number;
  /** Bytes that clients have not read yet, about. */
  readonly queuedBytes: number;
  /** Stops accepting, then closes every connection with GOING_AWAY. */
  close(): Promise<void>;
}
