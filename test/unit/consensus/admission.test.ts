import { describe, expect, it } from "vitest";
import {
  QUEUE_COST_MIN,
  QUEUE_COST_START,
  QUEUE_CROWDED_MAX,
  QUEUE_US_MAX,
  QUEUE_US_MIN,
} from "../../../protocol/limits.ts";
import { Admission, lotOf, requestCost } from "../../../server/consensus/admission.ts";

/** After so many instances of `us` each, in which this cost was served, with more waiting. */
function paced(cost: number, us: number, instances = 100): Admission {
  const admission = new Admission();
  for (let instance = 0; instance <= instances; instance++) {
    admission.decided({ cost, backlog: true, nowUs: instance * us });
  }
  return admission;
}

const ALONE = { wanted: 1_000, lot: 0.5, cost: 0, count: 1, shed: 0, total: 0, clients: 1 };

describe("admission (section 8)", () => {
  it("what may wait is what is served in a bounded time at the pace of late", () => {
    expect(new Admission().capacity, "nothing known yet").toBe(QUEUE_COST_START);
    expect(paced(1_000_000, 25_000).capacity).toBeCloseTo(40 * QUEUE_US_MIN, -3);
    expect(paced(10, 50_000).capacity, "however slow").toBe(QUEUE_COST_MIN);
    expect(paced(40_000_000, 2_000_000).capacity, "a long way between replicas").toBeCloseTo(20 * QUEUE_US_MAX, -3);
    expect(paced(10_000_000, 200_000).capacity, "two instances' worth").toBeCloseTo(50 * 400_000, -5);
  });

  it("idleness is no pace", () => {
    const admission = new Admission();
    for (let instance = 0; instance < 100; instance++) {
      admission.decided({ cost: 1_000_000, backlog: false, nowUs: instance * 10_000_000 });
    }
    expect(admission.capacity).toBe(QUEUE_COST_START);
  });

  it("what may wait follows the pace of late, not the best there was", () => {
    const admission = paced(1_000_000, 10_000, 20);
    const before = admission.capacity;
    for (let instance = 1; instance < 60; instance++) {
      admission.decided({ cost: 1_000_000, backlog: true, nowUs: 200_000 + instance * 100_000 });
    }
    expect(admission.capacity).toBeLessThan(before / 5);
  });

  it("a pace that was too good to last is corrected, by a long instance too", () => {
    const admission = paced(10_000_000, 10_000, 1);
    const before = admission.capacity;
    for (let instance = 1; instance < 60; instance++) {
      admission.decided({ cost: 100_000, backlog: true, nowUs: 10_000 + instance * 1_500_000 });
    }
    expect(admission.capacity).toBeLessThan(before / 100);
  });

  it("a client is let in up to its share while others want more than there is; alone up to everything", () => {
    const admission = paced(1_000_000, 50_000);
    const { capacity } = admission;
    const full = { ...ALONE, total: capacity, clients: 10 };
    expect(admission.admits({ ...full, cost: capacity / 10 - 2_000 })).toBe(true);
    expect(admission.admits({ ...full, cost: capacity / 10 })).toBe(false);
    expect(admission.admits({ ...ALONE, cost: capacity - 1_000, total: capacity - 1_000 })).toBe(true);
    expect(admission.admits({ ...ALONE, cost: capacity, total: capacity })).toBe(false);
    expect(admission.admits({ ...full, cost: capacity / 2, total: capacity / 2 }), "what nobody else wants").toBe(true);
  });

  it("a client with nothing pending is let in however large its request; but time stays bounded", () => {
    const admission = paced(1_000_000, 50_000);
    const { capacity } = admission;
    expect(admission.admits({ ...ALONE, count: 0, wanted: 2 * capacity, total: capacity, clients: 10 })).toBe(true);
    expect(admission.admits({ ...ALONE, count: 0, total: QUEUE_CROWDED_MAX * capacity, clients: 10 })).toBe(false);
  });

  it("whoever fills its share is turned away by lot, more and more; below a quarter nobody is", () => {
    const admission = paced(1_000_000, 50_000);
    const { capacity } = admission;
    let shed = 0;
    for (let instance = 0; instance < 20; instance++) {
      const next = admission.shedNext({ cost: capacity / 2, shed, total: capacity, clients: 2 });
      expect(next).toBeGreaterThan(shed);
      shed = next;
    }
    const half = { ...ALONE, cost: capacity / 4, total: capacity / 2, clients: 2, shed };
    expect(admission.admits({ ...half, lot: shed - 0.01 })).toBe(false);
    expect(admission.admits({ ...half, lot: shed + 0.01 })).toBe(true);
    expect(admission.admits({ ...half, lot: 0, cost: capacity / 10 })).toBe(true);
    expect(admission.shedNext({ cost: 0, shed, total: capacity, clients: 2 }), "and less again").toBeLessThan(shed);
    expect(admission.shedNext({ cost: capacity / 2, shed, total: capacity / 2, clients: 10 })).toBeLessThan(shed);
  });

  it("decisions that come in bursts make the pace no faster than it is", () => {
    const even = paced(1_000_000, 50_000);
    const bursts = new Admission();
    let nowUs = 0;
    for (let instance = 0; instance < 400; instance++) {
      nowUs += instance % 2 === 0 ? 99_900 : 100;
      bursts.decided({ cost: 1_000_000, backlog: true, nowUs });
    }
    expect(bursts.capacity).toBeLessThan(1.3 * even.capacity);
    expect(bursts.extra(2)).toBeLessThan(1.3 * even.extra(2));
  });

  it("one client beyond others makes an instance longer by its share, or an eighth", () => {
    const admission = paced(1_000_000, 50_000, 1_000);
    expect(admission.extra(2)).toBeCloseTo(500_000, -4);
    expect(admission.extra(20)).toBeCloseTo(125_000, -4);
  });

  it("cost counts requests, commands and bytes", () => {
    expect(requestCost(0, 1)).toBeGreaterThan(0);
    expect(requestCost(0, 2)).toBeGreaterThan(requestCost(0, 1));
    expect(requestCost(1_000, 1)).toBeGreaterThan(requestCost(0, 1));
  });

  it("lots are spread evenly, differ from round to round, and are the same everywhere", () => {
    const name = new Uint8Array(16);
    const lots: number[] = [];
    let below = 0;
    for (let sequence = 0; sequence < 10_000; sequence++) {
      new DataView(name.buffer).setUint32(12, sequence);
      lots.push(lotOf(name, 5));
      if (lotOf(name, 5) < 0.3 && lotOf(name, 6) < 0.3) below++;
    }
    for (let tenth = 0; tenth < 10; tenth++) {
      const within = lots.filter((lot) => Math.floor(lot * 10) === tenth).length;
      expect(within).toBeGreaterThan(900);
      expect(within).toBeLessThan(1_100);
    }
    expect(below, "another round is another chance").toBeLessThan(1_200);
    expect(below).toBeGreaterThan(600);
    expect(lotOf(name, 5)).toBe(lots.at(-1));
  });
});
