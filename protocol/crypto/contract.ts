/**
 * The cryptography everybody uses, behind one contract (docs/protocol.md section 2): node:crypto on servers and in the
 * Node client, tweetnacl and @noble/hashes in browsers, a fast keyed hash in simulation. All of it is synchronous;
 * verification off the event loop is the business of `server/verifier.ts`.
 */
import type { Digest } from "../bytes.ts";

/** A prepared HMAC-SHA-256 key: whatever an implementation keeps per key so that one MAC costs two hashes. */
export interface MacKey {
  readonly opaque: unknown;
}

export type Signer = (data: Uint8Array) => Uint8Array;

export interface Crypto {
  sha256(data: Uint8Array): Digest;
  macKey(secret: Uint8Array): MacKey;
  /** HMAC-SHA-256, all 32 bytes as latin1. */
  mac(key: MacKey, data: Uint8Array): Digest;
  /** Ed25519 with a 32-byte seed. Deterministic: the same data gives the same 64 bytes. */
  signer(seed: Uint8Array): Signer;
  /** Ed25519; `false` for anything malformed, never a throw. */
  verify(publicKey: Uint8Array, data: Uint8Array, signature: Uint8Array): boolean;
  /** X25519. @throws QuorateError KEY_FILE_INVALID when the result is all zero (a low-order public key). */
  agree(secretKey: Uint8Array, publicKey: Uint8Array): Uint8Array;
  hkdf(secret: Uint8Array, salt: Uint8Array, info: Uint8Array, lengthBytes: number): Uint8Array;
  random(lengthBytes: number): Uint8Array;
}

/** Compares two MACs in time that depends only on their lengths. */
export function equalMacs(a: string, b: string): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let index = 0; index < a.length; index++) difference |= a.charCodeAt(index) ^ b.charCodeAt(index);
  return difference === 0;
}
