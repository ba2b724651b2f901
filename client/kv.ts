/**
 * `Kv`: the key-value store as callers see it (docs/protocol.md sections 3 and 8). Reads and writes are linearizable, each
 * answer one that a quorum of replicas gave, unless a read asks for `consistency: "local"`. A missing key is `null`; every failure is a `QuorateError` with a code.
 */
import { bytesOf, hex, latin1, prefixEnd } from "../protocol/bytes.ts";
import { type Command, encodeCommand, type Result, type WireEntry } from "../protocol/commands.ts";
import { decoded, isRejection, QuorateError } from "../protocol/errors.ts";
import { RANGE_ENTRIES_MAX } from "../protocol/limits.ts";
import type { View } from "../protocol/view.ts";
import { boundOf, conditionOf, continuationKey, keyOf, textOfKey, valueBytes } from "./arguments.ts";
import type { Codec } from "./codecs.ts";
import { ConflictError, type RequestId } from "./errors.ts";
import type {
  CallOptions,
  CasOptions,
  Consistency,
  Deleted,
  DeleteOptions,
  Entry,
  Key,
  KeyEntry,
  Outcome,
  Page,
  PageOptions,
  PutOptions,
  RangeOptions,
  ReadOptions,
  ScanOptions,
  Swap,
  WriteOptions,
  Written,
} from "./kv-types.ts";
import type { ReplicaState } from "./replicas.ts";
import { crowdedOut, readResult, refusal, unexpected } from "./results.ts";
import type { ServiceProxy } from "./service-proxy.ts";

/** Defaults of one connection. */
export interface KvDefaults {
  readonly orderedReads: boolean;
  readonly consistency: Consistency;
}

/**
 * A connection to a cluster, and a codec for its values. Calls may run concurrently: what is issued in one turn of the event
 * loop travels in one request, in any order.
 *
 * @example
 * ```ts
 * const kv = await connect({ cluster: ".kv/cluster.json" });
 * const { revision } = await kv.put("greeting", "hello");
 * await kv.put("greeting", "hello again", { ifRevision: revision });
 * const entry = await kv.get("greeting"); // { key: "greeting", value: "hello again", version: 2n, ... } or null
 * for await (const { key, value } of kv.range({ prefix: "greet" })) console.log(key, value);
 * await kv.close();
 * ```
 */
export class Kv<T> implements AsyncDisposable {
  /** The same connection for opaque commands: what every method here is made of. */
  readonly service: ServiceProxy;
  readonly #codec: Codec<T>;
  readonly #defaults: KvDefaults;

  /** Use `connect()`. */
  constructor(service: ServiceProxy, codec: Codec<T>, defaults: KvDefaults) {
    this.service = service;
    this.#codec = codec;
    this.#defaults = defaults;
  }

