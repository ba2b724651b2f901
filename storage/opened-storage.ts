/** An open data directory: both stores, the state under construction, and how one store takes the place of another. */
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assert } from "../protocol/errors.ts";
import type { Certificate } from "../protocol/messages.ts";
import type { ByteStore } from "./byte-store.ts";
import type { DiskUse, Repair, Storage } from "./contract.ts";
import { type Directory, installStaged, isDamage } from "./directory.ts";
import type { StoredJournal } from "./journal.ts";
import { StoredStaging } from "./staging.ts";
import type { StoredState } from "./state.ts";

interface Parts {
  readonly directory: Directory;
  readonly crypto: Crypto;
  readonly journal: StoredJournal;
  readonly state: StoredState;
  readonly stores: { readonly journal: ByteStore; readonly state: ByteStore };
  readonly repairs: readonly Repair[];
}

export class OpenedStorage implements Storage {
  readonly journal: StoredJournal;
  readonly state: StoredState;
  readonly repairs: readonly Repair[];
  readonly #directory: Directory;
  readonly #crypto: Crypto;
  readonly #stores: Parts["stores"];
  #staging: StoredStaging | null = null;
  #open = true;

  constructor(parts: Parts) {
    this.journal = parts.journal;
    this.state = parts.state;
    this.repairs = parts.repairs;
    this.#directory = parts.directory;
    this.#crypto = parts.crypto;
    this.#stores = parts.stores;
  }

  async stage(): Promise<StoredStaging> {
    const free = this.#staging === null || this.#staging.closed;
    assert(this.#open && free, "one state is under construction at a time");
    const found = await this.#openStaging();
    if (found) {
      this.#staging = found;
      return found;
    }
    await this.#directory.remove("staging");
    const anew = await this.#openStaging();
    assert(anew !== null, "a new staging was not completed");
    this.#staging = anew;
    return anew;
  }

  async unstage(): Promise<void> {
    await this.#staging?.close();
    this.#staging = null;
    await this.#directory.remove("staging");
  }

  async install(certificate: Certificate | null): Promise<void> {
    const staged = this.#staging?.completed;
    assert(staged, "only a completed state is installed");
    try {
      await staged.writeInstallNote(certificate);
      // The journal stays locked until everything is in its place.
      await Promise.all([this.#staging?.close(), this.state.close()]);
      await installStaged(this.#directory);
    } finally {
      await this.close();
    }
  }

  async condemn(store: "journal" | "state"): Promise<string | null> {
    try {
      if (store === "state") await this.state.close();
      return await this.#directory.setAside(store);
    } finally {
      await this.close();
    }
  }

  async diskUse(): Promise<DiskUse> {
    const [journalBytes, stateBytes, stagingBytes, asideBytes] = await Promise.all([
      this.#stores.journal.sizeBytes(),
      this.#stores.state.sizeBytes(),
      this.#directory.sizeBytes("staging"),
      this.#directory.sizeBytes("aside"),
    ]);
    return { journalBytes, stateBytes, stagingBytes, asideBytes };
  }

  async lost(): Promise<"journal" | "state" | null> {
    const { journal, state } = this.#stores;
    if (!(await journal.present())) return "journal";
    return (await state.present()) ? null : "state";
  }

  async close(): Promise<void> {
    this.#open = false;
    await Promise.all([this.#staging?.close(), this.state.close()]);
    await this.journal.close();
  }

  /** Null when what lies there is of no use. */
  async #openStaging(): Promise<StoredStaging | null> {
    let store: ByteStore | null = null;
    let staging: StoredStaging | null = null;
    try {
      store = await this.#directory.open("staging");
      staging = await StoredStaging.open(store, this.#crypto);
    } catch (error) {
      if (!isDamage(error)) {
        await store?.close();
        throw error;
      }
    }
    if (!staging) await store?.close();
    return staging;
  }
}
