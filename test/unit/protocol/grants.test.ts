/** Rights per key prefix: which ranges prefixes cover, and the layouts of grants (docs/protocol.md section 2, "Rights"). */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { hex, latin1 } from "../../../protocol/bytes.ts";
import { Malformed } from "../../../protocol/errors.ts";
import {
  decodeGrant,
  decodeListing,
  decodeRevocation,
  encodeGrant,
  encodeListing,
  encodeRevocation,
  type Grant,
} from "../../../protocol/grants.ts";
import { areCanonical, canonicalPrefixes, covers, EVERY_KEY, rangeOfKey } from "../../../protocol/key-ranges.ts";
import { GRANT_PREFIXES_MAX } from "../../../protocol/limits.ts";

/** Few bytes, the greatest and least among them, so that prefixes touch and nest. */
const key = fc.array(fc.constantFrom("\0", "a", "b", "\xfe", "\xff"), { maxLength: 4 }).map((bytes) => bytes.join(""));
const prefixes = fc.array(key, { maxLength: 6 });

/** Every key of up to `length` of those bytes. */
function keysUpTo(length: number): string[] {
  const keys = [""];
  for (let at = 0; at < keys.length; at++) {
    const base = keys[at] as string;
    if (base.length < length) for (const byte of ["\0", "a", "b", "\xfe", "\xff"]) keys.push(base + byte);
  }
  return keys;
}
const KEYS = keysUpTo(4);

describe("covers", () => {
  test("a key is covered exactly if one of the prefixes starts it", () => {
    fc.assert(
      fc.property(prefixes, key, (list, one) => {
        expect(covers(canonicalPrefixes(list), rangeOfKey(one))).toBe(list.some((prefix) => one.startsWith(prefix)));
      }),
    );
  });

  test("a range is never covered while a key in it is not: no bytes between two prefixes are forgotten", () => {
    fc.assert(
      fc.property(prefixes, key, fc.option(key), (list, from, to) => {
        const canonical = canonicalPrefixes(list);
        if (!covers(canonical, { from, to })) return;
        for (const one of KEYS) {
          if (one >= from && (to === null || one < to))
            expect(canonical.some((prefix) => one.startsWith(prefix))).toBe(true);
        }
        // And whatever follows the last byte of the range's first key.
        if (to === null || from < to) expect(canonical.some((prefix) => from.startsWith(prefix))).toBe(true);
      }),
      { numRuns: 100 },
    );
  });

  test("what is not covered has a key, perhaps a longer one, that no prefix starts", () => {
    const bytes = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte));
    fc.assert(
      fc.property(prefixes, key, fc.option(key), (list, from, to) => {
        const canonical = canonicalPrefixes(list);
        if (covers(canonical, { from, to })) return;
        // The first uncovered key is `from`, or the end of some prefix, or one byte more than either.
        const inside = (one: string): boolean => one >= from && (to === null || one < to);
        const free = (one: string): boolean => inside(one) && !canonical.some((prefix) => one.startsWith(prefix));
        const found = [from, ...KEYS].some((one) => free(one) || bytes.some((byte) => free(one + byte)));
        expect(found).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  test("examples", () => {
    expect(covers(["a"], { from: "a", to: "b" })).toBe(true);
    expect(covers(["a"], { from: "a", to: "b\0" })).toBe(false);
    expect(covers(["a"], { from: "a", to: null })).toBe(false);
    expect(covers(["a", "b"], { from: "a", to: "c" })).toBe(true);
    expect(covers(["a", "c"], { from: "a", to: "d" })).toBe(false);
    expect(covers(["a"], { from: "", to: "b" })).toBe(false);
    expect(covers([""], EVERY_KEY)).toBe(true);
    expect(covers(["\xff"], { from: "\xff\xff", to: null })).toBe(true);
    expect(covers(["\xfe", "\xff"], { from: "\xfe", to: null })).toBe(true);
    expect(covers([], { from: "b", to: "a" })).toBe(true);
    expect(covers([], { from: "", to: "" })).toBe(true);
    expect(covers([], EVERY_KEY)).toBe(false);
    expect(covers(["user/7/"], rangeOfKey("user/71"))).toBe(false);
  });
});

test("canonical prefixes cover the same keys, and writing them again changes nothing", () => {
  fc.assert(
    fc.property(prefixes, key, (list, one) => {
      const canonical = canonicalPrefixes(list);
      expect(canonicalPrefixes(canonical)).toEqual(canonical);
      expect(areCanonical(canonical)).toBe(true);
      expect(canonical.some((prefix) => one.startsWith(prefix))).toBe(list.some((prefix) => one.startsWith(prefix)));
    }),
  );
  expect(areCanonical(["b", "a"])).toBe(false);
  expect(areCanonical(["a", "a"])).toBe(false);
  expect(areCanonical(["a", "ab"])).toBe(false);
});

describe("layouts", () => {
  const anyGrant = fc
    .record({
      keys: fc.uint8Array({ minLength: 64, maxLength: 64 }),
      expiresMs: fc.maxSafeNat(),
      read: prefixes,
      write: prefixes,
    })
    .filter(({ read, write }) => read.length + write.length > 0)
    .map((grant): Grant => ({ ...grant, read: canonicalPrefixes(grant.read), write: canonicalPrefixes(grant.write) }));

  test("a grant: decode after encode is identity", () => {
    fc.assert(
      fc.property(anyGrant, (grant) => {
        const decoded = decodeGrant(encodeGrant(grant));
        expect({ ...decoded, keys: hex(decoded.keys) }).toEqual({ ...grant, keys: hex(grant.keys) });
      }),
    );
  });

  test("random bytes are Malformed or re-encode to themselves", () => {
    const near = fc.tuple(anyGrant, fc.nat(), fc.nat({ max: 255 })).map(([grant, at, byte]) => {
      const bytes = encodeGrant(grant);
      bytes[at % bytes.length] = byte;
      return bytes;
    });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 120 }), near), (bytes) => {
        try {
          expect(hex(encodeGrant(decodeGrant(bytes)))).toBe(hex(bytes));
        } catch (error) {
          expect(error).toBeInstanceOf(Malformed);
        }
      }),
    );
  });

  test("a grant has one encoding, a bound, and grants something", () => {
    const base = { keys: new Uint8Array(64), expiresMs: 0, write: [] };
    for (const read of [["b", "a"], ["a", "ab"], ["a", "a"], []]) {
      expect(() => decodeGrant(encodeGrant({ ...base, read }))).toThrow(Malformed);
    }
    const many = Array.from({ length: GRANT_PREFIXES_MAX + 1 }, (_, index) => `${1000 + index}`);
    expect(() => decodeGrant(encodeGrant({ ...base, read: many }))).toThrow("GRANT_PREFIXES");
    expect(decodeGrant(encodeGrant({ ...base, read: many.slice(1) })).read.length).toBe(GRANT_PREFIXES_MAX);
  });

  test("revocations and listings", () => {
    const id = latin1(new Uint8Array(32).fill(7));
    expect(decodeRevocation(encodeRevocation(id))).toBe(id);
    expect(decodeListing(encodeListing(id))).toBe(id);
    expect(decodeListing(encodeListing(null))).toBeNull();
    expect(() => decodeRevocation(new Uint8Array(31))).toThrow(Malformed);
    expect(() => decodeListing(new Uint8Array(1))).toThrow(Malformed);
  });
});
