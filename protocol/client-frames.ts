/**
 * What a client and a gateway say over one WebSocket, a frame per binary message, in fixed layouts (docs/protocol.md
 * sections 2 and 3):
 *
 *   gateway HELLO -> client AUTH -> gateway WELCOME -> client REQUEST* / gateway REPLY*
 *
 * At any time after HELLO a client may ask for links of the chain of views (section 7), authenticated or not: FETCH_LINKS is
 * answered with LINKS, which prove themselves.
 *
 * A reply's MAC covers its header exactly as received.
 */
import { type Digest, EMPTY } from "./bytes.ts";
import type { Crypto, MacKey } from "./crypto/contract.ts";
import { equalMacs } from "./crypto/contract.ts";
import { decoded, Malformed, type Rejection } from "./errors.ts";
import { PUBLIC_KEYS_BYTES } from "./identity.ts";
import { Reader, Writer } from "./layout.ts";
import { ENVELOPE_BYTES_MAX, LINK_BYTES_MAX, LINKS_PER_ANSWER_MAX, REQUEST_BYTES_MAX, WIRE_VERSION } from "./limits.ts";
import { AUTHENTICATOR_BYTES, REQUEST_KINDS, type RequestKind, SIGNATURE_BYTES } from "./request.ts";
import { writeTag } from "./view.ts";

export const NONCE_BYTES = 32;
const MAC_BYTES = 32;

const HELLO = 1;
const WELCOME = 2;
const REPLY = 3;
const LINKS = 4;
const AUTH = 17;
const REQUEST = 18;
const FETCH_LINKS = 19;

/** Why a gateway closed a connection (WebSocket close codes). */
export const CLOSE_CODES = {
  BAD_FRAME: 4400,
  UNAUTHENTICATED: 4401,
  NOT_A_CLIENT: 4403,
  TOO_SLOW: 4408,
  SUPERSEDED: 4409,
  TOO_MANY_CONNECTIONS: 4429,
  /** It went on sending many times its share while it was turned away: let in again after a while. */
  FLOOD: 4430,
  GOING_AWAY: 1001,
} as const;

/**
 * What a reply says. Those from `BUSY` on are advice of one replica and never end an ordered request.
 * The position in this list is the byte on the wire: only ever append.
 */
export const REPLY_STATUSES = [
  "OK",
  "SEQUENCE_CONFLICT",
  "DEADLINE",
  "WINDOW_FULL",
  "ACKED",
  "CANCELLED",
  /** result: u53 watermark */
  "SESSION_EXPIRED",
  "BUSY",
  "MUST_SIGN",
  "NEWER_VIEW",
  /** result: UTF-8 reason code */
  "REFUSED",
  /** unordered only: this replica may not answer reads now, or the command is no query */
  "NOT_READY",
] as const;
export type ReplyStatus = (typeof REPLY_STATUSES)[number];

/** How the result travels: its digest only, in full, or gone (executed, the cached reply was dropped). */
export const REPLY_BODIES = ["digest", "full", "gone"] as const;
export type ReplyBody = (typeof REPLY_BODIES)[number];

export interface Hello {
  readonly type: "HELLO";
  readonly cluster: Digest;
  readonly replica: number;
  readonly view: number;
  readonly nonce: Uint8Array;
}

export interface Auth {
  readonly type: "AUTH";
  readonly keys: Uint8Array;
  readonly session: number;
  /** Full HMAC (key purpose `connect`) over `authStatement`. */
  readonly mac: Digest;
  /** Ed25519 over `authStatement`: how an administrator connects without being a client. Else null. */
  readonly signature: Uint8Array | null;
}

export interface RequestFrame {
  readonly type: "REQUEST";
  readonly envelope: Uint8Array;
  readonly request: Uint8Array;
}

export interface ReplyFields {
  readonly replica: number;
  readonly view: number;
  readonly session: number;
  readonly sequence: number;
  readonly kind: RequestKind;
  readonly requestDigest: Digest;
  readonly status: ReplyStatus;
  /** Ordered: the instance it was executed in. Unordered: the store revision. 0 for advice. */
  readonly position: number;
  readonly resultDigest: Digest;
}

