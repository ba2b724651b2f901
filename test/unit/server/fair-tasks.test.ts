import { describe, expect, it } from "vitest";
import type { Digest } from "../../../protocol/bytes.ts";
import {
  BUSY_MAX,
  BUSY_PER_CLIENT_MAX,
  BUSY_WINDOW_US,
  WAITING_BYTES_MAX,
  WAITING_PER_CLIENT_MAX,
} from "../../../protocol/limits.ts";
import { BusyAllowance } from "../../../server/busy-allowance.ts";
import { FairTasks } from "../../../server/fair-tasks.ts";

const [flooder, polite] = ["flooder", "polite"] as Digest[] as [Digest, Digest];
const SMALL = { cost: 1_024, bytes: 100 };

describe("fair tasks (section 8)", () => {
  it("a client with much to do delays another by a round", () => {
    const tasks = new FairTasks<string>();
    for (let index = 0; index < 200; index++) tasks.add(flooder, "flood", SMALL);
    tasks.add(polite, "one", SMALL);
    const done: string[] = [];
    tasks.run(
      () => done.length < 10,
      (task) => {
        done.push(task);
        return 0;
      },
    );
    expect(done.indexOf("one")).toBeLessThan(3);
    expect(done).toHaveLength(10);
    expect(tasks.size).toBe(191);
  });

  it("what a task cost beyond what was known is paid with later turns", () => {
    const tasks = new FairTasks<Digest>();
    for (let index = 0; index < 100; index++) for (const client of [flooder, polite]) tasks.add(client, client, SMALL);
    const done = new Map([flooder, polite].map((client) => [client, 0]));
    tasks.run(
      () => (done.get(polite) ?? 0) < 50,
      (client) => {
        done.set(client, (done.get(client) ?? 0) + 1);
        return client === flooder ? 20 * SMALL.cost : 0;
      },
    );
    expect(done.get(flooder)).toBeLessThan(6);
  });

  it("is bounded per client and in bytes", () => {
    const tasks = new FairTasks<number>();
    for (let index = 0; index < WAITING_PER_CLIENT_MAX; index++) {
      expect(tasks.room(flooder, 100)).toBe(true);
      tasks.add(flooder, index, SMALL);
    }
    expect(tasks.room(flooder, 100)).toBe(false);
    expect(tasks.room(polite, 100), "another client has room").toBe(true);
    expect(tasks.room(polite, WAITING_BYTES_MAX)).toBe(false);
    tasks.run(
      () => true,
      () => 0,
    );
    expect(tasks.room(polite, WAITING_BYTES_MAX)).toBe(true);
  });
});

describe("BUSY allowance (section 8)", () => {
  it("few per client, few in all, and as many again in the next window", () => {
    const allowance = new BusyAllowance();
    const told = (client: string, nowUs: number): number => {
      let count = 0;
      while (allowance.takes(client as Digest, nowUs)) count++;
      return count;
    };
    expect(told("a", 5)).toBe(BUSY_PER_CLIENT_MAX);
    let total = BUSY_PER_CLIENT_MAX;
    for (let client = 0; client < 100; client++) total += told(`client ${client}`, BUSY_WINDOW_US - 1);
    expect(total).toBe(BUSY_MAX);
    expect(told("a", BUSY_WINDOW_US)).toBe(BUSY_PER_CLIENT_MAX);
  });
});
