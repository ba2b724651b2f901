import { describe, expect, it } from "vitest";
import { LeaderRecord, type LedInstance } from "../../../server/consensus/leader-record.ts";
import { Suspicion, type Waiting } from "../../../server/consensus/suspicion.ts";

const T_US = 1_000_000;
const START_US = 5_000_000;
const TIMES = { self: 3, requestTimeoutMs: T_US / 1000, statusIntervalMs: 250 };

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
  const suspicion = new Suspicion(TIMES, null);
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
    const suspicion = new Suspicion(TIMES, null);
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
    const suspicion = new Suspicion(TIMES, null);
    suspicion.regencyInstalled(START_US, null);
    suspicion.regencyInstalled(START_US, null);
    expect(suspicion.timeoutUs).toBe(2 * T_US);
    const waiting = { ...IDLE, oldestDueUs: START_US };
    expect(suspicion.verdict({ ...waiting, nowUs: START_US + 4 * T_US - 1 })).toBeNull();
    expect(suspicion.verdict({ ...waiting, nowUs: START_US + 4 * T_US })).toBe("REQUEST_OVERDUE");
    suspicion.decided(0, null);
    expect(suspicion.timeoutUs).toBe(T_US);
  });

  describe("a leader that was not heard of for 4 T, when T has doubled twice", () => {
    /** The leader was heard at `START_US` last, the regency is installed 4 T later. */
    function silentLeader(): Suspicion {
      const suspicion = new Suspicion(TIMES, null);
      suspicion.regencyInstalled(START_US, null);
      suspicion.heard(0, START_US);
      suspicion.regencyInstalled(START_US, null);
      suspicion.regencyInstalled(START_US + 4 * T_US, null);
      expect(suspicion.timeoutUs).toBe(4 * T_US);
      return suspicion;
    }

    const CASES: readonly (readonly [Partial<Waiting>, number, string])[] = [
      [{ oldestDueUs: START_US }, 6 * T_US, "REQUEST_OVERDUE"],
      [{ proposedSinceUs: START_US }, 6 * T_US, "PROPOSAL_OVERDUE"],
      [{ synced: false }, 5 * T_US, "NO_SYNC"],
      [{ abstaining: true }, 6 * T_US, "ABSTENTION_OVERDUE"],
    ];
    it.each(CASES)("%j is waited for as at first: %i us, %s", (waiting, ageUs, verdict) => {
      const judged = (suspicion: Suspicion, atUs: number): string | null =>
        suspicion.verdict({ ...IDLE, ...waiting, nowUs: START_US + atUs });
      expect(judged(silentLeader(), ageUs - 1)).toBeNull();
      expect(judged(silentLeader(), ageUs)).toBe(verdict);
      const heard = silentLeader();
      heard.heard(0, START_US + ageUs);
      expect(judged(heard, ageUs)).toBeNull();
      const other = { ...waiting, acting: 1 };
      const notTheOther = silentLeader();
      notTheOther.heard(1, START_US + 4 * T_US);
      expect(notTheOther.verdict({ ...IDLE, ...other, nowUs: START_US + ageUs })).toBeNull();
    });

    it("requests are forwarded as at first, so that it can be blamed", () => {
      const suspicion = silentLeader();
      expect(suspicion.forwardAfterUs(0, START_US + 4 * T_US - 1)).toBe(4 * T_US);
      expect(suspicion.forwardAfterUs(0, START_US + 4 * T_US)).toBe(T_US);
    });
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

describe("section 5, leaders in turn: each answers for its own turn", () => {
  const PATIENT = { oldestDueUs: START_US };
  const LED: LedInstance = { leader: 0, startedUs: null, requests: 1, bytes: 100 };

  function inTurn(rotation = 10): Suspicion {
    const record = new LeaderRecord({ f: 1, rotation, requestTimeoutMs: T_US / 1000 });
    const suspicion = new Suspicion(TIMES, record);
    suspicion.regencyInstalled(START_US, null);
    return suspicion;
  }

  function judge(suspicion: Suspicion, ageUs: number, waiting: Partial<Waiting>): string | null {
    return suspicion.verdict({ ...IDLE, nowUs: START_US + ageUs, ...waiting });
  }

  it("what waited before its turn counts from when that began; the SYNC of a regency does not", () => {
    const suspicion = inTurn();
    suspicion.handedOver(START_US + T_US);
    expect(judge(suspicion, 3 * T_US - 1, PATIENT)).toBeNull();
    expect(judge(suspicion, 3 * T_US, PATIENT)).toBe("REQUEST_OVERDUE");
    expect(judge(suspicion, T_US, { synced: false })).toBe("NO_SYNC");
  });

  it("who failed last has a sixteenth of the patience, and a quarter for its SYNC", () => {
    const suspicion = inTurn();
    suspicion.decided(START_US, null);
    suspicion.regencyInstalled(START_US, 2);
    expect(suspicion.onProbation).toEqual([2]);
    for (const [acting, patienceUs, syncUs] of [
      [2, T_US / 8, T_US / 4],
      [1, 2 * T_US, T_US],
    ] as const) {
      expect(judge(suspicion, patienceUs - 1, { ...PATIENT, acting })).toBeNull();
      expect(judge(suspicion, patienceUs, { ...PATIENT, acting })).toBe("REQUEST_OVERDUE");
      expect(judge(suspicion, patienceUs, { proposedSinceUs: START_US, acting })).toBe("PROPOSAL_OVERDUE");
      expect(judge(suspicion, syncUs - 1, { synced: false, acting })).toBeNull();
      expect(judge(suspicion, syncUs, { synced: false, acting })).toBe("NO_SYNC");
    }
  });

  it("T that has doubled doubles the patience on probation, too: a slow network puts nobody out for good", () => {
    const suspicion = inTurn();
    suspicion.regencyInstalled(START_US, 2);
    expect(suspicion.timeoutUs).toBe(2 * T_US);
    suspicion.regencyInstalled(START_US, 2);
    expect(suspicion.timeoutUs).toBe(4 * T_US);
    expect(judge(suspicion, T_US / 2 - 1, { ...PATIENT, acting: 2 })).toBeNull();
    expect(judge(suspicion, T_US / 2, { ...PATIENT, acting: 2 })).toBe("REQUEST_OVERDUE");
  });

  function serving(options: { fromUs: number; instances: number; led?: Partial<LedInstance> }): Suspicion {
    const suspicion = inTurn();
    for (let instance = 0; instance < options.instances; instance++) {
      suspicion.decided(options.fromUs + instance, { ...LED, ...options.led });
    }
    return suspicion;
  }

  it("a client that waits for T/2 while eight instances serve others is neglected", () => {
    const neglected = { neglectedSinceUs: START_US };
    const suspicion = serving({ fromUs: START_US, instances: 8 });
    expect(judge(suspicion, T_US / 2 - 1, neglected)).toBeNull();
    expect(judge(suspicion, T_US / 2, neglected)).toBe("CLIENT_NEGLECTED");
    expect(judge(suspicion, T_US / 2, { ...neglected, leading: true })).toBeNull();
    expect(judge(suspicion, T_US / 2, { ...neglected, behind: true })).toBeNull();
    expect(judge(suspicion, T_US / 2, {})).toBeNull();
  });

  it.each([
    ["seven", { fromUs: START_US, instances: 7 }, 0],
    ["eight, the first of them before the client waited,", { fromUs: START_US - 1, instances: 8 }, 0],
    ["empty ones", { fromUs: START_US, instances: 20, led: { requests: 0 } }, 0],
    ["those of the leader before", { fromUs: START_US, instances: 20 }, 100],
  ])("%s prove nothing", (_, served, handedOverAfterUs) => {
    const suspicion = serving(served);
    if (handedOverAfterUs > 0) suspicion.handedOver(START_US + handedOverAfterUs);
    expect(judge(suspicion, T_US, { neglectedSinceUs: START_US })).toBeNull();
  });

  it("an instance counts from when its leader's turn began, and a leader over its budget is slow", () => {
    const suspicion = inTurn();
    suspicion.handedOver(START_US + T_US);
    suspicion.decided(START_US + T_US + 1_000, { ...LED, startedUs: START_US });
    expect(judge(suspicion, T_US + 1_000, {})).toBeNull();
    suspicion.decided(START_US + 2 * T_US, { ...LED, startedUs: START_US + T_US + 1_000 });
    expect(judge(suspicion, 2 * T_US, {})).toBe("SLOW_LEADER");
    expect(judge(suspicion, 2 * T_US, { acting: 1 })).toBeNull();
    expect(judge(suspicion, 2 * T_US, { leading: true })).toBeNull();
  });

  it("requests are forwarded after T/4, so that 2f+1 have them before a client counts as neglected; else after T", () => {
    expect(inTurn().forwardAfterUs(0, START_US)).toBe(T_US / 4);
    expect(new Suspicion(TIMES, null).forwardAfterUs(0, START_US)).toBe(T_US);
  });
});
