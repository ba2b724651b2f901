/** Runs seeds in a process of its own for `main.ts`: one in, one report out. */
import { planted } from "./planted.ts";
import { serveTasks } from "./pool.ts";
import { type Report, runSeed } from "./run.ts";

serveTasks<number, Report>((seed) => runSeed({ seed, observers: () => planted(process.env.QUORATE_SIM_PLANT) }));
process.on("disconnect", () => process.exit(0));
