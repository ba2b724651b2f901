import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeBatch } from "../../../protocol/batch.ts";
import { type Digest, latin1 } from "../../../protocol/bytes.ts";
import { isRejection } from "../../../protocol/errors.ts";
import { LINK_BATCH_BYTES_MAX, LINK_BYTES_MAX, REPLICAS_MAX } from "../../../protocol/limits.ts";
import { acceptStatement, writeStatement } from "../../../protocol/messages.ts";
import type { Change } from "../../../protocol/reconfiguration.ts";
import { type View, viewOf } from "../../../protocol/view.ts";
import { decodeLink, encodeLink, followed, type Link, ViewChain, verifyLink } from "../../../protocol/view-chain.ts";
import { crypto, Reconfigured } from "./view-fixture.ts";

const setF: Change = { type: "setF", f: 0 };

/** True when the link proves what it says to somebody who knows `view`. */
function proves(view: View, link: Link): boolean {
  const checks = verifyLink(crypto, view, link);
  return checks?.every((check) => crypto.verify(check.publicKey, check.statement, check.signature)) ?? false;
}

function follow(chain: ViewChain, links: readonly Link[]): ViewChain | "rejected" {
  const reached = followed(crypto, chain, links.map(encodeLink));
  return isRejection(reached) ? "rejected" : reached;
}

/** The newest view's id after following. */
function reachedView(chain: ViewChain, links: readonly Link[]): number | "rejected" {
  const reached = follow(chain, links);
  return reached === "rejected" ? reached : reached.newest.id;
}

/** Seven views: four replicas become five others, keys and addresses change, the leader goes. */
function longChain() {
  const world = new Reconfigured();
  const changes: ((view: View) => Change)[] = [
    (view) => world.adding(view, 4),
    (view) => world.replacing(view, 0, 5),
    (view) => world.rotating(view, 2),
    (view) => world.adding(view, 6),
    (view) => world.adding(view, 7),
    () => ({ type: "setF", f: 2 }),
    () => ({
      type: "setAddress",
      id: 3,
      address: { host: "moved", clientPort: 1, peerPort: 2, adminPort: 3 },
    }),
  ];
  const links: Link[] = [];
  const views = [world.genesis];
  for (const [at, change] of changes.entries()) {
    const { link, view } = world.step(views[at] as View, change, 100 * (at + 1));
    links.push(link);
    views.push(view);
  }
  return { world, links, views };
}

describe("links (section 7)", () => {
  it("a quorum's signatures on the batch prove the next view; every forgery does not", () => {
    const world = new Reconfigured();
    const { genesis } = world;
    const batch = world.batchBytes(genesis, setF);
    const link = world.link(genesis, batch);
    expect(proves(genesis, link)).toBe(true);
    const [first, ...rest] = link.votes as [Link["votes"][0], ...Link["votes"]];
    const stranger = { ...first, replica: 9 };
    const forgeries: Record<string, Link> = {
      "one vote short": { ...link, votes: rest },
      "one voter twice": { ...link, votes: [first, first, ...rest.slice(1)] },
      "a stranger among them": { ...link, votes: [...rest, stranger] },
      "another's signature": { ...link, votes: [{ ...first, signature: rest[0]?.signature as Uint8Array }, ...rest] },
      "another instance": { ...link, instance: 101 },
      "another regency": { ...link, regency: 3 },
      "another history": { ...link, previous: crypto.sha256(new Uint8Array([5])) },
      "another change": { ...link, batch: world.batchBytes(genesis, { type: "remove", id: 3 }) },
      "garbage for a batch": { ...link, batch: new Uint8Array(40) },
    };
    for (const [what, forgery] of Object.entries(forgeries))
      expect([what, proves(genesis, forgery)]).toEqual([what, false]);
  });

  it("all members' votes prove it, too; with a false one among them they do not", () => {
    const world = new Reconfigured();
    const batch = world.batchBytes(world.genesis, setF);
    const link = world.link(world.genesis, batch, { voters: [0, 1, 2, 3] });
    expect(proves(world.genesis, link)).toBe(true);
    const votes = link.votes.map((vote) => (vote.replica === 2 ? { ...vote, signature: new Uint8Array(64) } : vote));
    expect(proves(world.genesis, { ...link, votes })).toBe(false);
  });

  it("a quorum is Q, not 2f+1: six replicas with f=1 need four", () => {
    const world = new Reconfigured({ n: 6, f: 1 });
    const batch = world.batchBytes(world.genesis, setF);
    expect(proves(world.genesis, world.link(world.genesis, batch, { voters: [0, 1, 2] }))).toBe(false);
    expect(proves(world.genesis, world.link(world.genesis, batch, { voters: [0, 1, 2, 3] }))).toBe(true);
  });

  it("WRITEs of the same batch are no ACCEPTs: the statements differ", () => {
    const vote = { view: 0, regency: 1, instance: 2, digest: crypto.sha256(new Uint8Array(1)) };
    const cluster = crypto.sha256(new Uint8Array(2));
    expect(latin1(acceptStatement(cluster, vote))).not.toBe(latin1(writeStatement(cluster, vote)));
    for (const other of [{ view: 1 }, { regency: 2 }, { instance: 3 }, { digest: cluster }]) {
      expect(latin1(acceptStatement(cluster, { ...vote, ...other }))).not.toBe(latin1(acceptStatement(cluster, vote)));
    }
  });

  it("another view's members prove nothing, and neither does another cluster's link", () => {
    const world = new Reconfigured();
    const other = new Reconfigured();
    expect(proves(world.genesis, other.link(other.genesis, other.batchBytes(other.genesis, setF)))).toBe(false);
    const later = viewOf(crypto, { ...world.genesis, id: 1 });
    const link = world.link(world.genesis, world.batchBytes(world.genesis, setF));
    expect(proves(later, link)).toBe(false);
    // Signed by the right members for the right view, but over a change that was made for another one.
    const stale = world.batchBytes(world.genesis, setF, { expected: later.digest });
    expect(proves(world.genesis, world.link(world.genesis, stale))).toBe(false);
  });

  it("a batch that a quorum accepted and that is refused leads nowhere", () => {
    const world = new Reconfigured();
    const batch = world.batchBytes(world.genesis, setF, { timestampMs: 2_001 });
    const link = world.link(world.genesis, batch);
    expect(proves(world.genesis, link)).toBe(true);
    expect(ViewChain.of(world.genesis).extended(crypto, link)).toBeNull();
    expect(reachedView(ViewChain.of(world.genesis), [link])).toBe("rejected");
  });

  it("a batch of ordinary requests is no link", () => {
    const world = new Reconfigured();
    const requests = [world.request(new Uint8Array([1]), "ordered")];
    const batch = encodeBatch({ instance: 100, timestampMs: 1_000, requests });
    expect(verifyLink(crypto, world.genesis, world.link(world.genesis, batch))).toBeNull();
  });
});