export interface Reply extends ReplyFields {
  readonly type: "REPLY";
  readonly body: ReplyBody;
  /** Empty unless `body` is "full". The receiver checks it against `resultDigest`. */
  readonly result: Uint8Array;
  readonly header: Uint8Array;
  readonly mac: string;
}

export interface Welcome {
  readonly type: "WELCOME";
}

/** Asks for the links that lead from this view on. */
export interface FetchLinks {
  readonly type: "FETCH_LINKS";
  readonly fromView: number;
}

export interface Links {
  readonly type: "LINKS";
  readonly fromView: number;
  /** Encoded, the one from `fromView` first, at most `LINKS_PER_ANSWER_MAX` of them. */
  readonly links: readonly Uint8Array[];
}

const writer = new Writer(1024);

export function encodeFetchLinks(fromView: number): Uint8Array {
  return writer.reset().u8(FETCH_LINKS).u32(fromView).finish();
}

/** As many of `links`, which begin at `fromView`, as fit an answer. */
export function encodeLinks(fromView: number, links: readonly Uint8Array[]): Uint8Array {
  const some = links.slice(0, LINKS_PER_ANSWER_MAX);
  writer.reset().u8(LINKS).u32(fromView).u8(some.length);
  for (const link of some) writer.bytes(link);
  return writer.finish();
}

function readLinks(reader: Reader): Links {
  const fromView = reader.u32();
  const count = reader.u8();
  if (count > LINKS_PER_ANSWER_MAX) throw new Malformed("FRAME_LINKS");
  const links: Uint8Array[] = [];
  for (let index = 0; index < count; index++) links.push(reader.bytes(LINK_BYTES_MAX));
  reader.end();
  return { type: "LINKS", fromView, links };
}

export function encodeHello(hello: Omit<Hello, "type">): Uint8Array {
  writer.reset().u8(HELLO).u8(WIRE_VERSION).rawLatin1(hello.cluster).u32(hello.replica).u32(hello.view);
  return writer.raw(hello.nonce).finish();
}

export function encodeWelcome(): Uint8Array {
  return writer.reset().u8(WELCOME).finish();
}

export function encodeAuth(auth: Omit<Auth, "type">): Uint8Array {
  writer.reset().u8(AUTH).u8(WIRE_VERSION).raw(auth.keys).u53(auth.session).rawLatin1(auth.mac);
  return writer.raw(auth.signature ?? EMPTY).finish();
}

/** What AUTH MACs: the gateway's nonce, so that it cannot be replayed, and who speaks to whom. */
export function authStatement(fields: {
  cluster: Digest;
  replica: number;
  nonce: Uint8Array;
  client: Digest;
  session: number;
}): Uint8Array {
  writeTag(writer.reset(), "quorate/connect/1", fields.cluster).u32(fields.replica).raw(fields.nonce);
  return writer.rawLatin1(fields.client).u53(fields.session).finish();
}

export function encodeRequestFrame(envelope: Uint8Array, request: Uint8Array): Uint8Array {
  return new Writer(5 + envelope.length + request.length).u8(REQUEST).bytes(envelope).raw(request).finish();
}

function writeHeader(out: Writer, reply: ReplyFields): void {
  out.u32(reply.replica).u32(reply.view).u53(reply.session).u53(reply.sequence);
  out.u8(REQUEST_KINDS.indexOf(reply.kind)).rawLatin1(reply.requestDigest).u8(REPLY_STATUSES.indexOf(reply.status));
  out.u53(reply.position).rawLatin1(reply.resultDigest);
}
const HEADER_BYTES = 4 + 4 + 8 + 8 + 1 + 32 + 1 + 8 + 32;

const macInput = new Writer(256);

function replyMac(crypto: Crypto, key: MacKey, ids: { cluster: Digest; client: Digest }, header: Uint8Array): string {
  writeTag(macInput.reset(), "quorate/reply/1", ids.cluster).rawLatin1(ids.client).raw(header);
  return crypto.mac(key, macInput.view()).slice(0, AUTHENTICATOR_BYTES);
}

const headerWriter = new Writer(HEADER_BYTES);

