/** How far this replica is with coming back, by log as by a fetched checkpoint: the same words for people, metrics and the log. */
import type { DriverLogger } from "./driver-contract.ts";
import type { LogProgress } from "./recovery/log-progress.ts";
import type { TransferProgress } from "./transfer/transfer.ts";

const LOOK_MS = 1_000;
/** One line in so many looks. */
const LOOKS_PER_LINE = 5;

/** Catching up by log as the phase of a transfer that has no donor. What is still to come is estimated by what came so far. */
export function byLog(
  progress: LogProgress,
  now: { readonly nowUs: number; readonly wallMs: number },
): TransferProgress {
  const { sources, instance, from, to, bytes, sinceUs } = progress;
  const seconds = (now.nowUs - sinceUs) / 1_000_000;
  const learned = instance - from;
  const bytesTotal = learned > 0 ? Math.round((bytes * (to - from)) / learned) : 0;
  return {
    phase: "log",
    donor: null,
    sources,
    instance,
    bytes,
    bytesTotal,
    bytesPerSecond: seconds > 0 ? Math.round(bytes / seconds) : 0,
    secondsLeft: learned > 0 ? Math.ceil(((to - instance) * seconds) / learned) : null,
    startedMs: Math.round(now.wallMs - seconds * 1_000),
  };
}

/** Says so in the log while it lasts, every five seconds, and when it is over; returns a function that ends it. */
export function reportCatchingUp(progress: () => TransferProgress | null, logger: DriverLogger): () => void {
  let looks = 0;
  let last: TransferProgress | null = null;
  const timer = setInterval(() => {
    const now = progress();
    if (now && looks++ % LOOKS_PER_LINE === 0) logger.info({ ...now }, "catching up by the log of the other replicas");
    if (!now && last) {
      const { startedMs, bytes, instance } = last;
      logger.info(
        { instance, bytes, seconds: (Date.now() - startedMs) / 1_000 },
        "no longer behind the other replicas",
      );
      looks = 0;
    }
    last = now;
  }, LOOK_MS);
  return () => clearInterval(timer);
}
