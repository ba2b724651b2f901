/** What the seed of a core schedule stands for: sizes, who lies how, and the rate of each fault, none of them in many runs. */
import type { ReplicaId } from "../../protocol/view.ts";
import { type Character, drawCharacter } from "./byzantine/attacker.ts";
import type { Random } from "./random.ts";

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
  readonly n: number;
  readonly f: number;
  readonly steps: number;
  readonly liars: ReadonlyMap<ReplicaId, Character>;
  readonly rates: FaultRates;
  /** Correct replicas that stay dead in the liveness phase. */
  readonly deadAtLast: number;
  /** May more than f correct replicas be down at once? */
  readonly anybody: boolean;
  readonly skewMsMax: number;
}

export function drawCorePlan(random: Random): CorePlan {
  const n = random.pick([4, 4, 4, 4, 7, 7, 7, 5, 10]);
  const f = Math.floor((n - 1) / 3);
  const liars = new Map<ReplicaId, Character>();
  const count = random.chance(0.65) ? 1 + random.below(f) : 0;
  while (liars.size < count) liars.set(random.below(n), drawCharacter(random));
  // Each kind of fault is missing in many runs: a mix of everything hides what single faults would show.
  const share = 0.2 + random.next() * 0.6;
  const rate = (most: number): number => (random.chance(share) ? random.next() * most : 0);
  return {
    n,
    f,
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
