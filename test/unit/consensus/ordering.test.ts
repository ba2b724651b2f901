import { describe, expect, it } from "vitest";
import { decodeBatch, encodeBatch, historyDigest } from "../../../protocol/batch.ts";
import { type Message, writeStatement } from "../../../protocol/messages.ts";
import type { Request } from "../../../protocol/request.ts";
import { CoreCluster, ENVELOPE, type SimulatedReplica, signerOf } from "../../simulation/core-cluster.ts";
import { fastCrypto } from "../../simulation/fast-crypto.ts";

function replica(cluster: CoreCluster, id: number): SimulatedReplica {
  return cluster.replicas[id] as SimulatedReplica;
}

function requestsAt(at: SimulatedReplica): number {
  let count = 0;
  for (const record of at.disk.instances.values()) count += decodeBatch(fastCrypto, record.batch).requests.length;
  return count;
}

describe("normal operation (section 4)", () => {
  for (const n of [4, 5, 7, 10]) {
    it(`n = ${n}: every request is decided once, everywhere, in one history`, () => {
      const cluster = new CoreCluster({ n, seed: n });
      for (let index = 0; index < 30; index++) {
        cluster.request();
        for (let step = 0; step < 40; step++) cluster.randomStep();
      }
      cluster.settle();
      const heights = cluster.heights();
      expect(new Set(heights).size).toBe(1);
      expect(heights[0]).toBeGreaterThan(0);
      for (const each of cluster.replicas) {
        expect(each.executedUpTo).toBe(each.core.lastDecided);
        expect(each.core.queue.pending).toBe(0);
      }
      expect(requestsAt(replica(cluster, 0))).toBe(30);
      expect(cluster.misbehaviour).toEqual([]);
    });

    it(`n = ${n}: f silent followers stop nothing`, () => {
      const cluster = new CoreCluster({ n, seed: 100 + n });
      for (let id = n - cluster.view.f; id < n; id++) cluster.crash(id);
      cluster.request();
      cluster.settle(5);
      expect(cluster.heights()[0]).toBe(1);
    });

    it(`n = ${n}: without a quorum nothing is decided, and it goes on when one comes back after a clean stop`, () => {
      const cluster = new CoreCluster({ n, seed: 200 + n });
      cluster.request();
      cluster.settle(2);
      const stopped = n - cluster.view.quorum + 1;
      for (let id = n - stopped; id < n; id++) cluster.stopCleanly(id);
      cluster.request();
      cluster.settle(5);
      expect(cluster.heights()[0]).toBe(1);
      cluster.restart(n - 1);
      cluster.settle(5);
      expect(cluster.heights()[0]).toBe(2);
    });
  }

  it.each([
    ["one leader", 0],
    ["leaders in turn", 1_000],
  ])(
    "5: proposals that come late are slow, but not for what the batch before took to execute: %s",
    (_name, rotation) => {
      const reasons = (executionUs: number): string[] => {
        const cluster = new CoreCluster({ n: 4, seed: 1, rotation });
        cluster.executionUs = executionUs;
        cluster.settle(1);
        for (let round = 0; round < 9; round++) {
          cluster.request();
          cluster.tick(2_000);
          cluster.tick(300_000);
          cluster.settle(2);
        }
        return cluster.suspicions.map(({ reason }) => reason);
      };
      expect(reasons(0)).toContain("SLOW_LEADER");
      expect(reasons(300_000)).not.toContain("SLOW_LEADER");
    },
  );

  it("4.3: ACCEPT leaves only after the journal record and its certificate are through", () => {
    const cluster = new CoreCluster({ n: 4, seed: 1 });
    cluster.settle(1);
    cluster.request();
    cluster.tick(2_000);
    const accepts = (): number =>
      [...cluster.links.values()].flat().filter((message) => message.type === "ACCEPT").length;
    for (let pass = 0; pass < 5; pass++) {
      for (const name of cluster.links.keys())
        while ((cluster.links.get(name)?.length ?? 0) > 0) cluster.deliverOne(name);
    }
    expect(replica(cluster, 1).journaling).toHaveLength(1);
    expect(replica(cluster, 1).verifying).toHaveLength(1);
    expect(accepts()).toBe(0);
    cluster.verifyOne(replica(cluster, 1));
    expect(accepts()).toBe(0);
    cluster.journalOne(replica(cluster, 1));
    expect(accepts()).toBe(3);
    cluster.journalOne(replica(cluster, 2));
    expect(accepts()).toBe(3);
    cluster.verifyOne(replica(cluster, 2));
    expect(accepts()).toBe(6);
  });

  it("4.3: a WRITE with a bad signature counts for nothing, and the certificate is made without it", () => {
    const cluster = new CoreCluster({
      n: 4,
      seed: 2,
      liar: (from, _to, message) =>
        from === 1 && message.type === "WRITE" ? [{ ...message, signature: new Uint8Array(64) }] : [message],
    });
    for (let index = 0; index < 5; index++) {
      cluster.request();
      cluster.settle(2);
    }
    expect(cluster.heights()).toEqual([5, 5, 5, 5]);
    for (const record of replica(cluster, 0).disk.instances.values()) {
      expect(record.certificate?.votes.map((vote) => vote.replica)).not.toContain(1);
    }
    expect(cluster.misbehaviour.some((entry) => entry.replica === 1 && entry.code === "WRITE_SIGNATURE")).toBe(true);
  });

  it("4.2: a proposal with a request that is not proven is held, and W matching WRITEs vouch for it", () => {
    const cluster = new CoreCluster({ n: 4, seed: 3, authentic: (id) => id !== 3 });
    cluster.settle(1);
    cluster.request({ to: [0, 1, 2] });
    cluster.settle(3);
    expect(cluster.heights()).toEqual([1, 1, 1, 1]);
    expect(cluster.suspicions).toContainEqual({ at: 3, reason: "HELD_UNPROVEN" });
  });

  it("4.2: a fabricated request, proven to nobody, is held by all and never decided", () => {
    const cluster = new CoreCluster({ n: 4, seed: 4, authentic: () => false });
    cluster.request({ to: [0] });
    cluster.settle(10);
    expect(cluster.heights()).toEqual([0, 0, 0, 0]);
  });

  it("4.2: W FORWARDs of the request vouch for a held proposal", () => {
    const cluster = new CoreCluster({ n: 7, seed: 5, authentic: () => false, requestTimeoutMs: 100 });
    cluster.request({ to: [0, 1, 2] });
    cluster.settle(10);
    expect(cluster.heights()).toEqual([1, 1, 1, 1, 1, 1, 1]);
  });

  it("4.2: a timestamp outside the drift holds the proposal; below the previous batch's it is invalid", () => {
    const shift =
      (ms: number) =>
      (from: number, _to: number, message: Message): Message[] => {
        if (from !== 0 || message.type !== "PROPOSE") return [message];
        const batch = decodeBatch(fastCrypto, message.batch);
        const requests = batch.requests.map((request) => request.bytes);
        return [
          {
            ...message,
            batch: encodeBatch({
              instance: batch.instance,
              timestampMs: Math.max(0, batch.timestampMs + ms),
              requests,
            }),
          },
        ];
      };
    const ahead = new CoreCluster({ n: 4, seed: 6, liar: shift(60_000) });
    ahead.request();
    ahead.settle(3);
    expect(ahead.heights()).toEqual([0, 0, 0, 0]);
    expect(ahead.suspicions.map((each) => each.reason)).toContain("HELD_DRIFT");
    let lie = 0;
    const behind = new CoreCluster({ n: 4, seed: 7, liar: (from, to, message) => shift(lie)(from, to, message) });
    behind.request();
    behind.settle(3);
    lie = -1_000_000_000;
    behind.request();
    behind.settle(3);
    expect(behind.heights(), "the next leader orders it").toEqual([2, 2, 2, 2]);
    expect(behind.suspicions.map((each) => each.reason)).toContain("PROPOSE_TIMESTAMP");
  });

  it("4.2: a held proposal goes on once the client's keys are known, without anybody vouching", () => {
    let known = false;
    const cluster = new CoreCluster({ n: 4, seed: 6, authentic: () => known });
    cluster.settle(1);
    cluster.request({ to: [0] });
    cluster.settle(3);
    expect(cluster.heights()).toEqual([0, 0, 0, 0]);
    known = true;
    cluster.settle(3);
    expect(cluster.heights()).toEqual([1, 1, 1, 1]);
  });

  it("4.2: a proposal from before a long stop of everybody is not held for its age", () => {
    const cluster = new CoreCluster({ n: 4, seed: 6 });
    cluster.request();
    cluster.settle(2);
    cluster.request();
    cluster.tick(30_000);
    cluster.journalOne(replica(cluster, 0));
    for (const id of [1, 2, 3]) {
      cluster.cut(0, id);
    }
    for (const id of [0, 1, 2, 3]) cluster.stopCleanly(id);
    expect(replica(cluster, 0).disk.cleanStop?.length).toBe(2);
    cluster.nowUs += 3_600_000_000;
    for (const id of [0, 1, 2, 3]) cluster.restart(id);
    cluster.settle(5);
    expect(cluster.heights()).toEqual([2, 2, 2, 2]);
  });

  it("an equivocating leader splits the WRITEs: at most one value is decided", () => {
    for (let seed = 0; seed < 40; seed++) {
      const cluster = new CoreCluster({
        n: 4,
        seed,
        liar(from, to, message) {
          if (from !== 0) return [message];
          if (message.type === "PROPOSE" && to === 3) {
            const batch = decodeBatch(fastCrypto, message.batch);
            return [{ ...message, envelopes: [], batch: encodeBatch({ ...batch, requests: [] }) }];
          }
          return [message];
        },
      });
      cluster.request();
      for (let step = 0; step < 300; step++) cluster.randomStep();
      cluster.settle(10);
      expect(new Set(cluster.heights())).toEqual(new Set([1]));
    }
  });

  it("one vote per sender: a second, different WRITE or ACCEPT of a replica changes nothing", () => {
    const other = fastCrypto.sha256(new Uint8Array([9]));
    const cluster = new CoreCluster({
      n: 4,
      seed: 8,
      liar(from, _to, message) {
        if (from !== 3 || (message.type !== "WRITE" && message.type !== "ACCEPT")) return [message];
        return [{ ...message, digest: other }, message];
      },
    });
    cluster.request();
    cluster.settle(4);
    expect(cluster.heights().slice(0, 3)).toEqual([1, 1, 1]);
    expect(
      replica(cluster, 0)
        .disk.instances.get(1)
        ?.certificate?.votes.map((vote) => vote.replica)
        .sort(),
    ).toEqual([0, 1, 2]);
  });

  it("votes of another regency or another view do not count", () => {
    const cluster = new CoreCluster({
      n: 4,
      seed: 9,
      liar: (from, _to, message) => {
        if (from === 1 && (message.type === "WRITE" || message.type === "ACCEPT")) return [{ ...message, regency: 1 }];
        if (from === 2 && (message.type === "WRITE" || message.type === "ACCEPT")) return [{ ...message, view: 1 }];
        return [message];
      },
    });
    cluster.request();
    cluster.settle(4);
    expect(cluster.heights()).toEqual([0, 0, 0, 0]);
  });

  it("a replica that missed the proposal fetches the batch by its digest", () => {
    const cluster = new CoreCluster({
      n: 4,
      seed: 10,
      liar: (from, to, message) => (from === 0 && to === 3 && message.type === "PROPOSE" ? [] : [message]),
    });
    for (let index = 0; index < 4; index++) {
      cluster.request();
      cluster.settle(8);
    }
    expect(cluster.heights()).toEqual([4, 4, 4, 4]);
  });

  it("a replica that was cut off catches up by history with proof, and votes again", () => {
    for (let seed = 0; seed < 20; seed++) {
      const cluster = new CoreCluster({ n: 4, seed });
      for (const id of [0, 1, 2]) cluster.cut(3, id);
      for (let index = 0; index < 25; index++) {
        cluster.request();
        cluster.settle(1);
      }
      expect(cluster.heights()[3]).toBe(0);
      for (const id of [0, 1, 2]) cluster.mend(3, id);
      cluster.settle(60);
      expect(new Set(cluster.heights()).size).toBe(1);
      cluster.crash(2);
      const before = cluster.heights()[0] as number;
      cluster.request();
      cluster.settle(4);
      expect(cluster.heights()[0]).toBe(before + 1);
    }
  });

  it("a lying donor cannot make a lagging replica decide anything else", () => {
    const forge = (from: number, _to: number, message: Message): Message[] => {
      if (from !== 1 || message.type !== "HISTORY") return [message];
      const batches = message.batches.map((bytes) => {
        const batch = decodeBatch(fastCrypto, bytes);
        return encodeBatch({ ...batch, timestampMs: batch.timestampMs + 1, requests: [] });
      });
      return [{ ...message, batches }];
    };
    const cluster = new CoreCluster({ n: 4, seed: 11, liar: forge });
    for (const id of [0, 1, 2]) cluster.cut(3, id);
    for (let index = 0; index < 20; index++) {
      cluster.request();
      cluster.settle(1);
    }
    for (const id of [0, 1, 2]) cluster.mend(3, id);
    cluster.settle(150);
    expect(new Set(cluster.heights()).size).toBe(1);
  });

  it("a certificate of too few, repeated or foreign voters proves nothing", () => {
    const { view } = new CoreCluster({ n: 4, seed: 0 });
    const forged =
      (voters: readonly number[]) =>
      (from: number, _to: number, message: Message): Message[] => {
        if (from === 3 || message.type !== "HISTORY")
          return message.type === "STATUS" && from !== 3
            ? [{ ...message, digest: fastCrypto.sha256(new Uint8Array(1)) }]
            : [message];
        const batch = encodeBatch({ instance: message.from, timestampMs: 1, requests: [] });
        const previous = fastCrypto.sha256(Buffer.from("genesis"));
        const batchDigest = fastCrypto.sha256(batch);
        const first = historyDigest(fastCrypto, {
          cluster: view.cluster,
          instance: message.from,
          previous,
          batchDigest,
        });
        const beyond = fastCrypto.sha256(new Uint8Array([1]));
        const instance = message.from + 1;
        const digest = historyDigest(fastCrypto, {
          cluster: view.cluster,
          instance,
          previous: first,
          batchDigest: beyond,
        });
        const statement = writeStatement(view.cluster, { view: 0, regency: 0, instance, digest });
        const votes = voters.map((voter) => ({ replica: voter, signature: signerOf(voter)(statement) }));
        return [
          {
            ...message,
            batches: [batch],
            proof: { links: [beyond], certificate: { view: 0, regency: 0, instance, digest, votes } },
          },
        ];
      };
    const height = (voters: readonly number[]): number => {
      const cluster = new CoreCluster({ n: 4, seed: 12, liar: forged(voters) });
      for (const id of [0, 1, 2]) cluster.cut(3, id);
      for (let index = 0; index < 12; index++) {
        cluster.request();
        cluster.settle(1);
      }
      for (const id of [0, 1, 2]) cluster.mend(3, id);
      try {
        cluster.settle(30);
      } catch {
        return -1;
      }
      return cluster.heights()[3] as number;
    };
    expect(height([0, 1])).toBe(0);
    expect(height([0, 1, 1])).toBe(0);
    expect(height([0, 1, 9])).toBe(0);
    // The same forgery with a real quorum of signatures is believed: the test can fail.
    expect(height([0, 1, 2])).toBe(-1);
  });
});

