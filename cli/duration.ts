/** Durations on the command line: a number with a unit, `500ms`, `3s`, `1.5s`, `1m`, `1h`. */
import { InvalidArgumentError } from "commander";

const UNIT_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;
const DURATION_MS_MAX = 24 * UNIT_MS.h;

/** Milliseconds, at least 1 and at most a day. @throws InvalidArgumentError (a usage error) for anything else. */
export function parseDurationMs(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text);
  if (!match) throw new InvalidArgumentError("Write a number and a unit: 500ms, 3s, 1m.");
  const [, amount, unit] = match as unknown as [string, string, keyof typeof UNIT_MS];
  const durationMs = Math.round(Number(amount) * UNIT_MS[unit]);
  if (durationMs < 1 || durationMs > DURATION_MS_MAX) throw new InvalidArgumentError("It must be from 1ms to 24h.");
  return durationMs;
}

/** The short form for people: `850 ms`, `12.3 s`, `2 min 05 s`, `1 h 02 min`. */
export function formatDurationMs(durationMs: number): string {
  if (durationMs < 1_000) return `${Math.round(durationMs)} ms`;
  if (durationMs < 99_950) return `${(durationMs / 1_000).toFixed(1)} s`;
  const seconds = Math.round(durationMs / 1_000);
  const two = (value: number): string => String(value).padStart(2, "0");
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
  return `${Math.floor(seconds / 3_600)} h ${two(Math.floor((seconds % 3_600) / 60))} min`;
}
