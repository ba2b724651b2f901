/**
 * What a replica may have said and does not know any more (docs/protocol.md section 4, "Lost journal"): a lost disk, one
 * rolled back to an older copy, and liars about either. Agreement and "nobody votes twice" are checked at every step.
 */
import { describe, expect, it } from "vitest";
import { type Message, type MessageOf, writeStatement } from "../../../protocol/messages.ts";
import type { Mode } from "../../../protocol/view.ts";
import { type ContextOptions, CoreContext } from "../../../server/consensus/context.ts";
import type { Input } from "../../../server/consensus/contract.ts";
import { Recollection } from "../../../server/consensus/recollection.ts";
import { type Forgotten, type Start, startOf } from "../../../server/consensus/restart.ts";
import { Core } from "../../../server/core.ts";
import { CoreCluster, copyOfDisk, type SimulatedReplica } from "../../simulation/core-cluster.ts";
import { CLUSTER, GENESIS, signerOf } from "../../simulation/core-replica.ts";
import { fastCrypto } from "../../simulation/fast-crypto.ts";

function replica(cluster: CoreCluster, id: number): SimulatedReplica {
  return cluster.replicas[id] as SimulatedReplica;
}

function run(cluster: CoreCluster, requests: number): void {
  for (let request = 0; request < requests; request++) {
    cluster.request();
    cluster.settle(2);
  }
}

interface StartOptions {
  readonly n: number;
  readonly mode?: Mode;
  readonly seed?: number;
  readonly requestTimeoutMs?: number;
  readonly liar?: CoreClusterLiar;
}

function started({ n, mode = "bft", seed = 1, requestTimeoutMs = 1_000, liar }: StartOptions): CoreCluster {
  const common = { n, mode, seed, requestTimeoutMs, recollect: true };
  const cluster = new CoreCluster(liar ? { ...common, liar } : common);
  for (const a of cluster.replicas) for (const b of cluster.replicas) if (a.id < b.id) reconnect(cluster, a.id, b.id);
  cluster.settle(10);
  return cluster;
}

type CoreClusterLiar = NonNullable<ConstructorParameters<typeof CoreCluster>[0]["liar"]>;

function reconnect(cluster: CoreCluster, a: number, b: number): void {
  cluster.cut(a, b);
  cluster.mend(a, b);
}

/** It is up again at once, with an empty one. */
function loseDisk(cluster: CoreCluster, id: number): void {
  cluster.crash(id);
  cluster.replaceDisk(id, null);
  cluster.restart(id);
}

const OTHERS = [0, 1, 2] as const;
const PLACE = { view: 0, regency: 0 } as const;

