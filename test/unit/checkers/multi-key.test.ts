/** Ranges, bundles and everything else against the replayed log, and calls as records of a history. */
import { describe, expect, test } from "vitest";
import { utf8 } from "../../../protocol/bytes.ts";
import { type Command, decodeCommand, decodeResult, decodeResults, encodeResult } from "../../../protocol/commands.ts";
import type { Request } from "../../../protocol/request.ts";
import type { Acknowledged } from "../../simulation/checkers/events.ts";
import { MultiKeyChecker } from "../../simulation/checkers/multi-key.ts";
import { Replay, type ReplayOptions } from "../../simulation/checkers/replay.ts";
import { assertLinearizable, historyOf, type WireCall } from "../../simulation/checkers/wire-history.ts";
import { seeded } from "../../simulation/random.ts";
import { ALICE, BOB, CAROL, command, get, put, request } from "../service/fixtures.ts";
import { CHAIN, entryAt, type LogEntry, logOf, ruleBroken } from "./fixture.ts";

const OPTIONS: ReplayOptions = { ...CHAIN, maxClients: 100 };

const remove = (key: string): Uint8Array => command({ type: "delete", key: utf8(key), ifRevision: null });
const cas = (key: string, expect: number, value = "swapped"): Uint8Array =>
  command({ type: "cas", key: utf8(key), expect, value: utf8(value) });
const range = (from: string, to: string | null = null): Uint8Array =>
  command({
    type: "range",
    from: utf8(from),
    to: to === null ? null : utf8(to),
    limit: 0,
    reverse: false,
    keysOnly: false,
  });

/** What every command of the log was answered, without times, in the order of the log. */
function callsIn(log: readonly LogEntry[]): Acknowledged[] {
  const calls: Acknowledged[] = [];
  const replay = new Replay(OPTIONS);
  replay.listen({
    replayed: ({ commands }) => {
      for (const { client, command: bytes, result } of commands) calls.push({ client, command: bytes, result });
    },
  });
  for (const entry of log) replay.decided(entry);
  return calls;
}

function broken(log: readonly LogEntry[], calls: readonly Acknowledged[]): string | null {
  const checker = new MultiKeyChecker(OPTIONS);
  return ruleBroken(() => {
    for (const call of calls) checker.acknowledged(call);
    for (const entry of log) checker.decided(entry);
    checker.ended();
  });
}

function at(call: Acknowledged | undefined, callUs: number, returnUs: number): Acknowledged {
  if (!call) throw new RangeError("no such call");
  return { ...call, callUs, returnUs };
}

function requests(...bundles: readonly (readonly Uint8Array[])[]): Request[][] {
  return bundles.map((commands, index) => [request({ sequence: index + 1, commands })]);
}

/** Revisions: a=1, b=2, a again=3, b gone=4, c=5. */
const log = logOf(
  requests(
    [put("a", "1"), put("b", "1")],
    [range("a")],
    [put("a", "2"), remove("b")],
    [range("a", "c"), get("b")],
    [put("c"), cas("a", 1), remove("b"), cas("zz", 9)],
  ),
);
const [putA, putB, page2, putA2, removeB, page4, getB, putC, lostCas, removeB5, casAbsent] = callsIn(log);

