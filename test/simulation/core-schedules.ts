/**
 * Random schedules of real cores, without driver, disk and SDK: some hundred times as fast as a world. One schedule is a
 * safety phase, in which anything may fail and up to f replicas lie, and a liveness phase, in which the network is healed
 * and up to f stay dead or go on lying: every request of a correct client must be executed by every correct replica that
 * lives, and their heights meet. The same schedule gives the same digest.
 */
import type { Mode, ReplicaId } from "../../protocol/view.ts";
import { attackerOf, describe } from "./byzantine/attacker.ts";
import { Guild } from "./byzantine/guild.ts";
import { AgreementChecker } from "./checkers/agreement.ts";
import type { RunObserver } from "./checkers/events.ts";
import { MemoryChecker } from "./checkers/memory.ts";
import { ValidityChecker } from "./checkers/validity.ts";
import { VotesChecker } from "./checkers/votes.ts";
import { type Attacker, Stall } from "./contract.ts";
import { CoreClients } from "./core-clients.ts";
import { type ClusterProbe, CoreCluster } from "./core-cluster.ts";
import { type CorePlan, drawCorePlan } from "./core-plan.ts";
import { CLUSTER, coreView, GENESIS, type SimulatedReplica, signerOf } from "./core-replica.ts";
import { CoreTrace } from "./core-trace.ts";
import { fastCrypto } from "./fast-crypto.ts";
import { type Piece, ScheduleRandom, scheduleName } from "./schedule-random.ts";

/** Low, so that regencies change often: in virtual time it costs nothing. */
const REQUEST_TIMEOUT_MS = 200;
const LEAP_US_MAX = 150_000;
const STEP_US_MAX = 20_000;
const SKEWED_JUMP = 0.3;
/** Of 60 ms each; a timeout that doubled five times, twice over, for every liar in a row. */
const LIVENESS_ROUNDS = 2_000;
/** After so many rounds correct clients ask again. */
const RESEND_ROUNDS = 20;
/** Future messages are bounded per sender; requests by how many a run can hold. */
const BUFFERED_PER_SENDER_MAX = 512;
const PENDING_MAX = 400;

export interface ScheduleOptions {
  /** Other choices from a step on. */
  readonly pieces?: readonly Piece[];
  readonly listener?: (line: string) => void;
  /** Sees every message on a link and the cluster after every step of the safety phase. */
  readonly watch?: {
    sent(from: number, message: Parameters<NonNullable<ClusterProbe["sent"]>>[2]): void;
    step(cluster: CoreCluster, step: number): void;
  };
}

export interface ScheduleReport {
  readonly name: string;
  readonly mode: Mode;
  readonly digest: string;
  readonly n: number;
  readonly steps: number;
  readonly decided: number;
  readonly regency: number;
  readonly liars: number;
  /** Instances per leader, or 0. */
  readonly rotation: number;
  /** Turns that ended in order, at the correct replica that saw most. */
  readonly handovers: number;
  /** How often each fault happened. */
  readonly counts: ReadonlyMap<string, number>;
}

/** @throws Violation, Stall, or whatever the code under test throws. */
export function runCoreSchedule(seed: number, options: ScheduleOptions = {}): ScheduleReport {
  const run = new ScheduleRun(seed, options);
  run.safety();
  run.liveness();
  return run.report();
}

class ScheduleRun {
  readonly #name: string;
  readonly #random: ScheduleRandom;
  readonly #plan: CorePlan;
  readonly #trace: CoreTrace;
  readonly #clients: CoreClients;
  readonly #cluster: CoreCluster;
  readonly #memory: MemoryChecker;
  readonly #watch: ScheduleOptions["watch"];
  readonly #cuts = new Map<string, readonly [from: number, to: number, oneWay: boolean]>();
  readonly #slow = new Set<number>();
  /** Who sent the last PROPOSE or SYNC. */
  #proposer: number | null = null;

