import { describe, expect, it } from "vitest";
import { CALM, Network, type Profile, type Side, Stream } from "../../simulation/network.ts";
import { Scheduler } from "../../simulation/scheduler.ts";
import { Trace } from "../../simulation/trace.ts";

const SECOND_US = 1_000_000;

function wires(options: { profile?: Partial<Profile>; lossy?: boolean } = {}) {
  const scheduler = new Scheduler({ seed: 7, startUs: 0 });
  const trace = new Trace(scheduler, null);
  const network = new Network({ scheduler, trace, endpoints: 3 });
  network.profile = { ...CALM, ...options.profile };
  const seen: string[] = [];
  const end = (side: Side) => ({
    receive: (packet: number) => seen.push(`${side} got ${packet}`),
    closed: () => seen.push(`${side} closed`),
  });
  const stream = new Stream<number>(network, {
    ends: [0, 1],
    handlers: [end(0), end(1)],
    lossy: options.lossy ?? false,
  });
  const run = (us = SECOND_US) => scheduler.run({ untilUs: scheduler.nowUs + us });
  return { scheduler, trace, network, stream, seen, run };
}

const NUMBERS = Array.from({ length: 50 }, (_, number) => number);

describe("streams of the simulator", () => {
  it("deliver everything once and in order, however much delays vary", async () => {
    const { stream, seen, run } = wires({ profile: { meanUs: 20_000, lossChance: 0.5, reorderChance: 0.5 } });
    for (const number of NUMBERS) stream.send(0, number);
    await run();
    expect(seen).toEqual(NUMBERS.map((number) => `1 got ${number}`));
  });

  it("lose, double and reorder single packets only where that is allowed", async () => {
    const profile = { meanUs: 5_000, lossChance: 0.2, duplicateChance: 0.2, reorderChance: 0.3 };
    const { stream, seen, run, trace } = wires({ profile, lossy: true });
    for (const number of NUMBERS) stream.send(0, number);
    await run();
    const lost = trace.counts.get("fault: lost packet") ?? 0;
    const doubled = trace.counts.get("fault: duplicated packet") ?? 0;
    expect(lost).toBeGreaterThan(0);
    expect(doubled).toBeGreaterThan(0);
    expect(seen).toHaveLength(NUMBERS.length - lost + doubled);
    expect(seen).not.toEqual([...seen].sort((a, b) => Number(a.slice(6)) - Number(b.slice(6))));
  });

  it("keep what meets a blocked path and deliver it in order when the path opens", async () => {
    const { network, stream, seen, run } = wires();
    const release = network.block([[0, 1]], 10 * SECOND_US);
    stream.send(0, 1);
    stream.send(1, 2);
    await run();
    stream.send(0, 3);
    expect(seen).toEqual(["0 got 2"]);
    release();
    await run();
    expect(seen).toEqual(["0 got 2", "1 got 1", "1 got 3"]);
  });

  it("break over a path that stays blocked, and tell both sides", async () => {
    const { network, stream, seen, run } = wires();
    network.block([[0, 1]], SECOND_US / 2);
    stream.send(0, 1);
    await run();
    expect([...seen].sort()).toEqual(["0 closed", "1 closed"]);
    expect(stream.whole).toBe(false);
  });

  it("lose everything under way when they break", async () => {
    const { stream, seen, run } = wires();
    stream.send(0, 1);
    stream.send(1, 2);
    stream.break();
    stream.send(0, 3);
    await run();
    expect([...seen].sort()).toEqual(["0 closed", "1 closed"]);
  });

  it("deliver what a side sent last before its end, or nothing of it", async () => {
    for (const linger of [true, false]) {
      const { stream, seen, run } = wires();
      stream.send(0, 1);
      stream.end(0, { linger });
      await run();
      expect(seen).toEqual(linger ? ["1 got 1", "1 closed"] : ["1 closed"]);
    }
  });

  it("delay what is sent into a clogged path, in one direction", async () => {
    const { network, scheduler, stream, seen, run } = wires();
    network.clog(0, 1, 5 * SECOND_US);
    stream.send(0, 1);
    stream.send(1, 2);
    await run();
    expect(seen).toEqual(["0 got 2"]);
    await run(5 * SECOND_US);
    expect(seen).toEqual(["0 got 2", "1 got 1"]);
    expect(scheduler.nowUs).toBe(6 * SECOND_US);
  });

  it("are all open and whole again once the network is healed", async () => {
    const { network, stream, seen, run } = wires({ profile: { breakChance: 1 } });
    network.block(
      [
        [0, 1],
        [1, 0],
      ],
      10 * SECOND_US,
    );
    network.heal();
    stream.send(0, 1);
    await run();
    expect(seen).toEqual(["1 got 1"]);
    expect(network.open(0, 1)).toBe(true);
  });
});
