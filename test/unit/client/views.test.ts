/** Following the chain of views (docs/protocol.md section 7): adoption, pending requests, liars, and what is kept. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { viewFile } from "../../../client/view-file.ts";
import type { ViewStore } from "../../../client/view-follower.ts";
import { EMPTY, utf8 } from "../../../protocol/bytes.ts";
import { encodeLinks } from "../../../protocol/client-frames.ts";
import { LINKS_PER_ANSWER_MAX } from "../../../protocol/limits.ts";
import type { Change } from "../../../protocol/reconfiguration.ts";
import type { View } from "../../../protocol/view.ts";
import { encodeLink } from "../../../protocol/view-chain.ts";
import { addressOf } from "../protocol/view-fixture.ts";
import { FakeClock, FakeCluster, type FakeReplica } from "./fake-replicas.ts";
import { answerOf, connected, opened } from "./fixture.ts";

const replaceFirst =
  (cluster: FakeCluster) =>
  (view: View): Change =>
    cluster.world.replacing(view, view.members[0]?.id ?? 0, view.idsBelow);
const setF = (f: number) => (): Change => ({ type: "setF", f });
const ids = (view: View) => view.members.map(({ id }) => id);

/** Three views further on: nobody has the keys any more that the cluster file names. */
function moveOn(cluster: FakeCluster): void {
  for (let step = 0; step < 4; step++) cluster.reconfigure(replaceFirst(cluster));
}

/** Keeps what it is given. */
class Memory implements ViewStore {
  bytes: Uint8Array | null = null;
  saves = 0;

  load(): Uint8Array | null {
    return this.bytes;
  }

  save(bytes: Uint8Array): void {
    this.bytes = bytes;
    this.saves++;
  }
}

