/**
 * The key-value service (commands and results: protocol/commands.ts). Every entry carries createRevision, modRevision and
 * version; the store revision rises by one per mutation. Keys and revisions are indexed in memory in byte order, values
 * are read through the state (docs/protocol.md section 6).
 *
 * Stored form: entry key -> createRevision, modRevision, version (u53 each), value. A key of a client is never empty, so
 * the empty key holds the store revision.
 */
import { bytesOf, latin1 } from "../../protocol/bytes.ts";
import {
  type Command,
  decodeCommand,
  encodeResult,
  type Result,
  type ResultOf,
  type WireEntry,
} from "../../protocol/commands.ts";
import { assert, assertNever, type ErrorCode, Malformed } from "../../protocol/errors.ts";
import { rangeOfKey } from "../../protocol/key-ranges.ts";
import { Reader, Writer } from "../../protocol/layout.ts";
import {
  KEY_BYTES_MAX,
  RANGE_BYTES_MAX,
  RANGE_ENTRIES_MAX,
  REQUEST_BYTES_MAX,
  VALUE_BYTES_MAX,
} from "../../protocol/limits.ts";
import type { Access, AccessRules, ExecutionContext, Service, ServiceFactory, ServiceState } from "./contract.ts";
import { OrderedIndex } from "./ordered-index.ts";
import { ValueCache } from "./value-cache.ts";

const REVISION_KEY = "";
const ENTRY_HEADER_BYTES = 24;
/** Encoded answers to gets of present keys. */
const ANSWERS_BYTES_MAX = 32 * 1024 * 1024;
/** What makes the answer to a larger value is no longer finding and encoding it. */
const ANSWER_BYTES_MAX = 4 * 1024;

interface Revisions {
  createRevision: number;
  modRevision: number;
  version: number;
}

type Variant<T extends Command["type"]> = Extract<Command, { type: T }>;

function refused(code: ErrorCode, message: string): ResultOf<"refused"> {
  return { type: "refused", code, message };
}

const REPLY_FULL = new Uint8Array(
  encodeResult(refused("BUSY", "the results before this one fill the reply; ask again in a request of its own")),
);
const MALFORMED = new Uint8Array(encodeResult(refused("INVALID_ARGUMENT", "the bytes are no command of this service")));

const NOT_PERMITTED = new Uint8Array(
  encodeResult(
    refused("NOT_PERMITTED", "this client has no right to these keys; kv client list shows what is granted"),
  ),
);

/** On raw bytes, and every end of a range: what a condition or a limit makes of it does not matter. */
function accessOf(command: Command): Access {
  switch (command.type) {
    case "get":
      return { reads: [rangeOfKey(latin1(command.key))], writes: [] };
    case "range":
      return {
        reads: [{ from: latin1(command.from), to: command.to === null ? null : latin1(command.to) }],
        writes: [],
      };
    case "put":
    case "delete":
    case "cas":
      return { reads: [], writes: [rangeOfKey(latin1(command.key))] };
    case "noop":
      return { reads: [], writes: [] };
    default:
      return assertNever(command);
  }
}

/** Why a key cannot be one, or null. */
function keyFault(key: Uint8Array): ResultOf<"refused"> | null {
  if (key.length === 0) return refused("KEY_EMPTY", "a key must have at least one byte");
  if (key.length > KEY_BYTES_MAX) {
    return refused("KEY_TOO_LARGE", `the key has ${key.length} bytes; at most ${KEY_BYTES_MAX} are allowed`);
  }
  return null;
}

function valueFault(value: Uint8Array): ResultOf<"refused"> | null {
  if (value.length <= VALUE_BYTES_MAX) return null;
  return refused("VALUE_TOO_LARGE", `the value has ${value.length} bytes; at most ${VALUE_BYTES_MAX} are allowed`);
}

/** A condition of 0 holds for an absent key, R for the modRevision R, null always. */
function conditionHolds(condition: number | null, present: Revisions | undefined): boolean {
  return condition === null || condition === (present?.modRevision ?? 0);
}

export class KvService implements Service {
  readonly #state: ServiceState;
  readonly #index = new OrderedIndex<Revisions>();
  readonly #scratch = new Writer(1024);
  /** By key, as `encodeResult` made it: whatever writes a key forgets its answer. */
  readonly #answers = new ValueCache(ANSWERS_BYTES_MAX);
  #revision = 0;

  constructor(state: ServiceState) {
    this.#state = state;
  }

  readonly accessRules: AccessRules = {
    access: (bytes) => {
      const command = this.#decode(bytes);
      return command && accessOf(command);
    },
    notPermitted: NOT_PERMITTED,
  };

  get revision(): number {
    return this.#revision;
  }

  /** Entries in the store. */
  get size(): number {
    return this.#index.size;
  }

  /** @throws Malformed when the stored bytes are no entry. */
  load(key: string, value: Uint8Array): void {
    const reader = new Reader(value);
    if (key === REVISION_KEY) {
      this.#revision = reader.u53();
      reader.end();
      return;
    }
    this.#index.set(key, { createRevision: reader.u53(), modRevision: reader.u53(), version: reader.u53() });
  }

  execute(command: Uint8Array, context: ExecutionContext): Uint8Array {
    const decoded = this.#decode(command);
    if (decoded === null) return MALFORMED;
    return this.#execute(decoded, context.replyFull);
  }

