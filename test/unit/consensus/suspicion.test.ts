import { describe, expect, it } from "vitest";
import { Suspicion, type Waiting } from "../../../server/consensus/suspicion.ts";

const T_US = 1_000_000;
const START_US = 5_000_000;

const IDLE: Omit<Waiting, "nowUs"> = {
  synced: true,
  acting: 0,
  leading: false,
  oldestDueUs: null,
  neglectedSinceUs: null,
  proposedSinceUs: null,
  behind: false,
  abstaining: false,
};

/** Judged at `START_US`, and again this much later. */
function verdictAfter(
  ageUs: number,
  waiting: Partial<Waiting>,
  before?: (suspicion: Suspicion) => void,
): string | null {
  const suspicion = new Suspicion(T_US / 1000, null);
  suspicion.regencyInstalled(START_US, null);
  before?.(suspicion);
  return suspicion.verdict({ ...IDLE, nowUs: START_US + ageUs, ...waiting });
}

describe("section 5, timer: when a leader has had its time", () => {
  const ROWS: readonly (readonly [string, Partial<Waiting>, number, string])[] = [
    ["a request that W replicas have is due for 2 T", { oldestDueUs: START_US }, 2 * T_US, "REQUEST_OVERDUE"],
    ["a proposal is not decided for 2 T", { proposedSinceUs: START_US }, 2 * T_US, "PROPOSAL_OVERDUE"],
    ["a regency has no SYNC for T", { synced: false }, T_US, "NO_SYNC"],
    ["a request from before counts from when the regency began", { oldestDueUs: 0 }, 2 * T_US, "REQUEST_OVERDUE"],
    ["a proposal likewise", { proposedSinceUs: 0 }, 2 * T_US, "PROPOSAL_OVERDUE"],
    [
      "a request that came later counts from then",
      { oldestDueUs: START_US + 70_000 },
      2 * T_US + 70_000,
      "REQUEST_OVERDUE",
    ],
    ["without its SYNC a leader owes nothing else", { synced: false, oldestDueUs: 0 }, T_US, "NO_SYNC"],
    ["it is judged when it leads itself, too", { leading: true, oldestDueUs: 0 }, 2 * T_US, "REQUEST_OVERDUE"],
  ];
  for (const [rule, waiting, dueUs, verdict] of ROWS) {
    it(`${rule}: ${verdict}, and not before`, () => {
      expect(verdictAfter(dueUs - 1, waiting)).toBeNull();
      expect(verdictAfter(dueUs, waiting)).toBe(verdict);
    });
  }

  it("nobody waits: no leader is blamed, however long", () => {
    expect(verdictAfter(1_000 * T_US, {})).toBeNull();
  });

  it("after a start ages count from the first look, not from time zero", () => {
    const suspicion = new Suspicion(T_US / 1000, null);
    const waiting = { ...IDLE, oldestDueUs: 0 };
    expect(suspicion.verdict({ ...waiting, nowUs: START_US })).toBeNull();
    expect(suspicion.verdict({ ...waiting, nowUs: START_US + 2 * T_US - 1 })).toBeNull();
    expect(suspicion.verdict({ ...waiting, nowUs: START_US + 2 * T_US })).toBe("REQUEST_OVERDUE");
  });

  it("a replica far behind blames nobody for what waits here while it catches up", () => {
    const waiting = { oldestDueUs: START_US, behind: true };
    const decided = (suspicion: Suspicion): void => suspicion.decided(START_US + T_US, null);
    expect(verdictAfter(3 * T_US - 1, waiting, decided)).toBeNull();
    expect(verdictAfter(3 * T_US, waiting, decided)).toBe("REQUEST_OVERDUE");
    expect(verdictAfter(2 * T_US, { ...waiting, behind: false }, decided)).toBe("REQUEST_OVERDUE");
  });

  it("who abstains is owed instances: none for 2 T, and another leader is asked for", () => {
    expect(verdictAfter(2 * T_US - 1, { abstaining: true })).toBeNull();
    expect(verdictAfter(2 * T_US, { abstaining: true })).toBe("ABSTENTION_OVERDUE");
    const decided = (suspicion: Suspicion): void => suspicion.decided(START_US + 1, null);
    expect(verdictAfter(2 * T_US, { abstaining: true }, decided)).toBeNull();
  });

  it("T grows with regencies that decide nothing and falls back with decisions", () => {
    const suspicion = new Suspicion(T_US / 1000, null);
    suspicion.regencyInstalled(START_US, null);
    suspicion.regencyInstalled(START_US, null);
    expect(suspicion.timeoutUs).toBe(2 * T_US);
    const waiting = { ...IDLE, oldestDueUs: START_US };
    expect(suspicion.verdict({ ...waiting, nowUs: START_US + 4 * T_US - 1 })).toBeNull();
    expect(suspicion.verdict({ ...waiting, nowUs: START_US + 4 * T_US })).toBe("REQUEST_OVERDUE");
    suspicion.decided(0, null);
    expect(suspicion.timeoutUs).toBe(T_US);
  });

  it("a leader that lets requests wait is slow, but does not suspect itself; another leader starts anew", () => {
    const late = (suspicion: Suspicion): void => {
      for (let count = 0; count < 8; count++) suspicion.proposedAfter(T_US / 2);
    };
    expect(verdictAfter(0, {}, late)).toBe("SLOW_LEADER");
    expect(verdictAfter(0, { leading: true }, late)).toBeNull();
    const replaced = (suspicion: Suspicion): void => {
      late(suspicion);
      suspicion.regencyInstalled(START_US, null);
    };
    expect(verdictAfter(0, {}, replaced)).toBeNull();
  });
});
