/** Diagnostics: JSON lines on stderr, pretty on a terminal. Attacker-controlled text is capped before it gets here. */
import { destination, type Logger, pino } from "pino";
import pretty from "pino-pretty";
import type { LogLevel } from "./config.ts";

export function openLogger(options: { level: LogLevel; replica: number }): Logger {
  const stream = process.stderr.isTTY
    ? pretty({ destination: 2, sync: true, ignore: "pid,hostname", colorize: !process.env.NO_COLOR })
    : destination({ dest: 2, sync: true });
  return pino(
    { level: options.level, base: { replica: options.replica }, timestamp: pino.stdTimeFunctions.isoTime },
    stream,
  );
}
