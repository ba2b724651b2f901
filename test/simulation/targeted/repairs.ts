/**
 * What was lost with a link is said again when the link is back, and nobody needs another leader for it; and a replica that
 * abstains after a crash comes to vote again although no client asks for anything (docs/protocol.md section 4).
 */
import type { MessageType } from "../../../protocol/messages.ts";
import { Stall } from "../contract.ts";
import { Stage } from "./stage.ts";

const LOST: readonly MessageType[] = ["PROPOSE", "WRITE", "ACCEPT", "STOPDATA", "SYNC"];

/** As few replicas as can go on: everybody's word is needed. */
function fewest(seed: number): Stage {
  const n = [4, 7][seed % 2] as number;
  const silent = Array.from({ length: Math.floor((n - 1) / 3) }, (_, at) => n - 1 - at);
  return new Stage({ seed, n, liars: silent });
}

/** All links break, and all come back. */
function reconnect({ cluster, correct }: Stage): void {
  for (const a of correct) for (const b of correct) if (a < b) cluster.cut(a, b);
  for (const a of correct) for (const b of correct) if (a < b) cluster.mend(a, b);
}

function expectDecided(stage: Stage, regency: number, what: string): void {
  const { correct } = stage;
  const behind = correct.filter((id) => stage.decided(id) < 1 || stage.replica(id).core.state.regency !== regency);
  if (behind.length > 0)
    throw new Stall(`${what}: replicas ${behind.join(", ")} have not decided in regency ${regency}`);
}

/** In regency 0, all messages of one kind are lost. */
function normalCase(seed: number): void {
  const stage = fewest(seed);
  const lost = LOST.indexOf("PROPOSE") + (seed % 3);
  stage.request();
  stage.cluster.tick(20_000);
  stage.deliver({ types: LOST.slice(0, lost) });
  reconnect(stage);
  stage.deliver();
  expectDecided(stage, 0, `${LOST[lost]} was lost`);
}

/** In the change to regency 1. */
function synchronization(seed: number): void {
  const stage = fewest(seed);
  const lost = LOST.indexOf("STOPDATA") + (seed % 2);
  stage.request();
  stage.change(1, stage.correct);
  stage.deliver({ types: LOST.slice(LOST.indexOf("STOPDATA"), lost) });
  reconnect(stage);
  stage.deliver();
  expectDecided(stage, 1, `${LOST[lost]} was lost`);
}

/** The leader keeps its proposal from one replica, without whose ACCEPT nothing is decided. */
function starved(seed: number): void {
  const n = [4, 7][seed % 2] as number;
  const liars = Array.from({ length: Math.floor((n - 1) / 3) }, (_, at) => at);
  const stage = new Stage({ seed, n, liars });
  const { cluster, correct, guild, random } = stage;
  const without = random.pick(correct);
  const batch = stage.batch(1, stage.wallMs, [stage.request()]);
  const { instance, bytes, envelopes, digest } = batch;
  const place = { view: cluster.view.id, regency: 0, instance };
  const told = correct.filter((id) => id !== without);
  stage.lie(0, told, { type: "PROPOSE", ...place, batch: bytes, envelopes: [...envelopes] });
  // Who wrote first is asked first.
  stage.deliver({ types: ["WRITE"] });
  for (const liar of liars) stage.lie(liar, correct, guild.write(liar, { regency: 0, instance }, digest));
  stage.deliver();
  expectDecided(stage, 0, "the proposal did not reach everybody");
}

/** Somebody crashes and comes back while nothing is asked for. */
function abstention(seed: number): void {
  const stage = new Stage({ seed, n: [4, 7][seed % 2] as number });
  const { cluster, correct, random } = stage;
  stage.request();
  stage.pass(100);
  const back = random.pick(correct.slice(1));
  cluster.crash(back);
  cluster.restart(back);
  stage.pass(2_000);
  const until = stage.replica(back).core.state.abstainingUntil;
  if (until > 0) throw new Stall(`replica ${back} abstains until ${until}, which never comes`);
}

export function repairs(seed: number): void {
  normalCase(seed);
  synchronization(seed);
  starved(seed);
  abstention(seed);
}
