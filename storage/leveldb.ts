/**
 * Durable storage on LevelDB: a data directory with two stores, because LevelDB may lose the middle of one that is not
 * synced at every write (docs/protocol.md section 6; docs/data-format.md). LevelDB's own lock keeps a second server out.
 */
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import type { ClassicLevel, IteratorOptions, Snapshot } from "classic-level";
import { Level } from "level";
import { fromHex, latin1 } from "../protocol/bytes.ts";
import { nodeCrypto } from "../protocol/crypto/node.ts";
import { QuorateError } from "../protocol/errors.ts";
import {
  type ByteSnapshot,
  type ByteStore,
  type Change,
  damaged,
  type Entry,
  failed,
  type KeyRange,
  type StoreName,
} from "./byte-store.ts";
import type { OpenStorage } from "./contract.ts";
import type { Directory, Place } from "./directory.ts";
import { openDirectory } from "./open.ts";
import { recoveredIn } from "./recovered.ts";
import { damagedTables } from "./tables.ts";

/** The file that `kv init` leaves in a data directory: it allows the founding of the journal, once. */
export const FOUNDING_MARKER = "founding.json";

const MIB = 1024 * 1024;
/** Read at a stretch: by passes over a whole store, and of snapshots, while the replica serves. */
const CHUNK = { entries: 4_096, bytes: 1 * MIB } as const;
const SNAPSHOT_CHUNK = { entries: 512, bytes: MIB / 4 } as const;
/** Where damaged stores go. */
const ASIDE = "aside";

/**
 * Nothing is compressed: requests are opaque, CPU is scarcer than disk, and `tables.ts` can check blocks as they lie.
 * The journal is written in key order, so large tables are only ever moved; it is read rarely, hence almost no cache. What is
 * staged is read in whole passes, which no cache helps.
 */
const OPTIONS = {
  journal: { compression: false, maxFileSize: 32 * MIB, cacheSize: 1 * MIB },
  state: { compression: false, maxFileSize: 8 * MIB, cacheSize: 32 * MIB },
  staging: { compression: false, maxFileSize: 8 * MIB, cacheSize: 1 * MIB },
} as const;

/**
 * Replicas write the same, so memtables of one size would be full, and written out, at the same moment everywhere, and no quorum
 * would be without it. Eight replicas in a row have eight sizes, neighbours far apart: 16, 11, 14, 9, 12, 15, 10, 13 MiB.
 */
const MEMTABLE_MIB_MAX = 16;
const MEMTABLE_SIZES = 8;
const MEMTABLE_STEP = 5;

function memtableBytes(replica: number): number {
  return (MEMTABLE_MIB_MAX - ((replica * MEMTABLE_STEP) % MEMTABLE_SIZES)) * MIB;
}

/** Changes put into a batch at a stretch, about a millisecond; a deletion counts a quarter of one. */
const SLICE_CHANGES = 256;
const DELETION = 1 / 4;

const SYNCED = { sync: true } as const;

/** Opens the data directory of a replica. @see OpenStorage for what is thrown */
export const openStorage: OpenStorage = async ({ directory, founding }) => {
  const { stores: recovered, reported } = await recoveredIn(directory);
  const opened = new DataDirectory(directory, memtableBytes(founding.replica));
  const storage = await openDirectory(opened, { founding, crypto: nodeCrypto, recovered });
  await reported();
  return storage;
};

/**
 * Creates a data directory (mode 0700) that a server may found once, for the cluster with this id (64 hexadecimal digits).
 * @throws QuorateError DIRECTORY_EXISTS when it holds anything, STORAGE_FAILED
 */
