/** Numbers on the command line: parsers for commander that refuse anything but the whole text of a number in range. */
import { InvalidArgumentError } from "commander";

/** A parser for a decimal integer from `min` to `max`. */
export function integerIn(range: { min: number; max: number }): (text: string) => number {
  return (text) => {
    const value = /^-?\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= range.min && value <= range.max)) {
      throw new InvalidArgumentError(`It must be an integer from ${range.min} to ${range.max}.`);
    }
    return value;
  };
}

/** A parser for a decimal number from `min` to `max`. */
export function numberIn(range: { min: number; max: number }): (text: string) => number {
  return (text) => {
    const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= range.min && value <= range.max)) {
      throw new InvalidArgumentError(`It must be a number from ${range.min} to ${range.max}.`);
    }
    return value;
  };
}

/** A store revision: a positive integer up to 2^53 - 1. */
export function parseRevision(text: string): bigint {
  if (!/^\d{1,16}$/.test(text)) throw new InvalidArgumentError("A revision is a positive integer.");
  const revision = BigInt(text);
  if (revision < 1n || revision > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new InvalidArgumentError("A revision is a positive integer.");
  }
  return revision;
}

/** `absent`, or a revision. */
export function parseExpectation(text: string): bigint | "absent" {
  return text === "absent" ? text : parseRevision(text);
}
