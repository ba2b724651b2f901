import { describe, expect, it } from "vitest";
import { type Digest, utf8 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { rootStatement } from "../../../protocol/image.ts";
import { ROOTS_KEPT } from "../../../protocol/limits.ts";
import type { SignedRoot } from "../../../protocol/messages.ts";
import { Roots } from "../../../server/archive/roots.ts";
import { CLUSTER, signerOf, viewOfSize } from "./fixture.ts";

const rootNamed = (name: string): Digest => nodeCrypto.sha256(utf8(name));

function signed(replica: number, instance: number, root: string): SignedRoot {
  const digest = rootNamed(root);
  const signature = signerOf(replica)(rootStatement(CLUSTER, { view: 0, instance, root: digest }));
  return { instance, root: digest, signature };
}

class World {
  readonly repairs: { instance: number; replicas: readonly number[] }[] = [];
  readonly faults: [number, string][] = [];
  readonly checks: (() => void)[] = [];
  ms = 1_000;
  readonly roots: Roots;

  constructor(n: number) {
    this.roots = new Roots({
      view: viewOfSize(n),
      self: 0,
      verifier: (checks, then) => {
        const valid = checks.map((one) => nodeCrypto.verify(one.publicKey, one.statement, one.signature));
        this.checks.push(() => then(valid));
      },
      port: {
        wallMs: () => this.ms++,
        misbehaved: (replica, code) => this.faults.push([replica, code]),
        repair: (evidence) => this.repairs.push(evidence),
      },
    });
  }

  verify(): void {
    for (const check of this.checks.splice(0)) check();
  }

  say(replica: number, instance: number, root: string): void {
    this.roots.received(replica, 0, signed(replica, instance, root));
    this.verify();
  }

  ours(instance: number, root: string): void {
    this.roots.ours({ instance, root: rootNamed(root) });
  }
}

describe("roots of others", () => {
  it("equal ones raise nothing; another one raises an alarm and one mismatch, in either order", () => {
    const world = new World(4);
    world.ours(16, "a");
    world.say(1, 16, "a");
    expect([world.roots.alarms(), world.roots.mismatches]).toEqual([[], 0]);
    world.say(2, 16, "b");
    world.say(2, 16, "b");
    world.say(3, 32, "c");
    expect(world.roots.mismatches).toBe(1);
    world.ours(32, "d");
    expect(world.roots.mismatches).toBe(2);
    expect(world.roots.alarms()).toEqual([
      { code: "ROOT_MISMATCH", detail: "replica 2 has another state than this one after instance 16", sinceMs: 1_000 },
      { code: "ROOT_MISMATCH", detail: "replica 3 has another state than this one after instance 32", sinceMs: 1_001 },
    ]);
    expect(world.repairs).toEqual([]);
  });

  it("count only once their signature is verified", () => {
    const world = new World(4);
    world.ours(16, "a");
    world.roots.received(1, 0, signed(1, 16, "b"));
    expect(world.roots.mismatches).toBe(0);
    world.roots.received(2, 0, signed(3, 16, "b"));
    world.roots.received(3, 0, { ...signed(3, 16, "b"), instance: 17 });
    world.roots.received(0, 0, signed(0, 16, "b"));
    world.roots.received(9, 0, signed(1, 16, "b"));
    world.roots.received(3, 1, signed(3, 16, "b"));
    expect(world.checks).toHaveLength(3);
    world.verify();
    expect(world.faults).toEqual([
      [2, "ROOT_SIGNATURE"],
      [3, "ROOT_SIGNATURE"],
    ]);
    expect(world.roots.mismatches).toBe(1);
    expect(world.roots.rootOf(1, 16)).toBe(rootNamed("b"));
    expect(world.roots.rootOf(2, 16)).toBeNull();
  });

  it("a flood of them takes bounded work and memory, and the alarm ends when they are gone", () => {
    const world = new World(4);
    world.ours(1, "a");
    world.say(1, 1, "b");
    expect(world.roots.alarms()).toHaveLength(1);
    for (let instance = 2; instance < 200; instance++) world.roots.received(1, 0, signed(1, instance, "x"));
    expect(world.checks.length).toBeLessThanOrEqual(2 * ROOTS_KEPT);
    world.verify();
    expect(world.roots.rootOf(1, 1)).toBeNull();
    expect(world.roots.alarms()).toEqual([]);
    world.roots.received(1, 0, signed(1, 1, "b"));
    expect(world.checks).toHaveLength(0);
  });
});

describe("a replica repairs itself (section 6)", () => {
  for (const [n, quorum] of [
    [4, 3],
    [7, 5],
    [10, 7],
  ] as const) {
    it(`n = ${n}: when ${quorum} others agree against it, once; one less is not enough`, () => {
      const world = new World(n);
      world.ours(16, "mine");
      for (let replica = 1; replica < quorum; replica++) world.say(replica, 16, "theirs");
      expect(world.repairs).toEqual([]);
      world.say(quorum, 16, "theirs");
      const replicas = Array.from({ length: quorum }, (_, index) => index + 1);
      expect(world.repairs).toEqual([{ instance: 16, replicas }]);
      world.ours(32, "mine");
      for (let replica = 1; replica < n; replica++) world.say(replica, 32, "theirs");
      expect(world.repairs).toHaveLength(1);
    });

    it(`n = ${n}: f colluding liars never bring it about, whatever they say`, () => {
      const world = new World(n);
      const f = Math.floor((n - 1) / 3);
      for (let instance = 16; instance <= 160; instance += 16) {
        world.ours(instance, "true");
        for (let replica = 1; replica <= f; replica++) {
          world.say(replica, instance, "false");
          world.say(replica, instance, "another");
        }
        for (let replica = f + 1; replica < n; replica++) world.say(replica, instance, "true");
      }
      expect(world.repairs).toEqual([]);
      expect(world.roots.mismatches).toBe(10 * f);
      expect(world.roots.alarms()).toHaveLength(10);
    });
  }

  it("not when a quorum is against it with different roots, or at different instances", () => {
    const world = new World(7);
    world.ours(16, "mine");
    world.ours(32, "mine");
    for (const replica of [1, 2, 3]) world.say(replica, 16, "a");
    for (const replica of [4, 5, 6]) world.say(replica, 16, "b");
    for (const replica of [1, 2, 3, 4]) world.say(replica, 32, "c");
    expect(world.repairs).toEqual([]);
  });

  it("also when its own root comes last", () => {
    const world = new World(4);
    for (const replica of [1, 2, 3]) world.say(replica, 16, "theirs");
    expect(world.repairs).toEqual([]);
    world.ours(16, "mine");
    expect(world.repairs).toEqual([{ instance: 16, replicas: [1, 2, 3] }]);
  });
});
