/**
 * One seed from its plan to its report: a safety phase under faults, then a liveness phase in a healed world, in which
 * every client must finish and all live correct replicas must come to stand at the same instance with the same state.
 */
import { memberOf } from "../../protocol/view.ts";
import { foundingOf } from "../../server/service/executor.ts";
import { Checkers } from "./checkers/all.ts";
import type { RunObserver } from "./checkers/events.ts";
import { assertLinearizable } from "./checkers/wire-history.ts";
import { type Attacker, Stall, Violation } from "./contract.ts";
import { Faults } from "./faults.ts";
import { liars } from "./liars.ts";
import type { Machine } from "./machine.ts";
import { MALLORY_ENDPOINTS, Mallory } from "./mallory.ts";
import { drawPlan, type Plan } from "./plan.ts";
import { Reconfigurer } from "./reconfigurer.ts";
import { REGISTRAR_ENDPOINTS, Registrar } from "./registrar.ts";
import { type AttackerParts, World } from "./world.ts";

/** A healed world has this much virtual time to finish everything. */
const LIVENESS_US = 60_000_000;
/** And this much more until the last state is on every disk. */
const SETTLE_US = 2_000_000;
/** Steps of the search before a history counts as undecided, which the report says. */
const SEARCH_STEPS_MAX = 2_000_000;

/** The most a replica may hold under the workloads drawn here; of decided batches the lag it stops at, and one range of log. */
const MEMORY_LIMITS = { pendingRequests: 2_000, bufferedMessages: 4_096, executionBacklog: 16 + 256 };
/**
 * The log reaches down to the second-newest checkpoint. What comes on top: the instance of a checkpoint may pass while the
 * one before is still computed, or be skipped by a transfer.
 */
const LOG_PERIODS_MAX = 4;
const LOG_RECORDS_ON_TOP_MAX = 64;
/** A receiver holds the log for a minute after its last chunk, in which so much may be decided; a liar again and again. */
const LOG_RECORDS_HELD_MAX = 300;

export interface RunOptions {
  readonly seed: number;
  readonly listener?: (line: string) => void;
  /** Minds that Byzantine replicas may get, instead of those that `liars.ts` draws. */
  readonly attackers?: readonly ((parts: AttackerParts) => Attacker)[];
  /** Listens beside the checkers. */
  readonly observers?: (world: World) => readonly RunObserver[];
  /** Replaces what the seed draws. */
  readonly plan?: Plan;
}

export interface Failure {
  readonly exit: 127 | 128 | 129;
  readonly message: string;
  readonly stack: string;
}

export interface Report {
  readonly seed: number;
  readonly failure: Failure | null;
  readonly digest: string;
  readonly virtualUs: number;
  readonly events: number;
  readonly decided: number;
  readonly regencyChanges: number;
  readonly calls: number;
  /** Virtual time from the healing until everything was finished; null when it never was. */
  readonly recoveryUs: number | null;
  /** How often each kind of fault and event occurred. */
  readonly counts: Readonly<Record<string, number>>;
}

export async function runSeed(options: RunOptions): Promise<Report> {
  const { seed, listener } = options;
  const plan = options.plan ?? drawPlan(seed);
  const { n, f, mode, clients, workload, consensus, checkpointPeriod, signedRequests, rights, rotation } = plan;
  const world = new World({
    seed: plan.seed,
    n,
    f,
    mode,
    clients,
    workload,
    consensus,
    checkpointPeriod,
    signedRequests,
    picky: plan.picky,
    rights,
    rotation,
    joining: plan.joining,
    extraEndpoints: (plan.mallory ? MALLORY_ENDPOINTS : 0) + (plan.mallory && rights ? REGISTRAR_ENDPOINTS : 0),
    ...(listener ? { listener } : {}),
    observers: (made) => [checkersFor(made, plan), ...(options.observers?.(made) ?? [])],
  });
  const { attackers = [liars()] } = options;
  for (let liar = 0; liar < plan.byzantine; liar++) {
    const { random } = world.scheduler;
    const honest = world.machines.filter((machine) => machine.trusted && memberOf(world.cluster.view, machine.self));
    world.corrupt(random.pick(honest).self, random.pick(attackers));
  }
  let failure: Failure | null = null;
  let recoveryUs: number | null = null;
  try {
    recoveryUs = await phases(world, plan);
  } catch (error) {
    failure = failureOf(error);
    world.trace.event("note", -1, failure.exit, 0, () => `FAILED: ${failure?.message}`);
  }
  return {
    seed,
    failure,
    digest: world.trace.digest(),
    virtualUs: world.nowUs,
    events: world.scheduler.events,
    decided: world.decided,
    regencyChanges: [...world.regencies.values()].reduce((sum, regency) => sum + regency, 0),
    calls: world.calls.length,
    recoveryUs,
    counts: sorted(world),
  };
}

