/**
 * Crash mode, where a leader's proposal is accepted as it stands (docs/protocol.md section 4, "Crash mode"): who crashes when just
 * enough, or not enough, have accepted; and a leader that does not know any more what it proposed.
 */
import type { ReplicaId } from "../../../protocol/view.ts";
import { Stage } from "./stage.ts";

const SIZES = [3, 5, 7] as const;

function stageOf(seed: number): Stage {
  return new Stage({ seed, n: SIZES[seed % SIZES.length] as number, mode: "cft" });
}

/** The leader proposes, and of its followers these get it and have it on disk. Nothing else is on the way then. */
function propose(stage: Stage, accepting: readonly ReplicaId[]): void {
  stage.cluster.tick(20_000);
  stage.deliver({ among: [0, ...accepting], types: ["PROPOSE"] });
  stage.complete(accepting);
}

/** Q have accepted and one of them has decided; f of the Q crash. What is left goes on with that batch. */
function barelyDecided(seed: number): void {
  const stage = stageOf(seed);
  const { cluster, correct, random } = stage;
  const { quorum, f } = cluster.view;
  const acceptors = correct.slice(0, quorum);
  stage.request();
  propose(stage, acceptors);
  stage.deliver({ among: acceptors, types: ["ACCEPT"] });
  stage.drop();
  const survivor = random.pick(acceptors);
  const victims = acceptors.filter((id) => id !== survivor).slice(0, f);
  for (const id of victims) cluster.crash(id);
  const others = correct.filter((id) => !victims.includes(id));
  stage.request(others);
  stage.change(1, others);
  stage.pass(4_000, others);
  stage.live();
}

/** The leader alone has its batch on disk, and crashes; the others decide another one. Then it comes back. */
function lonelyRecord(seed: number): void {
  const stage = stageOf(seed);
  const { cluster, correct } = stage;
  const others = correct.slice(1);
  stage.request();
  propose(stage, []);
  stage.complete([0]);
  stage.drop();
  cluster.crash(0);
  stage.change(1, others);
  stage.pass(1_000, others);
  stage.live();
}

/** The leader's proposal reached some, or nobody; it crashes before anything is on its disk, and is asked again at once. */
function forgetfulLeader(seed: number): void {
  const stage = stageOf(seed);
  const { cluster, correct, random } = stage;
  const reached = correct.slice(1).filter(() => random.chance(0.4));
  stage.request();
  cluster.tick(20_000);
  for (const to of reached) {
    for (const message of cluster.links.get(`0>${to}`)?.splice(0) ?? []) stage.say(0, to, message);
  }
  cluster.crash(0, 0);
  stage.drop();
  cluster.restart(0);
  stage.request([0]);
  cluster.tick(20_000);
  stage.complete([0, ...reached]);
  stage.live();
}

/** All lose power when any number of them has accepted; f never come back before the others have gone on. */
function powerCut(seed: number): void {
  const stage = stageOf(seed);
  const { cluster, correct, random } = stage;
  const { f } = cluster.view;
  const first = stage.request();
  stage.pass(1_000);
  if (!correct.every((id) => stage.replica(id).executedKeys.has(first.key))) throw new Error("nothing was decided");
  stage.request();
  propose(
    stage,
    correct.filter(() => random.chance(0.6)),
  );
  if (random.chance(0.5)) stage.deliver({ types: ["ACCEPT"] });
  stage.drop();
  for (const id of correct) cluster.crash(id);
  const gone = new Set<ReplicaId>();
  while (gone.size < f) gone.add(random.below(correct.length));
  const back = correct.filter((id) => !gone.has(id));
  for (const id of back) cluster.restart(id);
  stage.request(back);
  stage.pass(6_000, back);
  stage.live();
}

export function crashMode(seed: number): void {
  barelyDecided(seed);
  lonelyRecord(seed);
  forgetfulLeader(seed);
  powerCut(seed);
}
