import { describe, expect, it } from "vitest";
import { latin1, utf8 } from "../../../protocol/bytes.ts";
import { type Certificate, type StopData, stopDataStatement, writeStatement } from "../../../protocol/messages.ts";
import type { View } from "../../../protocol/view.ts";
import { checkable, isNewer, selected, stopDataChecks, synchronizerOf } from "../../../server/consensus/selection.ts";
import { signerOf } from "../../simulation/core-cluster.ts";
import { coreView } from "../../simulation/core-replica.ts";
import { fastCrypto } from "../../simulation/fast-crypto.ts";

/** "r0 i1 a": the batch called a, accepted in instance 1 and regency 0; or "none". */
function recordOf(text: string, view: View = coreView(4), voters = view.quorum): Certificate | null {
  const match = /^r(\d+) i(\d+) (\w+)$/.exec(text);
  if (!match) return null;
  const place = {
    view: view.id,
    regency: Number(match[1]),
    instance: Number(match[2]),
    digest: fastCrypto.sha256(utf8(match[3] as string)),
  };
  const votes = Array.from({ length: voters }, (_, replica) => ({
    replica,
    signature: signerOf(replica)(writeStatement(view.cluster, place)),
  }));
  return { ...place, votes };
}

function reportOf(replica: number, record: Certificate | null): StopData {
  return { replica, record, signature: new Uint8Array(64) };
}

const NAMES = new Map(["a", "b", "c"].map((name) => [fastCrypto.sha256(utf8(name)), name]));

function words(record: Certificate | null): string {
  return record ? `r${record.regency} i${record.instance} ${NAMES.get(record.digest)}` : "none";
}

/** What n-f members report, and what has to go on. */
const TABLES: Record<number, readonly (readonly [readonly string[], string])[]> = {
  4: [
    [["none", "none", "none"], "none"],
    // None and regency 0 are different things: one record outweighs any number of "none".
    [["none", "none", "r0 i1 a"], "r0 i1 a"],
    [["r0 i1 a", "none", "none"], "r0 i1 a"],
    // In one instance the newest regency wins, however many hold the older one.
    [["r0 i1 a", "r0 i1 a", "r1 i1 b"], "r1 i1 b"],
    [["r2 i1 c", "r1 i1 b", "r0 i1 a"], "r2 i1 c"],
    // The highest instance wins over any regency below it.
    [["r5 i1 a", "r5 i1 a", "r0 i2 b"], "r0 i2 b"],
    [["r0 i2 b", "r9 i1 a", "none"], "r0 i2 b"],
    // Instances are numbers, not words.
    [["r0 i10 a", "r0 i9 b", "r0 i9 b"], "r0 i10 a"],
    [["r10 i1 a", "r9 i1 b", "none"], "r10 i1 a"],
  ],
  5: [
    [["none", "none", "none", "none"], "none"],
    [["none", "r0 i1 a", "none", "none"], "r0 i1 a"],
    [["r1 i1 b", "r0 i1 a", "r0 i1 a", "r0 i1 a"], "r1 i1 b"],
    [["r3 i4 a", "r0 i5 b", "r3 i4 a", "r3 i4 a"], "r0 i5 b"],
  ],
  6: [
    [["none", "none", "none", "none", "none"], "none"],
    [["none", "none", "none", "none", "r0 i1 a"], "r0 i1 a"],
    [["r0 i7 a", "r2 i7 b", "r1 i7 c", "r0 i7 a", "none"], "r2 i7 b"],
    [["r4 i6 a", "r4 i6 a", "r0 i7 b", "r4 i6 a", "r4 i6 a"], "r0 i7 b"],
  ],
  7: [
    [["none", "none", "none", "none", "none"], "none"],
    [["none", "none", "r0 i1 a", "none", "none"], "r0 i1 a"],
    [["r0 i1 a", "r0 i1 a", "r0 i1 a", "r0 i1 a", "r1 i1 b"], "r1 i1 b"],
    [["r1 i2 b", "r0 i2 a", "r6 i1 c", "none", "r1 i2 b"], "r1 i2 b"],
  ],
};

