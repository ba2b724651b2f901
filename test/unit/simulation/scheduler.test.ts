import { describe, expect, it } from "vitest";
import { Scheduler } from "../../simulation/scheduler.ts";

const HOUR_US = 3_600_000_000;

describe("scheduler of the simulator", () => {
  it("runs events in order of time, and in order of insertion at the same time", async () => {
    const scheduler = new Scheduler({ seed: 1, startUs: 0 });
    const seen: string[] = [];
    const delays = [5, 1, 9, 5, 3, 1, 5, 0, 7, 3];
    for (const [index, delay] of delays.entries()) scheduler.after(delay, () => seen.push(`${delay}.${index}`));
    await scheduler.run({ untilUs: HOUR_US });
    expect(seen).toEqual(["0.7", "1.1", "1.5", "3.4", "3.9", "5.0", "5.3", "5.6", "7.8", "9.2"]);
    expect(scheduler.nowUs).toBe(HOUR_US);
  });

  it("runs every microtask dry before the next event, however long the chain", async () => {
    const scheduler = new Scheduler({ seed: 1, startUs: 0 });
    const seen: string[] = [];
    scheduler.after(1, () => {
      const chain = async (): Promise<void> => {
        for (let step = 0; step < 500; step++) await null;
        seen.push(`chain at ${scheduler.nowUs}`);
      };
      void chain();
    });
    scheduler.after(2, () => seen.push("next"));
    await scheduler.run({ untilUs: 10 });
    expect(seen).toEqual(["chain at 1", "next"]);
  });

  it("runs them dry also when the run begins in the callback of a timer", async () => {
    const scheduler = new Scheduler({ seed: 1, startUs: 0 });
    const seen: string[] = [];
    scheduler.after(1, () => seen.push("event"));
    await new Promise<void>((resolve) => {
      setTimeout(() => {
        const chain = async (): Promise<void> => {
          for (let step = 0; step < 5; step++) await null;
          seen.push("chain");
        };
        void chain();
        resolve(scheduler.run({ untilUs: 10 }));
      }, 1);
    });
    expect(seen).toEqual(["chain", "event"]);
  });

  it("forgets cancelled events and leaves later ones for the next run", async () => {
    const scheduler = new Scheduler({ seed: 1, startUs: 0 });
    const seen: number[] = [];
    scheduler.after(1, () => seen.push(1)).cancel();
    scheduler.after(2, () => seen.push(2));
    scheduler.after(20, () => seen.push(20));
    await scheduler.run({ untilUs: 10 });
    expect(seen).toEqual([2]);
    await scheduler.run({ untilUs: 30 });
    expect(seen).toEqual([2, 20]);
  });

  it("ends a run with the first failure, after the event at hand", async () => {
    const scheduler = new Scheduler({ seed: 1, startUs: 0 });
    let later = false;
    scheduler.after(1, () => {
      scheduler.fail(new Error("first"));
      scheduler.fail(new Error("second"));
    });
    scheduler.after(2, () => {
      later = true;
    });
    await expect(scheduler.run({ untilUs: 10 })).rejects.toThrow("first");
    expect(later).toBe(false);
  });
});
