/** The checkers that judge event by event: each is fed a good run, and the same run with one thing wrong. */
import { describe, expect, test } from "vitest";
import { AgreementChecker } from "../../simulation/checkers/agreement.ts";
import { LivenessChecker } from "../../simulation/checkers/liveness.ts";
import { MemoryChecker } from "../../simulation/checkers/memory.ts";
import { StateRootsChecker } from "../../simulation/checkers/state-roots.ts";
import { ValidityChecker } from "../../simulation/checkers/validity.ts";
import { Violation } from "../../simulation/contract.ts";
import { ALICE, BOB, GENESIS, put, request } from "../service/fixtures.ts";
import { CHAIN, digestOf, entryAt, logOf, ruleBroken } from "./fixture.ts";

const log = logOf([[request({ sequence: 1 })], [request({ sequence: 2 }), request({ client: BOB })]]);

describe("agreement", () => {
  function agreed(): AgreementChecker {
    const checker = new AgreementChecker(CHAIN);
    for (const replica of [0, 1]) {
      for (const entry of log) {
        checker.decided({ replica, ...entry });
        checker.executed({ replica, ...entry });
      }
    }
    return checker;
  }

  test("the same digest everywhere, decided again after a restart", () => {
    const checker = agreed();
    expect(ruleBroken(() => checker.decided({ replica: 0, ...entryAt(log, 2) }))).toBeNull();
    expect(checker.digestOf(2)).toBe(entryAt(log, 2).digest);
  });

  test("another digest in one instance", () => {
    const other = entryAt(logOf([[request({ sequence: 9 })]]), 1);
    expect(ruleBroken(() => agreed().decided({ replica: 2, ...other }))).toBe("agreement");
  });

  test("the same replica decides otherwise after a restart", () => {
    const other = entryAt(logOf([[request({ sequence: 9 })]]), 1);
    expect(ruleBroken(() => agreed().decided({ replica: 0, ...other }))).toBe("agreement");
  });

  test("executed is what was decided", () => {
    expect(ruleBroken(() => agreed().executed({ replica: 2, instance: 1, digest: digestOf(9) }))).toBe("agreement");
  });

  test("decided is what was executed, where the execution was seen first", () => {
    const checker = new AgreementChecker();
    checker.executed({ replica: 0, instance: 1, digest: digestOf(9) });
    expect(ruleBroken(() => checker.decided({ replica: 1, ...entryAt(log, 1) }))).toBe("agreement");
  });

  test("one digest with two batches", () => {
    const requests = [request({ sequence: 9 })];
    expect(ruleBroken(() => agreed().decided({ replica: 2, ...entryAt(log, 1), requests }))).toBe("agreement");
    expect(ruleBroken(() => agreed().decided({ replica: 2, ...entryAt(log, 1), timestampMs: 7 }))).toBe("agreement");
  });

  test("a digest that is not the batch's, or not chained to the instance before", () => {
    const wrong = { ...entryAt(log, 1), digest: digestOf(9) };
    expect(ruleBroken(() => new AgreementChecker(CHAIN).decided({ replica: 0, ...wrong }))).toBe("agreement");
    const checker = new AgreementChecker(CHAIN);
    checker.decided({ replica: 0, ...entryAt(log, 1) });
    const unchained = entryAt(logOf([[request({ sequence: 2 })]], GENESIS, 2), 1);
    expect(ruleBroken(() => checker.decided({ replica: 0, ...unchained }))).toBe("agreement");
  });
});

describe("validity", () => {
  test("what its client issued", () => {
    const checker = new ValidityChecker();
    for (const { requests } of log) for (const one of requests) checker.issued({ client: one.client, request: one });
    for (const entry of log) expect(ruleBroken(() => checker.decided({ replica: 0, ...entry }))).toBeNull();
  });

  test("a request that nobody issued, or with one byte changed", () => {
    const checker = new ValidityChecker();
    checker.issued({ client: ALICE, request: request({ commands: [put("key", "a")] }) });
    const requests = [request({ commands: [put("key", "b")] })];
    expect(ruleBroken(() => checker.decided({ replica: 0, instance: 1, requests }))).toBe("validity");
  });

  test("a request that another client issued in this one's name", () => {
    const checker = new ValidityChecker();
    const forged = request({ client: ALICE });
    checker.issued({ client: BOB, request: forged });
    expect(ruleBroken(() => checker.decided({ replica: 0, instance: 1, requests: [forged] }))).toBe("validity");
  });
});

