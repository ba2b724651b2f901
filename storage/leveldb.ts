/**
 * Durable storage on LevelDB: a data directory with two stores, because LevelDB may lose the middle of one that is not
 * synced at every write (docs/protocol.md section 6; docs/data-format.md). LevelDB's own lock keeps a second server out.
 */
import { chmod, mkdir, open, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import type { ClassicLevel } from "classic-level";
import { Level } from "level";
import { fromHex, latin1 } from "../protocol/bytes.ts";
import { nodeCrypto } from "../protocol/crypto/node.ts";
import { QuorateError } from "../protocol/errors.ts";
import { type ByteStore, type Change, damaged, type Entry, failed, type StoreName } from "./byte-store.ts";
import type { OpenStorage } from "./contract.ts";
import { type Directory, openDirectory } from "./open.ts";
import { damagedTables } from "./tables.ts";

/** The file that `kv init` leaves in a data directory: it allows the founding of the journal, once. */
export const FOUNDING_MARKER = "founding.json";

const MIB = 1024 * 1024;
const CHUNK_BYTES = 1 * MIB;
const CHUNK_ENTRIES = 4_096;

/**
 * Nothing is compressed: requests are opaque, CPU is scarcer than disk, and `tables.ts` can check blocks as they lie.
 * The journal is written in key order, so large tables are only ever moved; it is read rarely, hence almost no cache.
 */
const OPTIONS = {
  journal: { compression: false, writeBufferSize: 16 * MIB, maxFileSize: 32 * MIB, cacheSize: 1 * MIB },
  state: { compression: false, writeBufferSize: 16 * MIB, maxFileSize: 8 * MIB, cacheSize: 32 * MIB },
} as const;

/** Changes put into a batch at a stretch: about a millisecond. */
const SLICE_CHANGES = 256;

const SYNCED = { sync: true } as const;

/** Opens the data directory of a replica. @see OpenStorage for what is thrown */
export const openStorage: OpenStorage = ({ directory, founding }) =>
  openDirectory(new DataDirectory(directory), { founding, crypto: nodeCrypto });

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

class DataDirectory implements Directory {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
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
    throw damaged("journal", `${FOUNDING_MARKER} is not what \`kv init\` writes`, { file: FOUNDING_MARKER });
  }

  async removeMarker(): Promise<void> {
    await rm(join(this.#path, FOUNDING_MARKER), { force: true });
    await syncDirectory(this.#path);
  }

  async open(store: StoreName, { create }: { create: boolean }): Promise<ByteStore | null> {
    const path = join(this.#path, store);
    let suspects: ReadonlySet<number> = new Set();
    try {
      // CURRENT names what a LevelDB directory consists of: without it there is no store.
      if (!create && !(await exists(join(path, "CURRENT")))) return null;
      if (store === "state") suspects = await damagedTables(path);
    } catch (cause) {
      throw this.#unreadable(cause);
    }
    const opened = await LevelStore.open(store, path);
    await syncDirectory(this.#path);
    const live = opened.liveTables().find((table) => suspects.has(table));
    if (live === undefined) return opened;
    await opened.close();
    throw damaged(store, `a block of its table ${live} does not match its checksum`, { table: live });
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

class LevelStore implements ByteStore {
  readonly #name: StoreName;
  readonly #path: string;
  readonly #level: ClassicLevel<Buffer, Buffer>;

  private constructor(name: StoreName, path: string, level: ClassicLevel<Buffer, Buffer>) {
    this.#name = name;
    this.#path = path;
    this.#level = level;
  }

  static async open(name: StoreName, path: string): Promise<LevelStore> {
    // On Node a Level is a ClassicLevel; its own types leave out `getSync`.
    const level = new Level<Buffer, Buffer>(path, {
      ...OPTIONS[name],
      keyEncoding: "buffer",
      valueEncoding: "buffer",
    }) as unknown as ClassicLevel<Buffer, Buffer>;
    try {
      await level.open();
    } catch (cause) {
      throw openError(name, path, cause);
    }
    return new LevelStore(name, path, level);
  }

  get(key: Uint8Array): Uint8Array | undefined {
    try {
      return this.#level.getSync(key as Buffer);
    } catch (cause) {
      throw accessError(this.#name, "could not be read", cause);
    }
  }

  async *chunks(range: { from: Uint8Array; to: Uint8Array; entriesMax: number }): AsyncIterable<readonly Entry[]> {
    const iterator = this.#level.iterator({
      gte: range.from as Buffer,
      lt: range.to as Buffer,
      limit: Number.isFinite(range.entriesMax) ? range.entriesMax : -1,
      fillCache: false,
      highWaterMarkBytes: CHUNK_BYTES,
    });
    try {
      for (;;) {
        const chunk = await iterator.nextv(CHUNK_ENTRIES).catch((cause: unknown) => {
          throw accessError(this.#name, "could not be read", cause);
        });
        if (chunk.length === 0) return;
        yield chunk;
      }
    } finally {
      await iterator.close();
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
        if (++slice % SLICE_CHANGES === 0) await turn();
      }
      await batch.write(SYNCED);
    } catch (cause) {
      throw accessError(this.#name, "could not be written", cause);
    }
  }

  async settle(): Promise<void> {
    try {
      await this.#level.compactRange(Buffer.from([0]), Buffer.from([0xff]));
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
    let bytes = 0;
    for (const name of await readdir(this.#path)) {
      try {
        bytes += (await stat(join(this.#path, name))).size;
      } catch (cause) {
        if (!isMissing(cause)) throw failed(this.#name, "could not be measured", cause);
      }
    }
    return bytes;
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
  const operating = /Permission denied|No space left|Too many open files|Input\/output error|Read-only file system/;
  if (operating.test(text)) return accessError(store, "could not be opened", cause);
  return damaged(store, `LevelDB cannot open it (${text})`, {}, cause);
}

function accessError(store: StoreName, what: string, cause: unknown): QuorateError {
  const { code, text } = levelCause(cause);
  if (/No space left|ENOSPC|Disk quota exceeded/.test(text)) {
    return new QuorateError(
      "STORAGE_FULL",
      `the disk under the ${store} store is full; the replica has to stop: make room and start it again`,
      { store },
      cause,
    );
  }
  if (code === "LEVEL_CORRUPTION")
    return damaged(store, `LevelDB ${what.replace("could", "says it could")}`, {}, cause);
  return failed(store, `${what} (${text})`, cause);
}
