/** Statements of administrators at execution: signatures, replays, lateness (docs/protocol.md sections 2 and 7). */
import { describe, expect, test } from "vitest";
import {
  decodeAdministrationResult,
  encodeSignedStatement,
  type Statement,
  signStatement,
} from "../../../protocol/administration.ts";
import { EMPTY, hex, utf8 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { newIdentity } from "../../../protocol/identity.ts";
import { STATEMENT_AHEAD_MS_MAX } from "../../../protocol/limits.ts";
import type { Request } from "../../../protocol/request.ts";
import { ADMINISTRATION_KEY } from "../../../server/service/administration.ts";
import type { OrderedReply } from "../../../server/service/executor.ts";
import { Bench, BOB, CAROL, CLUSTER, request } from "./fixtures.ts";

const NOW = 1_700_000_000_000;

function administrator() {
  const { signKey, signSeed } = newIdentity(nodeCrypto);
  return { signKey, sign: nodeCrypto.signer(signSeed) };
}
const [ANN, BEN] = [administrator(), administrator()] as const;

/** Of a type that no release carries out yet, or ever: the rules before that are what counts here. */
function statement(
  change: Partial<Statement> = {},
  signers = [ANN],
  options: { sequence?: number; client?: string } = {},
) {
  const value: Statement = { type: "reconfigure", number: NOW * 1000, notAfterMs: NOW + 1000, body: EMPTY, ...change };
  const commands = [encodeSignedStatement(signStatement(CLUSTER, value, signers))];
  return request({ kind: "administer", session: 77, commands, ...options });
}

function bench(threshold = 1): Bench {
  const made = new Bench({ administrators: { keys: [ANN.signKey, BEN.signKey], threshold } });
  made.batch([], NOW);
  return made;
}

const outcome = (reply: OrderedReply) => {
  expect(reply.status).toBe("OK");
  const result = decodeAdministrationResult(reply.result ?? EMPTY);
  return result.type === "refused" ? result.code : result.type;
};
const judge = (at: Bench, value: Request, timestampMs?: number) => outcome(at.one(value, timestampMs));

describe("who", () => {
  test("strangers, too few, garbage: refused, and no number is used up", () => {
    const at = bench(2);
    expect(judge(at, statement({}, [administrator()]))).toBe("NOT_ADMINISTRATOR");
    expect(judge(at, statement())).toBe("NOT_ADMINISTRATOR");
    expect(judge(at, request({ kind: "administer", commands: [utf8("garbage")] }))).toBe("INVALID_ARGUMENT");
    at.write();
    expect(at.store.has(ADMINISTRATION_KEY)).toBe(false);
    expect(judge(at, statement({}, [ANN, BEN]))).toBe("INVALID_ARGUMENT");
    at.write();
    expect(at.store.has(ADMINISTRATION_KEY)).toBe(true);
  });

  test("whoever carries it, it opens no session and takes no place in the client table", () => {
    const at = bench();
    at.one(statement({}, [ANN], { client: CAROL }));
    expect(at.executor.clients).toBe(0);
  });
});

describe("replays", () => {
  test("the newest is answered as before, by anybody, also after a restart", () => {
    const at = bench();
    const first = at.one(statement());
    at.restart();
    const again = at.one(statement({}, [BEN], { client: BOB, sequence: 5 }));
    expect(hex(again.result ?? EMPTY)).toBe(hex(first.result ?? utf8("-")));
    const known = at.executor.lookup(statement());
    expect(hex(known?.result ?? EMPTY)).toBe(hex(first.result ?? utf8("-")));
  });

  test("numbers rise: an earlier one, or another of the same number, is overtaken for ever", () => {
    const at = bench();
    at.one(statement({ number: 20 }));
    for (const number of [1, 19, 20]) {
      const other = statement({ number, body: utf8("other") });
      expect(judge(at, other)).toBe("overtaken");
      expect(at.executor.lookup(other)).not.toBeNull();
    }
    at.restart();
    expect(judge(at, statement({ number: 20, body: utf8("other") }))).toBe("overtaken");
    expect(judge(at, statement({ number: 21 }))).toBe("INVALID_ARGUMENT");
    expect(judge(at, statement({ number: 20 }))).toBe("overtaken");
  });
});

describe("time", () => {
  test("not after its time in batch time; on the millisecond it is", () => {
    const at = bench();
    expect(judge(at, statement({ notAfterMs: NOW - 1 }))).toBe("DEADLINE");
    expect(at.executor.lookup(statement({ notAfterMs: NOW - 1 }))).toBeNull();
    expect(judge(at, statement({ notAfterMs: NOW }))).toBe("INVALID_ARGUMENT");
    // Judged before, so the answer stands although the time has passed.
    expect(at.executor.lookup(statement({ notAfterMs: NOW }))).not.toBeNull();
  });

  test("a number far ahead of batch time would lock the later ones out: refused, not used up", () => {
    const at = bench();
    const ahead = (NOW + STATEMENT_AHEAD_MS_MAX) * 1000;
    at.one(statement({ number: ahead + 1, notAfterMs: NOW * 2 }));
    at.write();
    expect(at.store.has(ADMINISTRATION_KEY)).toBe(false);
    at.one(statement({ number: ahead, notAfterMs: NOW * 2 }));
    at.write();
    expect(at.store.has(ADMINISTRATION_KEY)).toBe(true);
  });
});

test("execution is the same however its groups were cut", () => {
  const run = (restarts: boolean): string => {
    const at = bench();
    for (const number of [5, 3, 9, 9]) {
      at.one(statement({ number }));
      if (restarts) at.restart();
    }
    at.write();
    return [...at.store]
      .map(([key, value]) => `${key}=${hex(value)}`)
      .sort()
      .join();
  };
  expect(run(true)).toBe(run(false));
});