/** A reply frame with its MAC (key purpose `replica-to-client`, truncated to 16 bytes). */
export function encodeReply(
  crypto: Crypto,
  key: MacKey,
  ids: { cluster: Digest; client: Digest },
  reply: ReplyFields & { body: ReplyBody; result: Uint8Array },
): Uint8Array {
  writeHeader(headerWriter.reset(), reply);
  const header = headerWriter.view();
  const mac = replyMac(crypto, key, ids, header);
  writer.reset().u8(REPLY).raw(header).rawLatin1(mac).u8(REPLY_BODIES.indexOf(reply.body));
  if (reply.body === "full") writer.raw(reply.result);
  return writer.finish();
}

/** True when the header's MAC is the named replica's. `body` and `result` are not covered: compare `resultDigest`. */
export function verifyReply(
  crypto: Crypto,
  key: MacKey,
  ids: { cluster: Digest; client: Digest },
  reply: Reply,
): boolean {
  return equalMacs(reply.mac, replyMac(crypto, key, ids, reply.header));
}

function member<T>(values: readonly T[], index: number): T {
  const value = values[index];
  if (value === undefined) throw new Malformed("FRAME_ENUM");
  return value;
}

function readReply(reader: Reader, bytes: Uint8Array): Reply {
  const start = reader.at;
  const fields = {
    replica: reader.u32(),
    view: reader.u32(),
    session: reader.u53(),
    sequence: reader.u53(),
    kind: member(REQUEST_KINDS, reader.u8()),
    requestDigest: reader.rawLatin1(32) as Digest,
    status: member(REPLY_STATUSES, reader.u8()),
    position: reader.u53(),
    resultDigest: reader.rawLatin1(32) as Digest,
  };
  const header = bytes.subarray(start, reader.at);
  const mac = reader.rawLatin1(AUTHENTICATOR_BYTES);
  const body = member(REPLY_BODIES, reader.u8());
  const result = reader.raw(reader.left);
  if (body !== "full" && result.length > 0) throw new Malformed("TRAILING_BYTES");
  return { type: "REPLY", ...fields, header, mac, body, result };
}

/** A frame for a client. Views into `bytes`. */
export function decodeGatewayFrame(bytes: Uint8Array): Hello | Welcome | Reply | Links | Rejection {
  return decoded(() => {
    const reader = new Reader(bytes);
    const type = reader.u8();
    if (type === REPLY) return readReply(reader, bytes);
    if (type === LINKS) return readLinks(reader);
    if (type === WELCOME) {
      reader.end();
      return { type: "WELCOME" };
    }
    if (type !== HELLO) throw new Malformed("FRAME_TYPE");
    if (reader.u8() !== WIRE_VERSION) throw new Malformed("WIRE_VERSION");
    const hello: Hello = {
      type: "HELLO",
      cluster: reader.rawLatin1(32) as Digest,
      replica: reader.u32(),
      view: reader.u32(),
      nonce: reader.raw(NONCE_BYTES),
    };
    reader.end();
    return hello;
  });
}

/** A frame for a gateway. Views into `bytes`. */
export function decodeClientFrame(bytes: Uint8Array): Auth | RequestFrame | FetchLinks | Rejection {
  return decoded(() => {
    const reader = new Reader(bytes);
    const type = reader.u8();
    if (type === REQUEST) {
      const envelope = reader.bytes(ENVELOPE_BYTES_MAX);
      if (reader.left > REQUEST_BYTES_MAX) throw new Malformed("REQUEST_TOO_LARGE");
      return { type: "REQUEST", envelope, request: reader.raw(reader.left) };
    }
    if (type === FETCH_LINKS) {
      const fromView = reader.u32();
      reader.end();
      return { type: "FETCH_LINKS", fromView };
    }
    if (type !== AUTH) throw new Malformed("FRAME_TYPE");
    if (reader.u8() !== WIRE_VERSION) throw new Malformed("WIRE_VERSION");
    const auth: Auth = {
      type: "AUTH",
      keys: reader.raw(PUBLIC_KEYS_BYTES),
      session: reader.u53(),
      mac: reader.rawLatin1(MAC_BYTES) as Digest,
      signature: reader.left === 0 ? null : reader.raw(SIGNATURE_BYTES),
    };
    reader.end();
    return auth;
  });
}
