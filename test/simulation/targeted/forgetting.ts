/**
 * A replica said something, stopped in one way or another, and starts again. It must not say something else in the same place,
 * whatever the leader tells it now (docs/protocol.md section 4, "Restart rules").
 */
import type { KnownBatch } from "../byzantine/guild.ts";
import { Stage } from "./stage.ts";

const ENDS = ["crash", "clean stop", "crash, then clean stop", "clean stop, then crash"] as const;

/** A voter whose leader lies to it before and after. */
function voter(seed: number): void {
  const end = ENDS[seed % ENDS.length] as (typeof ENDS)[number];
  const n = [4, 7][Math.floor(seed / ENDS.length) % 2] as number;
  const liars = Array.from({ length: Math.floor((n - 1) / 3) }, (_, at) => at);
  const stage = new Stage({ seed, n, liars });
  const { cluster, random, correct } = stage;
  const { view } = cluster;
  const victim = random.pick(correct);
  const others = correct.filter((id) => id !== victim);
  const propose = ({ instance, bytes, envelopes }: KnownBatch, to: readonly number[]): void => {
    const place = { view: view.id, regency: 0, instance };
    stage.lie(0, to, { type: "PROPOSE", ...place, batch: bytes, envelopes: [...envelopes] });
  };
  const again = (how: "crash" | "clean stop"): void => {
    if (how === "crash") cluster.crash(victim);
    else cluster.stopCleanly(victim);
    cluster.restart(victim);
    stage.complete();
    stage.drop();
  };
  const decided = random.below(2);
  if (decided > 0) {
    const first = stage.batch(1, stage.wallMs, [stage.request()]);
    propose(first, correct);
    stage.support(0, first, correct);
    stage.deliver({ types: ["WRITE"] });
    stage.support(0, first, correct);
    stage.deliver();
  }
  propose(stage.batch(decided + 1, stage.wallMs), [victim]);
  stage.drop();
  for (const id of others) cluster.cut(victim, id);
  if (end.startsWith("crash")) again("crash");
  else again("clean stop");
  if (end.endsWith("then crash")) again("crash");
  if (end.endsWith("then clean stop")) again("clean stop");
  cluster.tick(20_000);
  stage.complete();
  // The victim may have to decide its newest record again before it looks at the next instance.
  for (const id of others) cluster.mend(victim, id);
  stage.deliver({ types: ["ACCEPT"] });
  for (const id of others) cluster.cut(victim, id);
  stage.support(0, stage.batch(decided + 1, stage.wallMs + 1), [victim]);
  propose(stage.batch(decided + 1, stage.wallMs + 1), [victim]);
  stage.live();
}

/** A synchronizer whose SYNC nobody got, or that stopped before it sent one. */
function synchronizer(seed: number): void {
  const n = [4, 7][seed % 2] as number;
  const stage = new Stage({ seed, n });
  const { cluster, correct, random } = stage;
  cluster.crash(0);
  const others = correct.slice(1);
  const again = (how: "crash" | "clean stop", kept?: number): void => {
    if (how === "crash") cluster.crash(1, kept);
    else cluster.stopCleanly(1);
    // What it would choose now is another batch.
    cluster.tick(20_000);
    cluster.restart(1);
  };
  /** STOPDATAs reach it before anybody leaves the regency; its disk is slow. */
  const gather = (): void => {
    for (const from of others) {
      for (const message of cluster.links.get(`${from}>1`)?.splice(0) ?? []) {
        if (message.type === "STOPDATA") stage.say(from, 1, message);
      }
    }
    const replica = stage.replica(1);
    while (replica.verifying.length > 0) cluster.verifyOne(replica);
  };
  stage.request(others);
  stage.change(1, others);
  if (random.chance(0.5)) {
    stage.deliver({ among: others, types: ["STOPDATA"] });
    stage.drop();
    again(random.chance(0.5) ? "crash" : "clean stop");
  } else {
    again("clean stop");
    gather();
    again("crash", 0);
  }
  stage.complete();
  gather();
  stage.live();
}

/** An acceptor of what was not decided: after its restart it knows no more than that. */
function acceptor(seed: number): void {
  const liar = 3;
  const stage = new Stage({ seed, n: 4, liars: [liar] });
  const { cluster, guild } = stage;
  stage.request();
  cluster.tick(20_000);
  stage.deliver({ types: ["PROPOSE"] });
  const [accepted] = guild.batches;
  if (!accepted) throw new Error("nothing was proposed");
  stage.lie(liar, [0], guild.write(liar, { regency: 0, instance: 1 }, accepted.digest));
  stage.deliver({ among: [0, 1], types: ["WRITE"] });
  cluster.crash(0);
  stage.drop();
  stage.change(1, [1, 2]);
  const { record, signature } = guild.stopData(liar, 1, null);
  stage.lie(liar, [1], { type: "STOPDATA", view: 0, regency: 1, record, signature });
  stage.deliver({ among: [1, 2], types: ["STOPDATA", "SYNC"] });
  const chosen = guild.batches.find(({ digest }) => digest !== accepted.digest);
  if (!chosen) throw new Error("nothing was chosen");
  stage.support(1, chosen, [1, 2]);
  stage.deliver({ among: [1, 2], types: ["WRITE"] });
  stage.support(1, chosen, [1, 2]);
  stage.deliver({ among: [1, 2], types: ["ACCEPT"] });
  stage.live();
}

export function forgetting(seed: number): void {
  voter(seed);
  acceptor(seed);
  synchronizer(seed);
}
