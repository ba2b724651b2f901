import { describe, expect, it } from "vitest";
import { LeaderRecord } from "../../../server/consensus/leader-record.ts";

const T_MS = 1_000;
const MS = 1_000;
/** T/50: what an instance may always take. */
const ALWAYS_US = 20 * MS;
/** T/2. */
const BUDGET_US = 500 * MS;

/** `others`: the pace at which members 1 to 3 have led before, if they have. */
function recordOf(options: { f?: number; rotation?: number; others?: number | null } = {}): LeaderRecord {
  const { f = 1, rotation = 1, others = 1 * MS } = options;
  const record = new LeaderRecord({ f, rotation, requestTimeoutMs: T_MS });
  if (others !== null) for (const other of [1, 2, 3]) lead(record, other, of(8, others));
  return record;
}

function lead(
  record: LeaderRecord,
  leader: number,
  times: readonly (number | null)[],
  content = { requests: 0, bytes: 0 },
): void {
  for (const tookUs of times) record.led({ leader, startedUs: 0, ...content }, tookUs);
}

const of = (count: number, tookUs: number): number[] => Array.from({ length: count }, () => tookUs);

describe("section 5, leaders in turn: a leader may not be late for longer than its budget in all", () => {
  it("what an instance takes up to T/50 costs nothing, however often", () => {
    const record = recordOf();
    lead(record, 0, of(10_000, ALWAYS_US));
    expect(record.isSlow(0)).toBe(false);
  });

  it("a steady delay uses it up", () => {
    const record = recordOf();
    lead(record, 0, of(10, ALWAYS_US + BUDGET_US / 10));
    expect(record.isSlow(0)).toBe(false);
    lead(record, 0, [ALWAYS_US + 1]);
    expect(record.isSlow(0)).toBe(true);
  });

  it("so does every second instance just below the timeout: no median hides it", () => {
    const record = recordOf();
    lead(record, 0, [1_900 * MS]);
    expect(record.isSlow(0)).toBe(true);
    const sparing = recordOf();
    let instances = 0;
    while (!sparing.isSlow(0) && instances < 1_000) {
      lead(sparing, 0, [1 * MS, 100 * MS]);
      instances += 2;
    }
    expect(instances).toBeLessThanOrEqual(18);
  });

  it("quicker instances pay it back, and no credit is saved up", () => {
    const record = recordOf();
    lead(record, 0, of(1_000, 0));
    lead(record, 0, [BUDGET_US + ALWAYS_US]);
    expect(record.isSlow(0)).toBe(false);
    lead(record, 0, of(25, 0));
    lead(record, 0, [BUDGET_US + ALWAYS_US]);
    expect(record.isSlow(0)).toBe(false);
    lead(record, 0, [ALWAYS_US + 1]);
    expect(record.isSlow(0)).toBe(true);
  });

  it("where the others take longer, four times their median is allowed", () => {
    const record = recordOf({ others: 30 * MS });
    lead(record, 0, of(1_000, 120 * MS));
    expect(record.isSlow(0)).toBe(false);
    lead(record, 0, of(10, 171 * MS));
    expect(record.isSlow(0)).toBe(true);
  });

  it("one slow leader among the others, or its own pace, raises nothing", () => {
    const record = recordOf();
    lead(record, 1, of(8, 30 * MS));
    lead(record, 0, of(40, 40 * MS));
    expect(record.isSlow(0)).toBe(true);
  });

  it("as long as nobody else has led eight instances, an instance may take T/10", () => {
    const record = recordOf({ others: null });
    for (const other of [1, 2, 3]) lead(record, other, of(7, 400 * MS));
    lead(record, 0, of(1_000, 100 * MS));
    expect(record.isSlow(0)).toBe(false);
    lead(record, 0, of(10, 151 * MS));
    expect(record.isSlow(0)).toBe(true);
  });

  it("large batches may take what their content does", () => {
    const record = recordOf();
    lead(record, 0, of(100, 300 * MS), { requests: 500, bytes: 3_000_000 });
    expect(record.isSlow(0)).toBe(true);
    const fair = recordOf();
    lead(fair, 0, of(100, 300 * MS), { requests: 500, bytes: 4 * 1024 * 1024 });
    expect(fair.isSlow(0)).toBe(false);
  });

  it("an instance none of whose requests waited here is not counted", () => {
    const record = recordOf();
    lead(
      record,
      0,
      of(100, 1).map(() => null),
    );
    expect(record.isSlow(0)).toBe(false);
  });

  it("each has its own budget", () => {
    const record = recordOf();
    lead(record, 0, [BUDGET_US + ALWAYS_US + 1]);
    expect([0, 1].map((leader) => record.isSlow(leader))).toEqual([true, false]);
  });
});

describe("section 5, leaders in turn: probation", () => {
  it("is for the last f that failed", () => {
    const record = recordOf({ f: 2 });
    expect(record.onProbation).toEqual([]);
    for (const leader of [3, 5, 3, 1]) record.failed(leader);
    expect(record.onProbation).toEqual([1, 3]);
    expect([1, 3, 5].map((leader) => record.isOnProbation(leader))).toEqual([true, true, false]);
  });

  it("is for nobody where no fault is tolerated", () => {
    const record = recordOf({ f: 0 });
    record.failed(0);
    expect(record.onProbation).toEqual([]);
  });

  it("leaves an eighth of the budget, and forgives what was late before", () => {
    const record = recordOf();
    lead(record, 0, [BUDGET_US]);
    record.failed(0);
    lead(record, 0, [ALWAYS_US + BUDGET_US / 8]);
    expect(record.isSlow(0)).toBe(false);
    lead(record, 0, [ALWAYS_US + 1]);
    expect(record.isSlow(0)).toBe(true);
  });

  it.each([
    [1, 100],
    [250, 250],
  ])(
    "with turns of %s instances ends after %s instances led, and begins anew with a failure",
    (rotation, instances) => {
      const record = recordOf({ rotation });
      record.failed(2);
      lead(record, 2, of(instances - 1, 0));
      record.failed(2);
      lead(record, 2, of(instances - 1, 0));
      expect(record.onProbation).toEqual([2]);
      lead(record, 1, of(instances, 0));
      expect(record.onProbation).toEqual([2]);
      lead(record, 2, [null]);
      expect(record.onProbation).toEqual([]);
    },
  );
});