describe("replay", () => {
  test("every answer of the log itself holds", () => {
    expect(broken(log, callsIn(log))).toBeNull();
  });

  test("reads beside the log: in the state that they name", () => {
    const { command: bytes = range("a"), result = bytes } = page2 ?? {};
    expect(broken(log, [{ client: BOB, command: bytes, result }])).toBeNull();
    expect(
      broken(log, [{ client: BOB, command: get("b"), result: encodeResult({ type: "absent", revision: 1 }) }]),
    ).toBeNull();
    expect(
      broken(log, [{ client: BOB, command: get("b"), result: encodeResult({ type: "absent", revision: 3 }) }]),
    ).toBe("replay");
    expect(
      broken(log, [{ client: BOB, command: get("b"), result: encodeResult({ type: "absent", revision: 9 }) }]),
    ).toBe("replay");
  });

  test("reads of the last state", () => {
    const absent = { client: BOB, command: get("b"), result: encodeResult({ type: "absent", revision: 4 }) };
    expect(broken(log.slice(0, 3), [absent])).toBeNull();
    const stale = { ...absent, command: get("a") };
    expect(broken(log.slice(0, 3), [stale])).toBe("replay");
    expect(broken(log.slice(0, 2), [absent])).toBe("replay");
  });

  test("a range with a phantom, a missing entry, an old value, or at a revision that never was", () => {
    const { command: bytes = range("a"), result = bytes } = page2 ?? {};
    const page = decodeResult(result);
    if (page.type !== "page") throw new Error("a range is answered with a page");
    const answered = (change: Partial<typeof page>): string | null =>
      broken(log, [{ client: BOB, command: bytes, result: encodeResult({ ...page, ...change }) }]);
    const [a, b] = page.entries;
    if (!a || !b) throw new Error("two entries");
    expect(answered({})).toBeNull();
    expect(answered({ entries: [a, b, { ...b, key: utf8("c") }] })).toBe("replay");
    expect(answered({ entries: [a] })).toBe("replay");
    expect(answered({ entries: [a, { ...b, value: utf8("old") }] })).toBe("replay");
    expect(answered({ more: true })).toBe("replay");
    expect(answered({ revision: 1 })).toBe("replay");
    expect(answered({ revision: 6 })).toBe("replay");
  });

  test("a write that the log has not, has from another client, or with another answer", () => {
    const call = at(putA, 0, 1);
    expect(broken(log.slice(0, 0), [call])).toBe("replay");
    expect(broken(log, [{ ...call, client: BOB }])).toBe("replay");
    expect(broken(log, [{ ...call, command: put("a", "x") }])).toBe("replay");
    const other = encodeResult({ type: "written", createRevision: 1, modRevision: 1, version: 2 });
    expect(broken(log, [{ ...call, result: other }])).toBe("replay");
  });

  test("one write acknowledged to two calls", () => {
    expect(broken(log, [at(putA, 0, 1), at(putA, 2, 3)])).toBe("replay");
  });

  test("a conflict or a value of a revision that the key never had", () => {
    const conflict = (modRevision: number): Uint8Array => encodeResult({ type: "conflict", modRevision });
    expect(broken(log, [{ client: BOB, command: cas("a", 9), result: conflict(3) }])).toBeNull();
    expect(broken(log, [{ client: BOB, command: cas("a", 9), result: conflict(2) }])).toBe("replay");
    expect(broken(log, [{ client: BOB, command: cas("b", 9), result: conflict(4) }])).toBe("replay");
    const found = { type: "found", value: utf8("1"), createRevision: 2, modRevision: 2, version: 1 } as const;
    expect(broken(log, [{ client: BOB, command: get("b"), result: encodeResult(found) }])).toBeNull();
    expect(broken(log, [{ client: BOB, command: get("a"), result: encodeResult(found) }])).toBe("replay");
  });

  test("a delete that found nothing where there was something", () => {
    const absent = (revision: number): Uint8Array => encodeResult({ type: "absent", revision });
    expect(broken(log, [{ client: BOB, command: remove("b"), result: absent(4) }])).toBeNull();
    expect(broken(log, [{ client: BOB, command: remove("b"), result: absent(3) }])).toBe("replay");
    expect(broken(log, [{ client: BOB, command: remove("b"), result: absent(9) }])).toBe("replay");
  });
});

