/** Views change while clients write (docs/protocol.md section 7): whole replicas, SDK included, on a virtual clock. */
import { describe, expect, it } from "vitest";
import { EMPTY } from "../../../protocol/bytes.ts";
import { certificateChecks } from "../../../protocol/certificate.ts";
import type { Identity } from "../../../protocol/identity.ts";
import { encodeMessage, type Message, statusStatement, writeStatement } from "../../../protocol/messages.ts";
import type { Change } from "../../../protocol/reconfiguration.ts";
import { faultsTolerated, type Mode, memberOf, type ReplicaId, type View } from "../../../protocol/view.ts";
import { encodeLink, type Link } from "../../../protocol/view-chain.ts";
import type { Driver } from "../../../server/driver.ts";
import { Administrator, addressAt } from "../../simulation/administration.ts";
import { AgreementChecker } from "../../simulation/checkers/agreement.ts";
import { StateRootsChecker } from "../../simulation/checkers/state-roots.ts";
import { identityOfMember } from "../../simulation/crypto.ts";
import type { Machine } from "../../simulation/machine.ts";
import { drawPlan } from "../../simulation/plan.ts";
import { World } from "../../simulation/world.ts";

const SECOND_US = 1_000_000;
const RESEND_SECONDS = 3;

interface Sizes {
  readonly n?: number;
  readonly mode?: Mode;
  readonly joining?: number;
  readonly seed?: number;
  readonly checkpointPeriod?: number;
  readonly commands?: number;
}

function worldOf(options: Sizes = {}) {
  const { n = 4, mode = "bft", seed = 9, joining = 0, checkpointPeriod = 1_000, commands = 5_000 } = options;
  const { workload, consensus } = drawPlan(seed);
  const sizes = {
    seed,
    n,
    f: faultsTolerated({ n, mode }),
    mode,
    clients: 3,
    workload: { ...workload, commands, callers: 2, thinkUs: 150_000 },
    consensus,
  };
  const observers = ({ crypto, cluster: { id, genesis } }: World) => [
    new AgreementChecker({ crypto, cluster: id, genesis }),
    new StateRootsChecker(),
  ];
  const world = new World({ ...sizes, joining, checkpointPeriod, signedRequests: false, observers });
  const retired: number[] = [];
  world.onRetired = ({ self }) => retired.push(self);
  return { world, administrator: new Administrator(world), retired, sleeping: new Set<number>() };
}

/** Runs until every member of the newest view is in it, and the change took place. */
async function changed(at: ReturnType<typeof worldOf>, change: Change, seconds = 20): Promise<void> {
  const { world, administrator } = at;
  const before = administrator.view.id;
  const done = (): boolean => {
    const { view } = administrator;
    if (view.id === before) return false;
    const awake = view.members.filter(({ id }) => !at.sleeping.has(id));
    return awake.every(({ id }) => world.machines[id]?.replica?.core.state.view === view.id);
  };
  // Like any client it says it again while nobody answers.
  for (let left = seconds; left > 0 && !done(); left -= RESEND_SECONDS) {
    if (administrator.view.id === before) administrator.order(change);
    await world.run({ untilUs: world.nowUs + RESEND_SECONDS * SECOND_US, done });
  }
  expect(administrator.view.id).toBe(before + 1);
  expect(done(), world.machines.map((machine) => world.standing(machine)).join("; ")).toBe(true);
}

interface Key {
  readonly id: ReplicaId;
  readonly identity: Identity;
}

/** Every key that a member had in one of these views. */
function keysEver(views: readonly View[]): Key[] {
  const keys = new Map<Uint8Array, Key>();
  for (const { members } of views)
    for (const member of members) {
      const identity = identityOfMember(member);
      keys.set(identity.signKey, { id: member.id, identity });
    }
  return [...keys.values()];
}

/** In every view a quorum of its keys makes a certificate, and none in which one key is of another time. */
function oldVotesNeverCount({ crypto, cluster, views }: World): void {
  const counts = (view: View, keys: readonly Key[]): boolean => {
    const place = { view: view.id, regency: 1, instance: 1_000, digest: crypto.sha256(EMPTY) };
    const statement = writeStatement(cluster.id, place);
    const votes = keys.map(({ id, identity }) => ({
      replica: id,
      signature: crypto.signer(identity.signSeed)(statement),
    }));
    const checks = certificateChecks(view, { ...place, votes });
    return checks?.every((check) => crypto.verify(check.publicKey, check.statement, check.signature)) ?? false;
  };
  let old = 0;
  for (const view of views) {
    const current = view.members.map((member) => ({ id: member.id, identity: identityOfMember(member) }));
    expect(counts(view, current.slice(0, view.quorum))).toBe(true);
    for (const key of keysEver(views)) {
      if (current.some(({ identity }) => identity === key.identity)) continue;
      old++;
      const others = current.filter(({ id }) => id !== key.id).slice(0, view.quorum - 1);
      expect(counts(view, [...others, key]), `replica ${key.id} in view ${view.id}`).toBe(false);
    }
  }
  expect(old).toBeGreaterThan(views.length);
}

