import { describe, expect, it } from "vitest";
import { hex } from "../../../protocol/bytes.ts";
import { clusterFileSchema, clusterOf, parseClusterFile } from "../../../protocol/cluster.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { newIdentity } from "../../../protocol/identity.ts";
import {
  faultsTolerated,
  leaderOf,
  quorumOf,
  ROTATION_DEFAULT,
  ROTATION_MAX,
  type View,
} from "../../../protocol/view.ts";

function file(n: number, f: number, mode: "bft" | "cft" = "bft") {
  return {
    format: 1 as const,
    clusterId: "ab".repeat(32),
    mode,
    f,
    members: Array.from({ length: n }, (_, id) => {
      const keys = newIdentity(nodeCrypto);
      return {
        id,
        host: "h",
        clientPort: 1,
        peerPort: 2,
        adminPort: 3,
        signKey: hex(keys.signKey),
        boxKey: hex(keys.boxKey),
      };
    }),
    administrators: ["cd".repeat(32)],
    clients: "open" as const,
    signedRequests: false,
    maxClients: 10,
  };
}

describe("quorums (section 1)", () => {
  it("follow the formula for every n and f, not 2f+1", () => {
    const table = [
      [1, 0, 1],
      [2, 0, 2],
      [3, 0, 2],
      [4, 1, 3],
      [5, 1, 4],
      [6, 1, 4],
      [7, 2, 5],
      [8, 2, 6],
      [9, 2, 6],
      [10, 3, 7],
      [13, 4, 9],
    ] as const;
    for (const [n, f, q] of table) expect([n, quorumOf({ n, f, mode: "bft" })]).toEqual([n, q]);
    for (const [n, q] of [
      [1, 1],
      [2, 2],
      [3, 2],
      [4, 3],
      [5, 3],
    ] as const)
      expect(quorumOf({ n, f: 1, mode: "cft" })).toBe(q);
  });

  it("two quorums share more than f replicas, and n-f replicas are always one", () => {
    for (let n = 1; n <= 64; n++) {
      for (let f = 0; f <= faultsTolerated({ n, mode: "bft" }); f++) {
        const q = quorumOf({ n, f, mode: "bft" });
        expect(2 * q - n).toBeGreaterThan(f);
        expect(n - f).toBeGreaterThanOrEqual(q);
      }
    }
  });

  it("too many faults for n are refused", () => {
    expect(() => clusterOf(nodeCrypto, file(3, 1))).toThrow(/at least 4/);
    expect(() => clusterOf(nodeCrypto, file(6, 2))).toThrow(/at least 7/);
    expect(clusterOf(nodeCrypto, file(3, 1, "cft")).view.weakQuorum).toBe(1);
  });

  it("the leader is a pure function of view, regency and instance", () => {
    const { view } = clusterOf(nodeCrypto, file(4, 1));
    expect([0, 1, 2, 3, 4, 5].map((regency) => leaderOf(view, regency, 9))).toEqual([0, 1, 2, 3, 0, 1]);
    const rotating: View = { ...view, rotation: 10 };
    expect([0, 9, 10, 19, 20, 40].map((instance) => leaderOf(rotating, 0, instance))).toEqual([0, 0, 1, 1, 2, 0]);
    // The next regency moves every turn on by one: whoever failed does not lead the rest of its turn.
    expect([0, 9, 10, 19, 20, 40].map((instance) => leaderOf(rotating, 3, instance))).toEqual([3, 3, 0, 0, 1, 3]);
  });

  it("leaders take turns exactly in the malicious fault model, K instances each", () => {
    const signed = { ...file(4, 1), signedRequests: true };
    expect(clusterOf(nodeCrypto, signed).view).toMatchObject({ faultModel: "plain", rotation: 0 });
    expect(clusterOf(nodeCrypto, { ...signed, faultModel: "plain" }).view.rotation).toBe(0);
    const malicious = clusterOf(nodeCrypto, { ...signed, faultModel: "malicious", rotation: 2 }).view;
    expect(malicious).toMatchObject({ faultModel: "malicious", rotation: 2 });
    const led = [1, 2, 3, 4, 5, 6, 7, 8, 9].map((instance) => leaderOf(malicious, 0, instance));
    expect(led).toEqual([0, 1, 1, 2, 2, 3, 3, 0, 0]);
    expect(clusterOf(nodeCrypto, { ...signed, faultModel: "malicious" }).view.rotation).toBe(ROTATION_DEFAULT);
  });

  it("the malicious fault model takes signed requests and mode bft, and turns take the malicious fault model", () => {
    const malicious = { ...file(4, 1), faultModel: "malicious" as const };
    expect(() => clusterOf(nodeCrypto, malicious)).toThrow(/signedRequests: must be true/);
    expect(() => clusterOf(nodeCrypto, { ...file(4, 1), rotation: 5 })).toThrow(/rotation: leaders rotate only/);
    const crash = { ...file(3, 1, "cft"), faultModel: "malicious" as const, signedRequests: true };
    expect(() => clusterOf(nodeCrypto, crash)).toThrow(/takes mode bft/);
    for (const rotation of [0, 1.5, ROTATION_MAX + 1]) {
      expect(clusterFileSchema.safeParse({ ...malicious, rotation }).success).toBe(false);
    }
  });
});

describe("cluster file", () => {
  it("the genesis digest covers members, clients and rules", () => {
    const base = file(4, 1);
    const genesis = clusterOf(nodeCrypto, base).genesis;
    expect(clusterOf(nodeCrypto, { ...base, members: [...base.members].reverse() }).genesis).toBe(genesis);
    const [first, ...rest] = base.members;
    if (!first) throw new Error("no members");
    const changed = [
      { ...base, signedRequests: true },
      { ...base, maxClients: 11 },
      { ...base, clients: ["ef".repeat(32)] },
      { ...base, members: [{ ...first, peerPort: 9 }, ...rest] },
      { ...base, clusterId: "ac".repeat(32) },
    ];
    for (const other of changed) expect(clusterOf(nodeCrypto, other).genesis).not.toBe(genesis);
    const signed = { ...base, signedRequests: true };
    const models = [
      signed,
      { ...signed, faultModel: "malicious" as const },
      { ...signed, faultModel: "malicious" as const, rotation: 7 },
    ];
    expect(new Set(models.map((other) => clusterOf(nodeCrypto, other).genesis)).size).toBe(3);
    expect(clusterOf(nodeCrypto, { ...base, faultModel: "plain" }).genesis).toBe(genesis);
  });

  it("names the first thing wrong", () => {
    const base = file(4, 1);
    expect(() => parseClusterFile("{", "c.json")).toThrow(/c\.json is not JSON/);
    expect(() =>
      parseClusterFile(JSON.stringify({ ...base, members: [{ ...base.members[0], peerPort: 0 }] }), "c.json"),
    ).toThrow(/members\.0\.peerPort/);
    expect(() => parseClusterFile(JSON.stringify({ ...base, extra: 1 }), "c.json")).toThrow(/extra/);
    expect(() =>
      clusterOf(nodeCrypto, { ...base, members: base.members.map((member) => ({ ...member, id: 0 })) }),
    ).toThrow(/same id/);
    expect(clusterFileSchema.parse(JSON.parse(JSON.stringify(base)))).toEqual(base);
  });
});
