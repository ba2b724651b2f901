/**
 * Lies about the change of leaders: STOPDATAs that hide, reveal or borrow certificates, SYNCs of any STOPDATAs that add up,
 * STOPs for regencies near and far. Every STOPDATA is signed with a key of the guild: it has its signer.
 */
import { encodeBatch } from "../../../protocol/batch.ts";
import type { Certificate, Message, StopData } from "../../../protocol/messages.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import { selected, synchronizerOf } from "../../../server/consensus/selection.ts";
import type { Outgoing } from "../contract.ts";
import type { KnownBatch } from "./guild.ts";
import { type Liar, sendTo, someOf, type Tactic } from "./tactic.ts";
import { fabricatedVariant, inventedBatch, validVariant } from "./variants.ts";

type Kind = "none" | "hidden" | "seen" | "bent" | "unfounded";
const KINDS: readonly Kind[] = ["none", "hidden", "seen", "bent", "unfounded"];
const KEEPS_TO_ITS_KIND = 0.7;

/** What a liar reports: mostly of one kind. */
function recordsOf(liar: Liar): (regency: number) => Certificate | null {
  const favourite = liar.random.pick(KINDS);
  return (regency) => {
    const kind = liar.random.chance(KEEPS_TO_ITS_KIND) ? favourite : liar.random.pick(KINDS);
    return recordOf(liar, kind, regency);
  };
}

function recordOf(liar: Liar, kind: Kind, regency: number): Certificate | null {
  const { guild, random } = liar;
  const { certificates } = guild;
  switch (kind) {
    case "none":
      return null;
    case "hidden":
      return hidden(liar);
    case "unfounded":
      return unfounded(liar, regency);
    case "seen":
      return certificates.length > 0 ? random.pick(certificates) : null;
    case "bent":
      return certificates.length > 0 ? bent(random.pick(certificates), random.below(6), regency) : null;
  }
}

/** One that the guild's own votes complete, the newest first: nobody else may know it. */
function hidden({ guild, random }: Liar): Certificate | null {
  for (const { place, digest } of guild.statements.toReversed()) {
    const certificate = random.chance(0.5) ? guild.certify(place, digest) : null;
    if (certificate) return certificate;
  }
  return null;
}

/** A certificate for what too few wrote: too few votes, the same ones again and again, or some in the name of others. */
function unfounded(liar: Liar, regency: number): Certificate | null {
  const { guild, random } = liar;
  const wrong = random.chance(0.5) ? guild.statements.at(-1 - random.below(4)) : null;
  const known = wrong ? guild.batch(wrong.digest) : madeUp(liar);
  if (!known || regency === 0) return null;
  const { instance, digest } = known;
  const newest = random.chance(0.7) ? regency - 1 : random.below(regency);
  const place = { regency: wrong ? wrong.place.regency : newest, instance };
  const { quorum, id: view, members } = guild.view;
  const few = guild.votesFor(place, digest);
  const repeated = Array.from({ length: quorum }, (_, at) => few[at % few.length]);
  const forged = members.map(
    ({ id }) => few.find(({ replica }) => replica === id) ?? { replica: id, signature: few[0]?.signature },
  );
  const shown = random.pick([few, repeated, forged]);
  const votes = shown.flatMap((vote) =>
    vote?.signature ? [{ replica: vote.replica, signature: vote.signature }] : [],
  );
  return { view, ...place, digest, votes: votes.slice(0, quorum) };
}

function madeUp(liar: Liar): KnownBatch | null {
  const { guild, random } = liar;
  if (random.chance(0.4)) return inventedBatch(liar);
  const known = guild.batches.at(-1 - random.below(3));
  if (!known) return null;
  const { bytes: batch, envelopes } = known;
  return random.chance(0.5) ? fabricatedVariant(liar, { batch, envelopes }) : validVariant(liar, { batch, envelopes });
}

/** Seen for one place, shown for another; or with votes that do not add up. */
function bent(certificate: Certificate, how: number, regency: number): Certificate {
  const { votes } = certificate;
  switch (how) {
    case 0:
      return { ...certificate, instance: certificate.instance + 1 };
    case 1:
      return { ...certificate, regency: Math.max(0, regency - 1) };
    case 2:
      return { ...certificate, votes: votes.slice(1) };
    case 3:
      return { ...certificate, votes: votes.map(() => votes[0] as (typeof votes)[number]) };
    case 4:
      return { ...certificate, view: certificate.view + 1 };
    default:
      return { ...certificate, regency };
  }
}

/** Says in its STOPDATA what it likes, and serves the batch of it to whoever asks. */
export function falseStopData(liar: Liar): Tactic {
  const { guild, self } = liar;
  const anyRecord = recordsOf(liar);
  let owed: Outgoing[] = [];
  return {
    rewrite({ to, message }) {
      if (message.type !== "STOPDATA") return null;
      const { regency } = message;
      const { record, signature } = guild.stopData(self, regency, anyRecord(regency));
      return [{ to, message: { ...message, record, signature } }];
    },
    observe(from, message) {
      if (message.type !== "FETCH_BATCH") return;
      const { view, regency, instance, digest } = message;
      const batch = guild.batch(digest)?.bytes;
      if (batch) owed.push({ to: from, message: { type: "BATCH", view, regency, instance, digest, batch } });
    },
    idle() {
      const due = owed;
      owed = [];
      return due;
    },
  };
}

