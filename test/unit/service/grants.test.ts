/** Clients' rights at execution (docs/protocol.md section 2, "Rights"): who, which keys, until when, and how many. */
import { describe, expect, test } from "vitest";
import {
  type AdministrationResult,
  decodeAdministrationResult,
  encodeSignedStatement,
  type StatementType,
  signStatement,
} from "../../../protocol/administration.ts";
import { type Digest, EMPTY, hex, latin1, textOf, utf8 } from "../../../protocol/bytes.ts";
import { decodeResults } from "../../../protocol/commands.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import {
  decodeListingPage,
  encodeGrant,
  encodeListing,
  encodeRevocation,
  type Listing,
} from "../../../protocol/grants.ts";
import { clientIdOf, newIdentity, publicKeysBytes } from "../../../protocol/identity.ts";
import { canonicalPrefixes, rangeOfKey } from "../../../protocol/key-ranges.ts";
import type { AccessRules } from "../../../server/service/contract.ts";
import type { OrderedReply } from "../../../server/service/executor.ts";
import { type SnapshottedService, snapshotted } from "../../../server/service/snapshotted.ts";
import { CounterService } from "./counter-service.ts";
import {
  ALICE,
  Bench,
  type BenchOptions,
  BOB,
  CLUSTER,
  command,
  dump,
  get,
  put,
  request,
  resolve,
  resultsOf,
} from "./fixtures.ts";

const NOW = 1_700_000_000_000;
const admin = newIdentity(nodeCrypto);
const sign = nodeCrypto.signer(admin.signSeed);

function somebody() {
  const keys = publicKeysBytes(newIdentity(nodeCrypto));
  const id: Digest = clientIdOf(nodeCrypto, { signKey: keys.subarray(0, 32), boxKey: keys.subarray(32) });
  return { keys, id };
}
const [CAROL, DAVE, EVE] = [somebody(), somebody(), somebody()] as const;

/** ALICE and BOB are founding clients. */
class Court extends Bench {
  #number = 0;

  constructor(options: BenchOptions = {}) {
    super({
      clients: new Set([ALICE, BOB]),
      administrators: { keys: [admin.signKey], threshold: 1 },
      ...options,
    });
    this.batch([], NOW);
  }

