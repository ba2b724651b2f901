/**
 * Nobody decides anything, and the last members that are up stand one instance apart: nothing proves the newer one
 * (docs/decisions/021). The batch of that instance is executed on trial.
 */
import { describe, expect, it } from "vitest";
import { cluster, flipped, lying, type Setup } from "./cluster.ts";

const AT = 300;

/** Member 0 stands at 300 and can be fetched from, member 1 at 301; each has a root where it stands, and none else. */
function oneApart(options: { older?: Setup; newer?: Setup; third?: Setup } = {}) {
  const { older, newer, third = { down: true } } = options;
  return cluster(
    1,
    [
      { height: AT, checkpoints: [AT], neverTakes: true, ...older },
      { height: AT + 1, checkpoints: [AT + 1], neverTakes: true, ...newer },
      third,
    ],
    { length: AT + 1 },
  );
}

describe("6: the others stand one instance apart", () => {
  it("n = 4, one down: the state of the older one is believed, right from the newer one on", () => {
    const { run } = oneApart();
    run.until(30);
    expect(run.right).toBe(true);
    expect(run.accepted).toMatchObject({ place: { instance: AT }, settledFrom: AT + 1 });
    expect(run.of("try").map(({ batch }) => batch.instance)).toEqual([AT + 1]);
    expect(run.blamed).toEqual([]);
  });

  it("with a checkpoint below and log up to where the older one stands", () => {
    const { run } = oneApart({ older: { checkpoints: [200] } });
    run.until(60);
    expect(run.right).toBe(true);
    expect(run.accepted).toMatchObject({ place: { instance: AT }, settledFrom: AT + 1 });
  });

  it("n = 7, two down, of five two at the newer instance: W of them do not say so", () => {
    const older: Setup = { height: AT, checkpoints: [AT], neverTakes: true };
    const newer: Setup = { height: AT + 1, checkpoints: [AT + 1], neverTakes: true };
    const { run } = cluster(2, [older, { ...older }, { ...newer }, { ...newer }, { down: true }, { down: true }], {
      length: AT + 1,
    });
    run.until(30);
    expect(run.right).toBe(true);
    expect(run.accepted?.settledFrom).toBe(AT + 1);
  });

  it("while anything can be proven nothing is tried", () => {
    const { run } = oneApart({ third: { height: AT + 1, neverTakes: true } });
    run.until(30);
    expect(run.right).toBe(true);
    expect(run.of("try")).toEqual([]);
    expect(run.accepted).toMatchObject({ place: { instance: AT + 1 }, settledFrom: 0 });
  });

  it("what is decided meanwhile settles the state", () => {
    const { run, peers } = oneApart();
    run.until(30, () => {
      if (run.of("believed").length > 0) return;
      // At the moment of the trial the older one learns of the instance.
      const [older] = peers;
      if (older && run.of("try").length > 0) older.options.height = AT + 1;
    });
    expect(run.right).toBe(true);
    expect(run.accepted?.settledFrom).toBe(run.accepted?.place.instance === AT ? AT + 1 : 0);
  });

  it("the older one lies: its state is not believed, and one contradiction drops nobody", () => {
    const { run } = oneApart({ older: { extra: { evil: "1" } } });
    run.until(30);
    expect(run.accepted).toBeNull();
    expect(run.of("try")).toHaveLength(1);
    expect(run.dropped).toEqual([]);
  });

  it("what a lie and the trial both write over is gone after the newer instance", () => {
    // Instance 301 writes z1: only the state before that is false.
    const { run, history } = oneApart({ older: { extra: { z1: "evil" } } });
    run.until(30);
    expect(run.accepted).toMatchObject({ place: { instance: AT }, settledFrom: AT + 1 });
    expect(run.right).toBe(false);
    expect(run.rightAfter(history.batch(AT + 1))).toBe(true);
  });

  it.each<[string, Setup]>([
    ["its root is false", { rootExtra: { evil: "1" } }],
    ["its batch is another", { lie: lying("HISTORY", (m) => ({ ...m, batches: m.batches.map(flipped) })) }],
    ["its batch is none", { lie: lying("HISTORY", (m) => ({ ...m, batches: [new Uint8Array(3)] })) }],
    ["its batch stands on another history", { lie: lying("HISTORY", (m) => ({ ...m, previous: "x".repeat(32) })) }],
  ])("the newer one lies: %s; it is tried no more, and a correct one does", (_name, newer) => {
    const { run, peers } = oneApart({ newer });
    run.until(20);
    expect(run.accepted).toBeNull();
    expect(run.of("try").length).toBeLessThanOrEqual(1);
    const third = peers[2];
    if (third) Object.assign(third.options, { down: false, height: AT, neverTakes: false });
    run.until(60);
    expect(run.right).toBe(true);
    expect(run.accepted?.settledFrom).toBe(0);
    expect(run.of("try").length).toBeLessThanOrEqual(1);
  });

  it("a silent one is left for another", () => {
    const newer: Setup = { height: AT + 1, checkpoints: [AT + 1], neverTakes: true };
    const silent = lying("HISTORY", () => null);
    const older: Setup = { height: AT, checkpoints: [AT], neverTakes: true };
    const { run } = cluster(
      2,
      [older, { ...older, roots: [] }, { ...newer, lie: silent }, { ...newer }, { down: true }, { down: true }],
      { length: AT + 1 },
    );
    run.until(30);
    expect(run.right).toBe(true);
    expect(run.accepted?.settledFrom).toBe(AT + 1);
  });
});
