/** Storage on LevelDB: the contract, and what only real directories can show (docs/data-format.md). */
import { spawn } from "node:child_process";
import { chmod, cp, mkdir, readdir, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Level } from "level";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import type { Storage } from "../../../storage/contract.ts";
import { FOUNDING_MARKER, openStorage, prepareDirectory } from "../../../storage/leveldb.ts";
import { encodeFounding, FOUNDING_KEY } from "../../../storage/records.ts";
import { storageContract } from "./contract.ts";
import { CLUSTER_ID, changesAt, fill, temporary } from "./directories.ts";
import { asAppend, codeOf, FOUNDING, historyOf, plain } from "./history.ts";

storageContract("LevelDB", async () => {
  const root = await temporary();
  const directory = join(root, "data");
  await prepareDirectory({ directory, clusterId: CLUSTER_ID });
  return {
    open: (founding = FOUNDING) => openStorage({ directory, founding }),
    lose: async () => {
      await rm(directory, { recursive: true });
    },
    dispose: () => rm(root, { recursive: true, force: true }),
  };
});

let root: string;
let directory: string;
beforeEach(async () => {
  root = await temporary();
  directory = join(root, "data");
});
afterEach(() => rm(root, { recursive: true, force: true }));

const open = (path = directory) => openStorage({ directory: path, founding: FOUNDING });
const prepare = () => prepareDirectory({ directory, clusterId: CLUSTER_ID });
const names = async (path = directory) => (await readdir(path)).sort();

async function withLevel(
  store: "journal" | "state",
  edit: (level: Level<Buffer, Buffer>) => Promise<void>,
  path = directory,
): Promise<void> {
  const level = new Level<Buffer, Buffer>(join(path, store), { keyEncoding: "buffer", valueEncoding: "buffer" });
  try {
    await edit(level);
  } finally {
    await level.close();
  }
}

/** Opens a directory whose journal nobody can find any more. */
async function forgottenJournal(): Promise<Storage> {
  const storage = await open();
  expect(storage.repairs).toMatchObject([{ store: "journal", setAside: null }]);
  expect(storage.repairs[0]?.reason).toContain("missing");
  expect(storage.journal.summary).toMatchObject({ forgotten: { until: null, regency: 0 }, cleanStop: null });
  return storage;
}

