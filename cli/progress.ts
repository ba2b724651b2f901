/** A progress line on stderr, only when it is a terminal: count, rate and time left, rewritten in place. */
import { formatDurationMs } from "./duration.ts";
import type { Io } from "./io.ts";

const REDRAW_MS = 200;

export interface ProgressState {
  /** What was done, in the progress's own unit. */
  readonly count: number;
  /** From 0 to 1, or null when the end is not known. */
  readonly share: number | null;
}

export interface Progress {
  /** Draws the line, at most five times a second; `read` is called only when it is drawn. */
  update(read: () => ProgressState): void;
  /** Erases the line. */
  end(): void;
}

/** A line on stderr, only when it is a terminal, rewritten in place at most five times a second. */
export function lineOn(io: Io, now: () => number = () => performance.now()): StatusLine {
  const { stderr } = io;
  let drawnMs = Number.NEGATIVE_INFINITY;
  let drawn = false;
  if (!stderr.isTTY) return { draw: () => {}, erase: () => {} };
  return {
    draw(read) {
      if (now() - drawnMs < REDRAW_MS) return;
      drawnMs = now();
      drawn = true;
      stderr.write(`\r\x1b[K${read().slice(0, Math.max(20, (stderr.columns ?? 80) - 1))}`);
    },
    erase() {
      if (drawn) stderr.write("\r\x1b[K");
      drawn = false;
    },
  };
}

export interface StatusLine {
  /** `read` is called only when the line is drawn. */
  draw(read: () => string): void;
  erase(): void;
}

export function progressOn(io: Io, options: { label: string; unit: string; now?: () => number }): Progress {
  const { stderr } = io;
  const now = options.now ?? (() => performance.now());
  const startMs = now();
  let drawnMs = startMs;
  let drawn = false;
  if (!stderr.isTTY) return { update: () => {}, end: () => {} };
  return {
    update(read) {
      const nowMs = now();
      if (nowMs - drawnMs < REDRAW_MS) return;
      drawnMs = nowMs;
      drawn = true;
      const line = progressLine({ ...options, ...read(), elapsedMs: nowMs - startMs });
      stderr.write(`\r\x1b[K${line.slice(0, Math.max(20, (stderr.columns ?? 80) - 1))}`);
    },
    end() {
      if (drawn) stderr.write("\r\x1b[K");
      drawn = false;
    },
  };
}

/** `imported 12000 records · 34% · 4000 records/s · 5.8 s left` */
export function progressLine(state: ProgressState & { label: string; unit: string; elapsedMs: number }): string {
  const { label, unit, count, share, elapsedMs } = state;
  const rate = elapsedMs > 0 ? Math.round((count * 1_000) / elapsedMs) : 0;
  const parts = [`${label} ${count} ${unit}`];
  if (share !== null) parts.push(`${Math.floor(share * 100)}%`);
  parts.push(`${rate} ${unit}/s`);
  if (share !== null && share > 0) parts.push(`${formatDurationMs((elapsedMs * (1 - share)) / share)} left`);
  return parts.join(" · ");
}
