/**
 * One session of a load generator, on the wire (docs/protocol.md sections 2 and 3): a connection to every replica over node:net,
 * requests encoded and authenticated once, frames of one turn written at once, and of replies only sequence and status read. So
 * the generator costs a fraction of what it loads. It measures; it does not verify: MACs of replies are not checked. Cut off, it
 * connects again.
 */
import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import { Credentials } from "../../client/credentials.ts";
import { decodeGatewayFrame, encodeRequestFrame, REPLY_STATUSES } from "../../protocol/client-frames.ts";
import type { Cluster } from "../../protocol/cluster.ts";
import { type Command, encodeCommand } from "../../protocol/commands.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { isRejection } from "../../protocol/errors.ts";
import type { Identity } from "../../protocol/identity.ts";
import { EVERYBODY, encodeEnvelope, encodeRequest } from "../../protocol/request.ts";
import type { Member } from "../../protocol/view.ts";

const BINARY = 0x82;
const MASKED = 0x80;
const PING = 0x9;
/** Where a REPLY frame holds the sequence (its low six bytes) and the status: after type, replica, view and session. */
const SEQUENCE_AT = 1 + 4 + 4 + 8;
const STATUS_AT = SEQUENCE_AT + 8 + 1 + 32;
const REPLY = 3;
const OPEN_MS_MAX = 10_000;
const RECONNECT_MS = 500;

export const OK = REPLY_STATUSES.indexOf("OK");
export const BUSY = REPLY_STATUSES.indexOf("BUSY");

export interface WireEvents {
  /** `position` of the replica in the view. */
  onReply(session: WireSession, reply: { position: number; sequence: number; status: number }): void;
}

export interface WireSessionOptions {
  readonly cluster: Cluster;
  readonly identity: Identity;
  readonly session: number;
  readonly events: WireEvents;
}

export class WireSession {
  readonly #options: WireSessionOptions;
  readonly #credentials: Credentials;
  readonly #sockets: Socket[] = [];
  /** Positions of those that have let it in. */
  readonly #open = new Set<number>();
  #closed = false;
  #queued: Buffer[] = [];

  private constructor(options: WireSessionOptions) {
    this.#options = options;
    this.#credentials = new Credentials(nodeCrypto, options.cluster, options.identity);
  }

