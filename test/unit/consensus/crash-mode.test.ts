/** Crash mode (docs/protocol.md section 4, "Crash mode"): one test per rule. Agreement and "nobody votes twice" are checked at every step. */
import { describe, expect, it } from "vitest";
import type { Message, MessageOf } from "../../../protocol/messages.ts";
import { CoreContext } from "../../../server/consensus/context.ts";
import type { ConsensusOptions } from "../../../server/consensus/contract.ts";
import { Recollection } from "../../../server/consensus/recollection.ts";
import { acceptRecord } from "../../../server/consensus/records.ts";
import { decidedInstance, startOf } from "../../../server/consensus/restart.ts";
import { keepersOf, selected, stopDataChecks } from "../../../server/consensus/selection.ts";
import { CoreCluster, copyOfDisk, type SimulatedReplica } from "../../simulation/core-cluster.ts";
import { coreView, GENESIS, signerOf } from "../../simulation/core-replica.ts";
import { fastCrypto } from "../../simulation/fast-crypto.ts";

const SIZES = [
  { n: 3, quorum: 2 },
  { n: 5, quorum: 3 },
  { n: 7, quorum: 4 },
] as const;

const OPTIONS: ConsensusOptions = {
  batchRequestsMax: 8,
  batchBytesMax: 1_000_000,
  batchWaitUs: 1_000,
  clockDriftMs: 5_000,
  requestTimeoutMs: 1_000,
  statusIntervalMs: 250,
  executionLagMax: 16,
  emptyLagMax: 16,
};

function replica(cluster: CoreCluster, id: number): SimulatedReplica {
  return cluster.replicas[id] as SimulatedReplica;
}

function started(n: number, options: Partial<ConstructorParameters<typeof CoreCluster>[0]> = {}): CoreCluster {
  const cluster = new CoreCluster({ n, mode: "cft", seed: 1, recollect: true, ...options });
  for (const { id: a } of cluster.replicas) {
    for (const { id: b } of cluster.replicas) {
      if (a >= b) continue;
      cluster.cut(a, b);
      cluster.mend(a, b);
    }
  }
  cluster.settle(10);
  return cluster;
}

function run(cluster: CoreCluster, requests: number): void {
  for (let request = 0; request < requests; request++) {
    cluster.request();
    cluster.settle(2);
  }
}

/** What leaves one replica for all others. */
function watched(n: number): { readonly cluster: CoreCluster; readonly sent: [number, Message][] } {
  const sent: [number, Message][] = [];
  const cluster = started(n, { probe: { sent: (from, _to, message) => sent.push([from, message]) } });
  return { cluster, sent };
}

describe("section 1: sizes in crash mode", () => {
  it.each(SIZES)("n = $n: Q is a majority, W is one, nobody need be a witness", ({ n, quorum }) => {
    const view = coreView(n, undefined, "cft");
    expect(view).toMatchObject({ f: (n - 1) / 2, quorum, weakQuorum: 1, witnesses: 1, rootWitnesses: 0 });
    expect(view).toMatchObject({ reachable: quorum, rememberers: n - quorum + 1, consulted: quorum - 1 });
  });

  it("any two quorums meet, and a quorum meets whoever one can wait for, and whoever answers for lost journals", () => {
    for (let n = 1; n <= 64; n++) {
      for (let f = 0; 2 * f + 1 <= n; f++) {
        const { quorum, reachable, rememberers, consulted } = coreView(n, f, "cft");
        expect(2 * quorum).toBeGreaterThan(n);
        expect(quorum + reachable).toBeGreaterThan(n);
        // f = k of those with a journal lost it: they do not answer, and the others that accepted are Q - 1 - k of n - 1 - k.
        for (let lost = 0; lost < f; lost++) {
          expect(quorum - 1 - lost + rememberers).toBeGreaterThan(n - 1 - lost);
          if (n > 1) expect(rememberers).toBeLessThanOrEqual(n - 1 - lost);
        }
        expect(consulted).toBe(reachable - 1);
      }
    }
  });

  it("the digest of a view covers its mode", () => {
    expect(coreView(4, 1, "cft").digest).not.toBe(coreView(4, 1, "bft").digest);
  });
});

