/**
 * A service that keeps its state in memory in a form of its own, and says what it is as bytes: `snapshot()` after each batch,
 * `install()` at the start. The library keeps those bytes as entries of the state, in chunks of which only the changed ones
 * are written; so they are part of every checkpoint, root and transfer, at every instance exactly
 * ([docs/decisions/024](../../docs/decisions/024-entries-are-the-snapshot.md)). For states up to some MiB: each batch that
 * changes something costs one `snapshot()`. Larger ones belong into entries of their own.
 *
 * Stored form: "" -> length of the snapshot (u53); chunk number (4 bytes, big-endian) -> its bytes.
 */
import { concat, sameBytes } from "../../protocol/bytes.ts";
import { Malformed, QuorateError } from "../../protocol/errors.ts";
import { Reader, Writer } from "../../protocol/layout.ts";
import type { AccessRules, ExecutionContext, OrderedBatch, Service, ServiceFactory, ServiceState } from "./contract.ts";

const LENGTH_KEY = "";
const CHUNK_BYTES = 16 * 1024;

export interface SnapshottedService extends Omit<Service, "load"> {
  /** The whole state: the same bytes on every replica after the same batches. */
  snapshot(): Uint8Array;
  /** Takes on the state of a snapshot; once at most, before anything else. @throws Malformed when it is none */
  install(snapshot: Uint8Array): void;
}

/** A factory for `Replica.start` of a service with `snapshot` and `install`. */
export function snapshotted(create: () => SnapshottedService): ServiceFactory {
  return (state) => new SnapshotKeeper(state, create());
}

class SnapshotKeeper implements Service {
  readonly #state: ServiceState;
  readonly #service: SnapshottedService;
  /** The snapshot as it is stored. */
  #stored: Uint8Array = new Uint8Array(0);
  /** While it is loaded: its length, and the chunks so far. 0 and none once it is complete. */
  #length = 0;
  #loaded: Uint8Array[] = [];
  /** Did anything happen that may have changed the state? */
  #touched = false;

  constructor(state: ServiceState, service: SnapshottedService) {
    this.#state = state;
    this.#service = service;
  }

  get revision(): number | undefined {
    return this.#service.revision;
  }

  get accessRules(): AccessRules | undefined {
    return this.#service.accessRules;
  }

  load(key: string, value: Uint8Array): void {
    if (key === LENGTH_KEY) {
      const reader = new Reader(value);
      this.#length = reader.u53();
      reader.end();
    } else {
      const left = this.#length - this.#loaded.length * CHUNK_BYTES;
      const fits = left > 0 && value.length === Math.min(left, CHUNK_BYTES);
      if (!fits || key !== chunkKey(this.#loaded.length)) throw new Malformed("SNAPSHOT_CHUNK");
      // The stored bytes are a view.
      this.#loaded.push(value.slice());
    }
    if (this.#length > this.#loaded.length * CHUNK_BYTES) return;
    this.#stored = concat(this.#loaded);
    this.#length = 0;
    this.#loaded = [];
    this.#service.install(this.#stored.slice());
  }

  beginBatch(batch: OrderedBatch): void {
    this.#requireWhole();
    this.#touched = this.#service.beginBatch !== undefined;
    this.#service.beginBatch?.(batch);
  }

  execute(command: Uint8Array, context: ExecutionContext): Uint8Array {
    this.#touched = true;
    return this.#service.execute(command, context);
  }

  endBatch(): void {
    this.#service.endBatch?.();
    if (this.#touched || this.#service.endBatch) this.#store(this.#service.snapshot());
  }

  query(command: Uint8Array): Uint8Array | null {
    this.#requireWhole();
    return this.#service.query(command);
  }

  grows(command: Uint8Array): boolean {
    return this.#service.grows?.(command) ?? true;
  }

  /** Its last chunks are missing: only now is that known. */
  #requireWhole(): void {
    if (this.#length === 0) return;
    const detail = { store: "state", code: "SNAPSHOT_INCOMPLETE" };
    throw new QuorateError("STORAGE_DAMAGED", "the stored state lacks a part of the service's snapshot", detail);
  }

  /** Writes the chunks that differ from what is stored. */
  #store(given: Uint8Array): void {
    const snapshot = given.slice();
    const before = this.#stored;
    if (sameBytes(snapshot, before)) return;
    const end = Math.max(snapshot.length, before.length);
    for (let at = 0; at < end; at += CHUNK_BYTES) {
      const chunk = snapshot.subarray(at, at + CHUNK_BYTES);
      if (chunk.length === 0) this.#state.delete(chunkKey(at / CHUNK_BYTES));
      else if (!sameBytes(chunk, before.subarray(at, at + CHUNK_BYTES)))
        this.#state.set(chunkKey(at / CHUNK_BYTES), chunk);
    }
    if (snapshot.length !== before.length) this.#state.set(LENGTH_KEY, new Writer(8).u53(snapshot.length).finish());
    this.#stored = snapshot;
  }
}

function chunkKey(index: number): string {
  return String.fromCharCode(index >>> 24, (index >>> 16) & 0xff, (index >>> 8) & 0xff, index & 0xff);
}
