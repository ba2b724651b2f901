/** What every implementation must do about the beginning of its log (storage/contract.ts): `truncate`, `base`, `digestAt`. */
import { describe, expect, it } from "vitest";
import { InvariantViolation } from "../../../protocol/errors.ts";
import type { Storage } from "../../../storage/contract.ts";
import { appendAll, asAppend, at, FOUNDING, historyOf, plain } from "./history.ts";

export function truncationContract(harness: { storage(): Storage; reopen(): Promise<Storage> }): void {
  const { storage, reopen } = harness;
  const journal = () => storage().journal;

  describe("truncation (section 6)", () => {
    it("drops what is below and nothing else, at once and after opening again", async () => {
      const records = historyOf({ count: 30 });
      await appendAll(storage(), records.slice(0, 25));
      const before = journal().logBytes;
      await journal().truncate(11);
      expect(journal().logBytes / before).toBeCloseTo(15 / 25, 1);
      for (const next of [async () => storage(), reopen]) {
        const { journal } = await next();
        expect(journal.base).toEqual({ instance: 10, digest: at(records, 10).digest });
        expect(journal.last).toBe(25);
        expect(await journal.read(10)).toBeNull();
        for (let instance = 11; instance <= 25; instance++) {
          expect(plain(await journal.read(instance))).toEqual(plain(at(records, instance)));
        }
        expect(await journal.range({ from: 10, to: 20, maxRecords: 9, maxBytes: 1e9 })).toEqual([]);
        expect(await journal.digestAt(10)).toBe(at(records, 10).digest);
        expect(await journal.digestAt(25)).toBe(at(records, 25).digest);
        expect([await journal.digestAt(9), await journal.digestAt(26)]).toEqual([null, null]);
      }
      const { summary } = journal();
      expect(summary).toMatchObject({ first: 11, last: 25, base: { instance: 10 } });
      expect(plain(summary.newestAccepted)).toEqual(plain(at(records, 25)));
      expect(journal().logBytes / before).toBeCloseTo(15 / 25, 1);
      await appendAll(storage(), records.slice(25));
      expect((await reopen()).journal.summary).toMatchObject({ first: 11, last: 30 });
      expect(storage().repairs).toEqual([]);
    });

    it("keeps the newest certificate of what it drops, across further truncations", async () => {
      const records = historyOf({ count: 40, accepted: (instance) => instance === 3 || instance === 7 });
      await appendAll(storage(), records);
      await journal().truncate(5);
      expect((await reopen()).journal.summary.keptCertificate).toMatchObject({ instance: 3 });
      expect(journal().summary.newestAccepted?.instance).toBe(7);
      await journal().truncate(20);
      await journal().truncate(30);
      const { summary } = (await reopen()).journal;
      expect(summary.newestAccepted).toBeNull();
      expect(summary.keptCertificate).toMatchObject({ instance: 7, digest: at(records, 7).digest });
      expect(summary.keptCertificate?.votes.map(({ signature }) => Buffer.from(signature))).toEqual(
        at(records, 7).certificate?.votes.map(({ signature }) => signature),
      );
    });

    it("is written in the order of appends", async () => {
      const records = historyOf({ count: 20 });
      const regency = journal().append([{ type: "regency", view: 0, regency: 2 }]);
      await Promise.all([
        appendAll(storage(), records.slice(0, 10)),
        journal().truncate(8),
        appendAll(storage(), records.slice(10)),
        journal().truncate(15),
        journal().append([asAppend({ ...at(records, 17), regency: 2 })]),
        regency,
      ]);
      expect((await reopen()).journal.summary).toMatchObject({ first: 15, last: 20, regency: { view: 0, regency: 2 } });
      expect((await journal().read(17))?.regency).toBe(2);
      expect(storage().repairs).toEqual([]);
    });

    it("does nothing for what is gone already, and takes what is not held as our bug", async () => {
      await appendAll(storage(), historyOf({ count: 9 }));
      await journal().truncate(4);
      await journal().truncate(4);
      await journal().truncate(2);
      expect(journal().base.instance).toBe(3);
      expect(() => journal().truncate(10)).toThrow(InvariantViolation);
      expect(() => journal().append([asAppend(at(historyOf({ count: 9 }), 3))])).toThrow(InvariantViolation);
    });

    it("keeps regency and what was forgotten; a clean stop ends", async () => {
      await appendAll(storage(), historyOf({ count: 9 }));
      await journal().append([{ type: "regency", view: 1, regency: 4 }]);
      await journal().append([{ type: "forgotten", until: 20, regency: 5 }]);
      await journal().append([{ type: "cleanStop", messages: [Buffer.from("word")] }]);
      await journal().truncate(9);
      expect((await reopen()).journal.summary).toMatchObject({
        regency: { view: 1, regency: 4 },
        forgotten: { until: 20, regency: 5 },
        cleanStop: null,
        first: 9,
      });
    });

    it("leaves a journal that takes any number of rounds", async () => {
      const records = historyOf({ count: 200, bytes: 10 });
      for (let from = 0; from < 200; from += 20) {
        await appendAll(storage(), records.slice(from, from + 20));
        await journal().append([{ type: "regency", view: 0, regency: from }]);
        await journal().append([asAppend({ ...at(records, from + 20), regency: from })]);
        if (from > 0) await journal().truncate(from);
        if (from % 60 === 0) await reopen();
        expect(storage().repairs).toEqual([]);
      }
      expect((await reopen()).journal.summary).toMatchObject({ first: 180, last: 200, founding: FOUNDING });
    });

    it("stops a read that is under way without taking it for damage", async () => {
      const records = historyOf({ count: 300, bytes: 10 });
      await appendAll(storage(), records);
      const reading = journal().range({ from: 1, to: 300, maxRecords: 300, maxBytes: 1e9 });
      const truncated = journal().truncate(290);
      const found = await reading;
      await truncated;
      expect(found.map(plain)).toEqual(records.slice(0, found.length).map(plain));
    });
  });
}