  /** Connected to every replica. @throws Error when one does not let it in */
  static async open(options: WireSessionOptions): Promise<WireSession> {
    const session = new WireSession(options);
    const { members } = options.cluster.view;
    await Promise.all(members.map((member, position) => session.#connect(member, position)));
    return session;
  }

  /** The frame of a command; `ackedBelow`: what of the session is finished. */
  put(command: Command, { sequence, ackedBelow }: { sequence: number; ackedBelow: number }): Buffer {
    const { cluster, session } = this.#options;
    const bytes = encodeRequest({
      cluster: cluster.id,
      client: this.#credentials.client,
      session,
      sequence,
      ackedBelow,
      kind: "ordered",
      deadlineMs: 0,
      commands: [encodeCommand(command)],
    });
    const { macs } = this.#credentials.prove(nodeCrypto.sha256(bytes), false);
    const keys = sequence < 64 ? this.#credentials.publicKeys : null;
    const authenticator = { type: "vector", macs } as const;
    const envelope = encodeEnvelope({ view: cluster.view.id, replier: EVERYBODY, keys, authenticator });
    return masked(encodeRequestFrame(envelope, bytes));
  }

  /** Leaves for every replica at `flush`. */
  send(frame: Buffer): void {
    this.#queued.push(frame);
  }

  flush(): void {
    if (this.#queued.length === 0) return;
    const bytes = this.#queued.length === 1 ? (this.#queued[0] as Buffer) : Buffer.concat(this.#queued);
    this.#queued = [];
    for (const position of this.#open) this.#sockets[position]?.write(bytes);
  }

  /** No replica lets it send anything now. */
  get cutOff(): boolean {
    return this.#open.size === 0;
  }

  /** Bytes that the slowest replica has not taken. */
  get unsentBytes(): number {
    return Math.max(0, ...this.#sockets.map((socket) => socket.writableLength));
  }

  close(): void {
    this.#closed = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  #connect(member: Member, position: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host: member.host, port: member.clientPort, noDelay: true });
      this.#sockets[position] = socket;
      const timer = setTimeout(() => reject(new Error(`replica ${member.id} does not answer`)), OPEN_MS_MAX);
      const open = (): void => {
        clearTimeout(timer);
        this.#open.add(position);
        resolve();
      };
      const frames = new FrameReader((opcode, payload) => {
        if (opcode === PING) socket.write(masked(payload, MASKED | 0xa));
        else if (payload[0] === REPLY) this.#onReply(position, payload);
        else this.#greet(socket, { member, position, payload, open });
      });
      socket.on("data", (chunk: Buffer) => frames.push(chunk));
      socket.on("error", reject);
      socket.on("close", () => {
        clearTimeout(timer);
        this.#open.delete(position);
        reject(new Error(`replica ${member.id} closed the connection`));
        if (!this.#closed) setTimeout(() => this.#again(member, position), RECONNECT_MS);
      });
      const key = randomBytes(16).toString("base64");
      const head = [
        "GET / HTTP/1.1",
        `Host: ${member.host}`,
        "Upgrade: websocket",
        "Connection: Upgrade",
        `Sec-WebSocket-Key: ${key}`,
        "Sec-WebSocket-Version: 13",
      ];
      socket.write(`${head.join("\r\n")}\r\n\r\n`);
    });
  }

  /** Cut off, it comes back at once, again and again. */
  #again(member: Member, position: number): void {
    if (!this.#closed) this.#connect(member, position).catch(() => {});
  }

  #greet(socket: Socket, at: { member: Member; position: number; payload: Buffer; open: () => void }): void {
    const frame = decodeGatewayFrame(at.payload);
    if (isRejection(frame)) socket.destroy(new Error(`replica ${at.member.id}: ${frame.code}`));
    else if (frame.type === "WELCOME") at.open();
    else if (frame.type === "HELLO") {
      const { session } = this.#options;
      const statement = { replica: at.member.id, nonce: frame.nonce, session };
      socket.write(masked(this.#credentials.auth(at.position, statement)));
    }
  }

  #onReply(position: number, payload: Buffer): void {
    const sequence = payload.readUIntBE(SEQUENCE_AT + 2, 6);
    this.#options.events.onReply(this, { position, sequence, status: payload[STATUS_AT] ?? -1 });
  }
}

/** A client's frame, masked by zeros: the bytes stay as they are. */
function masked(payload: Uint8Array, first = BINARY): Buffer {
  const long = payload.length > 0xffff;
  const lengthBytes = payload.length < 126 ? 0 : long ? 8 : 2;
  const frame = Buffer.alloc(2 + lengthBytes + 4 + payload.length);
  frame[0] = first;
  frame[1] = MASKED | (lengthBytes === 0 ? payload.length : long ? 127 : 126);
  if (lengthBytes === 2) frame.writeUInt16BE(payload.length, 2);
  if (lengthBytes === 8) frame.writeUIntBE(payload.length, 4, 6);
  frame.set(payload, 2 + lengthBytes + 4);
  return frame;
}

/** Cuts what a gateway sends into frames, past the answer to the upgrade. */
class FrameReader {
  readonly #take: (opcode: number, payload: Buffer) => void;
  #bytes: Buffer = Buffer.alloc(0);
  #upgraded = false;

  constructor(take: (opcode: number, payload: Buffer) => void) {
    this.#take = take;
  }

  push(chunk: Buffer): void {
    const bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    let at = 0;
    if (!this.#upgraded) {
      const end = bytes.indexOf("\r\n\r\n");
      if (end >= 0) {
        this.#upgraded = true;
        at = end + 4;
      }
    }
    while (this.#upgraded && bytes.length - at >= 2) {
      const short = (bytes[at + 1] as number) & 0x7f;
      const header = short < 126 ? 2 : short === 126 ? 4 : 10;
      if (bytes.length - at < header) break;
      const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : bytes.readUIntBE(at + 4, 6);
      if (bytes.length - at < header + length) break;
      this.#take((bytes[at] as number) & 0xf, bytes.subarray(at + header, at + header + length));
      at += header + length;
    }
    this.#bytes = at === bytes.length ? Buffer.alloc(0) : Buffer.from(bytes.subarray(at));
  }
}
