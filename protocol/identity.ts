/**
 * Identities (docs/protocol.md section 2): an Ed25519 and an X25519 key pair each; a client's id is the SHA-256
 * fingerprint of its public keys. Shared keys are static: X25519, then HKDF with a label per purpose and direction.
 */
import nacl from "tweetnacl";
import { bytesOf, concat, copyOf, type Digest, fromHex, hex, utf8 } from "./bytes.ts";
import type { Crypto, MacKey } from "./crypto/contract.ts";
import { QuorateError } from "./errors.ts";

export const PUBLIC_KEYS_BYTES = 64;

/** Both public keys, 32 bytes each. */
export interface PublicKeys {
  readonly signKey: Uint8Array;
  readonly boxKey: Uint8Array;
}

/** Both secrets, 32 bytes each: the Ed25519 seed and the X25519 secret key. */
export interface Identity extends PublicKeys {
  readonly signSeed: Uint8Array;
  readonly boxSecret: Uint8Array;
}

export type Role = "replica" | "client" | "admin";

/** What a shared key is for; the direction is in the name, so no MAC can be reflected. */
export type Purpose = "client-to-replica" | "replica-to-client" | "connect" | "link";

export function newIdentity(crypto: Crypto): Identity {
  return identityFrom(crypto.random(32), crypto.random(32));
}

export function identityFrom(signSeed: Uint8Array, boxSecret: Uint8Array): Identity {
  return {
    signSeed,
    boxSecret,
    signKey: nacl.sign.keyPair.fromSeed(signSeed).publicKey,
    boxKey: nacl.box.keyPair.fromSecretKey(boxSecret).publicKey,
  };
}

/** signKey then boxKey: what travels in AUTH and, at first, in envelopes. */
export function publicKeysBytes(keys: PublicKeys): Uint8Array {
  return concat([keys.signKey, keys.boxKey]);
}

export function publicKeysFrom(bytes: Uint8Array): PublicKeys {
  return { signKey: copyOf(bytes.subarray(0, 32)), boxKey: copyOf(bytes.subarray(32, 64)) };
}

export function clientIdOf(crypto: Crypto, keys: PublicKeys): Digest {
  return crypto.sha256(concat([utf8("quorate/client/1"), keys.signKey, keys.boxKey]));
}

/** The MAC key two identities share for one purpose in one cluster. @throws QuorateError KEY_FILE_INVALID */
export function sharedMacKey(
  crypto: Crypto,
  options: { cluster: Digest; mine: Pick<Identity, "boxSecret">; theirs: PublicKeys; purpose: Purpose },
): MacKey {
  const secret = crypto.agree(options.mine.boxSecret, options.theirs.boxKey);
  const info = utf8(`quorate/key/1/${options.purpose}`);
  return crypto.macKey(crypto.hkdf(secret, bytesOf(options.cluster), info, 32));
}

/** A key file: JSON text, mode 0600. `publicKeys` are derived again when read; a contradiction is an error. */
export function keyFileText(role: Role, identity: Identity): string {
  const file = {
    format: 1,
    role,
    signSeed: hex(identity.signSeed),
    boxSecret: hex(identity.boxSecret),
    signKey: hex(identity.signKey),
    boxKey: hex(identity.boxKey),
  };
  return `${JSON.stringify(file, null, 2)}\n`;
}

/** @throws QuorateError KEY_FILE_INVALID */
export function parseKeyFile(text: string, name: string): { role: Role; identity: Identity } {
  const invalid = (why: string): never => {
    throw new QuorateError("KEY_FILE_INVALID", `${name} is not a key file (${why}); create keys with: kv init`, {
      name,
    });
  };
  let file: Record<string, unknown>;
  try {
    file = JSON.parse(text) as Record<string, unknown>;
  } catch {
    return invalid("not JSON");
  }
  if (typeof file !== "object" || file === null || file.format !== 1) return invalid("unknown format");
  const part = (field: string): Uint8Array => {
    const value = file[field];
    if (typeof value !== "string" || !/^[0-9a-f]{64}$/.test(value))
      return invalid(`${field} must be 64 hexadecimal digits`);
    return fromHex(value);
  };
  const identity = identityFrom(part("signSeed"), part("boxSecret"));
  if (hex(identity.signKey) !== file.signKey || hex(identity.boxKey) !== file.boxKey)
    return invalid("its public keys are not those of its secrets");
  const { role } = file;
  if (role !== "replica" && role !== "client" && role !== "admin") return invalid("unknown role");
  return { role, identity };
}
