/**
 * What a start checks in the journal, record by record in one streaming pass (docs/data-format.md, "At open"): checksums,
 * no gap between the first and the last instance, the chain of history digests (docs/protocol.md section 1), and that
 * no write is missing before a later one. LevelDB skips damaged records without a word, so none of this is left to it.
 */

import { historyDigest } from "../protocol/batch.ts";
import type { Digest } from "../protocol/bytes.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assert, Malformed, QuorateError } from "../protocol/errors.ts";
import { type ByteStore, damaged, type Entry, numberOf } from "./byte-store.ts";
import type { Founding, InstanceRecord, JournalSummary } from "./contract.ts";
import {
  type ControlRecord,
  completeInstance,
  decodeControl,
  decodeFounding,
  decodeInstance,
  FOUNDING_KEY,
  instanceKey,
  JOURNAL_END_KEY,
  JOURNAL_FORMAT,
  KIND,
} from "./records.ts";

/** Write numbers are marked in a bitmap; no journal reaches this many. */
const WRITES_MAX = 2 ** 33;

/** A journal nobody wrote to since its founding stands for no votes: a clean stop without messages. */
const FOUNDED: readonly Uint8Array[] = [];

/** What the journal goes on with. */
export interface Scan {
  readonly summary: JournalSummary;
  /** The number of the newest write. */
  readonly write: number;
  /** The control record that still holds messages of a clean stop, whether they count or not. */
  readonly stop: { readonly write: number; readonly superseded: readonly number[] } | null;
}

/** The set of write numbers met; complete when every one up to the newest is in it. */
class WriteSet {
  #bits = new Uint8Array(1024);
  #count = 0;
  newest = 0;

