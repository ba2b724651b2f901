/** The overlay in front of the stored state: current, in flight, cache, disk (docs/protocol.md section 6). */
import { describe, expect, test } from "vitest";
import { bytesOf, latin1 } from "../../../protocol/bytes.ts";
import { ReplicatedState } from "../../../server/service/state.ts";
import { Arena, ValueCache } from "../../../server/service/value-cache.ts";

class Disk extends Map<string, Uint8Array> {
  reads = 0;
  override get(key: string): Uint8Array | undefined {
    this.reads += 1;
    return super.get(key);
  }
}

function setUp(cacheBytesMax?: number) {
  const disk = new Disk();
  const state = new ReplicatedState(disk, cacheBytesMax);
  const flush = (): void => {
    for (const [key, value] of state.takeGroup()) {
      if (value) disk.set(key, new Uint8Array(value));
      else disk.delete(key);
    }
    state.groupDurable();
  };
  const read = (key: string): string | undefined => {
    const value = state.get(key);
    return value && latin1(value);
  };
  return { disk, state, flush, read };
}

describe("ReplicatedState", () => {
  test("a value read from disk is cached, and a durable change replaces or removes it", () => {
    const { disk, state, flush, read } = setUp();
    state.set("ka", bytesOf("one"));
    flush();
    expect([read("ka"), read("ka"), disk.reads]).toEqual(["one", "one", 1]);
    state.set("ka", bytesOf("two"));
    expect(read("ka")).toBe("two");
    flush();
    expect([read("ka"), disk.reads]).toEqual(["two", 1]);
    state.delete("ka");
    expect(read("ka")).toBeUndefined();
    flush();
    expect(read("ka")).toBeUndefined();
  });

  test("the newest of several groups in flight counts; the oldest becomes durable first", () => {
    const { disk, state, read } = setUp();
    for (const value of ["one", "two"]) {
      state.set("ka", bytesOf(value));
      state.takeGroup();
    }
    expect(read("ka")).toBe("two");
    disk.set("ka", bytesOf("one"));
    state.groupDurable();
    expect([read("ka"), disk.reads]).toEqual(["two", 0]);
    state.delete("ka");
    expect(read("ka")).toBeUndefined();
  });

  test("copies what it is given", () => {
    const { state, read } = setUp();
    const buffer = bytesOf("before");
    state.set("ka", buffer);
    buffer.fill(0);
    expect(read("ka")).toBe("before");
  });
});

describe("ValueCache", () => {
  test("keeps what is used and stays within its bytes", () => {
    const cache = new ValueCache(20_000);
    cache.set("used", bytesOf("x"));
    for (let index = 0; index < 1000; index++) {
      cache.set(`${index}`, new Uint8Array(100));
      cache.get("used");
    }
    const held = Array.from({ length: 1000 }, (_, index) => index).filter((index) => cache.get(`${index}`));
    expect(held.length).toBeGreaterThan(0);
    expect(held.length).toBeLessThan(20_000 / 100);
    expect(held.every((index) => index > 800)).toBe(true);
    expect(latin1(cache.get("used") ?? new Uint8Array(0))).toBe("x");
  });

  test("a value larger than a generation is not kept, nor what it replaces", () => {
    const cache = new ValueCache(2_000);
    cache.set("a", bytesOf("small"));
    cache.set("a", new Uint8Array(1_500));
    expect(cache.get("a")).toBeUndefined();
  });

  test("refresh replaces only what is held", () => {
    const cache = new ValueCache(20_000);
    cache.refresh("a", bytesOf("new"));
    expect(cache.get("a")).toBeUndefined();
    cache.set("a", bytesOf("old"));
    cache.refresh("a", bytesOf("new"));
    expect(latin1(cache.get("a") ?? new Uint8Array(0))).toBe("new");
  });
});

test("an arena's copies do not overlap, whatever their sizes", () => {
  const arena = new Arena();
  const copies = Array.from({ length: 300 }, (_, index) => arena.copy(new Uint8Array((index * 37) % 5000).fill(index)));
  for (const [index, copy] of copies.entries()) expect(copy).toEqual(new Uint8Array((index * 37) % 5000).fill(index));
});
