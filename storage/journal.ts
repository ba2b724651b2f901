/**
 * The journal (docs/protocol.md sections 4 and 6): what this replica accepted and what was decided, every write synced
 * before anybody hears of it; also the log that others catch up from.
 *
 * Invariants: 1. instances are contiguous. 2. writes are numbered from 0 (the founding) without a gap, and every record
 * names its write; a write that removes or replaces records of earlier ones lists their numbers, so a write lost in the
 * middle is noticed at open. 3. a clean stop counts only while it is the newest write.
 */
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assert, assertNever } from "../protocol/errors.ts";
import { type ByteStore, type Change, damaged } from "./byte-store.ts";
import type { Founding, InstanceRecord, Journal, JournalRecord, JournalSummary } from "./contract.ts";
import { foundedScan, orDamaged, type Scan } from "./journal-scan.ts";
import {
  completeInstance,
  controlKey,
  decodeInstance,
  encodeControl,
  encodeFounding,
  encodeInstance,
  FOUNDING_KEY,
  instanceKey,
} from "./records.ts";
import { WriteQueue } from "./write-queue.ts";

/** Appends that wait while a write is under way are joined up to this size. */
const GROUP_BYTES_MAX = 8 * 1024 * 1024;
/** Rough size of a record besides its batch. */
const RECORD_BYTES = 1024;

type Append = readonly JournalRecord[];

function bytesOf(records: Append): number {
  let bytes = 0;
  for (const record of records) bytes += RECORD_BYTES + (record.type === "instance" ? record.batch.length : 0);
  return bytes;
}

/** Writes the founding record into an empty store and moves it out of reach of a damaged log. */
export async function foundJournal(store: ByteStore, crypto: Crypto, founding: Founding): Promise<Scan> {
  await store.write([[FOUNDING_KEY, encodeFounding(crypto, founding)]]);
  await store.settle();
  return foundedScan(founding);
}

export class StoredJournal implements Journal {
  readonly summary: JournalSummary;
  readonly #store: ByteStore;
  readonly #crypto: Crypto;
  readonly #queue: WriteQueue<Append>;
  /** On disk. */
  #first: number;
  #last: number;
  /** Queued, so that a gap is our bug before it is on disk. */
  #queuedLast: number;
  #write: number;
  #view: number;
  #regency: number;
  #stop: Scan["stop"];