  statement(type: StatementType, body: Uint8Array) {
    const value = { type, number: type === "list" ? 0 : ++this.#number, notAfterMs: NOW * 2, body };
    const commands = [encodeSignedStatement(signStatement(CLUSTER, value, [{ signKey: admin.signKey, sign }]))];
    return request({ kind: "administer", client: EVE.id, session: 9, commands });
  }

  order(type: StatementType, body: Uint8Array): AdministrationResult {
    return decodeAdministrationResult(this.one(this.statement(type, body)).result ?? EMPTY);
  }

  grant(to: { keys: Uint8Array }, rights: { read?: string[]; write?: string[]; expiresMs?: number }): string {
    const { read = [], write = [], expiresMs = 0 } = rights;
    const body = { keys: to.keys, expiresMs, read: canonicalPrefixes(read), write: canonicalPrefixes(write) };
    return typeOf(this.order("grant", encodeGrant(body)));
  }

  revoke(id: Digest): string {
    return typeOf(this.order("revoke", encodeRevocation(id)));
  }

  list(after: Digest | null = null): Listing {
    const result = this.order("list", encodeListing(after));
    if (result.type !== "listed") throw new Error(result.type);
    return decodeListingPage(result.page);
  }
}

const typeOf = (result: AdministrationResult) => (result.type === "refused" ? result.code : result.type);

/** How each command went, or how the whole request was answered. */
function fates(reply: OrderedReply): string[] {
  if (reply.status !== "OK") return [reply.status, textOf(reply.result ?? EMPTY) ?? ""];
  return resultsOf(reply).map((result) => (result.type === "refused" ? result.code : result.type));
}

const range = (from: string, to: string | null) =>
  command({
    type: "range",
    from: utf8(from),
    to: to === null ? null : utf8(to),
    limit: 0,
    reverse: false,
    keysOnly: true,
  });
const remove = (key: string) => command({ type: "delete", key: utf8(key), ifRevision: null });
const swap = (key: string) => command({ type: "cas", key: utf8(key), expect: 0, value: utf8("v") });

describe("who may be a client", () => {
  test("open: everybody, and nothing can be granted or revoked", () => {
    const court = new Court({ clients: "open" });
    expect(fates(court.one(request({ client: CAROL.id })))).toEqual(["written"]);
    expect(court.grant(CAROL, { read: [""] })).toBe("INVALID_ARGUMENT");
    expect(court.revoke(CAROL.id)).toBe("INVALID_ARGUMENT");
  });

  test("else founding clients with all rights, and whoever is granted; strangers open no session", () => {
    const court = new Court();
    expect(fates(court.one(request({ client: CAROL.id })))).toEqual(["REFUSED", "NOT_PERMITTED"]);
    expect(fates(court.one(resolve({ sequence: 1 }, { client: CAROL.id })))).toEqual(["REFUSED", "NOT_PERMITTED"]);
    expect(court.executor.clients).toBe(0);
    expect(fates(court.one(request()))).toEqual(["written"]);
    expect(court.grant(CAROL, { write: ["key"] })).toBe("executed");
    expect(fates(court.one(request({ client: CAROL.id })))).toEqual(["written"]);
  });

  test("revoked: nothing any more, session gone for ever, its place in the table free", () => {
    const court = new Court({ maxClients: 3 });
    court.grant(CAROL, { write: [""] });
    court.one(request({ client: CAROL.id, session: 2000 }));
    expect(court.executor.clients).toBe(1);
    expect(court.revoke(CAROL.id)).toBe("executed");
    expect(court.executor.clients).toBe(0);
    expect(fates(court.one(request({ client: CAROL.id, session: 2000 })))[0]).toBe("SESSION_EXPIRED");
    expect(fates(court.one(request({ client: CAROL.id, session: 2001 })))).toEqual(["REFUSED", "NOT_PERMITTED"]);
    expect(court.revoke(CAROL.id)).toBe("INVALID_ARGUMENT");
    court.grant(CAROL, { write: [""] });
    expect(fates(court.one(request({ client: CAROL.id, session: 2000 })))[0]).toBe("SESSION_EXPIRED");
    expect(fates(court.one(request({ client: CAROL.id, session: 2001 })))).toEqual(["written"]);
  });

  test("revoked within the batch that carries its requests: those behind are not executed", () => {
    const court = new Court();
    court.grant(CAROL, { write: [""] });
    const at = (sequence: number) => request({ client: CAROL.id, session: 2000, sequence });
    const replies = court.batch([at(1), court.statement("revoke", encodeRevocation(CAROL.id)), at(2)]);
    expect([fates(replies[0] as OrderedReply), fates(replies[2] as OrderedReply)[0]]).toEqual([
      ["written"],
      "SESSION_EXPIRED",
    ]);
  });

  test("founding clients can be revoked, for good, and granted less", () => {
    const court = new Court();
    expect(court.revoke(ALICE)).toBe("executed");
    court.restart();
    expect(fates(court.one(request()))).toEqual(["REFUSED", "NOT_PERMITTED"]);
    expect(court.revoke(ALICE)).toBe("INVALID_ARGUMENT");
    expect(fates(court.one(request({ client: BOB })))).toEqual(["written"]);
    const founder = somebody();
    const smaller = new Court({ clients: new Set([founder.id]) });
    smaller.grant(founder, { write: ["a"] });
    expect(fates(smaller.one(request({ client: founder.id, commands: [put("a"), put("b"), get("a")] })))).toEqual([
      "written",
      "NOT_PERMITTED",
      "NOT_PERMITTED",
    ]);
  });

  test("until it expires in batch time: on the millisecond it has", () => {
    const court = new Court();
    court.grant(CAROL, { write: [""], expiresMs: NOW + 10 });
    expect(fates(court.one(request({ client: CAROL.id, sequence: 1 }), NOW + 9))).toEqual(["written"]);
    expect(court.executor.permits(CAROL.id)).toBe(true);
    expect(court.executor.permits(CAROL.id, NOW + 10)).toBe(false);
    const late = request({ client: CAROL.id, sequence: 2 });
    expect(fates(court.one(late, NOW + 10))).toEqual(["REFUSED", "NOT_PERMITTED"]);
    // What was executed in time is told for as long as it is remembered.
    expect(fates(court.one(request({ client: CAROL.id, sequence: 1 })))).toEqual(["written"]);
    expect(court.grant(DAVE, { write: [""], expiresMs: NOW + 10 })).toBe("INVALID_ARGUMENT");
  });
});

describe("which keys", () => {
  const court = new Court();
  court.one(request({ commands: [put("a/1"), put("b/1"), put("c/1")] }));
  court.grant(CAROL, { read: ["a/", "b/"], write: ["b/"] });
  let sequence = 0;
  const ordered = (...commands: Uint8Array[]) =>
    fates(court.one(request({ client: CAROL.id, session: 3000, sequence: ++sequence, commands })));

  test("each command of a bundle by itself", () => {
    expect(
      ordered(get("a/1"), get("c/1"), put("b/2"), put("a/2"), remove("b/2"), remove("c/1"), swap("b/3"), swap("a/3")),
    ).toEqual([
      "found",
      "NOT_PERMITTED",
      "written",
      "NOT_PERMITTED",
      "deleted",
      "NOT_PERMITTED",
      "written",
      "NOT_PERMITTED",
    ]);
    // The right to write is none to read.
    court.grant(DAVE, { write: ["x"] });
    const replies = court.one(request({ client: DAVE.id, commands: [put("x"), get("x"), put("w")] }));
    expect(fates(replies)).toEqual(["written", "NOT_PERMITTED", "NOT_PERMITTED"]);
  });

  test("a refused command changes nothing and tells nothing", () => {
    const before = court.executor.revision;
    const absent = court.one(
      request({ client: CAROL.id, session: 3000, sequence: ++sequence, commands: [get("c/none")] }),
    );
    const present = court.one(
      request({ client: CAROL.id, session: 3000, sequence: ++sequence, commands: [get("c/1")] }),
    );
    expect(hex(absent.result ?? EMPTY)).toBe(hex(present.result ?? utf8("-")));
    ordered(put("c/9"), remove("a/1"));
    expect(court.executor.revision).toBe(before);
  });

  test("a range needs every key between its ends", () => {
    expect(ordered(range("a/", "a0"), range("b/", "b0"))).toEqual(["page", "page"]);
    expect(ordered(range("a/", "b0"), range("a/", null), range("", "a0"), range("b/", "b1"))).toEqual(
      new Array(4).fill("NOT_PERMITTED"),
    );
    expect(ordered(range("b", "a"))).toEqual(["page"]);
    court.grant(DAVE, { read: ["m", "n"] });
    const commands = [range("m", "o"), range("m", "o\0")];
    expect(fates(court.one(request({ client: DAVE.id, session: 4000, commands })))).toEqual(["page", "NOT_PERMITTED"]);
  });

  test("reads that are not ordered are judged alike", () => {
    const query = (client: Digest, ...commands: Uint8Array[]) =>
      court.executor.query(request({ client, kind: "unordered", commands }));
    const answer = query(CAROL.id, get("a/1"), get("c/1"), range("a/", null));
    expect(fates({ status: "OK", result: answer?.result ?? EMPTY } as OrderedReply)).toEqual([
      "found",
      "NOT_PERMITTED",
      "NOT_PERMITTED",
    ]);
    expect(query(EVE.id, get("a/1"))).toBeNull();
    expect(query(BOB, get("c/1"))).not.toBeNull();
  });

  test("malformed commands are the service's to refuse; a no-op touches nothing", () => {
    expect(ordered(utf8("garbage"), command({ type: "noop", payload: EMPTY, replyBytes: 1 }))).toEqual([
      "INVALID_ARGUMENT",
      "noop",
    ]);
  });

  test("a service that does not name its keys is for clients with all rights", () => {
    const counter = new Court({ service: (state) => new CounterService(state) });
    counter.grant(CAROL, { read: ["a"], write: ["a"] });
    counter.grant(DAVE, { read: [""], write: [""] });
    const add = (client: Digest) => counter.one(request({ client, commands: [utf8("add")] }));
    expect(fates(add(CAROL.id))).toEqual(["REFUSED", "NOT_PERMITTED"]);
    for (const client of [DAVE.id, ALICE]) {
      const reply = add(client);
      expect([reply.status, decodeResults(reply.result ?? EMPTY).length]).toEqual(["OK", 1]);
    }
  });
});

describe("a service in memory", () => {
  /** Echoes; every command touches the key "text". */
  class RuledEcho implements SnapshottedService {
    readonly accessRules: AccessRules = {
      access: (bytes) => {
        const text = [rangeOfKey("text")];
        return textOf(bytes) === "?" ? { reads: text, writes: [] } : { reads: [], writes: text };
      },
      notPermitted: utf8("not permitted"),
    };
    snapshot(): Uint8Array {
      return EMPTY;
    }
    install(): void {}
    execute(bytes: Uint8Array): Uint8Array {
      return bytes;
    }
    query(bytes: Uint8Array): Uint8Array {
      return bytes;
    }
  }

  test("keeps its access rules behind its snapshots", () => {
    const court = new Court({ service: snapshotted(() => new RuledEcho()) });
    court.grant(CAROL, { read: ["te"] });
    const commands = [utf8("?"), utf8("=")];
    const ordered = court.one(request({ client: CAROL.id, commands }));
    const unordered = court.executor.query(request({ client: CAROL.id, kind: "unordered", commands }));
    for (const answer of [ordered, unordered]) {
      expect(decodeResults(answer?.result ?? EMPTY).map(textOf)).toEqual(["?", "not permitted"]);
    }
  });
});

describe("maxClients", () => {
  test("bounds the granted together with the founding; revoked and expired ones make room", () => {
    const court = new Court({ maxClients: 3 });
    expect(court.grant(CAROL, { read: ["a"], expiresMs: NOW + 10 })).toBe("executed");
    const one = encodeGrant({ keys: DAVE.keys, expiresMs: 0, read: canonicalPrefixes(["a"]), write: [] });
    expect(court.order("grant", one)).toMatchObject({
      code: "REFUSED",
      message: expect.stringMatching(/^3 clients have rights, those that cluster\.json lists included: /),
    });
    // Whoever is in already may get other rights.
    expect(court.grant(CAROL, { read: ["b"], expiresMs: NOW + 10 })).toBe("executed");
    expect(court.revoke(ALICE)).toBe("executed");
    expect(court.grant(DAVE, { read: ["a"] })).toBe("executed");
    expect(court.grant(EVE, { read: ["a"] })).toBe("REFUSED");
    court.restart();
    expect(court.grant(EVE, { read: ["a"] })).toBe("REFUSED");
    court.batch([], NOW + 10);
    expect(court.grant(EVE, { read: ["a"] })).toBe("executed");
    expect(court.list().clients.filter((client) => client.type !== "revoked").length).toBe(3);
  });

  test("bounds the client table, whoever is granted", () => {
    const court = new Court({ clients: "open", maxClients: 1 });
    court.one(request());
    expect(fates(court.one(request({ client: BOB })))).toEqual(["REFUSED", "CLIENTS_FULL"]);
  });
});

describe("the list", () => {
  test("shows everybody with his rights, in pages, and changes nothing", () => {
    const court = new Court({ maxClients: 2_000 });
    court.grant(CAROL, { read: ["a", "b"], write: ["\xff"], expiresMs: NOW + 5 });
    court.revoke(BOB);
    court.write();
    const before = dump(court.store);
    const { clients, open, nowMs, number, next } = court.list();
    expect({ open, nowMs, number, next }).toEqual({ open: false, nowMs: NOW, number: 2, next: null });
    const byId = new Map(clients.map((client) => [latin1(client.id), client]));
    expect(byId.get(ALICE)?.type).toBe("founding");
    expect(byId.get(BOB)?.type).toBe("revoked");
    const carol = byId.get(CAROL.id);
    if (carol?.type !== "granted") throw new Error("CAROL is granted");
    expect([carol.read.map(latin1), carol.write.map(latin1), carol.expiresMs]).toEqual([["a", "b"], ["\xff"], NOW + 5]);
    expect(hex(carol.keys)).toBe(hex(CAROL.keys));
    court.write();
    expect(dump(court.store)).toEqual(before);
  });

  test("pages lead through all of them in order", () => {
    const court = new Court({ maxClients: 1_000, clients: new Set(Array.from({ length: 700 }, () => somebody().id)) });
    const seen: string[] = [];
    for (let after: Digest | null = null; ; ) {
      const page = court.list(after);
      seen.push(...page.clients.map((client) => latin1(client.id)));
      if (page.next === null) break;
      after = latin1(page.next);
    }
    expect(seen.length).toBe(700);
    expect(seen).toEqual([...new Set(seen)].sort());
  });
});

test("the table is the same after a restart, whatever groups were cut", () => {
  const run = (restarts: boolean): string[] => {
    const court = new Court();
    const step = (work: () => void): void => {
      work();
      if (restarts) court.restart();
    };
    step(() => court.grant(CAROL, { read: ["a"], write: ["b"] }));
    step(() => court.revoke(BOB));
    step(() => court.grant(DAVE, { read: [""], expiresMs: NOW + 50 }));
    step(() => court.revoke(CAROL.id));
    step(() => court.grant(CAROL, { read: ["z"] }));
    court.write();
    return dump(court.store);
  };
  expect(run(true)).toEqual(run(false));
});

test("keys of granted clients come from the state; those of revoked ones are known for a while", () => {
  const court = new Court();
  court.grant(CAROL, { read: ["a"] });
  court.restart();
  const { grants } = court.executor;
  expect(hex(grants.keysOf(CAROL.id) ?? EMPTY)).toBe(hex(CAROL.keys));
  expect([grants.knows(CAROL.id), grants.knows(ALICE), grants.knows(EVE.id)]).toEqual([true, true, false]);
  court.revoke(CAROL.id);
  expect(hex(grants.keysOf(CAROL.id) ?? EMPTY)).toBe(hex(CAROL.keys));
});