describe("section 4: what a replica may have forgotten", () => {
  it("nobody votes before enough others said what they remember of it", () => {
    const cluster = new CoreCluster({ n: 4, seed: 1, recollect: true });
    for (const id of OTHERS) cluster.cut(3, id);
    for (const id of [0, 1]) cluster.cut(2, id);
    cluster.settle(6);
    expect(cluster.replicas.map(({ core }) => core.state.heard)).toEqual([false, false, false, false]);
    for (const id of [0, 1]) cluster.mend(2, id);
    cluster.settle(10);
    expect(cluster.replicas.map(({ core }) => core.state.heard)).toEqual([true, true, true, false]);
    run(cluster, 1);
    expect(cluster.heights().slice(0, 3)).toEqual([1, 1, 1]);
  });

  it.each([4, 7, 10])("n = %i: a lost disk is caught up, and votes again above what it may have voted", (n) => {
    const cluster = started({ n });
    run(cluster, 6);
    const height = cluster.heights()[0] as number;
    cluster.crash(3);
    cluster.replaceDisk(3, null);
    const sent: MessageOf<"WRITE" | "ACCEPT" | "PROPOSE">[] = [];
    const original = replica(cluster, 3).core;
    cluster.restart(3);
    expect(replica(cluster, 3).core).not.toBe(original);
    expect(replica(cluster, 3).core.state.forgotten).toBe(true);
    const step = replica(cluster, 3).core.step.bind(replica(cluster, 3).core);
    replica(cluster, 3).core.step = (input) => {
      const effects = step(input);
      for (const effect of effects) {
        if (effect.type !== "broadcast") continue;
        const { message } = effect;
        if (message.type === "WRITE" || message.type === "ACCEPT" || message.type === "PROPOSE") sent.push(message);
      }
      return effects;
    };
    cluster.settle(20);
    run(cluster, 4);
    cluster.settle(20);
    const { core } = replica(cluster, 3);
    expect(core.state.forgotten).toBe(false);
    expect(core.lastDecided).toBe(cluster.heights()[0]);
    expect(core.lastDecided).toBeGreaterThan(height + 4);
    expect(sent.length).toBeGreaterThan(0);
    // The others show a certificate for the last instance: the one after it may have been voted on, too.
    expect(Math.min(...sent.map(({ instance }) => instance))).toBeGreaterThan(height + 1);
  });

  it("an idle cluster orders empty batches until the lost replica is back", () => {
    const cluster = started({ n: 4 });
    run(cluster, 3);
    loseDisk(cluster, 3);
    cluster.settle(40);
    expect(replica(cluster, 3).core.state.forgotten).toBe(false);
    const height = cluster.heights()[0] as number;
    cluster.settle(20);
    expect(cluster.heights()[0]).toBe(height);
  });

  it.each(["bft", "cft"] as const)("%s: whoever lost its disk lets its turn as leader pass, long before T", (mode) => {
    const cluster = started({ n: 7, mode, requestTimeoutMs: 5_000 });
    run(cluster, 3);
    const height = cluster.heights()[3] as number;
    cluster.crash(0);
    loseDisk(cluster, 1);
    cluster.request();
    const regencies = (): number[] => cluster.replicas.slice(1).map(({ core }) => core.state.regency);
    for (let rounds = 0; Math.max(...regencies()) === 0 && rounds < 400; rounds++) cluster.settle(1);
    cluster.settle(10);
    expect(regencies()).toEqual([2, 2, 2, 2, 2, 2]);
    expect(cluster.heights()[3]).toBeGreaterThan(height);
    cluster.settle(40);
    expect(replica(cluster, 1).core.state.forgotten).toBe(false);
  });

  it("whoever lost its disk, and does not lead, asks for no other leader", () => {
    const cluster = started({ n: 4 });
    run(cluster, 3);
    loseDisk(cluster, 3);
    cluster.settle(40);
    expect(cluster.replicas.map(({ core }) => core.state.wantedRegency)).toEqual([0, 0, 0, 0]);
  });

  it("a crash in the middle of it changes nothing", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const cluster = started({ n: 4, seed });
      run(cluster, 3);
      loseDisk(cluster, 3);
      for (let crash = 0; crash < 3; crash++) {
        for (let step = 0; step < 30 * seed; step++) cluster.randomStep();
        cluster.crash(3);
        cluster.restart(3);
      }
      cluster.settle(40);
      run(cluster, 2);
      expect(replica(cluster, 3).core.state.forgotten, `seed ${seed}`).toBe(false);
      expect(new Set(cluster.heights()).size, `seed ${seed}`).toBe(1);
    }
  });

  it("a disk rolled back to an older copy is noticed, whoever shows the vote", () => {
    const cluster = started({ n: 4 });
    run(cluster, 2);
    const old = copyOfDisk(replica(cluster, 3).disk);
    run(cluster, 4);
    cluster.crash(3);
    cluster.replaceDisk(3, old);
    cluster.restart(3);
    cluster.settle(2);
    expect(replica(cluster, 3).core.state.forgotten).toBe(true);
    cluster.settle(40);
    run(cluster, 3);
    expect(replica(cluster, 3).core.state.forgotten).toBe(false);
    expect(new Set(cluster.heights()).size).toBe(1);
  });

  it("a replica on the disk that it left is not taken for one rolled back", () => {
    for (let seed = 1; seed <= 30; seed++) {
      const cluster = started({ n: 4, seed });
      run(cluster, 2);
      for (let round = 0; round < 4; round++) {
        cluster.request();
        for (let step = 0; step < 40; step++) cluster.randomStep();
        const victim = cluster.random.below(4);
        cluster.crash(victim);
        cluster.restart(victim);
        cluster.settle(10);
        expect(replica(cluster, victim).core.state.forgotten, `seed ${seed}`).toBe(false);
      }
    }
  });

  it("nothing that could be said twice leaves before that", () => {
    const said: string[] = [];
    const watch = (_from: number, _to: number, message: Message): Message[] => {
      if (["PROPOSE", "WRITE", "ACCEPT", "SYNC", "STOPDATA"].includes(message.type)) said.push(message.type);
      return [message];
    };
    const cluster = new CoreCluster({ n: 4, seed: 1, recollect: true, liar: watch });
    for (const id of OTHERS) cluster.cut(3, id);
    for (const id of [0, 1]) cluster.cut(2, id);
    cluster.request();
    cluster.settle(40);
    expect(said).toEqual([]);
  });

  it("a replica that forgot remembers nothing for others before it knows how far", () => {
    const offered: number[] = [];
    const watch = (from: number, _to: number, message: Message): Message[] => {
      if (message.type === "OFFER") offered.push(from);
      return [message];
    };
    const cluster = started({ n: 4, liar: watch });
    run(cluster, 3);
    loseDisk(cluster, 3);
    cluster.cut(3, 1);
    cluster.cut(3, 2);
    cluster.crash(0);
    cluster.restart(0);
    offered.length = 0;
    cluster.settle(20);
    expect(offered).toContain(1);
    expect(offered).not.toContain(3);
  });

  it("a disk too old is noticed after another crash as well: before the others were heard the journal does not grow", () => {
    const cluster = started({ n: 4 });
    run(cluster, 2);
    const old = copyOfDisk(replica(cluster, 3).disk);
    run(cluster, 4);
    cluster.crash(3);
    cluster.replaceDisk(3, old);
    cluster.restart(3);
    for (const id of [1, 2]) cluster.cut(3, id);
    const held = replica(cluster, 3).disk.instances.size;
    cluster.settle(40);
    expect(replica(cluster, 3).disk.instances.size).toBe(held);
    cluster.crash(3);
    cluster.restart(3);
    for (const id of OTHERS) cluster.cut(3, id);
    for (const id of OTHERS) cluster.mend(3, id);
    cluster.settle(2);
    expect(replica(cluster, 3).core.state.forgotten).toBe(true);
    expect(replica(cluster, 3).disk.forgotten).not.toBeNull();
    cluster.settle(40);
    run(cluster, 3);
    expect(replica(cluster, 3).core.state.forgotten).toBe(false);
  });

  it("a stop before the others were heard leaves the record of the stop before it alone", () => {
    const start = startOf({ ...NOTHING, hear: 2 }, { instance: 0, digest: GENESIS, timestampMs: 0 });
    const core = coreOf(start);
    core.step({ type: "tick", nowUs: 1_000_000, wallMs: 1_000 });
    const effects = core.step({ type: "stop" });
    expect(effects.filter(({ type }) => type === "journal")).toEqual([]);
    expect(effects.find(({ type }) => type === "stopping")).toEqual({ type: "stopping", messages: null });
  });

  it("is silent up to what it may have voted in, and in every regency below what others know of", () => {
    const forgotten = { until: 5, regency: 3 };
    const start = startOf({ ...NOTHING, forgotten, hear: 0 }, { instance: 0, digest: GENESIS, timestampMs: 0 });
    const recollection = new Recollection(new CoreContext(optionsOf()), start, {
      executedUpTo: () => 9,
      regency: () => 2,
      newestAccepted: () => null,
      changed: () => undefined,
      wanted: () => undefined,
    });
    const silent = (instance: number, regency: number) => recollection.silent(instance, regency);
    expect([silent(5, 3), silent(6, 2), silent(6, 3)]).toEqual([true, true, false]);
  });

  it("a vote that the bound covered is no news once nothing is forgotten", () => {
    const at = { forgotten: { until: 5, regency: 0 }, certified: 6 };
    const { context, recollection } = alone(at);
    recollection.tick();
    completeWrites(context);
    expect(recollection.forgotten).toBeNull();
    expect(shown(alone({ ...at, forgotten: null }), 5), "else it proves that the disk is older").toBe(true);
    expect(shown({ context, recollection }, 5)).toBe(false);
    expect(shown({ context, recollection }, 7), "what lies above the bound was never covered").toBe(true);
  });

  it("a regency that was asked for is remembered by who asked, though it restarted since, and asked for again with others", () => {
    const cluster = started({ n: 4 });
    const said = () => [...cluster.links.values()].flat().filter(({ type }) => type === "STOP").length;
    // Its leader gives up.
    cluster.input(replica(cluster, 2), { type: "message", from: 0, message: stop(1) });
    expect([said(), replica(cluster, 2).disk.wanted], "nothing is said before it is on disk").toEqual([0, 0]);
    cluster.journalOne(replica(cluster, 2));
    expect([said(), replica(cluster, 2).disk.wanted]).toEqual([3, 1]);
    cluster.crash(2);
    cluster.restart(2);
    const { core } = replica(cluster, 2);
    expect([core.state.wantedRegency, core.offerFacts.wanted]).toEqual([0, 1]);
    for (const id of [1, 2]) cluster.input(replica(cluster, id), { type: "message", from: 3, message: stop(1) });
    expect([1, 2].map((id) => replica(cluster, id).core.state.wantedRegency)).toEqual([0, 1]);
  });

  it("nobody hears of a regency before it is on disk: who installs it on that word may lose its journal next", () => {
    const cluster = started({ n: 4 });
    const { core } = replica(cluster, 3);
    const journaling: number[] = [];
    let nowUs = cluster.nowUs;
    const told = (input: Input): number[] => {
      const effects = core.step(input);
      for (const effect of effects) if (effect.type === "journal") journaling.push(effect.ticket);
      const messages = effects.flatMap((effect) =>
        effect.type === "broadcast" || effect.type === "send" ? [effect.message] : [],
      );
      return messages.flatMap((message) => (message.type === "STATUS" ? [message.regency] : []));
    };
    const heartbeat = (): number[] => {
      nowUs += 500_000;
      return told({ type: "tick", nowUs, wallMs: 1_000 });
    };
    for (const from of OTHERS)
      told({ type: "message", from, message: { type: "STOP", view: 0, regency: 1, named: [] } });
    expect(core.state.regency).toBe(1);
    expect([...heartbeat(), ...told({ type: "connected", peer: 0 })]).toEqual([0, 0]);
    for (const ticket of journaling.splice(0)) told({ type: "journaled", ticket });
    expect(heartbeat()).toEqual([1]);
  });

  it("what a replica forgot speaks for others only through a certificate that is as new", () => {
    const at = { forgotten: { until: 5, regency: 0 }, executed: 9 };
    expect(alone({ ...at, certified: 4 }).recollection.factsFor(0)).toBeNull();
    expect(alone({ ...at, certified: 5 }).recollection.factsFor(0)).toMatchObject({ newest: { instance: 5 } });
    expect(alone({ ...at, forgotten: null, certified: 4 }).recollection.factsFor(0)).not.toBeNull();
  });

  it("who is no member has no vote that anybody could show it", () => {
    const { context, recollection } = alone({ self: 9, forgotten: null, certified: 6 });
    recollection.onOffer(0, offered(9, 7));
    completeChecks(context);
    expect(recollection.forgotten).toBeNull();
    expect(context.takeEffects()).toContainEqual({ type: "misbehaved", replica: 0, code: "OFFER_WRITE" });
  });

  it("a vote of this very run proves nothing, whoever shows it and when", () => {
    let write: MessageOf<"WRITE"> | null = null;
    const watch = (from: number, _to: number, message: Message): Message[] => {
      if (from === 3 && message.type === "WRITE") write = message;
      return [message];
    };
    const cluster = started({ n: 4, liar: watch });
    run(cluster, 3);
    for (const id of OTHERS) cluster.input(replica(cluster, id), { type: "message", from: 3, message: stop(1) });
    cluster.input(replica(cluster, 0), { type: "draining" });
    cluster.settle(40);
    run(cluster, 3);
    expect(write).not.toBeNull();
    const { regency, instance, digest, signature } = write as unknown as MessageOf<"WRITE">;
    expect(regency).toBeGreaterThan(0);
    const place = { view: 0, regency, wanted: regency, decided: instance, newest: null };
    const nothing = { logFirst: 0, logBytes: 0, checkpoints: [], roots: [] };
    const yourWrite = { regency, instance, digest, signature };
    const offer: Message = { type: "OFFER", ...place, ...nothing, yourWrite };
    for (const id of OTHERS) cluster.input(replica(cluster, 3), { type: "message", from: id, message: offer });
    cluster.settle(4);
    expect(replica(cluster, 3).core.state).toMatchObject({ forgotten: false, heard: true });
  });

  it("nobody can make up a vote of somebody else", () => {
    const liar = (from: number, _to: number, message: Message): Message[] => {
      if (from !== 0 || message.type !== "OFFER" || !message.newest) return [message];
      const { regency, instance, digest } = message.newest;
      const yourWrite = { regency, instance: instance + 50, digest, signature: new Uint8Array(64) };
      return [{ ...message, yourWrite, wanted: 1_000_000, newest: { ...message.newest, instance: instance + 50 } }];
    };
    const cluster = started({ n: 4, liar });
    run(cluster, 3);
    loseDisk(cluster, 3);
    cluster.settle(40);
    run(cluster, 2);
    expect(replica(cluster, 3).core.state.forgotten).toBe(false);
    expect(replica(cluster, 3).core.state.regency).toBeLessThan(10);
    expect(cluster.misbehaviour.some(({ code }) => code === "OFFER_WRITE" || code === "OFFER_CERTIFICATE")).toBe(true);
  });

  it.each(["lost", "rolled back"])("a replica whose disk was %s answers no read below what it had executed", (how) => {
    const cluster = started({ n: 4 });
    run(cluster, 2);
    const old = how === "lost" ? null : copyOfDisk(replica(cluster, 3).disk);
    run(cluster, 4);
    const before = replica(cluster, 3).executedUpTo;
    cluster.crash(3);
    cluster.replaceDisk(3, old);
    cluster.restart(3);
    expect(replica(cluster, 3).core.current).toBe(false);
    for (let step = 0; step < 4_000; step++) {
      cluster.randomStep();
      if (replica(cluster, 3).core.current) expect(replica(cluster, 3).executedUpTo).toBeGreaterThanOrEqual(before);
    }
    cluster.settle(40);
    expect(replica(cluster, 3).core.current).toBe(true);
  });

  it("a vote of this run shown to its voter is no proof that its disk is older", () => {
    const cluster = started({ n: 4 });
    run(cluster, 4);
    cluster.settle(4);
    const [shower] = cluster.replicas as [SimulatedReplica];
    for (const id of [1, 2, 3]) {
      cluster.input(shower, { type: "message", from: id, message: { type: "FETCH_OFFER", ...PLACE, rootsFrom: 0 } });
    }
    cluster.settle(4);
    expect(cluster.replicas.map(({ core }) => core.state.forgotten)).toEqual([false, false, false, false]);
    expect(cluster.replicas.map(({ core }) => core.state.heard)).toEqual([true, true, true, true]);
    run(cluster, 1);
    expect(new Set(cluster.heights()).size).toBe(1);
  });

  it("whoever asks very often is not answered as often", () => {
    const cluster = started({ n: 4 });
    cluster.tick(1_000_000);
    const { core } = replica(cluster, 0);
    const ask = { type: "FETCH_OFFER", ...PLACE, rootsFrom: 0 } as const;
    const answers = (from: number) => core.step({ type: "message", from, message: ask }).length;
    expect([answers(1), answers(1), answers(1), answers(2)]).toEqual([1, 0, 0, 1]);
    cluster.tick(200_000);
    expect(answers(1)).toBe(1);
  });

  it("a false claim of a regency is believed only until those that were slow have answered", () => {
    let slow = true;
    const liar = (from: number, to: number, message: Message): Message[] => {
      if (message.type !== "OFFER" || to !== 6) return [message];
      if (from === 0) return [{ ...message, wanted: 4_000_000_000 }];
      return slow && from > 3 ? [] : [message];
    };
    const cluster = started({ n: 7, liar });
    run(cluster, 3);
    loseDisk(cluster, 6);
    cluster.settle(80);
    const { state } = replica(cluster, 6).core;
    expect(state).toMatchObject({ heard: true, forgotten: true });
    expect(state.wantedRegency, "nobody is asked for a regency that a liar may have made up").toBeLessThan(10);
    slow = false;
    cluster.settle(40);
    run(cluster, 2);
    expect(replica(cluster, 6).core.state).toMatchObject({ forgotten: false });
    expect(replica(cluster, 6).core.state.regency).toBeLessThan(10);
  });

  it("a lost replica says nothing about what it accepted before it holds a newer certificate", () => {
    const cluster = started({ n: 4 });
    run(cluster, 3);
    loseDisk(cluster, 3);
    const { core } = replica(cluster, 3);
    let reported = false;
    const step = core.step.bind(core);
    core.step = (input) => {
      const effects = step(input);
      for (const effect of effects) {
        if (effect.type !== "send" || effect.message.type !== "STOPDATA") continue;
        reported = true;
        expect(effect.message.record, "nothing is a lie of a replica that forgot").not.toBeNull();
      }
      return effects;
    };
    cluster.tick(60_000);
    for (const id of OTHERS) cluster.input(replica(cluster, id), { type: "message", from: 0, message: stop(1) });
    cluster.settle(60);
    run(cluster, 3);
    cluster.input(replica(cluster, cluster.replicas[0]?.core.state.leader ?? 0), { type: "draining" });
    cluster.settle(40);
    run(cluster, 2);
    expect(reported).toBe(true);
    expect(new Set(cluster.heights()).size).toBe(1);
  });
});

