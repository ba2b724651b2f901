import fc from "fast-check";
import nacl from "tweetnacl";
import { describe, expect, it } from "vitest";
import { bytesOf, fromHex, hex, latin1, prefixEnd } from "../../../protocol/bytes.ts";
import { type Crypto, equalMacs } from "../../../protocol/crypto/contract.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { portableCrypto } from "../../../protocol/crypto/portable.ts";
import { QuorateError } from "../../../protocol/errors.ts";
import { identityFrom, keyFileText, newIdentity, parseKeyFile, sharedMacKey } from "../../../protocol/identity.ts";

const data = fc.uint8Array({ maxLength: 300 });
const seed = fc.uint8Array({ minLength: 32, maxLength: 32 });

/** Every implementation of the contract gives the same bytes as the other. */
function cryptoContract(name: string, crypto: Crypto, oracle: Crypto): void {
  describe(name, () => {
    it("hashes and MACs like the oracle, for short and long messages and keys", () => {
      fc.assert(
        fc.property(data, (input) => {
          expect(hex(crypto.sha256(input))).toBe(hex(oracle.sha256(input)));
        }),
      );
      fc.assert(
        fc.property(fc.uint8Array({ minLength: 1, maxLength: 100 }), data, (secret, input) => {
          expect(hex(crypto.mac(crypto.macKey(secret), input))).toBe(hex(oracle.mac(oracle.macKey(secret), input)));
        }),
      );
      for (const length of [16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 100_000]) {
        const input = new Uint8Array(length).fill(3);
        expect(crypto.mac(crypto.macKey(new Uint8Array(32)), input)).toBe(
          oracle.mac(oracle.macKey(new Uint8Array(32)), input),
        );
      }
    });

    it("MAC keys do not disturb each other", () => {
      const one = crypto.macKey(new Uint8Array(32).fill(1));
      const two = crypto.macKey(new Uint8Array(32).fill(2));
      const first = crypto.mac(one, new Uint8Array(5));
      crypto.mac(two, new Uint8Array(900));
      expect(crypto.mac(one, new Uint8Array(5))).toBe(first);
    });

    it("signs like the oracle, and verifies only what was signed", () => {
      fc.assert(
        fc.property(seed, data, fc.nat({ max: 63 }), (secret, input, at) => {
          const { signKey } = identityFrom(secret, secret);
          const signature = crypto.signer(secret)(input);
          expect(hex(signature)).toBe(hex(oracle.signer(secret)(input)));
          expect(crypto.verify(signKey, input, signature)).toBe(true);
          const forged = Uint8Array.from(signature);
          forged[at] = (forged[at] as number) ^ 1;
          expect(crypto.verify(signKey, input, forged)).toBe(false);
          expect(crypto.verify(signKey, new Uint8Array([...input, 0]), signature)).toBe(false);
        }),
        { numRuns: 10 },
      );
      expect(crypto.verify(new Uint8Array(31), new Uint8Array(1), new Uint8Array(64))).toBe(false);
      expect(crypto.verify(new Uint8Array(32), new Uint8Array(1), new Uint8Array(63))).toBe(false);
    });

    it("agrees on one secret from both sides, and refuses keys of low order", () => {
      const a = newIdentity(crypto);
      const b = newIdentity(oracle);
      expect(hex(crypto.agree(a.boxSecret, b.boxKey))).toBe(hex(oracle.agree(b.boxSecret, a.boxKey)));
      expect(() => crypto.agree(a.boxSecret, new Uint8Array(32))).toThrow(QuorateError);
    });

    it("derives with HKDF like the oracle", () => {
      fc.assert(
        fc.property(data, data, data, (secret, salt, info) => {
          expect(hex(crypto.hkdf(secret, salt, info, 48))).toBe(hex(oracle.hkdf(secret, salt, info, 48)));
        }),
        { numRuns: 30 },
      );
    });
  });
}

cryptoContract("node", nodeCrypto, portableCrypto);
cryptoContract("portable", portableCrypto, nodeCrypto);

