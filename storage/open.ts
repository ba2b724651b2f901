/**
 * Opening a data directory, whatever lies under it: founding, checks of both stores, and of one against the other
 * (docs/data-format.md, "Founding" and "At open"; docs/protocol.md section 4, "Lost journal").
 */
import type { Digest } from "../protocol/bytes.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { QuorateError } from "../protocol/errors.ts";
import { type ByteStore, damaged, type StoreName } from "./byte-store.ts";
import type { Founding, Storage } from "./contract.ts";
import { foundJournal, StoredJournal } from "./journal.ts";
import { orDamaged, readFounding, type Scan, scanJournal } from "./journal-scan.ts";
import { decodeInstance, instanceKey } from "./records.ts";
import { StoredState } from "./state.ts";

/** What a data directory offers: two stores and the marker that allows its founding, once. */
export interface Directory {
  /** The cluster the directory was prepared for, or null when it was founded already. */
  marker(): Promise<{ readonly cluster: Digest } | null>;
  /** Removes the marker for good: resolves when its absence is on disk. */
  removeMarker(): Promise<void>;
  /** Opens and locks a store; null when there is none and `create` is false. */
  open(store: StoreName, options: { create: boolean }): Promise<ByteStore | null>;
}

export interface OpenOptions {
  readonly founding: Founding;
  readonly crypto: Crypto;
}

/** @throws QuorateError as `OpenStorage` says; whatever was opened is closed again */
export async function openDirectory(directory: Directory, options: OpenOptions): Promise<Storage> {
  const opened: ByteStore[] = [];
  try {
    const journal = await openJournal(directory, options, opened);
    const state = await openState(directory, options, opened);
    await checkTogether({ journalStore: journal.store, scan: journal.scan, state, options });
    return storageOf({
      journal: new StoredJournal(journal.store, options.crypto, journal.scan),
      state,
      stores: { journal: journal.store, state: opened[1] as ByteStore },
    });
  } catch (error) {
    for (const store of opened) await store.close();
    throw error;
  }
}

function unfounded(replica: number): QuorateError {
  return new QuorateError(
    "STORAGE_UNFOUNDED",
    `the journal of replica ${replica} is gone or was never founded, and without it this replica could vote twice; until ` +
      "state transfer exists, put its data directory back exactly as the replica left it, or keep the replica stopped",
    { replica },
  );
}

async function openJournal(
  directory: Directory,
  { founding, crypto }: OpenOptions,
  opened: ByteStore[],
): Promise<{ store: ByteStore; scan: Scan }> {
  const marker = await directory.marker();
  if (marker && marker.cluster !== founding.cluster) {
    throw new QuorateError(
      "CLUSTER_MISMATCH",
      "the data directory was prepared for another cluster; check dataDir and the cluster file of this replica",
      { field: "cluster" },
    );
  }
  const store = await directory.open("journal", { create: marker !== null });
  if (!store) throw unfounded(founding.replica);
  opened.push(store);
  const found = await readFounding(store, crypto, founding);
  if (!found && !marker) throw unfounded(founding.replica);
  const scan = found ? await scanJournal(store, crypto, found) : await foundJournal(store, crypto, founding);
  if (marker) await directory.removeMarker();
  return { store, scan };
}

async function openState(
  directory: Directory,
  { founding, crypto }: OpenOptions,
  opened: ByteStore[],
): Promise<StoredState> {
  const store = (await directory.open("state", { create: true })) as ByteStore;
  opened.push(store);
  return StoredState.open(store, { crypto, genesis: founding.genesis });
}

/** The state is written only after the journal, so it stands at an instance of the journal, with the same history. */
async function checkTogether(both: {
  journalStore: ByteStore;
  scan: Scan;
  state: StoredState;
  options: OpenOptions;
}): Promise<void> {
  const { founding, crypto } = both.options;
  const { first, last } = both.scan.summary;
  const { instance, digest } = both.state.applied;
  if (instance > last) {
    throw damaged("journal", `it ends at instance ${last}, but the state stands at ${instance}: its end is lost`, {
      instance: last + 1,
    });
  }
  if (instance + 1 < first) {
    throw damaged("state", `it stands at instance ${instance}, but the journal starts at ${first}`, { instance });
  }
  let expected: Digest | null = instance === 0 ? founding.genesis : null;
  if (instance > 0 && instance >= first) {
    const key = instanceKey(instance);
    const value = both.journalStore.get(key);
    if (!value) throw damaged("journal", `instance ${instance} is missing`, { instance });
    expected = orDamaged({ instance }, () => decodeInstance(crypto, key, value)).digest;
  }
  if (expected !== null && expected !== digest) {
    throw damaged("state", `its history at instance ${instance} is not the journal's`, { instance });
  }
}

function storageOf(parts: {
  journal: StoredJournal;
  state: StoredState;
  stores: { journal: ByteStore; state: ByteStore };
}): Storage {
  const { journal, state, stores } = parts;
  return {
    journal,
    state,
    async diskUse() {
      const [journalBytes, stateBytes] = await Promise.all([stores.journal.sizeBytes(), stores.state.sizeBytes()]);
      return { journalBytes, stateBytes };
    },
    async close() {
      await Promise.all([journal.close(), state.close()]);
    },
  };
}
