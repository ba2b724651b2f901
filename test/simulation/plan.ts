/**
 * What one seed stands for: sizes, tunables, workload, and the swarm of faults, each kind enabled or not and with a rate
 * of its own. Runs in which few kinds are enabled find what a mix of everything hides.
 */
import type { Mode, ReplicaId } from "../../protocol/view.ts";
import type { ConsensusOptions } from "../../server/consensus/contract.ts";
import { leastPeriod } from "../../server/recovery/schedule.ts";
import type { Workload } from "./client.ts";
import { CALM, type Profile } from "./network.ts";
import { type Random, seeded } from "./random.ts";

/** Faults that come again and again while a run is in its safety phase. */
export const RECURRING = [
  "split",
  "one-way",
  "partial",
  "isolate",
  "bridge",
  "flapping",
  "clog",
  "crash",
  "ambush",
  "power",
  "restart",
  "pause",
  "slow-disk",
  "full-disk",
  "disk-error",
  "state-damage",
  "journal-damage",
  "lost-disk",
  "rollback",
  "transfer-ambush",
  "skew",
  "client-restart",
] as const;
export type Recurring = (typeof RECURRING)[number];

export interface Plan {
  readonly seed: number;
  readonly n: number;
  readonly f: number;
  readonly mode: Mode;
  readonly clients: number;
  readonly workload: Workload;
  readonly consensus: ConsensusOptions;
  /** Instances between two checkpoints of a replica. */
  readonly checkpointPeriod: number;
  readonly signedRequests: boolean;
  /** Instances per leader where leaders take turns, or 0: the plain fault model. */
  readonly rotation: number;
  /** Machines that wait to become members while views change; 0: they do not change. */
  readonly joining: number;
  /** Length of the safety phase. */
  readonly safetyUs: number;
  readonly profile: Profile;
  /** Mean virtual time between two faults of each enabled kind. */
  readonly everyUs: ReadonlyMap<Recurring, number>;
  readonly downUs: number;
  readonly troubleUs: number;
  /** Monotonic clocks run up to this much faster or slower. */
  readonly drift: number;
  /** Replicas that lie, of the f that may. */
  readonly byzantine: number;
  /** Does one client lie as well? */
  readonly mallory: boolean;
  /** Are clients listed, and the lying one granted and revoked? */
  readonly rights: boolean;
  /** Correct replicas that stay dead in the liveness phase, if so many of the f are left. */
  readonly deadAtLast: number;
  /** The replica whose request verifier refuses some of what all others take. */
  readonly picky: ReplicaId | null;
}

const SECOND_US = 1_000_000;
const FAULT_MODEL_SALT = 0x5eed;
const VIEWS_SALT = 0x71e35;

export function drawPlan(seed: number): Plan {
  const plan = drawFaults(seeded(seed));
  // From generators of their own: what a seed stood for before stays.
  const model = seeded(seed ^ FAULT_MODEL_SALT);
  const rotation = plan.mode === "bft" && model.chance(0.25) ? model.pick([1, 2, 5, 20]) : 0;
  const views = seeded(seed ^ VIEWS_SALT);
  const joining = views.chance(0.25) ? views.pick([1, 2, 4]) : 0;
  const checkpointPeriod = Math.max(plan.checkpointPeriod, leastPeriod(plan.n + joining));
  return { ...plan, joining, checkpointPeriod, rotation, signedRequests: plan.signedRequests || rotation > 0 };
}

