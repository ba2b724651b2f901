import { describe, expect, it } from "vitest";
import { WriteBehind } from "../../../server/write-behind.ts";
import type { StateSnapshot } from "../../../storage/contract.ts";
import { Bench, put, request } from "../service/fixtures.ts";
import { MemoryState, settle } from "./fixture.ts";

const INTERVAL_US = 400_000;

class World {
  readonly state = new MemoryState();
  readonly bench = new Bench({ store: this.state.values });
  readonly errors: unknown[] = [];
  readonly snapshots: number[] = [];
  readonly wakes: number[] = [];
  us = 10 * INTERVAL_US;
  readonly behind = new WriteBehind(this.bench.executor, this.state, {
    nowUs: () => this.us,
    wake: (atUs) => this.wakes.push(atUs),
    written: () => undefined,
    failed: (error) => this.errors.push(error),
  });

  /** One more instance, with a request of so many bytes as far as the pace knows. */
  execute(bytes = 10, requests = true): void {
    const sequence = this.bench.executor.applied.instance + 1;
    this.bench.batch(requests ? [request({ sequence, commands: [put(`key ${sequence}`)] })] : []);
    this.behind.executed(bytes);
  }

  cut(): boolean {
    const { instance } = this.bench.executor.applied;
    return this.behind.cut((snapshot: StateSnapshot) => {
      expect(snapshot.applied.instance).toBe(instance);
      expect(this.state.applied.instance).toBe(instance);
      this.snapshots.push(instance);
    });
  }
}

describe("a cut of the write-behind", () => {
  it("ends the group at once, whatever the pace says, and gives a snapshot of exactly that instance", async () => {
    const world = new World();
    world.execute();
    world.behind.write();
    await settle();
    world.execute();
    world.execute();
    world.behind.write();
    await settle();
    expect(world.state.groups).toEqual([1]);
    expect(world.cut()).toBe(true);
    world.execute();
    await settle();
    expect(world.state.groups).toEqual([1, 3]);
    expect(world.snapshots).toEqual([3]);
    world.us += INTERVAL_US;
    world.behind.write();
    await settle();
    expect(world.state.groups).toEqual([1, 3, 4]);
  });

  it("waits for the write under way, and no later group overtakes its snapshot", async () => {
    const world = new World();
    world.state.held = true;
    world.execute();
    world.behind.write();
    world.execute();
    expect(world.cut()).toBe(true);
    world.execute();
    expect(world.cut()).toBe(true);
    world.execute();
    world.us += INTERVAL_US;
    world.behind.write();
    expect(world.state.pendingWrites).toBe(1);
    await world.state.complete();
    expect([world.state.groups, world.snapshots, world.state.pendingWrites]).toEqual([[1], [], 1]);
    await world.state.complete();
    expect([world.state.groups, world.snapshots, world.state.pendingWrites]).toEqual([[1, 2], [2], 1]);
    await world.state.complete();
    expect([world.state.groups, world.snapshots, world.state.pendingWrites]).toEqual([[1, 2, 3], [2, 3], 0]);
    world.us += INTERVAL_US;
    world.behind.write();
    await world.state.complete();
    expect(world.state.groups).toEqual([1, 2, 3, 4]);
    expect(world.errors).toEqual([]);
  });

  it("of an instance that changed nothing is exact, too; of a state on disk it comes at once", async () => {
    const world = new World();
    world.execute();
    world.execute(1, false);
    world.cut();
    await settle();
    expect(world.snapshots).toEqual([2]);
    world.cut();
    expect(world.snapshots).toEqual([2, 2]);
    world.execute();
    world.us += INTERVAL_US;
    world.state.held = true;
    world.behind.write();
    // Everything executed is taken, but not on disk.
    world.cut();
    expect(world.snapshots).toEqual([2, 2]);
    await world.state.complete();
    expect(world.snapshots).toEqual([2, 2, 3]);
  });

  it("counts for `full` until its write begins, and at most four wait", async () => {
    const world = new World();
    world.state.held = true;
    world.execute();
    world.behind.write();
    world.execute(100 * 1024 * 1024);
    expect(world.cut()).toBe(true);
    expect(world.behind.full).toBe(false);
    world.execute(100 * 1024 * 1024);
    expect(world.behind.full).toBe(true);
    for (const taken of [true, true, true, false]) expect(world.cut()).toBe(taken);
    expect(world.behind.full).toBe(true);
    await world.state.complete();
    expect(world.behind.full).toBe(false);
    while (world.state.pendingWrites > 0) await world.state.complete();
    expect(world.snapshots).toEqual([2, 3, 3, 3]);
    expect(world.cut()).toBe(true);
  });

  it("`finish` writes cuts and the rest", async () => {
    const world = new World();
    world.state.held = true;
    world.execute();
    world.cut();
    world.execute();
    world.cut();
    world.execute();
    let finished = false;
    const end = world.behind.finish().then(() => {
      finished = true;
    });
    for (let write = 1; write <= 3; write++) {
      expect(finished).toBe(false);
      await world.state.complete();
    }
    await end;
    expect(world.state.groups).toEqual([1, 2, 3]);
    expect(world.snapshots).toEqual([1, 2]);
  });

  it("a failed write is reported once, and no cut is answered after it", async () => {
    const world = new World();
    world.state.write = () => Promise.reject(new Error("disk"));
    world.execute();
    world.cut();
    world.execute();
    world.cut();
    world.us += INTERVAL_US;
    world.behind.write();
    await settle();
    expect(world.errors).toHaveLength(1);
    expect(world.snapshots).toEqual([]);
  });

  it("keeps its pace", () => {
    const world = new World();
    world.execute();
    world.behind.write();
    world.execute();
    return settle().then(() => {
      world.behind.write();
      expect(world.wakes).toEqual([world.us + INTERVAL_US]);
      expect(world.state.groups).toEqual([1]);
    });
  });
});
