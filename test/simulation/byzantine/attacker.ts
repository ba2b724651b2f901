/**
 * A Byzantine replica: correct code behind a router that lies. Which lies, and how often, is drawn once, so that one seed
 * has a liar with a character: most know few tricks and use them often.
 */
import type { Message } from "../../../protocol/messages.ts";
import type { FaultModel, ReplicaId } from "../../../protocol/view.ts";
import type { Attacker, Outgoing } from "../contract.ts";
import type { Random } from "../random.ts";
import type { Guild, Sign } from "./guild.ts";
import { encodable } from "./mutate.ts";
import type { Liar, Tactic } from "./tactic.ts";
import { delaying, falseHistory, falseStatus, mutation, replaying, swapping, withholding } from "./tactics-general.ts";
import { censoring, slowLeading } from "./tactics-leading.ts";
import { falseStopData, falseSyncs, stopStorm } from "./tactics-synchronization.ts";
import { badDonor, falseImages, falseOffers, falsePrevious, falseRoots } from "./tactics-transfer.ts";
import { equivocation, fabrication, favours, forgery, lateVotes } from "./tactics-voting.ts";

export const TACTICS = {
  equivocation,
  fabrication,
  favours,
  forgery,
  lateVotes,
  falseStopData,
  falseSyncs,
  stopStorm,
  withholding,
  replaying,
  mutation,
  swapping,
  falseStatus,
  falseHistory,
  falsePrevious,
  falseOffers,
  falseRoots,
  falseImages,
  badDonor,
  delaying,
  censoring,
  slowLeading,
} as const;
export type TacticName = keyof typeof TACTICS;

const NAMES = Object.keys(TACTICS) as TacticName[];
/** What a leader can do in its turn. */
const LEADING: readonly TacticName[] = ["censoring", "slowLeading"];
const ANYWHERE = NAMES.filter((name) => !LEADING.includes(name));
/** More than so many messages for one that correct code wanted to send would drown the run. */
const MULTIPLIED_MAX = 16;

/** How often each lie of a liar is told, and how often all receivers of a message get the same one. */
export interface Character {
  readonly rates: ReadonlyMap<TacticName, number>;
  readonly consistency: number;
}

/** Lies that serve each other: half of all liars have a plan. */
const SCHEMES: readonly (readonly TacticName[])[] = [
  ["equivocation", "favours", "falseStopData", "falseSyncs"],
  ["equivocation", "falseSyncs", "lateVotes"],
  ["falseStopData", "falseSyncs", "stopStorm"],
  ["falseStopData", "withholding", "favours"],
  ["fabrication", "favours", "withholding"],
  ["falseStatus", "falseHistory"],
  ["falseImages", "falseRoots"],
  ["falseOffers", "badDonor"],
  ["falseOffers", "falseRoots", "falsePrevious", "badDonor"],
];

export function drawCharacter(random: Random, faultModel: FaultModel): Character {
  const rates = new Map<TacticName, number>();
  const scheme = random.chance(0.5) ? random.pick(SCHEMES) : [];
  const tricks = scheme.length > 0 ? random.below(2) : 1 + random.below(5);
  for (const name of scheme) rates.set(name, random.pick([0.3, 0.7, 1]));
  for (let trick = 0; trick < tricks; trick++) rates.set(random.pick(ANYWHERE), random.pick([0.05, 0.3, 0.7, 1]));
  if (faultModel === "malicious" && random.chance(0.5)) rates.set(random.pick(LEADING), random.pick([0.5, 1]));
  return { rates, consistency: random.pick([0, 0.5, 0.9, 1]) };
}

/** In words, for traces. */
export function describe({ rates, consistency }: Character): string {
  return `${[...rates].map(([trick, rate]) => `${trick} ${rate}`).join(", ")}; same to all ${consistency}`;
}

/** Messages that correct code sends to several at once look the same; whoever gets them, the lie may be the same too. */
function likenessOf(message: Message): string {
  const { type, regency } = message;
  const instance = "instance" in message ? message.instance : 0;
  return `${type} ${regency} ${instance} ${"batch" in message ? message.batch.length : 0}${"digest" in message ? message.digest : ""}`;
}

/** The lies of one tactic, at its rate; those about what everybody gets are mostly the same for all. */
class Habit {
  readonly tactic: Tactic;
  readonly rate: number;
  readonly #consistency: number;
  readonly #random: Random;
  #told: { readonly likeness: string; readonly lies: readonly Message[] | null } | null = null;

  constructor(options: { tactic: Tactic; rate: number; consistency: number; random: Random }) {
    this.tactic = options.tactic;
    this.rate = options.rate;
    this.#consistency = options.consistency;
    this.#random = options.random;
  }

  rewrite(outgoing: Outgoing): readonly Outgoing[] {
    const { tactic } = this;
    if (!tactic.rewrite) return [outgoing];
    const { to, message } = outgoing;
    const likeness = likenessOf(message);
    if (this.#told?.likeness === likeness && this.#random.chance(this.#consistency)) {
      return this.#told.lies?.map((lie) => ({ to, message: lie })) ?? [outgoing];
    }
    const lies = this.#random.chance(this.rate) ? tactic.rewrite(outgoing) : null;
    const same = tactic.personal !== true && (lies?.every((lie) => lie.to === to) ?? true);
    this.#told = same ? { likeness, lies: lies?.map((lie) => lie.message) ?? null } : null;
    return lies ?? [outgoing];
  }

  idle(): readonly Outgoing[] {
    return this.tactic.idle && this.#random.chance(this.rate) ? this.tactic.idle() : [];
  }
}

export interface AttackerOptions {
  readonly self: ReplicaId;
  readonly sign: Sign;
  readonly guild: Guild;
  readonly random: Random;
  readonly character: Character;
}

export function attackerOf({ self, sign, guild, random, character }: AttackerOptions): Attacker {
  guild.join(self, sign);
  const others = guild.view.members.map((member) => member.id).filter((id) => id !== self);
  const liar: Liar = { self, others, guild, random };
  const habits: Habit[] = [];
  // In the order of TACTICS: whoever withholds comes after whoever makes up.
  for (const name of NAMES) {
    const rate = character.rates.get(name);
    const { consistency } = character;
    if (rate !== undefined) habits.push(new Habit({ tactic: TACTICS[name](liar), rate, consistency, random }));
  }
  const sound = (outgoing: readonly Outgoing[], original: Message | null): Outgoing[] =>
    outgoing.flatMap(({ message, ...rest }) => {
      const lie = message === original ? message : encodable(message);
      return lie ? [{ ...rest, message: lie }] : [];
    });
  return {
    rewrite(outgoing) {
      guild.see(self, outgoing.message);
      let sent: readonly Outgoing[] = [outgoing];
      for (const habit of habits) {
        sent = sent.flatMap((one) => habit.rewrite(one)).slice(0, MULTIPLIED_MAX);
      }
      return sound(sent, outgoing.message);
    },
    observe(from, message) {
      guild.see(from, message);
      for (const { tactic } of habits) tactic.observe?.(from, message);
    },
    idle() {
      return sound(
        habits.flatMap((habit) => habit.idle()),
        null,
      );
    },
  };
}
