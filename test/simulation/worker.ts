/** Runs seeds in a process of its own for `main.ts`: one in, one report out. */
import { planted } from "./planted.ts";
import { runSeed } from "./run.ts";

process.on("message", (seed: number) => {
  const observers = () => planted(process.env.QUORATE_SIM_PLANT);
  runSeed({ seed, observers }).then(
    (report) => process.send?.(report),
    (error: unknown) => {
      console.error(error);
      process.exit(1);
    },
  );
});
process.on("disconnect", () => process.exit(0));