describe("section 4: crash mode", () => {
  it.each(SIZES)("n = $n: PROPOSE, journal, ACCEPT; and no WRITE", ({ n, quorum }) => {
    const { cluster, sent } = watched(n);
    run(cluster, 5);
    expect(new Set(cluster.heights())).toEqual(new Set([5]));
    expect(sent.some(([, { type }]) => type === "WRITE")).toBe(false);
    const accepts = sent.filter(([from, { type }]) => from === 1 && type === "ACCEPT");
    expect(accepts.length).toBe(5 * (n - 1));
    const record = replica(cluster, 1).disk.instances.get(5);
    expect(record?.certificate).toMatchObject({ instance: 5, regency: 0, votes: [] });
    expect(quorum).toBeLessThan(n);
  });

  it.each(SIZES)("n = $n: a batch is decided on Q ACCEPTs and no fewer", ({ n, quorum }) => {
    const cluster = started(n);
    const reached = cluster.replicas.slice(0, quorum - 1).map(({ id }) => id);
    for (const { id } of cluster.replicas) if (!reached.includes(id)) for (const to of reached) cluster.cut(id, to);
    cluster.request({ to: [0] });
    cluster.settle(2);
    expect(replica(cluster, 0).core.lastDecided).toBe(0);
    expect(replica(cluster, 0).disk.instances.has(1)).toBe(true);
    for (const id of reached) cluster.mend(id, quorum - 1);
    cluster.settle(4);
    expect(replica(cluster, 0).core.lastDecided).toBe(1);
  });

  it("4.3: ACCEPT leaves only when the record is on disk", () => {
    const { cluster, sent } = watched(3);
    cluster.request();
    cluster.tick(20_000);
    while ((cluster.links.get("0>1")?.length ?? 0) > 0) cluster.deliverOne("0>1");
    const accepts = () => sent.filter(([from, { type }]) => from === 1 && type === "ACCEPT").length;
    expect(replica(cluster, 1).journaling.length).toBe(1);
    expect(accepts()).toBe(0);
    cluster.journalOne(replica(cluster, 1));
    expect(accepts()).toBe(2);
  });

  it("4.2: the leader vouches for its requests, wherever a client authenticated them", () => {
    const cluster = started(3, { authentic: (id) => id === 0 });
    cluster.request({ to: [0] });
    cluster.settle(3);
    expect(cluster.heights()).toEqual([1, 1, 1]);
  });

  it("4.2: a proposal whose time is off is held, until a third member accepts it", () => {
    const cluster = started(3);
    replica(cluster, 1).skewMs = -60_000;
    cluster.cut(1, 2);
    cluster.request();
    cluster.settle(1);
    expect(replica(cluster, 1).disk.instances.has(1)).toBe(false);
    cluster.mend(1, 2);
    cluster.settle(1);
    expect(replica(cluster, 1).disk.instances.has(1)).toBe(true);
  });

  it("one STATUS proves history to a replica that was cut off", () => {
    const cluster = started(3);
    for (const id of [0, 1]) cluster.cut(id, 2);
    run(cluster, 9);
    expect(replica(cluster, 2).core.lastDecided).toBe(0);
    cluster.mend(1, 2);
    cluster.settle(10);
    expect(replica(cluster, 2).core.lastDecided).toBe(9);
  });
});