describe("adopting a view (section 7)", () => {
  test("a request of an older view is answered NEWER_VIEW; the link is fetched, and the same request goes on", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    const view = cluster.reconfigure((now) => cluster.world.adding(now, 4));
    expect(await answerOf(clock, kv.put("a", "2"), 2_000)).toMatchObject({ version: 2n });
    expect(kv.view.digest).toBe(view.digest);
    await clock.advance(1_000);
    expect(kv.replicas().map(({ replica, connected: up }) => [replica, up])).toEqual(
      [0, 1, 2, 3, 4].map((id) => [id, true]),
    );
    expect(await answerOf(clock, kv.put("a", "3"))).toMatchObject({ version: 3n });
    expect(cluster.executed).toHaveLength(3);
    const [last] = cluster.replica(4).received.slice(-1);
    expect(last?.envelope.view).toBe(1);
    expect(cluster.faults).toEqual([]);
  });

  test("a pending write is executed once, whichever view it is executed in", async () => {
    for (const when of ["after", "before"] as const) {
      const { clock, cluster, kv } = await connected();
      cluster.paused = true;
      const written = kv.put("a", "1");
      await clock.settle();
      if (when === "before") {
        for (const replica of cluster.replicas) replica.behaviour = () => null;
        cluster.resume();
        await clock.settle();
        for (const replica of cluster.replicas) replica.behaviour = null;
      }
      cluster.reconfigure(replaceFirst(cluster));
      if (when === "after") cluster.resume();
      expect(await answerOf(clock, written, 10_000)).toMatchObject({ version: 1n });
      expect(kv.view.id).toBe(1);
      expect(cluster.executed).toHaveLength(1);
      const sequences = new Set(
        cluster.replicas.flatMap(({ received }) => received.map(({ request }) => request.digest)),
      );
      expect(sequences.size).toBe(1);
    }
  });

  test("what was asked before is asked for again in the new view, an abandoned write not", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.paused = true;
    const aborted = new AbortController();
    const given = kv.put("given-up", "1", { signal: aborted.signal });
    const written = kv.put("a", "1");
    given.catch(() => undefined);
    await clock.settle();
    aborted.abort();
    await expect(given).rejects.toMatchObject({ code: "ABORTED" });
    cluster.forgetWaiting();
    cluster.reconfigure(replaceFirst(cluster));
    cluster.resume();
    await answerOf(clock, written, 10_000);
    expect(cluster.executed).toHaveLength(1);
  });

  test("a replica with other keys, one at another address, one that left: each connection is what it must be", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.reconfigure((view) => cluster.world.rotating(view, 1));
    await answerOf(clock, kv.put("a", "1"), 10_000);
    cluster.reconfigure(() => ({ type: "setAddress", id: 2, address: { ...addressOf(40) } }));
    await answerOf(clock, kv.put("a", "2"), 10_000);
    cluster.reconfigure((view) => cluster.world.adding(view, 4));
    await answerOf(clock, kv.put("a", "3"), 10_000);
    cluster.reconfigure(() => ({ type: "remove", id: 0 }));
    await answerOf(clock, kv.put("a", "4"), 10_000);
    await clock.advance(6_000);
    expect(kv.replicas().map(({ replica, address, connected: up }) => [replica, address, up])).toEqual([
      [1, "127.0.0.1:7010", true],
      [2, "127.0.0.1:7400", true],
      [3, "127.0.0.1:7030", true],
      [4, "127.0.0.1:7040", true],
    ]);
    expect(cluster.openChannels).toBe(4);
    await answerOf(clock, kv.close());
    expect([cluster.openChannels, clock.timers]).toEqual([0, 0]);
  });

  test("the one that lags behind is no obstacle, and no vote of another view counts", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.reconfigure(replaceFirst(cluster), { except: [3] });
    await answerOf(clock, kv.put("a", "1"), 10_000);
    expect([kv.view.id, cluster.replica(3).view.id]).toEqual([1, 0]);
    cluster.replica(1).behaviour = (honest) => ({ ...honest, view: 0 });
    const written = kv.put("a", "2");
    await clock.advance(1_000);
    let done = false;
    written.then(() => {
      done = true;
    });
    await clock.settle();
    // 2 and 4 said so in view 1, and 1 for view 0: two votes.
    expect(done).toBe(false);
    cluster.replica(1).behaviour = null;
    expect(await answerOf(clock, written, 10_000)).toMatchObject({ version: 2n });
  });

  test("votes of the old view and of the new one are not added up", async () => {
    const { clock, cluster, kv } = await connected();
    for (const id of [2, 3]) cluster.replica(id).behaviour = () => null;
    const written = kv.put("a", "1", { timeoutMs: 60_000 });
    await clock.settle();
    expect(cluster.executed).toHaveLength(1);
    // Two of three stand; the new view, whose quorum is three as well, gives one more.
    cluster.reconfigure(setF(0));
    for (const id of [0, 1, 2])
      cluster.replica(id).behaviour = (honest) => (honest.status === "NEWER_VIEW" ? honest : null);
    cluster.replica(3).behaviour = null;
    let done = false;
    written.then(() => {
      done = true;
    });
    await clock.advance(5_000);
    expect([done, kv.view.id]).toEqual([false, 1]);
    for (const id of [0, 1]) cluster.replica(id).behaviour = null;
    expect(await answerOf(clock, written, 10_000)).toMatchObject({ version: 1n });
  });

  test("reads that ran at once in the old view are not completed by the new one's answers", async () => {
    const { clock, cluster, kv } = await connected();
    await answerOf(clock, kv.put("a", "1"));
    // Two of the three equal answers that a read takes.
    for (const id of [2, 3]) cluster.replica(id).behaviour = () => null;
    const read = kv.get("a");
    await clock.settle();
    cluster.reconfigure(setF(0));
    for (const id of [2, 3]) cluster.replica(id).behaviour = null;
    for (const id of [0, 1]) cluster.replica(id).behaviour = () => null;
    let done = false;
    read.then(() => {
      done = true;
    });
    cluster.inject(cluster.replica(2), encodeLinks(0, cluster.links.map(encodeLink)));
    await clock.advance(90);
    expect(done).toBe(false);
    for (const id of [0, 1]) cluster.replica(id).behaviour = null;
    expect((await answerOf(clock, read, 10_000))?.value).toBe("1");
    expect(kv.view.id).toBe(1);
  });
});

