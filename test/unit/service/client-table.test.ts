/** docs/protocol.md section 3, "Clients, sessions, exactly once": a test per sentence, through the executor. */
import { describe, expect, test } from "vitest";
import { EMPTY, utf8 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { Reader } from "../../../protocol/layout.ts";
import { CLIENT_IDLE_MS_MAX, SESSION_AHEAD_MS_MAX, SESSION_WINDOW, SESSIONS_MAX } from "../../../protocol/limits.ts";
import {
  ALICE,
  Bench,
  BOB,
  CAROL,
  command,
  dump,
  get,
  hexOf,
  put,
  request,
  resolutionOf,
  resolve,
  resultsOf,
} from "./fixtures.ts";

const NOW = 1_700_000_000_000;

function watermarkOf(reply: { result: Uint8Array | null }): number {
  return new Reader(reply.result ?? EMPTY).u53();
}

function reasonOf(reply: { status: string; result: Uint8Array | null }): string {
  return `${reply.status} ${Buffer.from(reply.result ?? EMPTY).toString()}`;
}

/** Runs the same checks on a table in memory and on one loaded from its stored form. */
function both(name: string, run: (bench: Bench, settle: () => void) => void, options = {}): void {
  test(name, () => run(new Bench(options), () => {}));
  test(`${name} (after a restart)`, () => {
    const bench = new Bench(options);
    run(bench, () => bench.restart());
  });
}

describe("the same sequence again", () => {
  both("the cached reply if the request digest is equal", (bench, settle) => {
    const first = bench.one(request());
    settle();
    const again = bench.one(request());
    expect(again).toMatchObject({ status: "OK", instance: first.instance, resultDigest: first.resultDigest });
    expect(hexOf(again.result)).toBe(hexOf(first.result));
    expect(bench.executor.revision).toBe(1);
  });

  both("SEQUENCE_CONFLICT if not, and nothing executed", (bench, settle) => {
    bench.one(request({ commands: [put("a")] }));
    settle();
    const conflict = bench.one(request({ commands: [put("b")] }));
    expect(conflict).toMatchObject({ status: "SEQUENCE_CONFLICT", result: EMPTY, instance: 2 });
    expect(conflict.resultDigest).toBe(nodeCrypto.sha256(EMPTY));
    expect(bench.executor.revision).toBe(1);
  });

  test("twice in one batch: executed once", () => {
    const bench = new Bench();
    const [first, again] = bench.batch([request(), request()]);
    expect(again?.result).toEqual(first?.result);
    expect(bench.executor.revision).toBe(1);
  });

  test("duplicates are judged by (client, session, sequence)", () => {
    const bench = new Bench();
    const replies = bench.batch([
      request(),
      request({ client: BOB }),
      request({ session: 1001 }),
      request({ sequence: 2 }),
    ]);
    expect(replies.map((reply) => reply.status)).toEqual(["OK", "OK", "OK", "OK"]);
    expect(bench.executor.revision).toBe(4);
  });

  both("a result above the bound keeps digest and status only", (bench, settle) => {
    const noop = (replyBytes: number) => [command({ type: "noop", payload: EMPTY, replyBytes })];
    const large = bench.one(request({ sequence: 1, commands: noop(64 * 1024) }));
    const small = bench.one(request({ sequence: 2, commands: noop(60 * 1024) }));
    expect(large.result?.length).toBeGreaterThan(64 * 1024);
    settle();
    const again = bench.one(request({ sequence: 1, commands: noop(64 * 1024) }));
    expect(again).toMatchObject({ status: "OK", result: null, resultDigest: large.resultDigest, instance: 1 });
    expect(hexOf(bench.one(request({ sequence: 2, commands: noop(60 * 1024) })).result)).toBe(hexOf(small.result));
    expect(bench.one(request({ sequence: 1, commands: noop(3) })).status).toBe("SEQUENCE_CONFLICT");
  });

  both(
    "above the bytes per client the oldest first, over all its sessions",
    (bench, settle) => {
      const reply = [command({ type: "noop", payload: EMPTY, replyBytes: 100 })];
      const bytes = bench.one(request({ sequence: 1, session: 2000, commands: reply })).result?.length ?? 0;
      expect(bytes).toBeLessThan(150);
      bench.one(request({ sequence: 7, session: 1000, commands: reply }));
      bench.one(request({ sequence: 5, session: 2000, commands: reply }));
      bench.one(request({ client: BOB, sequence: 1, session: 2000, commands: reply }));
      settle();
      bench.one(request({ sequence: 6, session: 1000, commands: reply }));
      const held = (session: number, sequence: number): boolean =>
        bench.executor.lookup(request({ session, sequence, commands: reply }))?.result !== null;
      expect([held(2000, 1), held(1000, 7), held(2000, 5), held(1000, 6)]).toEqual([false, false, true, true]);
      // Another client's bytes are its own.
      expect(bench.executor.lookup(request({ client: BOB, session: 2000, commands: reply }))?.result).not.toBeNull();
      // A finished reply gives its bytes back.
      bench.one(request({ session: 1000, sequence: 8, ackedBelow: 7, commands: reply }));
      expect([held(2000, 5), held(1000, 8)]).toEqual([true, true]);
    },
    { limits: { cachedRepliesBytesMax: 250 } },
  );
});

describe("the window", () => {
  both("below base ACKED, never executed", (bench, settle) => {
    bench.one(request({ sequence: 5, ackedBelow: 4 }));
    settle();
    expect(bench.one(request({ sequence: 3 }))).toMatchObject({ status: "ACKED", result: EMPTY });
    expect(bench.one(request({ sequence: 4 })).status).toBe("OK");
    expect(bench.executor.revision).toBe(2);
  });

  test("an executed reply below base is gone too", () => {
    const bench = new Bench();
    bench.one(request({ sequence: 1 }));
    bench.one(request({ sequence: 2, ackedBelow: 2 }));
    expect(bench.one(request({ sequence: 1 })).status).toBe("ACKED");
  });

  both("at or above base + 1024 WINDOW_FULL, not consumed", (bench, settle) => {
    const beyond = request({ sequence: 1 + SESSION_WINDOW });
    expect(bench.one(beyond)).toMatchObject({ status: "WINDOW_FULL", result: EMPTY });
    expect(bench.one(request({ sequence: SESSION_WINDOW })).status).toBe("OK");
    settle();
    expect(bench.one(request({ sequence: 2, ackedBelow: 2 })).status).toBe("OK");
    expect(bench.one(beyond).status).toBe("OK");
  });

  test("a request's own ackedBelow counts before it is judged", () => {
    const bench = new Bench();
    for (let sequence = 1; sequence <= SESSION_WINDOW; sequence++) bench.one(request({ sequence }));
    const next = SESSION_WINDOW + 1;
    expect(bench.one(request({ sequence: next, ackedBelow: 1 })).status).toBe("WINDOW_FULL");
    expect(bench.one(request({ sequence: next, ackedBelow: next })).status).toBe("OK");
    bench.write();
    expect([...bench.store.keys()].filter((key) => key.startsWith("q"))).toHaveLength(1);
  });

  test("the base never falls", () => {
    const bench = new Bench();
    bench.one(request({ sequence: 9, ackedBelow: 9 }));
    bench.one(request({ sequence: 10, ackedBelow: 2 }));
    expect(bench.one(request({ sequence: 8, ackedBelow: 1 })).status).toBe("ACKED");
  });

  test("raising the base over a gap far larger than the window costs what is remembered", () => {
    const bench = new Bench();
    bench.one(request({ sequence: 1 }));
    const far = Number.MAX_SAFE_INTEGER;
    expect(bench.one(request({ sequence: far, ackedBelow: far - 3 })).status).toBe("OK");
    expect(bench.one(request({ sequence: far - 4 })).status).toBe("ACKED");
  });
});

describe("the deadline", () => {
  both("past its deadline DEADLINE, not consumed; at it, executed", (bench, settle) => {
    const late = request({ sequence: 1, deadlineMs: 500 });
    expect(bench.one(late, 501)).toMatchObject({ status: "DEADLINE", result: EMPTY });
    settle();
    expect(bench.executor.lookup(late)).toBeNull();
    expect(bench.one(request({ sequence: 1, deadlineMs: 600 }), 600).status).toBe("OK");
    expect(bench.executor.revision).toBe(1);
  });

  test("executed before is decided before the deadline, the window before the deadline", () => {
    const bench = new Bench();
    const early = request({ sequence: 1, deadlineMs: 500 });
    bench.one(early, 400);
    expect(bench.one(early, 600).status).toBe("OK");
    expect(bench.one(request({ sequence: 5000, deadlineMs: 1 }), 600).status).toBe("WINDOW_FULL");
  });
});

describe("sessions", () => {
  both(
    "above the bound the one whose last execution is oldest is evicted, the watermark rises to it",
    (bench, settle) => {
      bench.one(request({ session: 30, sequence: 1 }));
      bench.one(request({ session: 10, sequence: 1 }));
      bench.one(request({ session: 30, sequence: 2 }));
      settle();
      bench.one(request({ session: 20, sequence: 1 }));
      const expired = bench.one(request({ session: 10, sequence: 2 }));
      expect([expired.status, watermarkOf(expired)]).toEqual(["SESSION_EXPIRED", 10]);
      expect(bench.one(request({ session: 30, sequence: 3 })).status).toBe("OK");
      // 20 is now the oldest; the evicted session's sequences are gone from the store.
      bench.one(request({ session: 40, sequence: 1 }));
      expect(watermarkOf(bench.one(request({ session: 20, sequence: 1 })))).toBe(20);
      bench.write();
      expect([...bench.store.keys()].filter((key) => key.startsWith("q"))).toHaveLength(4);
    },
    { limits: { sessionsMax: 2 } },
  );

  test("ties of the instance go by number, and never the one just opened", () => {
    const bench = new Bench({ limits: { sessionsMax: 2 } });
    bench.batch([request({ session: 30 }), request({ session: 20 }), request({ session: 10 })]);
    const statuses = [30, 20, 10].map((session) => bench.executor.lookup(request({ session }))?.status);
    expect(statuses).toEqual(["OK", "SESSION_EXPIRED", "OK"]);
  });

  test("a live session below the watermark goes on", () => {
    const bench = new Bench({ limits: { sessionsMax: 2 } });
    bench.one(request({ session: 30 }));
    bench.one(request({ session: 10 }));
    bench.one(request({ session: 40 }));
    expect(watermarkOf(bench.one(request({ session: 29 })))).toBe(30);
    expect(bench.one(request({ session: 10, sequence: 2 })).status).toBe("OK");
  });

  test("at most 1,024 by default", () => {
    const bench = new Bench();
    const open = (session: number) => request({ session, commands: [get("k")] });
    for (let session = 1; session <= SESSIONS_MAX; session++) bench.one(open(session));
    expect(bench.one(open(1)).status).toBe("OK");
    bench.one(open(SESSIONS_MAX + 1));
    expect(bench.executor.lookup(open(1))?.status).toBe("SESSION_EXPIRED");
    expect(bench.executor.lookup(open(2))?.status).toBe("OK");
  });

  test("more than an hour ahead of batch time refused, and nothing kept", () => {
    const bench = new Bench();
    const edge = (NOW + SESSION_AHEAD_MS_MAX) * 1000;
    expect(reasonOf(bench.one(request({ session: edge + 1 }), NOW))).toBe("REFUSED SESSION_AHEAD");
    expect(bench.executor.clients).toBe(0);
    expect(bench.one(request({ session: edge }), NOW).status).toBe("OK");
    expect(bench.one(request({ session: edge + 1 }), NOW + 1).status).toBe("OK");
  });
});

describe("clients", () => {
  both("idle for 30 days of batch time: dropped, the floor rises to its highest number", (bench, settle) => {
    bench.one(request({ session: 500 }), NOW);
    bench.one(request({ session: 700 }), NOW);
    bench.one(request({ client: BOB, session: 300 }), NOW + 5);
    settle();
    bench.batch([], NOW + CLIENT_IDLE_MS_MAX);
    expect(bench.executor.clients).toBe(2);
    bench.batch([], NOW + CLIENT_IDLE_MS_MAX + 1);
    expect(bench.executor.clients).toBe(1);
    settle();
    const replayed = bench.one(request({ session: 700 }));
    expect([replayed.status, watermarkOf(replayed)]).toEqual(["SESSION_EXPIRED", 700]);
    // New clients open above the floor; a live session below it goes on, a new one does not.
    expect(watermarkOf(bench.one(request({ client: CAROL, session: 699 })))).toBe(700);
    expect(bench.one(request({ client: CAROL, session: 701 })).status).toBe("OK");
    expect(bench.one(request({ client: BOB, session: 300, sequence: 2 })).status).toBe("OK");
    expect(watermarkOf(bench.one(request({ client: BOB, session: 600 })))).toBe(700);
    bench.write();
    expect(dump(bench.store).filter((line) => line.includes(Buffer.from(ALICE, "latin1").toString("hex")))).toEqual([]);
  });

  test("any request in a live session keeps its client", () => {
    const bench = new Bench({ limits: { clientIdleMsMax: 10 } });
    bench.one(request(), 100);
    bench.one(request(), 110);
    bench.batch([], 120);
    expect(bench.executor.clients).toBe(1);
    bench.batch([], 121);
    expect(bench.executor.clients).toBe(0);
  });

  both(
    "maxClients: a new one is refused until idle ones are dropped",
    (bench, settle) => {
      bench.one(request(), 100);
      bench.one(request({ client: BOB }), 105);
      settle();
      expect(reasonOf(bench.one(request({ client: CAROL, session: 2000 }), 110))).toBe("REFUSED CLIENTS_FULL");
      expect(bench.one(request({ session: 2000 }), 110).status).toBe("OK");
      expect(bench.one(request({ client: CAROL, session: 2000 }), 116).status).toBe("OK");
      expect(bench.executor.clients).toBe(2);
    },
    { maxClients: 2, limits: { clientIdleMsMax: 10 } },
  );
});

describe("RESOLVE", () => {
  both("executed: the reply; consumes no sequence", (bench, settle) => {
    const done = bench.one(request({ sequence: 1 }));
    settle();
    const resolution = resolutionOf(bench.one(resolve({ sequence: 1 }, { sequence: 2 })));
    expect(resolution).toMatchObject({ type: "replied", status: 0 });
    expect(resolution.type === "replied" ? hexOf(resolution.results) : null).toBe(hexOf(done.result));
    expect(bench.one(request({ sequence: 2 })).status).toBe("OK");
  });

  both("executed, reply gone", (bench, settle) => {
    bench.one(request({ commands: [command({ type: "noop", payload: EMPTY, replyBytes: 70_000 })] }));
    settle();
    expect(resolutionOf(bench.one(resolve({ sequence: 1 })))).toEqual({ type: "executed" });
  });

  both("a sequence not executed is cancelled for ever", (bench, settle) => {
    bench.one(request({ sequence: 2 }));
    expect(resolutionOf(bench.one(resolve({ sequence: 1 })))).toEqual({ type: "cancelled" });
    settle();
    const late = request({ sequence: 1 });
    expect(bench.executor.lookup(late)).toMatchObject({ status: "CANCELLED", result: EMPTY });
    expect(bench.one(late)).toMatchObject({ status: "CANCELLED", result: EMPTY, instance: 2 });
    expect(resolutionOf(bench.one(resolve({ sequence: 1 })))).toEqual({ type: "cancelled" });
    expect(bench.one(request({ sequence: 1, commands: [put("other")] })).status).toBe("CANCELLED");
    expect(bench.executor.revision).toBe(1);
    bench.one(request({ sequence: 3, ackedBelow: 3 }));
    expect(bench.one(late).status).toBe("ACKED");
  });

  test("is judged outside the window: when it is full, and up to two windows from the base", () => {
    const bench = new Bench();
    bench.one(request({ sequence: 1 }));
    expect(resolutionOf(bench.one(resolve({ sequence: 2 * SESSION_WINDOW })))).toEqual({ type: "cancelled" });
    expect(resolutionOf(bench.one(resolve({ sequence: 2 * SESSION_WINDOW + 1 })))).toEqual({ type: "unknown" });
    // Its own ackedBelow counts, so whoever keeps its window gets an answer.
    const acked = resolve({ sequence: 2 * SESSION_WINDOW + 1 }, { sequence: 5000, ackedBelow: 2 });
    expect(resolutionOf(bench.one(acked))).toEqual({ type: "cancelled" });
    expect(bench.one(request({ sequence: 1 })).status).toBe("ACKED");
  });

  test("below the base unknown: whether it was executed is forgotten", () => {
    const bench = new Bench();
    bench.one(request({ sequence: 5, ackedBelow: 5 }));
    expect(resolutionOf(bench.one(resolve({ sequence: 4 })))).toEqual({ type: "unknown" });
  });

  test("session gone: unknown", () => {
    const bench = new Bench({ limits: { sessionsMax: 1 } });
    bench.one(request({ session: 10 }));
    bench.one(request({ session: 20 }));
    expect(resolutionOf(bench.one(resolve({ session: 10, sequence: 1 }, { session: 20 })))).toEqual({
      type: "unknown",
    });
    expect(resolutionOf(bench.one(resolve({ session: 9, sequence: 1 }, { session: 20 })))).toEqual({ type: "unknown" });
  });

  both(
    "a session never seen: opened for the mark, so that a delayed request of it is not executed",
    (bench, settle) => {
      expect(resolutionOf(bench.one(resolve({ session: 50, sequence: 3 }, { session: 60 })))).toEqual({
        type: "cancelled",
      });
      settle();
      expect(bench.one(request({ session: 50, sequence: 3 })).status).toBe("CANCELLED");
      expect(bench.one(request({ session: 50, sequence: 4 })).status).toBe("OK");
      expect(bench.executor.revision).toBe(1);
    },
  );

  test("its own session is not opened", () => {
    const bench = new Bench({ limits: { sessionsMax: 1 } });
    bench.one(request({ session: 10 }));
    expect(resolutionOf(bench.one(resolve({ session: 10, sequence: 2 }, { session: 20 })))).toEqual({
      type: "cancelled",
    });
    expect(bench.one(request({ session: 10, sequence: 3 })).status).toBe("OK");
  });

  test("of another client's session it learns and changes nothing", () => {
    const bench = new Bench();
    bench.one(request({ client: BOB, session: 10 }));
    expect(resolutionOf(bench.one(resolve({ session: 10, sequence: 1 })))).toEqual({ type: "cancelled" });
    expect(bench.executor.lookup(request({ client: BOB, session: 10 }))?.status).toBe("OK");
  });

  test("a target that may not be opened: refused, nothing kept", () => {
    const bench = new Bench({ maxClients: 1 });
    bench.one(request(), NOW);
    const ahead = (NOW + 2 * SESSION_AHEAD_MS_MAX) * 1000;
    expect(reasonOf(bench.one(resolve({ session: ahead, sequence: 1 })))).toBe("REFUSED SESSION_AHEAD");
    expect(reasonOf(bench.one(resolve({ sequence: 1 }, { client: BOB })))).toBe("REFUSED CLIENTS_FULL");
  });

  test("past its deadline it changes nothing", () => {
    const bench = new Bench();
    bench.one(request({ sequence: 2 }), 100);
    expect(bench.one(resolve({ sequence: 1 }, { deadlineMs: 99 })).status).toBe("DEADLINE");
    expect(bench.one(request({ sequence: 1 })).status).toBe("OK");
  });

  test.each([
    ["no target", EMPTY],
    ["a target cut short", new Uint8Array(15)],
    ["session and sequence 0", new Uint8Array(16)],
    ["numbers out of range", new Uint8Array(16).fill(255)],
    ["trailing bytes", new Uint8Array(17).fill(1)],
  ])("malformed (%s): refused", (_name, bytes) => {
    const bench = new Bench();
    expect(reasonOf(bench.one(request({ kind: "resolve", commands: [bytes] })))).toBe("REFUSED INVALID_ARGUMENT");
    expect(bench.executor.clients).toBe(0);
  });
});

describe("lookup at intake", () => {
  test("changes nothing and opens nothing: what is new must be ordered", () => {
    const bench = new Bench();
    expect(bench.executor.lookup(request())).toBeNull();
    expect(bench.executor.clients).toBe(0);
    bench.one(request());
    bench.write();
    const before = dump(bench.store);
    expect(bench.executor.lookup(request({ sequence: 9, ackedBelow: 9 }))).toBeNull();
    expect(bench.executor.lookup(request({ sequence: 9_999 }))).toBeNull();
    expect(bench.executor.lookup(request({ session: 5 }))).toBeNull();
    expect(bench.executor.lookup(resolve({ sequence: 1 }))).toBeNull();
    expect(bench.executor.lookup(request({ kind: "unordered" }))).toBeNull();
    expect(bench.executor.lookup(request({ cluster: BOB }))).toBeNull();
    expect(bench.executor.lookup(request())?.status).toBe("OK");
    bench.batch([]);
    bench.write();
    expect(dump(bench.store)).toEqual(before);
  });

  test("finished, conflicting and expired are answered at once", () => {
    const bench = new Bench({ limits: { sessionsMax: 1 } });
    bench.one(request({ session: 10 }));
    bench.one(request({ session: 20, sequence: 3, ackedBelow: 2 }));
    expect(bench.executor.lookup(request({ session: 20, sequence: 1 }))?.status).toBe("ACKED");
    expect(bench.executor.lookup(request({ session: 20, sequence: 3, commands: [put("x")] }))?.status).toBe(
      "SEQUENCE_CONFLICT",
    );
    const expired = bench.executor.lookup(request({ session: 10 }));
    expect(expired?.status).toBe("SESSION_EXPIRED");
    expect(watermarkOf(expired ?? { result: EMPTY })).toBe(10);
  });
});

test("a request of another cluster, or of a kind that is not ordered, is refused and changes nothing", () => {
  const bench = new Bench();
  expect(reasonOf(bench.one(request({ cluster: BOB })))).toBe("REFUSED CLUSTER_MISMATCH");
  expect(reasonOf(bench.one(request({ kind: "unordered" })))).toBe("REFUSED INVALID_ARGUMENT");
  expect([bench.executor.clients, bench.executor.revision]).toEqual([0, 0]);
});

test("a bundle is no transaction: each command has its own result", () => {
  const bench = new Bench();
  const commands = [put("a"), put("a", "x", 7), utf8("garbage"), put("b")];
  expect(resultsOf(bench.one(request({ commands }))).map((result) => result.type)).toEqual([
    "written",
    "conflict",
    "refused",
    "written",
  ]);
  expect(bench.executor.revision).toBe(2);
});
