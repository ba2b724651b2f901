import { describe, expect, it } from "vitest";
import { type Digest, utf8 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { decodeChunk, decodeManifest } from "../../../protocol/image.ts";
import { LINK_QUEUE_BYTES_MAX } from "../../../protocol/limits.ts";
import type { Message } from "../../../protocol/messages.ts";
import { HeldImage, HeldImages } from "../../../server/archive/checkpoint-images.ts";
import { ImageBuilder } from "../../../server/archive/image-builder.ts";
import { ImageServer } from "../../../server/archive/image-server.ts";
import { FakeClock, MemorySnapshot, someEntries, viewOfSize } from "./fixture.ts";

const view = viewOfSize(4);
const applied = { instance: 5, digest: nodeCrypto.sha256(utf8("h(5)")), timestampMs: 7 };
const entries = someEntries(40_000, 300);
const SECOND_US = 1_000_000;

class World {
  readonly clock = new FakeClock();
  readonly images = new HeldImages(this.clock, () => undefined);
  readonly sent: { to: number; us: number; message: Message }[] = [];
  readonly errors: unknown[] = [];
  readonly queued = new Map<number, number>();
  busy = false;
  /** Chunks being read, now and at most. */
  reading = 0;
  readingMost = 0;
  root: Digest = "";
  readonly server: ImageServer;

  constructor(rateBytesPerSecond?: number) {
    this.server = new ImageServer({
      images: this.images,
      clock: this.clock,
      rateBytesPerSecond,
      port: {
        place: () => ({ view: 0, regency: 3 }),
        send: (to, message) => this.sent.push({ to, us: this.clock.us, message }),
        queuedBytes: (to) => this.queued.get(to) ?? 0,
        busy: () => this.busy,
        failed: (error) => this.errors.push(error),
      },
    });
  }

  async offer(): Promise<HeldImage> {
    const snapshot = new MemorySnapshot(entries, applied, 500);
    const builder = new ImageBuilder({ crypto: nodeCrypto, view, clock: this.clock, busy: () => false });
    const built = builder.build(snapshot);
    await this.clock.run();
    const image = await built;
    if (!image) throw new Error("no image");
    const { chunks } = snapshot;
    const world = this;
    snapshot.chunks = async function* (range) {
      world.readingMost = Math.max(world.readingMost, ++world.reading);
      try {
        yield* chunks.call(snapshot, range);
      } finally {
        world.reading -= 1;
      }
    };
    const held = new HeldImage(image, snapshot, (error) => this.errors.push(error));
    this.images.add(held);
    this.root = image.root;
    return held;
  }

  fetch(from: number, index: number): void {
    this.server.request(from, { type: "FETCH_CHUNK", view: 0, regency: 0, instance: 5, root: this.root, index });
  }

  fetchManifest(from: number): void {
    this.server.request(from, { type: "FETCH_MANIFEST", view: 0, regency: 0, instance: 5, root: this.root });
  }

  chunks(to?: number): { to: number; us: number; index: number; chunk: Uint8Array }[] {
    return this.sent.flatMap(({ message, ...rest }) =>
      message.type === "CHUNK" && (to === undefined || rest.to === to)
        ? [{ ...rest, index: message.index, chunk: message.chunk }]
        : [],
    );
  }
}

describe("serving an image", () => {
  it("gives manifest and chunks that verify, and together are the state", async () => {
    const world = new World();
    const { image } = await world.offer();
    world.fetchManifest(2);
    await world.clock.run();
    const message = world.sent[0]?.message;
    if (message?.type !== "MANIFEST") throw new Error("no manifest");
    expect(message).toMatchObject({ view: 0, regency: 3, instance: 5, root: image.root });
    expect(nodeCrypto.sha256(message.manifest)).toBe(image.header.manifest);
    const manifest = decodeManifest(message.manifest);
    expect(manifest.length).toBeGreaterThan(8);
    for (let index = 0; index < manifest.length; index++) {
      world.fetch(2, index);
      await world.clock.run();
    }
    const chunks = world.chunks(2);
    expect(chunks.map(({ chunk }) => nodeCrypto.sha256(chunk))).toEqual(manifest.map(({ digest }) => digest));
    expect(chunks.map(({ chunk }) => chunk.length)).toEqual(manifest.map(({ bytes }) => bytes));
    const all = chunks.flatMap(({ chunk }) => decodeChunk(chunk));
    expect(all.map(([key]) => key)).toEqual([...entries.keys()]);
    expect(world.server.sentBytes).toBe(image.header.bytes + message.manifest.length);
    expect(world.errors).toEqual([]);
  });

  it("answers empty what is not offered", async () => {
    const world = new World();
    await world.offer();
    world.fetch(2, 9_999);
    const { root } = world;
    world.root = nodeCrypto.sha256(utf8("another"));
    world.fetch(2, 0);
    world.fetchManifest(2);
    world.root = root;
    world.server.request(2, { type: "FETCH_CHUNK", view: 0, regency: 0, instance: 6, root, index: 0 });
    await world.clock.run();
    expect(world.chunks().map(({ index, chunk }) => [index, chunk.length])).toEqual([
      [9_999, 0],
      [0, 0],
      [0, 0],
    ]);
    expect(world.sent.map(({ message }) => message.type === "MANIFEST" && message.manifest.length)).toContain(0);
  });

  it("receivers have equal shares, each in its own order, with at most two chunks in memory", async () => {
    const world = new World();
    await world.offer();
    for (let index = 0; index < 8; index++) world.fetch(1, index);
    for (const receiver of [2, 3]) for (let index = 0; index < 4; index++) world.fetch(receiver, index);
    await world.clock.run();
    const order = world.chunks().map(({ to }) => to);
    for (const receiver of [1, 2, 3]) {
      const indexes = world.chunks(receiver).map(({ index }) => index);
      expect(indexes).toEqual([...indexes].sort((a, b) => a - b));
      // Two of the first receiver's were on their way before the others asked.
      expect(order.slice(0, 9).filter((to) => to === receiver).length).toBeGreaterThanOrEqual(2);
      expect(order.slice(0, 9).filter((to) => to === receiver).length).toBeLessThanOrEqual(4);
    }
    expect(order).toHaveLength(16);
    expect(world.readingMost).toBe(2);
  });

  it("of one receiver one is served at a time; a repeated request, and what is beyond a few, is dropped", async () => {
    const world = new World();
    await world.offer();
    for (let round = 0; round < 3; round++) for (let index = 0; index < 30; index++) world.fetch(1, index);
    await world.clock.run();
    // One was being served, and asked for once more, while eight waited.
    expect(world.readingMost).toBe(1);
    expect(world.chunks().length).toBe(9);
  });

  it("a receiver whose link is full waits, and nobody else with it", async () => {
    const world = new World();
    await world.offer();
    world.queued.set(1, LINK_QUEUE_BYTES_MAX);
    for (let index = 0; index < 3; index++) {
      world.fetch(1, index);
      world.fetch(2, index);
    }
    await world.clock.run(SECOND_US);
    expect(world.chunks().map(({ to }) => to)).toEqual([2, 2, 2]);
    world.queued.set(1, 0);
    await world.clock.run(SECOND_US);
    expect(world.chunks(1)).toHaveLength(3);
  });

  it("asking for new chunks is progress, which pins", async () => {
    const world = new World();
    const held = await world.offer();
    world.fetch(2, 0);
    await world.clock.run();
    const first = held.lastUsedUs;
    await world.clock.run(SECOND_US);
    world.fetch(2, 0);
    await world.clock.run();
    expect(held.lastUsedUs).toBe(first);
    world.fetch(2, 1);
    await world.clock.run();
    expect(held.lastUsedUs).toBe(first + SECOND_US);
    world.fetch(3, 0);
    await world.clock.run(SECOND_US);
    expect(held.lastUsedUs).toBe(first + SECOND_US);
  });

  it("sends nothing after `close`", async () => {
    const world = new World();
    await world.offer();
    for (let index = 0; index < 8; index++) world.fetch(1, index);
    world.server.close();
    await world.clock.run(SECOND_US);
    expect(world.sent).toEqual([]);
  });
});

describe("the rate of serving", () => {
  const RATE = 1024 * 1024;

  it("is bounded for all receivers together while clients are served", async () => {
    const world = new World(RATE);
    await world.offer();
    world.busy = true;
    const sinceUs = world.clock.us;
    for (let index = 0; index < 8; index++) for (const receiver of [1, 2]) world.fetch(receiver, index);
    await world.clock.run(60 * SECOND_US);
    const chunks = world.chunks();
    expect(chunks).toHaveLength(16);
    // Before each chunk no more was sent than the rate allows, but for the two that may be in memory.
    let sentBytes = 0;
    for (const [at, { us }] of chunks.entries()) {
      const paidBytes = ((us - sinceUs) / SECOND_US) * RATE;
      const unpaid = chunks.slice(Math.max(0, at - 2), at).reduce((sum, { chunk }) => sum + chunk.length, 0);
      expect(sentBytes - unpaid).toBeLessThanOrEqual(paidBytes + 1);
      sentBytes += chunks[at]?.chunk.length ?? 0;
    }
    expect((chunks.at(-1)?.us ?? 0) - sinceUs).toBeGreaterThan(5 * SECOND_US);
  });

  it("is not while nobody else is served, and that is not held against receivers afterwards", async () => {
    const world = new World(RATE);
    await world.offer();
    const sinceUs = world.clock.us;
    for (let index = 0; index < 8; index++) world.fetch(1, index);
    await world.clock.run();
    expect(world.chunks()).toHaveLength(8);
    expect(world.clock.us).toBe(sinceUs);
    world.busy = true;
    world.fetch(2, 0);
    await world.clock.run(2 * SECOND_US);
    expect(world.chunks(2)).toHaveLength(1);
  });
});