describe("a client that was away (section 7)", () => {
  test("follows from the first view through four others, with nobody left but at their addresses", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    moveOn(cluster);
    const kv = await answerOf(clock, opened(cluster, clock), 10_000);
    expect(ids(kv.view)).toEqual([4, 5, 6, 7]);
    expect(await answerOf(clock, kv.put("a", "1"), 1_000)).toMatchObject({ version: 1n });
    for (const id of [0, 1, 2, 3]) expect(cluster.replica(id).received).toEqual([]);
  });

  test("waits for a quorum of the view it has followed, which may be smaller than the one of its cluster file", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock, n: 4, f: 1, mode: "cft" });
    cluster.reconfigure(() => ({ type: "remove", id: 3 }));
    for (const id of [0, 3]) cluster.replica(id).down = true;
    const kv = await answerOf(clock, opened(cluster, clock), 10_000);
    expect(ids(kv.view)).toEqual([0, 1, 2]);
    expect(await answerOf(clock, kv.put("a", "1"), 1_000)).toMatchObject({ version: 1n });
  });

  test("a replica that took the place of a member at its address shows the way, too", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    const { world } = cluster;
    for (const id of [0, 1, 2, 3]) {
      cluster.reconfigure((view) => {
        const member = { ...world.newMember(view.idsBelow), ...addressOf(id) };
        return { type: "replace", id, member, ready: world.ready(view, member) };
      });
    }
    const kv = await answerOf(clock, opened(cluster, clock), 10_000);
    expect(ids(kv.view)).toEqual([4, 5, 6, 7]);
    expect(kv.replicas().map(({ faults }) => faults)).toEqual([0, 0, 0, 0]);
    await answerOf(clock, kv.put("a", "1"), 1_000);
  });

  test("asks again for what does not fit one answer", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    for (let step = 0; step < 2 * LINKS_PER_ANSWER_MAX + 3; step++) cluster.reconfigure(setF(step % 2));
    const kv = await answerOf(clock, opened(cluster, clock), 10_000);
    await answerOf(clock, kv.put("a", "1"), 10_000);
    expect(kv.view.id).toBe(2 * LINKS_PER_ANSWER_MAX + 3);
  });

  test("keeps what it followed, and goes on from there; what it keeps is verified", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    moveOn(cluster);
    const views = new Memory();
    const first = await answerOf(clock, opened(cluster, clock, { views }), 10_000);
    await answerOf(clock, first.close());
    expect(views.saves).toBeGreaterThan(0);
    // Those of the first view are gone for good.
    for (const id of [0, 1, 2, 3]) cluster.replica(id).down = true;
    const second = await answerOf(clock, opened(cluster, clock, { views }), 10_000);
    expect(ids(second.view)).toEqual([4, 5, 6, 7]);
    await answerOf(clock, second.put("a", "1"), 1_000);
    const saved = views.bytes as Uint8Array;
    const other = new FakeCluster({ clock: new FakeClock() });
    moveOn(other);
    for (const bytes of [
      utf8("nonsense"),
      EMPTY,
      saved.subarray(1),
      saved.map((byte, at) => (at === 900 ? byte ^ 1 : byte)),
    ]) {
      views.bytes = bytes;
      const kv = opened(cluster, clock, { views, timeoutMs: 500 });
      await expect(answerOf(clock, kv, 2_000)).rejects.toMatchObject({ code: "QUORUM_UNAVAILABLE" });
    }
    views.bytes = saved;
    const elsewhere = await answerOf(
      other.clock as FakeClock,
      opened(other, other.clock as FakeClock, { views }),
      5_000,
    );
    expect(elsewhere.view.cluster).toBe(other.cluster.id);
  });

  test("a store that fails changes nothing", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    moveOn(cluster);
    const fails = () => Promise.reject(new Error("no disk"));
    const kv = await answerOf(clock, opened(cluster, clock, { views: { load: fails, save: fails } }), 10_000);
    expect(kv.view.id).toBe(4);
    await answerOf(clock, kv.close());
  });
});