describe("restart rules (section 4)", () => {
  it("followers crash and restart again and again: nobody votes twice, the service goes on, all catch up", () => {
    for (let seed = 0; seed < 60; seed++) {
      const cluster = new CoreCluster({ n: 4, seed });
      for (let round = 0; round < 6; round++) {
        const victim = 1 + cluster.random.below(3);
        for (let index = 0; index < 4; index++) {
          cluster.request();
          for (let step = cluster.random.below(80); step > 0; step--) cluster.randomStep();
        }
        cluster.crash(victim);
        for (let step = cluster.random.below(200); step > 0; step--) cluster.randomStep();
        cluster.request();
        for (let step = cluster.random.below(200); step > 0; step--) cluster.randomStep();
        cluster.restart(victim);
        cluster.settle(30);
        expect(new Set(cluster.heights()).size, `seed ${seed} round ${round}: ${cluster.heights()}`).toBe(1);
      }
      expect(requestsAt(replica(cluster, 0)), `seed ${seed}`).toBe(30);
    }
  });

  it("an abstaining replica is carried over its abstention by empty batches, so the next fault finds a quorum", () => {
    const cluster = new CoreCluster({ n: 4, seed: 1 });
    cluster.request();
    cluster.settle(2);
    cluster.crash(3);
    cluster.restart(3);
    expect(replica(cluster, 3).core.state.abstainingUntil).toBe(2);
    cluster.settle(20);
    expect(replica(cluster, 3).core.state.abstainingUntil).toBe(0);
    cluster.crash(2);
    const before = cluster.heights()[0] as number;
    cluster.request();
    cluster.settle(4);
    expect(cluster.heights()[0]).toBe(before + 1);
  });

  it("all stopped cleanly under load and started again: they go on, no request is lost, nobody votes twice", () => {
    for (let seed = 0; seed < 60; seed++) {
      const cluster = new CoreCluster({ n: 4, seed });
      const sent: Request[] = [];
      for (let round = 0; round < 4; round++) {
        for (let index = 0; index < 5; index++) {
          sent.push(cluster.request());
          for (let step = cluster.random.below(60); step > 0; step--) cluster.randomStep();
        }
        for (const id of [0, 1, 2, 3]) {
          cluster.stopCleanly(id);
          for (let step = cluster.random.below(60); step > 0; step--) cluster.randomStep();
        }
        for (const id of [0, 1, 2, 3]) cluster.restart(id);
        for (const request of sent) {
          for (const each of cluster.replicas) {
            cluster.input(each, { type: "request", request, envelope: ENVELOPE, replier: 0 });
          }
        }
        cluster.settle(30);
        expect(new Set(cluster.heights()).size, `seed ${seed} round ${round}: ${cluster.heights()}`).toBe(1);
      }
      const decided = new Set<string>();
      for (const record of replica(cluster, 0).disk.instances.values()) {
        for (const request of decodeBatch(fastCrypto, record.batch).requests) decided.add(request.key);
      }
      expect(decided, `seed ${seed}`).toEqual(new Set(sent.map((request) => request.key)));
    }
  });

  it("all stopped cleanly while the leader hands over, and started again: nobody stays behind in another regency", () => {
    for (let seed = 0; seed < 60; seed++) {
      const cluster = new CoreCluster({ n: 4, seed });
      for (let round = 0; round < 4; round++) {
        cluster.request();
        cluster.settle(2);
        for (const each of cluster.replicas) cluster.input(each, { type: "draining" });
        for (const id of [3, 2, 1, 0]) {
          for (let step = cluster.random.below(60); step > 0; step--) cluster.randomStep();
          cluster.stopCleanly(id);
        }
        for (const id of [0, 1, 2, 3]) cluster.restart(id);
        cluster.settle(60);
        const regencies = cluster.replicas.map(({ core }) => core.state.regency);
        expect(new Set(regencies).size, `seed ${seed} round ${round}: ${regencies}`).toBe(1);
      }
    }
  });

  it("a clean stop while abstaining after a crash does not end the abstention: nobody votes twice", () => {
    for (let seed = 0; seed < 60; seed++) {
      const cluster = new CoreCluster({ n: 4, seed });
      cluster.request();
      cluster.settle(2);
      for (let round = 0; round < 6; round++) {
        cluster.request();
        for (let step = cluster.random.below(60); step > 0; step--) cluster.randomStep();
        cluster.crash(0);
        cluster.restart(0);
        cluster.stopCleanly(0);
        expect(replica(cluster, 0).disk.cleanStop, `seed ${seed}`).toBeNull();
        cluster.restart(0);
        cluster.request();
        for (let step = cluster.random.below(200); step > 0; step--) cluster.randomStep();
      }
    }
  });
});
