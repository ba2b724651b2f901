/**
 * Client requests and their envelopes (docs/protocol.md sections 2 and 3). The request is encoded once by the client;
 * those bytes travel opaque and its digest is over them. The envelope lies outside the digest.
 */
import type { Digest } from "./bytes.ts";
import type { Crypto } from "./crypto/contract.ts";
import { Malformed } from "./errors.ts";
import { PUBLIC_KEYS_BYTES } from "./identity.ts";
import { Reader, Writer } from "./layout.ts";
import { REPLICAS_MAX, REQUEST_BYTES_MAX, REQUEST_COMMANDS_MAX } from "./limits.ts";
import { writeTag } from "./view.ts";

/** Bytes of one truncated HMAC in an authenticator. */
export const AUTHENTICATOR_BYTES = 16;
export const SIGNATURE_BYTES = 64;

const MAGIC = 0x5152_5131; // "QRQ1"

export const REQUEST_KINDS = ["unordered", "ordered", "resolve", "administer"] as const;
export type RequestKind = (typeof REQUEST_KINDS)[number];

export interface RequestFields {
  readonly cluster: Digest;
  readonly client: Digest;
  readonly session: number;
  readonly sequence: number;
  /** Every sequence below it is finished for the client: its reply need not be kept. At most `sequence`. */
  readonly ackedBelow: number;
  readonly kind: RequestKind;
  /** Milliseconds since 1970 in batch time, or 0 for none. */
  readonly deadlineMs: number;
  /** Opaque commands of the service; of a `resolve`, exactly one from `encodeResolve`; of an `administer`, one signed statement. */
  readonly commands: readonly Uint8Array[];
}

/** A decoded request with the bytes it came in. `key` names (client, session, sequence) in maps. */
export interface Request extends RequestFields {
  readonly bytes: Uint8Array;
  readonly digest: Digest;
  readonly key: string;
}

export function requestKey(client: Digest, session: number, sequence: number): string {
  return `${client}${session}.${sequence}`;
}

const writer = new Writer(4096);

export function encodeRequest(request: RequestFields): Uint8Array {
  writer.reset().u32(MAGIC).rawLatin1(request.cluster).rawLatin1(request.client);
  writer.u53(request.session).u53(request.sequence).u53(request.ackedBelow);
  writer.u8(REQUEST_KINDS.indexOf(request.kind)).u53(request.deadlineMs).u32(request.commands.length);
  for (const command of request.commands) writer.bytes(command);
  return writer.finish();
}

/** Shape, ranges and `ackedBelow <= sequence`; the digest is computed here, once, unless it is `known`. @throws Malformed */
export function decodeRequest(crypto: Crypto, bytes: Uint8Array, known: Digest | null = null): Request {
  if (bytes.length > REQUEST_BYTES_MAX) throw new Malformed("REQUEST_TOO_LARGE");
  const reader = new Reader(bytes);
  if (reader.u32() !== MAGIC) throw new Malformed("REQUEST_MAGIC");
  const cluster = reader.rawLatin1(32) as Digest;
  const client = reader.rawLatin1(32) as Digest;
  const session = reader.u53();
  const sequence = reader.u53();
  const ackedBelow = reader.u53();
  if (session === 0 || sequence === 0) throw new Malformed("REQUEST_NUMBER");
  if (ackedBelow > sequence) throw new Malformed("REQUEST_ACKED");
  const kind = REQUEST_KINDS[reader.u8()];
  if (kind === undefined) throw new Malformed("REQUEST_KIND");
  const deadlineMs = reader.u53();
  const count = reader.u32();
  if (count === 0 || count > REQUEST_COMMANDS_MAX) throw new Malformed("REQUEST_COMMANDS");
  if ((kind === "resolve" || kind === "administer") && count !== 1) throw new Malformed("REQUEST_COMMANDS");
  const commands: Uint8Array[] = [];
  for (let index = 0; index < count; index++) commands.push(reader.bytes(REQUEST_BYTES_MAX));
  reader.end();
  const digest = known ?? crypto.sha256(bytes);
  const key = requestKey(client, session, sequence);
  return { cluster, client, session, sequence, ackedBelow, kind, deadlineMs, commands, bytes, digest, key };
}

/** Where session and sequence stand in a request, and its kind. */
const NAME_AT = 4 + 32 + 32;
const KIND_AT = NAME_AT + 3 * 8;