describe("real time", () => {
  test("in the order of the log, one after the other", () => {
    const calls = callsIn(log).map((call, index) => at(call, 10 * index, 10 * index + 5));
    expect(broken(log, calls)).toBeNull();
  });

  test("the later write was returned before the earlier one was called", () => {
    expect(broken(log, [at(putA2, 0, 1), at(putA, 2, 3)])).toBe("real-time");
    expect(broken(log, [at(putA2, 0, 2), at(putA, 2, 3)])).toBeNull();
  });

  test("a stale range: after a newer write had returned", () => {
    expect(broken(log, [at(putA2, 0, 1), at(page2, 2, 3)])).toBe("real-time");
    expect(broken(log, [at(putB, 0, 1), at(page2, 2, 3)])).toBeNull();
    expect(broken(log, [at(putC, 0, 1), at(page4, 2, 3)])).toBe("real-time");
  });

  test("two ranges of different clients see the writes in opposite orders", () => {
    expect(broken(log, [at(page4, 0, 1), at({ ...page2, client: BOB } as Acknowledged, 2, 3)])).toBe("real-time");
  });

  test("a write called after a range that saw it had returned", () => {
    expect(broken(log, [at(page4, 0, 1), at(removeB, 2, 3)])).toBe("real-time");
    expect(broken(log, [at(page2, 0, 1), at(removeB, 2, 3)])).toBeNull();
  });

  test("a value holds until its key changes, a conflict as long as its reason", () => {
    const found = { type: "found", value: utf8("1"), createRevision: 1, modRevision: 1, version: 1 } as const;
    const oldA = { client: BOB, command: get("a"), result: encodeResult(found) };
    expect(broken(log, [at(putB, 0, 1), at(oldA, 2, 3)])).toBeNull();
    expect(broken(log, [at(putA2, 0, 1), at(oldA, 2, 3)])).toBe("real-time");
    const conflict = { client: BOB, command: cas("a", 9), result: encodeResult({ type: "conflict", modRevision: 1 }) };
    expect(broken(log, [at(page2, 0, 1), at(conflict, 2, 3)])).toBeNull();
    expect(broken(log, [at(removeB, 0, 1), at(conflict, 2, 3)])).toBe("real-time");
    expect(broken(log, [at(conflict, 0, 1), at(putA, 2, 3)])).toBe("real-time");
  });

  test("a conflict with an absent key: before it came, or after it went", () => {
    const absent = { client: BOB, command: cas("b", 9), result: encodeResult({ type: "conflict", modRevision: 0 }) };
    expect(broken(log, [at(putA, 0, 1), at(absent, 2, 3), at(putB, 4, 5)])).toBeNull();
    expect(broken(log, [at(putB, 0, 1), at(absent, 2, 3), at(removeB, 2, 5)])).toBeNull();
    expect(broken(log, [at(putB, 0, 1), at(absent, 2, 3), at(removeB, 4, 5)])).toBe("real-time");
    const present = logOf(requests([put("b")]));
    const [write] = callsIn(present);
    expect(broken(present, [at(write, 0, 1), at(absent, 2, 3)])).toBe("real-time");
    expect(broken(log, [at(casAbsent, 0, 1), at(lostCas, 2, 3), at(removeB5, 4, 5), at(getB, 4, 5)])).toBeNull();
  });

  test("calls without times stand anywhere; times that run backwards are a mistake", () => {
    expect(
      broken(log, [at(putA2, 0, 1), { ...at(putA, 2, 3), callUs: undefined } as unknown as Acknowledged]),
    ).toBeNull();
    expect(() => broken(log, [at(putA, 5, 4)])).toThrow("returned before it was called");
  });
});

