/** Collaborative state transfer against honest, lying, slow and missing members (docs/protocol.md section 6). */
import { describe, expect, it } from "vitest";
import { CHUNK_BYTES_MIN } from "../../../protocol/limits.ts";
import type { Certificate } from "../../../protocol/messages.ts";
import { Offers } from "../../../server/recovery/offers.ts";
import type { TransferPort } from "../../../server/recovery/transfer-contract.ts";
import { cluster, flipped, lying } from "./cluster.ts";
import { crypto, History, signedRoot, viewOfSize } from "./history.ts";
import { Peer } from "./peer.ts";
import { heldChunks, Run } from "./run.ts";

const IDLE_PORT: TransferPort = {
  nowUs: () => 0,
  send: () => undefined,
  verify: () => undefined,
  blame: () => undefined,
};

describe("6: an empty replica fetches a checkpoint and the log", () => {
  it.each([1, 2, 3])("f = %i: everybody correct", (f) => {
    const { run, history } = cluster(f, []);
    run.until(20);
    expect(run.right).toBe(true);
    expect(run.accepted?.place.instance).toBeGreaterThanOrEqual(history.length - 100);
    expect(run.accepted?.certificate?.instance).toBeGreaterThanOrEqual(run.accepted?.place.instance ?? 0);
    expect(run.donors).toHaveLength(1);
    expect(run.blamed).toEqual([]);
  });

  it.each([1, 2, 3])("f = %i: f peers down", (f) => {
    const down = Array.from({ length: f }, () => ({ down: true }));
    const { run } = cluster(f, down);
    expect(run.until(30).right).toBe(true);
  });

  it("f = 0: the proven history alone speaks for the checkpoint", () => {
    const history = new History(viewOfSize(2, 0), 50);
    const peers = [new Peer({ id: 0, history, checkpoints: [20] })];
    const run = new Run({ history, self: 1, peers }).until(10);
    expect(run.right).toBe(true);
    expect(run.of("computeRoot")).toEqual([]);
  });

  it("nobody has a checkpoint yet: they are asked to take one", () => {
    const { run } = cluster(1, [{ checkpoints: [] }, { checkpoints: [] }, { checkpoints: [] }]);
    expect(run.until(20).right).toBe(true);
    expect(run.sent("FETCH_OFFER").some(({ message }) => message.rootsFrom === 1)).toBe(true);
  });

  it("nobody has anything newer: who could go on by log does", () => {
    const { run, history } = cluster(1, [], { position: 400, optional: true });
    run.until(5);
    expect(history.length).toBe(400);
    expect(run.of("needless")).toHaveLength(1);
    expect(cluster(1, [], { position: 400 }).run.until(5).of("needless")).toEqual([]);
  });

  it("nobody has answered yet: that does not say that nobody has anything newer", () => {
    const silent = { down: true };
    const { run } = cluster(1, [silent, silent, silent], { optional: true });
    expect(run.until(15).of("needless")).toEqual([]);
    expect(run.until(10).of("needless")).toHaveLength(1);
  });

  it("nobody can be fetched from: who could go on by log does, after a while", () => {
    const silent = lying("OFFER", (m) => ({ ...m, checkpoints: [], roots: [] }));
    const { run } = cluster(1, [{ lie: silent }, { lie: silent }, { lie: silent }], { optional: true });
    expect(run.until(18).of("needless")).toEqual([]);
    expect(run.until(4).of("needless")).toHaveLength(1);
  });

  it("one donor and no root of anybody else: who could go on by log does not wait for others that wait like it", () => {
    const rootless = { checkpoints: [60], height: 100, neverTakes: true };
    const setups = [{ checkpoints: [150] }, rootless, rootless];
    const { run } = cluster(1, setups, { optional: true, position: 100 });
    expect(run.until(8).of("needless")).toEqual([]);
    expect(run.until(12).of("needless")).toHaveLength(1);
    expect(run.donors).toEqual([0]);
    const empty = cluster(1, setups, { position: 100 }).run.until(40);
    expect(empty.of("needless"), "who cannot waits on").toEqual([]);
    expect(empty.accepted).toBeNull();
  });

  it("a certificate proves that the instance below it is decided, and no more", () => {
    const { run } = cluster(1, [{ height: 300 }, { height: 300 }, { height: 300 }]);
    const newest = run.transfer.state.target;
    expect(newest).toBe(0);
    run.until(20);
    const certificate = run.accepted?.certificate;
    expect(certificate).not.toBeNull();
    const offers = new Offers(viewOfSize(4, 1), () => viewOfSize(4, 1), IDLE_PORT);
    offers.proven(certificate as Certificate);
    expect(offers.target).toBe((certificate as Certificate).instance - 1);
  });

  it("a certificate is kept of the history that was fetched: of the instance above it there is no batch here", () => {
    const { run } = cluster(1, [{ height: 390, logFirst: 1_000 }]);
    expect(run.until(20).accepted).toMatchObject({ place: { instance: 399 }, certificate: { instance: 390 } });
    const { run: all } = cluster(1, []);
    const { place, certificate } = all.until(20).accepted ?? {};
    expect(certificate?.instance, "where nobody offers one, all that answered have its batch").toBe(
      (place?.instance ?? 0) + 1,
    );
  });

  it("a standstill: the last instance, which no certificate is above, is reached through roots", () => {
    const { run, history } = cluster(1, [{ checkpoints: [150] }, { checkpoints: [] }, { down: true }], {
      withoutStatus: true,
    });
    run.until(120);
    expect(run.right).toBe(true);
    expect(run.accepted?.place.instance).toBe(history.length);
  });

  it("a standstill: W signed STATUS prove the last instance", () => {
    const { run, history } = cluster(1, [{ roots: [400] }, { roots: [400] }, { roots: [400] }]);
    run.until(20);
    expect(run.right).toBe(true);
    expect(run.accepted?.place.instance).toBe(history.length);
  });

  it("roots roll on while the cluster goes on deciding", () => {
    const { run, history, peers } = cluster(1, [
      { checkpoints: [300] },
      { checkpoints: [280], neverTakes: true },
      { checkpoints: [260], neverTakes: true },
    ]);
    let ticks = 0;
    run.until(60, () => {
      history.grow(history.length + 20);
      // Roots come long after their instance, as images take time.
      if (++ticks % 50 === 0) for (const peer of peers) peer.roots = [history.length - 200, ...peer.roots].slice(0, 4);
    });
    expect(run.right).toBe(true);
    expect(run.accepted?.place.instance).toBeGreaterThan(300);
  });

  it("only what is newer than the own state helps, and own roots do not count", () => {
    const { run } = cluster(1, [], { position: 170 });
    run.until(20);
    expect(run.right).toBe(true);
    expect(run.of("chosen")[0]?.header.instance).toBeGreaterThan(170);
  });
});

