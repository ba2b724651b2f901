/** The real clock behind the driver's port: monotonic microseconds, wall milliseconds, and deferral to the event loop. */
import type { Clock } from "./driver-contract.ts";

export const realClock: Clock = {
  nowUs: () => Math.floor(performance.now() * 1000),
  wallMs: () => Date.now(),
  defer(callback) {
    setImmediate(callback);
  },
  at(us, callback) {
    const timer = setTimeout(callback, Math.max(0, Math.ceil((us - performance.now() * 1000) / 1000)));
    return () => clearTimeout(timer);
  },
};
