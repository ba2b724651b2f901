/**
 * The replicated table of who may be a client and what it may do (docs/protocol.md section 2, "Rights"). Deterministic: a
 * function of the statements executed and of batch time.
 *
 * Invariants: 1. in an open cluster everybody has all rights and nothing is granted. 2. else a client has the rights of its
 * record here; without a record, all of them if the cluster file names it, none if not. 3. a record whose time has come gives
 * no rights, whoever the client is. 4. clients that may be one, records and founding ones together, are at most `maxClients`.
 *
 *   g client  -> form u8 (1 granted, 2 revoked), body of the GRANT
 */
import type { AdministrationResult } from "../../protocol/administration.ts";
import { bytesOf, copyOf, type Digest } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { decoded, isRejection, Malformed } from "../../protocol/errors.ts";
import {
  ALL_RIGHTS,
  decodeGrant,
  decodeListing,
  decodeRevocation,
  encodeGrant,
  encodeListingPage,
  type Grant,
  type ListedClient,
  type Rights,
} from "../../protocol/grants.ts";
import { clientIdOf, publicKeysFrom } from "../../protocol/identity.ts";
import { covers, EVERY_KEY } from "../../protocol/key-ranges.ts";
import { GRANTS_PAGE_BYTES, GRANTS_PAGE_MAX } from "../../protocol/limits.ts";
import { administrationRefused } from "./administration.ts";
import type { Access } from "./contract.ts";
import { GRANT_SPACE, type ReplicatedState } from "./state.ts";

const GRANTED = 1;
const REVOKED = 2;
/** Keys of revoked clients kept in memory: what they sent before may be in a proposal still. */
const FORMER_KEYS_MAX = 1_024;

/** Null: the cluster file names this client, and it was revoked. */
type Held = Grant | null;

const EXECUTED: AdministrationResult = { type: "executed" };

export interface GrantsOptions {
  readonly crypto: Crypto;
  readonly clients: "open" | ReadonlySet<Digest>;
  readonly maxClients: number;
}

export class Grants {
  readonly #crypto: Crypto;
  readonly #founding: "open" | ReadonlySet<Digest>;
  readonly #maxClients: number;
  readonly #records = new Map<Digest, Held>();
  readonly #changed = new Set<Digest>();
  /** Who takes a place among `maxClients`. */
  #counted: number;
  readonly #formerKeys = new Map<Digest, Uint8Array>();

  constructor(options: GrantsOptions) {
    this.#crypto = options.crypto;
    this.#founding = options.clients;
    this.#maxClients = options.maxClients;
    this.#counted = options.clients === "open" ? 0 : options.clients.size;
  }