describe("6: the log comes from the others", () => {
  it("in parallel, and not from the donor", () => {
    const { run } = cluster(2, [], { length: 3000 });
    run.until(20);
    const [donor] = run.donors;
    const asked = new Set(run.sent("FETCH_HISTORY").map(({ to }) => to));
    expect(asked.size).toBeGreaterThanOrEqual(4);
    expect(asked.has(donor as number)).toBe(false);
    const first = run.sent("FETCH_HISTORY").slice(0, 4);
    expect(new Set(first.map(({ message }) => message.from)).size).toBe(4);
  });

  it("from the donor when nobody else has it", () => {
    const { run } = cluster(1, [{ logFirst: 390 }, {}, { logFirst: 390 }]);
    run.until(40);
    expect(run.right).toBe(true);
    expect(run.sent("FETCH_HISTORY").some(({ to }) => to === run.donors[0])).toBe(true);
  });

  it("a peer that answers empty is not asked below that again", () => {
    const { run, peers } = cluster(1, [{}, { lie: lying("HISTORY", (m) => ({ ...m, batches: [], proof: null })) }, {}]);
    run.until(20);
    expect(run.right).toBe(true);
    const froms = peers[0]?.asked.flatMap((message) => (message.type === "FETCH_HISTORY" ? [message.from] : [])) ?? [];
    expect(froms).toEqual([...froms].sort((a, b) => a - b));
  });

  it("a silent source is left for another", () => {
    const { run } = cluster(1, [{ lie: lying("HISTORY", () => null) }, {}, {}]);
    expect(run.until(20).right).toBe(true);
  });

  it.each([
    ["a false batch", lying("HISTORY", (m) => ({ ...m, batches: m.batches.map(flipped) })), "HISTORY_CHAIN"],
    [
      "a false beginning",
      lying("HISTORY", (m) => ({ ...m, previous: m.proof?.certificate.digest ?? "" })),
      "HISTORY_CHAIN",
    ],
    [
      "a forged certificate",
      lying("HISTORY", (m) => {
        if (!m.proof) return m;
        const { certificate } = m.proof;
        const votes = certificate.votes.map((vote) => ({ ...vote, signature: flipped(vote.signature) }));
        return { ...m, proof: { ...m.proof, certificate: { ...certificate, votes } } };
      }),
      "HISTORY_CERTIFICATE",
    ],
    [
      "too few votes",
      lying("HISTORY", (m) => {
        if (!m.proof) return m;
        const { certificate } = m.proof;
        return { ...m, proof: { ...m.proof, certificate: { ...certificate, votes: certificate.votes.slice(1) } } };
      }),
      "HISTORY_CHAIN",
    ],
  ] as const)("a log liar is named and not asked again: %s", (_name, lie, code) => {
    const { run, peers } = cluster(1, [{ lie }, {}, {}]);
    run.until(20);
    expect(run.right).toBe(true);
    expect(run.blamed).toEqual([`0 ${code}`]);
    expect(peers[0]?.count("FETCH_HISTORY")).toBe(1);
  });

  it("is bounded in memory, and still gets through", () => {
    const { run } = cluster(1, [], { length: 3000, logBufferBytesMax: 64 * 1024 });
    expect(run.until(60).right).toBe(true);
  });
});

