/** What a start in a later view remembers of the ones before (docs/protocol.md sections 4 and 7). */
import { describe, expect, it } from "vitest";
import { forgottenAfter, forgottenFrom, startInView } from "../../../server/consensus/restart.ts";
import { GENESIS } from "../../simulation/core-replica.ts";

const LAST = { instance: 9, digest: GENESIS, timestampMs: 0 };
const UNBOUNDED = { until: null, regency: 0 };

describe("section 7: what is forgotten when a view ends", () => {
  it("nothing, where the bound is not above its end: whoever voted in the next view had accepted the end", () => {
    expect(forgottenAfter(9, { until: 9, regency: 4 })).toBeNull();
    expect(forgottenAfter(9, null)).toBeNull();
  });

  it("else the members of the next view are asked too: a bound above the end may hide any vote there", () => {
    expect(forgottenAfter(9, { until: 10, regency: 4 })).toEqual(UNBOUNDED);
    expect(forgottenAfter(9, UNBOUNDED)).toEqual(UNBOUNDED);
  });
});

describe("section 4: a start with a bound on disk", () => {
  it("asks again where an earlier view may have given it", () => {
    expect(forgottenFrom(10, { until: 3, regency: 2 })).toEqual(UNBOUNDED);
    expect(forgottenFrom(10, { until: 10, regency: 2 })).toEqual(UNBOUNDED);
  });

  it("keeps what the members of this view gave", () => {
    expect(forgottenFrom(10, { until: 11, regency: 2 })).toEqual({ until: 11, regency: 2 });
    expect(forgottenFrom(1, { until: 1, regency: 2 })).toEqual({ until: 1, regency: 2 });
    expect(forgottenFrom(10, null)).toBeNull();
  });
});

describe("section 7: the start in the next view", () => {
  const at = { lastDecided: LAST, newest: null, hear: 2, forgotten: null };

  it("has nothing to abstain from where the end of the one before was journaled since the start", () => {
    expect(startInView({ ...at, returning: null })).toMatchObject({ regency: 0, abstainUntil: 9, fresh: true });
  });

  it("is one like after a crash where the journal held that end before", () => {
    const start = startInView({ ...at, returning: { regency: 3, wanted: 4 } });
    expect(start).toMatchObject({ regency: 3, wanted: 4, abstainUntil: 10, fresh: false });
  });
});
