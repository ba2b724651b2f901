/** The simulated disk: the contract, and the faults it is there for. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { QuorateError } from "../../../protocol/errors.ts";
import type { JournalRecord, Storage } from "../../../storage/contract.ts";
import { SimulatedDisk } from "../../simulation/disk.ts";
import { storageContract } from "./contract.ts";
import { appendAll, asAppend, at, codeOf, FOUNDING, historyOf } from "./history.ts";
import { appliedAt, chunk, stateOf } from "./state-contract.ts";

storageContract("simulated disk", async () => {
  const disk = new SimulatedDisk();
  return {
    open: (founding = FOUNDING) => disk.open({ founding }),
    lose: async () => disk.lose(),
    dispose: async () => {},
  };
});

/** A disk whose writes complete only when told to. */
function heldDisk() {
  const held: (() => void)[] = [];
  const holding = { on: false };
  const disk = new SimulatedDisk({
    schedule: (complete) => (holding.on ? held.push(complete) : queueMicrotask(complete)),
  });
  return { disk, held, holding };
}

/** Opens the disk, or does `act`, and crashes at the write of that number from now on, which is kept or not. */
async function crashAfter(
  disk: SimulatedDisk,
  options: {
    holding: { on: boolean };
    held: (() => void)[];
    writes: number;
    keep: "none" | "all";
    act?: () => Promise<unknown>;
  },
): Promise<boolean> {
  const { holding, held, writes, keep, act = () => disk.open({ founding: FOUNDING }) } = options;
  let finished = false;
  holding.on = true;
  act().then(() => {
    finished = true;
  });
  for (let write = 1; ; write++) {
    // Nothing here waits for more than promises: after a turn of the loop the next write is there, or none comes.
    await new Promise((resolve) => setImmediate(resolve));
    if (write >= writes || held.length === 0) break;
    for (const complete of held.splice(0)) complete();
  }
  disk.crash({ keep });
  held.length = 0;
  holding.on = false;
  return finished;
}

describe("a crash", () => {
  it.each([
    ["none", "none", 2],
    ["all", "all", 3],
    ["the one named", (write: number) => write === 5, 3],
    ["another one", (write: number) => write === 6, 2],
  ] as const)("keeps of the pending writes: %s", async (_, keep, last) => {
    const { disk, held, holding } = heldDisk();
    const [one, two, three, four] = historyOf({ count: 4 }).map(asAppend);
    const storage = await disk.open({ founding: FOUNDING });
    for (const record of [one, two]) await storage.journal.append(record ? [record] : []);
    expect(disk.writes).toBe(4);
    holding.on = true;
    let answered = 0;
    for (const record of [three, four]) {
      const count = () => answered++;
      storage.journal.append(record ? [record] : []).then(count, count);
    }
    expect(disk.pendingWrites).toBe(1);
    disk.crash({ keep });
    for (const complete of held) complete();
    await new Promise((resolve) => setImmediate(resolve));
    expect(answered).toBe(0);
    expect(() => storage.state.get("k")).toThrow(/crashed/);
    holding.on = false;
    const again = await disk.open({ founding: FOUNDING });
    expect(again.journal.summary.last).toBe(last);
  });

  it("during the founding is harmless, whatever it keeps", async () => {
    for (const keep of ["none", "all"] as const) {
      const { disk, holding } = heldDisk();
      holding.on = true;
      void disk.open({ founding: FOUNDING });
      await new Promise((resolve) => setImmediate(resolve));
      expect(disk.pendingWrites).toBe(1);
      disk.crash({ keep });
      holding.on = false;
      expect((await disk.open({ founding: FOUNDING })).journal.summary.last).toBe(0);
    }
  });
});