describe("6: donors that lie", () => {
  const witnesses = { roots: [300] };

  it.each([
    ["chunk", lying("CHUNK", (m) => ({ ...m, chunk: flipped(m.chunk) })), "CHUNK_DIGEST"],
    ["manifest", lying("MANIFEST", (m) => ({ ...m, manifest: flipped(m.manifest) })), "MANIFEST_DIGEST"],
  ] as const)("a wrong %s: the next donor, keeping what is verified", (_name, lie, code) => {
    const { run } = cluster(1, [{ lie }, witnesses, witnesses]);
    run.until(20);
    expect(run.right).toBe(true);
    expect(run.donors).toEqual([0, 1]);
    expect(run.blamed).toEqual([`0 ${code}`]);
  });

  it("a state of its own is refuted by W others, never by one", () => {
    const { run } = cluster(1, [{ extra: { evil: "1" } }, witnesses, witnesses]);
    run.until(20);
    expect(run.right).toBe(true);
    expect(run.dropped).toEqual(["0 CHECKPOINT_ROOT"]);
    expect(run.of("dropped")).toHaveLength(1);
  });

  it("a false height: the proven history below the log contradicts it", () => {
    const { run } = cluster(1, [{ heightLie: 50 }, witnesses, witnesses]);
    run.until(20);
    expect(run.right).toBe(true);
    expect(run.dropped).toEqual(["0 CHECKPOINT_HISTORY"]);
  });

  it("a false time: the batches above are older", () => {
    const lie = lying("OFFER", (m) => ({
      ...m,
      checkpoints: m.checkpoints.map((header) => ({ ...header, timestampMs: 9_000_000 })),
    }));
    const { run } = cluster(1, [{ lie }, witnesses, witnesses]);
    run.until(20);
    expect(run.right).toBe(true);
    expect(run.dropped).toEqual(["0 CHECKPOINT_TIME"]);
  });

  it("an inflated size is not fetched", () => {
    const lie = lying("OFFER", (m) => ({
      ...m,
      checkpoints: m.checkpoints.map((header) => ({ ...header, bytes: header.bytes * 100, chunks: 90_000 })),
    }));
    const { run, peers } = cluster(1, [{ lie }, witnesses, witnesses]);
    run.until(20);
    expect(run.right).toBe(true);
    expect(peers[0]?.count("FETCH_MANIFEST")).toBe(0);
  });

  it("f = 2: a donor and a witness together do not get a false state believed", () => {
    const evil = { extra: { evil: "1" } };
    const { run } = cluster(2, [
      { ...evil, checkpoints: [250] },
      { ...evil, checkpoints: [240], roots: [300] },
      { roots: [300] },
    ]);
    run.until(60);
    expect(run.right).toBe(true);
    expect(run.donors[0]).toBe(0);
    expect(run.donors.at(-1)).toBeGreaterThan(1);
    expect(run.blamed).toContain("0 CHECKPOINT_ROOT");
  });

  it("a liar that contradicts a right donor drops nobody and is named", () => {
    const { run } = cluster(1, [{}, { roots: [300], rootExtra: { evil: "1" } }, { roots: [350] }]);
    run.until(20);
    expect(run.right).toBe(true);
    expect(run.donors).toEqual([0]);
    expect(run.blamed).toEqual(["1 ROOT_CONTRADICTS"]);
  });

  it("roots with false signatures count for nothing", () => {
    const lie = lying("OFFER", (m) => ({
      ...m,
      roots: m.roots.map((root) => ({ ...root, signature: flipped(root.signature) })),
    }));
    const { run } = cluster(1, [{}, { lie }, { roots: [350] }]);
    run.until(20);
    expect(run.right).toBe(true);
    expect(run.blamed).toEqual(["1 ROOT_SIGNATURE"]);
  });

  it("a forged newest certificate sets no target", () => {
    const lie = lying("OFFER", (m) => {
      if (!m.newest) return m;
      return { ...m, decided: 10_000_000, newest: { ...m.newest, instance: 10_000_000 } };
    });
    const { run } = cluster(1, [{}, { lie }, {}]);
    run.until(20);
    expect(run.right).toBe(true);
    expect(run.blamed).toEqual(["1 OFFER_CERTIFICATE"]);
    expect(run.transfer.state.target).toBeLessThan(1000);
  });

  it("a root far above everything decided holds nothing up", () => {
    const { run, peers } = cluster(1, [{ checkpoints: [180] }, { checkpoints: [160] }, { down: true }]);
    const far = peers[1] as Peer;
    run.until(30, (current) => {
      if (current.nowUs > 0) return;
      current.deliver(far.id, {
        type: "ROOT",
        view: 0,
        regency: 0,
        ...signedRoot(far.id, 9_000_000, crypto.sha256(new Uint8Array(1))),
      });
    });
    expect(run.right).toBe(true);
  });
});

