/**
 * A replica has decided an instance that its slow disk does not hold yet; then it crashes, and the leader tells it another
 * next batch than before. It must not have voted on the next instance at all: after the crash it cannot know, and would vote
 * again (docs/protocol.md section 4.5).
 */
import { Stage } from "./stage.ts";

export function votesBeforeTheJournal(seed: number): void {
  const n = [4, 7][seed % 2] as number;
  const liars = Array.from({ length: Math.floor((n - 1) / 3) }, (_, at) => at);
  const stage = new Stage({ seed, n, liars });
  const { cluster, correct, random, guild } = stage;
  const victim = random.pick(correct);
  const others = correct.filter((id) => id !== victim);
  const { view } = cluster;
  const request = stage.request();
  const first = stage.batch(1, stage.wallMs, [request]);
  const propose = (batch: typeof first, to: readonly number[]): void => {
    const place = { view: view.id, regency: 0, instance: batch.instance };
    const { bytes, envelopes } = batch;
    for (const id of to) stage.say(0, id, { type: "PROPOSE", ...place, batch: bytes, envelopes: [...envelopes] });
  };
  const vote = (batch: typeof first, to: readonly number[]): void => {
    const place = { regency: 0, instance: batch.instance };
    for (const liar of liars) {
      for (const id of to) stage.say(liar, id, guild.write(liar, place, batch.digest));
      for (const id of to) stage.say(liar, id, guild.accept(place, batch.digest));
    }
  };

  propose(first, correct);
  vote(first, correct);
  // The others decide; the victim hears of it before its disk has written anything.
  for (let round = 0; round < 4; round++) {
    for (const [name, queue] of cluster.links) {
      const to = Number(name.split(">")[1]);
      if (!correct.includes(to)) continue;
      for (const message of queue.splice(0)) stage.say(Number(name.split(">")[0]), to, message);
    }
    stage.complete(others);
    const { verifying } = stage.replica(victim);
    while (verifying.length > 0) cluster.verifyOne(stage.replica(victim));
  }
  propose(stage.batch(2, stage.wallMs), [victim]);
  if (random.chance(0.5)) cluster.tickOne(stage.replica(victim));
  stage.drop();

  cluster.crash(victim, 0);
  cluster.restart(victim);
  for (const id of others) cluster.mend(victim, id);
  stage.pass(2_000);
  propose(stage.batch(2, stage.wallMs), [victim]);
  stage.complete();
  stage.live();
}