describe("a failed write", () => {
  it.each([
    ["EIO", "STORAGE_FAILED"],
    ["ENOSPC", "STORAGE_FULL"],
  ] as const)(
    "%s rejects with %s and every later append is refused without touching the disk",
    async (code, expected) => {
      const disk = new SimulatedDisk();
      const storage = await disk.open({ founding: FOUNDING });
      const [one, two, three, four] = historyOf({ count: 4 }).map((record) => [asAppend(record)]);
      await storage.journal.append(one ?? []);
      disk.failWrite({ nth: 1, code });
      const failing = codeOf(storage.journal.append(two ?? []));
      const waiting = codeOf(storage.journal.append(three ?? []));
      expect((await failing).code).toBe(expected);
      expect((await waiting).code).toBe("STORAGE_FAILED");
      const { writes } = disk;
      const refusal = await codeOf(storage.journal.append(four ?? []));
      expect(refusal.code).toBe("STORAGE_FAILED");
      expect(refusal.cause).toMatchObject({ code: expected });
      expect(disk.writes).toBe(writes);
      await storage.close();
      expect((await disk.open({ founding: FOUNDING })).journal.summary.last).toBe(1);
    },
  );

  it("may have reached the disk", async () => {
    const disk = new SimulatedDisk();
    const storage = await disk.open({ founding: FOUNDING });
    disk.failWrite({ nth: 1, code: "EIO", reachesDisk: true });
    await codeOf(storage.journal.append(historyOf({ count: 1 }).map(asAppend)));
    await storage.close();
    expect((await disk.open({ founding: FOUNDING })).journal.summary.last).toBe(1);
  });

  it("of the state poisons the state, not the journal", async () => {
    const disk = new SimulatedDisk();
    const storage = await disk.open({ founding: FOUNDING });
    const [record] = historyOf({ count: 1 });
    await storage.journal.append(record ? [asAppend(record)] : []);
    disk.failWrite({ nth: 1, code: "ENOSPC" });
    const group = (instance: number) => ({
      changes: new Map([["k", Buffer.from("v")]]),
      applied: { instance, digest: record?.digest ?? "", timestampMs: 0 },
    });
    expect((await codeOf(storage.state.write(group(1)))).code).toBe("STORAGE_FULL");
    expect((await codeOf(storage.state.write(group(2)))).code).toBe("STORAGE_FAILED");
    expect(storage.state.applied.instance).toBe(0);
    expect(storage.state.get("k")).toBeUndefined();
    await storage.journal.append([{ type: "started" }]);
  });
});

describe("the messages of a clean stop", () => {
  it.each([
    ["by the same process", false],
    ["after opening again", true],
  ])("leave the disk with the next control record, written %s", async (_, again) => {
    const disk = new SimulatedDisk();
    let storage = await disk.open({ founding: FOUNDING });
    const [one, two] = historyOf({ count: 2 });
    await storage.journal.append(one ? [asAppend(one)] : []);
    // A replacement in the same write: its number must stay listed when the control record goes.
    const replacement = one ? [asAppend({ ...one, regency: 1 })] : [];
    await storage.journal.append([...replacement, { type: "cleanStop", messages: [Buffer.alloc(10_000)] }]);
    await storage.journal.append(two ? [asAppend(two)] : []);
    if (again) {
      await storage.close();
      storage = await disk.open({ founding: FOUNDING });
    }
    const before = { records: disk.records("journal"), ...(await storage.diskUse()) };
    await storage.journal.append([{ type: "started" }]);
    const after = { records: disk.records("journal"), ...(await storage.diskUse()) };
    expect(after.records).toBe(before.records);
    expect(before.journalBytes - after.journalBytes).toBeGreaterThan(9_000);
    await storage.close();
    storage = await disk.open({ founding: FOUNDING });
    expect(storage.journal.summary).toMatchObject({ last: 2, cleanStop: null });
  });
});