describe("founding", () => {
  it("takes the marker that prepareDirectory leaves, once", async () => {
    await prepare();
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    expect(await names()).toEqual([FOUNDING_MARKER]);
    await (await open()).close();
    expect(await names()).toEqual(["journal", "state"]);
    await rm(join(directory, "journal"), { recursive: true });
    await (await forgottenJournal()).close();
    expect(await names()).toEqual(["journal", "state"]);
  });

  it("makes the mode of an existing directory 0700 and refuses one that holds anything", async () => {
    await prepare();
    await rm(join(directory, FOUNDING_MARKER));
    await chmod(directory, 0o755);
    await prepare();
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    expect((await codeOf(prepare())).code).toBe("DIRECTORY_EXISTS");
  });

  it("says what is wrong when the directory cannot be made", async () => {
    await writeFile(join(root, "file"), "");
    const refusal = await codeOf(prepareDirectory({ directory: join(root, "file", "data"), clusterId: CLUSTER_ID }));
    expect(refusal.code).toBe("STORAGE_FAILED");
    expect(refusal.message).not.toContain("\n");
  });

  it("without a marker is of a journal that has forgotten: a missing or empty directory", async () => {
    await (await forgottenJournal()).close();
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    const storage = await open();
    expect([storage.repairs, storage.journal.summary.forgotten]).toEqual([[], { until: null, regency: 0 }]);
    await storage.close();
    await rm(directory, { recursive: true });
    await mkdir(directory);
    await (await forgottenJournal()).close();
  });

  it("with a marker beside a state is of a journal that has forgotten", async () => {
    await fill(directory, { perSession: 2, sessions: 1, bytes: 10 });
    await rm(join(directory, "journal"), { recursive: true });
    await writeFile(join(directory, FOUNDING_MARKER), JSON.stringify({ format: 1, clusterId: CLUSTER_ID }));
    const storage = await forgottenJournal();
    expect(storage.journal.base.instance).toBe(2);
    await storage.close();
    expect(await names()).toEqual(["journal", "state"]);
  });

  it("is repeated as forgotten when an otherwise empty journal lost its record of it", async () => {
    await prepare();
    await (await open()).close();
    await withLevel("journal", (level) => level.clear());
    await (await forgottenJournal()).close();
  });

  it("does not found a journal again that holds records, marker or not: it is set aside", async () => {
    await fill(directory, { perSession: 2, sessions: 1, bytes: 10 });
    for (let attempt = 1; attempt <= 2; attempt++) {
      await withLevel("journal", (level) => level.del(FOUNDING_KEY as Buffer));
      const storage = await open();
      expect(storage.repairs).toMatchObject([{ store: "journal", setAside: `aside/journal-${attempt}` }]);
      expect(storage.journal.summary).toMatchObject({ forgotten: { until: null, regency: 0 }, base: { instance: 2 } });
      await storage.close();
      expect(await names()).toEqual(["aside", "journal", "state"]);
      await writeFile(join(directory, FOUNDING_MARKER), JSON.stringify({ format: 1, clusterId: CLUSTER_ID }));
    }
    expect(await names(join(directory, "aside"))).toEqual(["journal-1", "journal-2"]);
  });

  it("leaves alone what lies there without CURRENT: LevelDB would delete it", async () => {
    await fill(directory, { perSession: 3, sessions: 3, bytes: 10 });
    const before = await names(join(directory, "journal"));
    await rm(join(directory, "journal", "CURRENT"));
    await (await open()).close();
    expect(await names(join(directory, "aside", "journal-1"))).toEqual(before.filter((name) => name !== "CURRENT"));
  });

  it("only deletes a marker that a crash left beside a founded journal", async () => {
    await fill(directory, { perSession: 2, sessions: 1, bytes: 10 });
    await writeFile(join(directory, FOUNDING_MARKER), JSON.stringify({ format: 1, clusterId: CLUSTER_ID }));
    const storage = await open();
    expect(storage.journal.summary.last).toBe(2);
    await storage.close();
    expect(await names()).toEqual(["journal", "state"]);
  });

  it("refuses the marker of another cluster, and one that is none", async () => {
    await prepareDirectory({ directory, clusterId: "00".repeat(32) });
    expect((await codeOf(open())).code).toBe("CLUSTER_MISMATCH");
    for (const content of ["", "{", "null", '{"format":1,"clusterId":"zz"}', '{"format":2}']) {
      await writeFile(join(directory, FOUNDING_MARKER), content);
      expect((await codeOf(open())).code).toBe("STORAGE_FAILED");
    }
    expect(await names()).toEqual([FOUNDING_MARKER]);
  });
});

