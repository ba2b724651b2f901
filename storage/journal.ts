/**
 * The journal (docs/protocol.md sections 4 and 6): what this replica accepted and what was decided, every write synced
 * before anybody hears of it; also the log that others catch up from.
 *
 * Invariants: 1. instances are contiguous and continue the base. 2. writes are numbered from 0 (the founding), and every record
 * names its write. A write that removes or replaces records of earlier ones lists their numbers, and dropping the beginning
 * of the log raises the number from which they count, so a write lost in the middle is noticed at open. 3. a clean stop
 * counts only while it is the newest write.
 */
import type { Digest } from "../protocol/bytes.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assert, assertNever } from "../protocol/errors.ts";
import type { Certificate } from "../protocol/messages.ts";
import { type ByteStore, type Change, damaged, WHOLE_STORE } from "./byte-store.ts";
import type {
  Founding,
  InstanceRecord,
  Journal,
  JournalBase,
  JournaledRegency,
  JournalRecord,
  JournalSummary,
} from "./contract.ts";
import { HeldRecords } from "./held-records.ts";
import { orDamaged, readRecord, type Scan } from "./journal-scan.ts";
import {
  type ControlRecord,
  completeInstance,
  controlKey,
  decodeInstance,
  encodeControl,
  encodeFounding,
  encodeInstance,
  FOUNDING_KEY,
  instanceKey,
  newerCertificate,
} from "./records.ts";
import { WriteQueue } from "./write-queue.ts";

/** Appends that wait while a write is under way are joined up to this size. */
const GROUP_BYTES_MAX = 8 * 1024 * 1024;
/** Rough size of a record besides its batch. */
const RECORD_BYTES = 1024;

/** What waits for its write: an append, or that all records below an instance be dropped, which is written alone. */
type Waiting = readonly JournalRecord[] | { readonly below: number };

function isAppend(waiting: Waiting): waiting is readonly JournalRecord[] {
  return Array.isArray(waiting);
}

function bytesOf(waiting: Waiting): number {
  if (!isAppend(waiting)) return GROUP_BYTES_MAX + 1;
  let bytes = 0;
  for (const record of waiting) bytes += RECORD_BYTES + (record.type === "instance" ? record.batch.length : 0);
  return bytes;
}

/** Where a journal begins that has no records yet. */
export interface Beginning {
  readonly founding: Founding;
  readonly base: JournalBase;
  readonly keptCertificate: Certificate | null;
  readonly forgotten: JournalSummary["forgotten"];
}

/** Writes the founding into an empty store and moves it out of reach of a damaged log. */
export async function foundJournal(store: ByteStore, crypto: Crypto, beginning: Beginning): Promise<Scan> {
  const { founding, base, keptCertificate, forgotten } = beginning;
  // A journal nobody wrote to yet stands for no votes, unless it is there in place of another one.
  const cleanStop = forgotten ? null : [];
  const writes = { writesFrom: 0, controlsFrom: 0, superseded: [], bared: [] };
  const control: ControlRecord = {
    view: 0,
    regency: 0,
    wanted: 0,
    base,
    ...writes,
    keptCertificate,
    forgotten,
    cleanStop,
  };
  const key = controlKey(0);
  await store.write([
    [FOUNDING_KEY, encodeFounding(crypto, founding)],
    [key, encodeControl(crypto, key, control)],
  ]);
  await store.compact(WHOLE_STORE);
  return emptyScan(founding, control, 0);
}

function emptyScan(founding: Founding, control: ControlRecord, write: number): Scan {
  const { base, keptCertificate, forgotten, view, regency, wanted, cleanStop } = control;
  const summary: JournalSummary = {
    founding,
    base,
    first: 0,
    last: 0,
    newestAccepted: null,
    keptCertificate,
    forgotten,
    regency: { view, regency, wanted },
    cleanStop,
  };
  const controls = new Map([[write, control]]);
  const stop = cleanStop ? write : null;
  return { summary, write, control, controls, stop, held: new HeldRecords(base.instance) };
}

/**
 * Drops all records in one synced write: the journal begins anew above `base`. What was forgotten and the regency stay; of
 * the certificates the newest.
 */
export async function rebaseJournal(
  store: ByteStore,
  crypto: Crypto,
  options: { scan: Scan; base: JournalBase; certificate: Certificate | null },
): Promise<Scan> {
  const { scan, base, certificate } = options;
  const { summary, held, controls } = scan;
  const own = newerCertificate(summary.newestAccepted?.certificate ?? null, summary.keptCertificate);
  const write = scan.write + 1;
  const control: ControlRecord = {
    ...scan.control,
    base,
    writesFrom: write,
    controlsFrom: write,
    superseded: [],
    bared: [],
    keptCertificate: newerCertificate(own, certificate),
    cleanStop: null,
  };
  const key = controlKey(write);
  const kept: Change = [key, encodeControl(crypto, key, control)];
  await store.write(dropping({ first: held.first, below: held.last + 1, controls: [...controls.keys()], kept }));
  return emptyScan(summary.founding, control, write);
}

