/**
 * What a start checks in the journal, record by record in one streaming pass (docs/data-format.md, "At open"): checksums,
 * no gap between the first and the last instance, the chain of history digests (docs/protocol.md section 1), and that
 * no write is missing before a later one. LevelDB skips damaged records without a word, so none of this is left to it.
 */

import { historyDigest } from "../protocol/batch.ts";
import type { Digest } from "../protocol/bytes.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { Malformed, QuorateError } from "../protocol/errors.ts";
import { type ByteStore, damaged, type Entry, numberOf } from "./byte-store.ts";
import type { Founding, InstanceRecord, JournalSummary } from "./contract.ts";
import { HeldRecords } from "./held-records.ts";
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

/** Write numbers are marked in a bitmap; no log spans this many. */
const WRITES_MAX = 2 ** 33;

/** What the journal goes on with. */
export interface Scan {
  readonly summary: JournalSummary;
  /** The number of the newest write. */
  readonly write: number;
  /** The newest control record. */
  readonly control: ControlRecord;
  /** All control records on disk by their writes. */
  readonly controls: ReadonlyMap<number, ControlRecord>;
  /** The write of the control record that still holds messages of a clean stop, whether they count or not. */
  readonly stop: number | null;
  readonly held: HeldRecords;
}

/** The set of write numbers met, from the first that counts; complete when every one up to the newest is in it. */
class WriteSet {
  readonly #from: number;
  #bits = new Uint8Array(1024);
  #count = 0;
  newest: number;

  constructor(from: number) {
    this.#from = from;
    this.newest = from;
  }

