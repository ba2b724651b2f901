/** State transfer and snapshots in crash mode (docs/protocol.md sections 4 and 6): a member's word is proof, a file's is not. */
import { describe, expect, it } from "vitest";
import { plansOf } from "../../../cli/snapshot/plan.ts";
import type { MessageOf } from "../../../protocol/messages.ts";
import { ViewChain } from "../../../protocol/view-chain.ts";
import { provenBatches } from "../../../server/snapshot/history-proof.ts";
import { lying } from "./cluster.ts";
import { crypto, History, signedRoot, viewOfSize } from "./history.ts";
import { Peer } from "./peer.ts";
import { Run } from "./run.ts";

const VIEW = viewOfSize(3, 1, "cft");

describe("6: a state is fetched in crash mode", () => {
  it("from one donor, with no root of anybody else to compare", () => {
    const history = new History(VIEW, 300);
    const peers = [
      new Peer({ id: 0, history, checkpoints: [120] }),
      new Peer({ id: 1, history, checkpoints: [], neverTakes: true }),
    ];
    const run = new Run({ history, self: 2, peers }).until(20);
    expect(run.right).toBe(true);
    expect(run.of("computeRoot")).toEqual([]);
    expect(run.donors).toEqual([0]);
  });

  it("from the only other member that is left", () => {
    const history = new History(VIEW, 300);
    const peers = [new Peer({ id: 0, history, checkpoints: [120] }), new Peer({ id: 1, history, down: true })];
    expect(new Run({ history, self: 2, peers }).until(20).right).toBe(true);
  });

  it("the only one that has a checkpoint dies while it is fetched: who could go on by log does, after a while", () => {
    const history = new History(VIEW, 300);
    const dies = new Peer({ id: 0, history, checkpoints: [120], lie: lying("MANIFEST", () => null) });
    const peers = [dies, new Peer({ id: 1, history, checkpoints: [], height: 0, neverTakes: true })];
    const run = new Run({ history, self: 2, peers, optional: true }).until(3);
    expect(run.donors).toEqual([0]);
    dies.options.down = true;
    run.until(20);
    expect([run.dropped, run.of("needless")]).toEqual([["0 STALLED"], []]);
    run.until(15);
    expect([run.dropped, run.of("needless").length]).toEqual([["0 STALLED"], 1]);
  });

  it("nobody has the log above it any more: the checkpoint is taken all the same, after a while", () => {
    const history = new History(VIEW, 300);
    const peers = [
      new Peer({ id: 0, history, checkpoints: [120], height: 120 }),
      new Peer({ id: 1, history, checkpoints: [], neverTakes: true, lie: lying("HISTORY", () => null) }),
    ];
    const run = new Run({ history, self: 2, peers, withoutStatus: true }).until(8);
    expect(run.transfer.state.target).toBeGreaterThan(120);
    expect(run.accepted).toBeNull();
    run.until(12);
    expect(run.accepted?.place.instance).toBe(120);
    expect(run.right).toBe(true);
  });

  it("the accept record of another member is not kept as one's own: its batch is not here", () => {
    const history = new History(VIEW, 300);
    const peers = [0, 1].map((id) => new Peer({ id, history, checkpoints: [120 + id] }));
    const run = new Run({ history, self: 2, peers }).until(20);
    expect(run.accepted).toMatchObject({ certificate: null });
  });
});

describe("6: snapshot files in crash mode", () => {
  it("log in a file proves nothing: an accept record is the word of whoever says it", () => {
    const answer = (view: typeof VIEW): MessageOf<"HISTORY"> => {
      const peer = new Peer({ id: 0, history: new History(view, 20) });
      return peer.answer({ type: "FETCH_HISTORY", view: 0, regency: 0, from: 1, to: 10 }) as MessageOf<"HISTORY">;
    };
    expect(provenBatches(crypto, ViewChain.of(VIEW), answer(VIEW))).toEqual([]);
    const bft = viewOfSize(4, 1);
    expect(provenBatches(crypto, ViewChain.of(bft), answer(bft))).toHaveLength(10);
  });

  it("a snapshot is the checkpoint of one donor, whose own signed root speaks for it", () => {
    const history = new History(VIEW, 40);
    const offers = [0, 1].map((replica) => {
      const { header, root } = history.image(20 + replica);
      const roots = [{ replica, ...signedRoot(replica, 20 + replica, root) }];
      return { replica, decided: 40, logFirst: 1, checkpoints: [header], roots, proven: 39 };
    });
    const plans = plansOf(crypto, ViewChain.of(VIEW), offers);
    expect(plans.map(({ donor, end }) => [donor, end])).toEqual([
      [1, 21],
      [0, 20],
    ]);
  });
});