/** Deletes the records first <= instance < below and these control records, in favour of the one kept. */
function* dropping(options: {
  first: number;
  below: number;
  controls: readonly number[];
  kept: Change;
}): Iterable<Change> {
  const { first, below, controls, kept } = options;
  for (const write of controls) yield [controlKey(write), null];
  for (let instance = first; instance < below; instance++) yield [instanceKey(instance), null];
  yield kept;
}

export class StoredJournal implements Journal {
  readonly summary: JournalSummary;
  readonly #store: ByteStore;
  readonly #crypto: Crypto;
  readonly #queue: WriteQueue<Waiting>;
  /** What is on disk. */
  readonly #held: HeldRecords;
  #base: JournalBase;
  #last: number;
  /** Instances below this are not read any more: their records go, or went. */
  #readFrom: number;
  /** Queued, so that a gap is our bug before it is on disk. */
  #queuedFirst: number;
  #queuedLast: number;
  #write: number;
  /** As the newest control record says, or the next one will. */
  #control: ControlRecord;
  /** Control records on disk by their writes. */
  #controls: Map<number, ControlRecord>;
  #stop: number | null;

  constructor(store: ByteStore, crypto: Crypto, scan: Scan) {
    const { summary, held, control } = scan;
    this.summary = summary;
    this.#store = store;
    this.#crypto = crypto;
    this.#held = held;
    this.#base = summary.base;
    this.#last = held.last;
    this.#readFrom = held.first;
    this.#queuedFirst = held.first;
    this.#queuedLast = held.last;
    this.#write = scan.write;
    this.#control = control;
    this.#controls = new Map(scan.controls);
    this.#stop = scan.stop;
    this.#queue = new WriteQueue({
      store: "journal",
      bytesMax: GROUP_BYTES_MAX,
      bytesOf,
      write: (waiting) => this.#writeNext(waiting),
    });
  }

  get base(): JournalBase {
    return this.#base;
  }

  get last(): number {
    return this.#last;
  }

  get logBytes(): number {
    return this.#held.bytes;
  }

  append(records: readonly JournalRecord[]): Promise<void> {
    for (const record of records) {
      if (record.type !== "instance") continue;
      const { instance } = record;
      const follows = instance >= this.#queuedFirst && instance <= this.#queuedLast + 1;
      assert(follows, "journaled instances are contiguous");
      this.#queuedLast = Math.max(this.#queuedLast, instance);
    }
    return this.#queue.push(records);
  }

  truncate(instance: number): Promise<void> {
    assert(instance <= this.#queuedLast, "the log keeps at least the instance it is truncated to");
    this.#queuedFirst = Math.max(this.#queuedFirst, instance);
    return this.#queue.push({ below: instance });
  }

  async read(instance: number): Promise<InstanceRecord | null> {
    const range = { from: instance, to: instance, maxRecords: 1, maxBytes: Number.POSITIVE_INFINITY };
    return (await this.range(range))[0] ?? null;
  }

  async range(options: { from: number; to: number; maxRecords: number; maxBytes: number }): Promise<InstanceRecord[]> {
    const { from, maxRecords, maxBytes } = options;
    const to = Math.min(options.to, this.#last, from + maxRecords - 1);
    const records: InstanceRecord[] = [];
    if (from < this.#readFrom || from > to) return records;
    let bytes = 0;
    const span = { from: instanceKey(from), to: instanceKey(to + 1), entriesMax: to - from + 1 };
    for await (const chunk of this.#store.chunks(span)) {
      for (const [key, value] of chunk) {
        const instance = from + records.length;
        const raw = orDamaged({ instance }, () => decodeInstance(this.#crypto, key, value));
        if (raw.instance !== instance) return this.#missing(instance);
        bytes += raw.batch.length;
        if (records.length > 0 && bytes > maxBytes) return records;
        records.push(orDamaged({ instance }, () => completeInstance(raw)));
      }
    }
    const next = from + records.length;
    return next <= to ? this.#missing(next) : records;
  }

  async digestAt(instance: number): Promise<Digest | null> {
    if (instance === this.#base.instance) return this.#base.digest;
    return (await this.read(instance))?.digest ?? null;
  }

  async close(): Promise<void> {
    await this.#queue.close();
    await this.#store.close();
  }

  /** Records dropped while they were being read were not held; any other gap is damage. */
  #missing(instance: number): InstanceRecord[] {
    if (instance < this.#readFrom) return [];
    throw damaged("journal", `instance ${instance} is missing`, { instance });
  }

  #writeNext(waiting: readonly Waiting[]): Promise<void> {
    const [first] = waiting;
    return first && !isAppend(first) ? this.#writeTruncation(first.below) : this.#writeGroup(waiting.filter(isAppend));
  }

  /** Everything up to the call of the store is synchronous, so batches are copied once and in the order of the calls. */
  async #writeGroup(appends: readonly (readonly JournalRecord[])[]): Promise<void> {
    const write = this.#write + 1;
    const stop = this.#stop;
    const group = new Group(stop === null ? null : { write: stop, control: this.#controls.get(stop) });
    for (const records of appends) for (const record of records) this.#add(group, record);
    const changes = group.changes;
    const by = { write, withControl: group.needsControl };
    for (const [key, record] of group.instances) {
      const value = encodeInstance(this.#crypto, key, record, by);
      changes.push([key, value]);
      const size = { write, bytes: key.length + value.length, accepted: record.certificate !== null };
      this.#held.set(record.instance, size);
    }
    if (group.needsControl) {
      this.#control = { ...this.#control, ...this.#accountedBy(group), cleanStop: group.cleanStop };
      const key = controlKey(write);
      changes.push([key, encodeControl(this.#crypto, key, this.#control)]);
      if (stop !== null) this.#controls.delete(stop);
      this.#controls.set(write, this.#control);
      this.#stop = group.cleanStop ? write : null;
    }
    if (changes.length === 0) return;
    await this.#store.write(changes);
    this.#write = write;
    this.#last = this.#held.last;
  }

  /** Of the writes that lost a record, those that have none left, and those that lost their control record alone. */
  #accountedBy({ touched, bared }: Group): { superseded: number[]; bared: number[] } {
    const left = (write: number) => this.#held.cameWith(write);
    return { superseded: touched.filter((write) => !left(write)), bared: bared.filter(left) };
  }

  async #writeTruncation(below: number): Promise<void> {
    const { first } = this.#held;
    if (below <= first) return;
    const write = this.#write + 1;
    const accepted = this.#held.newestAccepted(below);
    const certificate = accepted > 0 ? readRecord(this.#store, this.#crypto, accepted).certificate : null;
    const { digest } = readRecord(this.#store, this.#crypto, below - 1);
    const controls = [...this.#controls.keys()];
    const base = { instance: below - 1, digest };
    this.#control = {
      ...this.#control,
      ...this.#held.accountFrom(below, write),
      controlsFrom: write,
      bared: [],
      base,
      keptCertificate: newerCertificate(this.#control.keptCertificate, certificate),
      cleanStop: null,
    };
    const key = controlKey(write);
    const kept: Change = [key, encodeControl(this.#crypto, key, this.#control)];
    this.#readFrom = below;
    await this.#store.write(dropping({ first, below, controls, kept }));
    this.#write = write;
    this.#base = base;
    this.#held.dropBelow(below);
    this.#controls = new Map([[write, this.#control]]);
    this.#stop = null;
    // In the background; when it does not work the room comes back with a later compaction of LevelDB's own.
    this.#store.compact({ from: instanceKey(first), to: instanceKey(below) }).catch(() => {});
  }

  #add(group: Group, record: JournalRecord): void {
    switch (record.type) {
      case "instance":
        this.#addInstance(group, record);
        break;
      case "forgotten":
        group.control(null);
        this.#control = { ...this.#control, forgotten: { until: record.until, regency: record.regency } };
        break;
      case "remembered":
        group.control(null);
        this.#control = { ...this.#control, forgotten: null };
        break;
      case "regency":
        group.control(null);
        this.#raise({ ...record, wanted: record.regency });
        break;
      case "wanted":
        group.control(null);
        this.#raise({ ...record, regency: 0, wanted: record.regency });
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

  /** Both only rise within a view, and begin anew in the next one. */
  #raise({ view, regency, wanted }: JournaledRegency): void {
    const before = this.#control;
    if (view > before.view) this.#control = { ...before, view, regency, wanted };
    if (view !== before.view) return;
    this.#control = {
      ...before,
      regency: Math.max(regency, before.regency),
      wanted: Math.max(wanted, before.wanted),
    };
  }

  #addInstance(group: Group, record: InstanceRecord): void {
    const { instance } = record;
    if (instance <= this.#last) group.supersede(this.#held.write(instance));
    group.instance(instanceKey(instance), record);
  }
}

/** One write in the making. */
class Group {
  readonly changes: Change[] = [];
  readonly instances: (readonly [key: Uint8Array, record: InstanceRecord])[] = [];
  /** Writes that lost a record to this one, or did to the control record that it removes. */
  readonly touched: number[] = [];
  /** Those of them that lost their control record. */
  readonly bared: number[] = [];
  cleanStop: readonly Uint8Array[] | null = null;
  needsControl = false;
  #stop: { readonly write: number; readonly control: ControlRecord | undefined } | null;

  /** `stop`: the control record that still holds messages of a clean stop. */
  constructor(stop: { readonly write: number; readonly control: ControlRecord | undefined } | null) {
    this.#stop = stop;
  }

  /** A control record is due; whatever messages an earlier clean stop left behind go. */
  control(cleanStop: readonly Uint8Array[] | null): void {
    this.needsControl = true;
    this.cleanStop = cleanStop;
    if (!this.#stop) return;
    const { write, control } = this.#stop;
    this.changes.push([controlKey(write), null]);
    this.touched.push(write, ...(control?.superseded ?? []), ...(control?.bared ?? []));
    this.bared.push(write, ...(control?.bared ?? []));
    this.#stop = null;
  }

  supersede(write: number): void {
    this.control(null);
    this.touched.push(write);
  }

  instance(key: Uint8Array, record: InstanceRecord): void {
    this.cleanStop = null;
    this.instances.push([key, record]);
  }
}