function drawFaults(random: Random): Plan {
  const n = random.chance(0.75) ? 4 : 7;
  const f = n === 4 || random.chance(0.2) ? 1 : 2;
  const clients = 1 + random.below(3);
  const everyUs = new Map<Recurring, number>();
  // A quarter of all runs is calm apart from one kind of fault; the others draw each kind by itself.
  const only = random.chance(0.25) ? random.pick(RECURRING) : null;
  const share = 0.1 + random.next() * 0.5;
  for (const kind of RECURRING) {
    const enabled = only ? only === kind : random.chance(share);
    const meanUs = (0.7 + random.next() * 6) * SECOND_US;
    if (enabled) everyUs.set(kind, meanUs * (SELDOM.has(kind) ? 3 : 1));
  }
  const plan: Plan = {
    seed: random.below(2 ** 31),
    n,
    f,
    mode: "bft",
    clients,
    workload: drawWorkload(random, clients),
    consensus: drawConsensus(random),
    checkpointPeriod: random.pick([3 * n, 40, 120, 100_000]),
    signedRequests: random.chance(0.2),
    rotation: 0,
    joining: 0,
    safetyUs: (4 + random.next() * 12) * (random.chance(0.15) ? 3 : 1) * SECOND_US,
    profile: only && random.chance(0.5) ? CALM : drawProfile(random),
    everyUs,
    downUs: (0.1 + random.next() * 2) * SECOND_US,
    troubleUs: (0.2 + random.next() * 3) * SECOND_US,
    drift: random.chance(0.3) ? 0.1 : 0,
    byzantine: random.chance(0.5) ? 1 + random.below(f) : 0,
    deadAtLast: random.below(f + 1),
    mallory: random.chance(0.35),
    picky: random.chance(0.3) ? random.below(n) : null,
    rights: random.chance(0.5),
  };
  return random.chance(0.2) ? inCrashMode(plan, random) : plan;
}

/**
 * The same in crash mode: fewer replicas, and none that lies. A disk that goes back in time is no crash fault: nothing proves
 * to its replica that votes of it are missing there (docs/decisions/025; disk-faults.ts has the case of one write).
 */
function inCrashMode(plan: Plan, random: Random): Plan {
  const n = random.pick([3, 3, 3, 4, 5]);
  const f = Math.floor((n - 1) / 2);
  const everyUs = new Map([...plan.everyUs].filter(([kind]) => kind !== "rollback"));
  const deadAtLast = random.below(f + 1);
  return { ...plan, mode: "cft", n, f, everyUs, byzantine: 0, picky: null, deadAtLast };
}

/** Kinds that hit everybody at once, or take long to mend. */
const SELDOM: ReadonlySet<Recurring> = new Set(["power", "full-disk"]);

function drawWorkload(random: Random, clients: number): Workload {
  const callers = 1 + random.below(2);
  return {
    commands: Math.ceil((30 + random.below(60)) / clients),
    callers,
    keys: 1 + random.below(4),
    thinkUs: (0.02 + random.next() * 0.4) * SECOND_US,
    burstMax: random.chance(0.5) ? 1 : 4,
    readShare: 0.2 + random.next() * 0.4,
    orderedReadShare: random.next() * 0.5,
    timeoutMs: 1_000 + random.below(4_000),
  };
}

function drawConsensus(random: Random): ConsensusOptions {
  return {
    batchRequestsMax: random.pick([1, 2, 8, 100]),
    batchBytesMax: 1_000_000,
    batchWaitUs: random.pick([0, 2_000, 20_000]),
    clockDriftMs: 5_000,
    requestTimeoutMs: random.pick([300, 500, 1_000]),
    statusIntervalMs: 250,
    executionLagMax: random.pick([2, 16]),
    emptyLagMax: random.pick([0, 10, 1_000]),
  };
}

function drawProfile(random: Random): Profile {
  const raw = random.chance(0.25);
  const now = (probability: number, most: number): number => (random.chance(probability) ? random.next() * most : 0);
  return {
    minUs: 50 + random.below(500),
    meanUs: 100 + random.next() * random.pick([500, 5_000, 40_000]),
    tailChance: now(0.4, 0.05),
    tailUs: random.next() * SECOND_US,
    breakChance: now(0.4, 0.004),
    lossChance: raw ? now(0.7, 0.1) : 0,
    duplicateChance: raw ? now(0.7, 0.2) : 0,
    reorderChance: raw ? now(0.7, 0.3) : 0,
  };
}
