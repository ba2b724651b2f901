/** Attacks aimed at one rule each come to nothing. Which planted bugs they find: `npm run planted-bugs`. */
import { describe, expect, it } from "vitest";
import { Violation } from "../../simulation/contract.ts";
import { ATTACKS } from "../../simulation/targeted/all.ts";
import { Stage } from "../../simulation/targeted/stage.ts";

/** Every variant of every attack comes up within so many. */
const SEEDS = 42;

describe("targeted attacks", () => {
  for (const [name, attack] of Object.entries(ATTACKS)) {
    it(name, () => {
      for (let seed = 1; seed <= SEEDS; seed++) attack(seed);
    });
  }

  it("run where a broken promise is noticed", () => {
    // Liars may vote, but here are more of them than the view stands: two batches are decided.
    const stage = new Stage({ seed: 1, n: 4, liars: [0, 3] });
    const decide = (timestampMs: number, at: number): void => {
      const batch = stage.batch(1, timestampMs);
      const place = { view: 0, regency: 0, instance: 1, batch: batch.bytes };
      stage.lie(0, [at], { type: "PROPOSE", ...place, envelopes: [] });
      stage.support(0, batch, [at]);
      stage.support(0, batch, [at]);
    };
    decide(stage.wallMs, 1);
    expect(stage.decided(1)).toBe(1);
    expect(() => decide(stage.wallMs + 1, 2)).toThrow(Violation);
  });
});
