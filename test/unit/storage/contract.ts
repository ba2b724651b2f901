/** The contract of `Storage` as a suite (storage/contract.ts): every implementation must pass it. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { InvariantViolation, type QuorateError } from "../../../protocol/errors.ts";
import type { Founding, InstanceRecord, Repair, Storage } from "../../../storage/contract.ts";
import { appendAll, asAppend, at, codeOf, FOUNDING, historyOf, plain } from "./history.ts";
import { stateContract } from "./state-contract.ts";
import { truncationContract } from "./truncation-contract.ts";

export interface StorageHarness {
  /** Opens the same directory every time. It is prepared, so the first opening founds it. */
  open(founding?: Founding): Promise<Storage>;
  /** Everything is gone, the permission to found too. */
  lose(): Promise<void>;
  dispose(): Promise<void>;
}

async function entriesOf(storage: Storage, from = "", to = "\xff"): Promise<[string, string][]> {
  const entries: [string, string][] = [];
  for await (const chunk of storage.state.chunks({ from, to })) {
    for (const [key, value] of chunk) entries.push([key, Buffer.from(value).toString("latin1")]);
  }
  return entries;
}

function text(value: Uint8Array | undefined): string | undefined {
  return value && Buffer.from(value).toString("latin1");
}

export function storageContract(name: string, makeHarness: () => Promise<StorageHarness>): void {
  describe(`storage contract: ${name}`, () => {
    let harness: StorageHarness;
    let storage: Storage;

    beforeEach(async () => {
      harness = await makeHarness();
      storage = await harness.open();
    });
    afterEach(async () => {
      await storage.close();
      await harness.dispose();
    });

    async function reopen(): Promise<Storage> {
      await storage.close();
      storage = await harness.open();
      return storage;
    }

    async function repairsOfReopening(): Promise<readonly Repair[]> {
      return (await reopen()).repairs;
    }

    async function refusalOfReopening(founding?: Founding): Promise<QuorateError> {
      await storage.close();
      return codeOf(harness.open(founding));
    }

    describe("journal", () => {
      it("is empty when founded, and still when opened again", async () => {
        const empty = {
          founding: FOUNDING,
          base: { instance: 0, digest: FOUNDING.genesis },
          first: 0,
          last: 0,
          newestAccepted: null,
          keptCertificate: null,
          forgotten: null,
          regency: { view: 0, regency: 0, wanted: 0 },
          cleanStop: [],
        };
        expect(storage.journal.summary).toEqual(empty);
        expect((await reopen()).journal.summary).toEqual(empty);
        expect(await storage.journal.read(1)).toBeNull();
      });

      it("gives back every record exactly, at once and after opening again", async () => {
        const records = historyOf({ count: 20, accepted: (instance) => instance % 3 !== 0 });
        await appendAll(storage, records);
        for (const next of [async () => storage, reopen]) {
          const opened = await next();
          for (const record of records)
            expect(plain(await opened.journal.read(record.instance))).toEqual(plain(record));
          expect(await opened.journal.read(0)).toBeNull();
          expect(await opened.journal.read(21)).toBeNull();
        }
        const { summary } = storage.journal;
        expect([summary.first, summary.last]).toEqual([1, 20]);
        expect(plain(summary.newestAccepted)).toEqual(plain(at(records, 20)));
      });

      it("takes the highest instance with a certificate as newest accept record", async () => {
        const records = historyOf({ count: 5, accepted: (instance) => instance <= 3 });
        await appendAll(storage, records);
        const { summary } = (await reopen()).journal;
        expect(summary.last).toBe(5);
        expect(plain(summary.newestAccepted)).toEqual(plain(at(records, 3)));
      });

      it("keeps the batch of the largest size and the empty one", async () => {
        const records = historyOf({ count: 2, bytes: 4 * 1024 * 1024 - 64 });
        await appendAll(storage, records);
        const empty = historyOf({ count: 1, bytes: 0 });
        expect(plain(await storage.journal.read(2))).toEqual(plain(at(records, 2)));
        await storage.journal.append(empty.map(asAppend));
        expect(plain(await storage.journal.read(1))).toEqual(plain(at(empty, 1)));
      });

      it("replaces the record of an instance by a later one", async () => {
        const records = historyOf({ count: 4, accepted: (instance) => instance < 4 });
        await appendAll(storage, records);
        const certificate = { view: 0, regency: 3, instance: 4, digest: at(records, 4).digest, votes: [] };
        const replacement = { ...at(records, 4), regency: 3, certificate };
        await storage.journal.append([{ type: "regency", view: 0, regency: 3 }, asAppend(replacement)]);
        const lower = { ...at(records, 2), regency: 1 };
        await storage.journal.append([asAppend(lower)]);
        const { journal } = await reopen();
        expect(plain(journal.summary.newestAccepted)).toEqual(plain(replacement));
        expect(plain(await journal.read(2))).toEqual(plain(lower));
        expect(journal.summary.regency).toEqual({ view: 0, regency: 3, wanted: 3 });
      });

      it("writes appends in flight at once in the order of the calls", async () => {
        const records = historyOf({ count: 300 });
        const resolved: number[] = [];
        await Promise.all(
          records.map((record) =>
            storage.journal.append([asAppend(record)]).then(() => resolved.push(record.instance)),
          ),
        );
        expect(resolved).toEqual(records.map((record) => record.instance));
        // The same instance twice in flight: the later call stands.
        const twice = [at(records, 300), { ...at(records, 300), regency: 9 }];
        await appendAll(storage, twice);
        expect((await storage.journal.read(300))?.regency).toBe(9);
        expect((await reopen()).journal.summary.newestAccepted?.regency).toBe(9);
      });

      it("holds what was acknowledged when it is closed with appends in flight", async () => {
        const appends = appendAll(storage, historyOf({ count: 50 }));
        await storage.close();
        await appends;
        storage = await harness.open();
        expect(storage.journal.summary.last).toBe(50);
      });

      it("keeps the newest regency of the newest view", async () => {
        for (const [view, regency] of [
          [0, 2],
          [0, 5],
          [0, 1],
        ] as const) {
          await storage.journal.append([{ type: "regency", view, regency }]);
        }
        expect((await reopen()).journal.summary.regency).toEqual({ view: 0, regency: 5, wanted: 5 });
        await storage.journal.append([{ type: "regency", view: 2, regency: 1 }]);
        await storage.journal.append([{ type: "regency", view: 1, regency: 7 }]);
        expect((await reopen()).journal.summary.regency).toEqual({ view: 2, regency: 1, wanted: 1 });
      });

      it("gives ranges in order within their limits", async () => {
        const records = historyOf({ count: 30, bytes: 1000 });
        await appendAll(storage, records);
        const all = { maxRecords: 1000, maxBytes: 1e9 };
        const range = async (options: { from: number; to: number; maxRecords: number; maxBytes: number }) =>
          (await storage.journal.range(options)).map((record) => record.instance);
        expect((await range({ ...all, from: 1, to: 30 })).length).toBe(30);
        expect(await range({ ...all, from: 28, to: 99 })).toEqual([28, 29, 30]);
        expect(await range({ ...all, from: 5, to: 7 })).toEqual([5, 6, 7]);
        expect(await range({ ...all, from: 5, to: 30, maxRecords: 2 })).toEqual([5, 6]);
        const batchBytes = at(records, 9).batch.length;
        expect(await range({ ...all, from: 5, to: 30, maxBytes: 3 * batchBytes })).toEqual([5, 6, 7]);
        expect(await range({ ...all, from: 5, to: 30, maxBytes: 1 })).toEqual([5]);
        expect(await range({ ...all, from: 31, to: 40 })).toEqual([]);
        expect(await range({ ...all, from: 0, to: 40 })).toEqual([]);
        expect(await range({ ...all, from: 7, to: 6 })).toEqual([]);
        expect(await range({ ...all, from: 7, to: 9, maxRecords: 0 })).toEqual([]);
      });

      it("takes a gap as our bug", async () => {
        const records = historyOf({ count: 9 });
        await appendAll(storage, records.slice(0, 3));
        expect(() => storage.journal.append([asAppend(at(records, 5))])).toThrow(InvariantViolation);
        await appendAll(storage, records.slice(3));
        expect((await reopen()).journal.summary.last).toBe(9);
      });

      it("refuses appends once closed, with a code", async () => {
        await storage.close();
        expect((await codeOf(storage.journal.append([{ type: "started" }]))).code).toBe("STORAGE_FAILED");
        const group = { changes: new Map(), applied: { instance: 1, digest: "", timestampMs: 0 } };
        expect((await codeOf(storage.state.write(group))).code).toBe("STORAGE_FAILED");
      });
    });

    describe("clean stop (section 4, restart rules)", () => {
      const messages = [Buffer.from([1, 2, 3]), Buffer.alloc(0), Buffer.alloc(100_000, 7)];
      const hexes = (found: readonly Uint8Array[] | null) => found?.map((bytes) => Buffer.from(bytes).toString("hex"));

      it("gives its messages back exactly, as often as nothing is written after it", async () => {
        await appendAll(storage, historyOf({ count: 3 }));
        await storage.journal.append([{ type: "cleanStop", messages }]);
        expect(hexes((await reopen()).journal.summary.cleanStop)).toEqual(hexes(messages));
        expect(hexes((await reopen()).journal.summary.cleanStop)).toEqual(hexes(messages));
      });

      it("tells a clean stop without messages from none", async () => {
        await storage.journal.append([{ type: "cleanStop", messages: [] }]);
        expect((await reopen()).journal.summary.cleanStop).toEqual([]);
      });

      it("is erased by the start after it", async () => {
        await storage.journal.append([{ type: "regency", view: 0, regency: 4 }]);
        await storage.journal.append([{ type: "cleanStop", messages }]);
        await reopen();
        const { journalBytes } = await storage.diskUse();
        await storage.journal.append([{ type: "started" }]);
        expect(journalBytes).toBeGreaterThan(100_000);
        expect((await reopen()).journal.summary).toMatchObject({ cleanStop: null, regency: { view: 0, regency: 4 } });
        await storage.journal.append([{ type: "cleanStop", messages: [] }]);
        expect((await reopen()).journal.summary.cleanStop).toEqual([]);
      });

      it.each([
        ["an instance", (records: InstanceRecord[]) => asAppend(at(records, 4))],
        ["an instance replaced", (records: InstanceRecord[]) => asAppend({ ...at(records, 3), regency: 1 })],
        ["a regency", () => ({ type: "regency", view: 0, regency: 1 }) as const],
      ])("does not count after %s", async (_, later) => {
        const records = historyOf({ count: 4 });
        await appendAll(storage, records.slice(0, 3));
        await storage.journal.append([{ type: "cleanStop", messages }]);
        await storage.journal.append([later(records)]);
        expect((await reopen()).journal.summary.cleanStop).toBeNull();
        await storage.journal.append([{ type: "regency", view: 0, regency: 2 }]);
        expect((await reopen()).journal.summary).toMatchObject({ cleanStop: null, regency: { view: 0, regency: 2 } });
      });

      it("does not count when an instance follows in the same write", async () => {
        const [first] = historyOf({ count: 1 });
        await storage.journal.append([{ type: "cleanStop", messages }, asAppend(first as InstanceRecord)]);
        expect((await reopen()).journal.summary).toMatchObject({ cleanStop: null, last: 1 });
      });
    });

    describe("state", () => {
      const binary = String.fromCharCode(...Array.from({ length: 256 }, (_, byte) => byte));

      it("stands at the genesis at first", async () => {
        const genesis = { instance: 0, digest: FOUNDING.genesis, timestampMs: 0 };
        expect(storage.state.applied).toEqual(genesis);
        expect((await reopen()).state.applied).toEqual(genesis);
        expect(storage.state.get("")).toBeUndefined();
        expect(await entriesOf(storage)).toEqual([]);
      });

      it("keeps changes and where they stand, binary keys and values, empty ones too", async () => {
        const records = historyOf({ count: 3 });
        await appendAll(storage, records);
        const changes = new Map<string, Uint8Array | null>([
          ["b", Buffer.from("2")],
          ["", Buffer.alloc(0)],
          [binary, Buffer.from(binary, "latin1")],
          ["\0", Buffer.from("nul")],
          ["gone", Buffer.from("x")],
        ]);
        await storage.state.write({
          changes,
          applied: { instance: 1, digest: at(records, 1).digest, timestampMs: 2 ** 41 },
        });
        const applied = { instance: 3, digest: at(records, 3).digest, timestampMs: 2 ** 42 };
        await storage.state.write({
          changes: new Map<string, Uint8Array | null>([
            ["gone", null],
            ["never", null],
            ["b", Buffer.from("3")],
          ]),
          applied,
        });
        for (const next of [async () => storage, reopen]) {
          const opened = await next();
          expect(opened.state.applied).toEqual(applied);
          expect(text(opened.state.get("b"))).toBe("3");
          expect(text(opened.state.get(""))).toBe("");
          expect(text(opened.state.get(binary))).toBe(binary);
          expect(opened.state.get("gone")).toBeUndefined();
          expect(await entriesOf(opened)).toEqual([
            ["", ""],
            ["\0", "nul"],
            [binary, binary],
            ["b", "3"],
          ]);
        }
      });

      it("orders entries by bytes and ends before `to`", async () => {
        const [record] = historyOf({ count: 1 });
        await appendAll(storage, [record as InstanceRecord]);
        const keys = ["a", "a\0", "aa", "b", "\x7f", "\x80", "\xfe\xff", "B"];
        const changes = new Map(keys.map((key) => [key, Buffer.from(key, "latin1")] as const));
        await storage.state.write({
          changes,
          applied: { instance: 1, digest: (record as InstanceRecord).digest, timestampMs: 1 },
        });
        const found = async (from: string, to: string) => (await entriesOf(storage, from, to)).map(([key]) => key);
        expect(await found("", "\xff")).toEqual(["B", "a", "a\0", "aa", "b", "\x7f", "\x80", "\xfe\xff"]);
        expect(await found("a", "b")).toEqual(["a", "a\0", "aa"]);
        expect(await found("a\0", "\x80")).toEqual(["a\0", "aa", "b", "\x7f"]);
        expect(await found("b", "a")).toEqual([]);
      });

      it("writes groups in flight at once in the order of the calls", async () => {
        const records = historyOf({ count: 40 });
        await appendAll(storage, records);
        await Promise.all(
          records.map(({ instance, digest }) =>
            storage.state.write({
              changes: new Map([["counter", Buffer.from(String(instance))]]),
              applied: { instance, digest, timestampMs: instance },
            }),
          ),
        );
        await reopen();
        expect(text(storage.state.get("counter"))).toBe("40");
        expect(storage.state.applied.instance).toBe(40);
      });

      it("takes a group at or below the last one as our bug", () => {
        const group = { changes: new Map(), applied: { instance: 0, digest: "", timestampMs: 0 } };
        expect(() => storage.state.write(group)).toThrow(InvariantViolation);
      });
    });

    describe("opening", () => {
      it("refuses a second server", async () => {
        expect((await codeOf(harness.open())).code).toBe("STORAGE_LOCKED");
        await appendAll(storage, historyOf({ count: 1 }));
        expect((await reopen()).journal.summary.last).toBe(1);
      });

      it.each(["cluster", "replica", "genesis"] as const)("refuses a directory of another %s", async (field) => {
        const other = { ...FOUNDING, [field]: field === "replica" ? 3 : "x".repeat(32) };
        expect(await refusalOfReopening(other)).toMatchObject({ code: "CLUSTER_MISMATCH", detail: { field } });
        storage = await harness.open();
      });

      it("begins as forgotten when everything is lost, and stays so until it remembers", async () => {
        await storage.close();
        await harness.lose();
        storage = await harness.open();
        expect(storage.repairs).toMatchObject([{ store: "journal", setAside: null }]);
        for (let attempt = 0; attempt < 2; attempt++) {
          expect(storage.journal.summary).toMatchObject({
            base: { instance: 0, digest: FOUNDING.genesis },
            forgotten: { until: null, regency: 0 },
            cleanStop: null,
          });
          await reopen();
          expect(storage.repairs).toEqual([]);
        }
        await storage.journal.append([{ type: "forgotten", until: 7, regency: 3 }]);
        await appendAll(storage, historyOf({ count: 7 }));
        expect((await reopen()).journal.summary).toMatchObject({ forgotten: { until: 7, regency: 3 }, last: 7 });
        await storage.journal.append([{ type: "remembered" }]);
        expect((await reopen()).journal.summary).toMatchObject({ forgotten: null, last: 7 });
      });

      it("notices a batch that is not the one its digest says", async () => {
        const records = historyOf({ count: 3 });
        const wrong = { ...at(records, 2), batch: Buffer.from("not the batch") };
        await appendAll(storage, [at(records, 1), wrong, at(records, 3)]);
        const detail = { store: "journal", instance: 2 };
        expect(await codeOf(storage.journal.read(2))).toMatchObject({ code: "STORAGE_DAMAGED", detail });
        expect(await repairsOfReopening()).toMatchObject([{ store: "journal", setAside: "aside/journal-1" }]);
      });

      it("notices a history that does not continue", async () => {
        const records = historyOf({ count: 4 });
        const [, other] = historyOf({ count: 2, bytes: 7 });
        await appendAll(storage, [at(records, 1), other as InstanceRecord, at(records, 3), at(records, 4)]);
        expect(await repairsOfReopening()).toMatchObject([{ store: "journal", setAside: "aside/journal-1" }]);
      });

      it("notices a history that starts from another genesis", async () => {
        const [, second] = historyOf({ count: 2 });
        await appendAll(storage, [{ ...(second as InstanceRecord), instance: 1 }]);
        expect(await repairsOfReopening()).toMatchObject([{ store: "journal", setAside: "aside/journal-1" }]);
        expect(storage.journal.summary).toMatchObject({ last: 0, forgotten: { until: null, regency: 0 } });
      });

      it("notices a state ahead of its journal: the journal lost its end", async () => {
        const records = historyOf({ count: 5 });
        await appendAll(storage, records.slice(0, 3));
        const applied = { instance: 5, digest: at(records, 5).digest, timestampMs: 1 };
        await storage.state.write({ changes: new Map(), applied });
        expect(await repairsOfReopening()).toMatchObject([{ store: "journal", setAside: "aside/journal-1" }]);
        expect(storage.repairs[0]?.reason).toContain("its end is lost");
        expect(storage.state.applied).toEqual(applied);
        expect(storage.journal.summary).toMatchObject({
          base: { instance: 5, digest: applied.digest },
          first: 0,
          last: 0,
          forgotten: { until: null, regency: 0 },
        });
        expect([storage.journal.base.instance, storage.journal.last]).toEqual([5, 5]);
        expect(() => storage.journal.append([asAppend(at(records, 5))])).toThrow(InvariantViolation);
        // And once more: the first was set aside for ever.
        await storage.state.write({ changes: new Map(), applied: { ...applied, instance: 9 } });
        expect(await repairsOfReopening()).toMatchObject([{ store: "journal", setAside: "aside/journal-2" }]);
      });

      it("notices a state of another history", async () => {
        await appendAll(storage, historyOf({ count: 5 }));
        const applied = { instance: 3, digest: "z".repeat(32), timestampMs: 1 };
        await storage.state.write({ changes: new Map(), applied });
        expect(await repairsOfReopening()).toMatchObject([{ store: "state", setAside: "aside/state-1" }]);
        expect(storage.state.applied).toEqual({ instance: 0, digest: FOUNDING.genesis, timestampMs: 0 });
        expect(storage.journal.summary).toMatchObject({ last: 5, forgotten: null });
      });
    });

    truncationContract({ storage: () => storage, reopen });
    stateContract({ storage: () => storage, reopen });

    it("says how much disk it uses", async () => {
      const before = await storage.diskUse();
      const records = historyOf({ count: 1, bytes: 100_000 });
      await appendAll(storage, records);
      const applied = { instance: 1, digest: at(records, 1).digest, timestampMs: 1 };
      await storage.state.write({ changes: new Map([["k", Buffer.alloc(50_000)]]), applied });
      const after = await storage.diskUse();
      expect(after.journalBytes - before.journalBytes).toBeGreaterThan(100_000);
      expect(after.stateBytes - before.stateBytes).toBeGreaterThan(50_000);
    });
  });
}