  constructor(seed: number, { pieces = [], listener, watch }: ScheduleOptions) {
    this.#name = scheduleName(seed, pieces);
    this.#random = new ScheduleRandom(seed, pieces);
    this.#plan = drawCorePlan(this.#random, seed);
    this.#watch = watch;
    this.#trace = new CoreTrace(listener ?? null);
    const { mode, n, f, liars, rotation } = this.#plan;
    const view = coreView(n, f, mode, rotation);
    this.#memory = new MemoryChecker({ bufferedMessages: n * BUFFERED_PER_SENDER_MAX, pendingRequests: PENDING_MAX });
    const observers: readonly RunObserver[] = [
      new AgreementChecker({ crypto: fastCrypto, cluster: CLUSTER, genesis: GENESIS }),
      new ValidityChecker(),
      new VotesChecker(fastCrypto),
      this.#memory,
    ];
    this.#clients = new CoreClients(this.#random, observers, view.faultModel);
    const guild = new Guild(view, fastCrypto);
    const attackers = new Map<ReplicaId, Attacker>();
    for (const [self, character] of liars) {
      attackers.set(self, attackerOf({ self, sign: signerOf(self), guild, random: this.#random, character }));
      this.#trace.note(`r${self} lies: ${describe(character)}`);
    }
    this.#cluster = new CoreCluster({
      n,
      mode,
      rotation,
      seed,
      random: this.#random,
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      attackers,
      authentic: this.#clients.authentic,
      observers,
      probe: {
        input: (slot, input) => this.#trace.input(slot, input),
        sent: (from, _to, message) => {
          if (message.type === "SYNC" || message.type === "PROPOSE") this.#proposer = from;
          watch?.sent(from, message);
        },
      },
    });
  }

  // ---- safety

  safety(): void {
    for (let step = 0; step < this.#plan.steps; step++) {
      this.#random.at(step);
      this.#faults();
      this.#step();
      this.#watch?.step(this.#cluster, step);
    }
  }

  #faults(): void {
    const { rates } = this.#plan;
    const random = this.#random;
    if (random.chance(rates.request)) this.#clients.issue(this.#cluster);
    if (random.chance(rates.falseRequest)) this.#counted("false request", () => this.#clients.lie(this.#cluster));
    if (random.chance(rates.cut)) this.#cutSome(false);
    if (random.chance(rates.oneWay)) this.#cutSome(true);
    if (random.chance(rates.mend)) this.#mendOne();
    if (random.chance(rates.crash)) this.#crashOne("crash");
    if (random.chance(rates.cleanStop)) this.#crashOne("clean stop");
    if (random.chance(rates.power)) this.#power();
    if (random.chance(rates.ambush)) this.#ambush();
    if (random.chance(rates.restart)) this.#restartOne();
    if (random.chance(rates.slow)) this.#slowOne();
    if (random.chance(rates.skew)) this.#skewOne();
    if (random.chance(rates.leader)) this.#isolateLeader();
    if (random.chance(rates.leap)) this.#cluster.tick(random.below(LEAP_US_MAX));
  }