describe("damage", () => {
  /** Eight instances, two regencies, one replacement and a clean stop; state in four groups. */
  async function written(): Promise<SimulatedDisk> {
    const disk = new SimulatedDisk();
    const storage = await disk.open({ founding: FOUNDING });
    const records = historyOf({ count: 8 });
    for (const record of records) {
      if (record.instance % 4 === 0) {
        await storage.journal.append([{ type: "regency", view: 0, regency: record.instance }]);
      }
      await storage.journal.append([asAppend(record)]);
      if (record.instance === 6) await storage.journal.append([asAppend({ ...record, regency: 4 })]);
      if (record.instance % 2 !== 0) continue;
      const { instance, digest } = record;
      const changes = new Map([[`k${instance}`, Buffer.from("value")]]);
      await storage.state.write({ changes, applied: { instance, digest, timestampMs: instance } });
    }
    await storage.journal.append([{ type: "cleanStop", messages: [Buffer.from("last words")] }]);
    await storage.close();
    return disk;
  }

  /** What is noticed in a store: at open, or when its entries are read. */
  async function noticed(disk: SimulatedDisk): Promise<readonly string[]> {
    const storage = await disk.open({ founding: FOUNDING });
    const stores: string[] = storage.repairs.map((repair) => repair.store);
    try {
      for await (const chunk of storage.state.chunks({ from: "", to: "\xff" })) {
        for (const [key] of chunk) storage.state.get(key);
      }
    } catch (error) {
      const { code, detail } = error as QuorateError;
      expect(code).toBe("STORAGE_DAMAGED");
      stores.push(String(detail.store));
    }
    await storage.close();
    return stores;
  }

  it.each(["journal", "state"] as const)(
    "of any byte of the %s is noticed, and costs the other nothing",
    async (store) => {
      const disk = await written();
      const before = disk.copy();
      for (let record = 0; record < disk.records(store); record++) {
        for (let byte = 0; byte < 300; byte += 3) {
          disk.flipByte({ store, record, byte, mask: 1 << (byte % 8) });
          expect(await noticed(disk)).toEqual([store]);
          disk.restore(before);
        }
      }
      expect(await noticed(disk)).toEqual([]);
    },
  );

  it("that loses any record of the journal but the newest is noticed", async () => {
    const disk = await written();
    const before = disk.copy();
    const newest: number[] = [];
    for (let record = 0; record < disk.records("journal"); record++) {
      const isNewest = disk.isNewest({ store: "journal", record });
      disk.dropRecord({ store: "journal", record });
      if (isNewest) {
        // The clean stop is the newest write: without it this is the journal as it was just before.
        expect((await disk.open({ founding: FOUNDING })).journal.summary.cleanStop).toBeNull();
        newest.push(record);
      } else expect([record, await noticed(disk)]).toEqual([record, ["journal"]]);
      disk.restore(before);
    }
    expect(newest).toHaveLength(1);
  });

  it("that loses where the state stands is noticed", async () => {
    const disk = await written();
    disk.dropRecord({ store: "state", record: 0 });
    expect(await noticed(disk)).toEqual(["state"]);
    expect(disk.aside).toEqual(["aside/state-1"]);
  });

  it("of both at once leaves a replica that has forgotten everything", async () => {
    const disk = await written();
    disk.flipByte({ store: "state", record: 0, byte: 3 });
    disk.flipByte({ store: "journal", record: 3, byte: 3 });
    const storage = await disk.open({ founding: FOUNDING });
    expect(storage.repairs.map(({ setAside }) => setAside)).toEqual(["aside/journal-1", "aside/state-1"]);
    expect(storage.journal.summary).toMatchObject({ base: { instance: 0 }, forgotten: { until: null, regency: 0 } });
  });

  it("of the journal while the marker is still there never founds it as new, wherever a crash falls", async () => {
    const disk = new SimulatedDisk();
    const marked = disk.copy();
    const holding = { on: false };
    for (let crashAt = 1; crashAt <= 6; crashAt++) {
      const held: (() => void)[] = [];
      const crashing = new SimulatedDisk({
        schedule: (complete) => (holding.on ? held.push(complete) : queueMicrotask(complete)),
      });
      crashing.restore(marked);
      const storage = await crashing.open({ founding: FOUNDING });
      await storage.journal.append([{ type: "regency", view: 0, regency: 3 }]);
      await storage.close();
      crashing.restore({ contents: { ...crashing.copy().contents, marked: true } });
      crashing.flipByte({ store: "journal", record: 1, byte: 30 });
      await crashAfter(crashing, { holding, held, writes: crashAt, keep: "all" });
      const { journal } = await crashing.open({ founding: FOUNDING });
      expect(journal.summary).toMatchObject({ forgotten: { until: null, regency: 0 }, cleanStop: null });
    }
  });

  it("of the state alone: without it the state is rebuilt from the start", async () => {
    const disk = await written();
    disk.loseState();
    const storage = await disk.open({ founding: FOUNDING });
    expect(storage.repairs).toMatchObject([{ store: "state", setAside: null }]);
    expect(storage.state.applied).toEqual({ instance: 0, digest: FOUNDING.genesis, timestampMs: 0 });
    expect(storage.journal.summary.last).toBe(8);
  });
});

