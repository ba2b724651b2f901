/**
 * Lies that fit every message: silence, delay, repetition, small changes, another message's payload; and lies about
 * heights and history.
 */
import type { Message, MessageType } from "../../../protocol/messages.ts";
import type { Outgoing } from "../contract.ts";
import { mutated } from "./mutate.ts";
import { type Liar, sendTo, someOf, type Tactic } from "./tactic.ts";

const REMEMBERED_MAX = 64;
const DELAY_US_MAX = 3_000_000;
const ORDERING: readonly MessageType[] = ["PROPOSE", "WRITE", "ACCEPT", "STOP", "STOPDATA", "SYNC"];
const ALL: readonly MessageType[] = [
  ...ORDERING,
  "STATUS",
  "FORWARD",
  "FETCH_BATCH",
  "BATCH",
  "FETCH_HISTORY",
  "HISTORY",
  "OFFER",
  "MANIFEST",
  "CHUNK",
  "ROOT",
];

/** Keeps some kinds of messages from some replicas; now and then others. */
export function withholding(liar: Liar): Tactic {
  const { random } = liar;
  const draw = () => ({ from: new Set(someOf(liar)), kinds: new Set(ALL.filter(() => random.chance(0.4))) });
  let silent = draw();
  return {
    personal: true,
    rewrite: ({ to, message }) => (silent.from.has(to) && silent.kinds.has(message.type) ? [] : null),
    idle() {
      if (random.chance(0.05)) silent = draw();
      return [];
    },
  };
}

export function delaying(liar: Liar): Tactic {
  const { random } = liar;
  const kinds = new Set(ORDERING.filter(() => random.chance(0.5)));
  const mostUs = 1 + random.below(DELAY_US_MAX);
  return {
    personal: true,
    rewrite: (outgoing) => (kinds.has(outgoing.message.type) ? [{ ...outgoing, delayUs: random.below(mostUs) }] : null),
  };
}

/** Says again what it said or heard long ago: as it was, or in the regency of today, signed anew. */
export function replaying(liar: Liar): Tactic {
  const { guild, random, self } = liar;
  const remembered: Message[] = [];
  const remember = (message: Message): void => {
    if (remembered.length < REMEMBERED_MAX) remembered.push(message);
    else remembered[random.below(REMEMBERED_MAX)] = message;
  };
  return {
    personal: true,
    rewrite(outgoing) {
      remember(outgoing.message);
      return null;
    },
    observe(_from, message) {
      if (random.chance(0.2)) remember(message);
    },
    idle() {
      if (remembered.length === 0) return [];
      const message = random.pick(remembered);
      const moved = random.chance(0.5)
        ? message
        : guild.resigned(self, { ...message, regency: guild.regency + random.below(2) });
      return sendTo(someOf(liar), [moved]);
    },
  };
}

/** One field by one; half of the lies bear a good signature. */
export function mutation(liar: Liar): Tactic {
  const { guild, random, self } = liar;
  return {
    rewrite({ to, message }) {
      const lie = mutated(message, random);
      if (!lie) return null;
      return [{ to, message: random.chance(0.5) ? guild.resigned(self, lie) : lie }];
    },
  };
}

/** Two messages of a kind exchange what they carry. */
export function swapping(liar: Liar): Tactic {
  const { guild, self } = liar;
  const last = new Map<MessageType, Message>();
  return {
    rewrite({ to, message }) {
      const other = last.get(message.type);
      last.set(message.type, message);
      if (!other || other === message) return null;
      const { view, regency } = message;
      const place = "instance" in message ? { instance: message.instance } : {};
      return [{ to, message: guild.resigned(self, { ...other, view, regency, ...place } as Message) }];
    },
  };
}

/** Heights and regencies that it does not have; votes it claims it may not give. */
export function falseStatus(liar: Liar): Tactic {
  const { guild, self, random } = liar;
  return {
    rewrite({ to, message }) {
      if (message.type !== "STATUS") return null;
      const { type, signature, ...claim } = message;
      const far = random.pick([1, 1, 3, 100, 4_000_000_000]);
      switch (random.below(5)) {
        case 0:
          return [{ to, message: guild.status(self, { ...claim, decided: claim.decided + far }) }];
        case 1:
          return [
            { to, message: guild.status(self, { ...claim, regency: Math.min(0xffff_ffff, claim.regency + far) }) },
          ];
        case 2:
          return [{ to, message: guild.status(self, { ...claim, abstainingUntil: claim.decided + far }) }];
        case 3:
          return [{ to, message: guild.status(self, { ...claim, decided: Math.max(0, claim.decided - far) }) }];
        default:
          return [
            { to, message: guild.status(self, { ...claim, digest: guild.crypto.sha256(Uint8Array.of(far & 255)) }) },
          ];
      }
    },
  };
}

/** Wrong answers to whoever asks for batches and history, and no end of claims to have some. */
export function falseHistory(liar: Liar): Tactic {
  const { guild, random } = liar;
  const wrong = (): Uint8Array => (guild.batches.length > 0 ? random.pick(guild.batches).bytes : new Uint8Array(4));
  return {
    rewrite({ to, message }: Outgoing) {
      if (message.type === "BATCH") return [{ to, message: { ...message, batch: wrong() } }];
      if (message.type !== "HISTORY") return null;
      const certificate = guild.certificates.length > 0 ? random.pick(guild.certificates) : null;
      switch (random.below(4)) {
        case 0:
          return [{ to, message: { ...message, batches: message.batches.map(() => wrong()) } }];
        case 1:
          return [{ to, message: { ...message, proof: certificate ? { links: [], certificate } : null } }];
        case 2:
          return [{ to, message: { ...message, batches: [...message.batches, wrong()] } }];
        default:
          return [{ to, message: { ...message, batches: message.batches.slice(1) } }];
      }
    },
  };
}
