/**
 * Names for what has only a digest: a batch is called after its requests, "[a b]", and so is the history that ends with
 * it. Another batch of the same requests at the same instance is "[a b]'".
 */
import { decodeBatch, historyDigest } from "../../protocol/batch.ts";
import { type Digest, hex, utf8 } from "../../protocol/bytes.ts";
import { decoded, isRejection } from "../../protocol/errors.ts";
import { CLUSTER, GENESIS } from "../simulation/core-cluster.ts";
import { fastCrypto } from "../simulation/fast-crypto.ts";

export interface NamedBatch {
  readonly instance: number;
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

export class Names {
  readonly #digests = new Map<Digest, string>([[GENESIS, "genesis"]]);
  /** History digests seen, by instance: a batch may follow any of them. */
  readonly #histories = new Map<number, Set<Digest>>([[0, new Set([GENESIS])]]);
  readonly #batches = new Map<string, NamedBatch>();
  readonly #requests = new Map<Digest, string>();
  readonly #clients = new Map<Digest, string>();

  nameRequest(digest: Digest, name: string): void {
    this.#requests.set(digest, name);
  }

  clientNamed(name: string): Digest {
    const client = fastCrypto.sha256(utf8(`client ${name}`));
    this.#clients.set(client, name);
    return client;
  }

  client(digest: Digest): string {
    return this.#clients.get(digest) ?? this.#unnamed(digest);
  }

  request(digest: Digest): string {
    return this.#requests.get(digest) ?? this.#unnamed(digest);
  }

  digest(digest: Digest): string {
    return this.#digests.get(digest) ?? this.#unnamed(digest);
  }

  find(instance: number, name: string): NamedBatch | undefined {
    return this.#batches.get(`${instance} ${name}`);
  }

  #unnamed(digest: Digest): string {
    return `h=${hex(digest).slice(0, 4)}`;
  }

  /** Names the histories that this batch may end, and says in words what it is. */
  batch(bytes: Uint8Array): string {
    const batch = decoded(() => decodeBatch(fastCrypto, bytes));
    if (isRejection(batch)) return "garbage";
    const { instance } = batch;
    const content = `[${batch.requests.map((request) => this.request(request.digest)).join(" ")}]`;
    const batchDigest = fastCrypto.sha256(bytes);
    let name = `${content} on an unknown history`;
    for (const previous of this.#histories.get(instance - 1) ?? []) {
      const digest = historyDigest(fastCrypto, { cluster: CLUSTER, instance, previous, batchDigest });
      name = this.#digests.get(digest) ?? this.#add(content, { instance, digest, bytes });
    }
    return name;
  }

  #add(content: string, batch: NamedBatch): string {
    let name = content;
    while (this.find(batch.instance, name)) name += "'";
    this.#batches.set(`${batch.instance} ${name}`, batch);
    this.#digests.set(batch.digest, name);
    const histories = this.#histories.get(batch.instance);
    if (histories) histories.add(batch.digest);
    else this.#histories.set(batch.instance, new Set([batch.digest]));
    return name;
  }

  /** From now on everything follows this batch. */
  decided({ instance, digest }: { readonly instance: number; readonly digest: Digest }): void {
    this.#histories.set(instance, new Set([digest]));
  }

  /** A digest that is no batch's, for statements about instances that do not exist. */
  invent(name: string): Digest {
    const digest = fastCrypto.sha256(utf8(`invented ${name}`));
    this.#digests.set(digest, name);
    return digest;
  }
}
