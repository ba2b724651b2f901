/** Whose checkpoint is fetched (docs/protocol.md section 6): tables. */
import { describe, expect, it } from "vitest";
import { chooseDonor, type DonorOffer, isStale, sizeBound } from "../../../server/recovery/donor-choice.ts";
import { viewOfSize } from "./history.ts";

const MIB = 1024 * 1024;

const view = viewOfSize(4, 1);

function offer(instance: number, bytes = 100, logFirst = 1): DonorOffer {
  const header = { instance, digest: "d", timestampMs: 0, chunks: 1, bytes, manifest: "m" };
  return { logFirst, checkpoints: [header] };
}

interface Case {
  readonly name: string;
  readonly offers: Readonly<Record<number, DonorOffer>>;
  readonly roots?: Readonly<Record<number, readonly number[]>>;
  readonly position?: number;
  readonly lackLog?: readonly number[];
  readonly excluded?: readonly number[];
  readonly tried?: readonly number[];
  readonly expected: readonly [donor: number, instance: number] | null;
}

const cases: readonly Case[] = [
  { name: "nobody offers anything", offers: {}, expected: null },
  { name: "one claim alone has nothing to be measured by", offers: { 0: offer(50) }, expected: null },
  { name: "the newest", offers: { 0: offer(50), 1: offer(60), 2: offer(55) }, expected: [1, 60] },
  { name: "ties go to the lowest id", offers: { 2: offer(60), 1: offer(60) }, expected: [1, 60] },
  {
    name: "f others with roots at or above it come before newness",
    offers: { 0: offer(50), 1: offer(60), 2: offer(55) },
    roots: { 2: [55] },
    expected: [0, 50],
  },
  {
    name: "a root at exactly the checkpoint counts",
    offers: { 0: offer(60), 1: offer(55) },
    roots: { 1: [60] },
    expected: [0, 60],
  },
  {
    name: "its own root does not",
    offers: { 0: offer(60), 1: offer(55) },
    roots: { 0: [60], 2: [55] },
    expected: [1, 55],
  },
  {
    name: "a root above all that is decided does not",
    offers: { 0: offer(60), 1: offer(55) },
    roots: { 1: [5000], 2: [55] },
    expected: [1, 55],
  },
  {
    name: "too large a claim is out",
    offers: { 0: offer(90, 900 * MIB), 1: offer(50, 100 * MIB), 2: offer(40, 90 * MIB) },
    expected: [1, 50],
  },
  {
    name: "a quarter more is not",
    offers: { 0: offer(90, 125 * MIB), 1: offer(50, 100 * MIB), 2: offer(40, 100 * MIB) },
    expected: [0, 90],
  },
  {
    name: "nor is what is small in any case",
    offers: { 0: offer(90, 900), 1: offer(50), 2: offer(40) },
    expected: [0, 90],
  },
  { name: "a tiny claim excludes nobody", offers: { 0: offer(90, 1), 1: offer(95), 2: offer(40) }, expected: [1, 95] },
  { name: "not newer than the own state", offers: { 0: offer(50), 1: offer(60) }, position: 60, expected: null },
  {
    name: "the log above it must be reachable",
    offers: { 0: offer(50, 100, 56), 1: offer(60, 100, 56), 2: offer(55, 100, 56) },
    expected: [1, 60],
  },
  {
    name: "and not only said to be",
    offers: { 0: offer(50, 100, 1), 1: offer(60, 100, 99), 2: offer(55, 100, 99) },
    lackLog: [0],
    expected: null,
  },
  { name: "excluded", offers: { 0: offer(50), 1: offer(60) }, excluded: [1], expected: [0, 50] },
  { name: "tried before: after all others", offers: { 0: offer(50), 1: offer(60) }, tried: [1], expected: [0, 50] },
  {
    name: "tried before: rather than nobody",
    offers: { 0: offer(50), 1: offer(60) },
    tried: [0, 1],
    expected: [1, 60],
  },
  { name: "the asker itself offers nothing", offers: { 0: offer(50), 1: offer(60), 3: offer(99) }, expected: [1, 60] },
];

describe("6: choosing a donor", () => {
  it.each(cases)("$name", ({ offers, roots, position = 0, lackLog, excluded, tried, expected }) => {
    const choice = chooseDonor({
      view,
      self: 3,
      offers: new Map(Object.entries(offers).map(([id, value]) => [Number(id), value])),
      rootsOf: (member) => new Map((roots?.[member] ?? []).map((instance) => [instance, "r"])),
      position,
      target: 1000,
      servesLog: (member) => !lackLog?.includes(member),
      excluded: (member) => excluded?.includes(member) ?? false,
      tried: new Set(tried),
    });
    expect(choice && [choice.donor, choice.header.instance]).toEqual(expected);
  });

  it.each([
    [1, [100 * MIB, 110 * MIB, 120 * MIB], 137.5 * MIB],
    [1, [100 * MIB, 110 * MIB, 1e12], 137.5 * MIB],
    [2, [100 * MIB, 110 * MIB, 1e12, 1e12, 120 * MIB], 150 * MIB],
    [1, [100, 110, 120], 8 * MIB],
    [1, [100, 110, 1e12], 8 * MIB],
    [2, [100, 110], null],
  ])("f = %i, claims %j: at most %s bytes", (f, claims, expected) => {
    expect(sizeBound(viewOfSize(3 * f + 1, f), claims)).toBe(expected);
  });
});

describe("a checkpoint with much log above it", () => {
  const header = { instance: 100, digest: "", timestampMs: 0, chunks: 1, bytes: 20 * MIB, manifest: "" };
  const offer = { logFirst: 1, logBytes: 200 * MIB, decided: 200 };

  it.each([
    ["is stale when the log above is large, and larger than half of it", header, offer, 200, true],
    ["is not when little is above it", { ...header, instance: 190 }, offer, 200, false],
    ["is not when it is itself much larger", { ...header, bytes: 300 * MIB }, offer, 200, false],
    ["is not when nothing is above it", header, offer, 100, false],
    ["is not when its donor has no log to judge by", header, { ...offer, logFirst: 0 }, 200, false],
  ])("%s", (_name, at, of, target, stale) => {
    expect(isStale(at, of, target)).toBe(stale);
  });
});
