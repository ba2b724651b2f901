/** One process of an exhaustive run of Twins: runs the scenarios it is given by name. */
import { type Failure, tried } from "./failures.ts";
import { serveTasks } from "./pool.ts";
import { runScenario, scenarioOf } from "./twins.ts";

export interface ScenarioFailure extends Failure {
  readonly name: string;
}

serveTasks((names: readonly string[]): ScenarioFailure[] =>
  names.flatMap((name) => {
    const failure = tried(() => runScenario(scenarioOf(name)));
    return failure ? [{ ...failure, name }] : [];
  }),
);
