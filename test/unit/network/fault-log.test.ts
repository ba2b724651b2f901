import { beforeEach, describe, expect, test } from "vitest";
import { type Fault, FaultLog } from "../../../server/network/fault-log.ts";

describe("fault log (section 2: logged once per minute per peer, counted always)", () => {
  let nowMs: number;
  let counted: number;
  let lines: Record<string, unknown>[];
  let log: FaultLog;
  const fault = (change: Partial<Fault> = {}): Fault => ({
    source: "link",
    from: 1,
    code: "LINK_MAC",
    remote: "10.0.0.1:4000",
    ...change,
  });

  beforeEach(() => {
    nowMs = 5;
    counted = 0;
    lines = [];
    log = new FaultLog({
      logger: { warn: (fields, message) => lines.push({ ...fields, message }) },
      count: () => counted++,
      now: () => nowMs,
      kindsMax: 4,
    });
  });

  test("the first is written, the rest of the minute only counted, then how many were left out", () => {
    for (let index = 0; index < 100; index++) log.report(fault());
    expect(counted).toBe(100);
    expect(lines).toEqual([
      {
        source: "link",
        from: 1,
        code: "LINK_MAC",
        remote: "10.0.0.1:4000",
        suppressed: 0,
        message: "refused: link LINK_MAC replica 1",
      },
    ]);
    nowMs += 59_999;
    log.report(fault());
    expect(lines.length).toBe(1);
    nowMs += 1;
    log.report(fault());
    expect(lines.length).toBe(2);
    expect(lines[1]).toMatchObject({ suppressed: 100 });
    nowMs += 60_000;
    log.report(fault());
    expect(lines[2]).toMatchObject({ suppressed: 0 });
  });

  test("peers, codes and sources are kept apart", () => {
    log.report(fault());
    log.report(fault({ from: 2 }));
    log.report(fault({ code: "LINK_COUNTER" }));
    log.report(fault({ source: "message" }));
    expect(lines.length).toBe(4);
  });

  test("strangers are told apart by address, not by port", () => {
    for (const remote of ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1"]) log.report(fault({ from: null, remote }));
    for (const remote of ["[::1]:1", "[::1]:2", "::1"]) log.report(fault({ from: null, remote }));
    expect(lines.map((line) => line.remote)).toEqual(["10.0.0.1:1", "10.0.0.2:1", "[::1]:1"]);
  });

  test("many addresses cannot fill memory or the log, and old ones are forgotten", () => {
    for (let index = 0; index < 50; index++) log.report(fault({ from: null, remote: `10.0.1.${index}:1` }));
    expect(lines.length).toBe(4);
    expect(counted).toBe(50);
    nowMs += 60_000;
    log.report(fault({ from: null, remote: "10.0.2.1:1" }));
    expect(lines.length).toBe(5);
  });
});
