/**
 * `Crypto` on node:crypto: the one implementation that consensus depends on. The only file of protocol/ that needs Node.
 * A MAC of a short message is two one-shot hashes over prepared pads, a third of the price of `createHmac`.
 */
import {
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hash,
  hkdfSync,
  type KeyObject,
  randomBytes,
  sign,
  verify,
} from "node:crypto";
import { type Digest, latin1 } from "../bytes.ts";
import { QuorateError } from "../errors.ts";
import type { Crypto, MacKey, Signer } from "./contract.ts";

const BLOCK_BYTES = 64;
const SHORT_BYTES = 16 * 1024;
const KEYS_KEPT_MAX = 16_384;

const ED25519_PUBLIC_DER = Buffer.from("302a300506032b6570032100", "hex");
const ED25519_PRIVATE_DER = Buffer.from("302e020100300506032b657004220420", "hex");
const X25519_PUBLIC_DER = Buffer.from("302a300506032b656e032100", "hex");
const X25519_PRIVATE_DER = Buffer.from("302e020100300506032b656e04220420", "hex");

interface Pads {
  readonly inner: Buffer;
  readonly outer: Buffer;
  readonly secret: Buffer;
}

/** @types/node knows fewer encodings than node:crypto takes: "latin1" is one of them. */
const LATIN1 = "latin1" as "binary";

const scratch = Buffer.allocUnsafe(BLOCK_BYTES + SHORT_BYTES);

function publicKeyObject(prefix: Buffer, key: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([prefix, key]), format: "der", type: "spki" });
}

function privateKeyObject(prefix: Buffer, key: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.concat([prefix, key]), format: "der", type: "pkcs8" });
}

const verifyKeys = new Map<string, KeyObject>();

/** The key object for a raw Ed25519 public key, kept for the next use; also for asynchronous verification. @throws Error */
export function verifyKeyOf(publicKey: Uint8Array): KeyObject {
  const name = latin1(publicKey);
  let key = verifyKeys.get(name);
  if (!key) {
    key = publicKeyObject(ED25519_PUBLIC_DER, publicKey);
    if (verifyKeys.size >= KEYS_KEPT_MAX) verifyKeys.clear();
    verifyKeys.set(name, key);
  }
  return key;
}

export const nodeCrypto: Crypto = {
  sha256: (data) => hash("sha256", data, LATIN1),

  macKey(secret) {
    const block = Buffer.alloc(BLOCK_BYTES);
    Buffer.from(secret.length > BLOCK_BYTES ? hash("sha256", secret, "buffer") : secret).copy(block);
    const inner = Buffer.from(block.map((byte) => byte ^ 0x36));
    const outer = Buffer.alloc(BLOCK_BYTES + 32);
    Buffer.from(block.map((byte) => byte ^ 0x5c)).copy(outer);
    const pads: Pads = { inner, outer, secret: Buffer.from(secret) };
    return { opaque: pads };
  },

  mac(key: MacKey, data: Uint8Array): Digest {
    const { inner, outer, secret } = key.opaque as Pads;
    if (data.length > SHORT_BYTES) return createHmac("sha256", secret).update(data).digest(LATIN1);
    scratch.set(inner, 0);
    scratch.set(data, BLOCK_BYTES);
    outer.write(hash("sha256", scratch.subarray(0, BLOCK_BYTES + data.length), LATIN1), BLOCK_BYTES, "latin1");
    return hash("sha256", outer, LATIN1);
  },

  signer(seed): Signer {
    const key = privateKeyObject(ED25519_PRIVATE_DER, seed);
    return (data) => sign(null, data, key);
  },

  verify(publicKey, data, signature) {
    if (publicKey.length !== 32 || signature.length !== 64) return false;
    try {
      return verify(null, data, verifyKeyOf(publicKey), signature);
    } catch {
      return false;
    }
  },

  agree(secretKey, publicKey) {
    try {
      return diffieHellman({
        privateKey: privateKeyObject(X25519_PRIVATE_DER, secretKey),
        publicKey: publicKeyObject(X25519_PUBLIC_DER, publicKey),
      });
    } catch (cause) {
      throw new QuorateError("KEY_FILE_INVALID", "the X25519 public key is of low order or malformed", {}, cause);
    }
  },

  hkdf: (secret, salt, info, lengthBytes) => new Uint8Array(hkdfSync("sha256", secret, salt, info, lengthBytes)),

  random: (lengthBytes) => randomBytes(lengthBytes),
};