describe("section 4: restarts in crash mode", () => {
  it("the record of an accepted batch is not one of a decided batch, though neither has votes", () => {
    const cluster = started(3);
    for (const id of [0, 1, 2]) cluster.cut(id, (id + 1) % 3);
    cluster.request({ to: [0] });
    cluster.tick(20_000);
    cluster.settle(1);
    const accepted = replica(cluster, 0).disk.instances.get(1) ?? null;
    expect(accepted?.certificate?.votes).toEqual([]);
    expect(decidedInstance({ applied: 0, newest: accepted })).toBe(0);
    expect(decidedInstance({ applied: 0, newest: accepted && { ...accepted, certificate: null } })).toBe(1);
  });

  it.each(SIZES)("n = $n: all lose power after Q accepted; any n-f of them know it", ({ n, quorum }) => {
    for (let alone = 0; alone < n; alone++) {
      const cluster = started(n);
      run(cluster, 2);
      cluster.request();
      cluster.settle(1);
      const digest = cluster.decided.get(3);
      for (const { id } of cluster.replicas) cluster.crash(id);
      const back = Array.from({ length: quorum }, (_, at) => (alone + at) % n);
      for (const id of back) cluster.restart(id);
      cluster.settle(10);
      for (let request = 0; request < 2; request++) {
        cluster.request();
        cluster.settle(80);
      }
      for (const id of back) expect(replica(cluster, id).core.lastDecided).toBeGreaterThanOrEqual(4);
      expect(digest).toBeDefined();
      for (const id of back) expect(replica(cluster, id).disk.instances.get(3)?.digest).toBe(digest);
    }
  });

  it("a restarted leader proposes nothing where it may have proposed before, and resigns", () => {
    const { cluster, sent } = watched(3);
    cluster.request();
    cluster.tick(20_000);
    const proposals = () =>
      sent.flatMap(([from, message]) =>
        from === 0 && message.type === "PROPOSE" && message.regency === 0 ? [message] : [],
      );
    expect(proposals().length).toBe(2);
    // Nobody got it, and nothing of it is on disk.
    cluster.crash(0, 0);
    cluster.restart(0);
    cluster.request();
    cluster.settle(60);
    expect(new Set(proposals().map(({ instance }) => instance))).toEqual(new Set([1]));
    expect(proposals().length).toBe(2);
    expect(Math.min(...cluster.replicas.map(({ core }) => core.state.regency))).toBeGreaterThan(0);
    expect(new Set(cluster.heights()).size).toBe(1);
  });

  it("a restarted follower votes at once: its ACCEPTs were journaled, so nobody waits for empty batches", () => {
    const cluster = started(3);
    run(cluster, 2);
    cluster.crash(2);
    cluster.restart(2);
    cluster.cut(0, 1);
    cluster.settle(2);
    expect(replica(cluster, 2).core.state.abstainingUntil).toBe(0);
    run(cluster, 1);
    expect(replica(cluster, 0).core.lastDecided).toBe(3);
  });

  it.each(SIZES)("n = $n: nobody votes before n-f-1 others said what they remember of it", ({ n }) => {
    const cluster = new CoreCluster({ n, mode: "cft", seed: 1, recollect: true });
    for (const { id: a } of cluster.replicas) for (const { id: b } of cluster.replicas) if (a < b) cluster.cut(a, b);
    cluster.settle(6);
    expect(cluster.replicas.some(({ core }) => core.state.heard)).toBe(false);
    const { consulted } = cluster.view;
    for (let at = 1; at < consulted; at++) cluster.mend(0, at);
    cluster.settle(6);
    expect(replica(cluster, 0).core.state.heard).toBe(false);
    cluster.mend(0, consulted);
    cluster.settle(6);
    expect(replica(cluster, 0).core.state.heard).toBe(true);
  });

  it.each(SIZES)(
    "n = $n: who lost its journal needs n-Q+1 others, and is silent up to what it may have said",
    ({ n }) => {
      const { cluster, sent } = watched(n);
      run(cluster, 4);
      const victim = n - 1;
      cluster.crash(victim);
      cluster.replaceDisk(victim, null);
      cluster.restart(victim);
      for (const { id } of cluster.replicas) if (id !== victim) cluster.cut(id, victim);
      const { rememberers } = cluster.view;
      const before = sent.length;
      for (let at = 1; at < rememberers; at++) cluster.mend(at - 1, victim);
      cluster.settle(60);
      expect(replica(cluster, victim).core.state).toMatchObject({ heard: false, forgotten: true });
      cluster.mend(rememberers - 1, victim);
      cluster.settle(80);
      run(cluster, 4);
      expect(replica(cluster, victim).core.state).toMatchObject({ heard: true, forgotten: false });
      expect(new Set(cluster.heights()).size).toBe(1);
      const accepts = sent
        .slice(before)
        .flatMap(([from, message]) => (from === victim && message.type === "ACCEPT" ? [message.instance] : []));
      // C is at least 4, so nothing up to C+1 is said again.
      expect(Math.min(...accepts)).toBeGreaterThan(5);
    },
  );

  it.each([1, 3])("a disk rolled back by %i instances is noticed by the ACCEPTs that others saw", (instances) => {
    const cluster = started(3);
    run(cluster, 2);
    const copy = copyOfDisk(replica(cluster, 2).disk);
    run(cluster, instances);
    cluster.crash(2);
    cluster.replaceDisk(2, copy);
    cluster.restart(2);
    cluster.settle(3);
    expect(replica(cluster, 2).core.state.forgotten).toBe(true);
    cluster.settle(80);
    run(cluster, 3);
    expect(replica(cluster, 2).core.state.forgotten).toBe(false);
    expect(new Set(cluster.heights()).size).toBe(1);
  });

  it("who lost its journal keeps out of regencies below the highest that anybody wants", () => {
    const view = coreView(5, undefined, "cft");
    const nobody = () => undefined;
    const context = new CoreContext({
      view,
      self: 4,
      crypto: fastCrypto,
      signer: signerOf(4),
      authenticate: () => "authentic",
      settled: () => false,
      firstInstance: 1,
      viewAt: () => view,
      options: OPTIONS,
    });
    const durable = {
      regency: 0,
      wanted: 0,
      newest: null,
      newestAccepted: null,
      lastRecord: null,
      cleanStop: null,
      base: 0,
    };
    const lost = { forgotten: { until: null, regency: 0 }, keptCertificate: null, hear: view.consulted };
    const start = startOf({ ...durable, ...lost }, { instance: 0, digest: GENESIS, timestampMs: 0 });
    const asked: number[] = [];
    const recollection = new Recollection(context, start, {
      executedUpTo: () => 0,
      regency: () => 0,
      newestAccepted: () => null,
      changed: nobody,
      wanted: (regency) => asked.push(regency),
    });
    const facts = { view: 0, regency: 0, decided: 0, newest: null, yourWrite: null };
    const nothing = { logFirst: 0, logBytes: 0, checkpoints: [], roots: [] };
    for (const [from, wanted] of [
      [0, 0],
      [1, 3],
      [2, 0],
      [3, 0],
    ] as const) {
      recollection.onOffer(from, { type: "OFFER", ...facts, ...nothing, wanted });
      for (const effect of context.takeEffects()) if (effect.type === "verify") context.verified(effect.ticket, []);
    }
    context.nowUs = 5_000_000;
    recollection.tick();
    for (const effect of context.takeEffects()) if (effect.type === "journal") context.journaled(effect.ticket);
    recollection.tick();
    expect(recollection.forgotten).toEqual({ until: 1, regency: 3 });
    expect(asked).toContain(3);
  });
});

