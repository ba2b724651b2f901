/** Whose roots speak for the state under construction, and whose against it (docs/protocol.md section 6). */
import { describe, expect, it } from "vitest";
import { Witnesses } from "../../../server/recovery/witnesses.ts";
import { viewOfSize } from "./history.ts";

/** n = 7, f = 2; member 0 is the donor and 6 fetches. */
function witnesses(roots: Readonly<Record<number, Readonly<Record<number, string>>>>) {
  const named: number[] = [];
  const all = new Witnesses({
    view: viewOfSize(7, 2),
    self: 6,
    donor: 0,
    rootsOf: (id) => new Map(Object.entries(roots[id] ?? {}).map(([at, root]) => [Number(at), root])),
    contradictsItself: (member) => named.push(member),
  });
  return { all, named };
}

describe("6: f others speak for a state, W against it", () => {
  it("several roots of one member count once", () => {
    const { all } = witnesses({ 1: { 10: "a", 20: "b" } });
    all.add(10, "a");
    all.add(20, "b");
    expect(all.believed).toBe(false);
  });

  it("neither the donor's roots nor the own former ones count", () => {
    const { all } = witnesses({ 0: { 10: "a" }, 6: { 10: "a" }, 1: { 10: "a" } });
    all.add(10, "a");
    expect(all.believed).toBe(false);
    expect(all.next(0, 100)).toBe(null);
  });

  it("two others do, at different instances", () => {
    const { all } = witnesses({ 1: { 10: "a" }, 2: { 20: "b" } });
    expect(all.next(5, 100)).toBe(10);
    all.add(10, "a");
    expect(all.next(10, 100)).toBe(20);
    all.add(20, "b");
    expect(all.believed).toBe(true);
  });

  it("three against it refute it, two do not", () => {
    const { all } = witnesses({ 1: { 10: "x" }, 2: { 10: "x" }, 3: { 20: "x" } });
    all.add(10, "a");
    expect(all.refuted).toBe(false);
    all.add(20, "b");
    expect(all.refuted).toBe(true);
  });

  it("right first and wrong later contradicts itself: named, counted for nobody", () => {
    const { all, named } = witnesses({ 1: { 10: "a", 20: "x" }, 2: { 20: "b" } });
    all.add(10, "a");
    all.add(20, "b");
    expect(named).toEqual([1]);
    expect(all.believed).toBe(false);
    expect(all.contradicting).toEqual([]);
  });

  it("wrong first and right later proves nothing: a false state may have been overwritten", () => {
    const { all, named } = witnesses({ 1: { 10: "x", 20: "b" }, 2: { 20: "b" } });
    all.add(10, "a");
    all.add(20, "b");
    expect(named).toEqual([]);
    expect(all.believed).toBe(false);
  });

  it("who pushes its root out while ours is computed is judged all the same", () => {
    const roots: Record<number, Record<number, string>> = { 1: { 10: "x" } };
    const { all } = witnesses(roots);
    expect(all.next(10, 100)).toBe(10);
    all.computing(10);
    roots[1] = { 11: "y" };
    all.add(10, "a");
    expect(all.contradicting).toEqual([1]);
    expect(all.next(10, 100)).toBe(null);
  });

  it("who was judged has no more roots computed for it, and what is not decided is not waited for", () => {
    const { all } = witnesses({ 1: { 10: "a", 30: "c", 40: "d" }, 2: { 9000: "x" } });
    all.add(10, "a");
    expect(all.next(10, 100)).toBe(null);
    expect(all.enough(10, 100)).toBe(false);
    expect(all.enough(10, 9000)).toBe(true);
  });
});
