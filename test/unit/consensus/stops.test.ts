import { describe, expect, it } from "vitest";
import { utf8 } from "../../../protocol/bytes.ts";
import { Stops } from "../../../server/consensus/stops.ts";
import { coreView } from "../../simulation/core-replica.ts";
import { fastCrypto } from "../../simulation/fast-crypto.ts";

const clients = ["alice", "bob", "carol"].map((name) => fastCrypto.sha256(utf8(name))).sort();
const [alice, bob, carol] = clients as [(typeof clients)[number], (typeof clients)[number], (typeof clients)[number]];

/** STOPs as [sender, regency], in order of arrival. */
function stopsOf(arrivals: readonly (readonly [number, number])[]): Stops {
  const stops = new Stops();
  for (const [sender, regency] of arrivals) stops.add(sender, { regency, named: [] });
  return stops;
}

describe("section 5: a STOP for a higher regency counts for all below", () => {
  const { weakQuorum, quorum } = coreView(4);
  const ROWS: readonly {
    readonly rule: string;
    readonly arrivals: readonly (readonly [number, number])[];
    readonly joined: number;
    readonly installed: number;
  }[] = [
    { rule: "nobody asks", arrivals: [], joined: 0, installed: 0 },
    { rule: "one alone moves nobody, however high", arrivals: [[3, 99]], joined: 0, installed: 0 },
    {
      rule: "W are joined",
      arrivals: [
        [0, 1],
        [1, 1],
      ],
      joined: 1,
      installed: 0,
    },
    {
      rule: "Q install",
      arrivals: [
        [0, 1],
        [1, 1],
        [2, 1],
      ],
      joined: 1,
      installed: 1,
    },
    {
      rule: "the highest that W ask for is joined",
      arrivals: [
        [0, 1],
        [1, 4],
        [2, 9],
      ],
      joined: 4,
      installed: 1,
    },
    {
      rule: "a liar's high STOP counts for the low one",
      arrivals: [
        [3, 99],
        [1, 2],
      ],
      joined: 2,
      installed: 0,
    },
    {
      rule: "and lifts nobody above the others",
      arrivals: [
        [3, 99],
        [1, 2],
        [0, 2],
      ],
      joined: 2,
      installed: 2,
    },
    {
      rule: "the newest of each counts once",
      arrivals: [
        [1, 1],
        [1, 2],
        [1, 3],
      ],
      joined: 0,
      installed: 0,
    },
    {
      rule: "a late low STOP takes nothing back",
      arrivals: [
        [1, 3],
        [2, 3],
        [1, 1],
      ],
      joined: 3,
      installed: 0,
    },
    {
      rule: "order does not matter",
      arrivals: [
        [2, 9],
        [0, 1],
        [1, 4],
        [3, 4],
      ],
      joined: 4,
      installed: 4,
    },
  ];
  for (const { rule, arrivals, joined, installed } of ROWS) {
    it(rule, () => {
      const stops = stopsOf(arrivals);
      expect(stops.reached(weakQuorum)).toBe(joined);
      expect(stops.reached(quorum)).toBe(installed);
    });
  }

  it("asking for as much again is nothing new", () => {
    const stops = new Stops();
    expect(stops.add(1, { regency: 2, named: [] })).toBe(true);
    expect(stops.add(1, { regency: 2, named: [alice] })).toBe(false);
    expect(stops.add(1, { regency: 1, named: [alice] })).toBe(false);
    expect(stops.namedOf(1)).toEqual([]);
    expect(stops.add(1, { regency: 3, named: [alice] })).toBe(true);
    expect(stops.namedOf(1)).toEqual([alice]);
    expect(stops.namedOf(2)).toEqual([]);
  });
});

describe("section 4.2: a client named by W STOPs must sign", () => {
  it("each member has one voice for a client, and its newest STOP is what it says", () => {
    const stops = new Stops();
    stops.add(0, { regency: 1, named: [bob, bob, alice] });
    expect(stops.namedBy(2)).toEqual([]);
    stops.add(1, { regency: 1, named: [bob] });
    expect(stops.namedBy(2)).toEqual([bob]);
    stops.add(2, { regency: 1, named: [carol, alice] });
    expect(stops.namedBy(2)).toEqual([alice, bob]);
    expect(stops.namedBy(3)).toEqual([]);
    stops.add(1, { regency: 2, named: [] });
    expect(stops.namedBy(2)).toEqual([alice]);
    expect(stops.namedBy(1)).toEqual([alice, bob, carol]);
  });
});