describe("generated runs", () => {
  interface Run {
    readonly log: LogEntry[];
    readonly calls: Acknowledged[];
    readonly wire: WireCall[];
  }

  /** Requests of three clients in random batches; each instance is decided somewhere between their ends. */
  function generate(seed: number): Run {
    const random = seeded(seed);
    const clients = [ALICE, BOB, CAROL];
    const key = (): string => `k${random.below(4)}`;
    const commandOf = (): Uint8Array =>
      random.pick([
        () => put(key(), `${random.next()}`),
        () => get(key()),
        () => remove(key()),
        () => range("k1", "k3"),
        () => cas(key(), random.below(20)),
      ])();
    const batches = Array.from({ length: 40 }, (_, index) =>
      clients
        .filter(() => random.chance(0.6))
        .map((client) => request({ client, sequence: index + 1, commands: [commandOf(), commandOf()] })),
    );
    const made = logOf(batches);
    const calls: Acknowledged[] = [];
    const replay = new Replay(OPTIONS);
    replay.listen({
      replayed: ({ reply, instance }) => {
        const results = decodeResults(reply.result ?? new Uint8Array(4));
        const callUs = 100 * instance - random.below(250);
        const returnUs = 100 * instance + random.below(250);
        for (const [index, result] of results.entries()) {
          const bytes = reply.request.commands[index] as Uint8Array;
          calls.push({ client: reply.request.client, command: bytes, result, callUs, returnUs });
        }
      },
    });
    for (const entry of made) replay.decided(entry);
    const wire = calls.map((call): WireCall => {
      const { callUs = 0, returnUs = 0, client } = call;
      const decoded: Command = decodeCommand(call.command);
      return { client, command: decoded, callUs, returnUs, outcome: "ok", result: decodeResult(call.result) };
    });
    return { log: made, calls, wire };
  }

  test("legal for both checkers", () => {
    for (let seed = 1; seed <= 40; seed++) {
      const { log: decided, calls, wire } = generate(seed);
      expect([seed, broken(decided, calls)]).toEqual([seed, null]);
      expect([seed, assertLinearizable(wire)]).toEqual([seed, "ok"]);
    }
  });

  test("whatever the search finds on one key, the log shows as well", () => {
    let found = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const { log: decided, calls, wire } = generate(seed);
      const random = seeded(seed);
      // A call is moved to a later time than it took effect at.
      const moved = random.below(calls.length);
      const late = { callUs: (calls[moved]?.returnUs ?? 0) + 150, returnUs: (calls[moved]?.returnUs ?? 0) + 160 };
      const rule = ruleBroken(
        () => void assertLinearizable(wire.map((call, index) => (index === moved ? { ...call, ...late } : call))),
      );
      if (rule === null) continue;
      found++;
      expect(rule).toBe("linearizability");
      const shifted = calls.map((call, index) => (index === moved ? { ...call, ...late } : call));
      expect([seed, broken(decided, shifted)]).toEqual([seed, "real-time"]);
    }
    expect(found).toBeGreaterThan(10);
  });
});

describe("calls as records", () => {
  const call = { client: 1, callUs: 1, returnUs: 2, outcome: "ok" } as const;

  test("outcomes: answered, refused, failed, unknown; what touches many keys is left out", () => {
    const refused = { type: "refused", code: "STORAGE_FULL", message: "" } as const;
    const write = decodeCommand(put("a"));
    const records = historyOf([
      { ...call, command: write, result: { type: "written", modRevision: 1, createRevision: 1, version: 1 } },
      { ...call, command: write, result: refused },
      { ...call, command: write, result: null, outcome: "failed" },
      { ...call, command: write, result: null, outcome: "unknown" },
      { ...call, command: decodeCommand(range("a")), result: { type: "page", revision: 1, more: false, entries: [] } },
    ]);
    expect(records.map(({ outcome, returnUs }) => [outcome.type, returnUs])).toEqual([
      ["ok", 2],
      ["failed", 2],
      ["failed", 2],
      ["unknown", null],
    ]);
    expect(new Set(records.map(({ process }) => process)).size).toBe(4);
  });

  test("a violation carries its explanation; an undecided search says so", () => {
    const read = decodeCommand(get("a"));
    const found = { type: "found", value: utf8("x"), modRevision: 1, createRevision: 1, version: 1 } as const;
    const stale: WireCall = { ...call, command: read, result: found };
    expect(() => assertLinearizable([stale])).toThrow('get "a" -> "x" of 1');
    const writes = Array.from(
      { length: 5 },
      (): WireCall => ({ ...call, command: decodeCommand(put("a")), result: null, outcome: "unknown" }),
    );
    expect(assertLinearizable([...writes, stale], { stepsMax: 3 })).toBe("unknown");
  });

  test("an instance of the log is taken once", () => {
    const checker = new MultiKeyChecker(OPTIONS);
    for (const replica of [0, 1]) checker.decided({ ...entryAt(log, 1), replica } as LogEntry);
    checker.acknowledged(at(putA, 0, 1));
    expect(ruleBroken(() => checker.ended())).toBeNull();
  });
});