describe("the verifier consensus depends on", () => {
  it("rejects a malleated signature (S + L), which tweetnacl takes: signature bytes are no identifier", () => {
    const identity = newIdentity(nodeCrypto);
    const input = new Uint8Array([1, 2, 3]);
    const signature = nodeCrypto.signer(identity.signSeed)(input);
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    let scalar = 0n;
    for (let index = 63; index >= 32; index--) scalar = scalar * 256n + BigInt(signature[index] as number);
    const malleated = Uint8Array.from(signature);
    let rest = scalar + order;
    for (let index = 32; index < 64; index++) {
      malleated[index] = Number(rest % 256n);
      rest /= 256n;
    }
    expect(nacl.sign.detached.verify(input, malleated, identity.signKey)).toBe(true);
    expect(nodeCrypto.verify(identity.signKey, input, malleated)).toBe(false);
    // A browser that took it would follow views that no server knows.
    expect(portableCrypto.verify(identity.signKey, input, malleated)).toBe(false);
    const order32 = malleated.map((byte, at) => (at < 32 ? byte : Number((order >> BigInt(8 * (at - 32))) % 256n)));
    expect(portableCrypto.verify(identity.signKey, input, order32)).toBe(false);
  });
});

describe("identities", () => {
  it("a shared key depends on purpose and cluster, and both sides derive the same", () => {
    const mine = newIdentity(nodeCrypto);
    const theirs = newIdentity(nodeCrypto);
    const cluster = nodeCrypto.sha256(new Uint8Array(1));
    const mac = (options: {
      mine: typeof mine;
      theirs: typeof mine;
      purpose: "link" | "connect";
      cluster: string;
    }): string => nodeCrypto.mac(sharedMacKey(nodeCrypto, options), new Uint8Array(3));
    const base = { mine, theirs, purpose: "link" as const, cluster };
    expect(mac({ ...base, mine: theirs, theirs: mine })).toBe(mac(base));
    expect(mac({ ...base, purpose: "connect" })).not.toBe(mac(base));
    expect(mac({ ...base, cluster: nodeCrypto.sha256(new Uint8Array(2)) })).not.toBe(mac(base));
  });

  it("key files round-trip; damaged ones are refused by name", () => {
    const identity = newIdentity(nodeCrypto);
    const text = keyFileText("client", identity);
    expect(parseKeyFile(text, "x")).toMatchObject({ role: "client" });
    for (const broken of [
      "",
      "{}",
      "null",
      text.replace(hex(identity.signKey), hex(identity.boxKey)),
      text.replace("client", "king"),
    ]) {
      expect(() => parseKeyFile(broken, "client.key")).toThrow(/client\.key is not a key file/);
    }
  });
});

describe("byte strings", () => {
  it("latin1, hex and their inverses", () => {
    fc.assert(
      fc.property(data, (input) => {
        expect([...bytesOf(latin1(input))]).toEqual([...input]);
      }),
    );
    fc.assert(
      fc.property(data, (input) => {
        expect([...fromHex(hex(input))]).toEqual([...input]);
      }),
    );
    expect(() => fromHex("0")).toThrow(RangeError);
    expect(() => fromHex("zz")).toThrow(RangeError);
  });

  it("the end of a prefix is the smallest string above all that start with it", () => {
    const word = fc.string({ unit: fc.nat({ max: 255 }).map((code) => String.fromCharCode(code)), maxLength: 4 });
    fc.assert(
      fc.property(word, word, (prefix, key) => {
        const end = prefixEnd(prefix);
        const inside = key >= prefix && (end === null || key < end);
        expect(inside).toBe(key.startsWith(prefix));
      }),
      { numRuns: 2_000 },
    );
  });

  it("MACs compare equal only when they are", () => {
    expect(equalMacs("abc", "abc")).toBe(true);
    expect(equalMacs("abc", "abd")).toBe(false);
    expect(equalMacs("abc", "ab")).toBe(false);
  });
});
