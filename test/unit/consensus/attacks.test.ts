/** What one lying member or client must not achieve: forced changes of leader, endless work, unbounded memory. */
import { describe, expect, it } from "vitest";
import { encodeBatch, historyDigest } from "../../../protocol/batch.ts";
import { type Digest, utf8 } from "../../../protocol/bytes.ts";
import type { Message } from "../../../protocol/messages.ts";
import { decodeRequest, encodeEnvelope, encodeRequest, type Request } from "../../../protocol/request.ts";
import { FutureMessages } from "../../../server/consensus/future-messages.ts";
import { CLUSTER, CoreCluster, ENVELOPE, GENESIS, type SimulatedReplica } from "../../simulation/core-cluster.ts";
import { fastCrypto } from "../../simulation/fast-crypto.ts";

const LIAR = 3;

function replica(cluster: CoreCluster, id: number): SimulatedReplica {
  return cluster.replicas[id] as SimulatedReplica;
}

function requestOf(client: string, sequence = 1, bytes = 1): Request {
  const encoded = encodeRequest({
    cluster: CLUSTER,
    client: fastCrypto.sha256(utf8(client)),
    session: 1,
    sequence,
    ackedBelow: 1,
    kind: "ordered",
    deadlineMs: 0,
    commands: [new Uint8Array(bytes)],
  });
  return decodeRequest(fastCrypto, encoded);
}

function hear(cluster: CoreCluster, at: number, from: number, message: Message): void {
  cluster.input(replica(cluster, at), { type: "message", from, message });
}

describe("section 5: who blames a leader", () => {
  it("a request that one correct and one lying replica say they have changes no leader", () => {
    const lies = new Set<Digest>();
    const cluster = new CoreCluster({
      n: 4,
      seed: 1,
      authentic: (id, request) => id === 2 || !lies.has(request.client),
    });
    cluster.settle(2);
    for (let lie = 0; lie < 3; lie++) {
      const request = requestOf(`mallory ${lie}`);
      lies.add(request.client);
      cluster.input(replica(cluster, 2), { type: "request", request, envelope: ENVELOPE, replier: 0 });
      for (let round = 0; round < 80; round++) {
        if (round % 5 === 0) {
          cluster.request();
          hear(cluster, 2, LIAR, { type: "FORWARD", view: 0, regency: 0, request: request.bytes, envelope: ENVELOPE });
          for (const at of [0, 1, 2]) hear(cluster, at, LIAR, { type: "STOP", view: 0, regency: 1, named: [] });
        }
        cluster.settle(1);
      }
    }
    expect(cluster.installed).toEqual([]);
    expect(replica(cluster, 2).core.queue.pending, "what no leader can order is forgotten").toBeLessThan(3);
  });

  it("who has executed a request still says that it has it, a few times", () => {
    const cluster = new CoreCluster({ n: 4, seed: 2 });
    const request = cluster.request();
    cluster.settle(3);
    const message: Message = { type: "FORWARD", view: 0, regency: 0, request: request.bytes, envelope: ENVELOPE };
    cluster.links.clear();
    for (let time = 0; time < 10; time++) hear(cluster, 1, 2, message);
    const answers = cluster.links.get("1>2")?.filter(({ type }) => type === "FORWARD") ?? [];
    expect(answers.length).toBe(3);
  });

  it("a replica that has the SYNC and still catches up asks for no other leader", () => {
    let answeredUs = 0;
    const cluster: CoreCluster = new CoreCluster({
      n: 4,
      seed: 1,
      liar: (_from, to, message) => {
        if (to !== LIAR || message.type !== "HISTORY") return [message];
        if (cluster.nowUs - answeredUs < 1_000_000) return [];
        answeredUs = cluster.nowUs;
        return [message];
      },
    });
    cluster.settle(2);
    for (const other of [0, 1, 2]) cluster.cut(LIAR, other);
    for (let round = 0; round < 60; round++) {
      cluster.request();
      cluster.settle(1);
    }
    cluster.input(replica(cluster, 0), { type: "draining" });
    cluster.settle(5);
    for (const other of [0, 1, 2]) cluster.mend(LIAR, other);
    const before = replica(cluster, 0).core.state.regency;
    const blamed = cluster.suspicions.length;
    for (let round = 0; round < 200; round++) {
      if (round % 4 === 0) cluster.request();
      cluster.settle(1);
    }
    expect(cluster.suspicions.slice(blamed)).toEqual([]);
    expect(replica(cluster, LIAR).core.state.regency).toBe(before);
    expect(before).toBe(1);
  });
});

