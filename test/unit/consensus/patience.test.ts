import { describe, expect, it } from "vitest";
import { Patience } from "../../../server/consensus/patience.ts";

/** "i": another regency is installed; "d": a decision. What T is after each, in units of the first. */
function timeouts(events: string): number[] {
  const patience = new Patience({ self: 0, requestTimeoutMs: 300, statusIntervalMs: 100 });
  return [...events].map((event) => {
    if (event === "i") patience.installed();
    else patience.decided();
    return patience.timeoutUs / 300_000;
  });
}

describe("section 5, timer: T doubles with every regency that ends without a decision, and falls back after progress", () => {
  it("T is the configured time at first, in microseconds", () => {
    expect(new Patience({ self: 0, requestTimeoutMs: 300, statusIntervalMs: 100 }).timeoutUs).toBe(300_000);
  });

  const ROWS: readonly (readonly [string, string, readonly number[]])[] = [
    ["the first leader to go costs nothing: what was before it counts as progress", "i", [1]],
    ["useless regencies double it", "iiii", [1, 2, 4, 8]],
    ["up to a cap", "iiiiiiiii", [1, 2, 4, 8, 16, 32, 32, 32, 32]],
    ["a regency with a decision does not", "idid", [1, 1, 1, 1]],
    ["each decision takes one step back", "iiiiddd", [1, 2, 4, 8, 4, 2, 1]],
    ["never below the first", "ddd", [1, 1, 1]],
    ["one decision long ago is no excuse for the next regency", "idiii", [1, 1, 1, 2, 4]],
    ["after progress it doubles from where it had fallen to", "iiiidii", [1, 2, 4, 8, 4, 4, 8]],
  ];
  for (const [rule, events, expected] of ROWS) {
    it(rule, () => {
      expect(timeouts(events)).toEqual(expected);
    });
  }

  it("who is silent has T as at first, until it is heard again; nobody is silent to itself", () => {
    const patience = new Patience({ self: 0, requestTimeoutMs: 300, statusIntervalMs: 100 });
    for (let count = 0; count < 3; count++) patience.installed();
    expect(patience.timeoutOfUs(1, 1_000_000)).toBe(1_200_000);
    patience.heard(2, 1_500_000);
    expect(patience.timeoutOfUs(1, 2_199_999)).toBe(1_200_000);
    expect(patience.timeoutOfUs(1, 2_200_000)).toBe(300_000);
    expect(patience.timeoutOfUs(2, 2_200_000)).toBe(1_200_000);
    expect(patience.timeoutOfUs(2, 2_700_000)).toBe(300_000);
    expect(patience.timeoutOfUs(0, 2_700_000)).toBe(1_200_000);
    patience.heard(1, 2_700_000);
    expect(patience.timeoutOfUs(1, 2_700_000)).toBe(1_200_000);
  });

  it("heartbeats that are rarer than T leave nobody silent", () => {
    const patience = new Patience({ self: 0, requestTimeoutMs: 50, statusIntervalMs: 250 });
    for (let count = 0; count < 3; count++) patience.installed();
    patience.heard(1, 0);
    expect(patience.timeoutOfUs(1, 1_999_999)).toBe(200_000);
    expect(patience.timeoutOfUs(1, 2_000_000)).toBe(50_000);
  });
});
