/**
 * Leaders that do not do their part, each replaced within a bound that is checked in virtual time (docs/protocol.md section 5):
 * T is the request timeout, counted from the first request that the leader lets wait. Afterwards every client finishes.
 */
import { describe, expect, it } from "vitest";
import { decodeBatch, encodeBatch } from "../../../protocol/batch.ts";
import type { Digest } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import type { MessageOf } from "../../../protocol/messages.ts";
import { Checkers } from "../../simulation/checkers/all.ts";
import { assertLinearizable } from "../../simulation/checkers/wire-history.ts";
import type { Attacker, Outgoing } from "../../simulation/contract.ts";
import { drawPlan } from "../../simulation/plan.ts";
import { World } from "../../simulation/world.ts";

const T_US = 1_000_000;
const CLIENTS = 3;

/** What the leader makes of its proposals; everything else it says is correct. */
type Twist = (propose: MessageOf<"PROPOSE">, to: number, victim: Digest) => Partial<Outgoing> | null;

function attacker(twist: Twist, victim: () => Digest): Attacker {
  return {
    rewrite(outgoing) {
      const { message, to } = outgoing;
      if (message.type === "STOP" || message.type === "STOPDATA" || message.type === "SYNC") return [];
      if (message.type !== "PROPOSE") return [outgoing];
      const twisted = twist(message, to, victim());
      return twisted ? [{ ...outgoing, ...twisted }] : [];
    },
    observe: () => undefined,
    idle: () => [],
  };
}

function without(propose: MessageOf<"PROPOSE">, victim: Digest): Partial<Outgoing> {
  const { instance, timestampMs, requests } = decodeBatch(nodeCrypto, propose.batch);
  const kept = requests.map((request) => request.client !== victim);
  const left = requests.filter((_, at) => kept[at]).map((request) => request.bytes);
  const batch = encodeBatch({ instance, timestampMs, requests: left });
  return { message: { ...propose, batch, envelopes: propose.envelopes.filter((_, at) => kept[at]) } };
}

function later(propose: MessageOf<"PROPOSE">): Partial<Outgoing> {
  const { instance, timestampMs, requests } = decodeBatch(nodeCrypto, propose.batch);
  const batch = encodeBatch({
    instance,
    timestampMs: timestampMs + 1,
    requests: requests.map((request) => request.bytes),
  });
  return { message: { ...propose, batch } };
}

const LEADERS: readonly (readonly [what: string, boundT: number, twist: Twist])[] = [
  ["silent", 2.5, () => null],
  ["equivocating", 2.5, (propose, to) => (to === 1 ? {} : later(propose))],
  ["censoring", 2.5, (propose, _, victim) => without(propose, victim)],
  ["slow by 0.9 T", 9, () => ({ delayUs: 0.9 * T_US })],
  ["slow by 0.3 T", 5, () => ({ delayUs: 0.3 * T_US })],
  ["garbage-sending", 0.5, (propose) => ({ message: { ...propose, batch: propose.batch.slice(3) } })],
];

describe("a leader that is", () => {
  it.each(LEADERS)("%s is replaced within %s T, and every client finishes", async (_, boundT, twist) => {
    const drawn = drawPlan(1);
    const firstUs = new Map<Digest, number>();
    const world = new World({
      seed: 1,
      n: 4,
      f: 1,
      clients: CLIENTS,
      workload: { ...drawn.workload, commands: 40, callers: 2, thinkUs: 20_000, readShare: 0.1, timeoutMs: 20_000 },
      consensus: { ...drawn.consensus, requestTimeoutMs: T_US / 1000 },
      checkpointPeriod: 1_000,
      signedRequests: false,
      observers: ({ crypto, cluster, ...made }) => [
        new Checkers({
          crypto,
          cluster: cluster.id,
          genesis: cluster.genesis,
          maxClients: cluster.maxClients,
          view: cluster.view,
          memoryLimits: {},
          livenessUs: 60 * T_US,
        }),
        {
          issued: ({ client, request }) => {
            if (request.kind === "ordered" && !firstUs.has(client)) firstUs.set(client, made.scheduler.nowUs);
          },
        },
      ],
    });
    const victim = (): Digest => world.clients[0]?.id ?? "";
    world.corrupt(0, () => attacker(twist, victim));
    world.start();
    await world.run({ untilUs: 60 * T_US, done: () => world.highestRegency > 0 });
    expect(world.highestRegency).toBe(1);
    const sinceUs = firstUs.get(victim()) ?? Number.NaN;
    expect((world.nowUs - sinceUs) / T_US).toBeLessThanOrEqual(boundT);
    for (const client of world.clients) client.finish();
    const finished = (): boolean => world.clients.every((client) => client.finished);
    await world.run({ untilUs: 120 * T_US, done: finished });
    expect(finished()).toBe(true);
    expect(assertLinearizable(world.calls)).toBe("ok");
  });
});