describe("section 5: leader change in crash mode", () => {
  it("one STOP is joined, Q install", () => {
    const cluster = started(5);
    const stop: MessageOf<"STOP"> = { type: "STOP", view: 0, regency: 1, named: [] };
    cluster.input(replica(cluster, 1), { type: "message", from: 4, message: stop });
    expect(replica(cluster, 1).core.state).toMatchObject({ wantedRegency: 1, regency: 0 });
    cluster.input(replica(cluster, 1), { type: "message", from: 3, message: stop });
    expect(replica(cluster, 1).core.state).toMatchObject({ wantedRegency: 1, regency: 1 });
  });

  it("one accept record of another member decides what goes on; those of others need no votes", () => {
    const view = coreView(3, undefined, "cft");
    const record = (regency: number) => ({ view: 0, regency, instance: 7, digest: GENESIS, votes: [] });
    const data = (replicaId: number, regency: number | null) => ({
      replica: replicaId,
      record: regency === null ? null : record(regency),
      signature: new Uint8Array(64),
    });
    expect(selected([data(0, null), data(1, 0)])?.regency).toBe(0);
    expect(selected([data(0, 1), data(1, 0)])?.regency).toBe(1);
    expect(selected([data(0, null), data(1, null)])).toBeNull();
    expect(stopDataChecks(view, 2, data(0, 1))).toHaveLength(1);
    expect(stopDataChecks(view, 1, data(0, 1))).toBeNull();
    expect(keepersOf(view, record(0))).toEqual([0, 1, 2]);
  });

  it.each(SIZES)(
    "n = $n: the leader crashes when f+1 accepted; what may be decided is decided again",
    ({ n, quorum }) => {
      const cluster = started(n);
      cluster.request();
      cluster.tick(20_000);
      for (let to = 1; to < quorum; to++) while (cluster.links.get(`0>${to}`)?.length) cluster.deliverOne(`0>${to}`);
      for (let id = 0; id < quorum; id++) cluster.journalOne(replica(cluster, id));
      while (cluster.links.get("1>0")?.length) cluster.deliverOne("1>0");
      for (let id = 2; id < quorum; id++) while (cluster.links.get(`${id}>0`)?.length) cluster.deliverOne(`${id}>0`);
      expect(replica(cluster, 0).core.lastDecided).toBe(1);
      const digest = cluster.decided.get(1);
      cluster.crash(0);
      for (const name of cluster.links.keys()) cluster.links.set(name, []);
      for (let at = 0; at < n; at++) for (let to = at + 1; to < n; to++) if (at > 0) cluster.cut(at, to);
      for (let at = 1; at < n; at++) for (let to = at + 1; to < n; to++) cluster.mend(at, to);
      cluster.settle(80);
      for (let id = 1; id < n; id++) expect(replica(cluster, id).disk.instances.get(1)?.digest).toBe(digest);
    },
  );

  it("an accept record of a cluster in crash mode is nothing to one that expects lies", () => {
    const place = { view: 0, regency: 0 };
    const candidate = { digest: GENESIS, batchDigest: GENESIS, bytes: new Uint8Array(), batch: { instance: 1 } };
    const made = acceptRecord(place, candidate as never, []);
    const certificate = made.type === "instance" ? made.certificate : null;
    if (!certificate) throw new Error("no accept record");
    const data = { replica: 0, record: certificate, signature: new Uint8Array(64) };
    expect(stopDataChecks(coreView(4), 1, data)).toBeNull();
    expect(stopDataChecks(coreView(3, 1, "cft"), 1, data)).not.toBeNull();
  });
});
