/** What the seed of a core schedule stands for: sizes, who lies how, and the rate of each fault, none of them in many runs. */
import { faultsTolerated, type Mode, type ReplicaId } from "../../protocol/view.ts";
import { type Character, drawCharacter } from "./byzantine/attacker.ts";
import { type Random, seeded } from "./random.ts";

/** Chances per step. */
export interface FaultRates {
  readonly request: number;
  readonly falseRequest: number;
  readonly cut: number;
  readonly oneWay: number;
  readonly mend: number;
  readonly crash: number;
  readonly cleanStop: number;
  readonly power: number;
  readonly restart: number;
  readonly slow: number;
  readonly duplicate: number;
  readonly reorder: number;
  readonly skew: number;
  /** Time leaps ahead, as if nothing had been delivered for long. */
  readonly leap: number;
  readonly leader: number;
  /** Whoever has just proposed or synchronized goes down, and mostly comes back at once. */
  readonly ambush: number;
}

export interface CorePlan {
  readonly mode: Mode;
  readonly n: number;
  readonly f: number;
  /** Instances per leader where leaders take turns, or 0: the plain fault model. */
  readonly rotation: number;
  readonly steps: number;
  readonly liars: ReadonlyMap<ReplicaId, Character>;
  readonly rates: FaultRates;
  /** Correct replicas that stay dead in the liveness phase. */
  readonly deadAtLast: number;
  /** May more than f correct replicas be down at once? */
  readonly anybody: boolean;
  readonly skewMsMax: number;
}

/** Every fourth seed or so is one of crash mode: by the seed alone, so that nothing else of a schedule depends on it. */
function coreModeOf(seed: number): Mode {
  return seeded(seed).chance(0.25) ? "cft" : "bft";
}

const FAULT_MODEL_SALT = 0x5eed;

/**
 * Short turns, so that a run sees many of them. From a generator of its own: what a seed draws besides stays the same. In crash
 * mode leaders do not take turns.
 */
function drawRotation(random: Random, mode: Mode): number {
  return mode === "bft" && random.chance(0.4) ? random.pick([1, 1, 2, 5, 20]) : 0;
}

const SIZES = { bft: [4, 4, 4, 4, 7, 7, 7, 5, 10], cft: [3, 3, 3, 3, 5, 5, 5, 4, 7] } as const;

/** In crash mode nobody lies but clients. */
export function drawCorePlan(random: Random, seed: number): CorePlan {
  const mode = coreModeOf(seed);
  const n = random.pick(SIZES[mode]);
  const f = faultsTolerated({ n, mode });
  const rotation = drawRotation(seeded(seed ^ FAULT_MODEL_SALT), mode);
  const liars = new Map<ReplicaId, Character>();
  const count = mode === "bft" && random.chance(0.65) ? 1 + random.below(f) : 0;
  while (liars.size < count) liars.set(random.below(n), drawCharacter(random, rotation > 0 ? "malicious" : "plain"));
  // Each kind of fault is missing in many runs: a mix of everything hides what single faults would show.
  const share = 0.2 + random.next() * 0.6;
  const rate = (most: number): number => (random.chance(share) ? random.next() * most : 0);
  return {
    mode,
    n,
    f,
    rotation,
    steps: 300 + random.below(1_500),
    liars,
    rates: {
      request: 0.01 + random.next() * 0.03,
      falseRequest: rate(0.02),
      cut: rate(0.02),
      oneWay: rate(0.02),
      mend: 0.005 + random.next() * 0.03,
      crash: rate(0.01),
      cleanStop: rate(0.005),
      power: rate(0.003),
      restart: 0.005 + random.next() * 0.03,
      slow: rate(0.02),
      duplicate: rate(0.03),
      reorder: rate(0.05),
      skew: rate(0.01),
      leap: 0.005 + random.next() * 0.03,
      leader: rate(0.02),
      ambush: rate(0.02),
    },
    deadAtLast: random.below(f - count + 1),
    anybody: random.chance(0.4),
    skewMsMax: 3_000,
  };
}
