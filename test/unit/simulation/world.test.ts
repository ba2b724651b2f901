/** The seams of a world: attackers speak for their replicas, twins share one identity, extra endpoints reach the gateways. */
import { describe, expect, it } from "vitest";
import type { ReplicaId } from "../../../protocol/view.ts";
import { noteSettled } from "../../../server/transfer/settled.ts";
import type { Storage } from "../../../storage/contract.ts";
import type { RunObserver } from "../../simulation/checkers/events.ts";
import type { Attacker } from "../../simulation/contract.ts";
import type { Machine } from "../../simulation/machine.ts";
import { CALM } from "../../simulation/network.ts";
import { drawPlan, type Plan } from "../../simulation/plan.ts";
import { runSeed } from "../../simulation/run.ts";
import { World } from "../../simulation/world.ts";

const SECOND_US = 1_000_000;

/** Nothing happens but what a test does. */
function calmPlan(seed: number): Plan {
  const calm = { everyUs: new Map(), profile: CALM, drift: 0, deadAtLast: 0, byzantine: 0, mallory: false };
  return { ...drawPlan(seed), n: 4, f: 1, clients: 2, safetyUs: 6 * SECOND_US, ...calm };
}

function worldOf(options: { twins?: readonly ReplicaId[]; observer?: RunObserver } = {}): World {
  const { seed, n, f, clients, workload, consensus } = calmPlan(9);
  const { twins = [], observer = {} } = options;
  const sizes = { seed, n, f, clients, workload, consensus, twins };
  return new World({ ...sizes, checkpointPeriod: 1_000, signedRequests: false, observers: () => [observer] });
}

const MUTE: Attacker = { rewrite: () => [], observe: () => undefined, idle: () => [] };

describe("a Byzantine replica", () => {
  it("sends what its attacker makes of what it wanted to send, and the others get along", async () => {
    let made = 0;
    const attackers = [
      () => {
        made++;
        return MUTE;
      },
    ];
    const report = await runSeed({ seed: 9, plan: { ...calmPlan(9), byzantine: 1 }, attackers });
    expect(report.failure).toBeNull();
    expect(made).toBe(1);
    expect(report.counts["calls: unknown"] ?? 0).toBe(0);
  });

  it("that leads and says nothing is replaced", async () => {
    const world = worldOf();
    world.corrupt(0, () => MUTE);
    world.start();
    await world.run({ untilUs: 8 * SECOND_US });
    expect(world.highestRegency).toBeGreaterThan(0);
    expect(world.decided).toBeGreaterThan(3);
  });

  it("observes what reaches it, is asked every 50 ms, and is reported by no checker", async () => {
    const heard = new Set<string>();
    const told = new Set<ReplicaId>();
    let idles = 0;
    const attacker: Attacker = {
      rewrite: (outgoing) => [outgoing],
      observe: (_from, message) => heard.add(message.type),
      idle: () => {
        idles++;
        return [];
      },
    };
    const tell = ({ replica }: { replica: ReplicaId }) => void told.add(replica);
    const world = worldOf({ observer: { decided: tell, executed: tell, voted: tell, memory: tell, restarted: tell } });
    world.corrupt(2, () => attacker);
    world.start();
    await world.run({ untilUs: 3 * SECOND_US });
    expect(heard).toContain("WRITE");
    expect(idles).toBeGreaterThanOrEqual(35);
    expect([...told].sort()).toEqual([0, 1, 3]);
  });
});

describe("twins", () => {
  it("are two machines that each speak for one member to whoever reaches them", async () => {
    const world = worldOf({ twins: [1] });
    expect(world.machines.map((machine) => machine.self)).toEqual([0, 1, 2, 3, 1]);
    const [, first, , , second] = world.machines;
    // Replica 3 reaches the second copy only, everybody else the first only.
    world.network.block(
      [
        [3, 1],
        [1, 3],
        [0, 4],
        [4, 0],
        [2, 4],
        [4, 2],
      ],
      SECOND_US,
    );
    world.start();
    await world.run({ untilUs: 5 * SECOND_US });
    expect(world.decided).toBeGreaterThan(3);
    expect(first?.replica?.core.lastDecided).toBeGreaterThan(3);
    expect(first?.replica?.core.statusOf(3)).toBeUndefined();
    expect(second?.replica?.core.statusOf(3)).toBeDefined();
    expect(second?.replica?.core.statusOf(0)).toBeUndefined();
  });
});

