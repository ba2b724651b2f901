/**
 * Real LevelDB directories as crashes and bad disks leave them (docs/data-format.md, "At open"): whatever the image, what opens
 * stands at an exact instance with exactly the right contents, or what is wrong is reported and set aside.
 */
import { cp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { QuorateError } from "../../../protocol/errors.ts";
import type { InstanceRecord } from "../../../storage/contract.ts";
import { openStorage, prepareDirectory } from "../../../storage/leveldb.ts";
import { CLUSTER_ID, changesAt, expectPrefix, fill, temporary } from "./directories.ts";
import { asAppend, FOUNDING, historyOf } from "./history.ts";

/** How many bytes are damaged; a longer run takes STORAGE_FLIPS from the environment, another one STORAGE_SEED. */
const FLIPS = Number(process.env.STORAGE_FLIPS ?? 50);
const SEED = Number(process.env.STORAGE_SEED ?? 1);

let root: string;
let directory: string;
let copy: string;
beforeEach(async () => {
  root = await temporary();
  directory = join(root, "data");
  copy = join(root, "copy");
});
afterEach(() => rm(root, { recursive: true, force: true }));

const open = (path: string) => openStorage({ directory: path, founding: FOUNDING });

/** A small deterministic generator, so that a failure can be replayed. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** What opening and reading notices: the stores at fault, none for a sound prefix. */
async function noticed(records: readonly InstanceRecord[]): Promise<string[]> {
  const storage = await open(copy);
  try {
    await expectPrefix(storage, records);
    return storage.repairs.map(({ store }) => store);
  } catch (error) {
    if (!(error instanceof QuorateError) || error.code !== "STORAGE_DAMAGED") throw error;
    return [...storage.repairs.map(({ store }) => store), String(error.detail.store)];
  } finally {
    await storage.close();
  }
}

/** Files of both stores that LevelDB reads. */
async function filesOf(pattern: RegExp): Promise<string[]> {
  const files: string[] = [];
  for (const store of ["journal", "state"]) {
    const names = (await readdir(join(directory, store))).sort();
    for (const name of names) if (pattern.test(name)) files.push(join(store, name));
  }
  return files;
}

async function damagedCopy(name: string, damage: (bytes: Buffer) => void): Promise<void> {
  await cp(directory, copy, { recursive: true });
  const bytes = await readFile(join(copy, name));
  if (bytes.length > 0) damage(bytes);
  await writeFile(join(copy, name), bytes);
}

describe(`a damaged byte, seed ${SEED}`, () => {
  it.each([
    ["in a log that is whole", undefined],
    ["in a log that was truncated", 25],
  ])("is noticed, or what opens is a consistent prefix: %s", { timeout: 1_200_000 }, async (_, keep) => {
    const size = { perSession: 60, sessions: 2, bytes: 900 };
    const records = await fill(directory, keep ? { ...size, keep } : size);
    const random = generator(SEED);
    const files = await filesOf(/\.(ldb|log)$|^MANIFEST|^CURRENT$/);
    expect(files.filter((name) => name.endsWith(".ldb")).length).toBeGreaterThanOrEqual(2);
    const outcomes = { noticed: 0, prefix: 0 };
    for (let flip = 0; flip < FLIPS; flip++) {
      const name = files[flip % files.length] as string;
      let at = 0;
      await damagedCopy(name, (bytes) => {
        at = random(bytes.length);
        bytes[at] = (bytes[at] as number) ^ (1 << random(8));
      });
      try {
        const stores = await noticed(records);
        outcomes[stores.length > 0 ? "noticed" : "prefix"]++;
        // LevelDB rewrites its log when it opens a directory, and must not launder the damage; what was repaired is sound.
        const again = (await noticed(records)).filter((store) => !stores.includes(store));
        expect(again).toEqual([]);
      } catch (error) {
        throw new Error(`byte ${at} of ${name}, flip ${flip} of seed ${SEED}`, { cause: error });
      }
      await rm(copy, { recursive: true });
    }
    expect(outcomes.noticed).toBeGreaterThan(0);
    expect(outcomes.prefix).toBeGreaterThan(0);
  });

  it("in a table of the state makes no entry vanish: its blocks are checked", async () => {
    await fill(directory, { perSession: 20, sessions: 2, bytes: 10 });
    const tables = (await filesOf(/\.ldb$/)).filter((name) => name.startsWith("state"));
    let checked = 0;
    for (const table of tables) {
      const { length } = await readFile(join(directory, table));
      for (let at = 0; at < length - 48; at += Math.ceil(length / 40)) {
        await damagedCopy(table, (bytes) => {
          bytes[at] = (bytes[at] as number) ^ 1;
        });
        const storage = await open(copy);
        expect(storage.repairs).toMatchObject([{ store: "state", setAside: "aside/state-1" }]);
        expect(storage.journal.summary).toMatchObject({ last: 40, forgotten: null });
        await storage.close();
        await rm(copy, { recursive: true });
        checked++;
      }
    }
    expect(checked).toBeGreaterThan(40);
  });
});

describe(`a log cut off anywhere, seed ${SEED}`, () => {
  it.each(["journal", "state"])(
    "of the %s leaves an exact instance, or is noticed",
    { timeout: 60_000 },
    async (store) => {
      const records = await fill(directory, { perSession: 40, sessions: 2, bytes: 300 });
      const random = generator(SEED + 7);
      const [log] = (await filesOf(/\.log$/)).filter((name) => name.startsWith(store));
      const { length } = await readFile(join(directory, log as string));
      expect(length).toBeGreaterThan(1000);
      for (let cut = 0; cut < 40; cut++) {
        const at = random(length);
        await cp(directory, copy, { recursive: true });
        await truncate(join(copy, log as string), at);
        const stores = await noticed(records);
        // The state stands behind a journal that lost nothing. A journal that lost its end is behind the state.
        expect([at, stores]).toEqual([at, store === "journal" ? ["journal"] : []]);
        await rm(copy, { recursive: true });
      }
    },
  );
});

describe("a directory copied while it is written", () => {
  it("opens at exact instances, or reports what is not sound", { timeout: 60_000 }, async () => {
    await prepareDirectory({ directory, clusterId: CLUSTER_ID });
    const records = historyOf({ count: 3_000, bytes: 3_000 });
    const storage = await open(directory);
    let stopped = false;
    const writing = (async () => {
      for (const record of records) {
        if (stopped) return;
        const { instance, digest } = record;
        const regency = { type: "regency", view: 0, regency: instance } as const;
        await storage.journal.append(instance % 5 === 0 ? [regency, asAppend(record)] : [asAppend(record)]);
        const applied = { instance, digest, timestampMs: instance };
        await storage.state.write({ changes: changesAt(instance), applied });
        if (instance % 100 === 0) await storage.journal.truncate(instance - 40);
      }
    })();
    let sound = 0;
    for (let image = 0; image < 12; image++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      // The state first: it is never ahead of its journal then. Files that vanish meanwhile are not in the image.
      for (const store of ["state", "journal"]) {
        await cp(join(directory, store), join(copy, store), { recursive: true, force: true }).catch((cause) => {
          if (cause.code !== "ENOENT") throw cause;
        });
      }
      if ((await noticed(records)).length === 0) sound++;
      await rm(copy, { recursive: true });
    }
    stopped = true;
    await writing;
    await storage.close();
    expect(sound).toBeGreaterThan(0);
  });
});
