/**
 * Leaders that make the worst of their turn in the malicious fault model, each replaced within a bound that is checked in virtual
 * time (docs/protocol.md section 5, "Leaders in turn"), counted from the first proposal of that turn, or from when there should have been one. T is
 * the request timeout.
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
const LIAR = 1;
const ROTATION = 100;

interface Told {
  readonly message: Outgoing["message"];
  readonly to: number;
  readonly clients: readonly Digest[];
}

/** What the liar makes of what its correct code says; null: as it is. */
type Twist = (told: Told) => readonly Partial<Outgoing>[] | null;

function selecting(propose: MessageOf<"PROPOSE">, keep: (client: Digest) => boolean): Partial<Outgoing> {
  const { instance, timestampMs, requests } = decodeBatch(nodeCrypto, propose.batch);
  const kept = requests.map((request) => keep(request.client));
  const left = requests.filter((_, at) => kept[at]).map((request) => request.bytes);
  const batch = encodeBatch({ instance, timestampMs, requests: left });
  return { message: { ...propose, batch, envelopes: propose.envelopes.filter((_, at) => kept[at]) } };
}

const proposals =
  (twist: (propose: MessageOf<"PROPOSE">, told: Told) => readonly Partial<Outgoing>[]): Twist =>
  (told) =>
    told.message.type === "PROPOSE" ? twist(told.message, told) : null;

const LEADERS: readonly (readonly [what: string, boundT: number, twist: Twist])[] = [
  ["silent", 2.7, proposals(() => [])],
  ["slow by 0.9 T", 1.1, proposals(() => [{ delayUs: 0.9 * T_US }])],
  ["slow by 0.1 T", 1.2, proposals(() => [{ delayUs: 0.1 * T_US }])],
  [
    "slow by 0.2 T with every second proposal",
    1.4,
    proposals(({ instance }) => [{ delayUs: instance % 2 === 0 ? 0.2 * T_US : 0 }]),
  ],
  [
    "slow to f correct ones only, and writes nothing itself",
    1.6,
    ({ message, to }) => {
      if (message.type === "WRITE") return [];
      return message.type === "PROPOSE" && to === 2 ? [{ delayUs: 0.15 * T_US }] : null;
    },
  ],
  [
    "censoring one client",
    1.1,
    proposals((propose, { clients }) => [selecting(propose, (client) => client !== clients[0])]),
  ],
  [
    "serving one client only",
    1.1,
    proposals((propose, { clients }) => [selecting(propose, (client) => client === clients[0])]),
  ],
];

interface Run {
  readonly world: World;
  /** When the last turn of the liar began. */
  readonly beganUs: () => number;
}

function worldWith(twist: Twist | null, options: { rotation?: number; commands?: number } = {}): Run {
  const drawn = drawPlan(1);
  const { rotation = ROTATION, commands = 600 } = options;
  let beganUs = Number.NaN;
  let lastTurn = -1;
  const world: World = new World({
    seed: 1,
    n: 4,
    f: 1,
    clients: CLIENTS,
    workload: {
      ...drawn.workload,
      commands,
      callers: 2,
      thinkUs: 5_000,
      readShare: 0.1,
      timeoutMs: 20_000,
    },
    consensus: { ...drawn.consensus, requestTimeoutMs: T_US / 1000 },
    checkpointPeriod: 1_000,
    signedRequests: true,
    rotation,
    observers: ({ crypto, cluster }) => [
      new Checkers({
        crypto,
        cluster: cluster.id,
        genesis: cluster.genesis,
        maxClients: cluster.maxClients,
        view: cluster.view,
        memoryLimits: {},
        livenessUs: 60 * T_US,
      }),
    ],
  });
  const attacker: Attacker = {
    rewrite(outgoing, nowUs) {
      const { message, to } = outgoing;
      if (twist === null) return [outgoing];
      if (message.type === "STOP" || message.type === "STOPDATA" || message.type === "SYNC") return [];
      if (message.type === "PROPOSE") {
        const turn = Math.floor(message.instance / rotation);
        if (turn !== lastTurn) beganUs = nowUs;
        lastTurn = turn;
      }
      const twisted = twist({ message, to, clients: world.clients.map(({ id }) => id) });
      return twisted?.map((changed) => ({ ...outgoing, ...changed })) ?? [outgoing];
    },
    observe: () => undefined,
    idle: () => [],
  };
  world.corrupt(LIAR, () => attacker);
  world.start();
  return { world, beganUs: () => beganUs };
}

/** @returns when every command was answered */
async function complete(world: World): Promise<number> {
  await world.run({ untilUs: 300 * T_US, done: () => world.clients.every((client) => client.idle) });
  const { nowUs } = world;
  await finish(world);
  return nowUs;
}

async function finish(world: World): Promise<void> {
  for (const client of world.clients) client.finish();
  const finished = (): boolean => world.clients.every((client) => client.finished);
  await world.run({ untilUs: 300 * T_US, done: finished });
  expect(finished()).toBe(true);
  expect(assertLinearizable(world.calls)).toBe("ok");
}

describe("a leader that is, in its turn,", () => {
  it.each(LEADERS)("%s is replaced within %s T, and every client finishes", async (_, boundT, twist) => {
    const { world, beganUs } = worldWith(twist);
    await world.run({ untilUs: 60 * T_US, done: () => world.highestRegency > 0 });
    expect(world.highestRegency).toBe(1);
    expect((world.nowUs - beganUs()) / T_US).toBeLessThanOrEqual(boundT);
    expect((world.nowUs - beganUs()) / T_US).toBeGreaterThan(boundT / 4);
    await finish(world);
  });
});

describe("leaders in turn", () => {
  it("while all are correct regencies do not change, whatever K is", async () => {
    for (const rotation of [1, 2, 5, ROTATION]) {
      const { world } = worldWith(null, { rotation, commands: 60 });
      await complete(world);
      expect(world.highestRegency).toBe(0);
      const seen = world.machines.map(({ replica }) => replica?.core.state.handovers ?? 0);
      const turn = (instance: number): number => Math.floor(instance / rotation);
      expect(Math.max(...seen)).toBe(turn(world.decided + 1) - turn(1));
      expect(world.decided).toBeGreaterThan(30);
    }
  });

  it("a leader that is late by 0.9 T whenever it leads costs the rest less than half of the time", async () => {
    const commands = 600;
    const { world: plain } = worldWith(null, { commands });
    const undisturbedUs = await complete(plain);
    const { world } = worldWith(
      proposals(() => [{ delayUs: 0.9 * T_US }]),
      { commands },
    );
    const disturbedUs = await complete(world);
    expect(world.highestRegency).toBeGreaterThan(2);
    expect(disturbedUs / undisturbedUs).toBeLessThan(2);
  });
});
