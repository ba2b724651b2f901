/** `Crypto` on tweetnacl and @noble/hashes: for browsers, and the oracle the Node implementation is tested against. */
import { hkdf } from "@noble/hashes/hkdf.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import nacl from "tweetnacl";
import { latin1 } from "../bytes.ts";
import { QuorateError } from "../errors.ts";
import type { Crypto } from "./contract.ts";

/** The order of Ed25519's group, 2^252 + 27742317777372353535851937790883648493, little-endian. */
const GROUP_ORDER = Uint8Array.from(
  "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010".match(/../g) ?? [],
  (byte) => Number.parseInt(byte, 16),
);

/**
 * The second half of a signature is below the group's order, as RFC 8032 demands and OpenSSL checks. tweetnacl does not: a
 * browser would take a signature that somebody altered and every server refuses, and follow a view that does not exist.
 */
function canonical(signature: Uint8Array): boolean {
  for (let at = 31; at >= 0; at--) {
    const difference = (signature[32 + at] as number) - (GROUP_ORDER[at] as number);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

export const portableCrypto: Crypto = {
  sha256: (data) => latin1(sha256(data)),
  macKey: (secret) => ({ opaque: Uint8Array.from(secret) }),
  mac: (key, data) => latin1(hmac(sha256, key.opaque as Uint8Array, data)),
  signer(seed) {
    const { secretKey } = nacl.sign.keyPair.fromSeed(seed);
    return (data) => nacl.sign.detached(data, secretKey);
  },
  verify(publicKey, data, signature) {
    if (publicKey.length !== 32 || signature.length !== 64) return false;
    return canonical(signature) && nacl.sign.detached.verify(data, signature, publicKey);
  },
  agree(secretKey, publicKey) {
    const shared = nacl.scalarMult(secretKey, publicKey);
    if (shared.every((byte) => byte === 0)) {
      throw new QuorateError("KEY_FILE_INVALID", "the X25519 public key is of low order or malformed");
    }
    return shared;
  },
  hkdf: (secret, salt, info, lengthBytes) => hkdf(sha256, secret, salt, info, lengthBytes),
  random: (lengthBytes) => nacl.randomBytes(lengthBytes),
};