describe("opening", () => {
  it("names the directory and what to do when another server has it", async () => {
    await prepare();
    const storage = await open();
    try {
      const refusal = await codeOf(open());
      expect(refusal.code).toBe("STORAGE_LOCKED");
      expect(refusal.message).toContain(directory);
      expect(refusal.message).not.toContain("\n");
    } finally {
      await storage.close();
    }
  });

  it("says that it cannot be read, not that it is damaged, where it links to a disk that is not there", async () => {
    await symlink(join(root, "unmounted", "data"), directory);
    await expect(open()).rejects.toMatchObject({ code: "STORAGE_FAILED", message: expect.stringContaining(directory) });
  });

  it("refuses another format version", async () => {
    await prepare();
    await (await open()).close();
    const value = Buffer.from(encodeFounding(nodeCrypto, FOUNDING)).subarray(16);
    value.writeUInt32BE(1, 0);
    const checksum = Buffer.from(nodeCrypto.sha256(Buffer.concat([FOUNDING_KEY, value])).slice(0, 16), "latin1");
    await withLevel("journal", (level) => level.put(FOUNDING_KEY as Buffer, Buffer.concat([checksum, value])));
    expect(await codeOf(open())).toMatchObject({ code: "STORAGE_FORMAT", detail: { found: 1, expected: 2 } });
  });

  it("notices any record lost from the middle of the journal", async () => {
    await fill(directory, { perSession: 12, sessions: 1, bytes: 10 });
    const keys: Buffer[] = [];
    await withLevel("journal", async (level) => {
      for await (const key of level.keys()) keys.push(key);
    });
    expect(keys.length).toBe(1 + 2 + 12);
    for (const [index, key] of keys.entries()) {
      const copy = join(root, "copy");
      await cp(directory, copy, { recursive: true });
      await withLevel("journal", (level) => level.del(key), copy);
      const storage = await open(copy);
      // The newest instance is no middle: here the state, which had executed it, gives the loss away.
      expect([index, storage.repairs.map(({ store }) => store)]).toEqual([index, ["journal"]]);
      await storage.close();
      await rm(copy, { recursive: true });
    }
  });

  it("notices a group lost from the middle of the state", async () => {
    await fill(directory, { perSession: 3, sessions: 1, bytes: 10 });
    const copy = join(root, "copy");
    await cp(directory, copy, { recursive: true });
    let leftBehind: [Buffer, Buffer] | undefined;
    await withLevel("state", async (level) => {
      for await (const entry of level.iterator({ limit: 1 })) leftBehind = entry;
    });
    const storage = await open();
    const [record] = historyOf({ count: 4, bytes: 10 }).slice(3);
    await storage.journal.append(record ? [asAppend(record)] : []);
    const applied = { instance: 4, digest: record?.digest ?? "", timestampMs: 4 };
    await storage.state.write({ changes: new Map(), applied });
    await storage.close();
    await withLevel("state", (level) => level.put(...(leftBehind as [Buffer, Buffer])));
    const repaired = await open();
    expect(repaired.repairs).toMatchObject([{ store: "state", setAside: "aside/state-1" }]);
    expect([repaired.state.applied.instance, repaired.journal.summary.last]).toEqual([0, 4]);
    await repaired.close();
  });

  it("rebuilds nothing by itself but starts the state anew when it is gone", async () => {
    await fill(directory, { perSession: 3, sessions: 2, bytes: 10 });
    await rm(join(directory, "state"), { recursive: true });
    const storage = await open();
    expect(storage.repairs).toMatchObject([{ store: "state", setAside: null }]);
    expect(storage.state.applied.instance).toBe(0);
    expect(storage.journal.summary.last).toBe(6);
    await storage.close();
  });

  it("sets a journal aside whose tables are gone", async () => {
    await fill(directory, { perSession: 3, sessions: 3, bytes: 10 });
    const table = (await names(join(directory, "journal"))).find((name) => name.endsWith(".ldb"));
    await rm(join(directory, "journal", table ?? ""));
    const storage = await open();
    expect(storage.repairs).toMatchObject([{ store: "journal", setAside: "aside/journal-1" }]);
    expect(storage.journal.summary.base.instance).toBe(9);
    await storage.close();
  });

  it("closes what it opened when it refuses", async () => {
    await fill(directory, { perSession: 3, sessions: 1, bytes: 10 });
    await codeOf(openStorage({ directory, founding: { ...FOUNDING, replica: 9 } }));
    await (await open()).close();
  });
});

describe("a directory that is deleted while it is open", () => {
  const DELETED = [
    ["the whole of it", ".", "journal"],
    ["the journal", "journal", "journal"],
    ["the state", "state", "state"],
    ["CURRENT of the state", "state/CURRENT", "state"],
  ] as const;

  it.each(DELETED)("%s: is noticed, and begun anew as if it had been missing", async (_, path, lost) => {
    await fill(directory, { perSession: 3, sessions: 2, bytes: 10 });
    const storage = await open();
    expect(await storage.lost()).toBeNull();
    await rm(join(directory, path), { recursive: true });
    expect(await storage.lost()).toBe(lost);
    expect(await storage.condemn(lost)).toBe(path === "state/CURRENT" ? "aside/state-1" : null);
    const anew = await open();
    expect(anew.repairs).toMatchObject([{ store: lost, setAside: null }]);
    expect(anew.journal.summary.forgotten === null).toBe(lost === "state");
    expect(await anew.lost()).toBeNull();
    await anew.close();
  });

  it("and replaced by a copy: it is the copy that is set aside", async () => {
    await fill(directory, { perSession: 3, sessions: 2, bytes: 10 });
    await cp(directory, join(root, "copy"), { recursive: true });
    const storage = await open();
    await rm(directory, { recursive: true });
    await rename(join(root, "copy"), directory);
    expect(await storage.lost()).toBe("journal");
    await storage.condemn("journal");
    expect(await names(join(directory, "aside"))).toEqual(["journal-1"]);
    const anew = await open();
    expect(anew.journal.summary).toMatchObject({ base: { instance: 6 }, forgotten: { until: null } });
    await anew.close();
  });

  it("a write that needs a new file finds the store damaged", async () => {
    await prepare();
    const storage = await open();
    await rm(directory, { recursive: true });
    const fillMemtable = async (): Promise<void> => {
      for (const record of historyOf({ count: 12, bytes: 3 * 1024 * 1024 })) {
        await storage.journal.append([asAppend(record)]);
      }
    };
    expect(await codeOf(fillMemtable())).toMatchObject({ code: "STORAGE_DAMAGED", detail: { store: "journal" } });
    await storage.condemn("journal");
  });
});

