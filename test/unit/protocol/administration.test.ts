/** Statements of administrators: layouts, who must sign, what is recognised without parsing (docs/protocol.md sections 2, 7). */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  administered,
  decodeSignedStatement,
  encodeSignedStatement,
  type SignedStatement,
  STATEMENT_TYPES,
  type Statement,
  signStatement,
  statementTypeOf,
} from "../../../protocol/administration.ts";
import { decodeBatch, encodeBatch } from "../../../protocol/batch.ts";
import { concat, type Digest, hex, utf8 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { isRejection, Malformed } from "../../../protocol/errors.ts";
import { newIdentity } from "../../../protocol/identity.ts";
import { BATCH_STATEMENTS_MAX } from "../../../protocol/limits.ts";
import { decodeRequest, encodeRequest, type Request } from "../../../protocol/request.ts";

const CLUSTER = nodeCrypto.sha256(utf8("a cluster"));
const OTHER = nodeCrypto.sha256(utf8("another cluster"));

function administrator() {
  const { signKey, signSeed } = newIdentity(nodeCrypto);
  return { signKey, sign: nodeCrypto.signer(signSeed) };
}
const [ANN, BEN, STRANGER] = [administrator(), administrator(), administrator()] as const;

const statement: Statement = { type: "grant", number: 7, notAfterMs: 1000, body: utf8("body") };

/** Every check that must hold does. */
function holds(signed: SignedStatement, threshold = 1, cluster: Digest = CLUSTER): boolean {
  const checks = administered(cluster, signed, { keys: [ANN.signKey, BEN.signKey], threshold });
  if (isRejection(checks)) return false;
  return checks.every((check) => nodeCrypto.verify(check.publicKey, check.statement, check.signature));
}

const anyStatement = fc.record({
  type: fc.constantFrom(...STATEMENT_TYPES),
  number: fc.maxSafeNat(),
  notAfterMs: fc.maxSafeNat(),
  body: fc.uint8Array({ maxLength: 300 }),
});
const anySigned = fc
  .tuple(
    anyStatement,
    fc.uniqueArray(fc.uint8Array({ minLength: 32, maxLength: 32 }), { minLength: 1, maxLength: 16, selector: hex }),
  )
  .map(([value, keys]): SignedStatement => {
    const sorted = keys.sort((a, b) => Buffer.compare(a, b)).filter((key) => key.some((byte) => byte !== 0));
    const signers = sorted.length > 0 ? sorted : [new Uint8Array(32).fill(1)];
    return { ...value, signatures: signers.map((key) => ({ key, signature: new Uint8Array(64).fill(key[0] ?? 0) })) };
  });

describe("the layout", () => {
  test("decode after encode is identity, and the first byte tells the type", () => {
    fc.assert(
      fc.property(anySigned, (signed) => {
        const bytes = encodeSignedStatement(signed);
        const decoded = decodeSignedStatement(bytes);
        expect(hex(encodeSignedStatement(decoded))).toBe(hex(bytes));
        expect([decoded.type, decoded.number, decoded.notAfterMs]).toEqual([
          signed.type,
          signed.number,
          signed.notAfterMs,
        ]);
        expect(bytes[0]).toBe(1 + STATEMENT_TYPES.indexOf(signed.type));
        expect(statementTypeOf({ kind: "administer", commands: [bytes] })).toBe(signed.type);
        expect(statementTypeOf({ kind: "ordered", commands: [bytes] })).toBeNull();
      }),
    );
  });

  test("random bytes are Malformed or re-encode to themselves", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        try {
          expect(hex(encodeSignedStatement(decodeSignedStatement(bytes)))).toBe(hex(bytes));
        } catch (error) {
          expect(error).toBeInstanceOf(Malformed);
        }
      }),
    );
  });

  test("the types keep their bytes for ever", () => {
    expect(STATEMENT_TYPES).toEqual(["reconfigure", "grant", "revoke", "list", "invite"]);
  });

  test("a signer twice, signers out of order, none: malformed", () => {
    const { signatures } = signStatement(CLUSTER, statement, [ANN, BEN]);
    const [first, second] = signatures as [SignedStatement["signatures"][0], SignedStatement["signatures"][0]];
    for (const wrong of [[first, first], [second, first], []]) {
      const bytes = encodeSignedStatement({ ...statement, signatures: wrong });
      expect(() => decodeSignedStatement(bytes)).toThrow(Malformed);
    }
    expect(() =>
      decodeSignedStatement(concat([encodeSignedStatement({ ...statement, signatures }), utf8("x")])),
    ).toThrow(Malformed);
  });
});

describe("administered", () => {
  test("one administrator's signature holds for exactly this statement in exactly this cluster", () => {
    const signed = signStatement(CLUSTER, statement, [ANN]);
    expect(holds(signed)).toBe(true);
    expect(holds(signed, 1, OTHER)).toBe(false);
    for (const change of [{ type: "revoke" }, { number: 8 }, { notAfterMs: 1001 }, { body: utf8("bodY") }] as const) {
      expect(holds({ ...signed, ...change })).toBe(false);
    }
  });

  test("the threshold counts different administrators; strangers and bad signatures spoil it", () => {
    expect(holds(signStatement(CLUSTER, statement, [ANN]), 2)).toBe(false);
    expect(holds(signStatement(CLUSTER, statement, [ANN, ANN]), 2)).toBe(false);
    expect(holds(signStatement(CLUSTER, statement, [BEN, ANN]), 2)).toBe(true);
    expect(holds(signStatement(CLUSTER, statement, [STRANGER]))).toBe(false);
    expect(holds(signStatement(CLUSTER, statement, [ANN, STRANGER]))).toBe(false);
    const signed = signStatement(CLUSTER, statement, [ANN, BEN]);
    const [one, two] = signed.signatures as [SignedStatement["signatures"][0], SignedStatement["signatures"][0]];
    expect(holds({ ...signed, signatures: [one, { ...two, signature: one.signature }] })).toBe(false);
  });
});

function administer(sequence: number): Request {
  const commands = [encodeSignedStatement(signStatement(CLUSTER, statement, [ANN]))];
  const base = { cluster: CLUSTER, client: CLUSTER, session: 1, ackedBelow: 0, deadlineMs: 0 };
  return decodeRequest(nodeCrypto, encodeRequest({ ...base, sequence, kind: "administer", commands }));
}

test("a batch carries at most BATCH_STATEMENTS_MAX statements: whoever executes it verifies signatures", () => {
  const batch = (count: number) =>
    encodeBatch({
      instance: 1,
      timestampMs: 1,
      requests: Array.from({ length: count }, (_, index) => administer(index + 1).bytes),
    });
  expect(decodeBatch(nodeCrypto, batch(BATCH_STATEMENTS_MAX)).requests.length).toBe(BATCH_STATEMENTS_MAX);
  expect(() => decodeBatch(nodeCrypto, batch(BATCH_STATEMENTS_MAX + 1))).toThrow("BATCH_STATEMENTS");
});

test("an administer request has exactly one command", () => {
  const base = { cluster: CLUSTER, client: CLUSTER, session: 1, sequence: 1, ackedBelow: 0, deadlineMs: 0 };
  const bytes = encodeRequest({ ...base, kind: "administer", commands: [utf8("a"), utf8("b")] });
  expect(() => decodeRequest(nodeCrypto, bytes)).toThrow("REQUEST_COMMANDS");
});