describe("installing a state", () => {
  /** A disk with a journal to 8, a state at 4 and a completed state at 20, about to be installed. */
  async function ready() {
    const { disk, held, holding } = heldDisk();
    const storage = await disk.open({ founding: FOUNDING });
    await appendAll(storage, historyOf({ count: 8 }));
    await storage.state.write({ changes: new Map([["old", Buffer.from("old")]]), applied: appliedAt(4) });
    const staged = await storage.stage();
    await staged.add([chunk(1)]);
    await staged.complete(appliedAt(20));
    return { disk, held, holding, storage };
  }

  /** The old state under the old journal, or the new one under a journal that begins above it: nothing else. */
  async function oldOrNew(storage: Storage): Promise<"old" | "new"> {
    expect(storage.repairs).toEqual([]);
    const { summary } = storage.journal;
    expect(summary.forgotten).toBeNull();
    if (storage.state.applied.instance === 4) {
      expect(await stateOf(storage.state)).toEqual({ old: "old" });
      expect(summary).toMatchObject({ first: 1, last: 8, base: { instance: 0 } });
      return "old";
    }
    expect(storage.state.applied).toEqual(appliedAt(20));
    expect(Object.keys(await stateOf(storage.state))).toEqual(["1a", "1b", "1c"]);
    expect(summary).toMatchObject({ first: 0, last: 0, base: appliedBase(20), keptCertificate: { instance: 22 } });
    return "new";
  }

  function appliedBase(instance: number) {
    const { digest } = appliedAt(instance);
    return { instance, digest };
  }

  it.each(["none", "all"] as const)("is atomic: a crash at any write, of which is kept: %s", async (keep) => {
    const outcomes: string[] = [];
    for (let writes = 1; ; writes++) {
      const { disk, held, holding, storage } = await ready();
      const { certificate } = at(historyOf({ count: 22 }), 22);
      const act = () => storage.install(certificate);
      const finished = await crashAfter(disk, { holding, held, writes, keep, act });
      // And again while it is being opened, at any of its writes.
      for (let opening = 1; opening <= 6; opening++) {
        const copy = disk.copy();
        await crashAfter(disk, { holding, held, writes: opening, keep });
        outcomes.push(await oldOrNew(await disk.open({ founding: FOUNDING })));
        disk.restore(copy);
      }
      const opened = await disk.open({ founding: FOUNDING });
      outcomes.push(await oldOrNew(opened));
      expect(disk.holds("removed")).toBe(false);
      if (finished) break;
    }
    // The install note, the first of these writes, decides.
    expect(new Set(outcomes)).toEqual(new Set(keep === "all" ? ["new"] : ["old", "new"]));
    expect(outcomes.at(-1)).toBe("new");
  });

  it("under a journal that is damaged meanwhile keeps the new state and its certificate", async () => {
    const { disk, storage } = await ready();
    await storage.install(at(historyOf({ count: 22 }), 22).certificate);
    disk.dropRecord({ store: "journal", record: 4 });
    const again = await disk.open({ founding: FOUNDING });
    expect(again.repairs).toMatchObject([{ store: "journal", setAside: "aside/journal-1" }]);
    expect(again.state.applied).toEqual(appliedAt(20));
    expect(again.journal.summary).toMatchObject({
      base: appliedBase(20),
      keptCertificate: { instance: 22 },
      forgotten: { until: null, regency: 0 },
    });
  });

  it("whose staging is damaged half-way brings the old one back", async () => {
    const { disk, held, holding, storage } = await ready();
    const act = () => storage.install(null);
    await crashAfter(disk, { holding, held, writes: 2, keep: "all", act });
    expect([disk.holds("state"), disk.holds("removed"), disk.holds("staging")]).toEqual([false, true, true]);
    for (let record = 0; record < disk.records("staging"); record++)
      disk.flipByte({ store: "staging", record, byte: 1 });
    expect(await oldOrNew(await disk.open({ founding: FOUNDING }))).toBe("old");
  });
});