function sorted(world: World): Record<string, number> {
  for (const { outcome } of world.calls) world.trace.count(`calls: ${outcome}`);
  return Object.fromEntries([...world.trace.counts].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** @returns the virtual time that the second phase took */
async function phases(world: World, plan: Plan): Promise<number> {
  const faults = new Faults(world, plan);
  const mallory = plan.mallory ? new Mallory(world) : null;
  const registrar = plan.mallory && plan.rights ? new Registrar(world) : null;
  const reconfigurer = plan.joining > 0 ? new Reconfigurer(world) : null;
  world.start();
  mallory?.start();
  registrar?.start();
  reconfigurer?.start();
  faults.start();
  const safeUs = world.nowUs + plan.safetyUs;
  await world.run({ untilUs: safeUs });
  const correct = faults.heal();
  // A change that was ordered last may still come.
  const live = (): Machine[] => correct.filter(({ self }) => memberOf(world.view, self));
  mallory?.stop();
  registrar?.stop();
  reconfigurer?.stop();
  world.tell((observer) => observer.healed?.({ nowUs: world.nowUs }));
  world.trace.event(
    "note",
    -1,
    live().length,
    0,
    () =>
      `healed; ${live()
        .map((machine) => machine.name)
        .join(", ")} live on`,
  );
  const liveIds = live().map(({ self }) => self);
  for (const client of world.clients) {
    client.returns(world.chain, liveIds);
    client.finish();
  }
  const healedUs = world.nowUs;
  const untilUs = healedUs + LIVENESS_US;
  const done = (): boolean => world.clients.every((client) => client.finished) && world.converged(live());
  await world.run({ untilUs, done });
  if (!done()) throw stall(world, live());
  const recoveryUs = world.nowUs - healedUs;
  await settle(world, live, untilUs + LIVENESS_US);
  world.tell((observer) => observer.ended?.({ nowUs: world.nowUs }));
  world.trace.count("changes of the view", world.view.id);
  world.trace.count(`linearizability: ${assertLinearizable(world.calls, { stepsMax: SEARCH_STEPS_MAX })}`);
  return recoveryUs;
}

/**
 * All states are on disk and the same; whoever still abstained has stopped to, so nothing is ordered any more. Where the leader is
 * dead or lies and nobody asks for anything, one who abstains waits for the next request: one alone cannot change the leader.
 */
async function settle(world: World, live: () => readonly Machine[], untilUs: number): Promise<void> {
  const settled = (): boolean =>
    world.converged(live()) &&
    world.clients.every((client) => client.finished) &&
    live().every(({ replica, storage }) => {
      if (!replica) return false;
      const { forgotten, heard, synchronized, abstainingUntil } = replica.core.state;
      if (forgotten || !heard || !synchronized || abstainingUntil > 0) return false;
      return storage?.state.applied.instance === replica.core.lastDecided;
    });
  while (world.nowUs < untilUs) {
    await world.run({ untilUs: world.nowUs + SETTLE_US });
    if (settled()) {
      await world.compareStates(live());
      return;
    }
    const leader = live()[0]?.replica?.core.state.leader;
    const [client] = world.clients;
    if (client?.finished && !live().some(({ self }) => self === leader)) client.write();
  }
  throw stall(world, live());
}

function stall(world: World, live: readonly Machine[]): Stall {
  const waiting = world.clients.flatMap((client, number) => (client.finished ? [] : [`client ${number}`]));
  const who = waiting.length > 0 ? `unfinished: ${waiting.join(", ")}` : "replicas do not converge";
  const { id, mode, f, members } = world.view;
  const view = `view ${id}, ${mode}, f = ${f}, members ${members.map((member) => member.id).join(" ")}`;
  return new Stall(`${who}; ${view}; ${live.map((machine) => world.standing(machine)).join("; ")}`);
}

function checkersFor(world: World, { checkpointPeriod }: Plan): Checkers {
  const { crypto, cluster } = world;
  return new Checkers({
    crypto,
    cluster: cluster.id,
    genesis: cluster.genesis,
    maxClients: cluster.maxClients,
    founding: foundingOf(cluster),
    view: cluster.view,
    views: () => world.views,
    memoryLimits: {
      ...MEMORY_LIMITS,
      logRecords: LOG_PERIODS_MAX * checkpointPeriod + LOG_RECORDS_ON_TOP_MAX + LOG_RECORDS_HELD_MAX,
    },
    livenessUs: LIVENESS_US,
  });
}

function failureOf(error: unknown): Failure {
  const message = error instanceof Error ? error.message : String(error);
  const stack = error instanceof Error ? (error.stack ?? "") : "";
  if (error instanceof Violation) return { exit: 129, message, stack };
  if (error instanceof Stall) return { exit: 128, message, stack };
  const name = error instanceof Error ? `${error.name}: ` : "";
  return { exit: 127, message: `${name}${message}`, stack };
}
