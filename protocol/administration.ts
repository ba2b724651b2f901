/**
 * What administrators order: statements in fixed layouts, signed by the view's threshold of administrators, ordered like any
 * request (kind `administer`) and judged at execution, alike everywhere (docs/protocol.md sections 2 and 7). A signature
 * covers cluster, type, number, not-after and body. Numbers rise: once a statement is executed, none with a lower number is,
 * so that what a later one took away cannot come back by an earlier one that was delayed or is replayed.
 */
import type { Digest } from "./bytes.ts";
import { latin1 } from "./bytes.ts";
import type { SignatureCheck } from "./certificate.ts";
import { bytes, decode, encode, type Infer, text, union } from "./codec.ts";
import type { Signer } from "./crypto/contract.ts";
import { Malformed, type Rejection, reject } from "./errors.ts";
import { Reader, Writer } from "./layout.ts";
import { ADMINISTRATORS_MAX, FRAME_BYTES_MAX, STATEMENT_BODY_BYTES_MAX } from "./limits.ts";
import { type Request, SIGNATURE_BYTES } from "./request.ts";
import { type View, writeTag } from "./view.ts";

const KEY_BYTES = 32;

/** The first byte of a statement: 1 + its position here. Only ever append. */
export const STATEMENT_TYPES = ["reconfigure", "grant", "revoke", "list", "invite"] as const;
export type StatementType = (typeof STATEMENT_TYPES)[number];

export interface Statement {
  readonly type: StatementType;
  /** Rises from statement to statement: the administrator's clock in microseconds, or more. `list` changes nothing: 0. */
  readonly number: number;
  /** Milliseconds since 1970 in batch time: later it is refused. */
  readonly notAfterMs: number;
  /** What its type says: fixed layouts of their own. */
  readonly body: Uint8Array;
}

export interface StatementSignature {
  /** The administrator's Ed25519 public key. */
  readonly key: Uint8Array;
  readonly signature: Uint8Array;
}

/** Signatures in ascending order of their keys, each key once. */
export interface SignedStatement extends Statement {
  readonly signatures: readonly StatementSignature[];
}

/** Who may order what administrators order. */
export interface Administrators {
  readonly keys: readonly Uint8Array[];
  /** So many different ones must sign. */
  readonly threshold: number;
}

export function administratorsOf(view: View): Administrators {
  return { keys: view.administrators, threshold: view.administratorThreshold };
}

/** What administrators sign; its digest names the statement. */
export function statementBytes(cluster: Digest, statement: Statement): Uint8Array {
  const writer = writeTag(new Writer(256), "quorate/administer/1", cluster);
  return writeStatement(writer, statement).finish();
}

function writeStatement(writer: Writer, { type, number, notAfterMs, body }: Statement): Writer {
  return writer
    .u8(1 + STATEMENT_TYPES.indexOf(type))
    .u53(number)
    .u53(notAfterMs)
    .bytes(body);
}

/** Signed by everybody given, in the order of their keys. */
export function signStatement(
  cluster: Digest,
  statement: Statement,
  administrators: readonly { readonly signKey: Uint8Array; readonly sign: Signer }[],
): SignedStatement {
  const signed = statementBytes(cluster, statement);
  const byKey = new Map(administrators.map((administrator) => [latin1(administrator.signKey), administrator]));
  const sorted = [...byKey.entries()].sort(([a], [b]) => (a < b ? -1 : 1));
  const signatures = sorted.map(([, { signKey, sign }]) => ({ key: signKey, signature: sign(signed) }));
  return { ...statement, signatures };
}

/** The one command of an `administer` request. */
export function encodeSignedStatement(signed: SignedStatement): Uint8Array {
  const writer = writeStatement(new Writer(512), signed).u8(signed.signatures.length);
  for (const { key, signature } of signed.signatures) writer.raw(key).raw(signature);
  return writer.finish();
}

/** @throws Malformed */
export function decodeSignedStatement(input: Uint8Array): SignedStatement {
  const reader = new Reader(input);
  const type = STATEMENT_TYPES[reader.u8() - 1];
  if (type === undefined) throw new Malformed("STATEMENT_TYPE");
  const statement = { number: reader.u53(), notAfterMs: reader.u53(), body: reader.bytes(STATEMENT_BODY_BYTES_MAX) };
  const count = reader.u8();
  if (count === 0 || count > ADMINISTRATORS_MAX) throw new Malformed("STATEMENT_SIGNATURES");
  const signatures: StatementSignature[] = [];
  let previous = "";
  for (let index = 0; index < count; index++) {
    const key = reader.raw(KEY_BYTES);
    const name = latin1(key);
    if (name <= previous) throw new Malformed("STATEMENT_ORDER");
    previous = name;
    signatures.push({ key, signature: reader.raw(SIGNATURE_BYTES) });
  }
  reader.end();
  return { type, ...statement, signatures };
}

/**
 * Which statement a request of a batch carries, from its first byte alone; null when it is no `administer` request or of no
 * known type. Says nothing about signatures: that is `administered`.
 */
export function statementTypeOf(request: Pick<Request, "kind" | "commands">): StatementType | null {
  if (request.kind !== "administer") return null;
  const first = request.commands[0]?.[0];
  return first === undefined ? null : (STATEMENT_TYPES[first - 1] ?? null);
}

/** A batch holds such a request alone, and the view may end with it. */
export function reconfigures(request: Pick<Request, "kind" | "commands">): boolean {
  return statementTypeOf(request) === "reconfigure";
}

/**
 * What must verify so that a statement is the administrators': every signature it carries, none of which may be a
 * stranger's, and at least the threshold. A statement with one bad signature is nobody's.
 */
export function administered(
  cluster: Digest,
  signed: SignedStatement,
  administrators: Administrators,
): readonly SignatureCheck[] | Rejection {
  const known = new Set(administrators.keys.map(latin1));
  if (signed.signatures.length < administrators.threshold) return reject("ignore", "STATEMENT_THRESHOLD");
  if (signed.signatures.some(({ key }) => !known.has(latin1(key)))) return reject("ignore", "STATEMENT_STRANGER");
  const statement = statementBytes(cluster, signed);
  return signed.signatures.map(({ key, signature }) => ({ publicKey: key, statement, signature }));
}

/** What an `administer` request is answered, as the result bytes of its reply. */
export const administrationResultSchema = union({
  executed: [1, {}],
  /** Not executed, and it never will be: `code` is an ErrorCode. */
  refused: [2, { code: text({ max: 64 }), message: text({ max: 512 }) }],
  /** Not executed, and it never will be: another statement with this number or a higher one was judged before. */
  overtaken: [3, {}],
  /** To a `list`: a page as `decodeListingPage` reads it. */
  listed: [4, { page: bytes({ max: FRAME_BYTES_MAX }) }],
});
export type AdministrationResult = Infer<typeof administrationResultSchema>;
export const encodeAdministrationResult = (result: AdministrationResult): Uint8Array =>
  encode(administrationResultSchema, result);
/** @throws Malformed */
export const decodeAdministrationResult = (input: Uint8Array): AdministrationResult =>
  decode(administrationResultSchema, input);
