/**
 * A planted bug: a rule of the protocol, broken by a change of one or a few lines. Every change names text that occurs
 * exactly once in its file, so that a list that has fallen behind the code fails loudly and never tests nothing.
 */

/** What looks for a planted bug; `hunt.ts` runs it seed after seed. */
export type Suite = "core" | "targeted" | "scenario" | "world" | "unit";

export interface Change {
  /** From the root of the repository. */
  readonly file: string;
  /** Occurs exactly once in `file`. */
  readonly find: string;
  readonly replace: string;
}

export interface Mutation {
  readonly name: string;
  /** What is broken, and where it is demanded. */
  readonly rule: string;
  readonly changes: readonly Change[];
  /** Who is expected to find it. */
  readonly suite: Suite;
  /** Of the suite "unit": the test files, from the root of the repository. */
  readonly tests?: readonly string[];
  /**
   * Only for a rule that another one covers, so that nothing a run can show depends on it: which one, and why. Such a bug
   * is listed and need not be found.
   */
  readonly redundant?: string;
}

/** @throws Error when the text to be changed does not occur exactly once. */
export function changed(text: string, change: Change): string {
  const pieces = text.split(change.find);
  if (pieces.length !== 2) {
    throw new Error(`${change.file}: found ${pieces.length - 1} times instead of once: ${change.find}`);
  }
  return pieces.join(change.replace);
}
