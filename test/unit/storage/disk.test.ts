/** The simulated disk: the contract, and the faults it is there for. */
import { describe, expect, it } from "vitest";
import { SimulatedDisk } from "../../simulation/disk.ts";
import { codeOf, storageContract } from "./contract.ts";
import { asAppend, FOUNDING, historyOf } from "./history.ts";

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

  async function openedAndRead(disk: SimulatedDisk): Promise<void> {
    const storage = await disk.open({ founding: FOUNDING });
    try {
      for await (const [key] of storage.state.entries({ from: "", to: "\xff" })) storage.state.get(key);
    } finally {
      await storage.close();
    }
  }

  it.each(["journal", "state"] as const)("of any byte of the %s is noticed", async (store) => {
    const disk = await written();
    for (let record = 0; record < disk.records(store); record++) {
      for (let byte = 0; byte < 300; byte++) {
        const mask = 1 << (byte % 8);
        disk.flipByte({ store, record, byte, mask });
        expect((await codeOf(openedAndRead(disk))).code).toBe("STORAGE_DAMAGED");
        disk.flipByte({ store, record, byte, mask });
      }
    }
    await openedAndRead(disk);
  });

  it("that loses any record of the journal but the newest is noticed", async () => {
    const count = (await written()).records("journal");
    for (let record = 0; record < count; record++) {
      const disk = await written();
      disk.dropRecord({ store: "journal", record });
      // The clean stop is the newest write: without it this is the journal as it was just before.
      if (record === count - 9) expect((await disk.open({ founding: FOUNDING })).journal.summary.cleanStop).toBeNull();
      else expect((await codeOf(disk.open({ founding: FOUNDING }))).code).toBe("STORAGE_DAMAGED");
    }
  });

  it("that loses where the state stands is noticed", async () => {
    const disk = await written();
    disk.dropRecord({ store: "state", record: 0 });
    expect(await codeOf(disk.open({ founding: FOUNDING }))).toMatchObject({
      code: "STORAGE_DAMAGED",
      detail: { store: "state" },
    });
  });

  it("of the state alone: without it the state is rebuilt from the start", async () => {
    const disk = await written();
    disk.loseState();
    const storage = await disk.open({ founding: FOUNDING });
    expect(storage.state.applied).toEqual({ instance: 0, digest: FOUNDING.genesis, timestampMs: 0 });
    expect(storage.journal.summary.last).toBe(8);
  });
});