  add(write: number): void {
    if (write >= WRITES_MAX) throw new Malformed("NUMBER_RANGE");
    const at = Math.floor(write / 8);
    if (at >= this.#bits.length) {
      const grown = new Uint8Array(Math.max(at + 1, this.#bits.length * 2));
      grown.set(this.#bits);
      this.#bits = grown;
    }
    const mask = 1 << (write % 8);
    if (((this.#bits[at] as number) & mask) !== 0) return;
    this.#bits[at] = (this.#bits[at] as number) | mask;
    this.#count++;
    this.newest = Math.max(this.newest, write);
  }

  get complete(): boolean {
    return this.#count === this.newest + 1;
  }
}

/** Reads the founding record and holds it against what the configuration says. `null`: there is none, and nothing else. */
export async function readFounding(store: ByteStore, crypto: Crypto, expected: Founding): Promise<Founding | null> {
  const value = store.get(FOUNDING_KEY);
  if (!value) {
    for await (const _ of store.chunks({ from: FOUNDING_KEY, to: JOURNAL_END_KEY, entriesMax: 1 })) {
      throw damaged("journal", "it holds records but not its founding record");
    }
    return null;
  }
  const { format, founding } = orDamaged({ record: "founding" }, () => decodeFounding(crypto, value));
  if (!founding) {
    throw new QuorateError(
      "STORAGE_FORMAT",
      `the journal has format ${format}, this version reads ${JOURNAL_FORMAT}; run the version that wrote it`,
      { store: "journal", found: format, expected: JOURNAL_FORMAT },
    );
  }
  for (const field of ["cluster", "replica", "genesis"] as const) {
    if (founding[field] === expected[field]) continue;
    throw new QuorateError(
      "CLUSTER_MISMATCH",
      `the data directory was founded for another ${field}; check dataDir and the cluster file of this replica`,
      { field },
    );
  }
  return founding;
}

/** @throws QuorateError STORAGE_DAMAGED with `instance` where one is known */
export async function scanJournal(store: ByteStore, crypto: Crypto, founding: Founding): Promise<Scan> {
  const pass = new Pass(crypto, founding);
  const range = { from: FOUNDING_KEY, to: JOURNAL_END_KEY, entriesMax: Number.POSITIVE_INFINITY };
  for await (const chunk of store.chunks(range)) for (const entry of chunk) pass.take(entry);
  return pass.end(store);
}

class Pass {
  readonly #crypto: Crypto;
  readonly #founding: Founding;
  readonly #writes = new WriteSet();
  /** Writes that brought a control record, or did until a later one removed it. Control keys sort before instances. */
  readonly #controls = new Set<number>();
  #control: ControlRecord = { view: 0, regency: 0, superseded: [], cleanStop: FOUNDED };
  #controlWrite = 0;
  #stop: Scan["stop"] = null;
  #first = 0;
  #last = 0;
  #digest: Digest;
  #accepted = 0;

  constructor(crypto: Crypto, founding: Founding) {
    this.#crypto = crypto;
    this.#founding = founding;
    this.#digest = founding.genesis;
    this.#writes.add(0);
  }

  take([key, value]: Entry): void {
    const kind = key[0];
    if (kind === KIND.instance) this.#instance(key, value);
    else if (kind === KIND.control) orDamaged({ record: "control" }, () => this.#takeControl(key, value));
    else if (kind !== KIND.founding || key.length !== 1) throw damaged("journal", "it holds a record of unknown kind");
  }

  /** Control records come in the order of their writes, so the last one met is where votes stand. */
  #takeControl(key: Uint8Array, value: Uint8Array): void {
    const control = decodeControl(this.#crypto, key, value);
    const write = numberOf(key);
    this.#writes.add(write);
    this.#controls.add(write);
    for (const gone of control.superseded) {
      this.#writes.add(gone);
      this.#controls.add(gone);
    }
    if (control.cleanStop) this.#stop = { write, superseded: control.superseded };
    this.#control = control;
    this.#controlWrite = write;
  }

  #instance(key: Uint8Array, value: Uint8Array): void {
    const expected = this.#last + 1;
    const instance = orDamaged({ record: "instance" }, () => numberOf(key));
    if (this.#first === 0) this.#first = instance;
    else if (instance !== expected) {
      throw damaged("journal", `instance ${expected} is missing before ${instance}`, { instance: expected });
    }
    const raw = orDamaged({ instance }, () => {
      const decoded = decodeInstance(this.#crypto, key, value);
      this.#writes.add(decoded.write);
      return decoded;
    });
    if (raw.withControl && !this.#controls.has(raw.write)) {
      throw damaged("journal", `the control record written with instance ${instance} is missing`, { instance });
    }
    // The digest below the first instance of a journal that no longer starts at 1 is not held: the chain starts there.
    if (this.#first === 1 || instance > this.#first) {
      const { cluster } = this.#founding;
      const link = { cluster, instance, previous: this.#digest, batchDigest: raw.batchDigest };
      if (historyDigest(this.#crypto, link) !== raw.digest) {
        throw damaged("journal", `instance ${instance} does not continue the history before it`, { instance });
      }
    }
    this.#last = instance;
    this.#digest = raw.digest;
    if (raw.certificateBytes.length > 0) this.#accepted = instance;
  }

  end(store: ByteStore): Scan {
    const last = this.#last;
    if (!this.#writes.complete) {
      throw damaged("journal", "a write before the newest one is missing", { instance: last });
    }
    const { view, regency, cleanStop } = this.#control;
    const write = this.#writes.newest;
    const summary: JournalSummary = {
      founding: this.#founding,
      first: this.#first,
      last,
      newestAccepted: this.#accepted > 0 ? this.#reread(store, this.#accepted) : null,
      regency: { view, regency },
      // Whatever was written after a clean stop may stand for votes it does not list.
      cleanStop: this.#controlWrite === write ? cleanStop : null,
    };
    return { summary, write, stop: this.#stop };
  }

  #reread(store: ByteStore, instance: number): InstanceRecord {
    const key = instanceKey(instance);
    const value = store.get(key);
    if (!value) throw damaged("journal", `instance ${instance} cannot be read again`, { instance });
    return orDamaged({ instance }, () => completeInstance(decodeInstance(this.#crypto, key, value)));
  }
}

/** Runs a decoder of journal bytes; malformed ones are damage. */
export function orDamaged<T>(detail: Readonly<Record<string, unknown>>, decode: () => T): T {
  try {
    return decode();
  } catch (cause) {
    if (!(cause instanceof Malformed)) throw cause;
    const what = "instance" in detail ? `the record of instance ${detail.instance}` : `the ${detail.record} record`;
    throw damaged("journal", `${what} does not match its digest (${cause.code})`, detail, cause);
  }
}

/** The empty journal right after its founding. */
export function foundedScan(founding: Founding): Scan {
  assert(founding.genesis.length === 32, "the genesis digest has 32 bytes");
  return {
    summary: {
      founding,
      first: 0,
      last: 0,
      newestAccepted: null,
      regency: { view: 0, regency: 0 },
      cleanStop: FOUNDED,
    },
    write: 0,
    stop: null,
  };
}
