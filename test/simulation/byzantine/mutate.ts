/**
 * Small-scope mutation: one field of a message, whatever it is, changed as little as can be. Numbers move by one or to an
 * end of their range, byte strings and digests lose or flip a bit, lists lose, repeat or swap an element, what may be null
 * becomes null. Every result can still be encoded: it is a lie, not garbage.
 */
import { type Digest, latin1 } from "../../../protocol/bytes.ts";
import { isRejection } from "../../../protocol/errors.ts";
import { decodeMessage, encodeMessage, type Message } from "../../../protocol/messages.ts";
import type { Random } from "../random.ts";

type Field = number | string | Uint8Array | null | readonly Field[] | { readonly [name: string]: Field };

const U32_MAX = 0xffff_ffff;
const TRIES = 4;

/** The same message but for one field; null when no try could be encoded. */
export function mutated(message: Message, random: Random): Message | null {
  const { type, ...fields } = message;
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const changed = { type, ...(altered(fields as unknown as Field, random) as object) } as Message;
    const sound = encodable(changed);
    if (sound) return sound;
  }
  return null;
}

/** As it arrives: null when nobody could decode it. */
export function encodable(message: Message): Message | null {
  try {
    const decoded = decodeMessage(encodeMessage(message));
    return isRejection(decoded) ? null : decoded;
  } catch {
    return null;
  }
}

function altered(value: Field, random: Random): Field {
  if (typeof value === "number") return number(value, random);
  if (typeof value === "string")
    return latin1(
      flipped(
        Uint8Array.from(value, (letter) => letter.charCodeAt(0)),
        random,
      ),
    ) as Digest;
  if (value instanceof Uint8Array) return bytes(value, random);
  if (value === null) return null;
  if (Array.isArray(value)) return list(value, random);
  const entries = Object.entries(value);
  const at = random.below(entries.length);
  return Object.fromEntries(entries.map(([name, inner], index) => [name, index === at ? field(inner, random) : inner]));
}

/** A record or list within a record may also vanish as a whole. */
function field(value: Field, random: Random): Field {
  const isRecord =
    typeof value === "object" && value !== null && !(value instanceof Uint8Array) && !Array.isArray(value);
  return isRecord && random.chance(0.3) ? null : altered(value, random);
}

function number(value: number, random: Random): number {
  const roll = random.below(8);
  if (roll < 3) return value + 1;
  if (roll < 6) return Math.max(0, value - 1);
  return roll === 6 ? 0 : U32_MAX;
}

function bytes(value: Uint8Array, random: Random): Uint8Array {
  return random.chance(0.8) || value.length === 0 ? flipped(value, random) : value.slice(0, random.below(value.length));
}

function flipped(value: Uint8Array, random: Random): Uint8Array {
  const copy = Uint8Array.from(value);
  if (copy.length === 0) return copy;
  const at = random.below(copy.length);
  copy[at] = (copy[at] as number) ^ (1 << random.below(8));
  return copy;
}

function list(value: readonly Field[], random: Random): readonly Field[] {
  if (value.length === 0) return value;
  const at = random.below(value.length);
  const element = value[at] as Field;
  switch (random.below(5)) {
    case 0:
      return value.toSpliced(at, 1);
    case 1:
      return value.toSpliced(at, 0, element);
    case 2:
      return value.with(at, value[random.below(value.length)] as Field);
    case 3:
      return value.toReversed();
    default:
      return value.with(at, field(element, random));
  }
}
