/**
 * Liars ask for other regencies and claim to be in them. Nobody joins for f of them; with one correct replica more they are W: then
 * others join, and install nothing before Q want it (docs/protocol.md section 5).
 */
import type { Message } from "../../../protocol/messages.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import { Violation } from "../contract.ts";
import { Stage } from "./stage.ts";

function expectRegency(stage: Stage, id: ReplicaId, expected: { installed: number; wanted: number }): void {
  const { regency, wantedRegency } = stage.replica(id).core.state;
  if (regency === expected.installed && wantedRegency === expected.wanted) return;
  const { installed, wanted } = expected;
  throw new Violation(
    "regency",
    `replica ${id} has installed ${regency} and wants ${wantedRegency} instead of ${installed} and ${wanted}`,
  );
}

export function regencyClaims(seed: number): void {
  const n = [4, 7, 10][seed % 3] as number;
  const f = Math.floor((n - 1) / 3);
  const liars = Array.from({ length: f }, (_, at) => n - 1 - at);
  const stage = new Stage({ seed, n, liars });
  const { cluster, guild, random, correct } = stage;
  const { view } = cluster;
  const far = random.pick([1, 2, 7, 4_000_000_000]);
  const stop = (regency: number): Message => ({ type: "STOP", view: view.id, regency, named: [] });
  stage.request();
  for (let round = 0; round < 4; round++) {
    for (const liar of liars) {
      const { instance, digest } = stage.replica(0).core.state.lastDecided;
      const claim = { view: view.id, regency: far, decided: instance, digest, abstainingUntil: 0 };
      stage.lie(liar, correct, stop(far));
      stage.lie(liar, correct, guild.status(liar, claim));
    }
    stage.pass(100);
  }
  for (const id of correct) expectRegency(stage, id, { installed: 0, wanted: 0 });

  // The leader gives up its regency: with the liars W want the next one. Its STOP reaches nobody yet.
  cluster.input(stage.replica(0), { type: "draining" });
  stage.complete();
  expectRegency(stage, 0, { installed: 0, wanted: 1 });
  stage.drop();
  // Another correct replica tells of its STOP: whoever hears it joins. Of four that is a quorum already.
  if (n > 4) {
    stage.say(1, 2, stop(1));
    stage.complete();
    expectRegency(stage, 2, { installed: 0, wanted: 1 });
  }
  stage.live();
}