  add(write: number): void {
    const index = write - this.#from;
    if (index < 0 || index >= WRITES_MAX) throw new Malformed("NUMBER_RANGE");
    const at = Math.floor(index / 8);
    if (at >= this.#bits.length) {
      const grown = new Uint8Array(Math.max(at + 1, this.#bits.length * 2));
      grown.set(this.#bits);
      this.#bits = grown;
    }
    const mask = 1 << (index % 8);
    if (((this.#bits[at] as number) & mask) !== 0) return;
    this.#bits[at] = (this.#bits[at] as number) | mask;
    this.#count++;
    this.newest = Math.max(this.newest, write);
  }

  get complete(): boolean {
    return this.#count === this.newest - this.#from + 1;
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
  /** Control keys sort before instances: all of them are known when the first instance is met. */
  readonly #controls = new Map<number, ControlRecord>();
  #control: ControlRecord | null = null;
  #stop: number | null = null;
  #instances: InstancePass | null = null;

  constructor(crypto: Crypto, founding: Founding) {
    this.#crypto = crypto;
    this.#founding = founding;
  }

  take([key, value]: Entry): void {
    const kind = key[0];
    if (kind === KIND.instance) this.#instancePass().take(key, value);
    else if (kind === KIND.control) orDamaged({ record: "control" }, () => this.#takeControl(key, value));
    else if (kind !== KIND.founding || key.length !== 1) throw damaged("journal", "it holds a record of unknown kind");
  }

  /** Control records come in the order of their writes, so the last one met is where votes stand. */
  #takeControl(key: Uint8Array, value: Uint8Array): void {
    const control = decodeControl(this.#crypto, key, value);
    const write = numberOf(key);
    this.#controls.set(write, control);
    if (control.cleanStop) this.#stop = write;
    this.#control = control;
  }

  #instancePass(): InstancePass {
    if (this.#instances) return this.#instances;
    if (!this.#control) throw damaged("journal", "it holds no control record");
    const options = {
      crypto: this.#crypto,
      founding: this.#founding,
      control: this.#control,
      controls: this.#controls,
    };
    this.#instances = new InstancePass(options);
    return this.#instances;
  }

  end(store: ByteStore): Scan {
    const instances = this.#instancePass();
    const control = this.#control as ControlRecord;
    const { held, accepted } = instances;
    const write = instances.end();
    const { view, regency, wanted, base, keptCertificate, forgotten } = control;
    const empty = held.last === base.instance;
    const summary: JournalSummary = {
      founding: this.#founding,
      base,
      first: empty ? 0 : held.first,
      last: empty ? 0 : held.last,
      newestAccepted: accepted > 0 ? readRecord(store, this.#crypto, accepted) : null,
      keptCertificate,
      forgotten,
      regency: { view, regency, wanted },
      // Whatever was written after a clean stop may stand for votes it does not list.
      cleanStop: this.#controls.has(write) ? control.cleanStop : null,
    };
    return { summary, write, control, controls: this.#controls, stop: this.#stop, held };
  }
}

/** The instance records, one after the other. */
class InstancePass {
  readonly held: HeldRecords;
  /** The highest instance with a certificate, or 0. */
  accepted = 0;
  readonly #crypto: Crypto;
  readonly #founding: Founding;
  readonly #writes: WriteSet;
  readonly #controlsFrom: number;
  /** Writes that brought a control record, or did until a later one removed it. */
  readonly #withControl = new Set<number>();
  /** Writes of which nothing is left. */
  readonly #superseded = new Set<number>();
  #digest: Digest;

  constructor(options: {
    crypto: Crypto;
    founding: Founding;
    control: ControlRecord;
    controls: ReadonlyMap<number, ControlRecord>;
  }) {
    const { crypto, founding, control, controls } = options;
    this.#crypto = crypto;
    this.#founding = founding;
    this.held = new HeldRecords(control.base.instance);
    this.#digest = control.base.digest;
    this.#writes = new WriteSet(control.writesFrom);
    this.#controlsFrom = control.controlsFrom;
    for (const [write, { superseded, bared }] of controls) {
      if (write < control.controlsFrom) throw damaged("journal", "a control record is there that was dropped");
      for (const known of [write, ...bared]) this.#withControl.add(known);
      for (const gone of superseded) this.#superseded.add(gone);
      orDamaged({ record: "control" }, () => {
        for (const known of [write, ...superseded]) this.#writes.add(known);
      });
    }
  }

  take(key: Uint8Array, value: Uint8Array): void {
    const expected = this.held.last + 1;
    const instance = orDamaged({ record: "instance" }, () => numberOf(key));
    if (instance < expected) {
      throw damaged("journal", `instance ${instance} is there, but was dropped from the log`, { instance });
    }
    if (instance > expected) {
      throw damaged("journal", `instance ${expected} is missing before ${instance}`, { instance: expected });
    }
    const raw = orDamaged({ instance }, () => {
      const decoded = decodeInstance(this.#crypto, key, value);
      this.#writes.add(decoded.write);
      return decoded;
    });
    if (this.#superseded.has(raw.write)) {
      throw damaged("journal", `instance ${instance} is as it was before it was replaced`, { instance });
    }
    if (raw.withControl && raw.write >= this.#controlsFrom && !this.#withControl.has(raw.write)) {
      throw damaged("journal", `the control record written with instance ${instance} is missing`, { instance });
    }
    const { cluster } = this.#founding;
    const link = { cluster, instance, previous: this.#digest, batchDigest: raw.batchDigest };
    if (historyDigest(this.#crypto, link) !== raw.digest) {
      throw damaged("journal", `instance ${instance} does not continue the history before it`, { instance });
    }
    this.#digest = raw.digest;
    const accepted = raw.certificateBytes.length > 0;
    if (accepted) this.accepted = instance;
    this.held.set(instance, { write: raw.write, bytes: key.length + value.length, accepted });
  }

  /** The newest write. */
  end(): number {
    if (this.#writes.complete) return this.#writes.newest;
    throw damaged("journal", "a write before the newest one is missing", { instance: this.held.last });
  }
}

/** A record that the journal must hold. @throws QuorateError STORAGE_DAMAGED */
export function readRecord(store: ByteStore, crypto: Crypto, instance: number): InstanceRecord {
  const key = instanceKey(instance);
  const value = store.get(key);
  if (!value) throw damaged("journal", `instance ${instance} is missing`, { instance });
  return orDamaged({ instance }, () => completeInstance(decodeInstance(crypto, key, value)));
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
