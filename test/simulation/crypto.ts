/**
 * The cryptography of one simulated world: `fastCrypto` with key agreement by hashing and chance from the run's generator,
 * so that a world of identities costs nothing and the same seed gives the same nonces. Identities are the same in every
 * run.
 */
import { bytesOf, concat, type Digest, latin1, utf8 } from "../../protocol/bytes.ts";
import type { Crypto, Signer } from "../../protocol/crypto/contract.ts";
import type { Identity } from "../../protocol/identity.ts";
import { fastCrypto, fastPublicKey } from "./fast-crypto.ts";
import type { Random } from "./random.ts";

/** The public key that belongs to a box secret here. */
function boxKeyOf(boxSecret: Uint8Array): Uint8Array {
  return bytesOf(fastCrypto.sha256(boxSecret));
}

/** The same bytes for both sides: a hash of both public keys in a fixed order. */
function agreed(mine: Uint8Array, theirs: Uint8Array): Uint8Array {
  const pair = Buffer.compare(mine, theirs) < 0 ? [mine, theirs] : [theirs, mine];
  return bytesOf(fastCrypto.sha256(concat(pair)));
}

function expanded(parts: readonly Uint8Array[], lengthBytes: number): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (let made = 0; made < lengthBytes; made += 32)
    blocks.push(bytesOf(fastCrypto.sha256(concat([...parts, Uint8Array.of(made / 32)]))));
  return concat(blocks).subarray(0, lengthBytes);
}

/** As `fastCrypto` signs, with the hashing of what does not change done once. */
function signer(seed: Uint8Array): Signer {
  const publicKey = fastPublicKey(seed);
  return (data) => {
    const half = bytesOf(fastCrypto.sha256(concat([publicKey, data])));
    return concat([half, half]);
  };
}

export function worldCrypto(random: Random): Crypto {
  return {
    ...fastCrypto,
    signer,
    agree: (secret, theirs) => agreed(boxKeyOf(secret), theirs),
    hkdf: (secret, salt, info, lengthBytes) => expanded([secret, salt, info], lengthBytes),
    random: (lengthBytes) => Uint8Array.from({ length: lengthBytes }, () => random.below(256)),
  };
}

const identities = new Map<string, Identity>();
const bySignKey = new Map<string, Identity>();

/** A fixed identity by name, such as "replica 3". */
export function identityOf(name: string): Identity {
  let identity = identities.get(name);
  if (!identity) {
    const signSeed = bytesOf(fastCrypto.sha256(utf8(`${name} sign`)) as Digest);
    const boxSecret = bytesOf(fastCrypto.sha256(utf8(`${name} box`)) as Digest);
    identity = { signSeed, boxSecret, signKey: fastPublicKey(signSeed), boxKey: boxKeyOf(boxSecret) };
    identities.set(name, identity);
    bySignKey.set(latin1(identity.signKey), identity);
  }
  return identity;
}

/** The keys that a member has in a view: they may have been rotated. */
export function identityOfMember({ signKey }: { readonly signKey: Uint8Array }): Identity {
  const identity = bySignKey.get(latin1(signKey));
  if (!identity) throw new Error("nobody has this key");
  return identity;
}
