/** Storage on LevelDB: the contract, and what only real directories can show (docs/data-format.md). */
import { spawn } from "node:child_process";
import { chmod, cp, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Level } from "level";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { hex } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { QuorateError } from "../../../protocol/errors.ts";
import type { InstanceRecord } from "../../../storage/contract.ts";
import { FOUNDING_MARKER, openStorage, prepareDirectory } from "../../../storage/leveldb.ts";
import { encodeFounding, FOUNDING_KEY } from "../../../storage/records.ts";
import { codeOf, storageContract } from "./contract.ts";
import { asAppend, FOUNDING, historyOf, plain } from "./history.ts";

const CLUSTER_ID = hex(FOUNDING.cluster);

async function temporary(): Promise<string> {
  return mkdtemp(join(tmpdir(), "quorate-storage-"));
}

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

/** Appends and closes `sessions` times, so that old records lie in tables and the newest in a log. */
async function fill(options: { perSession: number; sessions: number; bytes: number }): Promise<InstanceRecord[]> {
  const { perSession, sessions, bytes } = options;
  await prepare();
  const records = historyOf({ count: perSession * sessions, bytes });
  for (let session = 0; session < sessions; session++) {
    const storage = await open();
    for (const record of records.slice(session * perSession, (session + 1) * perSession)) {
      const { instance, digest } = record;
      const regency = { type: "regency", view: 0, regency: instance } as const;
      await storage.journal.append(instance % 5 === 0 ? [regency, asAppend(record)] : [asAppend(record)]);
      await storage.state.write({ changes: changesAt(instance), applied: { instance, digest, timestampMs: instance } });
    }
    await storage.close();
  }
  return records;
}

/** Every instance adds a key, overwrites one, and deletes one. */
function changesAt(instance: number): Map<string, Uint8Array | null> {
  return new Map<string, Uint8Array | null>([
    [`key ${instance}`, Buffer.alloc(200, String(instance))],
    ["newest", Buffer.from(String(instance))],
    [`key ${instance - 3}`, null],
  ]);
}

function stateAt(instance: number): Map<string, string> {
  const state = new Map<string, string>();
  for (let each = 1; each <= instance; each++) {
    for (const [key, value] of changesAt(each)) {
      if (value) state.set(key, Buffer.from(value).toString("latin1"));
      else state.delete(key);
    }
  }
  return new Map([...state].sort(([a], [b]) => (a < b ? -1 : 1)));
}

