/** Who waits for large results that it was served (docs/protocol.md section 8, "Results"). */
import { describe, expect, it } from "vitest";
import type { Digest } from "../../../protocol/bytes.ts";
import { DEBT_MS_MAX, LATE_BATCHES, LATE_MS, RESULTS_FREE_COST, RESULTS_PACE } from "../../../protocol/limits.ts";
import { Debts, NO_COSTS, type ResultCosts, resultCosts } from "../../../server/consensus/debts.ts";
import { RequestQueue } from "../../../server/consensus/request-queue.ts";
import { clientOf, requestOf } from "./queue-model.ts";

const [GREEDY, OTHER, THIRD] = [clientOf(0), clientOf(1), clientOf(2)];
/** 100 ms of the pace. */
const COST = 100 * RESULTS_PACE;

function batch(clients: readonly number[], costs: ResultCosts, timestampMs: number) {
  return { requests: clients.map((client) => requestOf(client, timestampMs + 1, 100)), costs, timestampMs };
}

const greedy = (cost: number): ResultCosts => new Map([[GREEDY, cost]]);

describe("debts for results", () => {
  it("who is alone never waits", () => {
    const debts = new Debts();
    debts.executed(batch([0], greedy(COST), 10), 10_000);
    expect([debts.owes(GREEDY), debts.paidUs(GREEDY)]).toEqual([false, 10_000]);
  });

  it("a debtor waits until all that were served lately would have had as much, and longer for more", () => {
    const debts = new Debts();
    debts.executed(batch([0, 1, 2], NO_COSTS, 0), 7_000_000);
    debts.executed(batch([0], greedy(COST), 10), 7_010_000);
    expect(debts.paidUs(GREEDY)).toBe(7_010_000 + 300_000);
    debts.executed(batch([0], greedy(COST), 20), 7_020_000);
    expect(debts.paidUs(GREEDY)).toBe(7_010_000 + 600_000);
    expect([OTHER, THIRD].map((client) => debts.paidUs(client))).toEqual(Array(2).fill(Number.NEGATIVE_INFINITY));
  });

  it("nobody waits for longer than the bound, and small results cost nothing", () => {
    const debts = new Debts();
    debts.executed(batch([0, 1], new Map([[OTHER, RESULTS_FREE_COST]]), 10), 0);
    expect(debts.none).toBe(true);
    for (let count = 0; count < 50; count++) debts.executed(batch([0, 1], greedy(COST), 20), 5_000);
    expect(debts.paidUs(GREEDY)).toBe(5_000 + 1_000 * DEBT_MS_MAX);
  });

  it("replicas that execute the same at other times let it wait for as long, however late one is", () => {
    const [early, late] = [new Debts(), new Debts()];
    for (let instance = 0; instance < 20; instance++) {
      const executed = batch([0, 1], greedy(COST / 4), instance * 7);
      early.executed(executed, instance * 7_000);
      late.executed(executed, 400_000 + instance * 100);
    }
    const last = 19;
    expect(late.paidUs(GREEDY) - (400_000 + last * 100)).toBe(early.paidUs(GREEDY) - last * 7_000);
  });

  it("who is served now and then counts for less, who was not for long for nothing", () => {
    const waitMs = (others: readonly (readonly number[])[], eachMs = 1): number => {
      const debts = new Debts();
      let atMs = 0;
      for (const clients of others) {
        atMs += eachMs;
        debts.executed(batch(clients, NO_COSTS, atMs), 0);
      }
      debts.executed(batch([0], greedy(COST), atMs), 0);
      return debts.paidUs(GREEDY) / 1_000;
    };
    const mostly = (count: number): number[][] => [
      ...Array(LATE_BATCHES - 1 - count).fill([0]),
      ...Array(count).fill([1]),
    ];
    expect(waitMs(mostly(31))).toBe(200);
    expect(waitMs(mostly(LATE_BATCHES / 4))).toBe(200);
    expect(waitMs(mostly(LATE_BATCHES / 8))).toBe(100);
    expect(waitMs(mostly(1))).toBe(25);
    expect(waitMs([[1], ...Array(LATE_BATCHES).fill([0])])).toBe(0);
    expect(waitMs([[1], ...Array(4).fill([0])], LATE_MS / 4)).toBe(0);
    expect(waitMs([[1], [2], [0]], LATE_MS / 4)).toBe(300);
  });

  it("what is paid is forgotten", () => {
    const debts = new Debts();
    debts.executed(batch([0, 1], greedy(COST), 0), 0);
    for (const [atMs, none] of [
      [199, false],
      [200, true],
    ] as const) {
      debts.executed(batch([1], NO_COSTS, atMs), 1_000 * atMs);
      expect(debts.none).toBe(none);
    }
  });

  it("what was waited for is not waited for again, though batch time stands still", () => {
    const debts = new Debts();
    for (let nowUs = 0; nowUs < 5_000_000; nowUs = debts.paidUs(GREEDY)) {
      debts.executed(batch([0, 1], greedy(COST), 10_000), nowUs);
      expect(debts.paidUs(GREEDY)).toBe(nowUs + 200_000);
    }
  });

  it("large results are added up by client, of what was executed now", () => {
    const EXECUTED = 7;
    const reply = (client: number, bytes: number | null, instance = EXECUTED) => ({
      request: requestOf(client, 1, 100),
      instance,
      result: bytes === null ? null : new Uint8Array(bytes),
    });
    expect(resultCosts([reply(0, 100), reply(1, null)], EXECUTED)).toBe(NO_COSTS);
    expect(resultCosts([reply(0, 40_000, 3)], EXECUTED), "ordered again").toBe(NO_COSTS);
    const costs = resultCosts([reply(0, 40_000), reply(1, 8_000), reply(0, 40_000), reply(2, 100)], EXECUTED);
    expect([...costs]).toEqual([
      [GREEDY, 20_000],
      [OTHER, 2_000],
    ]);
  });
});

