/**
 * Opening a data directory, whatever lies under it: founding, checks of both stores, and of one against the other
 * (docs/data-format.md, "Founding" and "At open"; docs/protocol.md section 4, "Lost journal"). What is damaged is set aside and
 * begun anew. A journal that is not the one this replica voted with is *forgotten*: only a directory with its marker and
 * nothing else is founded without.
 */
import type { Digest } from "../protocol/bytes.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { QuorateError } from "../protocol/errors.ts";
import type { ByteStore } from "./byte-store.ts";
import type { Founding, JournalBase, Repair, Storage } from "./contract.ts";
import { type Directory, isDamage, resumeInstall } from "./directory.ts";
import { foundJournal, rebaseJournal, StoredJournal } from "./journal.ts";
import { readFounding, readRecord, type Scan, scanJournal } from "./journal-scan.ts";
import { OpenedStorage } from "./opened-storage.ts";
import type { Recovered } from "./recovered.ts";
import { StoredState } from "./state.ts";

export interface OpenOptions {
  readonly founding: Founding;
  readonly crypto: Crypto;
  /** What `kv recover` has set aside since the last open. */
  readonly recovered?: Recovered;
}

/** @throws QuorateError as `OpenStorage` says; whatever was opened is closed again */
export async function openDirectory(directory: Directory, options: OpenOptions): Promise<Storage> {
  const opening = new Opening(directory, options);
  try {
    return await opening.run();
  } catch (error) {
    await opening.close();
    throw error;
  }
}

class Opening {
  readonly #directory: Directory;
  readonly #options: OpenOptions;
  readonly #repairs: Repair[] = [];
  #marked = false;
  #journal: ByteStore | null = null;
  #state: ByteStore | null = null;

  constructor(directory: Directory, options: OpenOptions) {
    this.#directory = directory;
    this.#options = options;
  }