  /** The same connection with another codec: `kv.withCodec(json<User>())`. Closing either closes both. */
  withCodec<U>(codec: Codec<U>): Kv<U> {
    return new Kv(this.service, codec, this.#defaults);
  }

  /** This client's id: 64 hexadecimal digits. */
  get clientId(): string {
    return this.service.clientId;
  }

  /**
   * The membership in force as far as this client has followed it: who the replicas are, and how many of them decide. It
   * follows every change that the cluster's administrators make, by its proof.
   */
  get view(): View {
    return this.service.view;
  }

  /** The replicas of the cluster, and which of them are connected. */
  replicas(): ReplicaState[] {
    return this.service.replicas();
  }

  /**
   * Writes a value.
   * @throws ConflictError CONFLICT when `ifRevision` or `ifAbsent` does not hold; nothing is written then.
   * @throws UnknownOutcomeError UNKNOWN_OUTCOME, QUORUM_UNAVAILABLE, ABORTED, CLOSED when it was sent and its result is
   *   not known: see `outcome()`.
   * @throws QuorateError KEY_EMPTY, KEY_TOO_LARGE, VALUE_TOO_LARGE, INVALID_ARGUMENT, DEADLINE, STORAGE_FULL, REFUSED,
   *   TIMEOUT, QUORUM_UNAVAILABLE (not sent)
   * @example
   * ```ts
   * const { revision } = await kv.put("color", "red", { ifAbsent: true });
   * ```
   */
  put(key: Key, value: T, options: PutOptions = {}): Promise<Written> {
    return this.#write(
      options,
      () => ({ type: "put", key: keyOf(key), value: valueBytes(this.#codec, value), ifRevision: conditionOf(options) }),
      (result) => {
        if (result.type === "written") return written(result);
        if (result.type === "conflict") throw new ConflictError(BigInt(result.modRevision));
        throw refusal(result);
      },
    );
  }

  /**
   * Reads a key, or null when it is absent.
   * @throws QuorateError KEY_EMPTY, KEY_TOO_LARGE, DECODE_FAILED (the value does not fit the codec), TIMEOUT,
   *   QUORUM_UNAVAILABLE, ABORTED, CLOSED
   * @example
   * ```ts
   * const entry = await kv.get("color");
   * console.log(entry?.value, entry?.modRevision);
   * ```
   */
  get(key: Key, options: ReadOptions = {}): Promise<Entry<T> | null> {
    return this.#read(
      options,
      () => ({ type: "get", key: keyOf(key) }),
      (result, command) => {
        if (result.type === "absent") return null;
        if (result.type !== "found") throw refusal(result);
        const text = typeof key === "string";
        const keyBytes = text ? command.key : new Uint8Array(command.key);
        const name = text ? key : textOfKey(keyBytes);
        return { key: name, keyBytes, value: this.#codec.decode(result.value), ...revisions(result) };
      },
    );
  }

  /**
   * Deletes a key; `deleted` is false when it was absent.
   * @throws ConflictError CONFLICT when `ifRevision` does not hold. Otherwise as `put`.
   * @example
   * ```ts
   * const { deleted } = await kv.delete("color");
   * ```
   */
  delete(key: Key, options: DeleteOptions = {}): Promise<Deleted> {
    return this.#write(
      options,
      () => ({ type: "delete", key: keyOf(key), ifRevision: conditionOf(options) }),
      (result) => {
        if (result.type === "deleted") return { deleted: true, revision: BigInt(result.revision) };
        if (result.type === "absent") return { deleted: false, revision: BigInt(result.revision) };
        if (result.type === "conflict") throw new ConflictError(BigInt(result.modRevision));
        throw refusal(result);
      },
    );
  }

  /**
   * Compare-and-swap: writes when the key's modRevision is `expect`. Losing is an answer, not an error.
   * @throws as `put`, CONFLICT excepted.
   * @example
   * ```ts
   * const { swapped, revision } = await kv.cas("counter", { expect: "absent", value: "1" });
   * ```
   */
  cas(key: Key, options: CasOptions<T>): Promise<Swap> {
    const { expect, value } = options;
    return this.#write(
      options,
      () => ({
        type: "cas",
        key: keyOf(key),
        expect: conditionOf({ ifRevision: expect === "absent" ? 0n : expect }) ?? 0,
        value: valueBytes(this.#codec, value),
      }),
      (result) => {
        if (result.type === "written") return { swapped: true, revision: BigInt(result.modRevision) };
        if (result.type === "conflict") return { swapped: false, revision: BigInt(result.modRevision) };
        throw refusal(result);
      },
    );
  }

  /**
   * One page of a range, atomic: all of it at one store revision.
   * @throws QuorateError INVALID_ARGUMENT, DECODE_FAILED, TIMEOUT, QUORUM_UNAVAILABLE, ABORTED, CLOSED
   * @example
   * ```ts
   * const first = await kv.page({ prefix: "u/", limit: 100 });
   * const second = first.continuation && (await kv.page({ prefix: "u/", limit: 100, continuation: first.continuation }));
   * ```
   */
  page(options: PageOptions & { keysOnly: true }): Promise<Page<KeyEntry>>;
  page(options?: PageOptions & { keysOnly?: false | undefined }): Promise<Page<Entry<T>>>;
  page(options?: PageOptions): Promise<Page<KeyEntry | Entry<T>>>;
  page(options: PageOptions = {}): Promise<Page<KeyEntry | Entry<T>>> {
    return this.#read(
      options,
      () => rangeCommand(options),
      (result) => {
        if (result.type !== "page") throw refusal(result);
        const entries = result.entries.map((entry) => this.#entry(entry, options.keysOnly === true));
        const last = result.entries.at(-1);
        if (result.more && last === undefined) throw unexpected("an empty page that is not the last");
        const continuation = result.more && last ? hex(last.key) : null;
        return { entries, revision: BigInt(result.revision), continuation };
      },
    );
  }

  /**
   * The entries of a range in key order, fetched page by page. Each page is atomic, the whole is not: writes meanwhile may or
   * may not be seen.
   * @throws as `page`, from the iteration.
   * @example
   * ```ts
   * for await (const { key, value } of kv.range({ prefix: "u/", limit: 1_000 })) console.log(key, value);
   * ```
   */
  range(options: ScanOptions & { keysOnly: true }): AsyncGenerator<KeyEntry, void, undefined>;
  range(options?: ScanOptions & { keysOnly?: false | undefined }): AsyncGenerator<Entry<T>, void, undefined>;
  range(options?: ScanOptions): AsyncGenerator<KeyEntry | Entry<T>, void, undefined>;
  async *range(options: ScanOptions = {}): AsyncGenerator<KeyEntry | Entry<T>, void, undefined> {
    const { pageSize = 0, limit = Number.POSITIVE_INFINITY, ...rest } = options;
    let left = limit;
    let continuation: string | undefined;
    while (left > 0) {
      const size = Math.min(left, pageSize > 0 ? pageSize : RANGE_ENTRIES_MAX);
      const page: Page<KeyEntry | Entry<T>> = await this.page({ ...rest, limit: size, continuation });
      yield* page.entries;
      left -= page.entries.length;
      if (page.continuation === null) return;
      continuation = page.continuation;
    }
  }

  /**
   * What became of a write whose outcome was unknown. If it has not been executed by then, it is cancelled for ever: after an
   * answer other than "unknown", writing again is safe.
   * @throws QuorateError TIMEOUT, QUORUM_UNAVAILABLE, ABORTED, CLOSED: ask again
   * @example
   * ```ts
   * try {
   *   await kv.put("color", "blue", { timeoutMs: 200 });
   * } catch (error) {
   *   if (!(error instanceof UnknownOutcomeError)) throw error;
   *   const outcome = await kv.outcome(error.requestId);
   *   if (outcome.type === "cancelled") await kv.put("color", "blue");
   * }
   * ```
   */
  async outcome(requestId: RequestId, options: CallOptions = {}): Promise<Outcome> {
    const outcome = await this.service.outcome(requestId, options);
    if (outcome.type !== "replied") return outcome;
    const result = decoded(() => readResult(outcome.bytes));
    return { ...outcome, result: isRejection(result) ? null : result };
  }

  /** Rejects what is pending with CLOSED and closes every connection. Await your calls first. */
  async close(): Promise<void> {
    await this.service.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #write<R>(options: WriteOptions, command: () => Command, decode: (result: Result) => R): Promise<R> {
    const { timeoutMs, deadlineMs, signal } = options;
    const bytes = encodeCommand(command());
    return decode(readResult(await this.service.invokeOrderedHashed(bytes, { timeoutMs, deadlineMs, signal })));
  }

  async #read<C extends Command, R>(
    options: ReadOptions,
    command: () => C,
    decode: (result: Result, command: C) => R,
  ): Promise<R> {
    const { timeoutMs, signal, consistency = this.#defaults.consistency } = options;
    const ordered = options.ordered ?? (consistency !== "local" && this.#defaults.orderedReads);
    const made = command();
    const submit = { timeoutMs, signal, consistency, ordered, crowdedOut };
    return decode(readResult(await this.service.invokeUnorderedHashed(encodeCommand(made), submit)), made);
  }

  #entry(entry: WireEntry, keysOnly: boolean): KeyEntry | Entry<T> {
    const keyBytes = new Uint8Array(entry.key);
    const key = textOfKey(keyBytes);
    if (keysOnly) return { key, keyBytes, ...revisions(entry) };
    if (entry.value === null) throw unexpected("an entry without its value");
    return { key, keyBytes, value: this.#codec.decode(entry.value), ...revisions(entry) };
  }
}

interface WireRevisions {
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
}

function revisions(wire: WireRevisions): Omit<KeyEntry, "key" | "keyBytes"> {
  return {
    createRevision: BigInt(wire.createRevision),
    modRevision: BigInt(wire.modRevision),
    version: BigInt(wire.version),
  };
}

function written(wire: WireRevisions): Written {
  return {
    revision: BigInt(wire.modRevision),
    createRevision: BigInt(wire.createRevision),
    version: BigInt(wire.version),
  };
}

/** The command for a page; a continuation moves the bound the iteration starts from. */
function rangeCommand(options: RangeOptions & PageOptions): Extract<Command, { type: "range" }> {
  const { prefix, limit = 0, reverse = false, keysOnly = false, continuation } = options;
  if (prefix !== undefined && (options.from !== undefined || options.to !== undefined)) {
    throw new QuorateError("INVALID_ARGUMENT", "give either prefix, or from and to");
  }
  if (!Number.isSafeInteger(limit) || limit < 0) {
    throw new QuorateError("INVALID_ARGUMENT", `limit must be an integer from 0, not ${limit}`);
  }
  let from = boundOf(prefix ?? options.from ?? "");
  const end = prefix === undefined ? undefined : prefixEnd(latin1(from));
  let to = end != null ? bytesOf(end) : options.to === undefined ? null : boundOf(options.to);
  if (continuation !== undefined) {
    const last = continuationKey(continuation);
    if (reverse) to = last;
    else from = new Uint8Array([...last, 0]);
  }
  return { type: "range", from, to, limit: Math.min(limit, RANGE_ENTRIES_MAX), reverse, keysOnly };
}
