/** Vote counting (docs/protocol.md section 3). */
import { describe, expect, test } from "vitest";
import { credibleMaximum, Votes } from "../../../client/quorum.ts";
import { EMPTY } from "../../../protocol/bytes.ts";
import type { Reply, ReplyBody, ReplyStatus } from "../../../protocol/client-frames.ts";
import { clusterOf } from "../../../protocol/cluster.ts";
import { crypto, FakeClock, FakeCluster } from "./fake-replicas.ts";

function reply(status: ReplyStatus, resultDigest: string, body: ReplyBody = "digest"): Reply {
  return {
    type: "REPLY",
    replica: 0,
    view: 0,
    session: 1,
    sequence: 1,
    kind: "ordered",
    requestDigest: "r",
    status,
    position: 0,
    resultDigest,
    body,
    result: EMPTY,
    header: EMPTY,
    mac: "",
  };
}

describe("Votes", () => {
  test("one vote per member: the latest", () => {
    const votes = new Votes(4);
    votes.add(0, reply("OK", "a"));
    votes.add(0, reply("OK", "a"));
    expect([votes.voters, votes.count("OK", "a")]).toEqual([1, 1]);
    votes.add(0, reply("OK", "b"));
    expect([votes.voters, votes.count("OK", "a"), votes.count("OK", "b")]).toEqual([1, 0, 1]);
  });

  test("status and digest both have to match", () => {
    const votes = new Votes(4);
    votes.add(0, reply("OK", "a"));
    votes.add(1, reply("DEADLINE", "a"));
    votes.add(2, reply("OK", "b"));
    expect([votes.count("OK", "a"), votes.count("DEADLINE", "a"), votes.countStatus("OK")]).toEqual([1, 1, 2]);
  });

  test("bytes received stay when the same member repeats the digest only", () => {
    const votes = new Votes(4);
    votes.add(1, reply("OK", "a", "full"));
    votes.add(1, reply("OK", "a", "gone"));
    expect([votes.fullAt("OK", "a"), votes.countGone("OK", "a")]).toEqual([1, 0]);
    votes.dropBody(1);
    expect([votes.fullAt("OK", "a"), votes.count("OK", "a")]).toEqual([-1, 1]);
    votes.add(1, reply("OK", "a", "gone"));
    expect(votes.countGone("OK", "a")).toBe(1);
  });

  test("okPossible: with those that may still answer", () => {
    const votes = new Votes(4);
    votes.add(0, reply("OK", "a"));
    votes.add(1, reply("OK", "b"));
    expect([votes.okPossible(3, 2), votes.okPossible(3, 1), votes.okPossible(2, 1)]).toEqual([true, false, true]);
  });

  test("forget takes whole statuses away", () => {
    const votes = new Votes(4);
    votes.add(0, reply("BUSY", "a"));
    votes.add(1, reply("OK", "a"));
    votes.forget(new Set(["BUSY"] as const));
    expect([votes.voters, votes.has(0), votes.has(1)]).toEqual([1, false, true]);
  });
});

test("credibleMaximum: f liars cannot raise it, and one correct claim is at least as high", () => {
  const { view } = clusterOf(crypto, new FakeCluster({ n: 7, clock: new FakeClock() }).file);
  expect(credibleMaximum(view, [9, 8, 3, 2, 1])).toBe(3);
  expect(credibleMaximum(view, [1, 2, 3, 8, 9])).toBe(3);
  expect(credibleMaximum(view, [5, 5])).toBe(0);
});
