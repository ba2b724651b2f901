import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Digest, latin1 } from "../../../protocol/bytes.ts";
import { Malformed } from "../../../protocol/errors.ts";
import { ADMINISTRATORS_MAX, HOST_BYTES_MAX, REPLICA_ID_MAX } from "../../../protocol/limits.ts";
import {
  type Change,
  decodeInvitation,
  decodeReconfiguration,
  encodeInvitation,
  encodeReconfiguration,
  isAddress,
  type Reconfiguration,
  readyStatement,
} from "../../../protocol/reconfiguration.ts";
import type { Member } from "../../../protocol/view.ts";

const key = fc.uint8Array({ minLength: 32, maxLength: 32 });
const digest = key.map((bytes) => latin1(bytes) as Digest);
const port = fc.integer({ min: 1, max: 65_535 });
const id = fc.nat({ max: REPLICA_ID_MAX });
const host = fc.stringMatching(/^[\w.:-]{1,255}$/);
const address = fc.record({ host, clientPort: port, peerPort: port, adminPort: port });
const member: fc.Arbitrary<Member> = fc
  .tuple(id, key, key, address)
  .map(([replica, signKey, boxKey, where]) => ({ id: replica, signKey, boxKey, ...where }));
const ready = fc.record({
  instance: fc.maxSafeNat(),
  root: digest,
  signature: fc.uint8Array({ minLength: 64, maxLength: 64 }),
});
const keys = fc
  .uniqueArray(key, { minLength: 1, maxLength: ADMINISTRATORS_MAX, selector: latin1 })
  .map((list) => list.sort(Buffer.compare));

const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({ type: fc.constant("add" as const), member, ready }),
  fc.record({ type: fc.constant("remove" as const), id }),
  fc.record({ type: fc.constant("replace" as const), id, member, ready }),
  fc.record({ type: fc.constant("setF" as const), f: fc.nat({ max: 0xffff_ffff }) }),
  fc.record({ type: fc.constant("setAddress" as const), id, address }),
  fc.record({ type: fc.constant("rotateKey" as const), id, signKey: key, boxKey: key, ready }),
  fc.record({ type: fc.constant("administrators" as const), keys, threshold: fc.nat({ max: 255 }) }),
);
const reconfiguration: fc.Arbitrary<Reconfiguration> = fc.record({ expected: digest, resulting: digest, change });

