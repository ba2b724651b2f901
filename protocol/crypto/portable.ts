/** `Crypto` on tweetnacl and @noble/hashes: for browsers, and the oracle the Node implementation is tested against. */
import { hkdf } from "@noble/hashes/hkdf.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import nacl from "tweetnacl";
import { latin1 } from "../bytes.ts";
import { QuorateError } from "../errors.ts";
import type { Crypto } from "./contract.ts";

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
    return nacl.sign.detached.verify(data, signature, publicKey);
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