const NOTHING = {
  regency: 0,
  wanted: 0,
  base: 0,
  forgotten: null,
  keptCertificate: null,
  newest: null,
  newestAccepted: null,
  lastRecord: null,
  cleanStop: [],
};

interface Alone {
  readonly context: CoreContext;
  readonly recollection: Recollection;
}

/** What one replica remembers, that waits for nobody and holds a certificate of this instance. */
function alone(at: { self?: number; forgotten: Forgotten | null; certified: number; executed?: number }): Alone {
  const { self = 3, forgotten, certified, executed = certified } = at;
  const context = new CoreContext(optionsOf(self));
  const start = startOf({ ...NOTHING, forgotten, hear: 0 }, { instance: 0, digest: GENESIS, timestampMs: 0 });
  const newest = { ...PLACE, instance: certified, digest: GENESIS, votes: [] };
  const recollection = new Recollection(context, start, {
    executedUpTo: () => executed,
    regency: () => 0,
    newestAccepted: () => newest,
    changed: () => undefined,
    wanted: () => undefined,
  });
  return { context, recollection };
}

/** Replica 0 shows `self` its vote, signed with its key. */
function offered(self: number, instance: number): MessageOf<"OFFER"> {
  const write = { ...PLACE, instance, digest: GENESIS };
  const yourWrite = { ...write, signature: signerOf(self)(writeStatement(CLUSTER, write)) };
  const nothing = { newest: null, logFirst: 0, logBytes: 0, checkpoints: [], roots: [] };
  return { type: "OFFER", ...PLACE, wanted: 0, decided: 6, ...nothing, yourWrite };
}

