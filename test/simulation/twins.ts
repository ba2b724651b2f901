/**
 * Twins (Bano et al., "Twins: BFT Systems Made Robust"): two instances of correct code under one identity equivocate, vote
 * twice and forget, without a line of attack code. Four replicas and the twin of one of them go through rounds; in each
 * the five may talk within two groups only, and each round ends in a change of regency that timeouts force. Then all is healed
 * but the second twin, and everything must be executed. Every choice of groups is tried; what is the same with the twins'
 * names exchanged is dropped.
 */
import type { Message } from "../../protocol/messages.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import { AgreementChecker } from "./checkers/agreement.ts";
import type { RunObserver } from "./checkers/events.ts";
import { VotesChecker } from "./checkers/votes.ts";
import { Stall } from "./contract.ts";
import { CoreCluster } from "./core-cluster.ts";
import { CLUSTER, ENVELOPE, GENESIS, type SimulatedReplica } from "./core-replica.ts";
import { CoreTrace } from "./core-trace.ts";
import { fastCrypto } from "./fast-crypto.ts";

export const REPLICAS = 4;
export const ROUNDS = 4;
/** Ways to part five slots into two groups, one of them maybe empty. */
export const PARTITIONS = 16;
/** The twinned member leads the first regency, or the second: there it is a follower that becomes synchronizer. */
export const ROLES: readonly ReplicaId[] = [0, 1];

const REQUEST_TIMEOUT_MS = 100;
const TICK_US = 50_000;
/** Patience doubles five times; twice over. */
const FORCING_TICKS = 400;
const DELIVERIES_MAX = 3_000;
const LIVENESS_ROUNDS = 1_000;
/** What reaches everybody while timeouts force the next regency. */
const FORCING: ReadonlySet<Message["type"]> = new Set(["STOP", "FORWARD"]);

export interface Scenario {
  readonly twin: ReplicaId;
  /** Bit k of a partition: is slot k in the other group than the twin? Slot 4 is the second twin. */
  readonly partitions: readonly number[];
  /** Instances per leader where leaders take turns. */
  readonly rotation?: number;
}

/** As the command line names it: the twinned member, then the partition of each round; "/2" at the end for turns of two instances. */
export function scenarioName({ twin, partitions, rotation }: Scenario): string {
  return `${twin}:${partitions.join(".")}${rotation === undefined ? "" : `/${rotation}`}`;
}

export function scenarioOf(name: string): Scenario {
  const [places = "", turns] = name.split("/");
  const [twin = "", rounds = ""] = places.split(":");
  const partitions = rounds.split(".").map(Number);
  const known = partitions.every(
    (partition) => Number.isInteger(partition) && partition >= 0 && partition < PARTITIONS,
  );
  const counted = turns === undefined || /^[1-9]\d{0,5}$/.test(turns);
  if (!known || !counted || rounds === "" || !/^[0-3]$/.test(twin)) throw new Error(`no scenario of twins: ${name}`);
  return { twin: Number(twin), partitions, ...(turns === undefined ? {} : { rotation: Number(turns) }) };
}

/** The group, 0 or 1, of each of the five slots. */
function groupsOf(twin: ReplicaId, partition: number): number[] {
  const others = Array.from({ length: REPLICAS + 1 }, (_, slot) => slot).filter((slot) => slot !== twin);
  const groups = new Array<number>(REPLICAS + 1).fill(0);
  others.forEach((slot, bit) => {
    groups[slot] = (partition >> bit) & 1;
  });
  return groups;
}

/** The partition with the names of the twins exchanged. */
export function mirrored(twin: ReplicaId, partition: number): number {
  const groups = groupsOf(twin, partition);
  const second = groups[REPLICAS] as number;
  groups[REPLICAS] = groups[twin] as number;
  groups[twin] = second;
  const others = groups.flatMap((group, slot) => (slot === twin ? [] : [group === second ? 0 : 1]));
  return others.reduce<number>((bits, group, bit) => bits | (group << bit), 0);
}

