/** The checkers that replay the decided log by the production executor, and all checkers together. */
import { describe, expect, test } from "vitest";
import type { Digest } from "../../../protocol/bytes.ts";
import { decodeResults } from "../../../protocol/commands.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import type { Request } from "../../../protocol/request.ts";
import type { ServiceState } from "../../../server/service/contract.ts";
import { Checkers } from "../../simulation/checkers/all.ts";
import { DurabilityChecker } from "../../simulation/checkers/durability.ts";
import { ExactlyOnceChecker } from "../../simulation/checkers/exactly-once.ts";
import { Replay, type ReplayedRequest, type ReplayOptions } from "../../simulation/checkers/replay.ts";
import { ALICE, BOB, CLUSTER, GENESIS, get, kv, only, put, request, resolve } from "../service/fixtures.ts";
import { CHAIN, digestOf, entryAt, type LogEntry, logOf, ruleBroken, VIEW } from "./fixture.ts";

const OPTIONS: ReplayOptions = { ...CHAIN, maxClients: 100 };

function feed(replay: Replay, log: readonly LogEntry[]): void {
  for (const entry of log) replay.decided(entry);
}

/** The result of each command of a request, as the log gives it. */
function resultsIn(log: readonly LogEntry[], wanted: Request): Uint8Array[] {
  const replay = new Replay(OPTIONS);
  const found: Uint8Array[][] = [];
  replay.listen({
    replayed: ({ reply }) => {
      if (reply.request === wanted) found.push(decodeResults(reply.result ?? new Uint8Array(4)));
    },
  });
  feed(replay, log);
  return only(found);
}

describe("replay", () => {
  test("instances come once and in their turn, whoever reports them and when", () => {
    const log = logOf([[request({ sequence: 1 })], [request({ sequence: 2 })], [request({ sequence: 3 })]]);
    const replay = new Replay(OPTIONS);
    const seen: number[] = [];
    replay.listen({ replayed: ({ instance }) => seen.push(instance) });
    for (const instance of [2, 1, 1, 2, 3, 1]) replay.decided(entryAt(log, instance));
    expect(seen).toEqual([1, 2, 3]);
    expect(replay.service.revision).toBe(3);
  });

  test("survives its own groups", () => {
    const batches = Array.from({ length: 200 }, (_, at) => [request({ sequence: at + 1, ackedBelow: at })]);
    const last = request({ sequence: 201, commands: [get("key")] });
    const result = only(resultsIn(logOf([...batches, [last]]), last));
    expect(Buffer.from(result).toString("latin1")).toContain("200");
  });

  test("time must be known", () => {
    const { instance, digest, requests } = entryAt(logOf([[request()]]), 1);
    expect(() => new Replay(OPTIONS).decided({ instance, digest, requests })).toThrow("time");
  });
});

describe("exactly once", () => {
  const one = request({ sequence: 1, commands: [put("a"), put("b")] });

  /** What replaying each of these logs by an executor of its own tells; the same checker listens to all of them. */
  function judge(...logs: readonly (readonly (readonly Request[])[])[]): string | null {
    const checker = new ExactlyOnceChecker();
    return ruleBroken(() => {
      for (const batches of logs) {
        const replay = new Replay(OPTIONS);
        replay.listen(checker);
        feed(replay, logOf(batches));
      }
    });
  }

  test("decided twice, executed once", () => {
    expect(judge([[one], [request({ sequence: 2 })], [one]])).toBeNull();
  });

  test("another payload under the same sequence executes nothing", () => {
    expect(judge([[one], [request({ sequence: 1, commands: [put("c")] })]])).toBeNull();
  });

  test("a client table that forgets lets a request take effect twice", () => {
    // A second executor knows nothing of what the first one's client table remembered.
    expect(judge([[one]], [[one]])).toBe("exactly-once");
    expect(judge([[one]], [[request({ sequence: 2 })]])).toBeNull();
  });

  test("a cancelled request takes no effect, and RESOLVE tells the truth", () => {
    const late = request({ sequence: 7 });
    expect(judge([[resolve({ sequence: 7 })], [late]])).toBeNull();
    expect(judge([[late], [resolve({ sequence: 7 })], [resolve({ sequence: 9 })]])).toBeNull();
    expect(judge([[resolve({ sequence: 7 })]], [[late]])).toBe("exactly-once");
    expect(judge([[late]], [[resolve({ sequence: 7 })]])).toBe("exactly-once");
  });

  test("a reply that was never executed, or differs from the execution's", () => {
    const heard: ReplayedRequest[] = [];
    const replay = new Replay(OPTIONS);
    replay.listen({ replayed: (event) => void heard.push(event) });
    feed(replay, logOf([[one]]));
    const first = only(heard);
    const again = { ...first, instance: 2, commands: [] };
    const other = { ...again, reply: { ...again.reply, resultDigest: digestOf(1) } };
    const told = (...events: readonly ReplayedRequest[]): string | null => {
      const checker = new ExactlyOnceChecker();
      return ruleBroken(() => {
        for (const event of events) checker.replayed(event);
      });
    };
    expect(told(first, again)).toBeNull();
    expect(told(again)).toBe("exactly-once");
    expect(told(first, other)).toBe("exactly-once");
  });

  test("each replica executes instance after instance, again only after a start", () => {
    const checker = new ExactlyOnceChecker();
    for (const instance of [1, 2, 3]) checker.executed({ replica: 0, instance });
    expect(ruleBroken(() => checker.executed({ replica: 0, instance: 3 }))).toBe("exactly-once");
    expect(ruleBroken(() => checker.executed({ replica: 0, instance: 5 }))).toBe("exactly-once");
    expect(ruleBroken(() => checker.executed({ replica: 1, instance: 2 }))).toBeNull();
    checker.restarted({ replica: 0 });
    expect(ruleBroken(() => checker.executed({ replica: 0, instance: 2 }))).toBeNull();
  });
});

