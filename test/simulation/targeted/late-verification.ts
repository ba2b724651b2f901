/**
 * Signatures are checked on many threads, so one certificate may be found valid long after a later one. It must not go over a
 * record on disk that has come in its place meanwhile (docs/decisions/012). Four replicas, one of which lies.
 */
import type { MessageType } from "../../../protocol/messages.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import type { KnownBatch } from "../byzantine/guild.ts";
import { Stage } from "./stage.ts";

const LIAR = 3;

function proposed(stage: Stage, others: readonly KnownBatch[] = []): KnownBatch {
  const known = stage.guild.batches.find(
    (batch) => batch.instance === 1 && !others.some(({ digest }) => digest === batch.digest),
  );
  if (!known) throw new Error("nothing was proposed");
  return known;
}

/** What these sent it arrives at one replica, whose verifications stay under way. */
function arrive(stage: Stage, from: readonly ReplicaId[], to: ReplicaId, types: readonly MessageType[]): void {
  for (const sender of from) {
    const queue = stage.cluster.links.get(`${sender}>${to}`) ?? [];
    const wanted = queue.filter(({ type }) => types.includes(type));
    stage.cluster.links.set(
      `${sender}>${to}`,
      queue.filter(({ type }) => !types.includes(type)),
    );
    for (const message of wanted) stage.say(sender, to, message);
  }
}

/** Of the verifications under way the last comes first. */
function verifyLast(stage: Stage, id: ReplicaId): void {
  const { verifying } = stage.replica(id);
  const last = verifying.pop();
  if (!last) throw new Error("nothing is being verified");
  verifying.unshift(last);
  stage.cluster.verifyOne(stage.replica(id));
}

function journal(stage: Stage, id: ReplicaId): void {
  while (stage.replica(id).journaling.length > 0) stage.cluster.journalOne(stage.replica(id));
}

function liarWrites(stage: Stage, regency: number, { instance, digest }: KnownBatch, to: ReplicaId): void {
  stage.say(LIAR, to, stage.guild.write(LIAR, { regency, instance }, digest));
}

/** x is accepted by replica 0 in regency 0. */
function acceptedInRegency0(seed: number): { readonly stage: Stage; readonly x: KnownBatch } {
  const stage = new Stage({ seed, n: 4, liars: [LIAR] });
  stage.request();
  stage.cluster.tick(20_000);
  stage.deliver({ types: ["PROPOSE"] });
  const x = proposed(stage);
  liarWrites(stage, 0, x, 0);
  arrive(stage, [1], 0, ["WRITE"]);
  stage.complete();
  stage.drop();
  return { stage, x };
}

/** x is selected in regency 1, and a false signature stands among the WRITEs for it when replica 0 crashes. */
function falseCertificate(seed: number): void {
  const { stage, x } = acceptedInRegency0(seed);
  const { cluster, guild } = stage;
  stage.change(1, [0, 1, 2]);
  stage.deliver({ types: ["STOPDATA"] });
  arrive(stage, [1], 0, ["SYNC"]);
  stage.complete();
  const { instance, digest } = x;
  const write = guild.write(LIAR, { regency: 1, instance }, digest);
  stage.say(LIAR, 0, { ...write, signature: new Uint8Array(64).fill(1) });
  arrive(stage, [1], 0, ["WRITE"]);
  journal(stage, 0);
  stage.drop();
  cluster.crash(0);
  cluster.restart(0);
  stage.drop();
  stage.request();
  stage.change(2, [0, 1, 2]);
  stage.live();
}

