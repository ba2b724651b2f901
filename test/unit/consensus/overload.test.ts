/** What a cluster's request queues promise under load (docs/protocol.md section 8), in the virtual time of `queue-model.ts`. */
import { describe, expect, it } from "vitest";
import { type Load, type ModelOptions, QueueModel } from "./queue-model.ts";

/** About 4,400 small requests a second at most. */
const MACHINE = { instanceUs: 10_000, usPerCost: 0.2 };
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const percentile = (sorted: readonly number[], share: number): number => sorted[Math.floor(sorted.length * share)] ?? 0;

function each(count: number, load: Load): Load[] {
  return Array.from({ length: count }, () => load);
}

function run(clients: Load[], options: Partial<ModelOptions> = {}) {
  return new QueueModel({ ...MACHINE, seconds: 4, clients, ...options }).run();
}

describe("overload (section 8)", () => {
  it("twice what saturates: goodput stays, what is let in is answered in time, and nothing waits in vain", () => {
    const saturated = run(each(8, { type: "closed", underWay: 32, bytes: 100 }));
    const peak = sum(saturated.served);
    const overloaded = run(each(8, { type: "open", perSecond: (2 * peak) / 8, bytes: 100 }));
    expect(sum(overloaded.served)).toBeGreaterThan(0.9 * peak);
    const p99 = percentile(overloaded.latenciesUs, 0.99);
    expect(p99).toBeLessThan(5 * percentile(saturated.latenciesUs, 0.99));
    expect(overloaded.pendingMax).toBeLessThan(2_000);
    expect(overloaded.forwarded, "replicas let in the same").toBe(0);
  });

  const floods: readonly (readonly [string, Load])[] = [
    ["small requests", { type: "open", perSecond: 8_000, bytes: 100 }],
    ["large requests", { type: "open", perSecond: 200, bytes: 256 * 1024 }],
    ["large results", { type: "open", perSecond: 200, bytes: 100, resultBytes: 1024 * 1024 }],
  ];
  for (const [name, flood] of floods) {
    for (const underWay of [1, 8]) {
      it(`ten clients with ${underWay} under way keep four fifths beside a flood of ${name}`, () => {
        const polite = each(10, { type: "closed", underWay, bytes: 100 });
        const alone = run(polite).served;
        const beside = run([...polite, flood]).served;
        expect(sum(beside.slice(0, 10))).toBeGreaterThan(0.8 * sum(alone));
        polite.forEach((_, client) => {
          expect(beside[client]).toBeGreaterThan(0.7 * (alone[client] ?? 0));
        });
        expect(beside.at(-1), "and the one that floods gets something").toBeGreaterThan(1);
      });
    }
  }

  it("a backlog of one client that others pass is nobody's fault", () => {
    const polite = each(30, { type: "closed", underWay: 8, bytes: 100 });
    const { overdueUsMax } = run([...polite, { type: "open", perSecond: 8_000, bytes: 100 }], {
      requestTimeoutMs: 200,
    });
    expect(overdueUsMax).toBeLessThan(2 * 200_000);
  });

  it("nor is one of large results that wait for others", () => {
    for (const others of [0, 1, 5]) {
      const polite = each(others, { type: "closed", underWay: 1, bytes: 100 });
      const greedy: Load = { type: "closed", underWay: 64, bytes: 100, resultBytes: 1024 * 1024 };
      expect(run([...polite, greedy], { seconds: 20 }).overdueUsMax).toBeLessThan(2 * 1_000_000);
    }
  });

  it("what reaches followers only is served all the same, and late ones wait for no more than T and a turn", () => {
    const polite = each(4, { type: "closed", underWay: 1, bytes: 100 });
    const reaches = (client: number): readonly number[] => (client === 0 ? [1, 2, 3] : [0, 1, 2, 3]);
    const { served, forwarded } = run(polite, { reaches, requestTimeoutMs: 100 });
    expect(served[0]).toBeGreaterThan(3);
    expect(forwarded).toBeGreaterThan(3);
  });
});