export async function prepareDirectory(options: { directory: string; clusterId: string }): Promise<void> {
  const { directory, clusterId } = options;
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await chmod(directory, 0o700);
    if ((await readdir(directory)).length > 0) {
      throw new QuorateError("DIRECTORY_EXISTS", `${directory} is not empty; choose another data directory`, {
        directory,
      });
    }
    const file = await open(join(directory, FOUNDING_MARKER), "wx", 0o600);
    try {
      await file.writeFile(`${JSON.stringify({ format: 1, clusterId })}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await syncDirectory(directory);
  } catch (cause) {
    if (cause instanceof QuorateError) throw cause;
    throw new QuorateError(
      "STORAGE_FAILED",
      `the data directory ${directory} cannot be prepared: ${textOf(cause)}`,
      { directory },
      cause,
    );
  }
}

function textOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

function isMissing(cause: unknown): boolean {
  return (cause as NodeJS.ErrnoException).code === "ENOENT";
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    if (isMissing(cause)) return false;
    throw cause;
  }
}

/** Of all files in a directory and below; 0 when there is none. Files may come and go meanwhile. */
async function sizeBytes(path: string): Promise<number> {
  let bytes = 0;
  try {
    for (const entry of await readdir(path, { withFileTypes: true })) {
      const below = join(path, entry.name);
      bytes += entry.isDirectory() ? await sizeBytes(below) : (await stat(below).catch(orMissing)).size;
    }
  } catch (cause) {
    if (!isMissing(cause)) throw cause;
  }
  return bytes;
}

function orMissing(cause: unknown): { size: number } {
  if (isMissing(cause)) return { size: 0 };
  throw cause;
}

class DataDirectory implements Directory {
  readonly #path: string;
  readonly #memtableBytes: number;

  constructor(path: string, memtableBytes: number) {
    this.#path = path;
    this.#memtableBytes = memtableBytes;
  }

  async marker() {
    let text: string;
    try {
      text = await readFile(join(this.#path, FOUNDING_MARKER), "utf8");
    } catch (cause) {
      if (isMissing(cause)) return null;
      throw this.#unreadable(cause);
    }
    try {
      const { format, clusterId } = JSON.parse(text) as { format?: unknown; clusterId?: unknown };
      if (format === 1 && typeof clusterId === "string") return { cluster: latin1(fromHex(clusterId)) };
    } catch {
      // Reported below like any other content that is not a marker.
    }
    throw new QuorateError(
      "STORAGE_FAILED",
      `${join(this.#path, FOUNDING_MARKER)} is not what \`kv init\` writes; if this is the right data directory, delete it`,
      { file: FOUNDING_MARKER },
    );
  }

  async removeMarker(): Promise<void> {
    await this.#try("written", async () => {
      await rm(join(this.#path, FOUNDING_MARKER), { force: true });
      await syncDirectory(this.#path);
    });
  }

  exists(place: Place): Promise<boolean> {
    return this.#try("read", () => exists(join(this.#path, place)));
  }

  async open(place: "journal" | "state" | "staging"): Promise<ByteStore> {
    const path = join(this.#path, place);
    await this.#try("written", () => this.#make());
    const suspects = await this.#try("read", () => damagedTables(path));
    // CURRENT names what a LevelDB directory consists of. Without it LevelDB begins anew, and deletes what is there.
    if (!(await this.#try("read", () => exists(join(path, "CURRENT")))) && (await this.#holdsData(path))) {
      throw damaged(place, "its file CURRENT is missing");
    }
    const opened = await LevelStore.open(place, path, this.#memtableBytes);
    try {
      await this.#try("written", () => syncDirectory(this.#path));
    } catch (error) {
      await opened.close();
      throw error;
    }
    const live = opened.liveTables().find((table) => suspects.has(table));
    if (live === undefined) return opened;
    await opened.close();
    throw damaged(place, `a block of its table ${live} does not match its checksum`, { table: live });
  }

  /** That a directory cannot be made where nothing is, is no damage: a link to a disk that is not mounted. */
  async #make(): Promise<void> {
    try {
      await mkdir(this.#path, { recursive: true, mode: 0o700 });
    } catch (cause) {
      throw isMissing(cause) ? this.#unreadable(cause) : cause;
    }
  }

  move(from: Place, to: Place): Promise<void> {
    return this.#rename(from, to);
  }

  async setAside(place: "journal" | "state"): Promise<string | null> {
    if (!(await this.exists(place))) return null;
    const aside = join(this.#path, ASIDE);
    const name = await this.#try("written", async () => {
      await mkdir(aside, { recursive: true, mode: 0o700 });
      const taken = (await readdir(aside)).map((each) => Number(new RegExp(`^${place}-(\\d+)$`).exec(each)?.[1] ?? 0));
      return join(ASIDE, `${place}-${Math.max(0, ...taken) + 1}`);
    });
    await this.#rename(place, name);
    await this.#try("written", () => syncDirectory(aside));
    return name;
  }

  async remove(place: "staging" | "removed"): Promise<void> {
    await this.#try("written", () => rm(join(this.#path, place), { recursive: true, force: true }));
  }

  sizeBytes(what: "staging" | "aside"): Promise<number> {
    return this.#try("read", () => sizeBytes(join(this.#path, what)));
  }

  #holdsData(path: string): Promise<boolean> {
    return this.#try("read", async () => {
      if (!(await exists(path))) return false;
      return (await readdir(path)).some((name) => /\.(ldb|log)$/.test(name));
    });
  }

  async #rename(from: string, to: string): Promise<void> {
    await this.#try("written", async () => {
      await rename(join(this.#path, from), join(this.#path, to));
      await syncDirectory(this.#path);
    });
  }

  async #try<T>(what: "read" | "written", action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (cause) {
      if (cause instanceof QuorateError) throw cause;
      if (what === "read") throw this.#unreadable(cause);
      throw accessError("state", "could not be written", cause);
    }
  }

  #unreadable(cause: unknown): QuorateError {
    return new QuorateError(
      "STORAGE_FAILED",
      `the data directory ${this.#path} cannot be read: ${textOf(cause)}`,
      { directory: this.#path },
      cause,
    );
  }
}