describe("section 5, selection: the record with the highest (instance, regency)", () => {
  for (const [n, rows] of Object.entries(TABLES)) {
    const view = coreView(Number(n));
    for (const [reports, expected] of rows) {
      it(`n = ${n}: ${reports.join(" | ")} -> ${expected}`, () => {
        expect(reports).toHaveLength(view.reachable);
        const stopData = reports.map((text, replica) => reportOf(replica, recordOf(text, view)));
        expect(words(selected(stopData))).toBe(expected);
        // Whoever reports what, and in whatever order.
        for (let shift = 1; shift < stopData.length; shift++) {
          const turned = [...stopData.slice(shift), ...stopData.slice(0, shift)];
          expect(words(selected(turned))).toBe(expected);
          expect(words(selected(turned.toReversed()))).toBe(expected);
        }
      });
    }
  }

  it("accept records are ordered by instance, then regency; nothing is newer than itself", () => {
    const order = [
      { instance: 1, regency: 0 },
      { instance: 1, regency: 7 },
      { instance: 2, regency: 0 },
      { instance: 2, regency: 1 },
    ];
    order.forEach((a, i) => {
      expect(isNewer(a, null)).toBe(true);
      order.forEach((b, j) => {
        expect(isNewer(a, b)).toBe(i > j);
      });
    });
  });
});

/** All subsets of 0..n-1 with `size` members. */
function subsets(n: number, size: number): number[][] {
  if (size === 0) return [[]];
  if (n < size) return [];
  const without = subsets(n - 1, size);
  const including = subsets(n - 1, size - 1).map((rest) => [...rest, n - 1]);
  return [...without, ...including];
}

/**
 * Instance 1 was decided as b in regency 1, so `holders` have its accept record; the others accepted a in regency 0 at most.
 * Liars among them may report an older record, or none. Is b selected whoever reports?
 */
function decidedSurvives(n: number, sizes: { holders: number; reports: number }, lie: string): boolean {
  const view = coreView(n);
  const decided = recordOf("r1 i1 b", view);
  const older = recordOf("r0 i1 a", view);
  const lied = recordOf(lie, view);
  const holderSets = subsets(n, sizes.holders);
  for (const holders of holderSets) {
    for (const liars of subsets(n, view.f)) {
      const reports = Array.from({ length: n }, (_, id) => {
        if (liars.includes(id)) return reportOf(id, lied);
        return reportOf(id, holders.includes(id) ? decided : older);
      });
      for (const heard of subsets(n, sizes.reports)) {
        const selection = selected(heard.map((id) => reports[id] as StopData));
        if (selection?.digest !== decided?.digest) return false;
      }
    }
  }
  return true;
}

describe("section 5: any n-f reports contain a decided value, whoever lies", () => {
  for (const n of [4, 5, 6, 7]) {
    const { quorum, reachable, f } = coreView(n);
    it(`n = ${n}: ${quorum} accept records, ${f} of them of liars, ${reachable} reports: every choice of each`, () => {
      expect(decidedSurvives(n, { holders: quorum, reports: reachable }, "none")).toBe(true);
      expect(decidedSurvives(n, { holders: quorum, reports: reachable }, "r0 i1 c")).toBe(true);
    });
  }

  for (const n of [4, 7]) {
    it(`n = ${n}: one accept record or one report less would not do`, () => {
      const { quorum, reachable } = coreView(n);
      expect(decidedSurvives(n, { holders: quorum - 1, reports: reachable }, "none")).toBe(false);
      expect(decidedSurvives(n, { holders: quorum, reports: reachable - 1 }, "none")).toBe(false);
    });
  }
});

describe("section 5: who gathers the reports of a regency", () => {
  it("members take turns, in the order of the view", () => {
    const view = coreView(4);
    expect([0, 1, 2, 3, 4, 5, 11].map((regency) => synchronizerOf(view, regency))).toEqual([0, 1, 2, 3, 0, 1, 3]);
  });
});

