/** Votes of one replica, good and contradictory (docs/protocol.md sections 4 and 5). */
import { describe, expect, test } from "vitest";
import { encodeBatch } from "../../../protocol/batch.ts";
import type { Digest } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import type { Certificate, Message } from "../../../protocol/messages.ts";
import { VotesChecker } from "../../simulation/checkers/votes.ts";
import { digestOf, ruleBroken } from "./fixture.ts";

const A = digestOf(1);
const B = digestOf(2);
const signature = new Uint8Array(64);

interface At {
  regency?: number;
  instance?: number;
  view?: number;
}

function write(digest: Digest, { regency = 0, instance = 5, view = 0 }: At = {}): Message {
  return { type: "WRITE", view, regency, instance, digest, signature };
}

function accept(digest: Digest, { regency = 0, instance = 5, view = 0 }: At = {}): Message {
  return { type: "ACCEPT", view, regency, instance, digest };
}

function batch(instance: number, timestampMs: number): Uint8Array {
  return encodeBatch({ instance, timestampMs, requests: [] });
}

function propose(timestampMs: number, { regency = 0, instance = 5, view = 0 }: At = {}): Message {
  return { type: "PROPOSE", view, regency, instance, batch: batch(instance, timestampMs), envelopes: [] };
}

function sync(timestampMs: number, { regency = 1, instance = 5, view = 0 }: At = {}): Message {
  return { type: "SYNC", view, regency, stopData: [], batch: batch(instance, timestampMs), envelopes: [] };
}

function stopData(regency: number, record: Omit<Certificate, "votes" | "view"> | null = null, view = 0): Message {
  return { type: "STOPDATA", view, regency, record: record && { ...record, view: 0, votes: [] }, signature };
}

/** The rule that the last message breaks; those before it break none. */
function broken(...messages: readonly Message[]): string | null {
  const checker = new VotesChecker(nodeCrypto);
  const last = messages.length - 1;
  for (const [at, message] of messages.entries()) {
    const rule = ruleBroken(() => checker.voted({ replica: 1, message }));
    if (at === last) return rule;
    expect(rule).toBeNull();
  }
  return null;
}

describe("one vote per kind and place", () => {
  test.each([
    ["WRITE", write],
    ["ACCEPT", accept],
  ] as const)("%s", (_, vote) => {
    expect(broken(vote(A), vote(A))).toBeNull();
    expect(broken(vote(A), vote(B))).toBe("votes");
    expect(broken(vote(A), vote(B, { regency: 1 }))).toBeNull();
    expect(broken(vote(A), vote(B, { instance: 6 }))).toBeNull();
    expect(broken(vote(A), vote(B, { view: 1 }))).toBeNull();
  });

  test("a WRITE and an ACCEPT may differ: the quorum may have chosen otherwise", () => {
    expect(broken(write(A), accept(B))).toBeNull();
  });

  test("replicas are judged one by one", () => {
    const checker = new VotesChecker(nodeCrypto);
    checker.voted({ replica: 1, message: write(A) });
    expect(ruleBroken(() => checker.voted({ replica: 2, message: write(B) }))).toBeNull();
  });

  test("messages that bind nobody", () => {
    const status = { type: "STATUS", view: 0, regency: 0, decided: 4, abstainingUntil: 0, signature } as const;
    expect(broken({ ...status, digest: A }, { ...status, digest: B })).toBeNull();
    expect(broken(stopData(3), { type: "STOP", view: 0, regency: 1, named: [] })).toBeNull();
  });
});