describe("durability", () => {
  const write = request({ sequence: 1, commands: [put("a", "1")] });
  const read = request({ sequence: 2, commands: [get("a")] });
  const log = logOf([[write], [read]]);
  const command = only(write.commands);
  const result = only(resultsIn(log, write));

  function started(): DurabilityChecker {
    const replay = new Replay(OPTIONS);
    const checker = new DurabilityChecker(() => [VIEW]);
    replay.listen(checker);
    feed(replay, log);
    return checker;
  }

  test("an acknowledged write is in the log, executed by Q-f correct replicas", () => {
    const checker = started();
    const acknowledge = (): void => checker.acknowledged({ client: ALICE, command, result });
    checker.executed({ replica: 0, instance: 1 });
    expect(ruleBroken(acknowledge)).toBe("durability");
    checker.executed({ replica: 2, instance: 1 });
    expect(ruleBroken(acknowledge)).toBeNull();
    expect(ruleBroken(() => checker.ended())).toBeNull();
  });

  test("a revision that the log does not have, or gives to another write, command or client", () => {
    const checker = started();
    for (const replica of [0, 1, 2]) checker.executed({ replica, instance: 2 });
    const other = request({ sequence: 3, commands: [put("a", "2")] });
    const later = only(resultsIn(logOf([[write], [other]]), other));
    expect(ruleBroken(() => checker.acknowledged({ client: ALICE, command, result: later }))).toBe("durability");
    const stolen = { client: ALICE, command: only(other.commands), result };
    expect(ruleBroken(() => checker.acknowledged(stolen))).toBe("durability");
    expect(ruleBroken(() => checker.acknowledged({ client: BOB, command, result }))).toBe("durability");
    expect(ruleBroken(() => checker.acknowledged({ client: ALICE, command, result }))).toBeNull();
  });

  test("reads are acknowledged without a trace", () => {
    const found = only(resultsIn(log, read));
    const event = { client: ALICE, command: only(read.commands), result: found };
    expect(ruleBroken(() => started().acknowledged(event))).toBeNull();
  });

  test("a replica comes back with all it had executed", () => {
    const checker = started();
    checker.executed({ replica: 0, instance: 2 });
    expect(ruleBroken(() => checker.restarted({ replica: 0, newestInstance: 2 }))).toBeNull();
    expect(ruleBroken(() => checker.restarted({ replica: 0, newestInstance: 3 }))).toBeNull();
    expect(ruleBroken(() => checker.restarted({ replica: 0 }))).toBeNull();
    expect(ruleBroken(() => checker.restarted({ replica: 0, newestInstance: 1 }))).toBe("durability");
    expect(ruleBroken(() => checker.restarted({ replica: 1, newestInstance: 0 }))).toBeNull();
  });
});

describe("all checkers", () => {
  const write = request({ sequence: 1, commands: [put("a", "1")] });
  const log = logOf([[write]]);
  const entry = entryAt(log, 1);
  const result = only(resultsIn(log, write));

  function run(change: (checkers: Checkers) => void = () => undefined, issue = true): string | null {
    const checkers = new Checkers({
      crypto: nodeCrypto,
      cluster: CLUSTER,
      genesis: GENESIS,
      view: VIEW,
      maxClients: 10,
      service: (state: ServiceState) => kv(state),
      memoryLimits: { pending: 10 },
      livenessUs: 1_000,
    });
    return ruleBroken(() => {
      checkers.pending({ id: 1, what: "a put", nowUs: 0 });
      if (issue) checkers.issued({ client: ALICE, request: write });
      const { instance, digest } = entry;
      for (const replica of [0, 1]) {
        checkers.voted({ replica, message: { type: "ACCEPT", view: 0, regency: 0, instance, digest } });
        checkers.decided({ replica, ...entry });
        checkers.executed({ replica, instance, digest, root: digestOf(1) });
        checkers.memory({ replica, counts: { pending: 1 } });
      }
      checkers.acknowledged({ client: ALICE, command: only(write.commands), result });
      change(checkers);
      checkers.healed({ nowUs: 10 });
      checkers.finished({ id: 1, nowUs: 20 });
      checkers.advanced({ nowUs: 20 });
      checkers.restarted({ replica: 0, newestInstance: 1 });
      checkers.ended({ nowUs: 30 });
    });
  }

  test("a good run", () => {
    expect(run()).toBeNull();
  });

  test("hear every event", () => {
    const { instance, digest } = entry;
    const wrong = digestOf(9) as Digest;
    expect(run(() => undefined, false)).toBe("validity");
    expect(run((all) => all.decided({ replica: 2, ...entry, digest: wrong }))).toBe("agreement");
    expect(run((all) => all.executed({ replica: 2, instance, digest, root: wrong }))).toBe("state-roots");
    expect(run((all) => all.executed({ replica: 0, instance, digest, root: digestOf(1) }))).toBe("exactly-once");
    expect(
      run((all) =>
        all.voted({ replica: 0, message: { type: "ACCEPT", view: 0, regency: 0, instance, digest: wrong } }),
      ),
    ).toBe("votes");
    expect(run((all) => all.memory({ replica: 0, counts: { pending: 11 } }))).toBe("memory");
    expect(run((all) => all.restarted({ replica: 0, newestInstance: 0 }))).toBe("durability");
    expect(run((all) => all.acknowledged({ client: BOB, command: only(write.commands), result }))).toBe("durability");
    expect(
      run((all) => {
        all.healed({ nowUs: 10 });
        all.advanced({ nowUs: 1_011 });
      }),
    ).toBe("stall");
  });
});
