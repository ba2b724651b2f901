/** What every implementation must do about the state (storage/contract.ts): snapshots, notes, staging, install, condemn. */
import { describe, expect, it } from "vitest";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { assert, InvariantViolation } from "../../../protocol/errors.ts";
import { ChunkBuilder } from "../../../protocol/image.ts";
import { CHUNK_BYTES_TARGET } from "../../../protocol/limits.ts";
import type { Applied, StagedChunk, StateSnapshot, StateStore, Storage } from "../../../storage/contract.ts";
import { appendAll, asAppend, at, codeOf, FOUNDING, following, historyOf } from "./history.ts";

export async function stateOf(state: StateStore): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for await (const chunk of state.chunks({ from: "", to: "\xff" })) {
    for (const [key, value] of chunk) found[key] = Buffer.from(value).toString();
  }
  return found;
}

async function contentsOf(snapshot: StateSnapshot, from = "", to = "\xff"): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for await (const chunk of snapshot.chunks({ from, to })) {
    expect(chunk.length).toBeGreaterThan(0);
    expect(chunk.length).toBeLessThanOrEqual(512);
    for (const [key, value] of chunk) found[key] = Buffer.from(value).toString();
  }
  return found;
}

export function appliedAt(instance: number): Applied {
  return { instance, digest: at(historyOf({ count: instance }), instance).digest, timestampMs: instance };
}

/** Chunk `number` has the keys `<number>a` to `<number>c`. */
export function chunk(number: number): StagedChunk {
  const entries = ["a", "b", "c"].map((key) => [`${number}${key}`, Buffer.from(`value of ${number}${key}`)] as const);
  return { digest: String(number).repeat(32), bytes: 100 + number, entries };
}

/** A chunk that ends where an image would end it. */
function imageChunk(number: number): StagedChunk {
  const sizes = [10, 20, CHUNK_BYTES_TARGET];
  const entries = sizes.map((size, at) => [`${number}${"abc"[at]}`, Buffer.alloc(size, number)] as const);
  const builder = new ChunkBuilder();
  const ends = entries.map(([key, value]) => builder.add(key, value));
  assert(ends.join() === "false,false,true", "the chunk ends with its last entry");
  const bytes = builder.take() ?? new Uint8Array(0);
  return { digest: nodeCrypto.sha256(bytes), bytes: bytes.length, entries };
}

function group(instance: number, changes: Record<string, string | null>) {
  const entries = Object.entries(changes).map(
    ([key, value]) => [key, value === null ? null : Buffer.from(value)] as const,
  );
  return { changes: new Map(entries), applied: appliedAt(instance) };
}

