import { describe, expect, it } from "vitest";
import { ROUND_COST } from "../../../protocol/limits.ts";
import { type Lane, takeInTurns } from "../../../server/consensus/turns.ts";

class List implements Lane<number> {
  credit = 0;
  readonly name: string;
  readonly costs: number[];

  constructor(name: string, costs: number[]) {
    this.name = name;
    this.costs = costs;
  }

  next(): number | undefined {
    return this.costs[0];
  }

  advance(): void {
    this.costs.shift();
  }
}

const ONE = ROUND_COST;

function served(lanes: List[], until: number): { costs: Record<string, number>; last: readonly List[] } {
  const costs: Record<string, number> = Object.fromEntries(lanes.map(({ name }) => [name, 0]));
  let sum = 0;
  const last = takeInTurns<number, List>(
    lanes,
    (cost) => cost,
    (cost) => {
      if (sum + cost > until) return false;
      sum += cost;
      const lane = lanes.find((each) => each.costs[0] === cost && each.credit >= cost) as List;
      costs[lane.name] = (costs[lane.name] ?? 0) + cost;
      return true;
    },
  );
  return { costs, last };
}

describe("turns (section 8, deficit round robin)", () => {
  it("many small ones and few large ones get the same cost, to within the largest one and a round", () => {
    const small = new List("small", new Array(4_000).fill(ONE / 4));
    const large = new List("large", new Array(100).fill(ONE * 10 + 1));
    const { costs } = served([small, large], 400 * ONE);
    const difference = Math.abs((costs.small ?? 0) - (costs.large ?? 0));
    expect(difference).toBeLessThanOrEqual(2 * (ONE * 10 + 1) + ONE);
    expect(costs.large).toBeGreaterThan(150 * ONE);
  });

  it("everything is served when there is room, in turns", () => {
    const lanes = [new List("a", [ONE, ONE]), new List("b", [ONE + 1]), new List("c", [])];
    const { costs, last } = served(lanes, Number.POSITIVE_INFINITY);
    expect(costs).toEqual({ a: 2 * ONE, b: ONE + 1, c: 0 });
    expect(last).toEqual([]);
    expect(
      lanes.map(({ credit }) => credit),
      "who wants nothing saves nothing up",
    ).toEqual([0, 0, 0]);
  });

  it("asked for one at a time, all have their turn", () => {
    const lanes = new Map(["a", "b", "c"].map((name) => [name, new List(name, new Array(9).fill(ONE / 2))]));
    for (let time = 0; time < 9; time++) {
      let one = true;
      const last = takeInTurns<number, List>(
        lanes.values(),
        (cost) => cost,
        () => {
          const taken = one;
          one = false;
          return taken;
        },
      );
      for (const lane of last) {
        lanes.delete(lane.name);
        lanes.set(lane.name, lane);
      }
    }
    for (const { costs } of lanes.values()) expect(costs).toHaveLength(6);
  });

  it("who had its turn in a round cut short goes last; who was cut off saves up no more than it needs", () => {
    const [a, b, c] = ["a", "b", "c"].map((name, at) => new List(name, [ONE - at, ONE - at, ONE - at])) as [
      List,
      List,
      List,
    ];
    const { last } = served([a, b, c], ONE + ONE - 1);
    expect(last.map(({ name }) => name)).toEqual(["a", "b"]);
    expect(c.credit).toBe(ONE - 2);
  });
});
