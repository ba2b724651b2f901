/**
 * The replicated state in memory, in front of what is on disk (docs/protocol.md section 6: "the state is written in groups
 * of whole instances, write-behind from memory"). A read sees every change made so far, whether its group is still being
 * collected, handed out and not durable yet, or on disk.
 *
 * Keys are latin1 strings; the first character is the name space.
 */
import { assert } from "../../protocol/errors.ts";
import type { ServiceState, StoredState } from "./contract.ts";
import { Arena, ValueCache } from "./value-cache.ts";

/** Entries of the service. */
export const SERVICE_SPACE = "k";
/** Clients and their sessions. */
export const CLIENT_SPACE = "c";
/** Executed sequences with their cached replies. */
export const SEQUENCE_SPACE = "q";
/** Grants of clients. */
export const GRANT_SPACE = "g";
/** Single values: the client table's floor. */
export const META_SPACE = "m";

export const VALUE_CACHE_BYTES_MAX = 32 * 1024 * 1024;

/** Changes by key; null deletes. */
export type Changes = ReadonlyMap<string, Uint8Array | null>;

export class ReplicatedState {
  readonly #stored: StoredState;
  readonly #cache: ValueCache;
  /** Changes since the last group was taken. */
  #current = new Map<string, Uint8Array | null>();
  /** Groups taken and not durable yet, oldest first. */
  readonly #inFlight: Map<string, Uint8Array | null>[] = [];
  readonly #arena = new Arena();

  constructor(stored: StoredState, cacheBytesMax = VALUE_CACHE_BYTES_MAX) {
    this.#stored = stored;
    this.#cache = new ValueCache(cacheBytesMax);
  }

  get(key: string): Uint8Array | undefined {
    const changed = this.#current.get(key);
    if (changed !== undefined) return changed ?? undefined;
    for (let index = this.#inFlight.length - 1; index >= 0; index--) {
      const flying = this.#inFlight[index]?.get(key);
      if (flying !== undefined) return flying ?? undefined;
    }
    const cached = this.#cache.get(key);
    if (cached) return cached;
    const stored = this.#stored.get(key);
    if (stored) this.#cache.set(key, stored);
    return stored;
  }

  /** Copies `value`. */
  set(key: string, value: Uint8Array): void {
    this.#current.set(key, this.#arena.copy(value));
  }

  delete(key: string): void {
    this.#current.set(key, null);
  }

  /** Everything changed since the last call, to be written as one group; possibly empty. */
  takeGroup(): Changes {
    const group = this.#current;
    this.#current = new Map();
    this.#inFlight.push(group);
    return group;
  }

  /** The oldest group taken is on disk: reads of its keys may go there. */
  groupDurable(): void {
    const group = this.#inFlight.shift();
    assert(group, "a group became durable that was not taken");
    for (const [key, value] of group) {
      // Only the service reads single keys; the client table lives in memory as a whole.
      if (!key.startsWith(SERVICE_SPACE)) continue;
      if (value) this.#cache.refresh(key, value);
      else this.#cache.delete(key);
    }
  }
}

/** The service's name space of a state. */
export class ServiceSpace implements ServiceState {
  readonly #state: ReplicatedState;

  constructor(state: ReplicatedState) {
    this.#state = state;
  }

  get(key: string): Uint8Array | undefined {
    return this.#state.get(SERVICE_SPACE + key);
  }

  set(key: string, value: Uint8Array): void {
    this.#state.set(SERVICE_SPACE + key, value);
  }

  delete(key: string): void {
    this.#state.delete(SERVICE_SPACE + key);
  }
}