describe("state roots", () => {
  test("equal at equal instances, whoever executes again", () => {
    const checker = new StateRootsChecker();
    for (const replica of [0, 1, 0]) checker.executed({ replica, instance: 1, root: digestOf(1) });
    checker.executed({ replica: 0, instance: 2, root: digestOf(2) });
    expect(ruleBroken(() => checker.executed({ replica: 1, instance: 2, root: digestOf(1) }))).toBe("state-roots");
    expect(ruleBroken(() => checker.executed({ replica: 0, instance: 1, root: digestOf(2) }))).toBe("state-roots");
  });
});

describe("memory", () => {
  test("at the limit, and one above it", () => {
    const checker = new MemoryChecker({ pending: 4 });
    checker.memory({ replica: 0, counts: { pending: 4, other: 1_000 } });
    expect(checker.peaks.get("other")).toBe(1_000);
    expect(ruleBroken(() => checker.memory({ replica: 0, counts: { pending: 5 } }))).toBe("memory");
  });

  test("a limit on a count that is never sampled is a mistake", () => {
    const checker = new MemoryChecker({ pending: 4, futures: 4 });
    checker.memory({ replica: 0, counts: { pending: 1 } });
    expect(() => checker.ended()).toThrow("futures");
    expect(() => checker.ended()).not.toThrow(Violation);
    checker.memory({ replica: 0, counts: { futures: 1 } });
    expect(ruleBroken(() => checker.ended())).toBeNull();
  });
});

describe("liveness", () => {
  const call = { id: 1, what: "a put", nowUs: 1_000 };

  test("nothing is demanded before the world is healed", () => {
    const checker = new LivenessChecker(500);
    checker.pending(call);
    expect(ruleBroken(() => checker.advanced({ nowUs: 1_000_000 }))).toBeNull();
    expect(ruleBroken(() => checker.ended({ nowUs: 1_000_000 }))).toBeNull();
  });

  test("within the deadline after healing, for calls from before and after", () => {
    const checker = new LivenessChecker(500);
    checker.pending(call);
    checker.healed({ nowUs: 10_000 });
    checker.pending({ id: 2, what: "a get", nowUs: 10_300 });
    expect(ruleBroken(() => checker.advanced({ nowUs: 10_500 }))).toBeNull();
    checker.finished({ id: 1, nowUs: 10_500 });
    expect(ruleBroken(() => checker.advanced({ nowUs: 10_800 }))).toBeNull();
    expect(ruleBroken(() => checker.advanced({ nowUs: 10_801 }))).toBe("stall");
  });

  test("a call that finishes too late, and one that is left at the end", () => {
    const checker = new LivenessChecker(500);
    checker.pending(call);
    checker.pending({ ...call, id: 2 });
    checker.healed({ nowUs: 2_000 });
    expect(ruleBroken(() => checker.finished({ id: 1, nowUs: 2_501 }))).toBe("stall");
    checker.finished({ id: 1, nowUs: 2_400 });
    expect(checker.unfinished).toBe(1);
    expect(ruleBroken(() => checker.ended({ nowUs: 2_400 }))).toBe("stall");
    checker.finished({ id: 2, nowUs: 2_400 });
    expect(ruleBroken(() => checker.ended({ nowUs: 2_400 }))).toBeNull();
  });

  test("calls are named once", () => {
    const checker = new LivenessChecker(500);
    checker.pending(call);
    expect(() => checker.pending(call)).toThrow("pending already");
    expect(() => checker.finished({ id: 7, nowUs: 0 })).toThrow("without being pending");
  });
});