describe("liars (section 7)", () => {
  /** A client of an old view whose replica 0 serves these links instead. */
  async function servedBy(lie: (cluster: FakeCluster) => FakeReplica["links"], changes = 2) {
    const { clock, cluster, kv } = await connected();
    for (let step = 0; step < changes; step++) cluster.reconfigure(setF(step % 2));
    for (const replica of cluster.replicas) replica.view = cluster.world.genesis;
    const liar = cluster.replica(0);
    liar.links = lie(cluster);
    liar.hello = { view: 5 };
    cluster.disconnect(liar);
    await clock.advance(400);
    return { clock, cluster, kv, liar };
  }

  /** A byte of the newest signature is another one. */
  function forged(bytes: Uint8Array): Uint8Array {
    return bytes.map((byte, at) => (at === bytes.length - 1 ? byte ^ 1 : byte));
  }

  test.each<[string, (cluster: FakeCluster) => FakeReplica["links"]]>([
    [
      "a forged signature",
      ({ links }) =>
        () =>
          links.map(encodeLink).map(forged),
    ],
    [
      "a link that skips a view",
      ({ links }) =>
        () =>
          links.slice(1).map(encodeLink),
    ],
    [
      "the first link twice",
      ({ links }) =>
        () =>
          [links[0], links[0]].flatMap((link) => (link ? [encodeLink(link)] : [])),
    ],
    ["garbage", () => () => [utf8("garbage")]],
    [
      "a link of another cluster",
      () => {
        const other = new FakeCluster({ clock: new FakeClock() });
        other.reconfigure(setF(0));
        return () => other.links.map(encodeLink);
      },
    ],
    [
      "a link that too few signed",
      ({ links }) =>
        () =>
          links.map((link) => encodeLink({ ...link, votes: link.votes.slice(1) })),
    ],
    [
      "a link signed by members that were never asked",
      ({ world, links }) =>
        () => {
          const [first] = links;
          const strangers = new FakeCluster({ clock: new FakeClock() }).world.identities;
          return first
            ? [encodeLink(world.link(world.genesis, first.batch, { instance: 1_000, identities: strangers }))]
            : [];
        },
    ],
  ])("%s moves nobody, and costs its sender the connection", async (_, lie) => {
    const { clock, cluster, kv, liar } = await servedBy(lie);
    expect(liar.fetches).toBeGreaterThan(0);
    expect(kv.view.id).toBe(0);
    expect(kv.replicas()[0]?.faults).toBeGreaterThan(0);
    expect(await answerOf(clock, kv.put("a", "1"), 1_000)).toMatchObject({ version: 1n });
    expect(cluster.executed).toHaveLength(1);
  });

  test("no vouching moves a client: all four name a newer view, and serve no link", async () => {
    const { clock, cluster, kv } = await connected();
    for (const replica of cluster.replicas) {
      replica.links = () => [];
      replica.behaviour = () => ({ status: "NEWER_VIEW", body: "full", result: EMPTY, view: 7 });
    }
    const other = kv.put("b", "1", { timeoutMs: 60_000 });
    await clock.advance(20_000);
    expect([kv.view.id, cluster.executed.length]).toEqual([0, 1]);
    for (const { fetches } of cluster.replicas) expect(fetches).toBeGreaterThan(0);
    for (const replica of cluster.replicas) replica.behaviour = null;
    await answerOf(clock, other, 10_000);
  });

  test("a storm of NEWER_VIEW costs a fetch per half second, and no request its end", async () => {
    const { clock, cluster, kv } = await connected();
    const liar = cluster.replica(0);
    liar.links = () => [];
    liar.behaviour = () =>
      Array.from({ length: 50 }, (_, at) => ({ status: "NEWER_VIEW", body: "full", result: EMPTY, view: at }));
    for (let round = 0; round < 20; round++) {
      await answerOf(clock, kv.put("a", `${round}`), 1_000);
      await clock.advance(100);
    }
    expect(liar.fetches).toBeGreaterThan(0);
    expect(liar.fetches).toBeLessThanOrEqual(6);
    expect([kv.view.id, cluster.executed.length]).toEqual([0, 20]);
  });

  test("links that nobody asked for, or more than an answer may hold, are a breach", async () => {
    const { clock, cluster, kv } = await connected();
    cluster.reconfigure(setF(0));
    for (const replica of cluster.replicas) replica.view = cluster.world.genesis;
    cluster.inject(cluster.replica(1), encodeLinks(0, cluster.links.map(encodeLink)));
    await clock.settle();
    expect([kv.view.id, kv.replicas()[1]?.faults]).toEqual([0, 1]);
    const many = new Uint8Array(6 + 4 * (LINKS_PER_ANSWER_MAX + 1));
    many.set([4, 0, 0, 0, 0, LINKS_PER_ANSWER_MAX + 1]);
    cluster.inject(cluster.replica(2), many);
    await clock.settle();
    expect(kv.replicas()[2]?.fault?.message).toContain("FRAME_LINKS");
  });

  test("at the address of a member, another replica of the cluster without links is a mismatch", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    cluster.replica(0).hello = { replica: 9, view: 3 };
    const kv = await answerOf(clock, opened(cluster, clock), 5_000);
    expect(kv.replicas()[0]?.fault).toMatchObject({ code: "CLUSTER_MISMATCH", definite: true });
    expect(cluster.replica(0).fetches).toBe(1);
  });

  test("a silent one at a member's address is given up like any that does not greet", async () => {
    const { clock, cluster, kv } = await connected();
    const replica = cluster.replica(0);
    replica.hello = { replica: 9, view: 3 };
    replica.silentAboutLinks = true;
    cluster.disconnect(replica);
    await clock.advance(200);
    expect(kv.replicas()[0]?.fault?.code).not.toBe("TIMEOUT");
    await clock.advance(6_000);
    expect(kv.replicas()[0]?.fault?.code).toBe("TIMEOUT");
  });
});

