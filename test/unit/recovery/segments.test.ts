/** Segments prove themselves, and the buffer of proven ones (docs/protocol.md section 6). */
import { describe, expect, it } from "vitest";
import type { HistoryProof } from "../../../protocol/messages.ts";
import { ProvenLog } from "../../../server/recovery/proven-log.ts";
import { prefix, provenCount, type Segment, segmentOf } from "../../../server/recovery/segments.ts";
import { crypto, History, viewOfSize } from "./history.ts";

const view = viewOfSize(4, 1);
const history = new History(view, 60);

function segment(from: number, to: number): Segment {
  const batches = Array.from({ length: to - from + 1 }, (_, index) => history.batch(from + index));
  const previous = history.digest(from - 1);
  return segmentOf(crypto, view, { type: "HISTORY", view: 0, regency: 0, from, previous, batches, proof: null });
}

function proof(certificateAt: number, linksFrom = certificateAt + 1): HistoryProof {
  const links: string[] = [];
  for (let at = linksFrom; at <= certificateAt; at++) links.push(crypto.sha256(history.batch(at)));
  return { links, certificate: history.certificate(certificateAt) };
}

describe("what a certificate proves of a segment", () => {
  it.each([
    ["beyond it: all", 10, 20, proof(21, 21), 11],
    ["far beyond it, linked: all", 10, 20, proof(25, 21), 11],
    ["of its last instance: all but that", 10, 20, proof(20), 10],
    ["in its middle: what lies below", 10, 20, proof(15), 5],
    ["of its first: nothing", 10, 20, proof(10), 0],
    ["below it: nothing", 10, 20, proof(5), 0],
    ["links missing: a contradiction", 10, 20, proof(25, 22), "false"],
    [
      "links of something else: a contradiction",
      10,
      20,
      { ...proof(21, 21), links: [crypto.sha256(history.batch(1))] },
      "false",
    ],
  ] satisfies [string, number, number, HistoryProof, number | "false"][])("%s", (_name, from, to, given, expected) => {
    expect(provenCount(crypto, view, segment(from, to), given)).toBe(expected);
  });

  it("a false beginning or a false batch contradicts it", () => {
    const honest = segment(10, 20);
    const base = { type: "HISTORY", view: 0, regency: 0, from: 10, proof: null } as const;
    const batches = honest.batches.map((batch) => batch.bytes);
    const shifted = segmentOf(crypto, view, { ...base, previous: history.digest(8), batches });
    expect(provenCount(crypto, view, shifted, proof(21, 21))).toBe("false");
    const altered = segmentOf(crypto, view, { ...base, previous: honest.previous, batches: batches.toReversed() });
    expect(provenCount(crypto, view, altered, proof(15))).toBe("false");
  });
});

describe("the buffer of the proven log", () => {
  it("joins segments in any order and without overlap, and hands them out in order", () => {
    const log = new ProvenLog(1_000_000);
    log.rebase(9);
    expect(log.add(segment(20, 30))).toBe(true);
    expect(log.through).toBe(9);
    expect(log.add(segment(5, 25))).toBe(true);
    expect(log.add(segment(12, 28))).toBe(false);
    expect(log.through).toBe(30);
    expect(log.baseDigest).toBe(history.digest(9));
    const taken = log.take(15, 1_000_000);
    expect(taken.map((batch) => batch.instance)).toEqual([10, 11, 12, 13, 14, 15]);
    expect(taken.every((batch) => batch.digest === history.digest(batch.instance))).toBe(true);
    expect(log.base).toBe(15);
    expect(log.take(30, 1).map((batch) => batch.instance)).toEqual([16]);
  });

  it("knows the digest below, also of nothing but an empty prefix and after going back", () => {
    const log = new ProvenLog(1_000_000);
    log.rebase(9);
    expect(log.add(prefix(segment(10, 12), 0))).toBe(true);
    expect(log.baseDigest).toBe(history.digest(9));
    log.add(segment(20, 22));
    log.rebase(19);
    expect(log.baseDigest).toBe(history.digest(19));
    log.rebase(4);
    expect(log.baseDigest).toBe(null);
  });

  it("names gaps that are neither here nor on their way", () => {
    const log = new ProvenLog(1_000_000);
    log.rebase(9);
    log.add(segment(20, 25));
    expect(log.gap(40, 256, [])).toEqual({ from: 10, to: 19 });
    expect(log.gap(40, 4, [])).toEqual({ from: 10, to: 13 });
    expect(log.gap(40, 256, [{ from: 10, to: 19 }])).toEqual({ from: 26, to: 40 });
    expect(log.gap(25, 256, [{ from: 10, to: 19 }])).toBe(null);
  });

  it("full, it takes only what execution waits for", () => {
    const log = new ProvenLog(1000);
    log.rebase(9);
    log.add(segment(20, 30));
    expect(log.full).toBe(true);
    expect(log.add(segment(31, 40))).toBe(false);
    expect(log.add(segment(10, 12))).toBe(true);
    expect(log.through).toBe(12);
    // Execution has something to do now: what follows on it can wait.
    expect(log.add(segment(13, 19))).toBe(false);
  });
});