export function stateContract(harness: { storage(): Storage; reopen(): Promise<Storage> }): void {
  const { storage, reopen } = harness;

  describe("snapshots (section 6)", () => {
    it("show the entries of their instance, whatever is written later", async () => {
      await appendAll(storage(), historyOf({ count: 9 }));
      const many = Object.fromEntries(Array.from({ length: 1500 }, (_, index) => [`k${index}`, `v${index}`]));
      await storage().state.write(group(3, many));
      const snapshot = storage().state.snapshot();
      expect(snapshot.applied).toEqual(appliedAt(3));
      const reading = snapshot.chunks({ from: "", to: "\xff" })[Symbol.asyncIterator]();
      await reading.next();
      await storage().state.write(group(5, { k1: null, k2: "changed", new: "x" }));
      await storage().state.write(group(6, { k3: null }));
      const later = storage().state.snapshot();
      expect(await contentsOf(snapshot)).toEqual(many);
      expect(await contentsOf(snapshot, "k10", "k11")).toEqual(
        Object.fromEntries(Object.entries(many).filter(([key]) => key >= "k10" && key < "k11")),
      );
      const { k1, k3, ...rest } = many;
      expect([k1, k3, await contentsOf(later)]).toEqual(["v1", "v3", { ...rest, k2: "changed", new: "x" }]);
      await snapshot.close();
      expect((await codeOf(contentsOf(snapshot))).code).toBe("STORAGE_FAILED");
      await later.close();
    });

    it("are of no group on its way, and end with the store", async () => {
      await appendAll(storage(), historyOf({ count: 2 }));
      const writing = storage().state.write(group(1, { a: "1" }));
      expect(() => storage().state.snapshot()).toThrow(InvariantViolation);
      await writing;
      const snapshot = storage().state.snapshot();
      await storage().close();
      expect((await codeOf(contentsOf(snapshot))).code).toBe("STORAGE_FAILED");
    });
  });

  describe("notes", () => {
    it("are kept beside the entries, replaced and removed", async () => {
      await appendAll(storage(), historyOf({ count: 2 }));
      const { state } = storage();
      expect(state.note("roots")).toBeNull();
      await Promise.all([
        state.writeNote("roots", Buffer.from("one")),
        state.write(group(1, { roots: "entry" })),
        state.writeNote("roots", Buffer.from("two")),
        state.writeNote("gone", Buffer.from("x")),
        state.writeNote("gone", null),
      ]);
      for (const next of [async () => storage(), reopen]) {
        const opened = (await next()).state;
        expect(Buffer.from(opened.note("roots") ?? "").toString()).toBe("two");
        expect(opened.note("gone")).toBeNull();
        expect(await stateOf(opened)).toEqual({ roots: "entry" });
        expect(await contentsOf(opened.snapshot())).toEqual({ roots: "entry" });
      }
    });
  });

  describe("a state under construction (section 6)", () => {
    it("keeps its chunks across restarts and drops what is not retained", async () => {
      const staged = await storage().stage();
      expect(staged.held.size).toBe(0);
      const [one, two, three, four] = [1, 2, 3, 4].map(imageChunk) as [
        StagedChunk,
        StagedChunk,
        StagedChunk,
        StagedChunk,
      ];
      await staged.add([one, four]);
      await staged.add([three]);
      expect((await storage().diskUse()).stagingBytes).toBeGreaterThan(100);
      await reopen();
      const again = await storage().stage();
      const held = [one, three, four].map(({ digest, bytes }) => [digest, bytes] as const);
      expect(new Map(again.held)).toEqual(new Map(held));
      await again.retain(new Set([one.digest, three.digest]));
      await again.add([two]);
      expect(new Set(again.held.keys())).toEqual(new Set([one, two, three].map(({ digest }) => digest)));
      const state = await again.complete(appliedAt(20));
      expect(Object.keys(await stateOf(state)).map((key) => key[0])).toEqual([..."111222333"]);
      expect(storage().state.applied.instance).toBe(0);
      expect(await stateOf(storage().state)).toEqual({});
    });

    it("takes no chunk that overlaps another: dropping it would take entries of the other with it", async () => {
      const staged = await storage().stage();
      expect(await staged.add([chunk(1), chunk(3)])).toBe(true);
      const names: readonly (readonly string[])[] = [["1b"], ["0", "1a"], ["3c", "4"], ["0", "9"], ["1bb", "2"]];
      for (const [index, keys] of names.entries()) {
        const entries = keys.map((key) => [key, Buffer.from("false")] as const);
        const overlapping = { digest: String.fromCharCode(97 + index).repeat(32), bytes: 1, entries };
        expect(await staged.add([chunk(4), overlapping]), keys.join()).toBe(false);
        expect(staged.held.size).toBe(2);
      }
      expect(await staged.add([chunk(2), chunk(3), chunk(4)])).toBe(true);
      await staged.retain(new Set([chunk(1).digest, chunk(3).digest, chunk(4).digest]));
      expect(await staged.add([{ ...chunk(2), digest: "2b".repeat(16) }])).toBe(true);
      const state = await staged.complete(appliedAt(20));
      const all = [1, 2, 3, 4].flatMap((number) => chunk(number).entries);
      expect(await stateOf(state)).toEqual(Object.fromEntries(all.map(([key, value]) => [key, value.toString()])));
    });

    it("begins anew when it was completed and not installed, and when it is thrown away", async () => {
      const state = await (async () => {
        const staged = await storage().stage();
        await staged.add([chunk(1)]);
        return staged.complete(appliedAt(5));
      })();
      await state.write(group(6, { "1a": "changed" }));
      expect((await reopen()).state.applied.instance).toBe(0);
      const staged = await storage().stage();
      expect(staged.held.size).toBe(0);
      await staged.add([chunk(2)]);
      await storage().unstage();
      await storage().unstage();
      expect((await storage().diskUse()).stagingBytes).toBe(0);
      expect((await storage().stage()).held.size).toBe(0);
    });
  });

  describe("installing a state (section 6)", () => {
    /** Stages chunks 1 and 2 at instance 20 and executes one more on top. */
    async function completed(): Promise<void> {
      const staged = await storage().stage();
      await staged.add([chunk(1), chunk(2)]);
      const state = await staged.complete(appliedAt(20));
      await state.write(group(21, { "1a": null, x: "21" }));
    }
    const entries = () => ({
      ...Object.fromEntries([...chunk(1).entries, ...chunk(2).entries].slice(1).map(([k, v]) => [k, v.toString()])),
      x: "21",
    });

    it("puts it in the place of the live one, and the journal begins above it", async () => {
      const records = historyOf({ count: 25 });
      await appendAll(storage(), records.slice(0, 8));
      await storage().journal.append([{ type: "regency", view: 0, regency: 6 }]);
      await storage().journal.append([{ type: "forgotten", until: null, regency: 7 }]);
      await storage().state.write(group(4, { old: "gone" }));
      await completed();
      await storage().install(at(records, 23).certificate);
      for (let attempt = 0; attempt < 2; attempt++) {
        await reopen();
        expect(storage().repairs).toEqual([]);
        expect(storage().state.applied).toEqual(appliedAt(21));
        expect(await stateOf(storage().state)).toEqual(entries());
        expect(storage().journal.summary).toMatchObject({
          base: { instance: 21, digest: at(records, 21).digest },
          first: 0,
          last: 0,
          newestAccepted: null,
          keptCertificate: { instance: 23 },
          forgotten: { until: null, regency: 7 },
          regency: { view: 0, regency: 6 },
          cleanStop: null,
        });
        expect(await storage().journal.read(8)).toBeNull();
        expect(await storage().diskUse()).toMatchObject({ stagingBytes: 0, asideBytes: 0 });
      }
      await appendAll(storage(), records.slice(21));
      expect((await reopen()).journal.summary).toMatchObject({ first: 22, last: 25 });
    });

    it.each([
      ["the journal's own, when that is newer", 8, 5, 8],
      ["that of the transfer, when the journal has none", 0, 5, 5],
      ["none, when there is none", 0, 0, null],
    ])("keeps as certificate %s", async (_, accepted, given, kept) => {
      const records = historyOf({ count: 8, accepted: (instance) => instance <= accepted });
      await appendAll(storage(), records);
      await completed();
      await storage().install(given > 0 ? at(historyOf({ count: given }), given).certificate : null);
      const { summary } = (await reopen()).journal;
      expect(summary.keptCertificate?.instance ?? null).toBe(kept);
    });

    it("leaves a journal that reaches beyond it as it is", async () => {
      await appendAll(storage(), historyOf({ count: 25 }));
      await storage().journal.truncate(23);
      await completed();
      await storage().install(null);
      await reopen();
      expect(storage().repairs).toEqual([]);
      expect(storage().journal.summary).toMatchObject({ first: 23, last: 25, base: { instance: 22 } });
      expect(storage().state.applied.instance).toBe(21);
    });

    it("takes the place of the newest record, when that accepted another batch than was decided there", async () => {
      const records = historyOf({ count: 23 });
      const other = following(at(records, 20).digest, { instance: 21, bytes: 50, accepted: true });
      await appendAll(storage(), [...records.slice(0, 20), other]);
      await completed();
      await storage().install(at(records, 21).certificate);
      for (let attempt = 0; attempt < 2; attempt++) {
        await reopen();
        expect(storage().repairs).toEqual([]);
        expect(storage().state.applied).toEqual(appliedAt(21));
        expect(storage().journal.summary).toMatchObject({
          base: { instance: 21, digest: at(records, 21).digest },
          last: 0,
          newestAccepted: null,
          keptCertificate: { instance: 21 },
        });
      }
      await appendAll(storage(), records.slice(21));
      expect((await reopen()).journal.summary).toMatchObject({ first: 22, last: 23 });
    });

    it("stands where the journal ends with the same batch: that stays as it is", async () => {
      await appendAll(storage(), historyOf({ count: 21 }));
      await completed();
      await storage().install(null);
      expect((await reopen()).journal.summary).toMatchObject({ first: 1, last: 21, newestAccepted: { instance: 21 } });
      expect(storage().repairs).toEqual([]);
    });

    it("of another history than where an empty journal begins is noticed: that was decided", async () => {
      await completed();
      await storage().install(null);
      await reopen();
      const staged = await storage().stage();
      await staged.complete({ ...appliedAt(21), digest: "z".repeat(32) });
      await storage().install(null);
      await reopen();
      expect(storage().repairs).toMatchObject([{ store: "state", setAside: "aside/state-1" }]);
    });

    it("of another history than the journal's is noticed", async () => {
      await appendAll(storage(), historyOf({ count: 25 }));
      const staged = await storage().stage();
      await staged.complete({ ...appliedAt(20), digest: "z".repeat(32) });
      await storage().install(null);
      await reopen();
      expect(storage().repairs).toMatchObject([{ store: "state", setAside: "aside/state-1" }]);
      expect(storage().journal.summary).toMatchObject({ first: 1, last: 25 });
    });
  });

  describe("condemn", () => {
    it("the state: set aside, and begun anew under the same journal", async () => {
      await appendAll(storage(), historyOf({ count: 9 }));
      await storage().state.write(group(4, { a: "1" }));
      expect(await storage().condemn("state")).toBe("aside/state-1");
      await reopen();
      expect(storage().state.applied).toEqual({ instance: 0, digest: FOUNDING.genesis, timestampMs: 0 });
      expect(storage().journal.summary).toMatchObject({ last: 9, forgotten: null });
      expect(storage().repairs).toMatchObject([{ store: "state" }]);
      expect((await storage().diskUse()).asideBytes).toBeGreaterThan(0);
    });

    it("the journal: set aside, and begun anew as forgotten where the state stands", async () => {
      await appendAll(storage(), historyOf({ count: 9 }));
      await storage().state.write(group(4, { a: "1" }));
      expect(await storage().condemn("journal")).toBe("aside/journal-1");
      await reopen();
      expect(await stateOf(storage().state)).toEqual({ a: "1" });
      expect(storage().journal.summary).toMatchObject({
        base: { instance: 4, digest: appliedAt(4).digest },
        forgotten: { until: null, regency: 0 },
      });
      expect(storage().repairs).toMatchObject([{ store: "journal" }]);
      await storage().journal.append([asAppend(at(historyOf({ count: 5 }), 5))]);
      expect((await reopen()).journal.summary).toMatchObject({ first: 5, last: 5 });
    });
  });

  it("a state below the beginning of the log is sound: the caller transfers", async () => {
    await appendAll(storage(), historyOf({ count: 9 }));
    await storage().state.write(group(2, { a: "1" }));
    await storage().journal.truncate(6);
    await reopen();
    expect([storage().repairs, storage().state.applied.instance, storage().journal.base.instance]).toEqual([[], 2, 5]);
  });
}