describe("section 8: bounds", () => {
  it("proposals that everybody refuses are not kept", () => {
    const cluster = new CoreCluster({ n: 4, seed: 3 });
    cluster.settle(1);
    for (let sequence = 1; sequence <= 5; sequence++) {
      const batch = encodeBatch({ instance: 1, timestampMs: 1_000, requests: [requestOf("anybody", sequence).bytes] });
      hear(cluster, 1, 0, { type: "PROPOSE", view: 0, regency: 0, instance: 1, batch, envelopes: [] });
      const batchDigest = fastCrypto.sha256(batch);
      const digest = historyDigest(fastCrypto, { cluster: CLUSTER, instance: 1, previous: GENESIS, batchDigest });
      cluster.links.clear();
      hear(cluster, 1, 0, { type: "FETCH_BATCH", view: 0, regency: 0, instance: 1, digest });
      expect(cluster.links.get("1>0") ?? []).toEqual([]);
    }
    expect(cluster.suspicions.filter(({ at }) => at === 1).length).toBe(1);
  });

  it("envelopes of proposals ahead count by their size", () => {
    const future = new FutureMessages();
    const envelope = new Uint8Array(2_000);
    for (let instance = 10; instance < 30; instance++) {
      const envelopes = Array.from({ length: 4_000 }, () => envelope);
      future.add(LIAR, { type: "PROPOSE", view: 0, regency: 0, instance, batch: new Uint8Array(64), envelopes });
    }
    expect(future.size).toBeLessThanOrEqual(4);
    expect(future.size).toBeGreaterThan(0);
  });

  it("false STOPDATAs of one member are verified one at a time", () => {
    const cluster = new CoreCluster({ n: 4, seed: 4 });
    cluster.settle(1);
    const synchronizer = replica(cluster, 1);
    for (const from of [0, 2, LIAR]) hear(cluster, 1, from, { type: "STOP", view: 0, regency: 1, named: [] });
    while (synchronizer.journaling.length > 0) cluster.journalOne(synchronizer);
    const votes = [0, 1, 2, 3].map((voter) => ({ replica: voter, signature: new Uint8Array(64) }));
    const digest = "x".repeat(32) as Digest;
    for (let instance = 1; instance <= 100; instance++) {
      const record = { view: 0, regency: 0, instance, digest, votes };
      hear(cluster, 1, LIAR, { type: "STOPDATA", view: 0, regency: 1, record, signature: new Uint8Array(64) });
    }
    expect(synchronizer.verifying).toHaveLength(1);
    cluster.settle(3);
    expect(cluster.misbehaviour.filter(({ code }) => code === "STOPDATA_SIGNATURE")).toHaveLength(1);
  });

  it("signed requests that one member forwards are verified so many at a time", () => {
    const check = { publicKey: new Uint8Array(32), statement: new Uint8Array(1), signature: new Uint8Array(64) };
    const cluster = new CoreCluster({ n: 4, seed: 5, authentic: () => check });
    const envelope = encodeEnvelope({
      view: 0,
      replier: 0,
      keys: null,
      authenticator: { type: "signature", signature: new Uint8Array(64), mac: "0123456789abcdef" },
    });
    for (let sequence = 1; sequence <= 1_000; sequence++) {
      const request = requestOf("anybody", sequence).bytes;
      hear(cluster, 1, LIAR, { type: "FORWARD", view: 0, regency: 0, request, envelope });
    }
    expect(replica(cluster, 1).verifying.length).toBe(256);
  });

  it("a batch goes to one member no more often than a correct one asks", () => {
    const cluster = new CoreCluster({ n: 4, seed: 6 });
    cluster.settle(1);
    cluster.request();
    cluster.tick(2_000);
    const [first] = cluster.links.get("0>1")?.filter((message) => message.type === "WRITE") ?? [];
    const digest = first?.type === "WRITE" ? first.digest : "";
    cluster.links.clear();
    const fetch: Message = { type: "FETCH_BATCH", view: 0, regency: 0, instance: 1, digest: digest as Digest };
    for (let time = 0; time < 20; time++) hear(cluster, 0, LIAR, fetch);
    expect(cluster.links.get(`0>${LIAR}`)?.filter(({ type }) => type === "BATCH")).toHaveLength(1);
    cluster.tick(200_000);
    hear(cluster, 0, LIAR, fetch);
    expect(cluster.links.get(`0>${LIAR}`)?.filter(({ type }) => type === "BATCH")).toHaveLength(2);
  });
});