describe("a disk", () => {
  it("that is full refuses every write until it is mended, and what was refused is not there", async () => {
    const disk = new SimulatedDisk();
    let storage = await disk.open({ founding: FOUNDING });
    const records = historyOf({ count: 4 });
    await appendAll(storage, records.slice(0, 2));
    disk.fill();
    expect((await codeOf(appendAll(storage, records.slice(2)))).code).toBe("STORAGE_FULL");
    expect((await codeOf(storage.journal.truncate(2))).code).toBe("STORAGE_FAILED");
    await storage.close();
    storage = await disk.open({ founding: FOUNDING });
    expect((await codeOf(storage.journal.truncate(2))).code).toBe("STORAGE_FULL");
    expect(storage.journal.base.instance).toBe(0);
    const group = { changes: new Map([["a", Buffer.from("1")]]), applied: appliedAt(1) };
    expect((await codeOf(storage.state.write(group))).code).toBe("STORAGE_FULL");
    const staged = await storage.stage();
    expect((await codeOf(staged.add([chunk(1)]))).code).toBe("STORAGE_FULL");
    await storage.close();
    disk.mend();
    storage = await disk.open({ founding: FOUNDING });
    expect(storage.repairs).toEqual([]);
    expect(storage.journal.summary).toMatchObject({ first: 1, last: 2 });
    await appendAll(storage, records.slice(2));
  });

  it("rolled back to a copy stands exactly where it was, and the replica is gone", async () => {
    const disk = new SimulatedDisk();
    const storage = await disk.open({ founding: FOUNDING });
    const records = historyOf({ count: 9 });
    await appendAll(storage, records.slice(0, 5));
    await storage.state.write({ changes: new Map([["a", Buffer.from("1")]]), applied: appliedAt(3) });
    const copy = disk.copy();
    await appendAll(storage, records.slice(5));
    await storage.state.write({ changes: new Map([["a", null]]), applied: appliedAt(9) });
    for (let attempt = 0; attempt < 2; attempt++) {
      disk.restore(copy);
      expect(() => storage.state.get("a")).toThrow(/crashed/);
      const again = await disk.open({ founding: FOUNDING });
      expect([again.journal.summary.last, again.state.applied, again.repairs]).toEqual([5, appliedAt(3), []]);
      expect(await stateOf(again.state)).toEqual({ a: "1" });
      await appendAll(again, records.slice(5));
    }
  });
});

describe("a write lost in the middle (section 6)", () => {
  type Step = "append" | "replace" | "regency" | "truncate" | "stop" | "reopen" | "both";
  const steps = fc.array(
    fc.constantFrom<Step>("append", "append", "append", "replace", "regency", "truncate", "stop", "reopen", "both"),
    { minLength: 4, maxLength: 40 },
  );

  const records = historyOf({ count: 100, bytes: 10 });

  /** Runs the steps; the write `lose` (from 1) is acknowledged and lost. Says what the journal should hold then. */
  async function run(given: readonly Step[], lose: number | null) {
    const disk = new SimulatedDisk();
    let storage = await disk.open({ founding: FOUNDING });
    const founded = disk.writes;
    if (lose !== null) disk.loseWrite({ nth: lose });
    let last = 0;
    for (const step of given) {
      const next = asAppend(at(records, last + 1));
      const again: JournalRecord = { ...asAppend(at(records, Math.max(1, last))), regency: last } as JournalRecord;
      const { journal } = storage;
      if (step === "append") await journal.append([next]);
      else if (step === "both") await journal.append([{ type: "regency", view: 0, regency: last }, next]);
      else if (step === "replace" && last > 0) await journal.append([again]);
      else if (step === "regency") await journal.append([{ type: "regency", view: 0, regency: last }]);
      else if (step === "stop") await journal.append([{ type: "cleanStop", messages: [Buffer.from(`${last}`)] }]);
      else if (step === "truncate" && last > 1) await journal.truncate(last - (last % 3 === 0 ? 1 : 0));
      else if (step === "reopen") {
        await storage.close();
        storage = await disk.open({ founding: FOUNDING });
        if (storage.repairs.length > 0) break;
        // What was lost may have been the end: then it goes on from there.
        last = storage.journal.last;
      }
      if (step === "append" || step === "both") last++;
    }
    await storage.close();
    const writes = disk.writes - founded;
    const opened = storage.repairs.length > 0 ? storage : await disk.open({ founding: FOUNDING });
    return { writes, summary: opened.journal.summary, damaged: opened.repairs.length > 0 };
  }

  it("is noticed, unless nothing of it would be there any more", { timeout: 60_000 }, async () => {
    let found = 0;
    await fc.assert(
      fc.asyncProperty(steps, fc.nat(), async (given, pick) => {
        const sound = await run(given, null);
        expect(sound.damaged).toBe(false);
        fc.pre(sound.writes > 1);
        const lost = await run(given, 1 + (pick % (sound.writes - 1))).catch((error: QuorateError) => {
          if (error.code !== "STORAGE_DAMAGED") throw error;
          return { damaged: true, summary: null };
        });
        if (lost.damaged) found++;
        else if (!given.includes("reopen")) expect(lost.summary).toEqual(sound.summary);
      }),
      { numRuns: 400 },
    );
    expect(found).toBeGreaterThan(100);
  });
});