/** x is selected in regency 1 and in regency 2; what is known of regency 1 is verified after what is known of regency 2. */
function oldRegency(seed: number): void {
  const { stage, x } = acceptedInRegency0(seed);
  for (const regency of [1, 2]) {
    stage.change(regency, regency === 1 ? [0, 1, 2] : [1, 2]);
    if (regency === 2) {
      // Replica 0 must not verify on the way.
      for (const from of [1, 2]) stage.say(from, 0, { type: "STOP", view: 0, regency, named: [] });
      stage.say(LIAR, 0, { type: "STOP", view: 0, regency, named: [] });
      journal(stage, 0);
    }
    stage.deliver({ among: [0, 1, 2].filter((id) => id !== 0 || regency === 1), types: ["STOPDATA"] });
    arrive(stage, [0], regency, ["STOPDATA"]);
    stage.complete([1, 2]);
    const other = 3 - regency;
    arrive(stage, [regency], other, ["SYNC"]);
    stage.complete([1, 2]);
    arrive(stage, [regency], 0, ["SYNC"]);
    if (regency === 1) stage.complete([0]);
    else verifyLast(stage, 0);
    liarWrites(stage, regency, x, 0);
    arrive(stage, [1, 2], 0, ["WRITE"]);
    if (regency === 1) stage.drop();
  }
  verifyLast(stage, 0);
  journal(stage, 0);
  stage.complete([0]);
  stage.drop();
  stage.cluster.crash(0);
  stage.cluster.restart(0);
  stage.drop();
  stage.request();
  stage.change(3, [0, 1, 2]);
  stage.live();
}

/** Replicas 1 and 2 decide it, with the liar's votes. */
function decide(stage: Stage, regency: number, batch: KnownBatch): void {
  stage.support(regency, batch, [1, 2]);
  stage.deliver({ among: [1, 2], types: ["WRITE"] });
  stage.support(regency, batch, [1, 2]);
  stage.deliver({ among: [1, 2], types: ["WRITE", "ACCEPT"] });
  if ([1, 2].some((id) => stage.decided(id) !== batch.instance)) throw new Error(`${batch.instance} was not decided`);
}

/** y is certified for replica 0 in regency 1; before it has verified that, it learns that z was decided in regency 2,
 * and what follows z. */
function decidedMeanwhile(seed: number): void {
  const { stage, x } = acceptedInRegency0(seed);
  const { cluster, guild } = stage;
  const { record, signature } = guild.stopData(LIAR, 1, null);
  stage.change(1, [0, 1, 2]);
  stage.say(LIAR, 1, { type: "STOPDATA", view: 0, regency: 1, record, signature });
  stage.deliver({ among: [1, 2], types: ["STOPDATA"] });
  const y = proposed(stage, [x]);
  arrive(stage, [1], 0, ["SYNC"]);
  arrive(stage, [1], 2, ["SYNC"]);
  stage.complete();
  liarWrites(stage, 1, y, 0);
  arrive(stage, [1, 2], 0, ["WRITE"]);
  const { length } = stage.replica(0).verifying;
  if (length !== 1) throw new Error("replica 0 has no certificate for y");
  stage.drop();

  for (const id of [1, 2]) cluster.cut(0, id);
  stage.change(2, [1, 2]);
  const none = guild.stopData(LIAR, 2, null);
  stage.say(LIAR, 2, { type: "STOPDATA", view: 0, regency: 2, record: none.record, signature: none.signature });
  stage.deliver({ among: [1, 2], types: ["STOPDATA", "SYNC"] });
  const z = proposed(stage, [x, y]);
  decide(stage, 2, z);
  stage.request([1, 2]);
  cluster.tick(20_000);
  stage.deliver({ among: [1, 2], types: ["PROPOSE"] });
  const next = guild.batches.find((batch) => batch.instance === 2);
  if (!next) throw new Error("nothing follows z");
  decide(stage, 2, next);

  for (const id of [1, 2]) cluster.mend(0, id);
  for (let round = 0; round < 20 && stage.decided(0) < 2; round++) {
    cluster.tick(300_000);
    arrive(stage, [1, 2], 0, ["STATUS"]);
    arrive(stage, [0], 1, ["FETCH_HISTORY"]);
    arrive(stage, [0], 2, ["FETCH_HISTORY"]);
    const before = stage.replica(0).verifying.length;
    arrive(stage, [1, 2], 0, ["HISTORY"]);
    while (stage.replica(0).verifying.length > before) verifyLast(stage, 0);
    journal(stage, 0);
  }
  if (stage.decided(0) !== 2) throw new Error("replica 0 learned nothing");
  cluster.verifyOne(stage.replica(0));
  journal(stage, 0);
  stage.drop();
  cluster.crash(0);
  cluster.restart(0);
  stage.live();
}

export function lateVerification(seed: number): void {
  falseCertificate(seed);
  oldRegency(seed);
  decidedMeanwhile(seed);
}