describe("founding", () => {
  it("takes the marker that prepareDirectory leaves, once", async () => {
    await prepare();
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    expect(await names()).toEqual([FOUNDING_MARKER]);
    await (await open()).close();
    expect(await names()).toEqual(["journal", "state"]);
    await rm(join(directory, "journal"), { recursive: true });
    expect((await codeOf(open())).code).toBe("STORAGE_UNFOUNDED");
    expect(await names()).toEqual(["state"]);
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

  it("needs a marker: a missing or empty directory is refused and left as it is", async () => {
    expect((await codeOf(open())).code).toBe("STORAGE_UNFOUNDED");
    expect(await names(root)).toEqual([]);
    await prepare();
    await rm(join(directory, FOUNDING_MARKER));
    expect((await codeOf(open())).code).toBe("STORAGE_UNFOUNDED");
    expect(await names()).toEqual([]);
  });

  it("refuses a founding record lost from an otherwise empty journal", async () => {
    await prepare();
    await (await open()).close();
    await withLevel("journal", (level) => level.del(FOUNDING_KEY as Buffer));
    expect((await codeOf(open())).code).toBe("STORAGE_UNFOUNDED");
  });

  it("does not found a journal again that holds records, marker or not", async () => {
    await fill({ perSession: 2, sessions: 1, bytes: 10 });
    await withLevel("journal", (level) => level.del(FOUNDING_KEY as Buffer));
    expect((await codeOf(open())).code).toBe("STORAGE_DAMAGED");
    await writeFile(join(directory, FOUNDING_MARKER), JSON.stringify({ format: 1, clusterId: CLUSTER_ID }));
    expect((await codeOf(open())).code).toBe("STORAGE_DAMAGED");
    expect(await names()).toContain(FOUNDING_MARKER);
  });

  it("only deletes a marker that a crash left beside a founded journal", async () => {
    await fill({ perSession: 2, sessions: 1, bytes: 10 });
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
      expect((await codeOf(open())).code).toBe("STORAGE_DAMAGED");
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

  it("refuses another format version", async () => {
    await prepare();
    await (await open()).close();
    const value = Buffer.from(encodeFounding(nodeCrypto, FOUNDING)).subarray(16);
    value.writeUInt32BE(2, 0);
    const checksum = Buffer.from(nodeCrypto.sha256(Buffer.concat([FOUNDING_KEY, value])).slice(0, 16), "latin1");
    await withLevel("journal", (level) => level.put(FOUNDING_KEY as Buffer, Buffer.concat([checksum, value])));
    expect(await codeOf(open())).toMatchObject({ code: "STORAGE_FORMAT", detail: { found: 2, expected: 1 } });
  });

  it("notices any record lost from the middle of the journal", async () => {
    await fill({ perSession: 12, sessions: 1, bytes: 10 });
    const keys: Buffer[] = [];
    await withLevel("journal", async (level) => {
      for await (const key of level.keys()) keys.push(key);
    });
    expect(keys.length).toBe(1 + 2 + 12);
    for (const [index, key] of keys.entries()) {
      const copy = join(root, "copy");
      await cp(directory, copy, { recursive: true });
      await withLevel("journal", (level) => level.del(key), copy);
      const refusal = await codeOf(open(copy));
      // The newest instance is no middle: here the state, which had executed it, gives the loss away.
      expect([index, refusal.code]).toEqual([index, "STORAGE_DAMAGED"]);
      await rm(copy, { recursive: true });
    }
  });

  it("notices a group lost from the middle of the state", async () => {
    await fill({ perSession: 3, sessions: 1, bytes: 10 });
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
    expect(await codeOf(open())).toMatchObject({ code: "STORAGE_DAMAGED", detail: { store: "state" } });
  });

  it("rebuilds nothing by itself but starts the state anew when it was set aside", async () => {
    await fill({ perSession: 3, sessions: 2, bytes: 10 });
    await rm(join(directory, "state"), { recursive: true });
    const storage = await open();
    expect(storage.state.applied.instance).toBe(0);
    expect(storage.journal.summary.last).toBe(6);
    await storage.close();
  });

  it("refuses a journal whose tables are gone", async () => {
    await fill({ perSession: 3, sessions: 3, bytes: 10 });
    const table = (await names(join(directory, "journal"))).find((name) => name.endsWith(".ldb"));
    await rm(join(directory, "journal", table ?? ""));
    expect(await codeOf(open())).toMatchObject({ code: "STORAGE_DAMAGED", detail: { store: "journal" } });
  });

  it("closes what it opened when it refuses", async () => {
    await fill({ perSession: 3, sessions: 1, bytes: 10 });
    await codeOf(openStorage({ directory, founding: { ...FOUNDING, replica: 9 } }));
    await (await open()).close();
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
      // The foundings of both stores and one instance; an instance with a regency and a group.
      expect(puts.mock.calls.map((call) => (call as unknown[])[2])).toEqual([
        { sync: true },
        { sync: true },
        { sync: true },
      ]);
      expect(batches.mock.calls).toEqual([[{ sync: true }], [{ sync: true }]]);
    } finally {
      puts.mockRestore();
      batches.mockRestore();
      await chain.close();
      await probe.close();
    }
  });
});

/** A small deterministic generator, so that a failure can be replayed. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** How many bytes are damaged; a longer run takes STORAGE_FLIPS from the environment. */
const FLIPS = Number(process.env.STORAGE_FLIPS ?? 80);

describe("a damaged byte", () => {
  async function consistentPrefix(copy: string, records: readonly InstanceRecord[]): Promise<void> {
    const storage = await open(copy);
    try {
      const { last, regency, newestAccepted } = storage.journal.summary;
      const found = await storage.journal.range({ from: 1, to: last, maxRecords: last, maxBytes: 1e9 });
      expect(found.map(plain)).toEqual(records.slice(0, last).map(plain));
      expect(plain(newestAccepted)).toEqual(plain(records[last - 1] ?? null));
      expect(regency.regency).toBe(last - (last % 5));
      const state = new Map<string, string>();
      for await (const [key, value] of storage.state.entries({ from: "", to: "\xff" })) {
        state.set(key, Buffer.from(value).toString("latin1"));
        expect(Buffer.from(storage.state.get(key) ?? "missing").toString("latin1")).toBe(state.get(key));
      }
      expect(state).toEqual(stateAt(storage.state.applied.instance));
    } finally {
      await storage.close();
    }
  }

  it("is noticed, or what opens is a consistent prefix", { timeout: 1_200_000 }, async () => {
    const records = await fill({ perSession: 60, sessions: 2, bytes: 900 });
    const random = generator(Number(process.env.STORAGE_SEED ?? 1));
    const files: string[] = [];
    for (const store of ["journal", "state"]) {
      const all = await names(join(directory, store));
      for (const name of all) if (/\.(ldb|log)$/.test(name)) files.push(join(store, name));
    }
    expect(files.filter((name) => name.endsWith(".ldb")).length).toBeGreaterThanOrEqual(2);
    const outcomes = { noticed: 0, prefix: 0 };
    for (let flip = 0; flip < FLIPS; flip++) {
      const copy = join(root, "copy");
      await cp(directory, copy, { recursive: true });
      const name = files[flip % files.length] as string;
      const bytes = await readFile(join(copy, name));
      if (bytes.length > 0) {
        const at = random(bytes.length);
        bytes[at] = (bytes[at] as number) ^ (1 << random(8));
        await writeFile(join(copy, name), bytes);
      }
      // Twice: LevelDB rewrites its log when it opens a directory, and must not launder the damage.
      for (let attempt = 0; attempt < 2; attempt++) {
        try {
          await consistentPrefix(copy, records);
          outcomes.prefix++;
        } catch (error) {
          if (!(error instanceof QuorateError) || error.code !== "STORAGE_DAMAGED") throw error;
          outcomes.noticed++;
        }
      }
      await rm(copy, { recursive: true });
    }
    expect(outcomes.noticed).toBeGreaterThan(0);
    expect(outcomes.prefix).toBeGreaterThan(0);
  });

  it("in a table of the state makes no entry vanish: its blocks are checked", async () => {
    await fill({ perSession: 20, sessions: 2, bytes: 10 });
    const state = join(directory, "state");
    const tables = (await names(state)).filter((name) => name.endsWith(".ldb"));
    let checked = 0;
    for (const table of tables) {
      const bytes = await readFile(join(state, table));
      for (let at = 0; at < bytes.length - 48; at += Math.ceil(bytes.length / 40)) {
        const copy = join(root, "copy");
        await cp(directory, copy, { recursive: true });
        const flipped = Buffer.from(bytes);
        flipped[at] = (flipped[at] as number) ^ 1;
        await writeFile(join(copy, "state", table), flipped);
        expect((await codeOf(open(copy))).code).toBe("STORAGE_DAMAGED");
        await rm(copy, { recursive: true });
        checked++;
      }
    }
    expect(checked).toBeGreaterThan(40);
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
