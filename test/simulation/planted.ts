/**
 * A checker that fails on purpose, so that tests see what the command does then. `QUORATE_SIM_PLANT` says how: "violation",
 * "stall" or "crash"; unset in every other run.
 */
import type { RunObserver } from "./checkers/events.ts";
import { Stall, Violation } from "./contract.ts";

/** Late enough that the run is under way. */
const FROM_INSTANCE = 3;

export function planted(kind: string | undefined): RunObserver[] {
  if (kind === undefined) return [];
  const errorOf = (): Error => {
    if (kind === "violation") return new Violation("planted", "a checker that always fails");
    return kind === "stall" ? new Stall("planted: a stall") : new Error("planted: a crash");
  };
  return [
    {
      decided({ instance }) {
        if (instance >= FROM_INSTANCE) throw errorOf();
      },
    },
  ];
}
