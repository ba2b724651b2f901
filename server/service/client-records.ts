/**
 * What the client table keeps per client, session and executed sequence, and its stored form (docs/protocol.md section 3
 * and section 6, "Under the state root"): one key per client, session and sequence, so that a group rewrites only what
 * changed. Nothing here decides anything; `client-table.ts` does.
 *
 *   c client                    -> watermark u53, lastMs u53
 *   c client session            -> base u53, lastInstance u53
 *   q client session sequence   -> form u8, request digest, result digest, instance u53, index u32, result
 *
 * `client` is 32 bytes, numbers in keys are 8 bytes big-endian: keys sort by client, session, sequence.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { EMPTY } from "../../protocol/bytes.ts";
import type { ReplyStatus } from "../../protocol/client-frames.ts";
import { Malformed } from "../../protocol/errors.ts";
import { Reader, Writer } from "../../protocol/layout.ts";
import { CLIENT_SPACE, SEQUENCE_SPACE } from "./state.ts";

/** What a request is answered: `result` is null when it was executed and the cached reply dropped. */
export interface Answer {
  readonly status: ReplyStatus;
  /** Of the first execution where there was one, else the instance (or last executed instance) of the judgement. */
  readonly instance: number;
  readonly resultDigest: Digest;
  readonly result: Uint8Array | null;
}

/** Where execution stands inside the history. */
export interface BatchPlace {
  readonly instance: number;
  readonly timestampMs: number;
  /** Position of the request in its batch: breaks ties of age. */
  readonly index: number;
}

/** A record's life towards the disk. */
export interface Tracked {
  /** Changed since the last group was taken. */
  dirty: boolean;
  /** Some group taken so far holds its key: a removal must delete it. */
  stored: boolean;
  /** Still in the table. */
  live: boolean;
}

/** A sequence that was executed, or cancelled for ever. An `Answer` as it stands. */
export interface Executed extends Tracked, Answer {
  readonly session: Session;
  readonly sequence: number;
  readonly status: "OK" | "CANCELLED";
  /** Of the request; of a cancelled sequence 32 zero bytes. */
  readonly digest: Digest;
  readonly index: number;
  result: Uint8Array | null;
  /** Neighbours in the client's list of cached replies by age. */
  older: Executed | null;
  newer: Executed | null;
}

export interface Session extends Tracked {
  readonly client: Client;
  readonly number: number;
  /** Client and number as they stand in keys. */
  readonly name: string;
  /** The highest judged `ackedBelow`, at least 1: sequences below it are finished for the client. */
  base: number;
  /** The instance in which it was opened or last executed (or cancelled) a sequence. */
  lastInstance: number;
  readonly executed: Map<number, Executed>;
}

export interface Client extends Tracked {
  readonly id: Digest;
  /** The highest evicted session number. */
  watermark: number;
  /** Batch time of its last request in a live session. */
  lastMs: number;
  readonly sessions: Map<number, Session>;
  /** Bytes of cached replies, and the replies in a list by age. */
  cachedBytes: number;
  oldest: Executed | null;
  newest: Executed | null;
}

const FRESH = { dirty: false, stored: false, live: true };
const FROM_DISK = { dirty: false, stored: true, live: true };
const NUMBER_CHARACTERS = 8;
const CLIENT_CHARACTERS = 32;

export function newClient(id: Digest, life: Tracked = FRESH): Client {
  const records = { sessions: new Map<number, Session>(), cachedBytes: 0, oldest: null, newest: null };
  return { id, watermark: 0, lastMs: 0, ...records, dirty: life.dirty, stored: life.stored, live: life.live };
}

export function newSession(client: Client, number: number, life: Tracked = FRESH): Session {
  const name = client.id + numberKey(number);
  const { dirty, stored, live } = life;
  return { client, number, name, base: 1, lastInstance: 0, executed: new Map(), dirty, stored, live };
}

export function newExecuted(
  session: Session,
  fields: Pick<Executed, "sequence" | "status" | "digest" | "resultDigest" | "result" | "instance" | "index">,
  life: Tracked = FRESH,
): Executed {
  const { sequence, status, digest, resultDigest, result, instance, index } = fields;
  const { dirty, stored, live } = life;
  const links = { older: null, newer: null };
  return { session, sequence, status, digest, resultDigest, result, instance, index, ...links, dirty, stored, live };
}

