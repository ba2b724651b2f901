/**
 * Founding a replica of a cluster that begins with a snapshot of another one (docs/snapshot-format.md, "Founding"). Guarantees:
 * every founder verifies the file in full against what cluster.json names; the store's entries are kept as they are, its
 * revision rises by the origin's offset, clients and sessions begin anew; after a crash it starts over.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Digest, fromHex, hex, sameBytes } from "../../protocol/bytes.ts";
import type { Cluster, ClusterOrigin } from "../../protocol/cluster.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { assert, QuorateError } from "../../protocol/errors.ts";
import { ChunkBuilder } from "../../protocol/image.ts";
import { Reader, Writer } from "../../protocol/layout.ts";
import type { StagedChunk, StagedState, StateStore, Storage } from "../../storage/contract.ts";
import { SNAPSHOT_FILE } from "./file.ts";
import type { ScratchState } from "./scratch-state.ts";
import { isEntryKey, isOrigin, REVISION_KEY, verifySnapshot } from "./verify.ts";

/** The state's note of the snapshot it began with. */
const ORIGIN_NOTE = "origin";
const CHUNKS_AT_ONCE = 8;

/** Must this state be founded from the snapshot before anything is executed on it? */
export function needsFounding(cluster: Cluster, state: Pick<StateStore, "applied" | "note">): boolean {
  if (!cluster.origin || state.applied.instance > 0) return false;
  const note = state.note(ORIGIN_NOTE);
  return !note || !sameBytes(note, fromHex(cluster.origin.snapshot));
}

export interface OriginOptions {
  /** The data directory. */
  readonly directory: string;
  readonly cluster: Cluster;
  readonly crypto: Crypto;
  readonly storage: Storage;
  readonly logger: Record<"info" | "warn", (detail: Readonly<Record<string, unknown>>, message: string) => void>;
}

/**
 * Founds a replica that needs it. Every founder verifies its own copy, and does not start with a wrong one; a replica that has
 * lost its state since has it from the others if the copy is gone or damaged by now.
 * @throws QuorateError SNAPSHOT_INVALID
 */
export async function foundOrigin(options: OriginOptions): Promise<"ready" | "installed" | "gone"> {
  const { directory, cluster, crypto, storage, logger } = options;
  if (!needsFounding(cluster, storage.state)) return "ready";
  if (!existsSync(join(directory, SNAPSHOT_FILE))) return "gone";
  logger.info({ snapshot: cluster.origin?.snapshot }, "verifying the snapshot that this cluster begins with");
  await storage.unstage();
  const staged = await storage.stage();
  try {
    await foundFromSnapshot({ directory, cluster, crypto, staged });
  } catch (error) {
    if (!isInvalid(error) || cluster.view.n === 1) throw error;
    if (!hasRun(storage)) throw withTodo(error);
    logger.warn({ error: String(error) }, "the snapshot is damaged here: the others are asked for the state");
    await staged.close();
    await storage.unstage();
    return "gone";
  }
  await storage.install(null);
  logger.info({}, "the snapshot is verified and is the state of this replica");
  return "installed";
}

/** Another founder may have a sound copy; without any, the others' state will do. */
function withTodo({ code, message, detail, cause }: QuorateError): QuorateError {
  const todo = `copy another founder's data/${SNAPSHOT_FILE} here, or remove it`;
  return new QuorateError(
    code,
    `${message}; ${todo}: the state is then fetched once the others have a checkpoint`,
    detail,
    cause,
  );
}

function isInvalid(error: unknown): error is QuorateError {
  return error instanceof QuorateError && error.code === "SNAPSHOT_INVALID";
}

/** Has this replica been one before, whatever is left of it? */
function hasRun({ journal, repairs }: Storage): boolean {
  const { last, forgotten } = journal.summary;
  return last > 0 || forgotten !== null || repairs.length > 0;
}

/**
 * Fills `staged`, which must be empty, and completes it at instance 0: `Storage.install` then makes it the state.
 * @throws QuorateError SNAPSHOT_INVALID, and like `StagedState`
 */
export async function foundFromSnapshot(options: {
  readonly directory: string;
  readonly cluster: Cluster;
  readonly crypto: Crypto;
  readonly staged: StagedState;
}): Promise<void> {
  const { directory, cluster, crypto, staged } = options;
  const { origin } = cluster;
  if (!origin)
    throw new QuorateError("CONFIG_INVALID", "the cluster file names no origin; there is nothing to found from");
  const file = join(directory, SNAPSHOT_FILE);
  const { summary, state } = await verifySnapshot({ file, crypto, clusterFile: null, scratchParent: directory });
  try {
    if (!isOrigin(summary, origin)) {
      const why = `is not the snapshot ${origin.snapshot.slice(0, 8)}… of cluster ${origin.clusterId.slice(0, 8)} that`;
      const found = `it has SHA-256 ${hex(summary.sha256)}`;
      throw new QuorateError("SNAPSHOT_INVALID", `${file} ${why} cluster.json names: ${found}`);
    }
    await staged.retain(new Set());
    for await (const chunks of chunkGroups(crypto, foundingEntries(state, origin))) {
      assert(await staged.add(chunks), "entries in key order make chunks that do not overlap");
    }
    const store = await staged.complete({ instance: 0, digest: cluster.genesis, timestampMs: 0 });
    await store.writeNote(ORIGIN_NOTE, fromHex(origin.snapshot));
  } finally {
    await state.close();
  }
}

/** The entries a cluster with this origin begins with, in key order. */
async function* foundingEntries(
  state: ScratchState,
  origin: ClusterOrigin,
): AsyncGenerator<readonly [key: string, value: Uint8Array]> {
  const stored = state.get(REVISION_KEY);
  const revision = stored ? new Reader(stored).u53() : 0;
  yield [REVISION_KEY, new Writer(8).u53(revision + origin.revisionOffset).finish()];
  for await (const entry of state.entries()) if (isEntryKey(entry[0])) yield entry;
}

/** The entries as chunks, a few at a time. */
async function* chunkGroups(
  crypto: Crypto,
  entries: AsyncIterable<readonly [key: string, value: Uint8Array]>,
): AsyncGenerator<StagedChunk[]> {
  const builder = new ChunkBuilder();
  let group: StagedChunk[] = [];
  let held: (readonly [string, Uint8Array])[] = [];
  const end = (): void => {
    const chunk = builder.take();
    if (!chunk) return;
    const digest: Digest = crypto.sha256(chunk);
    group.push({ digest, bytes: chunk.length, entries: held });
    held = [];
  };
  for await (const entry of entries) {
    held.push(entry);
    if (!builder.add(...entry)) continue;
    end();
    if (group.length < CHUNKS_AT_ONCE) continue;
    yield group;
    group = [];
  }
  end();
  if (group.length > 0) yield group;
}
