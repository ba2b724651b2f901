/**
 * Ranges of keys in byte order, and whether prefixes cover them (docs/protocol.md section 2, "Rights"). Pure. Keys are latin1
 * strings, one character per byte.
 */
import { prefixEnd } from "./bytes.ts";

/** Keys in [from, to); `to` null: to the end of all keys. Empty when `to` is not above `from`. */
export interface KeyRange {
  readonly from: string;
  readonly to: string | null;
}

export const EVERY_KEY: KeyRange = { from: "", to: null };

/** Exactly this key: nothing lies between it and the next longer one. */
export function rangeOfKey(key: string): KeyRange {
  return { from: key, to: `${key}\0` };
}

/** Ascending, and none a prefix of another: the one way to write a set of prefixes. */
export function canonicalPrefixes(prefixes: readonly string[]): string[] {
  const canonical: string[] = [];
  for (const prefix of [...prefixes].sort()) {
    const last = canonical.at(-1);
    if (last === undefined || !prefix.startsWith(last)) canonical.push(prefix);
  }
  return canonical;
}

export function areCanonical(prefixes: readonly string[]): boolean {
  const canonical = canonicalPrefixes(prefixes);
  return canonical.length === prefixes.length && canonical.every((prefix, index) => prefix === prefixes[index]);
}

/**
 * Do the canonical `prefixes` together cover every key of the range? Adjacent prefixes join: "a" and "b" cover ["a", "c").
 * An empty range holds no key and is always covered.
 */
export function covers(prefixes: readonly string[], { from, to }: KeyRange): boolean {
  let at = from;
  if (to !== null && at >= to) return true;
  for (const prefix of prefixes) {
    if (prefix > at) return false;
    const end = prefixEnd(prefix);
    if (end === null) return true;
    if (end <= at) continue;
    at = end;
    if (to !== null && at >= to) return true;
  }
  return false;
}
