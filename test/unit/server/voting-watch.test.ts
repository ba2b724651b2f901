/** The alarm of a member that does not vote (docs/operations.md, NOT_VOTING). */
import { beforeEach, describe, expect, it } from "vitest";
import { VotingWatch } from "../../../server/voting-watch.ts";

const WALL_MS = 1_700_000_000_000;

describe("the alarm of a replica that does not vote", () => {
  let lines: string[];
  let watch: VotingWatch;
  const at = (seconds: number, state: string): string | null => {
    watch.look({ state, nowMs: seconds * 1_000, wallMs: WALL_MS + seconds * 1_000 });
    return watch.alarm?.code ?? null;
  };

  beforeEach(() => {
    lines = [];
    const say = (level: string) => (_detail: object, message: string) => void lines.push(`${level} ${message}`);
    watch = new VotingWatch({ info: say("info"), warn: say("warn"), error: say("error") });
  });

  it("is raised after two minutes, says since when and as what, and ends with a vote", () => {
    expect([at(0, "voting"), at(10, "synchronizing"), at(129, "synchronizing")]).toEqual([null, null, null]);
    expect(at(130, "synchronizing")).toBe("NOT_VOTING");
    expect(watch.alarm).toMatchObject({ detail: expect.stringContaining("synchronizing"), sinceMs: WALL_MS + 10_000 });
    expect(at(140, "recalling")).toBe("NOT_VOTING");
    expect(watch.alarm).toMatchObject({ detail: expect.stringContaining("recalling"), sinceMs: WALL_MS + 10_000 });
    expect(at(150, "voting")).toBe(null);
    expect(lines).toEqual([expect.stringMatching(/^warn .*synchronizing/), "info this replica does its part again"]);
  });

  it("counts from the last vote, whatever it was in between", () => {
    for (let second = 0; second < 600; second += 10)
      expect(at(second, second % 100 === 0 ? "voting" : "abstaining")).toBe(null);
    expect(lines).toEqual([]);
  });

  it("is not raised where nobody waits for a vote", () => {
    for (const state of ["following", "draining", "disk full", "halted"]) {
      for (let second = 0; second < 600; second += 60) expect(at(second, state)).toBe(null);
    }
  });
});