describe("6: donors that do not deliver", () => {
  it("a stall: the next donor, and equal chunks are not fetched twice", () => {
    let chunks = 0;
    const lie = lying("CHUNK", (m) => (++chunks > 1 ? null : m));
    const { run, peers, history } = cluster(1, [{ lie }, { roots: [300] }, { roots: [300] }]);
    run.until(30);
    expect(run.right).toBe(true);
    expect(run.dropped).toEqual(["0 STALLED"]);
    const all = history.image(peers[1]?.checkpoints[0] ?? 0).chunks.length;
    expect(peers[1]?.count("FETCH_CHUNK")).toBe(all - 1);
  });

  it("a checkpoint that is not offered any more: the next", () => {
    const { run, peers } = cluster(1, [{}, { roots: [300] }, { roots: [300] }]);
    run.until(20, (current) => {
      const [donor] = peers;
      if (donor && current.nowUs >= 1_000_000) return;
      if (donor && donor.count("FETCH_MANIFEST") === 0)
        donor.options.lie = lying("MANIFEST", (m) => ({ ...m, manifest: new Uint8Array(0) }));
    });
    expect(run.right).toBe(true);
    expect(run.dropped).toEqual(["0 CHECKPOINT_GONE"]);
    expect(run.blamed).toEqual([]);
  });

  it("nor is it excluded at another member: where nothing is decided any more there is no other", () => {
    const idle = { checkpoints: [400], neverTakes: true };
    const lie = lying("MANIFEST", (m) => ({ ...m, manifest: new Uint8Array(0) }));
    const { run, history } = cluster(1, [{ ...idle, lie }, idle, idle]);
    run.until(30);
    expect(run.right).toBe(true);
    expect(run.dropped).toEqual(["0 CHECKPOINT_GONE"]);
    expect(run.accepted?.place.instance).toBe(history.length);
  });

  it("nor for good: a member that offers the same again has it again", () => {
    const idle = { checkpoints: [400], neverTakes: true };
    const silent = lying("MANIFEST", () => null);
    const { run, peers } = cluster(1, [idle, { ...idle, lie: silent }, { ...idle, lie: silent }]);
    run.until(60, (current) => {
      const [donor] = peers;
      if (!donor) return;
      const gone = current.nowUs < 3_000_000;
      donor.options.lie = lying("MANIFEST", (m) => (gone ? { ...m, manifest: new Uint8Array(0) } : m));
    });
    expect(run.right).toBe(true);
    expect(run.dropped[0]).toBe("0 CHECKPOINT_GONE");
  });

  it("a new link to the donor: what was asked is asked again at once", () => {
    let lost = true;
    const lie = lying("CHUNK", (m) => (lost ? null : m));
    const { run } = cluster(1, [{ lie }, { roots: [300] }, { roots: [300] }]);
    run.until(2);
    lost = false;
    run.input({ type: "disconnected", peer: 0 });
    run.input({ type: "connected", peer: 0 });
    run.until(1);
    expect(run.right).toBe(true);
    expect(run.donors).toEqual([0]);
  });
});

describe("6: a restart goes on with what is staged", () => {
  it("chunks that are held are not fetched again", () => {
    const first = cluster(1, []);
    const chunks = first.history.image(first.peers[1]?.checkpoints[0] ?? 0).chunks;
    expect(chunks.length).toBeGreaterThan(2);
    expect(chunks.slice(0, -1).every((chunk) => chunk.length >= CHUNK_BYTES_MIN)).toBe(true);
    const { run, peers } = cluster(1, [], { held: heldChunks(chunks.slice(0, 2)) });
    run.until(20);
    expect(run.right).toBe(true);
    expect(peers[1]?.count("FETCH_CHUNK")).toBe(chunks.length - 2);
  });

  it("everything held: nothing is fetched but the log, and strangers are dropped", () => {
    const first = cluster(1, []);
    const held = heldChunks(first.history.image(first.peers[1]?.checkpoints[0] ?? 0).chunks);
    for (const [digest, chunk] of heldChunks(first.history.image(7, { other: "1" }).chunks)) held.set(digest, chunk);
    const { run, peers } = cluster(1, [], { held });
    run.until(20);
    expect(run.right).toBe(true);
    expect(peers[1]?.count("FETCH_CHUNK")).toBe(0);
  });
});