  /** What a client may do at this batch time, or null when it may not be a client. */
  rightsOf(client: Digest, nowMs: number): Rights | null {
    if (this.#founding === "open") return ALL_RIGHTS;
    const held = this.#records.get(client);
    if (held === undefined) return this.#founding.has(client) ? ALL_RIGHTS : null;
    if (held === null || expired(held, nowMs)) return null;
    return held;
  }

  /** The public keys of a client that is or was granted; those of founding clients are learned from themselves. */
  keysOf(client: Digest): Uint8Array | null {
    return this.#records.get(client)?.keys ?? this.#formerKeys.get(client) ?? null;
  }

  /** May its keys be learned from what it sends? Of a founding client also after it was revoked: see `keysOf`. */
  knows(client: Digest): boolean {
    return this.#founding === "open" || this.#founding.has(client) || this.keysOf(client) !== null;
  }

  /** Clients that were granted or revoked by statements. */
  get size(): number {
    return this.#records.size;
  }

  /** Carries out a GRANT: it replaces whatever the client had. */
  grant(body: Uint8Array, nowMs: number): AdministrationResult {
    const grant = decoded(() => decodeGrant(body));
    if (isRejection(grant)) return administrationRefused("INVALID_ARGUMENT", `the bytes are no grant (${grant.code})`);
    if (this.#founding === "open") return administrationRefused("INVALID_ARGUMENT", OPEN_CLUSTER);
    if (grant.expiresMs !== 0 && expired(grant, nowMs)) {
      return administrationRefused("INVALID_ARGUMENT", "it would have expired already; name a later time");
    }
    const keys = copyOf(grant.keys);
    const id = clientIdOf(this.#crypto, publicKeysFrom(keys));
    if (!this.#isCounted(id) && this.#counted >= this.#maxClients) this.#dropExpired(nowMs);
    if (!this.#isCounted(id) && this.#counted >= this.#maxClients) {
      const counted = `${this.#maxClients} clients have rights, those that cluster.json lists included`;
      const message = `${counted}: that is maxClients; revoke one first`;
      return administrationRefused("REFUSED", message);
    }
    this.#set(id, { ...grant, keys });
    return EXECUTED;
  }

  /** Carries out a REVOKE. Whose it was, or null when nobody may be a client by that id. */
  revoke(body: Uint8Array): { readonly result: AdministrationResult; readonly client: Digest | null } {
    const client = decoded(() => decodeRevocation(body));
    const refused = (message: string) => ({ result: administrationRefused("INVALID_ARGUMENT", message), client: null });
    if (isRejection(client)) return refused("the bytes are no client id");
    if (this.#founding === "open") return refused(OPEN_CLUSTER);
    const held = this.#records.get(client);
    const isFounding = this.#founding.has(client);
    if (held === null || (held === undefined && !isFounding)) return refused("no client with this id has any rights");
    if (held) this.#rememberKeys(client, held.keys);
    if (isFounding) this.#set(client, null);
    else this.#delete(client);
    return { result: EXECUTED, client };
  }

  /** Answers a LIST: clients by id, a page at a time. `number` is that of the newest statement. */
  list(body: Uint8Array, now: { nowMs: number; number: number }): AdministrationResult {
    const after = decoded(() => decodeListing(body));
    if (isRejection(after)) return administrationRefused("INVALID_ARGUMENT", "the bytes are no client id");
    const founding = this.#founding === "open" ? [] : [...this.#founding];
    const ids = [...new Set([...founding, ...this.#records.keys()])]
      .sort()
      .filter((id) => after === null || id > after);
    const clients: ListedClient[] = [];
    let bytes = 0;
    let next: Uint8Array | null = null;
    for (const id of ids) {
      if (clients.length === GRANTS_PAGE_MAX || bytes > GRANTS_PAGE_BYTES) {
        next = clients.at(-1)?.id ?? null;
        break;
      }
      clients.push(this.#listed(id));
      const held = this.#records.get(id);
      bytes += held ? encodeGrant(held).length : 32;
    }
    const page = encodeListingPage({ open: this.#founding === "open", ...now, clients, next });
    return { type: "listed", page: new Uint8Array(page) };
  }

  /** One stored entry. @throws Malformed */
  load(key: string, value: Uint8Array): void {
    const id = key.slice(GRANT_SPACE.length) as Digest;
    const form = value[0];
    if (id.length !== 32 || (form !== GRANTED && form !== REVOKED)) throw new Malformed("STORED_GRANT");
    if (form === REVOKED && value.length > 1) throw new Malformed("TRAILING_BYTES");
    this.#put(id, form === REVOKED ? null : decodeGrant(new Uint8Array(value.subarray(1))));
  }

  /** Writes what changed since the last call into the state. */
  writeChanges(state: ReplicatedState): void {
    for (const id of this.#changed) {
      const held = this.#records.get(id);
      if (held === undefined) state.delete(GRANT_SPACE + id);
      else if (held === null) state.set(GRANT_SPACE + id, Uint8Array.of(REVOKED));
      else state.set(GRANT_SPACE + id, new Uint8Array([GRANTED, ...encodeGrant(held)]));
    }
    this.#changed.clear();
  }

  /** Takes a place among `maxClients`: everybody but founding clients that were revoked. */
  #isCounted(id: Digest): boolean {
    const held = this.#records.get(id);
    if (held === undefined) return this.#founding !== "open" && this.#founding.has(id);
    return held !== null;
  }

  /** Expired grants give way to new ones; a founding client stays without rights. */
  #dropExpired(nowMs: number): void {
    for (const [id, held] of this.#records) {
      if (held === null || !expired(held, nowMs)) continue;
      if (this.#founding !== "open" && this.#founding.has(id)) this.#set(id, null);
      else this.#delete(id);
    }
  }

  #set(id: Digest, held: Held): void {
    this.#put(id, held);
    this.#changed.add(id);
  }

  #delete(id: Digest): void {
    this.#put(id, undefined);
    this.#changed.add(id);
  }

  #put(id: Digest, held: Held | undefined): void {
    if (this.#isCounted(id)) this.#counted--;
    if (held === undefined) this.#records.delete(id);
    else this.#records.set(id, held);
    if (this.#isCounted(id)) this.#counted++;
  }

  #rememberKeys(client: Digest, keys: Uint8Array): void {
    this.#formerKeys.delete(client);
    this.#formerKeys.set(client, keys);
    if (this.#formerKeys.size > FORMER_KEYS_MAX) {
      this.#formerKeys.delete(this.#formerKeys.keys().next().value as Digest);
    }
  }

  #listed(client: Digest): ListedClient {
    const id = bytesOf(client);
    const held = this.#records.get(client);
    if (held === undefined) return { type: "founding", id };
    if (held === null) return { type: "revoked", id };
    const { keys, expiresMs } = held;
    return { type: "granted", id, keys, read: held.read.map(bytesOf), write: held.write.map(bytesOf), expiresMs };
  }
}

const OPEN_CLUSTER =
  "this cluster is open: everybody may do everything; rights need a cluster made with --clients listed";

function expired({ expiresMs }: Grant, nowMs: number): boolean {
  return expiresMs !== 0 && nowMs >= expiresMs;
}

/** Reading everything, which is what a copy of the whole state takes. */
export function mayReadAll({ read }: Rights): boolean {
  return covers(read, EVERY_KEY);
}

export function mayDoAll(rights: Rights): boolean {
  return mayReadAll(rights) && covers(rights.write, EVERY_KEY);
}

/** Every range must be covered as a whole. */
export function permits(rights: Rights, { reads, writes }: Access): boolean {
  return reads.every((range) => covers(rights.read, range)) && writes.every((range) => covers(rights.write, range));
}