describe("the chain of views (section 7)", () => {
  it("who knows the first view follows it to the newest, whatever changed on the way", () => {
    const { links, views } = longChain();
    const chain = follow(ViewChain.of(views[0] as View), links) as ViewChain;
    expect(chain.newest.digest).toBe(views[7]?.digest);
    for (const [id, view] of views.entries()) expect(chain.of(id)?.digest).toBe(view.digest);
    expect(chain.of(8)).toBeUndefined();
    expect(chain.genesis).toBe(views[0]);
    expect(chain.linksFrom(5).map(encodeLink)).toEqual(links.slice(5).map(encodeLink));
    expect(chain.linkFrom(6)?.instance).toBe(700);
    expect(chain.linkFrom(7)).toBeUndefined();
    expect(chain.linksFrom(7)).toEqual([]);
  });

  it("knows the view in force at every instance: the next one begins behind its RECONFIGURE", () => {
    const { links, views } = longChain();
    const chain = follow(ViewChain.of(views[0] as View), links) as ViewChain;
    const inForce = (instance: number) => chain.at(instance).id;
    expect([1, 99, 100, 101, 200, 201, 350, 700, 701, 1e9].map(inForce)).toEqual([0, 0, 0, 1, 1, 2, 3, 6, 7, 7]);
    expect([0, 1, 7].map((view) => chain.firstInstanceOf(view))).toEqual([1, 101, 701]);
  });

  it("in pieces as in one; what was reached does not change under those who hold it", () => {
    const { links, views } = longChain();
    const start = ViewChain.of(views[0] as View);
    const half = follow(start, links.slice(0, 3)) as ViewChain;
    const whole = follow(half, links.slice(3)) as ViewChain;
    expect([start.newest.id, half.newest.id, whole.newest.id]).toEqual([0, 3, 7]);
    expect(half.of(4)).toBeUndefined();
  });

  it("skips no view, repeats none, and takes no fork", () => {
    const { world, links, views } = longChain();
    const start = ViewChain.of(views[0] as View);
    const [one, two] = links as [Link, Link];
    expect(reachedView(start, [two])).toBe("rejected");
    expect(reachedView(start, [one, one])).toBe("rejected");
    expect(reachedView(start, [one, ...links.slice(2)])).toBe("rejected");
    // Members that left sign another successor of the view they were in: nobody beyond it follows.
    const fork = world.link(views[0] as View, world.batchBytes(views[0] as View, setF));
    expect(reachedView(follow(start, [one]) as ViewChain, [fork])).toBe("rejected");
  });

  it("a removed member's signature counts no more", () => {
    const world = new Reconfigured();
    const { link, view } = world.step(world.genesis, (now) => world.replacing(now, 0, 4), 100);
    const chain = follow(ViewChain.of(world.genesis), [link]) as ViewChain;
    const batch = world.batchBytes(view, setF, { instance: 200 });
    const by = (voters: number[]) => reachedView(chain, [world.link(view, batch, { instance: 200, voters })]);
    expect(by([0, 1, 2])).toBe("rejected");
    expect(by([1, 2, 3])).toBe(2);
  });

  it("old keys count no more after they were changed", () => {
    const world = new Reconfigured();
    const old = new Map(world.identities);
    const { link, view } = world.step(world.genesis, (now) => world.rotating(now, 1), 100);
    const chain = follow(ViewChain.of(world.genesis), [link]) as ViewChain;
    const batch = world.batchBytes(view, setF, { instance: 200 });
    const stolen = world.link(view, batch, { instance: 200, identities: old });
    expect(reachedView(chain, [stolen])).toBe("rejected");
    expect(reachedView(chain, [world.link(view, batch, { instance: 200 })])).toBe(2);
  });

  it("instances of links rise", () => {
    const world = new Reconfigured();
    const { link, view } = world.step(world.genesis, (now) => world.adding(now, 4), 100);
    const chain = follow(ViewChain.of(world.genesis), [link]) as ViewChain;
    const at = (instance: number) =>
      reachedView(chain, [world.link(view, world.batchBytes(view, setF, { instance }), { instance })]);
    expect([at(99), at(100), at(101)]).toEqual(["rejected", "rejected", 2]);
  });
});

