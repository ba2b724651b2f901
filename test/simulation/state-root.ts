/**
 * A digest of the replicated state after an instance, kept up entry by entry so that it costs nothing to ask after every
 * one: all entries of the service, and what the client table said about each request of the batch.
 */
import { bytesOf, concat, type Digest, utf8 } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import type { AccessRules, ExecutionContext, Service, ServiceState } from "../../server/service/contract.ts";
import type { OrderedReply } from "../../server/service/executor.ts";
import { KvService } from "../../server/service/kv-service.ts";
import { fastCrypto } from "./fast-crypto.ts";

/** The key-value service with a sum over the hashes of its entries: the same set of entries, the same sum. */
export class RootedService implements Service {
  readonly #service: KvService;
  readonly #hashes = new Map<string, Digest>();
  readonly #sum = new Uint8Array(32);

  constructor(state: ServiceState) {
    this.#service = new KvService({
      get: (key) => state.get(key),
      set: (key, value) => {
        this.#changed(key, value);
        state.set(key, value);
      },
      delete: (key) => {
        this.#changed(key, null);
        state.delete(key);
      },
    });
  }

  get root(): Uint8Array {
    return this.#sum;
  }

  get accessRules(): AccessRules {
    return this.#service.accessRules;
  }

  get revision(): number {
    return this.#service.revision;
  }

  load(key: string, value: Uint8Array): void {
    this.#changed(key, value);
    this.#service.load(key, value);
  }

  execute(command: Uint8Array, context: ExecutionContext): Uint8Array {
    return this.#service.execute(command, context);
  }

  query(command: Uint8Array): Uint8Array | null {
    return this.#service.query(command);
  }

  grows(command: Uint8Array): boolean {
    return this.#service.grows(command);
  }

  #changed(key: string, value: Uint8Array | null): void {
    const before = this.#hashes.get(key);
    if (before) this.#mix(before);
    if (value === null) {
      this.#hashes.delete(key);
      return;
    }
    const hash = fastCrypto.sha256(concat([utf8(`${key.length} ${key} `), value]));
    this.#hashes.set(key, hash);
    this.#mix(hash);
  }

  #mix(hash: Digest): void {
    for (let at = 0; at < 32; at++) this.#sum[at] = (this.#sum[at] as number) ^ hash.charCodeAt(at);
  }
}

export function rootOf(
  crypto: Crypto,
  state: { readonly digest: Digest; readonly entries: Uint8Array; readonly replies: readonly OrderedReply[] },
): Digest {
  const parts = [bytesOf(state.digest), state.entries];
  for (const { status, instance, resultDigest } of state.replies)
    parts.push(utf8(`${status} ${instance}`), bytesOf(resultDigest));
  return crypto.sha256(concat(parts));
}