/** Eight bytes big-endian as latin1. */
export function numberKey(value: number): string {
  const high = Math.floor(value / 0x1_0000_0000);
  const low = value >>> 0;
  return String.fromCharCode(
    (high >>> 24) & 255,
    (high >>> 16) & 255,
    (high >>> 8) & 255,
    high & 255,
    (low >>> 24) & 255,
    (low >>> 16) & 255,
    (low >>> 8) & 255,
    low & 255,
  );
}

function numberAt(key: string, at: number): number {
  let value = 0;
  for (let index = at; index < at + NUMBER_CHARACTERS; index++) value = value * 256 + key.charCodeAt(index);
  return value;
}

export function clientKey(client: Client): string {
  return CLIENT_SPACE + client.id;
}

export function sessionKey(session: Session): string {
  return CLIENT_SPACE + session.name;
}

export function executedKey(executed: Executed): string {
  return SEQUENCE_SPACE + executed.session.name + numberKey(executed.sequence);
}

/** How a sequence ended and whether its reply is kept: the first byte of its stored form. */
const REPLIED = 1;
const REPLY_GONE = 2;
const CANCELLED = 3;

const writer = new Writer(1024);

/** Each of these is valid until the next. */
export function clientBytes(client: Client): Uint8Array {
  return writer.reset().u53(client.watermark).u53(client.lastMs).view();
}

export function sessionBytes(session: Session): Uint8Array {
  return writer.reset().u53(session.base).u53(session.lastInstance).view();
}

export function executedBytes(executed: Executed): Uint8Array {
  const { status, result } = executed;
  const form = status === "CANCELLED" ? CANCELLED : result ? REPLIED : REPLY_GONE;
  writer.reset().u8(form).rawLatin1(executed.digest).rawLatin1(executed.resultDigest);
  writer.u53(executed.instance).u32(executed.index);
  return writer.raw(result ?? EMPTY).view();
}

/** Which record a key of the client space names. @throws Malformed */
export function parseClientKey(key: string): { client: Digest; session: number | null } {
  const client = key.slice(1, 1 + CLIENT_CHARACTERS) as Digest;
  if (key.length === 1 + CLIENT_CHARACTERS) return { client, session: null };
  if (key.length !== 1 + CLIENT_CHARACTERS + NUMBER_CHARACTERS) throw new Malformed("STORED_KEY");
  return { client, session: numberAt(key, 1 + CLIENT_CHARACTERS) };
}

/** @throws Malformed */
export function parseSequenceKey(key: string): { client: Digest; session: number; sequence: number } {
  if (key.length !== 1 + CLIENT_CHARACTERS + 2 * NUMBER_CHARACTERS) throw new Malformed("STORED_KEY");
  const client = key.slice(1, 1 + CLIENT_CHARACTERS) as Digest;
  const at = 1 + CLIENT_CHARACTERS;
  return { client, session: numberAt(key, at), sequence: numberAt(key, at + NUMBER_CHARACTERS) };
}

/** @throws Malformed */
export function readClient(id: Digest, value: Uint8Array): Client {
  const reader = new Reader(value);
  const client = newClient(id, FROM_DISK);
  client.watermark = reader.u53();
  client.lastMs = reader.u53();
  reader.end();
  return client;
}

/** @throws Malformed */
export function readSession(client: Client, number: number, value: Uint8Array): Session {
  const reader = new Reader(value);
  const session = newSession(client, number, FROM_DISK);
  session.base = reader.u53();
  session.lastInstance = reader.u53();
  reader.end();
  return session;
}

/** @throws Malformed */
export function readExecuted(session: Session, sequence: number, value: Uint8Array): Executed {
  const reader = new Reader(value);
  const form = reader.u8();
  if (form !== REPLIED && form !== REPLY_GONE && form !== CANCELLED) throw new Malformed("STORED_FORM");
  const digest = reader.rawLatin1(32) as Digest;
  const resultDigest = reader.rawLatin1(32) as Digest;
  const instance = reader.u53();
  const index = reader.u32();
  const rest = reader.raw(reader.left);
  if (form !== REPLIED && rest.length > 0) throw new Malformed("TRAILING_BYTES");
  const status = form === CANCELLED ? "CANCELLED" : "OK";
  const result = form === REPLY_GONE ? null : form === CANCELLED ? EMPTY : new Uint8Array(rest);
  return newExecuted(session, { sequence, status, digest, resultDigest, result, instance, index }, FROM_DISK);
}