  #counted(name: string, run: () => void): void {
    this.#trace.count(name);
    run();
  }

  /** One thing that could happen next, happens. */
  #step(): void {
    const random = this.#random;
    const cluster = this.#cluster;
    const roll = random.next();
    if (roll < 0.6) {
      this.#deliver();
      return;
    }
    const replica = random.pick(cluster.replicas);
    if (!replica.up) return;
    if (roll < 0.75) {
      if (!this.#slow.has(replica.slot) || random.chance(0.05)) cluster.journalOne(replica);
    } else if (roll < 0.88) cluster.verifyOne(replica);
    else if (roll < 0.95) cluster.executeOne(replica);
    else cluster.tick(random.below(STEP_US_MAX));
  }

  #deliver(): void {
    const { rates } = this.#plan;
    const random = this.#random;
    const busy: string[] = [];
    for (const [name, queue] of this.#cluster.links) if (queue.length > 0) busy.push(name);
    if (busy.length === 0) return;
    const name = random.pick(busy);
    const queue = this.#cluster.links.get(name);
    if (queue && queue.length > 1 && random.chance(rates.reorder)) {
      this.#trace.count("reorder");
      queue.push(...queue.splice(0, 1));
    }
    if (queue?.[0] && random.chance(rates.duplicate)) {
      this.#trace.count("duplicate");
      queue.splice(random.below(queue.length), 0, queue[0]);
    }
    this.#cluster.deliverOne(name);
  }

  #cutSome(oneWay: boolean): void {
    const random = this.#random;
    const { replicas } = this.#cluster;
    const [from, to] = [random.pick(replicas), random.pick(replicas)];
    if (from === to) return;
    this.#trace.count(oneWay ? "one-way cut" : "cut");
    this.#cuts.set(`${from.slot}>${to.slot}`, [from.slot, to.slot, oneWay]);
    this.#cut(from.slot, to.slot, oneWay);
  }

  #cut(from: number, to: number, oneWay: boolean): void {
    if (oneWay) this.#cluster.block(from, to);
    else this.#cluster.cut(from, to);
  }

  /** The leader of those who know best loses everybody. */
  #isolateLeader(): void {
    const { replicas } = this.#cluster;
    const newest = replicas
      .filter(({ up }) => up)
      .reduce<SimulatedReplica | null>(
        (best, one) => (best && best.core.state.regency >= one.core.state.regency ? best : one),
        null,
      );
    if (!newest) return;
    const { leader } = newest.core.state;
    this.#trace.count("leader isolated");
    for (const { slot } of replicas) {
      if (slot === leader) continue;
      this.#cuts.set(`${leader}>${slot}`, [leader, slot, false]);
      this.#cut(leader, slot, false);
    }
  }

  #mendOne(): void {
    if (this.#cuts.size === 0) return;
    const name = this.#random.pick([...this.#cuts.keys()]);
    const [from, to] = this.#cuts.get(name) as readonly [number, number, boolean];
    this.#cuts.delete(name);
    if (!this.#isUp(from) || !this.#isUp(to)) return;
    this.#cluster.mend(from, to);
    this.#cutAgain();
  }

  #isUp(slot: number): boolean {
    return this.#cluster.replicas[slot]?.up ?? false;
  }

  /** Whatever mended more than it should. */
  #cutAgain(): void {
    for (const [from, to, oneWay] of this.#cuts.values()) this.#cut(from, to, oneWay);
  }

  #crashOne(how: "crash" | "clean stop"): void {
    const { replicas } = this.#cluster;
    const victim = this.#random.pick(replicas);
    const down = replicas.filter(({ up }) => !up).length;
    if (!victim.up || (!this.#plan.anybody && down >= this.#plan.f)) return;
    this.#trace.count(how);
    if (how === "crash") this.#cluster.crash(victim.slot);
    else this.#cluster.stopCleanly(victim.slot);
  }

  /** The restart rules are about what was sent a moment before. */
  #ambush(): void {
    const slot = this.#proposer;
    if (slot === null || !this.#isUp(slot)) return;
    this.#proposer = null;
    this.#trace.count("ambush");
    if (this.#random.chance(0.7)) this.#cluster.crash(slot);
    else this.#cluster.stopCleanly(slot);
    if (this.#random.chance(0.2)) return;
    this.#cluster.restart(slot);
    this.#cutAgain();
  }

  #power(): void {
    this.#trace.count("power loss");
    for (const { slot, up } of this.#cluster.replicas) if (up && this.#random.chance(0.9)) this.#cluster.crash(slot);
  }

  #restartOne(): void {
    const down = this.#cluster.replicas.filter(({ up }) => !up);
    if (down.length === 0) return;
    this.#trace.count("restart");
    this.#cluster.restart(this.#random.pick(down).slot);
    this.#cutAgain();
  }

  #slowOne(): void {
    const { slot } = this.#random.pick(this.#cluster.replicas);
    this.#trace.count("slow journal");
    if (!this.#slow.delete(slot)) this.#slow.add(slot);
  }

  #skewOne(): void {
    const random = this.#random;
    const replica = random.pick(this.#cluster.replicas);
    const { skewMsMax } = this.#plan;
    this.#trace.count("clock skew");
    replica.skewMs = random.chance(SKEWED_JUMP) ? 0 : random.below(2 * skewMsMax) - skewMsMax;
  }

  // ---- liveness

  liveness(): void {
    const cluster = this.#cluster;
    const { replicas } = cluster;
    this.#random.at(Number.POSITIVE_INFINITY);
    this.#trace.note("== healed");
    this.#cuts.clear();
    this.#slow.clear();
    const dead = this.#deadAtLast();
    for (const { slot } of replicas) {
      if (dead.has(slot)) {
        if (this.#isUp(slot)) cluster.crash(slot);
      } else if (!this.#isUp(slot)) cluster.restart(slot);
    }
    for (const replica of replicas) replica.skewMs = 0;
    for (const { slot: a } of replicas) {
      for (const { slot: b } of replicas) if (a < b && this.#isUp(a) && this.#isUp(b)) cluster.mend(a, b);
    }
    this.#clients.issue(cluster);
    for (let round = 0; round < LIVENESS_ROUNDS; round++) {
      if (round % RESEND_ROUNDS === 0) this.#clients.resend(cluster);
      cluster.settle(1);
      this.#sample();
      if (this.#isDone()) return;
    }
    throw new Stall(`${this.#name}: ${this.#standing().join("; ")}`);
  }

  #deadAtLast(): Set<number> {
    const { n, liars, deadAtLast } = this.#plan;
    const dead = new Set<number>();
    while (dead.size < deadAtLast) {
      const slot = this.#random.below(n);
      if (!liars.has(slot)) dead.add(slot);
    }
    return dead;
  }

  #correct(): SimulatedReplica[] {
    return this.#cluster.replicas.filter(({ slot, up }) => up && this.#cluster.trusted(slot));
  }

  #isDone(): boolean {
    const correct = this.#correct();
    const [first] = correct;
    if (!first) return true;
    const height = first.core.lastDecided;
    return correct.every(
      (replica) =>
        replica.core.lastDecided === height && replica.executedUpTo === height && this.#clients.isExecuted(replica),
    );
  }

  #sample(): void {
    for (const { id, core } of this.#correct()) {
      const { bufferedMessages, pendingRequests } = core.state;
      this.#memory.memory({ replica: id, counts: { bufferedMessages, pendingRequests } });
    }
  }

  #standing(): string[] {
    return this.#cluster.replicas.map(({ slot, up, core, executedUpTo }) => {
      if (!this.#cluster.trusted(slot)) return `r${slot} lies`;
      if (!up) return `r${slot} dead`;
      const { regency, wantedRegency, synchronized, lastDecided, pendingRequests, abstainingUntil, holding } =
        core.state;
      return (
        `r${slot} regency ${regency}${wantedRegency > regency ? `>${wantedRegency}` : ""}${synchronized ? "" : " unsynchronized"} ` +
        `decided ${lastDecided.instance} executed ${executedUpTo} pending ${pendingRequests} abstains ${abstainingUntil}${holding ? " holding" : ""}`
      );
    });
  }

  report(): ScheduleReport {
    const correct = this.#correct();
    return {
      name: this.#name,
      digest: this.#trace.digest(),
      mode: this.#plan.mode,
      n: this.#plan.n,
      steps: this.#plan.steps,
      decided: Math.max(0, ...correct.map(({ core }) => core.lastDecided)),
      regency: Math.max(0, ...correct.map(({ core }) => core.state.regency)),
      liars: this.#plan.liars.size,
      rotation: this.#plan.rotation,
      handovers: Math.max(0, ...correct.map(({ core }) => core.state.handovers)),
      counts: this.#trace.counts,
    };
  }
}
