/** Leaders in turn (docs/protocol.md section 5) in clusters of real cores; step by step in scenario/turns-*.txt. */
import { describe, expect, it } from "vitest";
import { isRejection } from "../../../protocol/errors.ts";
import type { Message } from "../../../protocol/messages.ts";
import { decodeEnvelope, encodeEnvelope } from "../../../protocol/request.ts";
import { leaderOf } from "../../../protocol/view.ts";
import { Batching } from "../../../server/consensus/batching.ts";
import { RequestQueue } from "../../../server/consensus/request-queue.ts";
import { CoreCluster, ENVELOPE, type SimulatedReplica } from "../../simulation/core-cluster.ts";

const SIGNED = encodeEnvelope({
  view: 0,
  replier: 0,
  keys: null,
  authenticator: { type: "signature", signature: new Uint8Array(64), mac: "0123456789abcdef" },
});

function replica(cluster: CoreCluster, id: number): SimulatedReplica {
  return cluster.replicas[id] as SimulatedReplica;
}

describe("section 5, leaders in turn", () => {
  it.each([
    [4, 1],
    [4, 2],
    [4, 5],
    [7, 1],
    [7, 3],
  ])("n = %i, K = %i: every instance is proposed by the leader of its regency alone", (n, rotation) => {
    const proposers = new Map<string, Set<number>>();
    const cluster: CoreCluster = new CoreCluster({
      n,
      rotation,
      seed: n,
      probe: {
        sent: (from, _to, message) => {
          if (message.type !== "PROPOSE") return;
          const place = `${message.regency} ${message.instance}`;
          proposers.set(place, (proposers.get(place) ?? new Set()).add(from));
        },
      },
    });
    for (let index = 0; index < 40; index++) {
      cluster.request();
      for (let step = 0; step < 60; step++) cluster.randomStep();
    }
    cluster.settle();
    expect(new Set(cluster.heights()).size).toBe(1);
    expect(proposers.size).toBeGreaterThan(2 * rotation);
    for (const [place, from] of proposers) {
      const [regency, instance] = place.split(" ").map(Number) as [number, number];
      expect([...from]).toEqual([leaderOf(cluster.view, regency, instance)]);
    }
    expect(cluster.misbehaviour).toEqual([]);
  });

  it("with f members dead everything is executed, and their turns cost an eighth of a timeout once they are known", () => {
    const cluster = new CoreCluster({ n: 4, rotation: 1, seed: 7, requestTimeoutMs: 1_000 });
    cluster.crash(2);
    const waits: number[] = [];
    for (let index = 0; index < 24; index++) {
      const beganUs = cluster.nowUs;
      cluster.request();
      const before = replica(cluster, 0).core.lastDecided;
      for (let round = 0; round < 400 && replica(cluster, 0).core.lastDecided === before; round++) cluster.settle(1);
      waits.push(cluster.nowUs - beganUs);
    }
    expect(replica(cluster, 0).core.state.onProbation).toEqual([2]);
    expect(replica(cluster, 0).core.state.regency).toBeGreaterThan(4);
    expect(waits.filter((waitUs) => waitUs > 1_500_000).length, "full patience").toBe(1);
    expect(Math.max(...waits.slice(12))).toBeLessThan(750_000);
  });

  it("a STOP that a leader said before its turn came is joined when it repeats it and nothing is proposed", () => {
    const cluster = new CoreCluster({ n: 4, rotation: 1, seed: 1 });
    const { core } = replica(cluster, 0);
    const stop: Message = { type: "STOP", view: 0, regency: 1, named: [] };
    const hear = (from: number): void => cluster.input(replica(cluster, 0), { type: "message", from, message: stop });
    const resigning = leaderOf(cluster.view, 0, 3);
    hear(resigning);
    expect(core.state.wantedRegency, "not its turn, nor the next").toBe(0);
    while (core.lastDecided < 2) {
      cluster.request();
      cluster.settle(20);
    }
    expect(core.lastDecided).toBe(2);
    expect(core.state.wantedRegency).toBe(0);
    hear(resigning);
    expect(core.state.wantedRegency).toBe(1);
  });

  it("a request that W forward is taken only with a signature: whoever takes it may have to propose it", () => {
    const cluster = new CoreCluster({ n: 4, rotation: 1, seed: 1, authentic: () => false });
    const { bytes, key } = cluster.request({ to: [] });
    const hear = (from: number, envelope: Uint8Array): void => {
      const message: Message = { type: "FORWARD", view: 0, regency: 0, request: bytes, envelope };
      cluster.input(replica(cluster, 0), { type: "message", from, message });
    };
    hear(1, SIGNED);
    hear(2, ENVELOPE);
    expect(replica(cluster, 0).core.queue.find(key)).toBeUndefined();
    hear(3, SIGNED);
    const taken = replica(cluster, 0).core.queue.find(key);
    const envelope = taken ? decodeEnvelope(taken.envelope) : null;
    expect(envelope && !isRejection(envelope) && envelope.authenticator.type).toBe("signature");
  });

  it("an empty batch that was wanted is not proposed in one's own turn after somebody else's passed an instance", () => {
    const options = {
      batchRequestsMax: 1,
      batchBytesMax: 1_000,
      batchWaitUs: 0,
      clockDriftMs: 1,
      requestTimeoutMs: 1,
      statusIntervalMs: 1,
      executionLagMax: 1,
      emptyLagMax: 1,
    };
    const batching = new Batching(new RequestQueue(), options);
    batching.wantEmpty();
    expect(batching.due(0, 0)).toBe(0);
    batching.decided([], 1);
    expect(batching.due(1, 1)).toBeNull();
    batching.wantEmpty();
    batching.take(1, { timestampMs: 1, nowUs: 1 });
    batching.wantEmpty();
    batching.decided([], 2);
    expect(batching.due(2, 2), "wanted while our own was under way").toBe(0);
  });
});
