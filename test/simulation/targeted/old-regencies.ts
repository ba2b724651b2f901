/**
 * What was said in an earlier regency, where it could do harm in a later one: an ACCEPT that comes late, and a certificate shown
 * as one of another regency (docs/protocol.md sections 4.6 and 5). Four replicas, one of which lies.
 */
import type { ReplicaId } from "../../../protocol/view.ts";
import type { KnownBatch } from "../byzantine/guild.ts";
import { Stage } from "./stage.ts";

function proposed(stage: Stage, other?: KnownBatch): KnownBatch {
  const known = stage.guild.batches.find(({ instance, digest }) => instance === 1 && digest !== other?.digest);
  if (!known) throw new Error("nothing was proposed");
  return known;
}

/** The liar votes WRITE for it. */
function write(stage: Stage, liar: ReplicaId, regency: number, batch: KnownBatch, to: readonly ReplicaId[]): void {
  stage.lie(liar, to, stage.guild.write(liar, { regency, instance: batch.instance }, batch.digest));
}

/** The liar reports to a synchronizer that it accepted nothing. */
function nothing(stage: Stage, liar: ReplicaId, regency: number, synchronizer: ReplicaId): void {
  const { record, signature } = stage.guild.stopData(liar, regency, null);
  stage.lie(liar, [synchronizer], { type: "STOPDATA", view: 0, regency, record, signature });
}

/**
 * Replica 0 accepts x in regency 0, which with the liar's ACCEPT is no quorum; replica 1 y in regency 1, replica 2 x in regency 2.
 * The late ACCEPT of replica 0 would make three for x, which nobody's record protects: regency 3 goes on with y.
 */
function lateAccept(seed: number): void {
  const liar = 3;
  const stage = new Stage({ seed, n: 4, liars: [liar] });
  const { cluster, guild } = stage;
  stage.request();
  cluster.tick(20_000);
  stage.deliver({ types: ["PROPOSE"] });
  const x = proposed(stage);
  write(stage, liar, 0, x, [0]);
  stage.deliver({ among: [0, 1], types: ["WRITE"] });
  const late = cluster.links.get("0>2")?.find(({ type }) => type === "ACCEPT");
  if (!late) throw new Error("replica 0 did not accept");
  stage.lie(liar, [0], guild.accept({ regency: 0, instance: 1 }, x.digest));
  // Replica 1 may have accepted as well: its journal did not hold it when it crashed.
  stage.drop();

  stage.change(1, [1, 2]);
  nothing(stage, liar, 1, 1);
  stage.deliver({ among: [1, 2], types: ["STOPDATA", "SYNC"] });
  const y = proposed(stage, x);
  write(stage, liar, 1, y, [1]);
  cluster.block(1, 2);
  stage.deliver({ among: [1, 2], types: ["WRITE"] });
  stage.drop();

  cluster.mend(1, 2);
  stage.drop();
  stage.change(2, [0, 2]);
  nothing(stage, liar, 2, 2);
  stage.deliver({ among: [0, 2], types: ["STOPDATA", "SYNC"] });
  cluster.block(2, 0);
  write(stage, liar, 2, x, [2]);
  stage.deliver({ among: [0, 2], types: ["WRITE"] });
  stage.lie(liar, [2], guild.accept({ regency: 2, instance: 1 }, x.digest));
  stage.say(0, 2, late);
  stage.complete();
  stage.drop();

  cluster.mend(2, 0);
  stage.drop();
  stage.change(3, [0, 1]);
  stage.complete();
  const said = guild.stopDataOf(3);
  const reports = [0, 1].flatMap((id) => said.get(id)?.slice(-1) ?? []);
  const stopData = [...reports, guild.stopData(liar, 3, null)];
  stage.lie(liar, [0, 1], { type: "SYNC", view: 0, regency: 3, stopData, batch: y.bytes, envelopes: [] });
  stage.deliver({ among: [0, 1], types: ["WRITE"] });
  stage.support(3, y, [0, 1]);
  stage.deliver({ among: [0, 1], types: ["WRITE", "ACCEPT"] });
  stage.live();
}

/** y is certified in regency 0 for the liar alone; x is decided in regency 1. The liar shows its certificate as one of regency 1. */
function movedCertificate(seed: number): void {
  const liar = 2;
  const stage = new Stage({ seed, n: 4, liars: [liar] });
  const { cluster, guild, correct } = stage;
  stage.request();
  cluster.tick(20_000);
  stage.deliver({ types: ["PROPOSE"] });
  const y = proposed(stage);
  const certificate = guild.certify({ regency: 0, instance: 1 }, y.digest);
  if (!certificate) throw new Error("nothing was certified");
  stage.drop();

  stage.change(1, correct);
  stage.deliver({ types: ["STOPDATA"] });
  stage.deliver({ among: [0, 1], types: ["SYNC"] });
  const x = proposed(stage, y);
  write(stage, liar, 1, x, [0, 1]);
  stage.deliver({ among: [0, 1], types: ["WRITE"] });
  for (const message of cluster.links.get("0>1") ?? []) if (message.type === "ACCEPT") stage.say(0, 1, message);
  stage.lie(liar, [1], guild.accept({ regency: 1, instance: 1 }, x.digest));
  stage.drop();
  if (stage.decided(1) !== 1) throw new Error("nothing was decided");

  stage.change(2, [0, 3]);
  stage.complete();
  const said = guild.stopDataOf(2);
  const reports = [3, 0].flatMap((id) => said.get(id)?.slice(-1) ?? []);
  const stopData = [guild.stopData(liar, 2, { ...certificate, regency: 1 }), ...reports];
  stage.lie(liar, [0, 3], { type: "SYNC", view: 0, regency: 2, stopData, batch: y.bytes, envelopes: [] });
  stage.deliver({ among: [0, 3], types: ["WRITE"] });
  stage.support(2, y, [0, 3]);
  stage.deliver({ among: [0, 3], types: ["WRITE", "ACCEPT"] });
  stage.live();
}

export function oldRegencies(seed: number): void {
  lateAccept(seed);
  movedCertificate(seed);
}