function status(world: World, identity: Identity, at: { view: number; regency: number }): Message {
  const { crypto, cluster, decided } = world;
  const statement = { ...at, decided, digest: crypto.sha256(EMPTY), abstainingUntil: 0 };
  return {
    type: "STATUS",
    ...statement,
    signature: crypto.signer(identity.signSeed)(statusStatement(cluster.id, statement)),
  };
}

function statusAt({ machines }: World, id: ReplicaId): { view: number; regency: number } {
  const state = machines[id]?.replica?.core.state;
  if (!state) throw new Error(`replica ${id} does not run`);
  return { view: state.view, regency: state.regency };
}

/** Clients go on to have answers. */
async function progresses({ world }: ReturnType<typeof worldOf>, seconds = 5): Promise<void> {
  const before = world.decided;
  await world.run({ untilUs: world.nowUs + seconds * SECOND_US, done: () => world.decided >= before + 5 });
  expect(world.decided).toBeGreaterThanOrEqual(before + 5);
}

describe("7: views change under load", () => {
  it("a member's address changes: everybody is in the next view, and it goes on", async () => {
    const at = worldOf();
    at.world.start();
    await at.world.run({ untilUs: 1_500_000 });
    await changed(at, { type: "setAddress", id: 2, address: addressAt("elsewhere") });
    await progresses(at);
  });

  it("crash mode: the view changes and it goes on while a minority is down", async () => {
    const at = worldOf({ n: 3, mode: "cft", joining: 1 });
    at.world.start();
    await at.world.run({ untilUs: 3_000_000 });
    at.world.machines[1]?.crash({ keep: "all", linger: false });
    at.sleeping.add(1);
    await changed(at, { type: "setAddress", id: 2, address: addressAt("elsewhere") });
    await progresses(at, 20);
    await changed(at, at.administrator.replacing(1, 3), 40);
    await progresses(at, 20);
  });

  it("keys change, one member after the other", async () => {
    const at = worldOf();
    at.world.start();
    await at.world.run({ untilUs: 2_000_000 });
    for (const id of [0, 1, 2, 3]) {
      await changed(at, at.administrator.rotating(id, 1));
      await progresses(at, 20);
    }
  });

  it("a replica joins, fetches the state, and counts", async () => {
    const at = worldOf({ joining: 1 });
    at.world.start();
    await at.world.run({ untilUs: 4_000_000 });
    await changed(at, at.administrator.adding(4));
    await progresses(at);
    const { machines } = at.world;
    // With one of the others down its vote is needed.
    machines[2]?.crash({ keep: "all", linger: false });
    await progresses(at, 20);
    expect(machines[4]?.replica?.core.lastDecided).toBeGreaterThan(0);
  });

  it("the leader is removed: it serves until the others are there, and retires", async () => {
    const at = worldOf({ joining: 1 });
    at.world.start();
    await at.world.run({ untilUs: 3_000_000 });
    await changed(at, at.administrator.adding(4));
    await changed(at, { type: "remove", id: 0 });
    await progresses(at, 20);
    await at.world.run({ untilUs: at.world.nowUs + 20 * SECOND_US, done: () => at.retired.length > 0 });
    expect(at.retired).toEqual([0]);
  });

  it("every member is replaced, one after the other", async () => {
    const at = worldOf({ joining: 4 });
    at.world.start();
    await at.world.run({ untilUs: 3_000_000 });
    for (let id = 0; id < 4; id++) {
      await changed(at, at.administrator.replacing(id, 4 + id), 60);
      await progresses(at, 20);
    }
    expect(at.administrator.view.members.map(({ id }) => id)).toEqual([4, 5, 6, 7]);
    await at.world.run({ untilUs: at.world.nowUs + 20 * SECOND_US, done: () => at.retired.length === 4 });
    expect([...at.retired].sort()).toEqual([0, 1, 2, 3]);
  });

  it("from four to seven with f = 2, and back", async () => {
    const at = worldOf({ joining: 3 });
    at.world.start();
    await at.world.run({ untilUs: 3_000_000 });
    for (const id of [4, 5, 6]) await changed(at, at.administrator.adding(id), 60);
    await changed(at, { type: "setF", f: 2 });
    for (const id of [1, 5]) at.world.machines[id]?.crash({ keep: "all", linger: false });
    await progresses(at, 30);
    for (const id of [1, 5]) at.world.machines[id]?.start();
    await changed(at, { type: "setF", f: 1 }, 60);
    for (const id of [0, 5, 2]) await changed(at, { type: "remove", id }, 60);
    await changed(at, at.administrator.rotating(3, 1), 60);
    await progresses(at, 30);
    expect(at.administrator.view.members.map(({ id }) => id)).toEqual([1, 3, 4, 6]);
    oldVotesNeverCount(at.world);
    const { view, regency } = statusAt(at.world, 4);
    // More than W, from everybody who has left and from an old key of a member.
    for (const { id, identity } of keysEver(at.world.views)) {
      const member = memberOf(at.world.view, id);
      if (member && identityOfMember(member) === identity) continue;
      at.world.machines[4]?.replica?.onMessage(id, encodeMessage(status(at.world, identity, { view, regency: 50 })));
    }
    await at.world.run({ untilUs: at.world.nowUs + 3 * SECOND_US });
    expect(statusAt(at.world, 4)).toEqual({ view, regency });
  });

  it("a member that sleeps through two views gets there by links and log", async () => {
    const at = worldOf({ joining: 1 });
    at.world.start();
    await at.world.run({ untilUs: 3_000_000 });
    const sleeper = at.world.machines[3];
    sleeper?.crash({ keep: "all", linger: false });
    at.sleeping.add(3);
    await changed(at, { type: "setAddress", id: 2, address: addressAt("a") });
    await changed(at, { type: "setAddress", id: 2, address: addressAt("b") });
    at.sleeping.clear();
    sleeper?.start();
    const there = () => sleeper?.replica?.core.state.view === 2 && sleeper.replica.core.lastDecided >= at.world.decided;
    await at.world.run({ untilUs: at.world.nowUs + 60 * SECOND_US, done: there });
    expect(sleeper && at.world.standing(sleeper)).toMatch(/^r3 up decided/);
    expect(there()).toBe(true);
  });

  it("all lose power while the view changes, again and again", async () => {
    const at = worldOf();
    at.world.start();
    await at.world.run({ untilUs: 2_000_000 });
    for (let round = 0; round < 5; round++) {
      const before = at.administrator.view.id;
      at.administrator.order({ type: "setAddress", id: 1, address: addressAt(`round ${round}`) });
      await at.world.run({ untilUs: at.world.nowUs + 1_000 + round * 1_500 });
      for (const machine of at.world.machines) machine.crash({ keep: "none", linger: false });
      for (const machine of at.world.machines) machine.start();
      await progresses(at, 60);
      const views = new Set(at.world.machines.map(({ replica }) => replica?.core.state.view));
      expect([before, before + 1]).toContain(Math.max(...[...views].map((view) => view ?? 0)));
    }
  });

  /**
   * n = 7, f = 2: 0 and 1 might lie and answer in both views. The next view, in which 6 is replaced by 7, gets its quorum with 0, 1,
   * 2, 3 and 7 and goes on. Left in the old one are 5 and 6, cut off before, and 4, cut off after its ACCEPT. Were 4 to
   * answer as well, liars and these three would be a quorum, and a read would miss what the next view has written.
   */
  it("3: who has accepted the end of a view answers no reads in it", async () => {
    const at = worldOf({ n: 7, joining: 1 });
    const { world, administrator } = at;
    const HOUR_US = 3_600 * SECOND_US;
    const cut = (from: readonly number[], to: readonly number[]): void => {
      world.network.block(
        from.flatMap((a) => to.filter((b) => b !== a).map((b) => [a, b] as [number, number])),
        HOUR_US,
      );
    };
    const all = [0, 1, 2, 3, 4, 5, 6, 7];
    world.start();
    await world.run({ untilUs: 4_000_000 });
    cut([5, 6], all);
    cut(all, [5, 6]);
    // Its ACCEPT leaves long before those of the others.
    for (const machine of world.machines) machine.diskUs = { min: 20_000, max: 30_000 };
    for (const machine of world.machines) if (machine.self === 4) machine.diskUs = { min: 1, max: 5 };
    let accepted = false;
    world.onEffects = (machine, effects) => {
      const signs = effects.some((effect) => effect.type === "broadcast" && effect.message.type === "SIGNED_ACCEPT");
      if (machine.self !== 4 || !signs || accepted) return;
      accepted = true;
      cut(all, [4]);
    };
    const change = administrator.replacing(6, 7);
    const ahead = (): boolean => {
      const state = world.machines[0]?.replica?.core.state;
      const chain = world.machines[0]?.host?.views.chain;
      return state?.view === 1 && state.lastDecided.instance > (chain?.firstInstanceOf(1) ?? 0);
    };
    for (let left = 20; left > 0 && !ahead(); left--) {
      if (administrator.view.id === 0) administrator.order(change);
      await world.run({ untilUs: world.nowUs + RESEND_SECONDS * SECOND_US, done: ahead });
    }
    expect(ahead()).toBe(true);
    expect(accepted).toBe(true);
    const left = [4, 5, 6].map((id) => world.machines[id]?.replica);
    expect(left.map((replica) => replica?.core.state.view)).toEqual([0, 0, 0]);
    expect(left.map((replica) => replica?.answersReads)).toEqual([false, true, true]);
  });

  it("who completes the link itself before it was heard journals the last batch all the same", async () => {
    const at = worldOf();
    const { world } = at;
    world.start();
    await world.run({ untilUs: 3_000_000 });
    const last = world.machines[3] as Machine;
    last.crash({ keep: "all", linger: false });
    last.start();
    await world.run({ untilUs: world.nowUs + SECOND_US, done: () => last.replica !== null });
    const { core } = last.replica as Driver;
    const step = core.step.bind(core);
    core.step = (input) => {
      const unheard = input.type === "message" && input.message.type === "OFFER";
      return unheard || input.type === "link" ? [] : step(input);
    };
    await world.run({ untilUs: world.nowUs + SECOND_US / 2 });
    expect(core.state.heard).toBe(false);
    expect(last.replica?.executedInstance, "the journal waits, and execution for it").toBeLessThan(core.lastDecided);
    await changed(at, { type: "setAddress", id: 1, address: addressAt("x") });
  });

  it("whose state is lost abstains in a view again that it may have voted in", async () => {
    const at = worldOf({ commands: 3 });
    const { world } = at;
    world.start();
    await world.run({ untilUs: 4_000_000 });
    await changed(at, { type: "setAddress", id: 1, address: addressAt("x") });
    const last = world.machines[3] as Machine;
    const end = world.decided;
    last.crash({ keep: "all", linger: false });
    last.disk.loseState();
    last.start();
    const views: number[] = [];
    const there = (): boolean => {
      const state = last.replica?.core.state;
      if (state && views.at(-1) !== state.view) views.push(state.view);
      return state?.view === 1;
    };
    await world.run({ untilUs: world.nowUs + 20 * SECOND_US, done: there });
    expect(there()).toBe(true);
    expect(views, "it goes through the end of the view before").toEqual([0, 1]);
    expect(last.replica?.core.state.abstainingUntil).toBe(end + 1);
  });

  it("the link alone brings a replica that has decided everything else into the next view", async () => {
    const at = worldOf({ commands: 3 });
    const { world } = at;
    world.start();
    await world.run({ untilUs: 4_000_000 });
    const others = [0, 1, 2];
    const paths = others.flatMap((id) => [[3, id] as [number, number], [id, 3] as [number, number]]);
    world.network.block(paths, 3_600 * SECOND_US);
    const last = world.machines[3];
    // What was on its way has arrived, and is decided everywhere.
    await world.run({ untilUs: world.nowUs + SECOND_US / 2 });
    at.sleeping.add(3);
    const decided = last?.replica?.core.lastDecided ?? 0;
    const chain = () => world.machines[0]?.host?.views.chain;
    await changed(at, { type: "setAddress", id: 1, address: addressAt("x") });
    const link = chain()?.linkFrom(0) as Link;
    expect(link.instance - 1).toBe(decided);
    last?.replica?.onMessage(0, encodeMessage({ type: "LINKS", view: 1, regency: 0, links: [encodeLink(link)] }));
    await world.run({ untilUs: world.nowUs + 5 * SECOND_US });
    expect(last?.host?.views.chain.newest.id).toBe(1);
    expect(last?.replica?.core.state.view).toBe(1);
  });
});
