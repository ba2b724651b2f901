/**
 * What a data directory offers, whatever lies under it, and the step that puts a staged state in the place of the live one
 * (docs/data-format.md, "Installing a state"): whatever a crash leaves of that step, the next open completes or undoes it.
 */
import type { Digest } from "../protocol/bytes.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { QuorateError } from "../protocol/errors.ts";
import type { ByteStore } from "./byte-store.ts";
import { readInstallNote } from "./state-records.ts";

/** The stores a directory may hold: `removed` is a state that another one took the place of. */
export type Place = "journal" | "state" | "staging" | "removed";

/** Everything in it is on disk when its promise resolves. */
export interface Directory {
  /** The cluster the directory was prepared for, or null when it was founded already. @throws QuorateError STORAGE_FAILED */
  marker(): Promise<{ readonly cluster: Digest } | null>;
  /** Removes the marker for good. */
  removeMarker(): Promise<void>;
  exists(place: Place): Promise<boolean>;
  /** Opens and locks a store, a new one when there is none. @throws QuorateError STORAGE_LOCKED, STORAGE_DAMAGED and others */
  open(place: "journal" | "state" | "staging"): Promise<ByteStore>;
  /** Renames a store, which may be open: `to` must not exist. */
  move(from: Place, to: Place): Promise<void>;
  /** Moves a store, which may be open, to a place of its own for ever; says where that is. Null: there is none. */
  setAside(place: "journal" | "state"): Promise<string | null>;
  /** Deletes a closed store, if it is there. */
  remove(place: "staging" | "removed"): Promise<void>;
  sizeBytes(what: "staging" | "aside"): Promise<number>;
}

export function isDamage(error: unknown): error is QuorateError {
  return error instanceof QuorateError && error.code === "STORAGE_DAMAGED";
}

/** The staged state, which is closed and carries its install note, takes the place of the live one, which is closed. */
export async function installStaged(directory: Directory): Promise<void> {
  await directory.remove("removed");
  if (await directory.exists("state")) await directory.move("state", "removed");
  await directory.move("staging", "state");
  await directory.remove("removed");
}

/** Completes an installation that was begun, or undoes what there is of it. Neither state is open. */
export async function resumeInstall(directory: Directory, crypto: Crypto): Promise<void> {
  if ((await directory.exists("staging")) && (await installBegun(directory, crypto))) {
    await installStaged(directory);
  } else if (!(await directory.exists("state")) && (await directory.exists("removed"))) {
    await directory.move("removed", "state");
  }
  await directory.remove("removed");
}

async function installBegun(directory: Directory, crypto: Crypto): Promise<boolean> {
  let store: ByteStore | null = null;
  try {
    store = await directory.open("staging");
    return readInstallNote(store, crypto, "staging") !== null;
  } catch (error) {
    // A damaged one is thrown away when the next transfer begins.
    if (isDamage(error)) return false;
    throw error;
  } finally {
    await store?.close();
  }
}