  query(command: Uint8Array): Uint8Array | null {
    const decoded = this.#decode(command);
    if (decoded === null) return MALFORMED;
    switch (decoded.type) {
      case "get":
      case "range":
      case "noop":
        return this.#execute(decoded, false);
      default:
        return null;
    }
  }

  grows(command: Uint8Array): boolean {
    const decoded = this.#decode(command);
    return decoded?.type === "put" || decoded?.type === "cas";
  }

  #decode(command: Uint8Array): Command | null {
    try {
      return decodeCommand(command);
    } catch (error) {
      if (error instanceof Malformed) return null;
      throw error;
    }
  }

  /** The encoded result. */
  #execute(command: Command, replyFull: boolean): Uint8Array {
    switch (command.type) {
      case "put":
        return encodeResult(this.#put(command.key, command.value, command.ifRevision));
      case "cas":
        return encodeResult(this.#put(command.key, command.value, command.expect));
      case "delete":
        return encodeResult(this.#delete(command));
      case "get":
        return replyFull ? REPLY_FULL : this.#get(command.key);
      case "range":
        return replyFull ? REPLY_FULL : encodeResult(this.#range(command));
      case "noop":
        return replyFull ? REPLY_FULL : encodeResult(this.#noop(command));
      default:
        return assertNever(command);
    }
  }

  #put(keyBytes: Uint8Array, value: Uint8Array, condition: number | null): Result {
    const fault = keyFault(keyBytes) ?? valueFault(value);
    if (fault) return fault;
    const key = latin1(keyBytes);
    let entry = this.#index.get(key);
    if (!conditionHolds(condition, entry)) return { type: "conflict", modRevision: entry?.modRevision ?? 0 };
    const revision = this.#mutation();
    this.#answers.delete(key);
    if (entry) {
      entry.modRevision = revision;
      entry.version += 1;
    } else {
      entry = { createRevision: revision, modRevision: revision, version: 1 };
      this.#index.set(key, entry);
    }
    const { createRevision, version } = entry;
    this.#state.set(key, this.#scratch.reset().u53(createRevision).u53(revision).u53(version).raw(value).view());
    return { type: "written", createRevision, modRevision: revision, version };
  }

  #delete(command: Variant<"delete">): Result {
    const fault = keyFault(command.key);
    if (fault) return fault;
    const key = latin1(command.key);
    const entry = this.#index.get(key);
    if (!conditionHolds(command.ifRevision, entry)) return { type: "conflict", modRevision: entry?.modRevision ?? 0 };
    if (!entry) return { type: "absent", revision: this.#revision };
    this.#index.delete(key);
    this.#answers.delete(key);
    this.#state.delete(key);
    return { type: "deleted", revision: this.#mutation() };
  }

  /** Encoded: what a present key was answered with once it is answered with until it is written. */
  #get(keyBytes: Uint8Array): Uint8Array {
    const fault = keyFault(keyBytes);
    if (fault) return encodeResult(fault);
    const key = latin1(keyBytes);
    const known = this.#answers.get(key);
    if (known) return known;
    const entry = this.#index.get(key);
    if (!entry) return encodeResult({ type: "absent", revision: this.#revision });
    const { createRevision, modRevision, version } = entry;
    const answer = encodeResult({ type: "found", value: this.#value(key), createRevision, modRevision, version });
    if (answer.length <= ANSWER_BYTES_MAX) this.#answers.set(key, answer);
    return answer;
  }

  #range(command: Variant<"range">): Result {
    const from = latin1(command.from);
    const to = command.to === null ? null : latin1(command.to);
    const limit = command.limit === 0 ? RANGE_ENTRIES_MAX : Math.min(command.limit, RANGE_ENTRIES_MAX);
    const entries: WireEntry[] = [];
    const page = (more: boolean): Result => ({ type: "page", revision: this.#revision, more, entries });
    let bytes = 0;
    for (const [key, revisions] of this.#index.range({ from, to, reverse: command.reverse })) {
      const { createRevision, modRevision, version } = revisions;
      if (entries.length === limit) return page(true);
      const value = command.keysOnly ? null : this.#value(key);
      bytes += key.length + (value?.length ?? 0);
      if (entries.length > 0 && bytes > RANGE_BYTES_MAX) return page(true);
      entries.push({ key: bytesOf(key), value, createRevision, modRevision, version });
    }
    return page(false);
  }

  #noop(command: Variant<"noop">): Result {
    if (command.replyBytes > REQUEST_BYTES_MAX) {
      return refused(
        "INVALID_ARGUMENT",
        `replyBytes is ${command.replyBytes}; at most ${REQUEST_BYTES_MAX} are allowed`,
      );
    }
    return { type: "noop", payload: new Uint8Array(command.replyBytes) };
  }

  #value(key: string): Uint8Array {
    const stored = this.#state.get(key);
    assert(stored && stored.length >= ENTRY_HEADER_BYTES, "an indexed key has a stored value");
    return stored.subarray(ENTRY_HEADER_BYTES);
  }

  /** Raises the store revision. */
  #mutation(): number {
    this.#revision += 1;
    this.#state.set(REVISION_KEY, this.#scratch.reset().u53(this.#revision).view());
    return this.#revision;
  }
}

/** The service of `kv-server`. */
export const kvService: ServiceFactory = (state) => new KvService(state);
