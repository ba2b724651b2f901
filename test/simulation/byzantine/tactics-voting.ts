/**
 * Lies about batches and votes: two batches for one place, a vote for whoever wants one, votes long after their time,
 * signatures that belong to somebody else, requests that no client made.
 */
import { type Digest, utf8 } from "../../../protocol/bytes.ts";
import type { Message } from "../../../protocol/messages.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import type { Outgoing } from "../contract.ts";
import type { KnownBatch } from "./guild.ts";
import { type Liar, sendTo, someOf, type Tactic } from "./tactic.ts";
import { fabricatedVariant, type Proposed, validVariant } from "./variants.ts";

const FAVOURS_MAX = 32;
const PLACES_MAX = 64;

interface Faces {
  readonly shown: ReadonlySet<ReplicaId>;
  readonly original: Digest | null;
  readonly variant: KnownBatch;
}

/** Shows another batch to some, or to all, and votes with each side for what it saw. */
export function twoFaced(
  liar: Liar,
  make: (proposed: Proposed) => KnownBatch | null,
  receivers: () => readonly ReplicaId[],
): Tactic {
  const { guild, self } = liar;
  const faces = new Map<string, Faces | null>();
  const facesOf = (place: string, proposed: Proposed): Faces | null => {
    const known = faces.get(place);
    if (known !== undefined) return known;
    const original = guild.learnBatch(proposed.batch, proposed.envelopes)?.digest ?? null;
    const variant = make(proposed);
    const made = variant ? { shown: new Set(receivers()), original, variant } : null;
    faces.set(place, made);
    if (faces.size > PLACES_MAX) faces.delete(faces.keys().next().value as string);
    return made;
  };
  return {
    personal: true,
    rewrite({ to, message }) {
      if (message.type === "PROPOSE" || message.type === "SYNC") {
        const instance = message.type === "SYNC" ? 1 : message.instance;
        const two = facesOf(`${message.regency} ${instance}`, message);
        if (!two?.shown.has(to)) return null;
        const { bytes, envelopes } = two.variant;
        return [{ to, message: { ...message, batch: bytes, envelopes: [...envelopes] } }];
      }
      if (message.type !== "WRITE" && message.type !== "ACCEPT") return null;
      const two = faces.get(`${message.regency} ${message.instance}`);
      if (!two?.shown.has(to) || message.digest !== two.original) return null;
      const { regency, instance } = message;
      const { digest } = two.variant;
      const place = { regency, instance };
      return [
        { to, message: message.type === "WRITE" ? guild.write(self, place, digest) : guild.accept(place, digest) },
      ];
    },
  };
}

/** Two batches for one place. */
export function equivocation(liar: Liar): Tactic {
  return twoFaced(
    liar,
    (proposed) => validVariant(liar, proposed),
    () => someOf(liar),
  );
}

/** Puts words into the mouths of clients. */
export function fabrication(liar: Liar): Tactic {
  const everybody = liar.random.chance(0.7);
  return twoFaced(
    liar,
    (proposed) => fabricatedVariant(liar, proposed),
    () => (everybody ? liar.others : someOf(liar)),
  );
}

/** Votes for whatever it hears of, with those it heard it from: WRITE at least, ACCEPT too. */
export function favours(liar: Liar): Tactic {
  const { guild, self, random } = liar;
  let owed: Outgoing[] = [];
  const owe = (receivers: readonly ReplicaId[], regency: number, instance: number, digest: Digest): void => {
    const place = { regency, instance };
    const votes: Message[] = [guild.write(self, place, digest)];
    if (random.chance(0.5)) votes.push(guild.accept(place, digest));
    owed = [...owed, ...sendTo(receivers, votes)].slice(-FAVOURS_MAX);
  };
  const paid = (): Outgoing[] => {
    const due = owed;
    owed = [];
    return due;
  };
  return {
    personal: true,
    observe(from, message) {
      if (guild.has(from)) return;
      if (message.type === "WRITE" || message.type === "ACCEPT") {
        owe(random.chance(0.5) ? [from] : someOf(liar), message.regency, message.instance, message.digest);
      } else if (message.type === "PROPOSE") {
        const known = guild.learnBatch(message.batch, message.envelopes);
        if (known) owe(someOf(liar), message.regency, message.instance, known.digest);
      }
    },
    rewrite: (outgoing) => (owed.length > 0 ? [outgoing, ...paid()] : null),
    idle: paid,
  };
}

/** Votes for places that are long over, so that certificates are completed late and for few. */
export function lateVotes(liar: Liar): Tactic {
  const { guild, self, random } = liar;
  return {
    idle() {
      const { statements } = guild;
      if (statements.length === 0) return [];
      const { place, digest } = random.pick(statements);
      const votes: Message[] = [guild.write(self, place, digest), guild.accept(place, digest)];
      return sendTo(someOf(liar), random.chance(0.5) ? votes : votes.slice(random.below(2)));
    },
  };
}

/** A signature of somebody else, a digest that nobody wrote, a proposal of one who does not lead. */
export function forgery(liar: Liar): Tactic {
  const { guild, random } = liar;
  let borrowed: Uint8Array | null = null;
  let proposal: Message | null = null;
  return {
    observe(_from, message) {
      if ("signature" in message && random.chance(0.3)) borrowed = message.signature;
      if (message.type === "PROPOSE" && random.chance(0.3)) proposal = message;
    },
    rewrite({ to, message }) {
      if ("signature" in message && borrowed) return [{ to, message: { ...message, signature: borrowed } }];
      if (message.type !== "ACCEPT") return null;
      const digest = guild.crypto.sha256(utf8(`nothing ${random.below(1_000)}`));
      return [{ to, message: { ...message, digest } }];
    },
    idle: () => (proposal ? sendTo(someOf(liar), [{ ...proposal, regency: guild.regency }]) : []),
  };
}
