/**
 * A value is decided at one replica. The synchronizer of the next regency lies and wants another one: every lie about it must be
 * seen by those who have not decided yet (docs/protocol.md section 5).
 */
import type { Certificate, StopData } from "../../../protocol/messages.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import type { KnownBatch } from "../byzantine/guild.ts";
import { Stage } from "./stage.ts";

const JUNK = new Uint8Array(64).fill(1);

/** What the lies are made of: who has the decided value, and what the liar wants instead. */
interface Plot {
  readonly stage: Stage;
  readonly synchronizer: ReplicaId;
  readonly accepted: readonly StopData[];
  readonly innocent: readonly StopData[];
  readonly wanted: KnownBatch;
}

/** A STOPDATA of the synchronizer itself, for a certificate with these votes. */
function forged({ stage, synchronizer, wanted }: Plot, votes: Certificate["votes"]): StopData {
  const { instance, digest } = wanted;
  return stage.guild.stopData(synchronizer, 1, { view: 0, regency: 0, instance, digest, votes });
}

function ownVote({ stage, synchronizer, wanted }: Plot): Certificate["votes"][number] {
  const { signature } = stage.guild.write(synchronizer, { regency: 0, instance: wanted.instance }, wanted.digest);
  return { replica: synchronizer, signature };
}

/** STOPDATAs that select the wanted batch, if one looks at them carelessly. */
const LIES: Readonly<Record<string, (plot: Plot) => readonly StopData[]>> = {
  "too few STOPDATAs": ({ innocent }) => innocent,
  "STOPDATAs that nobody signed": ({ innocent, accepted }) => [
    ...innocent,
    ...accepted.map(({ replica }) => ({ replica, record: null, signature: JUNK })),
  ],
  "a certificate with false signatures": (plot) => {
    const { stage, innocent, accepted } = plot;
    const members = stage.cluster.view.members.slice(0, stage.cluster.view.quorum);
    const record = forged(
      plot,
      members.map(({ id }) => ({ replica: id, signature: JUNK })),
    );
    return [record, ...innocent.slice(1), ...accepted];
  },
  "a certificate of one voter, again and again": (plot) => {
    const { stage, innocent, accepted } = plot;
    const votes = Array.from({ length: stage.cluster.view.quorum }, () => ownVote(plot));
    return [forged(plot, votes), ...innocent.slice(1), ...accepted];
  },
  "a certificate of too few voters": (plot) => [
    forged(plot, [ownVote(plot)]),
    ...plot.innocent.slice(1),
    ...plot.accepted,
  ],
  "a certificate signed by strangers": (plot) => {
    const { stage, innocent, accepted } = plot;
    const { n, quorum } = stage.cluster.view;
    const { signature } = ownVote(plot);
    const votes = Array.from({ length: quorum }, (_, at) => ({ replica: n + at, signature }));
    return [forged(plot, votes), ...innocent.slice(1), ...accepted];
  },
  "the batch of nobody's record": ({ innocent, accepted }) => [...innocent, ...accepted],
};

export const LIES_ABOUT_SYNC = [...Object.keys(LIES), "no SYNC at all"];

export function falseSynchronization(seed: number): void {
  const lie = LIES_ABOUT_SYNC[seed % LIES_ABOUT_SYNC.length] as string;
  const n = [4, 4, 5, 6, 7][Math.floor(seed / LIES_ABOUT_SYNC.length) % 5] as number;
  const f = Math.floor((n - 1) / 3);
  // Replica 0 leads regency 0, replica 1 synchronizes regency 1.
  const liars = Array.from({ length: f }, (_, at) => at + 1);
  const stage = new Stage({ seed, n, liars });
  const { random, guild, cluster } = stage;
  const { view } = cluster;

  // All but f correct replicas accept the leader's value; it is decided at one of them only.
  const late = stage.correct.slice(-f);
  const early = stage.correct.filter((id) => !late.includes(id));
  stage.request();
  stage.cluster.tick(20_000);
  stage.deliver({ among: early, types: ["PROPOSE", "WRITE"] });
  const value = guild.batches.find((batch) => batch.instance === 1);
  if (!value) throw new Error("nothing was proposed");
  stage.support(0, value, early);
  stage.deliver({ among: early, types: ["WRITE"] });
  const decider = random.pick(early);
  for (const [name, queue] of cluster.links) {
    const [from, to] = name.split(">").map(Number) as [number, number];
    if (to === decider)
      for (const message of queue.splice(0)) if (message.type === "ACCEPT") stage.say(from, to, message);
  }
  stage.complete();
  stage.drop();
  if (stage.decided(decider) !== 1) throw new Error("nothing was decided");

  // Everybody else changes to the regency of the liar.
  const rest = stage.correct.filter((id) => id !== decider);
  for (const id of rest) cluster.cut(decider, id);
  stage.request(rest);
  stage.change(1, rest);
  stage.complete();
  const said = guild.stopDataOf(1);
  const reports = rest.flatMap((id) => said.get(id)?.slice(-1) ?? []);
  const own = liars.map((id) => guild.stopData(id, 1, null));
  const plot: Plot = {
    stage,
    synchronizer: 1,
    accepted: reports.filter(({ record }) => record !== null),
    innocent: [...own, ...reports.filter(({ record }) => record === null)],
    wanted: stage.batch(1, stage.wallMs),
  };
  const { bytes, envelopes } = plot.wanted;
  const place = { view: view.id, regency: 1 };
  const stopData = LIES[lie]?.(plot);
  if (stopData)
    stage.lie(1, rest, { type: "SYNC", ...place, stopData: [...stopData], batch: bytes, envelopes: [...envelopes] });
  else stage.lie(1, rest, { type: "PROPOSE", ...place, instance: 1, batch: bytes, envelopes: [...envelopes] });
  stage.deliver({ among: rest, types: ["WRITE"] });
  stage.support(1, plot.wanted, rest);
  stage.deliver({ among: rest, types: ["WRITE", "ACCEPT"] });
  stage.live();
}