describe("durability", () => {
  it("syncs every write of both stores (section 6)", async () => {
    await prepare();
    const probe = new Level(join(root, "probe"));
    await probe.open();
    const chain = probe.batch();
    const puts = vi.spyOn(Level.prototype, "put");
    const batches = vi.spyOn(Object.getPrototypeOf(chain) as typeof chain, "write");
    try {
      const storage = await open();
      const [one, two] = historyOf({ count: 2 }).map(asAppend);
      await storage.journal.append(one ? [one] : []);
      await storage.journal.append(two ? [{ type: "regency", view: 0, regency: 1 }, two] : []);
      const applied = { instance: 1, digest: historyOf({ count: 1 })[0]?.digest ?? "", timestampMs: 1 };
      await storage.state.write({ changes: changesAt(1), applied });
      await storage.close();
      // The founding of the state and one instance; that of the journal, an instance with a regency, and a group.
      expect(puts.mock.calls.map((call) => (call as unknown[])[2])).toEqual([{ sync: true }, { sync: true }]);
      expect(batches.mock.calls).toEqual([[{ sync: true }], [{ sync: true }], [{ sync: true }]]);
    } finally {
      puts.mockRestore();
      batches.mockRestore();
      await chain.close();
      await probe.close();
    }
  });
});

describe("memtables", () => {
  it("of replicas that write the same are full at different moments", async () => {
    const mebibytes = historyOf({ count: 17, bytes: 1024 * 1024 });
    const writtenUntilFull = async (replica: number): Promise<number> => {
      const path = join(root, `replica ${replica}`);
      await prepareDirectory({ directory: path, clusterId: CLUSTER_ID });
      const storage = await openStorage({ directory: path, founding: { ...FOUNDING, replica } });
      const logs = async () => (await names(join(path, "journal"))).filter((name) => name.endsWith(".log")).join();
      try {
        const first = await logs();
        for (const record of mebibytes) {
          await storage.journal.append([asAppend(record)]);
          if ((await logs()) !== first) return record.instance;
        }
        return Number.POSITIVE_INFINITY;
      } finally {
        await storage.close();
      }
    };
    const moments: number[] = [];
    for (let replica = 0; replica < 8; replica++) moments.push(await writtenUntilFull(replica));
    expect(Math.max(...moments)).toBeLessThanOrEqual(17);
    expect(new Set(moments).size).toBe(8);
  });
});

describe("kill -9", () => {
  it("loses no acknowledged append", async () => {
    await prepare();
    const child = fileURLToPath(new URL("append-child.ts", import.meta.url));
    for (let round = 1; round <= 3; round++) {
      const process_ = spawn(process.execPath, ["--import", "tsx", child, directory], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const exited = new Promise((resolve) => process_.once("exit", (_, signal) => resolve(signal)));
      let acknowledged = 0;
      try {
        let lines = 0;
        for await (const line of createInterface({ input: process_.stdout })) {
          acknowledged = Math.max(acknowledged, Number(line));
          if (++lines === 150 * round) process_.kill("SIGKILL");
        }
      } finally {
        process_.kill("SIGKILL");
      }
      expect(await exited).toBe("SIGKILL");
      const storage = await open();
      try {
        const { last } = storage.journal.summary;
        expect(acknowledged).toBeGreaterThanOrEqual(150 * round);
        expect(last).toBeGreaterThanOrEqual(acknowledged);
        const found = await storage.journal.range({ from: 1, to: last, maxRecords: last, maxBytes: 1e9 });
        expect(found.map(plain)).toEqual(historyOf({ count: last, bytes: 300 }).map(plain));
        const { instance } = storage.state.applied;
        for (let key = 0; key < 7; key++) {
          const value = storage.state.get(`key ${key}`);
          if (value) expect(Number(Buffer.from(value))).toBeLessThanOrEqual(instance);
        }
      } finally {
        await storage.close();
      }
    }
  });
});