/** STOPDATAs for `regency` that a synchronizer may show: colleagues' in any version, everybody else's as they came. */
function anyStopData(liar: Liar, anyRecord: (regency: number) => Certificate | null, regency: number): StopData[] {
  const { guild, random } = liar;
  const said = new Map<ReplicaId, readonly StopData[]>(guild.stopDataOf(regency));
  for (const id of guild.members) {
    const record = anyRecord(regency);
    said.set(id, [...(said.get(id) ?? []), guild.stopData(id, regency, record)]);
  }
  const members = shuffled([...said.values()], () => random.next());
  const count = Math.min(members.length, guild.view.reachable + random.below(2));
  return members.slice(0, count).map((versions) => random.pick(versions));
}

function shuffled<T>(items: T[], next: () => number): T[] {
  return items
    .map((item) => ({ item, at: next() }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

const SPOILS = ["repeated", "stale", "stranger", "few", "forged none", "forged record"] as const;
type Spoil = (typeof SPOILS)[number];

/** What no correct replica accepts: repeated, stale or foreign STOPDATAs among the others, too few, or forged ones. */
function spoilt(liar: Liar, how: Spoil, stopData: readonly StopData[], regency: number): StopData[] {
  const { guild, random } = liar;
  const [first, ...rest] = stopData;
  if (!first) return [];
  const forged = (record: Certificate | null): StopData[] =>
    // In the name of others, with a signature of our own.
    stopData.map((data) =>
      guild.has(data.replica) ? data : { replica: data.replica, record, signature: first.signature },
    );
  switch (how) {
    case "repeated":
      return [...rest, stopData.at(-1) as StopData];
    case "stale": {
      const regencies = guild.stopDataRegencies;
      const stale = regencies.length > 0 ? [...guild.stopDataOf(random.pick(regencies)).values()].flat() : [];
      return [...rest, stale.length > 0 ? random.pick(stale) : first];
    }
    case "stranger":
      return [...rest, { ...first, replica: guild.view.n + random.below(2) }];
    case "few":
      return rest;
    case "forged none":
      return forged(null);
    case "forged record":
      return forged(unfounded(liar, regency));
  }
}

/** A SYNC of what is at hand; null when too little is. */
type Compose = (regency: number) => Message | null;

function composer(liar: Liar): Compose {
  const { guild, random } = liar;
  const anyRecord = recordsOf(liar);
  const spoil = random.pick(SPOILS);
  const spoiling = random.pick([0, 0.2, 0.8]);
  return (regency) => {
    const gathered = anyStopData(liar, anyRecord, regency);
    if (gathered.length < guild.view.reachable) return null;
    const stopData = random.chance(spoiling) ? spoilt(liar, spoil, gathered, regency) : gathered;
    const selection = selected(stopData);
    const batch = selection && random.chance(0.9) ? guild.batch(selection.digest)?.bytes : freeBatch(liar);
    if (!batch) return null;
    return { type: "SYNC", view: guild.view.id, regency, stopData, batch, envelopes: [] };
  };
}

function freeBatch({ guild, random }: Liar): Uint8Array {
  const known = guild.batches.filter(({ instance }) => instance === 1);
  if (known.length > 0 && random.chance(0.5)) return random.pick(known).bytes;
  return encodeBatch({ instance: 1, timestampMs: random.below(5_000), requests: [] });
}

/** As synchronizer, shows different replicas different SYNCs, each of STOPDATAs that may well be valid. */
export function falseSyncs(liar: Liar): Tactic {
  const { guild, self, others, random } = liar;
  const compose = composer(liar);
  const composed = (receivers: readonly ReplicaId[], regency: number): Outgoing[] => {
    const message = compose(regency);
    return message ? sendTo(receivers, [message]) : [];
  };
  return {
    rewrite({ to, message }) {
      if (message.type !== "SYNC") return null;
      const lie = composed([to], message.regency);
      return lie.length > 0 ? lie : null;
    },
    idle() {
      const { view, regency } = guild;
      const mine = [regency, regency + 1].find((number) => number > 0 && synchronizerOf(view, number) === self);
      if (mine === undefined) return [];
      const first = someOf(liar);
      const rest = others.filter((id) => !first.includes(id));
      return [...composed(first, mine), ...(random.chance(0.5) ? composed(rest, mine) : [])];
    },
  };
}

/** Wants other leaders all the time, soon and in the far future, and blames clients for it. */
export function stopStorm(liar: Liar): Tactic {
  const { guild, random } = liar;
  const far = [1, 1, 2, 7, 1_000_000, 0xffff_ffff];
  return {
    idle() {
      const regency = Math.min(0xffff_ffff, guild.regency + random.pick(far));
      const named = random.chance(0.3) ? [guild.crypto.sha256(Uint8Array.of(random.below(4)))] : [];
      return sendTo(someOf(liar), [{ type: "STOP", view: guild.view.id, regency, named }]);
    },
  };
}
