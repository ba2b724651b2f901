/**
 * How a client proves itself to the admin port of a replica, for what not everybody may read: one signature per request, over
 * the replica, the time and what is asked (docs/protocol.md section 2: tagged, bound to cluster and purpose). A request only
 * reads, so that one repeated within the minute it is good for harms nobody.
 */
import { concat, type Digest, fromHex, hex, utf8 } from "./bytes.ts";
import type { Signer } from "./crypto/contract.ts";
import { PUBLIC_KEYS_BYTES, type PublicKeys, publicKeysFrom } from "./identity.ts";
import { Writer } from "./layout.ts";
import { SIGNATURE_BYTES } from "./request.ts";
import { writeTag } from "./view.ts";

/** How far the time in a request may be from the replica's clock. */
export const ADMIN_REQUEST_MS_MAX = 60_000;

export interface AdminRequest {
  readonly cluster: Digest;
  readonly replica: number;
  readonly timestampMs: number;
  readonly method: string;
  /** With the query. */
  readonly path: string;
}

export function adminStatement(request: AdminRequest): Uint8Array {
  const writer = writeTag(new Writer(256), "quorate/admin/1", request.cluster).u32(request.replica);
  return writer.u53(request.timestampMs).bytes(utf8(request.method)).bytes(utf8(request.path)).finish();
}

export interface Authorization {
  readonly keys: PublicKeys;
  readonly timestampMs: number;
  readonly signature: Uint8Array;
}

/** `Quorate <both public keys>:<milliseconds>:<signature>`, keys and signature in hexadecimal digits. */
export function authorizationText(request: AdminRequest, client: { keys: PublicKeys; sign: Signer }): string {
  const { keys, sign } = client;
  const publicKeys = hex(concat([keys.signKey, keys.boxKey]));
  return `Quorate ${publicKeys}:${request.timestampMs}:${hex(sign(adminStatement(request)))}`;
}

const FORM = new RegExp(
  `^Quorate ([0-9a-f]{${2 * PUBLIC_KEYS_BYTES}}):(\\d{1,15}):([0-9a-f]{${2 * SIGNATURE_BYTES}})$`,
);

/** Null for anything of another form. */
export function parseAuthorization(text: string): Authorization | null {
  const [, keys, timestampMs, signature] = FORM.exec(text) ?? [];
  if (keys === undefined || timestampMs === undefined || signature === undefined) return null;
  return { keys: publicKeysFrom(fromHex(keys)), timestampMs: Number(timestampMs), signature: fromHex(signature) };
}