/** Which directory lies at a path; null: none. */
async function inodeOf(path: string): Promise<number | null> {
  try {
    return (await stat(path)).ino;
  } catch (cause) {
    if (isMissing(cause)) return null;
    throw cause;
  }
}

class LevelStore implements ByteStore {
  readonly #name: StoreName;
  readonly #path: string;
  readonly #level: ClassicLevel<Buffer, Buffer>;
  readonly #inode: number | null;

  private constructor(
    name: StoreName,
    options: { path: string; level: ClassicLevel<Buffer, Buffer>; inode: number | null },
  ) {
    this.#name = name;
    this.#path = options.path;
    this.#level = options.level;
    this.#inode = options.inode;
  }

  static async open(name: StoreName, path: string, memtableBytes: number): Promise<LevelStore> {
    // On Node a Level is a ClassicLevel; its own types leave out `getSync`.
    const level = new Level<Buffer, Buffer>(path, {
      ...OPTIONS[name],
      writeBufferSize: memtableBytes,
      keyEncoding: "buffer",
      valueEncoding: "buffer",
    }) as unknown as ClassicLevel<Buffer, Buffer>;
    try {
      await level.open();
    } catch (cause) {
      throw openError(name, path, cause);
    }
    try {
      return new LevelStore(name, { path, level, inode: await inodeOf(path) });
    } catch (cause) {
      await level.close();
      throw failed(name, "could not be looked at", cause);
    }
  }