describe("section 5: which STOPDATAs may be believed", () => {
  const view = coreView(4);

  function signedReport(replica: number, regency: number, record: Certificate | null): StopData {
    const statement = stopDataStatement(view.cluster, { view: view.id, regency, replica }, record);
    return { replica, record, signature: signerOf(replica)(statement) };
  }

  /** Shape and signatures. */
  function isValid(regency: number, data: StopData): boolean {
    const checks = stopDataChecks(view, regency, data);
    return checks?.every((check) => fastCrypto.verify(check.publicKey, check.statement, check.signature)) ?? false;
  }

  const accepted = recordOf("r0 i1 a") as Certificate;
  const votes = accepted.votes;
  const stranger = { replica: 9, signature: signerOf(9)(writeStatement(view.cluster, accepted)) };

  const ROWS: readonly (readonly [string, boolean, Certificate | null])[] = [
    ["none", true, null],
    ["the certificate of an accept record", true, accepted],
    ["more than Q voters", true, recordOf("r0 i1 a", view, 4)],
    ["too few voters", false, { ...accepted, votes: votes.slice(1) }],
    ["no voters", false, { ...accepted, votes: [] }],
    ["a voter twice", false, { ...accepted, votes: [...votes.slice(1), votes[1] as (typeof votes)[number]] }],
    ["a voter twice beside Q others", false, { ...accepted, votes: [...votes, votes[1] as (typeof votes)[number]] }],
    ["a voter from elsewhere", false, { ...accepted, votes: [...votes.slice(1), stranger] }],
    ["a borrowed certificate, of another instance", false, { ...accepted, instance: 2 }],
    ["a borrowed certificate, of another batch", false, { ...accepted, digest: fastCrypto.sha256(utf8("b")) }],
    ["a borrowed certificate, of another regency", false, { ...accepted, regency: 1 }],
    ["a borrowed certificate, of another view", false, { ...accepted, view: 1 }],
    ["a record of the very regency", false, recordOf("r2 i1 a")],
    ["a record of a later regency", false, recordOf("r3 i1 a")],
  ];

  for (const [what, valid, record] of ROWS) {
    it(`${what}: ${valid ? "valid" : "not valid"}`, () => {
      expect(isValid(2, signedReport(3, 2, record))).toBe(valid);
    });
  }

  it("a report counts for its regency and its signer only, and as it was signed", () => {
    const report = signedReport(3, 2, accepted);
    expect(isValid(2, report)).toBe(true);
    expect(isValid(3, report)).toBe(false);
    expect(isValid(2, { ...report, replica: 2 })).toBe(false);
    expect(isValid(2, { ...report, record: null })).toBe(false);
    expect(isValid(2, { ...signedReport(3, 2, null), record: accepted })).toBe(false);
    expect(isValid(2, signedReport(9, 2, null))).toBe(false);
  });

  it("a report signs all of its record", () => {
    const [first, ...others] = votes;
    const place = { view: view.id, regency: 2, replica: 3 };
    const digest = fastCrypto.sha256(utf8("b"));
    const records = [
      null,
      accepted,
      { ...accepted, view: 1 },
      { ...accepted, regency: 1 },
      { ...accepted, instance: 2 },
      { ...accepted, digest },
      { ...accepted, votes: others },
      { ...accepted, votes: [{ ...(first as (typeof votes)[number]), replica: 3 }, ...others] },
      { ...accepted, votes: [{ ...(first as (typeof votes)[number]), signature: new Uint8Array(64) }, ...others] },
    ];
    const statements = records.map((record) => latin1(stopDataStatement(view.cluster, place, record)));
    expect(new Set(statements).size).toBe(records.length);
  });

  it("what cannot be valid is left out and hides nothing; of one member the first that can be is taken", () => {
    const poison = signedReport(3, 2, { ...accepted, votes: [] });
    const good = [signedReport(0, 2, null), signedReport(3, 2, accepted), signedReport(1, 2, null)];
    const found = checkable(view, 2, [poison, ...good, signedReport(0, 2, accepted), signedReport(9, 2, null)]);
    expect(found.map(({ data }) => data)).toEqual(good);
    expect(found.map(({ checks }) => checks.length)).toEqual([1, 1 + view.quorum, 1]);
  });
});