describe("the view file", () => {
  const directories: string[] = [];
  afterEach(() => {
    for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
  });

  function freshFile(): string {
    const directory = mkdtempSync(join(tmpdir(), "quorate-views-"));
    directories.push(directory);
    return join(directory, "cluster.json.views");
  }

  test("gives back what was saved last, and leaves nothing else behind", async () => {
    const path = freshFile();
    const store = viewFile(path);
    await expect(store.load()).rejects.toThrow("ENOENT");
    await Promise.all([store.save(utf8("one")), store.save(utf8("one"))]);
    await store.save(utf8("another"));
    expect(Buffer.from((await store.load()) as Uint8Array).toString()).toBe("another");
    expect(readdirSync(join(path, "..")).length).toBe(1);
    expect(readFileSync(path, "utf8")).toBe("another");
  });

  test("a client that may not write there works all the same; a foreign file is ignored", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ clock });
    moveOn(cluster);
    const path = freshFile();
    writeFileSync(path, "no views");
    const views = viewFile(path);
    const opening = opened(cluster, clock, { views });
    // Reading the file takes real time.
    while (cluster.openChannels === 0) await new Promise((resolve) => setImmediate(resolve));
    const kv = await answerOf(clock, opening, 10_000);
    expect(kv.view.id).toBe(4);
    const closing = kv.close();
    await clock.settle();
    await closing;
    // Closing waits for what is being saved.
    expect(readFileSync(path).length).toBeGreaterThan(1_000);
    const nowhere = viewFile(join(path, "no-directory"));
    await expect(nowhere.save(EMPTY)).rejects.toThrow("ENOTDIR");
  });
});