describe("the queue of a client that owes", () => {
  const LIMITS = { requestsMax: 100, bytesMax: 1_000_000, overheadBytes: 4 };
  const ENVELOPE = new Uint8Array(10);
  const paidUs = 1_000 * 200;

  /** The greedy one owes until `paidUs`, and has one more request waiting; so has the other when told so. */
  function indebted({ beside }: { beside: boolean }): RequestQueue {
    const queue = new RequestQueue();
    queue.executed(batch([0, 1], greedy(COST), 0), 0);
    queue.add(requestOf(0, 5, 100), ENVELOPE, 0, 0);
    if (beside) queue.add(requestOf(1, 5, 100), ENVELOPE, 0, 0);
    return queue;
  }

  const clientsOf = (queue: RequestQueue, nowUs: number): Digest[] =>
    queue.take({ ...LIMITS, nowUs }).map(({ request }) => request.client);

  it("is taken once it has paid, also when nothing else waits", () => {
    const queue = indebted({ beside: false });
    expect(queue.readyUs(10)).toBe(paidUs);
    expect(clientsOf(queue, paidUs - 1)).toEqual([]);
    expect(queue.waiting).toBe(1);
    expect(queue.readyUs(paidUs)).toBe(paidUs);
    expect(clientsOf(queue, paidUs)).toEqual([GREEDY]);
  });

  it("holds up nobody else", () => {
    const queue = indebted({ beside: true });
    expect(queue.readyUs(10)).toBe(10);
    expect(clientsOf(queue, 10)).toEqual([OTHER]);
    expect(clientsOf(queue, paidUs)).toEqual([GREEDY]);
  });

  it("is nobody's fault: no leader is late before it has paid", () => {
    const queue = indebted({ beside: false });
    expect(queue.lateness.oldestDueUs(1)).toBe(paidUs);
    expect(queue.lateness.neglectedSinceUs(1)).toBe(paidUs);
    expect(queue.waitingSinceUs([requestOf(0, 5, 100)])).toBe(paidUs);
    expect(queue.overdue(paidUs + 999, 1_000, 10)).toEqual([]);
    expect(queue.overdue(paidUs + 1_000, 1_000, 10)).toHaveLength(1);
  });

  it("what others are served meanwhile does not bring its turn nearer", () => {
    const queue = indebted({ beside: false });
    for (let sequence = 6; sequence < 12; sequence++) queue.add(requestOf(0, sequence, 100_000), ENVELOPE, 0, 0);
    queue.decided([requestOf(1, 1, 400_000)], 100_000);
    queue.decided([requestOf(0, 5, 100)], paidUs);
    queue.decided([requestOf(0, 6, 100_000)], paidUs + 10);
    queue.decided([requestOf(1, 2, 100)], paidUs + 5_000_000);
    expect(queue.lateness.oldestDueUs(1), "behind what is served of others by then").toBe(paidUs + 5_000_000);
  });

  it("holds 64 at most while it owes", () => {
    const queue = indebted({ beside: false });
    const room = (client: Digest): boolean => queue.room({ client, bytes: 100, cost: 1_400, lot: 0.5 }, "client");
    for (let sequence = 6; sequence < 69; sequence++) {
      expect(room(GREEDY)).toBe(true);
      queue.add(requestOf(0, sequence, 100), ENVELOPE, 0, 0);
      queue.add(requestOf(1, sequence, 100), ENVELOPE, 0, 0);
    }
    expect([room(GREEDY), room(OTHER)]).toEqual([false, true]);
    queue.executed(batch([1], NO_COSTS, 1_000), 1_000_000);
    expect(room(GREEDY), "paid").toBe(true);
  });

  it("what it had waiting meanwhile is not due before that, also once the debt is forgotten and little is served", () => {
    const queue = indebted({ beside: false });
    queue.executed(batch([1], NO_COSTS, 300), 300_000);
    expect(queue.lateness.oldestDueUs(1)).toBe(paidUs);
    queue.executed(batch([0], greedy(RESULTS_FREE_COST), 400), 400_000);
    expect(queue.lateness.oldestDueUs(1)).toBe(paidUs);
  });

  it("hides nobody else's request, however much of it waits", () => {
    const queue = indebted({ beside: false });
    for (let sequence = 6; sequence < 4_000; sequence++) queue.add(requestOf(0, sequence, 100), ENVELOPE, 0, 0);
    queue.add(requestOf(1, 5, 100), ENVELOPE, 0, 1_000);
    expect(queue.lateness.neglectedSinceUs(1)).toBe(1_000);
  });

  it("hides nobody behind what was decided since, however old its oldest request is", () => {
    const queue = indebted({ beside: false });
    for (let sequence = 100; sequence < 1_500; sequence++) {
      queue.add(requestOf(1, sequence, 100), ENVELOPE, 0, 1_000);
      queue.decided([requestOf(1, sequence, 100)], 2_000);
    }
    queue.add(requestOf(2, 1, 100), ENVELOPE, 0, 10_000);
    for (let atMs = 100; atMs < 30_000; atMs += 100) {
      queue.decided([requestOf(0, 1_000 + atMs, 100), requestOf(1, 10_000 + atMs, 100)], 1_000 * atMs);
      queue.executed(batch([0, 1], greedy(20 * COST), atMs), 1_000 * atMs);
    }
    expect(queue.lateness.oldestDueUs(1)).toBeLessThan(11_000_000);
  });

  it("when its oldest one was dropped, the next is due in its time", () => {
    const queue = indebted({ beside: false });
    queue.add(requestOf(0, 6, 100), ENVELOPE, 0, 0);
    for (let atMs = 100; atMs < 200_000; atMs += 100) {
      if (atMs === 5_000) queue.dropSettled(1_000 * atMs, ({ sequence }) => sequence === 5, 256);
      queue.decided([requestOf(0, 1_000 + atMs, 100)], 1_000 * atMs);
      queue.executed(batch([0, 1], greedy(COST), atMs), 1_000 * atMs);
    }
    expect(queue.lateness.oldestDueUs(1)).toBe(5_000_000 + 60_000_000);
  });

  it("others come to have what they lack, though it is the oldest at one replica only", () => {
    const followers = [new RequestQueue(), new RequestQueue(), new RequestQueue()];
    const starved = [5, 6, 7];
    for (const [at, queue] of followers.entries()) {
      queue.executed(batch([0, 1], greedy(COST), 0), 0);
      for (const offset of starved.keys()) {
        queue.add(requestOf(0, starved[(at + offset) % starved.length] as number, 100), ENVELOPE, 0, 0);
      }
    }
    let overdue = false;
    for (let atMs = 50; atMs < 100_000 && !overdue; atMs += 50) {
      const nowUs = 1_000 * atMs;
      for (const [at, queue] of followers.entries()) {
        queue.decided([requestOf(0, 1_000 + atMs, 100), requestOf(1, atMs, 100)], nowUs);
        queue.executed(batch([0, 1], greedy(COST), atMs), nowUs);
        for (const { request } of queue.overdue(nowUs, 1_000_000, 256)) {
          for (const other of followers) if (other !== queue) other.voice(request.digest, at + 1);
        }
        overdue ||= (queue.lateness.oldestDueUs(followers.length) ?? nowUs) < nowUs;
      }
    }
    expect(overdue).toBe(true);
  });

  it("is served in its order: its oldest request is due though others of it are served instead, again and again", () => {
    const queue = indebted({ beside: false });
    for (let atMs = 100; atMs < 90_000; atMs += 100) {
      queue.decided([requestOf(0, 1_000 + atMs, 100)], 1_000 * atMs);
      queue.executed(batch([0, 1], greedy(COST), atMs), 1_000 * atMs);
    }
    expect(queue.lateness.oldestDueUs(1)).toBe(60_000_000);
  });

  it("and one behind others only when those are through: however long that takes, nobody is to blame", () => {
    const queue = indebted({ beside: false });
    for (let sequence = 6; sequence < 56; sequence++) queue.add(requestOf(0, sequence, 100), ENVELOPE, 0, 0);
    for (let sequence = 5; sequence < 55; sequence++) {
      const atUs = 1_000_000 * sequence;
      queue.decided([requestOf(0, sequence, 100)], atUs);
      queue.executed(batch([0, 1], greedy(5 * COST), atUs / 1_000), atUs);
      expect(queue.lateness.oldestDueUs(1)).toBe(atUs + 1_000_000);
    }
  });
});