describe("one proposal per place", () => {
  test("PROPOSE", () => {
    expect(broken(propose(1), propose(1))).toBeNull();
    expect(broken(propose(1), propose(2))).toBe("votes");
    expect(broken(propose(1), propose(2, { instance: 6 }))).toBeNull();
    expect(broken(propose(1), propose(2, { regency: 4 }))).toBeNull();
  });

  test("a batch of another instance", () => {
    expect(broken({ ...propose(1), batch: batch(6, 1) } as Message)).toBe("votes");
    expect(broken({ ...propose(1), batch: new Uint8Array(3) } as Message)).toBe("votes");
    expect(broken({ ...sync(1), batch: new Uint8Array(0) } as Message)).toBe("votes");
  });

  test("one SYNC per regency, of whatever instance", () => {
    expect(broken(sync(1), sync(1))).toBeNull();
    expect(broken(sync(1), sync(2))).toBe("votes");
    expect(broken(sync(1), sync(1, { instance: 6 }))).toBe("votes");
    expect(broken(sync(1), sync(2, { regency: 5 }))).toBeNull();
  });

  test("SYNC is the PROPOSE of its instance", () => {
    expect(broken(sync(1), propose(1, { regency: 1 }))).toBeNull();
    expect(broken(sync(1), propose(2, { regency: 1 }))).toBe("votes");
    expect(broken(propose(2, { regency: 1 }), sync(1))).toBe("votes");
    expect(broken(sync(1), propose(2, { regency: 1, instance: 6 }))).toBeNull();
  });
});

describe("nothing of a regency below one's STOPDATA", () => {
  test.each([
    ["WRITE", write(A, { regency: 1 }), write(A, { regency: 2 })],
    ["ACCEPT", accept(A, { regency: 1 }), accept(A, { regency: 2 })],
    ["PROPOSE", propose(1, { regency: 1 }), propose(1, { regency: 2 })],
    ["SYNC", sync(1, { regency: 1 }), sync(1, { regency: 2 })],
  ] as const)("%s", (_, late, timely) => {
    expect(broken(stopData(2), late)).toBe("votes");
    expect(broken(stopData(2), timely)).toBeNull();
    expect(broken(stopData(2, null, 1), late)).toBeNull();
  });

  test("a lower STOPDATA after a higher one does not lower the fence", () => {
    expect(broken(stopData(3), stopData(2), write(A, { regency: 2 }))).toBe("votes");
  });

  test("what had left before may leave again", () => {
    const record = { regency: 0, instance: 5, digest: A };
    expect(broken(write(A), accept(A), stopData(1, record), accept(A))).toBeNull();
    expect(broken(write(A), stopData(1), write(A))).toBeNull();
  });
});

describe("STOPDATA hides no ACCEPT", () => {
  const record = { regency: 0, instance: 5, digest: A };

  test("none after an ACCEPT", () => {
    expect(broken(accept(A), stopData(1))).toBe("votes");
    expect(broken(write(A), stopData(1))).toBeNull();
  });

  test("the accepted value, or a newer one", () => {
    expect(broken(accept(A), stopData(1, record))).toBeNull();
    expect(broken(accept(A), stopData(1, { ...record, instance: 6 }))).toBeNull();
    expect(broken(accept(A), stopData(3, { ...record, regency: 2, digest: B }))).toBeNull();
  });

  test("an older one, or another value of the same place", () => {
    expect(broken(accept(A), stopData(1, { ...record, instance: 4 }))).toBe("votes");
    expect(broken(accept(A), stopData(1, { ...record, digest: B }))).toBe("votes");
    expect(broken(accept(A), accept(B, { instance: 6 }), stopData(1, record))).toBe("votes");
    expect(broken(accept(A), accept(B, { regency: 2 }), stopData(3, record))).toBe("votes");
  });

  test("ACCEPTs of the STOPDATA's own regency do not count", () => {
    expect(broken(accept(A), accept(B, { regency: 1 }), stopData(1, record))).toBeNull();
  });

  test("an ACCEPT whose instance went to another batch may go: its record was replaced by the decided one", () => {
    for (const [digest, rule] of [
      [B, null],
      [A, "votes"],
    ] as const) {
      const checker = new VotesChecker(nodeCrypto);
      checker.voted({ replica: 1, message: accept(A) });
      checker.decided({ replica: 1, instance: 5, digest });
      checker.decided({ replica: 2, instance: 5, digest: B });
      expect(ruleBroken(() => checker.voted({ replica: 1, message: stopData(1) }))).toBe(rule);
    }
  });
});
