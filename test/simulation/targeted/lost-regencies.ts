/**
 * Every replica in turn leads, takes the waiting request into its batch, and loses its regency before anybody hears of the batch.
 * The request must wait again each time: in the end it is ordered (docs/protocol.md section 5).
 */
import { Stage } from "./stage.ts";

export function lostRegencies(seed: number): void {
  const n = [4, 7][seed % 2] as number;
  const liars = Array.from({ length: Math.floor((n - 1) / 3) }, (_, at) => n - 1 - at);
  const stage = new Stage({ seed, n, liars });
  const { cluster, correct } = stage;
  stage.request();
  cluster.tick(20_000);
  stage.complete();
  stage.drop();
  for (let regency = 1; regency < n; regency++) {
    stage.change(regency, correct);
    stage.deliver({ types: ["STOPDATA"] });
    stage.drop();
  }
  stage.live();
}