function numberOf(partitions: readonly number[]): number {
  return partitions.reduce((number, partition) => number * PARTITIONS + partition, 0);
}

/** Every scenario once, of two that mirror each other the first. */
export function* scenarios(roles: readonly ReplicaId[] = ROLES, rounds = ROUNDS): Generator<Scenario> {
  for (const twin of roles) {
    for (let number = 0; number < PARTITIONS ** rounds; number++) {
      const partitions = Array.from(
        { length: rounds },
        (_, round) => Math.floor(number / PARTITIONS ** (rounds - 1 - round)) % PARTITIONS,
      );
      const mirror = numberOf(partitions.map((partition) => mirrored(twin, partition)));
      if (number <= mirror) yield { twin, partitions };
    }
  }
}

export interface ScenarioReport {
  readonly digest: string;
  readonly decided: number;
  readonly regency: number;
  /** Instances decided before the world was healed. */
  readonly decidedEarly: number;
}

/** @throws Violation, Stall, or whatever the code under test throws. */
export function runScenario(scenario: Scenario, listener: ((line: string) => void) | null = null): ScenarioReport {
  return new TwinsRun(scenario, listener).run();
}

class TwinsRun {
  readonly #scenario: Scenario;
  readonly #trace: CoreTrace;
  readonly #cluster: CoreCluster;
  /** Requests so far: each must be executed in the end. */
  readonly #requests: ReturnType<CoreCluster["request"]>[] = [];

