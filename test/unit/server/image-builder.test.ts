import { describe, expect, it } from "vitest";
import { utf8 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { decodeManifest, rootOf } from "../../../protocol/image.ts";
import { type Image, ImageBuilder } from "../../../server/archive/image-builder.ts";
import type { StateSnapshot } from "../../../storage/contract.ts";
import { Bench, put, request } from "../service/fixtures.ts";
import { type Entries, FakeClock, MemorySnapshot, someEntries, viewOfSize } from "./fixture.ts";

const view = viewOfSize(4);
const applied = { instance: 5, digest: nodeCrypto.sha256(utf8("h(5)")), timestampMs: 7 };

/** A clock on which every look takes a while. */
class SlowClock extends FakeClock {
  lookUs = 0;

  override nowUs(): number {
    this.us += this.lookUs;
    return this.us;
  }
}

async function built(
  snapshot: StateSnapshot,
  options: { busy?: boolean; lookUs?: number; clock?: SlowClock } = {},
): Promise<Image> {
  const clock = options.clock ?? new SlowClock();
  clock.lookUs = options.lookUs ?? 0;
  const builder = new ImageBuilder({ crypto: nodeCrypto, view, clock, busy: () => options.busy ?? false });
  let image: Image | null = null;
  builder.build(snapshot).then((value) => {
    image = value;
  });
  for (let round = 0; image === null && round < 1000; round++) await clock.run(10_000);
  if (!image) throw new Error("the build does not end");
  return image;
}

const snapshotOf = (entries: Entries, pieceEntries?: number) => new MemorySnapshot(entries, applied, pieceEntries);

describe("the image of a state", () => {
  it("is the same whatever pieces are read, however long slices are, busy or not", async () => {
    const entries = someEntries(4_000, 300);
    const expected = await built(snapshotOf(entries));
    expect(expected.header).toMatchObject({ ...applied, chunks: expected.firstKeys.length });
    expect(expected.header.chunks).toBeGreaterThan(1);
    expect(rootOf(nodeCrypto, view, expected.header)).toBe(expected.root);
    for (const [pieceEntries, busy, lookUs] of [
      [1, false, 0],
      [1_000, true, 0],
      [50, true, 3_000],
      [4_000, false, 5_000],
    ] as const) {
      expect(await built(snapshotOf(entries, pieceEntries), { busy, lookUs })).toEqual(expected);
    }
  });

  it("its first keys begin its chunks, and its manifest names all bytes", async () => {
    const entries = someEntries(4_000, 300);
    const { header, manifest, firstKeys } = await built(snapshotOf(entries));
    const chunks = decodeManifest(manifest);
    expect(nodeCrypto.sha256(manifest)).toBe(header.manifest);
    expect(chunks.reduce((sum, chunk) => sum + chunk.bytes, 0)).toBe(header.bytes);
    expect(header.bytes).toBe(4_000 * (8 + 9 + 300));
    expect(firstKeys[0]).toBe("k00000000");
    expect([...firstKeys].sort()).toEqual(firstKeys);
  });

  it("of a state without entries has no chunks", async () => {
    const { header, manifest, firstKeys } = await built(snapshotOf(new Map()));
    expect([header.chunks, header.bytes, manifest.length, firstKeys]).toEqual([0, 0, 0, []]);
  });

  it("is the same however the groups of an execution were cut (section 6)", async () => {
    const roots = new Set<string>();
    for (const every of [1, 2, 3, 7, 100]) {
      const bench = new Bench();
      for (let instance = 1; instance <= 40; instance++) {
        const commands = [put(`key ${(instance * 7) % 13}`, `value ${instance}`)];
        bench.batch([request({ sequence: instance, ackedBelow: Math.max(0, instance - 3), commands })], instance);
        if (instance % every === 0 && bench.write()) bench.executor.groupDurable();
        if (instance % 20 === 0 && every === 7) bench.restart();
      }
      bench.write();
      roots.add((await built(new MemorySnapshot(bench.store, bench.executor.applied))).root);
    }
    expect(roots.size).toBe(1);
  });

  it("differs when a value, a key or the place differs", async () => {
    const entries = someEntries(50, 30);
    const others = [entries, new Map(entries).set("k00000007", utf8("x")), new Map(entries).set("kx", utf8(""))];
    const images = await Promise.all(others.map((other) => built(snapshotOf(other))));
    const later = await built(new MemorySnapshot(entries, { ...applied, timestampMs: 8 }));
    expect(new Set([...images, later].map(({ root }) => root)).size).toBe(4);
  });
});

describe("a build in the background", () => {
  it("gives the loop back at least once per 256 KiB", async () => {
    const clock = new SlowClock();
    const { header } = await built(snapshotOf(someEntries(8_000, 500), 500), { clock });
    expect(clock.deferrals).toBeGreaterThanOrEqual(Math.floor(header.bytes / (256 * 1024)) - 1);
  });

  it("and after every few milliseconds, with a pause as long while there are requests to serve", async () => {
    const idle = new SlowClock();
    await built(snapshotOf(someEntries(2_000, 10)), { clock: idle, lookUs: 1_000 });
    // 125 looks of a millisecond each, 4 of them fill a slice.
    expect(idle.deferrals).toBeGreaterThanOrEqual(20);
    const busy = new SlowClock();
    const pauses: number[] = [];
    const { at } = busy;
    busy.at = (us, callback) => {
      pauses.push(us - busy.us);
      return at.call(busy, us, callback);
    };
    await built(snapshotOf(someEntries(2_000, 10)), { clock: busy, busy: true, lookUs: 1_000 });
    expect(pauses.length).toBeGreaterThanOrEqual(15);
    for (const us of pauses) expect(us).toBeGreaterThanOrEqual(4_000);
    expect(busy.deferrals).toBe(0);
  });

  it("is one at a time, and one that fails does not stop the next", async () => {
    const clock = new FakeClock();
    const builder = new ImageBuilder({ crypto: nodeCrypto, view, clock, busy: () => false });
    let reading = 0;
    let most = 0;
    const watched = (entries: Entries, damaged = false): StateSnapshot => {
      const snapshot = snapshotOf(entries);
      return {
        applied,
        close: () => snapshot.close(),
        async *chunks(range) {
          most = Math.max(most, ++reading);
          try {
            for await (const piece of snapshot.chunks(range)) {
              if (damaged) throw new Error("damaged");
              yield piece;
            }
          } finally {
            reading -= 1;
          }
        },
      };
    };
    const entries = someEntries(2_000, 500);
    const builds = [watched(entries), watched(entries, true), watched(entries)].map((one) => builder.build(one));
    const ended = Promise.allSettled(builds);
    await clock.run(1_000_000);
    const results = await ended;
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect([reading, most]).toEqual([0, 1]);
  });

  it("ends with null when it is stopped", async () => {
    const clock = new FakeClock();
    const builder = new ImageBuilder({ crypto: nodeCrypto, view, clock, busy: () => false });
    const root = builder.rootOfState(snapshotOf(someEntries(2_000, 500)));
    builder.stop();
    await clock.run(1_000_000);
    expect(await root).toBeNull();
  });
});
