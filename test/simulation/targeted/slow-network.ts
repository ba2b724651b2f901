/**
 * Every message takes most of a timeout, and the first leader is dead: no regency that is left after T can order anything. Only
 * growing patience gets through (docs/protocol.md section 5, "Timer").
 */
import { Stall } from "../contract.ts";
import type { CoreCluster } from "../core-cluster.ts";
import { REQUEST_TIMEOUT_MS, Stage } from "./stage.ts";

const ROUNDS_MAX = 1_000;

/** One hop: what is on the way arrives, what is under way completes. */
function hop(stage: Stage, cluster: CoreCluster): void {
  const arriving = [...cluster.links].map(([name, queue]) => ({ name, messages: queue.length }));
  for (const { name, messages } of arriving) for (let left = messages; left > 0; left--) cluster.deliverOne(name);
  stage.complete();
}

export function slowNetwork(seed: number): void {
  const stage = new Stage({ seed, n: [4, 7][seed % 2] as number, liars: [0] });
  const { cluster, correct, random } = stage;
  const hopUs = REQUEST_TIMEOUT_MS * 1000 * (0.6 + 0.3 * random.next());
  stage.request();
  for (let round = 0; round < ROUNDS_MAX; round++) {
    cluster.tick(hopUs);
    hop(stage, cluster);
    if (correct.every((id) => stage.decided(id) > 0)) return;
  }
  throw new Stall(`nothing is decided in ${ROUNDS_MAX} hops of ${Math.round(hopUs / 1000)} ms`);
}
