/**
 * A replica was cut off; when it is back only liars answer it, and they serve a history that nobody decided. It must learn none
 * of it (docs/protocol.md section 4.7).
 */
import { encodeBatch, historyDigest } from "../../../protocol/batch.ts";
import type { Digest } from "../../../protocol/bytes.ts";
import type { Certificate, HistoryProof, Message } from "../../../protocol/messages.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import { CLUSTER, GENESIS } from "../core-replica.ts";
import { fastCrypto } from "../fast-crypto.ts";
import { Stage } from "./stage.ts";

const JUNK = new Uint8Array(64).fill(1);
const LENGTH = 3;
const ROUNDS = 40;

interface Known {
  readonly instance: number;
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

interface Plot {
  readonly stage: Stage;
  readonly liar: ReplicaId;
  readonly victim: ReplicaId;
  readonly others: readonly ReplicaId[];
  /** What the liars made up. */
  readonly invented: readonly Known[];
}

interface Lie {
  readonly batches: readonly Known[];
  readonly proof: HistoryProof | null;
}

/** A history of the liars' own: empty batches from genesis. */
function invented(timestampMs: number): Known[] {
  const batches: Known[] = [];
  let previous = GENESIS;
  for (let instance = 1; instance <= LENGTH; instance++) {
    const bytes = Uint8Array.from(encodeBatch({ instance, timestampMs, requests: [] }));
    const batchDigest = fastCrypto.sha256(bytes);
    const digest = historyDigest(fastCrypto, { cluster: CLUSTER, instance, previous, batchDigest });
    batches.push({ instance, digest, bytes });
    previous = digest;
  }
  return batches;
}

/** A certificate for the last invented batch proves those before it, if it is one. */
function certified({ invented: batches }: Plot, votes: Certificate["votes"]): Lie {
  const { instance, digest } = batches.at(-1) as Known;
  return { batches, proof: { links: [], certificate: { view: 0, regency: 0, instance, digest, votes } } };
}

function ownVote({ stage, liar, invented: batches }: Plot): Certificate["votes"][number] {
  const { instance, digest } = batches.at(-1) as Known;
  return { replica: liar, signature: stage.guild.write(liar, { regency: 0, instance }, digest).signature };
}

/** Regency 1, with the liars' help: in STOPDATA they claim to have accepted nothing. */
function nextRegency({ stage, others }: Plot): void {
  stage.change(1, others);
  for (const id of stage.liars) {
    const { record, signature } = stage.guild.stopData(id, 1, null);
    stage.lie(id, [1], { type: "STOPDATA", view: 0, regency: 1, record, signature });
  }
  stage.deliver({ among: others, types: ["STOPDATA"] });
}

const LIES: Readonly<Record<string, (plot: Plot) => Lie>> = {
  "no proof": (plot) => ({ batches: plot.invented, proof: null }),
  "false signatures": (plot) => {
    const { members, quorum } = plot.stage.cluster.view;
    const voters = members.slice(0, quorum);
    return certified(
      plot,
      voters.map(({ id }) => ({ replica: id, signature: JUNK })),
    );
  },
  "one voter, again and again": (plot) =>
    certified(
      plot,
      Array.from({ length: plot.stage.cluster.view.quorum }, () => ownVote(plot)),
    ),
  "too few voters": (plot) => certified(plot, [ownVote(plot)]),
  "a certificate of the true history": (plot) => {
    const certificate = plot.stage.guild.certificates.find(({ instance }) => instance === LENGTH);
    return { batches: plot.invented, proof: certificate ? { links: [], certificate } : null };
  },
  "an anchor of the true history": (plot) => {
    // The victim knows a true SYNC by now, and with it a certificate for the last instance.
    const { stage, victim, others } = plot;
    stage.request(others);
    nextRegency(plot);
    const sync = stage.cluster.links.get(`1>${victim}`)?.find(({ type }) => type === "SYNC");
    if (!sync) throw new Error("there is no SYNC");
    stage.say(1, victim, sync);
    stage.complete([victim]);
    return { batches: plot.invented, proof: null };
  },
  "a certificate for its own batch": (plot) => {
    // Written by a quorum in regency 0; then the leader is replaced, and something else is decided in its place.
    const { stage, others } = plot;
    const { guild, cluster } = stage;
    stage.request(others);
    cluster.tick(20_000);
    stage.deliver({ among: others, types: ["PROPOSE"] });
    const written = guild.batches.find(({ instance }) => instance === LENGTH + 1);
    const certificate = written && guild.certify({ regency: 0, instance: LENGTH + 1 }, written.digest);
    if (!written || !certificate) throw new Error("nothing was certified");
    stage.drop();
    nextRegency(plot);
    for (let round = 0; round < ROUNDS && stage.decided(1) <= LENGTH; round++) {
      stage.pass(60, others);
      const other = guild.batches.find(({ instance, digest }) => instance > LENGTH && digest !== written.digest);
      if (other) stage.support(1, other, others);
    }
    if (stage.decided(1) <= LENGTH) throw new Error("nothing was decided in its place");
    const history = guild.batches.filter(({ instance }) => instance <= LENGTH);
    return { batches: [...history, written], proof: { links: [], certificate } };
  },
};

const NAMES = Object.keys(LIES);

export function falseHistory(seed: number): void {
  const name = NAMES[seed % NAMES.length] as string;
  const n = [4, 7, 6][Math.floor(seed / NAMES.length) % 3] as number;
  const f = Math.floor((n - 1) / 3);
  const liars = Array.from({ length: f }, (_, at) => n - 1 - at);
  const stage = new Stage({ seed, n, liars });
  const { cluster, guild, random } = stage;
  // Neither the leader nor the next one.
  const victim = random.pick(stage.correct.slice(2));
  const others = stage.correct.filter((id) => id !== victim);
  for (let instance = 1; instance <= LENGTH; instance++) {
    stage.request(others);
    cluster.tick(20_000);
    stage.deliver({ among: others, types: ["PROPOSE", "WRITE"] });
    const value = guild.batches.find((batch) => batch.instance === instance);
    if (!value) throw new Error("nothing was proposed");
    stage.support(0, value, others);
    stage.deliver({ among: others });
  }
  if (others.some((id) => stage.decided(id) !== LENGTH)) throw new Error("nothing was decided");
  stage.drop();

  const plot: Plot = { stage, liar: liars[0] as ReplicaId, victim, others, invented: invented(stage.wallMs) };
  const { batches, proof } = (LIES[name] as (plot: Plot) => Lie)(plot);
  stage.drop();
  const place = { view: cluster.view.id, regency: 0 };
  const last = batches.at(-1) as Known;
  const claim = { ...place, decided: last.instance, digest: last.digest, abstainingUntil: 0 };
  const previous = GENESIS;
  const answer: Message = {
    type: "HISTORY",
    ...place,
    from: 1,
    previous,
    batches: batches.map(({ bytes }) => bytes),
    proof,
  };
  for (let round = 0; round < ROUNDS; round++) {
    for (const id of liars) stage.lie(id, [victim], guild.status(id, claim));
    cluster.tick(100_000);
    stage.complete();
    for (const id of liars) {
      const asked = cluster.links.get(`${victim}>${id}`)?.some(({ type }) => type === "FETCH_HISTORY");
      if (asked) stage.lie(id, [victim], answer);
    }
    stage.drop();
  }
  stage.live();
}
