/** What people are shown of catching up by log (docs/operations.md, `recovery`). */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { byLog, reportCatchingUp } from "../../../server/recovery-report.ts";
import type { TransferProgress } from "../../../server/transfer/transfer.ts";

const PROGRESS = { sources: [0, 2], from: 100, instance: 350, to: 1_100, bytes: 5_000_000, sinceUs: 2_000_000 };
const NOW = { nowUs: 4_000_000, wallMs: 1_700_000_002_000 };

describe("catching up by log", () => {
  it("has a rate, and estimates what is to come by what came", () => {
    expect(byLog(PROGRESS, NOW)).toEqual({
      phase: "log",
      donor: null,
      sources: [0, 2],
      instance: 350,
      bytes: 5_000_000,
      bytesTotal: 20_000_000,
      bytesPerSecond: 2_500_000,
      secondsLeft: 6,
      startedMs: 1_700_000_000_000,
    });
  });

  it("says of nothing learned neither a total nor how long it takes", () => {
    const none = byLog({ ...PROGRESS, instance: 100, bytes: 0, sinceUs: NOW.nowUs }, NOW);
    expect(none).toMatchObject({ bytes: 0, bytesTotal: 0, bytesPerSecond: 0, secondsLeft: null });
  });
});

describe("the log of a replica that catches up", () => {
  beforeEach(() => {
    vi.useFakeTimers({ now: NOW.wallMs });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it("has a line at first, one every five seconds, and one at the end", () => {
    let progress: TransferProgress | null = null;
    const lines: [string, object][] = [];
    const info = (detail: object, message: string) => lines.push([message, detail]);
    const stop = reportCatchingUp(() => progress, { info, warn: info, error: info });
    vi.advanceTimersByTime(3_000);
    expect(lines).toEqual([]);
    progress = byLog(PROGRESS, NOW);
    vi.advanceTimersByTime(11_000);
    progress = null;
    vi.advanceTimersByTime(3_000);
    stop();
    progress = byLog(PROGRESS, NOW);
    vi.advanceTimersByTime(10_000);
    const line = ["catching up by the log of the other replicas", expect.objectContaining({ bytes: 5_000_000 })];
    const end = ["no longer behind the other replicas", { instance: 350, bytes: 5_000_000, seconds: 17 }];
    expect(lines).toEqual([line, line, line, end]);
  });
});