  constructor(scenario: Scenario, listener: ((line: string) => void) | null) {
    this.#scenario = scenario;
    this.#trace = new CoreTrace(listener);
    const observers: readonly RunObserver[] = [
      new AgreementChecker({ crypto: fastCrypto, cluster: CLUSTER, genesis: GENESIS }),
      new VotesChecker(fastCrypto),
    ];
    this.#cluster = new CoreCluster({
      n: REPLICAS,
      seed: 1,
      twins: [scenario.twin],
      ...(scenario.rotation === undefined ? {} : { rotation: scenario.rotation }),
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      observers,
      probe: { input: (slot, input) => this.#trace.input(slot, input) },
    });
  }

  run(): ScenarioReport {
    const { twin, partitions } = this.#scenario;
    partitions.forEach((partition, round) => {
      if (round > 0) this.#force();
      this.#round(groupsOf(twin, partition));
    });
    const decidedEarly = this.#cluster.decided.size;
    this.#force();
    this.#heal();
    const correct = this.#correct();
    return {
      digest: this.#trace.digest(),
      decided: this.#cluster.decided.size,
      regency: Math.max(...correct.map(({ core }) => core.state.regency)),
      decidedEarly,
    };
  }

  #correct(): SimulatedReplica[] {
    return this.#cluster.replicas.filter(({ slot, up }) => up && this.#cluster.trusted(slot));
  }

  #pairs(join: (a: number, b: number) => void): void {
    for (let a = 0; a <= REPLICAS; a++) for (let b = a + 1; b <= REPLICAS; b++) join(a, b);
  }

  /** Those of one group talk, until they have nothing more to say. */
  #round(groups: readonly number[]): void {
    const cluster = this.#cluster;
    this.#trace.note(
      `== groups ${[0, 1].map((group) => groups.flatMap((own, slot) => (own === group ? [slot] : [])).join(" ")).join(" | ")}`,
    );
    this.#pairs((a, b) => cluster.cut(a, b));
    this.#pairs((a, b) => {
      if (groups[a] === groups[b]) cluster.mend(a, b);
    });
    this.#ask(groups);
    for (let pass = 0; pass < 3; pass++) {
      cluster.tick(TICK_US / 10);
      this.#drain(null);
    }
  }

  /** A request of this round; each group hears of another one first. */
  #ask(groups: readonly number[]): void {
    for (const group of new Set(groups)) {
      const sequence = this.#requests.length + 1;
      const to = groups.flatMap((own, slot) => (own === group ? [slot] : []));
      const request = this.#cluster.request({ sequence, to: [] });
      this.#requests.push(request);
      for (const slot of to) this.#submit(slot, request);
    }
  }

  #submit(slot: number, request: ReturnType<CoreCluster["request"]>): void {
    const replica = this.#cluster.replicas[slot] as SimulatedReplica;
    if (replica.up && !replica.executedKeys.has(request.key))
      this.#cluster.input(replica, { type: "request", request, envelope: ENVELOPE, replier: 0 });
  }

  /** Everything on the way arrives and completes; with `only`, the rest of the messages is lost. */
  #drain(only: ReadonlySet<Message["type"]> | null): void {
    const cluster = this.#cluster;
    let deliveries = 0;
    for (let busy = true; busy && deliveries < DELIVERIES_MAX; ) {
      busy = false;
      for (const [name, queue] of cluster.links) {
        while (queue.length > 0) {
          busy = true;
          deliveries++;
          if (only && !only.has((queue[0] as Message).type)) queue.shift();
          else cluster.deliverOne(name);
        }
      }
      for (const replica of cluster.replicas) {
        if (!replica.up) continue;
        if (replica.journaling.length + replica.verifying.length > 0) busy = true;
        while (replica.journaling.length > 0) cluster.journalOne(replica);
        while (replica.verifying.length > 0) cluster.verifyOne(replica);
        for (let left = replica.toExecute.length; left > 0; left--) cluster.executeOne(replica);
      }
    }
  }

  /** Nothing but STOP and FORWARD gets through until all that is asked for is overdue, and everybody installed the next regency. */
  #force(): void {
    const cluster = this.#cluster;
    const sequence = this.#requests.length + 1;
    const next = 1 + Math.max(...cluster.replicas.map(({ core }) => core.state.regency));
    this.#trace.note(`== timeouts until regency ${next}`);
    this.#pairs((a, b) => cluster.cut(a, b));
    this.#pairs((a, b) => cluster.mend(a, b));
    const request = cluster.request({ sequence, to: [] });
    this.#requests.push(request);
    for (const { slot } of cluster.replicas) this.#submit(slot, request);
    for (let ticks = 0; ticks < FORCING_TICKS; ticks++) {
      cluster.tick(TICK_US);
      this.#drain(FORCING);
      if (cluster.replicas.every(({ core, up }) => !up || core.state.regency >= next)) return;
    }
    throw new Stall(`twins ${scenarioName(this.#scenario)}: timeouts do not end regency ${next - 1}`);
  }

  #heal(): void {
    const cluster = this.#cluster;
    this.#trace.note("== healed, without the second twin");
    if (cluster.replicas[REPLICAS]?.up) cluster.crash(REPLICAS);
    this.#pairs((a, b) => cluster.cut(a, b));
    this.#pairs((a, b) => {
      if (b < REPLICAS && cluster.replicas[a]?.up && cluster.replicas[b]?.up) cluster.mend(a, b);
    });
    for (let round = 0; round < LIVENESS_ROUNDS; round++) {
      if (round % 20 === 0)
        for (const request of this.#requests) for (let slot = 0; slot < REPLICAS; slot++) this.#submit(slot, request);
      cluster.settle(1);
      if (this.#isDone()) return;
    }
    const standing = cluster.replicas.map(
      ({ slot, up, core }) => `r${slot} ${up ? `regency ${core.state.regency} decided ${core.lastDecided}` : "down"}`,
    );
    throw new Stall(`twins ${scenarioName(this.#scenario)}: ${standing.join("; ")}`);
  }

  #isDone(): boolean {
    const correct = this.#correct();
    const height = correct[0]?.core.lastDecided;
    return correct.every(
      ({ core, executedUpTo, executedKeys }) =>
        core.lastDecided === height &&
        executedUpTo === height &&
        this.#requests.every((request) => executedKeys.has(request.key)),
    );
  }
}
