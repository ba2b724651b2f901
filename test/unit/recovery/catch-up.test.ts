/** When the log is given up (docs/protocol.md section 6, "Large gap"); what it fetches is shown by cores and whole replicas. */
import { describe, expect, it } from "vitest";
import type { Digest } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import type { Message } from "../../../protocol/messages.ts";
import { CatchUp } from "../../../server/recovery/catch-up.ts";
import type { LogProgress } from "../../../server/recovery/log-progress.ts";
import { CoreCluster } from "../../simulation/core-cluster.ts";
import { viewOfSize } from "../server/fixture.ts";

const view = viewOfSize(4);
const OTHERS = [1, 2, 3];
const DIGEST = "\0".repeat(32) as Digest;
const START_US = 1_000_000;
const STEP_US = 100_000;

/** When the log counts as out of reach, in microseconds after the start: three others are ahead and none has the next batch. */
function givesUpAfter(outOfReachUs: number, untilUs: number): number | null {
  let nowUs = START_US;
  let gaveUpUs: number | null = null;
  const asked: number[] = [];
  const catchUp = new CatchUp({
    view,
    viewAt: () => view,
    self: 0,
    crypto: nodeCrypto,
    emptyLagMax: Number.POSITIVE_INFINITY,
    outOfReachUs,
    nowUs: () => nowUs,
    regency: () => 0,
    position: () => ({ instance: 5, digest: DIGEST }),
    busy: () => false,
    send: (to: number, message: Message) => {
      if (message.type === "FETCH_HISTORY") asked.push(to);
    },
    verify: (checks, then) => then(checks.map(() => true)),
    learn: () => undefined,
    misbehaved: () => undefined,
    beyondReach: () => {
      gaveUpUs ??= nowUs - START_US;
    },
  });
  for (; nowUs <= START_US + untilUs; nowUs += STEP_US) {
    for (const from of OTHERS) {
      const status = {
        view: 0,
        regency: 0,
        decided: 10,
        digest: DIGEST,
        abstainingUntil: 0,
        signature: new Uint8Array(64),
      };
      catchUp.onStatus(from, { type: "STATUS", ...status });
    }
    catchUp.tick();
    for (const from of asked.splice(0)) {
      const nothing = { previous: DIGEST, batches: [], proof: null };
      catchUp.onHistory(from, { type: "HISTORY", view: 0, regency: 0, from: 6, ...nothing });
    }
  }
  return gaveUpUs;
}

describe("section 6, small gap", () => {
  it("shows how far it is while much is missing, and nothing before and after", () => {
    const cluster = new CoreCluster({ n: 4, seed: 1 });
    const progress = () => cluster.replicas[3]?.core.catchUpProgress ?? null;
    for (const id of [0, 1, 2]) cluster.cut(3, id);
    for (let request = 0; request < 60; request++) {
      cluster.request();
      cluster.settle(2);
    }
    const missed = cluster.heights()[0] as number;
    expect([missed > 30, cluster.heights()[3], progress()]).toEqual([true, 0, null]);
    for (const id of [0, 1, 2]) cluster.mend(3, id);
    const seen: LogProgress[] = [];
    for (let step = 0; step < 20_000 && cluster.heights()[3] !== missed; step++) {
      cluster.randomStep();
      const now = progress();
      if (now) seen.push(now);
    }
    expect(seen.every(({ from, instance, to }) => from === 0 && instance <= to && to <= missed)).toBe(true);
    expect(seen.some(({ sources }) => sources.length > 0 && !sources.includes(3))).toBe(true);
    expect(new Set(seen.map(({ sinceUs }) => sinceUs)).size).toBe(1);
    const half = seen.filter(({ instance }) => instance > 0);
    expect(half.every(({ bytes }) => bytes > 0)).toBe(true);
    cluster.settle(5);
    expect([cluster.heights()[3], progress()]).toEqual([missed, null]);
  });
});

describe("section 6, large gap: nobody has the next batch", () => {
  it("a checkpoint is asked for as soon as all have said so", () => {
    const soonUs = givesUpAfter(0, 5_000_000);
    expect(soonUs).not.toBeNull();
    expect(soonUs).toBeLessThan(3_000_000);
  });

  it("where there was none to be had, only once it has lasted", () => {
    const soonUs = givesUpAfter(0, 5_000_000) ?? 0;
    expect(givesUpAfter(5_000_000, soonUs + 4_900_000)).toBeNull();
    expect(givesUpAfter(5_000_000, soonUs + 6_000_000)).not.toBeNull();
  });
});
