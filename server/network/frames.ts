/**
 * Frames of a replica link (docs/protocol.md section 2): `length u32 | MAC 16 | counter u53 | payload`. The MAC (HMAC-SHA-256,
 * first 16 bytes) covers counter and payload, which is why they stand side by side: neither end copies a frame to check
 * it. A payload is one message or more, each `length u32 | bytes`: what was queued in one turn travels as one frame.
 * Every length is checked before anything is allocated for it; a bad frame is a fault code, never a throw.
 */
import { type Digest, writeLatin1 } from "../../protocol/bytes.ts";
import type { Crypto, MacKey } from "../../protocol/crypto/contract.ts";
import { Writer } from "../../protocol/layout.ts";
import { FRAME_BYTES_MAX } from "../../protocol/limits.ts";

/** Why a link was refused or closed: a fixed, small set, used as a metric label. */
export type LinkFaultCode =
  /** The handshake was malformed. */
  | "LINK_HANDSHAKE"
  /** Another version of the wire format. */
  | "LINK_VERSION"
  | "LINK_CLUSTER"
  /** An unknown replica, ourselves, not the one dialled, or in the wrong role. */
  | "LINK_IDENTITY"
  /** A wrong key, or bytes changed on the way. */
  | "LINK_MAC"
  /** A frame replayed, lost or out of order. */
  | "LINK_COUNTER"
  /** Links of the chain of views that lead nowhere (presentation.ts). */
  | "LINK_CHAIN"
  /** A frame or message longer than allowed, or cut wrongly. */
  | "LINK_LENGTH"
  /** The handshake took too long, or an open link was silent for too long. */
  | "LINK_TIMEOUT"
  /** The peer does not read: our queue to it is full. */
  | "LINK_QUEUE"
  /** Too many connections that have not authenticated: the oldest gives way. */
  | "LINK_FLOOD"
  /** We tried to send a message above `MESSAGE_BYTES_MAX`; it was dropped. */
  | "LINK_MESSAGE_SIZE";

const LENGTH_BYTES = 4;
const MAC_BYTES = 16;
const COUNTER_BYTES = 8;
/** In front of the payload, after the length. */
const BODY_HEADER_BYTES = MAC_BYTES + COUNTER_BYTES;
const MACED_AT = LENGTH_BYTES + MAC_BYTES;
const PAYLOAD_AT = LENGTH_BYTES + BODY_HEADER_BYTES;

/** Messages in one frame: bounds what one frame can cost its receiver (50 ms of CPU). */
export const FRAME_MESSAGES_MAX = 4_096;
const PAYLOAD_BYTES_MAX = FRAME_BYTES_MAX - BODY_HEADER_BYTES;
/** The largest message a link carries, in bytes. */
export const MESSAGE_BYTES_MAX = PAYLOAD_BYTES_MAX - LENGTH_BYTES;

/** A body as `FrameSplitter` takes it. */
export function framed(body: Uint8Array): Uint8Array {
  return new Writer(LENGTH_BYTES + body.length).bytes(body).finish();
}

/**
 * Cuts a byte stream into length-prefixed bodies. A body that lies whole in one chunk is passed as a view of it; one
 * that does not is put together in a buffer of exactly its size, allocated once its length is known and allowed.
 */