describe("the layout of a link", () => {
  const digest = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => latin1(bytes) as Digest);
  const votes = fc
    .uniqueArray(fc.nat({ max: 0xffff_ffff }), { minLength: 1, maxLength: REPLICAS_MAX })
    .chain((replicas) =>
      fc
        .uint8Array({ minLength: 64, maxLength: 64 })
        .map((signature) => replicas.sort((a, b) => a - b).map((replica) => ({ replica, signature }))),
    );
  const link: fc.Arbitrary<Link> = fc.record({
    instance: fc.maxSafeNat(),
    regency: fc.nat({ max: 0xffff_ffff }),
    previous: digest,
    batch: fc.uint8Array({ maxLength: 300 }),
    votes,
  });
  const bytesOfLink = (value: Link) => Buffer.from(encodeLink(value)).toString("hex");

  it("decoding after encoding is the identity, accepted bytes encode to themselves, nothing throws", () => {
    fc.assert(
      fc.property(link, fc.nat(), fc.integer({ min: 1, max: 255 }), (value, at, by) => {
        const bytes = encodeLink(value);
        const decoded = decodeLink(bytes);
        if (isRejection(decoded)) throw new Error(decoded.code);
        expect(decoded.instance).toBe(value.instance);
        expect(bytesOfLink(decoded)).toBe(bytesOfLink(value));
        expect(isRejection(decodeLink(bytes.subarray(0, at % bytes.length)))).toBe(true);
        expect(isRejection(decodeLink(Buffer.concat([bytes, new Uint8Array(1)])))).toBe(true);
        const altered = Uint8Array.from(bytes);
        altered[at % bytes.length] = (bytes[at % bytes.length] as number) ^ by;
        const other = decodeLink(altered);
        if (!isRejection(other)) expect(bytesOfLink(other)).toBe(Buffer.from(altered).toString("hex"));
      }),
      { numRuns: 60 },
    );
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => isRejection(decodeLink(bytes))));
  });

  it("voters ascend, the batch and the whole are bounded, the largest link fits", () => {
    const vote = (replica: number) => ({ replica, signature: new Uint8Array(64) });
    const base = { instance: 1, regency: 0, previous: crypto.sha256(new Uint8Array(1)) };
    const codeOf = (batch: Uint8Array, ...replicas: number[]) => {
      const decoded = decodeLink(encodeLink({ ...base, batch, votes: replicas.map(vote) }));
      return isRejection(decoded) ? decoded.code : "accepted";
    };
    const small = new Uint8Array(10);
    expect(codeOf(small, 1, 2)).toBe("accepted");
    expect(codeOf(small, 2, 1)).toBe("LINK_VOTES");
    expect(codeOf(small, 1, 1)).toBe("LINK_VOTES");
    expect(codeOf(small)).toBe("LINK_VOTES");
    const all = Array.from({ length: REPLICAS_MAX }, (_, id) => id);
    expect(codeOf(new Uint8Array(LINK_BATCH_BYTES_MAX), ...all)).toBe("accepted");
    expect(codeOf(small, ...all, REPLICAS_MAX)).toBe("LINK_VOTES");
    expect(codeOf(new Uint8Array(LINK_BATCH_BYTES_MAX + 1), 1)).toBe("TOO_LONG");
    expect(codeOf(new Uint8Array(LINK_BYTES_MAX), 1)).toBe("LINK_TOO_LARGE");
  });
});