/** What a request seems to be. */
export interface Glance {
  readonly kind: RequestKind;
  /** Session and sequence. */
  readonly name: Uint8Array;
}

/** Without decoding it: enough to turn it away. Null when it is too short. */
export function glance(bytes: Uint8Array): Glance | null {
  const kind = REQUEST_KINDS[bytes[KIND_AT] ?? REQUEST_KINDS.length];
  return kind === undefined ? null : { kind, name: bytes.subarray(NAME_AT, NAME_AT + 16) };
}

/** The sequence a `resolve` asks about. */
export interface ResolveTarget {
  readonly session: number;
  readonly sequence: number;
}

export function encodeResolve(target: ResolveTarget): Uint8Array {
  return new Writer(16).u53(target.session).u53(target.sequence).finish();
}

/** @throws Malformed */
export function decodeResolve(bytes: Uint8Array): ResolveTarget {
  const reader = new Reader(bytes);
  const target = { session: reader.u53(), sequence: reader.u53() };
  reader.end();
  return target;
}

/** A vector with one MAC per member in view order, or one signature with a MAC for the receiver as a filter. */
export type Authenticator =
  /** `macs`: 16 characters (latin1) per member, in view order, in one string: a replica looks at its own only. */
  | { readonly type: "vector"; readonly macs: string }
  | { readonly type: "signature"; readonly signature: Uint8Array; readonly mac: string };

export interface Envelope {
  readonly view: number;
  /** The replica asked to send a large result in full. `EVERYBODY` on retries. */
  readonly replier: number;
  /** The client's 64 bytes of public keys, until its first reply. */
  readonly keys: Uint8Array | null;
  readonly authenticator: Authenticator;
}

/** As `replier`: every replica sends the full result. */
export const EVERYBODY = 0xffff_ffff;

const FLAG_KEYS = 1;
const FLAG_SIGNED = 2;

export function encodeEnvelope(envelope: Envelope): Uint8Array {
  const { authenticator, keys } = envelope;
  const out = new Writer(256).u32(envelope.view).u32(envelope.replier);
  out.u8((keys ? FLAG_KEYS : 0) | (authenticator.type === "signature" ? FLAG_SIGNED : 0));
  if (keys) out.raw(keys);
  if (authenticator.type === "signature") return out.raw(authenticator.signature).rawLatin1(authenticator.mac).finish();
  return out
    .u8(authenticator.macs.length / AUTHENTICATOR_BYTES)
    .rawLatin1(authenticator.macs)
    .finish();
}

const FLAGS_AT = 8;

/** Whether an envelope that is not decoded yet says that it carries a signature. */
export function claimsSignature(envelope: Uint8Array): boolean {
  return ((envelope[FLAGS_AT] ?? 0) & FLAG_SIGNED) !== 0;
}

/** @throws Malformed */
export function decodeEnvelope(bytes: Uint8Array): Envelope {
  const reader = new Reader(bytes);
  const view = reader.u32();
  const replier = reader.u32();
  const flags = reader.u8();
  if (flags > (FLAG_KEYS | FLAG_SIGNED)) throw new Malformed("ENVELOPE_FLAGS");
  const keys = flags & FLAG_KEYS ? reader.raw(PUBLIC_KEYS_BYTES) : null;
  const authenticator = flags & FLAG_SIGNED ? readSignature(reader) : readVector(reader);
  reader.end();
  return { view, replier, keys, authenticator };
}

function readSignature(reader: Reader): Authenticator {
  return { type: "signature", signature: reader.raw(SIGNATURE_BYTES), mac: reader.rawLatin1(AUTHENTICATOR_BYTES) };
}

function readVector(reader: Reader): Authenticator {
  const count = reader.u8();
  if (count === 0 || count > REPLICAS_MAX) throw new Malformed("ENVELOPE_MACS");
  return { type: "vector", macs: reader.rawLatin1(count * AUTHENTICATOR_BYTES) };
}

/** The entry of the member at this position; shorter than a MAC when there is none. */
export function macAt(macs: string, position: number): string {
  return macs.slice(position * AUTHENTICATOR_BYTES, (position + 1) * AUTHENTICATOR_BYTES);
}

const statement = new Writer(128);

/** What a client MACs (key purpose `client-to-replica`, truncated) or signs for one request. Valid until the next call. */
export function requestStatement(cluster: Digest, view: number, digest: Digest): Uint8Array {
  return writeTag(statement.reset(), "quorate/request/1", cluster).u32(view).rawLatin1(digest).view();
}