  get(key: Uint8Array): Uint8Array | undefined {
    try {
      return this.#level.getSync(key as Buffer);
    } catch (cause) {
      throw accessError(this.#name, "could not be read", cause);
    }
  }

  chunks(range: KeyRange & { entriesMax: number }): AsyncIterable<readonly Entry[]> {
    return this.#iterate(range, { ...CHUNK, entriesMax: range.entriesMax });
  }

  snapshot(): ByteSnapshot {
    const snapshot = this.#level.snapshot();
    const limits = { ...SNAPSHOT_CHUNK, entriesMax: Number.POSITIVE_INFINITY, snapshot };
    return {
      chunks: (range) => this.#iterate(range, limits),
      close: () => snapshot.close(),
    };
  }

  async *#iterate(
    { from, to }: KeyRange,
    limits: { entries: number; bytes: number; entriesMax: number; snapshot?: Snapshot },
  ): AsyncIterable<readonly Entry[]> {
    const { entries, bytes, entriesMax, snapshot } = limits;
    const iterator = this.#iterator({
      gte: from as Buffer,
      lt: to as Buffer,
      limit: Number.isFinite(entriesMax) ? entriesMax : -1,
      fillCache: false,
      highWaterMarkBytes: bytes,
      ...(snapshot ? { snapshot } : {}),
    });
    const read = (): Promise<Entry[]> => {
      const chunk = iterator.nextv(entries).catch((cause: unknown) => {
        throw accessError(this.#name, "could not be read", cause);
      });
      // Whoever stops early does not hear of it.
      chunk.catch(() => undefined);
      return chunk;
    };
    try {
      // The next chunk is read while this one is used.
      for (let next = read(); ; ) {
        const chunk = await next;
        if (chunk.length === 0) return;
        next = read();
        yield chunk;
      }
    } finally {
      await iterator.close();
    }
  }

  #iterator(options: IteratorOptions<Buffer, Buffer>) {
    try {
      return this.#level.iterator(options);
    } catch (cause) {
      throw accessError(this.#name, "could not be read", cause);
    }
  }

  /** One change as a put, more as a chained batch: a fifth of the CPU per change of an array of operations. */
  async write(changes: Iterable<Change>): Promise<void> {
    try {
      if (Array.isArray(changes) && changes.length === 1) {
        const [key, value] = changes[0] as Change;
        if (value) return await this.#level.put(key as Buffer, value as Buffer, SYNCED);
      }
      const batch = this.#level.batch();
      let slice = 0;
      for (const [key, value] of changes) {
        if (value === null) batch.del(key as Buffer);
        else batch.put(key as Buffer, value as Buffer);
        slice += value === null ? DELETION : 1;
        if (slice < SLICE_CHANGES) continue;
        slice = 0;
        await turn();
      }
      await batch.write(SYNCED);
    } catch (cause) {
      throw accessError(this.#name, "could not be written", cause);
    }
  }

  async compact({ from, to }: KeyRange): Promise<void> {
    try {
      await this.#level.compactRange(from as Buffer, to as Buffer);
    } catch (cause) {
      throw accessError(this.#name, "could not be written", cause);
    }
  }

  /** The numbers of the table files that make up the store now. */
  liveTables(): number[] {
    const tables = this.#level.getProperty("leveldb.sstables");
    return [...tables.matchAll(/^ (\d+):\d+\[/gm)].map((match) => Number(match[1]));
  }

  async sizeBytes(): Promise<number> {
    try {
      return await sizeBytes(this.#path);
    } catch (cause) {
      throw failed(this.#name, "could not be measured", cause);
    }
  }

  async present(): Promise<boolean> {
    try {
      const inode = await inodeOf(this.#path);
      return inode !== null && inode === this.#inode && (await exists(join(this.#path, "CURRENT")));
    } catch {
      // That the disk cannot be asked does not mean that anything is gone: the next write will tell.
      return true;
    }
  }

  close(): Promise<void> {
    return this.#level.close();
  }
}

/** abstract-level wraps what LevelDB said. */
function levelCause(error: unknown): { code: string; text: string } {
  const cause = (error as { cause?: unknown }).cause ?? error;
  return { code: String((cause as { code?: unknown }).code ?? ""), text: textOf(cause) };
}

function openError(store: StoreName, path: string, cause: unknown): QuorateError {
  const { code, text } = levelCause(cause);
  if (code === "LEVEL_LOCKED") {
    return new QuorateError(
      "STORAGE_LOCKED",
      `${path} is in use by another server; stop that one first, or give this one a dataDir of its own`,
      { store },
      cause,
    );
  }
  const operating =
    /Permission denied|No space left|Disk quota exceeded|Too many open files|Input\/output error|Read-only file system|Cannot allocate memory/;
  if (operating.test(text)) return accessError(store, "could not be opened", cause);
  return damaged(store, `LevelDB cannot open it (${text})`, {}, cause);
}

function accessError(store: StoreName, what: string, cause: unknown): QuorateError {
  const { code, text } = levelCause(cause);
  if (/No space left|ENOSPC|Disk quota exceeded/.test(text)) {
    return new QuorateError(
      "STORAGE_FULL",
      `the disk under the ${store} store is full: nothing is acknowledged until there is room`,
      { store },
      cause,
    );
  }
  // Whoever writes has opened it: somebody deleted it meanwhile.
  if (/no such file or directory/i.test(text)) return damaged(store, `its files are gone (${text})`, {}, cause);
  if (code === "LEVEL_CORRUPTION")
    return damaged(store, `LevelDB ${what.replace("could", "says it could")}`, {}, cause);
  return failed(store, `${what} (${text})`, cause);
}
