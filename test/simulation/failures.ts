/** How a failed run is reported: which kind, what to exit with, and where it came from. */
import { Stall, Violation } from "./contract.ts";

export interface Failure {
  readonly exit: 127 | 128 | 129;
  readonly text: string;
}

/** 129: a promise was broken; 128: something stalled; 127: something threw. */
export function failureOf(error: unknown): Failure {
  if (error instanceof Violation) return { exit: 129, text: error.message };
  if (error instanceof Stall) return { exit: 128, text: `stall: ${error.message}` };
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { exit: 127, text: `crash: ${text}` };
}

/** The failure of `run`, or null when it ends well. */
export function tried(run: () => unknown): Failure | null {
  try {
    run();
    return null;
  } catch (error) {
    return failureOf(error);
  }
}