/** Does the replica take its own vote of this instance for one that its disk should know of? */
function shown({ context, recollection }: Alone, instance: number): boolean {
  recollection.onOffer(0, offered(3, instance));
  completeChecks(context);
  return recollection.forgotten !== null;
}

function completeChecks(context: CoreContext): void {
  for (const effect of context.takeEffects()) {
    if (effect.type === "verify") {
      const valid = effect.checks.map((check) => fastCrypto.verify(check.publicKey, check.statement, check.signature));
      context.verified(effect.ticket, valid);
    } else context.emit(effect);
  }
}

function completeWrites(context: CoreContext): void {
  for (const effect of context.takeEffects()) if (effect.type === "journal") context.journaled(effect.ticket);
}

function optionsOf(self = 3): ContextOptions {
  const { view } = new CoreCluster({ n: 4, seed: 1 });
  return {
    view,
    self,
    crypto: fastCrypto,
    signer: signerOf(self),
    authenticate: () => "authentic",
    settled: () => false,
    firstInstance: 1,
    viewAt: () => view,
    options: {
      batchRequestsMax: 8,
      batchBytesMax: 1_000_000,
      batchWaitUs: 1_000,
      clockDriftMs: 5_000,
      requestTimeoutMs: 300,
      statusIntervalMs: 250,
      executionLagMax: 16,
      emptyLagMax: 10,
    },
  };
}

function coreOf(start: Start): Core {
  return new Core(optionsOf(), start);
}

function stop(regency: number): Message {
  return { type: "STOP", view: 0, regency, named: [] };
}