  constructor(store: ByteStore, crypto: Crypto, scan: Scan) {
    const { summary } = scan;
    this.summary = summary;
    this.#store = store;
    this.#crypto = crypto;
    this.#first = summary.first;
    this.#last = summary.last;
    this.#queuedLast = summary.last;
    this.#write = scan.write;
    this.#view = summary.regency.view;
    this.#regency = summary.regency.regency;
    this.#stop = scan.stop;
    this.#queue = new WriteQueue({
      store: "journal",
      bytesMax: GROUP_BYTES_MAX,
      bytesOf,
      write: (appends) => this.#writeGroup(appends),
    });
  }

  append(records: readonly JournalRecord[]): Promise<void> {
    for (const record of records) {
      if (record.type !== "instance") continue;
      const { instance } = record;
      const follows = this.#queuedLast === 0 ? instance > 0 : instance <= this.#queuedLast + 1;
      assert(follows && instance >= Math.max(1, this.#first), "journaled instances are contiguous");
      this.#queuedLast = Math.max(this.#queuedLast, instance);
    }
    return this.#queue.push(records);
  }

  async read(instance: number): Promise<InstanceRecord | null> {
    const range = { from: instance, to: instance, maxRecords: 1, maxBytes: Number.POSITIVE_INFINITY };
    return (await this.range(range))[0] ?? null;
  }

  async range(options: { from: number; to: number; maxRecords: number; maxBytes: number }): Promise<InstanceRecord[]> {
    const { from, maxRecords, maxBytes } = options;
    const to = Math.min(options.to, this.#last, from + maxRecords - 1);
    const records: InstanceRecord[] = [];
    if (this.#first === 0 || from < this.#first || from > to) return records;
    let bytes = 0;
    const span = { from: instanceKey(from), to: instanceKey(to + 1), entriesMax: to - from + 1 };
    for await (const chunk of this.#store.chunks(span)) {
      for (const [key, value] of chunk) {
        const instance = from + records.length;
        const raw = orDamaged({ instance }, () => decodeInstance(this.#crypto, key, value));
        if (raw.instance !== instance) throw damaged("journal", `instance ${instance} is missing`, { instance });
        bytes += raw.batch.length;
        if (records.length > 0 && bytes > maxBytes) return records;
        records.push(orDamaged({ instance }, () => completeInstance(raw)));
      }
    }
    const next = from + records.length;
    if (next <= to) throw damaged("journal", `instance ${next} is missing`, { instance: next });
    return records;
  }

  async close(): Promise<void> {
    await this.#queue.close();
    await this.#store.close();
  }

  /** Everything up to the call of the store is synchronous, so batches are copied once and in the order of the calls. */
  async #writeGroup(appends: readonly Append[]): Promise<void> {
    const write = this.#write + 1;
    const group = new Group(this.#stop);
    for (const records of appends) for (const record of records) this.#add(group, record);
    const changes = group.changes;
    const by = { write, withControl: group.needsControl };
    for (const [key, record] of group.instances) changes.push([key, encodeInstance(this.#crypto, key, record, by)]);
    if (group.needsControl) {
      const key = controlKey(write);
      const { superseded, cleanStop } = group;
      changes.push([
        key,
        encodeControl(this.#crypto, key, { view: this.#view, regency: this.#regency, superseded, cleanStop }),
      ]);
      this.#stop = cleanStop ? { write, superseded } : null;
    }
    if (changes.length === 0) return;
    await this.#store.write(changes);
    this.#write = write;
    if (group.last === 0) return;
    if (this.#first === 0) this.#first = group.first;
    this.#last = Math.max(this.#last, group.last);
  }

  #add(group: Group, record: JournalRecord): void {
    switch (record.type) {
      case "instance":
        this.#addInstance(group, record);
        break;
      case "regency":
        group.control(null);
        if (record.view > this.#view || (record.view === this.#view && record.regency > this.#regency)) {
          this.#view = record.view;
          this.#regency = record.regency;
        }
        break;
      case "cleanStop":
        group.control(record.messages);
        break;
      case "started":
        group.control(null);
        break;
      default:
        assertNever(record);
    }
  }

  #addInstance(group: Group, record: InstanceRecord): void {
    const key = instanceKey(record.instance);
    if (record.instance <= this.#last) {
      const { instance } = record;
      const value = this.#store.get(key);
      if (!value) throw damaged("journal", `instance ${instance} is missing`, { instance });
      group.supersede(orDamaged({ instance }, () => decodeInstance(this.#crypto, key, value)).write);
    }
    group.instance(key, record);
  }
}

/** One write in the making. */
class Group {
  readonly changes: Change[] = [];
  readonly instances: (readonly [key: Uint8Array, record: InstanceRecord])[] = [];
  readonly superseded: number[] = [];
  cleanStop: readonly Uint8Array[] | null = null;
  needsControl = false;
  first = 0;
  last = 0;
  #stop: Scan["stop"];

  constructor(stop: Scan["stop"]) {
    this.#stop = stop;
  }

  /** A control record is due; whatever messages an earlier clean stop left behind go. */
  control(cleanStop: readonly Uint8Array[] | null): void {
    this.needsControl = true;
    this.cleanStop = cleanStop;
    if (!this.#stop) return;
    this.changes.push([controlKey(this.#stop.write), null]);
    this.superseded.push(this.#stop.write, ...this.#stop.superseded);
    this.#stop = null;
  }

  supersede(write: number): void {
    this.control(null);
    this.superseded.push(write);
  }

  instance(key: Uint8Array, record: InstanceRecord): void {
    const { instance } = record;
    this.cleanStop = null;
    this.instances.push([key, record]);
    this.first = this.first === 0 ? instance : Math.min(this.first, instance);
    this.last = Math.max(this.last, instance);
  }
}