describe("machines", () => {
  it("lose what was not synced, keep what was, and are back after a crash", async () => {
    const world = worldOf();
    world.start();
    await world.run({ untilUs: 3 * SECOND_US });
    const machine = world.machines[2];
    const before = machine?.replica?.core.lastDecided ?? 0;
    machine?.crash({ keep: "none", linger: false });
    expect(machine?.state).toBe("down");
    machine?.start();
    await world.run({ untilUs: 6 * SECOND_US });
    expect(machine?.state).toBe("up");
    expect(before).toBeGreaterThan(0);
    expect(machine?.replica?.core.lastDecided).toBeGreaterThanOrEqual(before);
  });

  it("whose state is not settled yet read nothing, tell no results and sign no root until it is, also after a restart", async () => {
    const world = worldOf();
    world.start();
    await world.run({ untilUs: 1_150_000 });
    const machine = world.machines[2] as Machine;
    const settled = world.decided + 4;
    const noted = noteSettled((machine.storage as Storage).state, settled);
    await world.run({ untilUs: 1_170_000 });
    await noted;
    machine.crash({ keep: "all", linger: false });
    machine.start();
    const seen: { executed: number; reads: boolean; roots: number }[] = [];
    for (let untilUs = 1_175_000; untilUs < 6 * SECOND_US; untilUs += 5_000) {
      await world.run({ untilUs });
      const { replica } = machine;
      if (!replica) continue;
      const { newest } = replica.archiveStatus.checkpoints;
      seen.push({ executed: replica.executedInstance, reads: replica.recovered, roots: newest?.instance ?? settled });
    }
    const before = seen.filter(({ executed }) => executed < settled);
    const after = seen.filter(({ executed }) => executed >= settled);
    expect(before.length).toBeGreaterThan(1);
    expect(after.length).toBeGreaterThan(1);
    expect(before.some(({ reads }) => reads)).toBe(false);
    expect(after.every(({ reads }) => reads)).toBe(true);
    expect(Math.min(...seen.map(({ roots }) => roots))).toBeGreaterThanOrEqual(settled);
  });

  it("whose disk is an older copy raise an alarm when others show them, and it stays while they recover", async () => {
    const world = worldOf();
    world.start();
    const machine = world.machines[2] as Machine;
    await world.run({ untilUs: 2 * SECOND_US, done: () => machine.replica?.executedInstance === 3 });
    const copy = machine.disk.copy();
    await world.run({ untilUs: 4 * SECOND_US });
    machine.crash({ keep: "all", linger: false });
    machine.disk.restore(copy);
    machine.start();
    await world.run({ untilUs: 10 * SECOND_US });
    expect(machine.replica?.core.state).toMatchObject({ forgotten: false, heard: true });
    expect(machine.host?.alarms.map(({ code }) => code)).toEqual(["ROLLED_BACK"]);
  });

  it("whose replica ends for a reason of its own while it is stopped are stopped all the same", async () => {
    const world = worldOf();
    world.start();
    await world.run({ untilUs: 3 * SECOND_US });
    const machine = world.machines[2] as Machine;
    machine.replica?.retire();
    machine.stop(0);
    await world.run({ untilUs: 5 * SECOND_US });
    expect(machine.state).toBe("down");
  });

  it("that pause do nothing until they go on, and then everything", async () => {
    const world = worldOf();
    world.start();
    await world.run({ untilUs: 2 * SECOND_US });
    const machine = world.machines[3];
    const decided = machine?.replica?.core.lastDecided;
    machine?.pause();
    await world.run({ untilUs: 5 * SECOND_US });
    expect(machine?.replica?.core.lastDecided).toBe(decided);
    machine?.resume();
    await world.run({ untilUs: 7 * SECOND_US });
    expect(machine?.replica?.core.lastDecided).toBe(world.decided);
  });
});
