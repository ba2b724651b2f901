/** One process of a run over many core schedules: runs the seeds it is given. */
import { runCoreSchedule } from "./core-schedules.ts";
import { type Failure, tried } from "./failures.ts";
import { serveTasks } from "./pool.ts";

export interface ScheduleFailure extends Failure {
  readonly name: string;
}

serveTasks((seeds: readonly number[]): ScheduleFailure[] =>
  seeds.flatMap((seed) => {
    const failure = tried(() => runCoreSchedule(seed));
    return failure ? [{ ...failure, name: String(seed) }] : [];
  }),
);