  async run(): Promise<Storage> {
    const { founding, crypto } = this.#options;
    const marker = await this.#directory.marker();
    if (marker && marker.cluster !== founding.cluster) {
      throw new QuorateError(
        "CLUSTER_MISMATCH",
        "the data directory was prepared for another cluster; check dataDir and the cluster file of this replica",
        { field: "cluster" },
      );
    }
    this.#marked = marker !== null;
    const found = await this.#openJournal();
    // The journal's lock is held: no other server is in this directory.
    await resumeInstall(this.#directory, crypto);
    const hadState = await this.#directory.exists("state");
    let state = await this.#openState();
    const known = found && (await this.#rebased(found, state));
    const { scan, sound } = known ? await this.#checkTogether(known, state) : { scan: null, sound: true };
    if (!sound) state = await this.#stateAnew();
    const remembered = scan ?? (await this.#found(state));
    if (state.installNote) await state.removeInstallNote();
    if (this.#marked) await this.#directory.removeMarker();
    if (scan && !hadState && scan.held.last > 0) {
      this.#missing("state", "the state is missing");
    }
    const journal = new StoredJournal(this.#journalStore, crypto, remembered);
    return new OpenedStorage({
      directory: this.#directory,
      crypto,
      journal,
      state,
      stores: { journal: this.#journalStore, state: this.#stateStore },
      repairs: this.#repairs,
    });
  }

  async close(): Promise<void> {
    await this.#journal?.close();
    await this.#state?.close();
  }

  get #journalStore(): ByteStore {
    return this.#journal as ByteStore;
  }

  get #stateStore(): ByteStore {
    return this.#state as ByteStore;
  }

  /** Null: to be founded. */
  async #openJournal(): Promise<Scan | null> {
    const { founding, crypto } = this.#options;
    try {
      const store = await this.#directory.open("journal");
      this.#journal = store;
      return (await readFounding(store, crypto, founding)) && (await scanJournal(store, crypto, founding));
    } catch (error) {
      if (!isDamage(error)) throw error;
      await this.#journalAnew(error.message);
      return null;
    }
  }

  async #openState(): Promise<StoredState> {
    const { founding, crypto } = this.#options;
    try {
      this.#state = await this.#directory.open("state");
      return await StoredState.open(this.#state, { crypto, genesis: founding.genesis });
    } catch (error) {
      if (!isDamage(error)) throw error;
      await this.#setAside("state", error.message);
      return this.#stateAnew();
    }
  }

  /** Renamed before it is closed, so that no other server finds it unlocked in between. */
  async #setAside(store: "journal" | "state", reason: string): Promise<void> {
    // The marker stands for a journal that never voted.
    if (this.#marked) await this.#directory.removeMarker();
    this.#marked = false;
    const setAside = await this.#directory.setAside(store);
    if (store === "journal") {
      await this.#journal?.close();
      this.#journal = null;
    } else {
      await this.#state?.close();
      this.#state = null;
    }
    this.#repairs.push({ store, reason, setAside });
  }

  #missing(store: "journal" | "state", reason: string): void {
    const setAside = this.#options.recovered?.[store] ?? null;
    this.#repairs.push({ store, reason: setAside === null ? reason : "kv recover set it aside", setAside });
  }

  async #journalAnew(reason: string): Promise<void> {
    await this.#setAside("journal", reason);
    this.#journal = await this.#directory.open("journal");
  }

  async #stateAnew(): Promise<StoredState> {
    const { founding, crypto } = this.#options;
    this.#state = await this.#directory.open("state");
    return StoredState.open(this.#state, { crypto, genesis: founding.genesis });
  }

  /** After an installation: a journal that the state takes the place of begins above it. */
  async #rebased(scan: Scan, state: StoredState): Promise<Scan> {
    const note = state.installNote;
    if (!note || !this.#endsBefore(scan, note.applied)) return scan;
    const { instance, digest } = note.applied;
    const options = { scan, base: { instance, digest }, certificate: note.certificate };
    return rebaseJournal(this.#journalStore, this.#options.crypto, options);
  }

  /**
   * Whether the journal ends below where the state was installed, or there with a record of another batch: what was accepted last
   * was not decided, and is replaced like any such record.
   */
  #endsBefore(scan: Scan, { instance, digest }: JournalBase): boolean {
    const { summary, held } = scan;
    if (held.last !== instance) return held.last < instance;
    return summary.base.instance < instance && this.#digestAt(scan, instance) !== digest;
  }

  /**
   * The state is written only after the journal, so it stands at an instance of the journal, with the same history, or
   * below where that begins. A null scan: the journal was set aside; not sound: the state was.
   */
  async #checkTogether(scan: Scan, state: StoredState): Promise<{ scan: Scan | null; sound: boolean }> {
    const { instance, digest } = state.applied;
    const { last } = scan.held;
    if (instance > last) {
      const reason = `the journal ends at instance ${last}, but the state stands at ${instance}: its end is lost`;
      await this.#journalAnew(reason);
      return { scan: null, sound: true };
    }
    const expected = this.#digestAt(scan, instance);
    if (expected === null || expected === digest) return { scan, sound: true };
    await this.#setAside("state", `the history of the state at instance ${instance} is not the journal's`);
    return { scan, sound: false };
  }

  #digestAt({ summary: { base }, held }: Scan, instance: number): Digest | null {
    if (instance === base.instance) return base.digest;
    if (instance === 0) return this.#options.founding.genesis;
    if (instance < held.first) return null;
    return readRecord(this.#journalStore, this.#options.crypto, instance).digest;
  }

  async #found(state: StoredState): Promise<Scan> {
    const { founding, crypto } = this.#options;
    const { instance, digest } = state.applied;
    const repaired = this.#repairs.some(({ store }) => store === "journal");
    const unused = this.#marked && instance === 0 && this.#repairs.length === 0;
    if (!unused && !repaired) {
      this.#missing("journal", "the journal is missing: what this replica voted for is not known");
    }
    const base: JournalBase = { instance, digest };
    const forgotten = unused ? null : { until: null, regency: 0 };
    const keptCertificate = state.installNote?.certificate ?? null;
    return foundJournal(this.#journalStore, crypto, { founding, base, keptCertificate, forgotten });
  }
}
