/**
 * What GRANT, REVOKE and LIST say: bodies of administrators' statements in fixed layouts (docs/protocol.md section 2). One
 * encoding per grant: prefixes stand in byte order, none covered by another.
 */
import { bytesOf, type Digest, latin1 } from "./bytes.ts";
import { bool, bytes, decode, encode, type Infer, list, nullable, record, u53, union } from "./codec.ts";
import { Malformed } from "./errors.ts";
import { PUBLIC_KEYS_BYTES } from "./identity.ts";
import { areCanonical } from "./key-ranges.ts";
import { Reader, Writer } from "./layout.ts";
import { GRANT_PREFIXES_MAX, GRANTS_PAGE_MAX, KEY_BYTES_MAX } from "./limits.ts";

/** What a client may do: keys it may read, and write, by prefix (latin1). The empty prefix is every key. */
export interface Rights {
  readonly read: readonly string[];
  readonly write: readonly string[];
}

export const ALL_RIGHTS: Rights = { read: [""], write: [""] };

/** The client is whoever holds these keys: its id is their fingerprint. */
export interface Grant extends Rights {
  readonly keys: Uint8Array;
  /** Milliseconds since 1970 in batch time; from then on it grants nothing. 0: for ever. */
  readonly expiresMs: number;
}

export function encodeGrant({ keys, expiresMs, read, write }: Grant): Uint8Array {
  const writer = new Writer(256).raw(keys).u53(expiresMs);
  for (const prefixes of [read, write]) {
    writer.u32(prefixes.length);
    for (const prefix of prefixes) writer.bytes(bytesOf(prefix));
  }
  return writer.finish();
}

/** @throws Malformed also when it grants nothing */
export function decodeGrant(body: Uint8Array): Grant {
  const reader = new Reader(body);
  const keys = reader.raw(PUBLIC_KEYS_BYTES);
  const expiresMs = reader.u53();
  const read = readPrefixes(reader);
  const write = readPrefixes(reader);
  reader.end();
  if (read.length === 0 && write.length === 0) throw new Malformed("GRANT_EMPTY");
  return { keys, expiresMs, read, write };
}

function readPrefixes(reader: Reader): string[] {
  const count = reader.u32();
  if (count > GRANT_PREFIXES_MAX) throw new Malformed("GRANT_PREFIXES");
  const prefixes: string[] = [];
  for (let index = 0; index < count; index++) prefixes.push(latin1(reader.bytes(KEY_BYTES_MAX)));
  if (!areCanonical(prefixes)) throw new Malformed("GRANT_ORDER");
  return prefixes;
}

export function encodeRevocation(client: Digest): Uint8Array {
  return bytesOf(client);
}

/** @throws Malformed */
export function decodeRevocation(body: Uint8Array): Digest {
  if (body.length !== 32) throw new Malformed("REVOCATION");
  return latin1(body) as Digest;
}

/** Asks for the grants of ids above `after`. */
export function encodeListing(after: Digest | null): Uint8Array {
  return after === null ? new Uint8Array(0) : bytesOf(after);
}

/** @throws Malformed */
export function decodeListing(body: Uint8Array): Digest | null {
  if (body.length === 0) return null;
  if (body.length !== 32) throw new Malformed("LISTING");
  return latin1(body) as Digest;
}

const digestBytes = bytes({ min: 32, max: 32 });
const prefixList = list(bytes({ max: KEY_BYTES_MAX }), { max: GRANT_PREFIXES_MAX });

/** One client as `list` shows it. */
const listedSchema = union({
  /** May do everything, because the cluster file names it. */
  founding: [1, { id: digestBytes }],
  granted: [
    2,
    { id: digestBytes, keys: bytes({ min: 64, max: 64 }), read: prefixList, write: prefixList, expiresMs: u53 },
  ],
  /** Named by the cluster file, and revoked. */
  revoked: [3, { id: digestBytes }],
});
export type ListedClient = Infer<typeof listedSchema>;

const listingSchema = record({
  /** Everybody may do everything: nothing below matters. */
  open: bool,
  /** Of the newest statement judged: the next one needs a higher number. */
  number: u53,
  /** Batch time, by which grants expire. */
  nowMs: u53,
  clients: list(listedSchema, { max: GRANTS_PAGE_MAX }),
  /** Ask again for those above this id. */
  next: nullable(digestBytes),
});
export type Listing = Infer<typeof listingSchema>;

export const encodeListingPage = (listing: Listing): Uint8Array => encode(listingSchema, listing);
/** @throws Malformed */
export const decodeListingPage = (input: Uint8Array): Listing => decode(listingSchema, input);
