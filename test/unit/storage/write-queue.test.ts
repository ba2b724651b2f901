/** Group commit: order, joining, and what a failure does to everything after it. */
import { describe, expect, it } from "vitest";
import { WriteQueue } from "../../../storage/write-queue.ts";
import { codeOf } from "./history.ts";

function heldQueue(bytesMax: number) {
  const groups: { items: readonly string[]; resolve: () => void; reject: (error: unknown) => void }[] = [];
  const queue = new WriteQueue<string>({
    store: "journal",
    bytesMax,
    bytesOf: (item) => item.length,
    write: (items) => new Promise<void>((resolve, reject) => groups.push({ items, resolve, reject })),
  });
  return { queue, groups, items: () => groups.map((group) => group.items) };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

describe("WriteQueue", () => {
  it("writes at once when idle and joins what waits meanwhile, in order", async () => {
    const { queue, groups, items } = heldQueue(100);
    const all = ["a", "b", "c"].map((item) => queue.push(item));
    expect(items()).toEqual([["a"]]);
    groups[0]?.resolve();
    await all[0];
    expect(items()).toEqual([["a"], ["b", "c"]]);
    groups[1]?.resolve();
    await Promise.all(all);
    void queue.push("d");
    expect(items()[2]).toEqual(["d"]);
  });

  it("joins up to its bound, an item above it alone", async () => {
    const { queue, groups, items } = heldQueue(5);
    const all = ["x", "aa", "bbb", "cccccccc", "d", "e"].map((item) => queue.push(item));
    for (let index = 0; index < 4; index++) {
      groups[index]?.resolve();
      await settled();
    }
    await Promise.all(all);
    expect(items()).toEqual([["x"], ["aa", "bbb"], ["cccccccc"], ["d", "e"]]);
  });

  it("never writes again after a failure", async () => {
    const { queue, groups } = heldQueue(0);
    const failing = codeOf(queue.push("a"));
    const waiting = codeOf(queue.push("b"));
    const cause = new Error("fsync");
    groups[0]?.reject(cause);
    expect(await failing).toMatchObject({ code: "STORAGE_FAILED", cause });
    expect(await waiting).toMatchObject({ code: "STORAGE_FAILED", cause: { cause } });
    expect((await codeOf(queue.push("c"))).code).toBe("STORAGE_FAILED");
    expect(groups.length).toBe(1);
    await queue.close();
  });

  it("closes after what was pushed is written", async () => {
    const { queue, groups } = heldQueue(0);
    let closed = false;
    const all = [queue.push("a"), queue.push("b")];
    const closing = queue.close().then(() => {
      closed = true;
    });
    expect((await codeOf(queue.push("c"))).code).toBe("STORAGE_FAILED");
    groups[0]?.resolve();
    await settled();
    expect(closed).toBe(false);
    groups[1]?.resolve();
    await Promise.all([...all, closing]);
    await queue.close();
    expect(groups.map((group) => group.items)).toEqual([["a"], ["b"]]);
  });
});