/** Buffers and arrays of the same bytes alike. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString("hex");
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, plain(inner)]));
}

describe("the layout of a change (section 7)", () => {
  it("decoding after encoding is the identity", () => {
    fc.assert(
      fc.property(reconfiguration, (value) => {
        expect(plain(decodeReconfiguration(encodeReconfiguration(value)))).toEqual(plain(value));
      }),
    );
    fc.assert(
      fc.property(member, (value) => {
        expect(plain(decodeInvitation(encodeInvitation(value)))).toEqual(plain(value));
      }),
    );
  });

  it("altered bytes are malformed, or encode to themselves: never two encodings of one change", () => {
    fc.assert(
      fc.property(reconfiguration, fc.nat(), fc.integer({ min: 1, max: 255 }), (value, at, by) => {
        const bytes = encodeReconfiguration(value);
        const index = at % bytes.length;
        bytes[index] = (bytes[index] as number) ^ by;
        let decoded: Reconfiguration;
        try {
          decoded = decodeReconfiguration(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(Malformed);
          return;
        }
        expect(plain(encodeReconfiguration(decoded))).toBe(plain(bytes));
      }),
    );
  });

  it("cut, lengthened or random bytes never throw anything but Malformed", () => {
    const malformed = (bytes: Uint8Array) => expect(() => decodeReconfiguration(bytes)).toThrow(Malformed);
    fc.assert(
      fc.property(reconfiguration, fc.nat(), (value, at) => {
        const bytes = encodeReconfiguration(value);
        malformed(bytes.subarray(0, at % bytes.length));
        malformed(Buffer.concat([bytes, new Uint8Array(1)]));
      }),
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        malformed(bytes);
      }),
    );
  });

  it("keys of administrators are in order, each once, one at least", () => {
    const [a, b] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)] as const;
    const digests = { expected: latin1(a) as Digest, resulting: latin1(b) as Digest };
    const decoded = (list: Uint8Array[]) =>
      decodeReconfiguration(
        encodeReconfiguration({ ...digests, change: { type: "administrators", keys: list, threshold: 1 } }),
      );
    expect(() => decoded([b, a])).toThrow("CHANGE_ADMINISTRATORS");
    expect(() => decoded([a, a])).toThrow("CHANGE_ADMINISTRATORS");
    expect(() => decoded([])).toThrow("CHANGE_ADMINISTRATORS");
    const many = Array.from({ length: ADMINISTRATORS_MAX + 1 }, (_, at) => new Uint8Array(32).fill(at));
    expect(() => decoded(many)).toThrow("CHANGE_ADMINISTRATORS");
    expect(decoded(many.slice(1)).change).toMatchObject({ threshold: 1 });
  });
});

describe("addresses", () => {
  const good = { host: "10.0.0.1", clientPort: 1, peerPort: 65_535, adminPort: 3 };

  it.each([
    ["an IPv4 address", good, true],
    ["an IPv6 address", { ...good, host: "fe80::1" }, true],
    ["a name", { ...good, host: "replica-4.example_2.org" }, true],
    ["no host", { ...good, host: "" }, false],
    ["a host with a slash", { ...good, host: "a/b" }, false],
    ["a host with a space", { ...good, host: "a b" }, false],
    ["a host with a line", { ...good, host: "a\n" }, false],
    ["the longest host", { ...good, host: "a".repeat(HOST_BYTES_MAX) }, true],
    ["a longer host", { ...good, host: "a".repeat(HOST_BYTES_MAX + 1) }, false],
    ["port 0", { ...good, clientPort: 0 }, false],
    ["port 65536", { ...good, peerPort: 65_536 }, false],
    ["half a port", { ...good, adminPort: 1.5 }, false],
  ])("%s", (_, where, expected) => {
    expect(isAddress(where)).toBe(expected);
  });

  it("another one does not decode", () => {
    const keyed = { id: 4, signKey: new Uint8Array(32), boxKey: new Uint8Array(32) };
    expect(decodeInvitation(encodeInvitation({ ...keyed, ...good }))).toMatchObject(good);
    expect(() => decodeInvitation(encodeInvitation({ ...keyed, ...good, host: "a/b" }))).toThrow("MEMBER_ADDRESS");
    expect(() => decodeInvitation(encodeInvitation({ ...keyed, ...good, adminPort: 0 }))).toThrow("MEMBER_ADDRESS");
    expect(() => decodeInvitation(encodeInvitation({ ...keyed, ...good, id: 65_536 }))).toThrow("MEMBER_ID");
  });
});

it("a READY is about everything in it: no other view, member, instance or root has the same statement", () => {
  const claims = fc.record({ view: digest, member, instance: fc.maxSafeNat(), root: digest });
  const cluster = latin1(new Uint8Array(32)) as Digest;
  fc.assert(
    fc.property(claims, claims, (one, other) => {
      const same = plain(one) === plain(other) || JSON.stringify(plain(one)) === JSON.stringify(plain(other));
      const statements = [readyStatement(cluster, one), readyStatement(cluster, other)].map(plain);
      expect(statements[0] === statements[1]).toBe(same);
    }),
  );
  const [one] = fc.sample(claims, 1) as [typeof claims extends fc.Arbitrary<infer T> ? T : never];
  const statement = plain(readyStatement(cluster, one));
  const others = [
    { ...one, view: latin1(new Uint8Array(32).fill(1)) as Digest },
    { ...one, instance: one.instance === 0 ? 1 : 0 },
    { ...one, root: latin1(new Uint8Array(32).fill(2)) as Digest },
    { ...one, member: { ...one.member, id: one.member.id ^ 1 } },
    { ...one, member: { ...one.member, boxKey: new Uint8Array(32).fill(3) } },
    { ...one, member: { ...one.member, host: `${one.member.host}x` } },
  ];
  for (const other of others) expect(plain(readyStatement(cluster, other))).not.toBe(statement);
  expect(plain(readyStatement(latin1(new Uint8Array(32).fill(9)) as Digest, one))).not.toBe(statement);
});