export class FrameSplitter {
  /** The largest body accepted: small until the handshake is done. */
  bytesMax: number;
  readonly #header = new Uint8Array(LENGTH_BYTES);
  #headerBytes = 0;
  #body: Uint8Array | null = null;
  #bodyBytes = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  /**
   * Passes every whole body to `take`, in order, and stops at the first fault, its own (LINK_LENGTH) or the one that
   * `take` returns. Nothing writes to a body later, but keeping it may keep the whole chunk. After a fault the stream is out
   * of step: close it.
   */
  push(chunk: Uint8Array, take: (body: Uint8Array) => LinkFaultCode | null): LinkFaultCode | null {
    let at = 0;
    while (at < chunk.length) {
      let fault: LinkFaultCode | null = null;
      if (this.#body !== null) {
        const part = Math.min(chunk.length - at, this.#body.length - this.#bodyBytes);
        this.#body.set(chunk.subarray(at, at + part), this.#bodyBytes);
        at += part;
        this.#bodyBytes += part;
        if (this.#bodyBytes < this.#body.length) return null;
        const body = this.#body;
        this.#body = null;
        fault = take(body);
      } else if (this.#headerBytes === 0 && chunk.length - at >= LENGTH_BYTES) {
        const length = readU32(chunk, at);
        if (length > this.bytesMax) return "LINK_LENGTH";
        at += LENGTH_BYTES;
        if (chunk.length - at >= length) {
          fault = take(chunk.subarray(at, at + length));
          at += length;
        } else this.#expect(length);
      } else {
        this.#header[this.#headerBytes++] = chunk[at++] as number;
        if (this.#headerBytes < LENGTH_BYTES) continue;
        this.#headerBytes = 0;
        const length = readU32(this.#header, 0);
        if (length > this.bytesMax) return "LINK_LENGTH";
        if (length === 0) fault = take(this.#header.subarray(0, 0));
        else this.#expect(length);
      }
      if (fault !== null) return fault;
    }
    return null;
  }

  #expect(length: number): void {
    this.#body = Buffer.allocUnsafe(length);
    this.#bodyBytes = 0;
  }
}

/** One direction of a link, sending: numbers the frames from 1 and MACs them. */
export class FrameSealer {
  readonly #crypto: Crypto;
  readonly #key: MacKey;
  #counter = 0;

  constructor(crypto: Crypto, key: MacKey) {
    this.#crypto = crypto;
    this.#key = key;
  }

  /** Frames of the messages in order, as few as the limits allow. Each message is at most `MESSAGE_BYTES_MAX`. */
  seal(messages: readonly Uint8Array[]): Uint8Array[] {
    const frames: Uint8Array[] = [];
    let first = 0;
    let payloadBytes = 0;
    for (let index = 0; index < messages.length; index++) {
      const bytes = LENGTH_BYTES + (messages[index] as Uint8Array).length;
      if (payloadBytes + bytes > PAYLOAD_BYTES_MAX || index - first >= FRAME_MESSAGES_MAX) {
        frames.push(this.#frame(messages, { first, end: index, payloadBytes }));
        first = index;
        payloadBytes = 0;
      }
      payloadBytes += bytes;
    }
    if (first < messages.length) frames.push(this.#frame(messages, { first, end: messages.length, payloadBytes }));
    return frames;
  }

  #frame(messages: readonly Uint8Array[], part: { first: number; end: number; payloadBytes: number }): Uint8Array {
    const frame = Buffer.allocUnsafe(PAYLOAD_AT + part.payloadBytes);
    frame.writeUInt32BE(BODY_HEADER_BYTES + part.payloadBytes, 0);
    const counter = ++this.#counter;
    frame.writeUInt32BE(Math.floor(counter / 0x1_0000_0000), MACED_AT);
    frame.writeUInt32BE(counter >>> 0, MACED_AT + 4);
    let at = PAYLOAD_AT;
    for (let index = part.first; index < part.end; index++) {
      const message = messages[index] as Uint8Array;
      frame.writeUInt32BE(message.length, at);
      frame.set(message, at + LENGTH_BYTES);
      at += LENGTH_BYTES + message.length;
    }
    writeLatin1(frame, LENGTH_BYTES, this.#crypto.mac(this.#key, frame.subarray(MACED_AT)).slice(0, MAC_BYTES));
    return frame;
  }
}

/** One direction of a link, receiving: only the exactly next frame of the peer opens. */
export class FrameOpener {
  readonly #crypto: Crypto;
  readonly #key: MacKey;
  #next = 1;

  constructor(crypto: Crypto, key: MacKey) {
    this.#crypto = crypto;
    this.#key = key;
  }

  /**
   * Checks one body and passes its messages on as views of it. `deliver` returns false to stop (the link was closed).
   * @returns LINK_COUNTER, LINK_MAC, LINK_LENGTH or null.
   */
  open(body: Uint8Array, deliver: (message: Uint8Array) => boolean): LinkFaultCode | null {
    if (body.length < BODY_HEADER_BYTES + LENGTH_BYTES) return "LINK_LENGTH";
    const counter = readU32(body, MAC_BYTES) * 0x1_0000_0000 + readU32(body, MAC_BYTES + 4);
    if (counter !== this.#next) return "LINK_COUNTER";
    if (!isMac(this.#crypto.mac(this.#key, body.subarray(MAC_BYTES)), body)) return "LINK_MAC";
    this.#next++;
    let at = BODY_HEADER_BYTES;
    for (let count = 0; at < body.length; count++) {
      if (count === FRAME_MESSAGES_MAX || body.length - at < LENGTH_BYTES) return "LINK_LENGTH";
      const length = readU32(body, at);
      at += LENGTH_BYTES;
      if (length > body.length - at) return "LINK_LENGTH";
      if (!deliver(body.subarray(at, at + length))) return null;
      at += length;
    }
    return null;
  }
}

/** Compares in constant time with the first bytes of `body`, without copying them out. */
function isMac(mac: Digest, body: Uint8Array): boolean {
  let difference = 0;
  for (let index = 0; index < MAC_BYTES; index++) difference |= mac.charCodeAt(index) ^ (body[index] as number);
  return difference === 0;
}

function readU32(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) << 24) |
      ((bytes[at + 1] as number) << 16) |
      ((bytes[at + 2] as number) << 8) |
      (bytes[at + 3] as number)) >>>
    0
  );
}
