/** `Clock` of a real process: Node or a browser, no node: imports. */
import type { Clock } from "./ports.ts";

const immediate = (globalThis as { setImmediate?: (run: () => void) => unknown }).setImmediate;

/** Browsers have no `setImmediate`; a message to oneself is the next task without the 4 ms floor of `setTimeout`. */
function messageTurns(): (run: () => void) => void {
  const waiting: (() => void)[] = [];
  const channel = new MessageChannel();
  channel.port1.addEventListener("message", () => waiting.shift()?.());
  channel.port1.start();
  return (run) => {
    waiting.push(run);
    channel.port2.postMessage(0);
  };
}

export function systemClock(): Clock {
  return {
    monotonicMs: () => performance.now(),
    wallMs: () => Date.now(),
    after(delayMs, run) {
      const timer = setTimeout(run, delayMs);
      return { cancel: () => clearTimeout(timer) };
    },
    turnEnd: immediate ?? messageTurns(),
    random: () => Math.random(),
  };
}
