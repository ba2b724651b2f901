/** Builders of requests, batches and executors for the tests of server/service. */
import type { Batch } from "../../../protocol/batch.ts";
import { type Digest, hex, utf8 } from "../../../protocol/bytes.ts";
import {
  type Command,
  decodeResolution,
  decodeResult,
  decodeResults,
  encodeCommand,
  type Resolution,
  type Result,
} from "../../../protocol/commands.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { decodeRequest, encodeRequest, encodeResolve, type Request } from "../../../protocol/request.ts";
import type { ServiceState } from "../../../server/service/contract.ts";
import { Executor, type ExecutorOptions, type Founding, type OrderedReply } from "../../../server/service/executor.ts";
import { KvService } from "../../../server/service/kv-service.ts";

export const CLUSTER = nodeCrypto.sha256(utf8("a cluster"));
export const GENESIS = nodeCrypto.sha256(utf8("genesis"));
export const ALICE = nodeCrypto.sha256(utf8("alice"));
export const BOB = nodeCrypto.sha256(utf8("bob"));
export const CAROL = nodeCrypto.sha256(utf8("carol"));

export type StoredMap = Map<string, Uint8Array>;

export interface RequestOptions {
  cluster?: Digest;
  client?: Digest;
  session?: number;
  sequence?: number;
  ackedBelow?: number;
  deadlineMs?: number;
  kind?: Request["kind"];
  commands?: readonly Uint8Array[];
}

export function put(key: string, value = "v", ifRevision: number | null = null): Uint8Array {
  return encodeCommand({ type: "put", key: utf8(key), value: utf8(value), ifRevision });
}

export function get(key: string): Uint8Array {
  return encodeCommand({ type: "get", key: utf8(key) });
}

export function command(value: Command): Uint8Array {
  return encodeCommand(value);
}

export function request(options: RequestOptions = {}): Request {
  const { client = ALICE, session = 1000, sequence = 1, ackedBelow = 0, deadlineMs = 0, kind = "ordered" } = options;
  const { commands = [put("key", `${sequence}`)], cluster = CLUSTER } = options;
  const fields = { cluster, client, session, sequence, ackedBelow, kind, deadlineMs, commands };
  return decodeRequest(nodeCrypto, encodeRequest(fields));
}

export function resolve(target: { session?: number; sequence: number }, options: RequestOptions = {}): Request {
  const commands = [encodeResolve({ session: target.session ?? 1000, sequence: target.sequence })];
  return request({ sequence: 900_000, ...options, kind: "resolve", commands });
}

export const kv = (state: ServiceState): KvService => new KvService(state);

export type BenchOptions = Partial<ExecutorOptions> & { store?: StoredMap };

/** An executor with a Map for a disk, fed request by request. */
export class Bench {
  readonly store: StoredMap;
  executor: Executor;
  readonly #options: BenchOptions;

  constructor(options: BenchOptions = {}) {
    this.#options = options;
    this.store = options.store ?? new Map();
    this.executor = this.#start({ instance: 0, digest: GENESIS, timestampMs: 0 });
  }

  #start(applied: ExecutorOptions["applied"]): Executor {
    const administrators = { keys: [], threshold: 1 };
    const founding: Founding = { cluster: CLUSTER, clients: "open", administrators, maxClients: 100 };
    const base = { crypto: nodeCrypto, ...founding, stored: this.store, applied, service: kv };
    const executor = new Executor({ ...base, ...this.#options, applied, stored: this.store });
    for (const key of [...this.store.keys()].sort(byteOrder)) {
      executor.load(key, Buffer.from(this.store.get(key) as Uint8Array));
    }
    return executor;
  }

  /** Executes one batch at the given time (the previous one's by default). */
  batch(requests: readonly Request[], timestampMs = this.executor.applied.timestampMs): OrderedReply[] {
    const instance = this.executor.applied.instance + 1;
    const batch: Batch = { instance, timestampMs, requests };
    return this.executor.execute(batch, nodeCrypto.sha256(utf8(`history ${instance}`)));
  }

  /** Executes one request in a batch of its own. */
  one(value: Request, timestampMs?: number): OrderedReply {
    return only(this.batch([value], timestampMs));
  }

  /** Takes a group and writes it to the store; the executor does not learn that it is durable. */
  write(): boolean {
    const group = this.executor.takeGroup();
    if (!group) return false;
    for (const [key, value] of group.changes) {
      if (value) this.store.set(key, new Uint8Array(value));
      else this.store.delete(key);
    }
    return true;
  }

  /** Writes what is left, then starts again from what is stored. */
  restart(): void {
    const { applied } = this.executor;
    this.write();
    this.executor = this.#start(applied);
  }
}

export function byteOrder(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export function only<T>(values: readonly T[]): T {
  const [value] = values;
  if (value === undefined || values.length !== 1) throw new Error(`expected one, got ${values.length}`);
  return value;
}

/** The results of an OK reply, decoded. */
export function resultsOf(reply: { result: Uint8Array | null }): Result[] {
  if (!reply.result) throw new Error("the reply is gone");
  return decodeResults(reply.result).map(decodeResult);
}

/** Bytes compared by content: some are Buffers, some are not. */
export function hexOf(bytes: Uint8Array | null): string | null {
  return bytes && hex(bytes);
}

export function resolutionOf(reply: OrderedReply): Resolution {
  if (reply.status !== "OK" || !reply.result) throw new Error(`no resolution but ${reply.status}`);
  return decodeResolution(reply.result);
}

/** A stored map as comparable text, sorted. */
export function dump(store: StoredMap): string[] {
  return [...store]
    .sort(([a], [b]) => byteOrder(a, b))
    .map(([key, value]) => `${Buffer.from(key, "latin1").toString("hex")}=${Buffer.from(value).toString("hex")}`);
}
