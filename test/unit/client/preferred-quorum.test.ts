/** Whom an unordered read is sent to (docs/protocol.md section 3, decisions/034), against fake replicas in fake time. */
import { describe, expect, test } from "vitest";
import { utf8 } from "../../../protocol/bytes.ts";
import { encodeCommand } from "../../../protocol/commands.ts";
import { behaviours, type FakeCluster, type FakeReplica } from "./fake-replicas.ts";
import { answerOf, connected } from "./fixture.ts";
import { ordered, requestsOf } from "./received.ts";

/** Ids of the replicas that received the newest unordered request. */
function askedLast(cluster: FakeCluster): number[] {
  const reads = cluster.replicas.map((replica) => unordered(cluster, replica.id));
  const newest = Math.max(...reads.flatMap((all) => all.map(({ request }) => request.sequence)));
  return cluster.replicas
    .filter((_, at) => reads[at]?.some(({ request }) => request.sequence === newest))
    .map(({ id }) => id);
}

function unordered(cluster: FakeCluster, id: number) {
  return requestsOf(cluster, id).filter(({ request }) => request.kind === "unordered");
}

function onReads(replica: FakeReplica, behaviour: NonNullable<FakeReplica["behaviour"]>): void {
  replica.behaviour = (honest, request, self) =>
    request.kind === "unordered" ? behaviour(honest, request, self) : honest;
}

describe("whom a read is sent to", () => {
  test.each([
    { n: 4, mode: "bft" as const, quorum: 3 },
    { n: 7, mode: "bft" as const, quorum: 5 },
    { n: 3, mode: "cft" as const, quorum: 2 },
  ])("a quorum of n = $n, $mode, each replica as often as the others", async ({ n, mode, quorum }) => {
    const { clock, cluster, kv } = await connected({ n, mode });
    const reads = 320;
    const sizes = new Map<number, number>();
    for (let at = 0; at < reads; at++) {
      await answerOf(clock, kv.get("a"));
      const size = askedLast(cluster).length;
      sizes.set(size, (sizes.get(size) ?? 0) + 1);
    }
    expect(sizes, "one of 32 measures").toEqual(
      new Map([
        [n, reads / 32],
        [quorum, (reads * 31) / 32],
      ]),
    );
    const shares = cluster.replicas.map(({ id }) => unordered(cluster, id).length / ((reads * quorum) / n));
    for (const share of shares) expect(Math.abs(share - 1)).toBeLessThan(0.1);
    expect(ordered(cluster)).toEqual([]);
  });

  test("everybody, while no more than a quorum is connected", async () => {
    const { clock, cluster, kv } = await connected({ prepare: (fakes) => void (fakes.replica(2).down = true) });
    for (let at = 0; at < 8; at++) {
      await answerOf(clock, kv.get("a"));
      expect(askedLast(cluster)).toEqual([0, 1, 3]);
    }
  });

  test("another is asked at once when an answer differs, and who gave it is passed over", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    onReads(cluster.replica(1), behaviours.wrongResult);
    let lies = 0;
    for (let at = 0; at < 100; at++) {
      expect((await answerOf(clock, kv.get("a")))?.value).toBe("1");
      if (askedLast(cluster).length === 4) lies++;
    }
    expect(lies, "once found out, and one of 32 measures").toBeLessThanOrEqual(1 + Math.ceil(100 / 32));
    expect(ordered(cluster), "no read was ordered").toHaveLength(1);
  });

  test("another is asked when one lets it wait, and the silent one is passed over for 10 s", async () => {
    const { clock, cluster, kv } = await connected();
    for (let at = 0; at < 40; at++) await answerOf(clock, kv.get("a"));
    onReads(cluster.replica(1), behaviours.silent);
    let waited = 0;
    for (let at = 0; at < 60; at++) {
      const before = clock.now;
      await answerOf(clock, kv.get("a"), 60);
      if (clock.now > before) waited++;
    }
    expect(waited).toBe(1);
    const heard = unordered(cluster, 1).length;
    expect(heard).toBeLessThan(70);
    onReads(cluster.replica(1), (honest) => honest);
    await clock.advance(10_001);
    for (let at = 0; at < 40; at++) await answerOf(clock, kv.get("a"));
    expect(unordered(cluster, 1).length, "trusted again").toBeGreaterThan(heard + 25);
    expect(ordered(cluster)).toEqual([]);
  });

  test("f that answer as late as they may hold a read up for 50 ms at most, once", async () => {
    const { clock, cluster, kv } = await connected({ n: 7 });
    for (const id of [0, 1]) onReads(cluster.replica(id), behaviours.delayed(95));
    const began = clock.now;
    for (let at = 0; at < 100; at++) await answerOf(clock, kv.get("a"), 60);
    expect(clock.now - began).toBeLessThanOrEqual(2 * 60);
    expect(ordered(cluster)).toEqual([]);
  });

  test("who wants to hear every replica asks every replica", async () => {
    const { clock, cluster, kv } = await connected();
    const heard: number[] = [];
    const get = encodeCommand({ type: "get", key: utf8("a") });
    const onReply = ({ replica }: { replica: number }) => void heard.push(replica);
    for (const hashed of [false, true, false, true]) {
      await answerOf(clock, kv.service.invokeUnorderedAsync(get, { hashed, onReply }).result);
      expect(askedLast(cluster)).toEqual([0, 1, 2, 3]);
    }
    expect(new Set(heard).size).toBeGreaterThanOrEqual(3);
  });
});
