/**
 * What administrators order, for those who hold their keys (docs/protocol.md section 2, "Rights"). Each statement is signed here,
 * carried by a connection of the first administrator, and answered by a quorum. Its number lies above that of the newest one the
 * cluster has judged, so that it overtakes whatever was signed before.
 */
import {
  type AdministrationResult,
  decodeAdministrationResult,
  encodeSignedStatement,
  type StatementType,
  signStatement,
} from "../protocol/administration.ts";
import { bytesOf, fromHex, hex, latin1 } from "../protocol/bytes.ts";
import { type ClusterFile, clusterFileSchema, clusterOf, firstIssue } from "../protocol/cluster.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { assertNever, decoded, type ErrorCode, isRejection, QuorateError } from "../protocol/errors.ts";
import {
  decodeListingPage,
  encodeGrant,
  encodeListing,
  encodeRevocation,
  type ListedClient,
  type Listing,
} from "../protocol/grants.ts";
import { type Identity, PUBLIC_KEYS_BYTES } from "../protocol/identity.ts";
import { canonicalPrefixes } from "../protocol/key-ranges.ts";
import type { ViewChain } from "../protocol/view-chain.ts";
import { boundOf } from "./arguments.ts";
import { systemClock } from "./clock.ts";
import { notAdministrators } from "./failures.ts";
import type { CallOptions, Key } from "./kv-types.ts";
import type { Clock, Transport } from "./ports.ts";
import { unexpected } from "./results.ts";
import { Session } from "./session.ts";
import { SessionNumbers } from "./session-numbers.ts";
import { storedChain, type ViewStore } from "./view-follower.ts";

/** A statement is good for so long in the cluster's time, beyond what its caller waits. */
const VALID_MS = 60_000;
const TIMEOUT_MS = 5_000;
/** Above every client id: a page that holds nobody, but tells where the numbers stand. */
const LAST_ID = latin1(new Uint8Array(32).fill(0xff));

/** What a client may do. An empty prefix is every key. */
export interface GrantOptions extends CallOptions {
  /** The client's 64 bytes of public keys, as `kv id` prints them: its id is their fingerprint. */
  readonly keys: Uint8Array;
  readonly read?: readonly Key[] | undefined;
  readonly write?: readonly Key[] | undefined;
  /** Milliseconds since 1970 in the cluster's time; for ever by default. */
  readonly expiresMs?: number | undefined;
}

/** One client as the cluster knows it. */
export interface ClientRights {
  /** 64 hexadecimal digits. */
  readonly id: string;
  /** `founding`: named by the cluster file, with all rights. `revoked`: named there, and has none any more. */
  readonly state: "founding" | "granted" | "expired" | "revoked";
  /** Of a granted client. */
  readonly keys: Uint8Array | null;
  readonly read: readonly Uint8Array[];
  readonly write: readonly Uint8Array[];
  /** Milliseconds since 1970, or null for ever. */
  readonly expiresMs: number | null;
}

export interface ClientList {
  /** Everybody may do everything: nobody is listed. */
  readonly open: boolean;
  readonly clients: readonly ClientRights[];
}

export interface AdministrationOptions {
  readonly cluster: ClusterFile;
  /** At least as many as the cluster's threshold; the first one's connection is used. */
  readonly administrators: readonly Identity[];
  readonly crypto: Crypto;
  readonly transport: Transport;
  readonly clock?: Clock | undefined;
  readonly timeoutMs?: number | undefined;
  readonly sessionNumbers?: SessionNumbers | undefined;
  /** Keeps the views that this client has followed. */
  readonly views?: ViewStore | undefined;
}

const processNumbers = new SessionNumbers();

export class Administration implements AsyncDisposable {
  readonly #options: AdministrationOptions;
  readonly #cluster: ReturnType<typeof clusterOf>;
  readonly #session: Session;
  readonly #clock: Clock;
  readonly #timeoutMs: number;

  private constructor(
    options: AdministrationOptions,
    cluster: ReturnType<typeof clusterOf>,
    { first, chain }: { readonly first: Identity; readonly chain: ViewChain },
  ) {
    const { crypto, transport, clock = systemClock(), timeoutMs = TIMEOUT_MS } = options;
    this.#options = options;
    this.#cluster = cluster;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    const numbers = options.sessionNumbers ?? processNumbers;
    this.#session = new Session({
      cluster,
      identity: first,
      crypto,
      transport,
      clock,
      numbers,
      signed: cluster.signedRequests,
      chain,
      store: options.views ?? null,
    });
  }

  /** @throws QuorateError CONFIG_INVALID, NOT_ADMINISTRATOR (a key that is none of this cluster's), and as `connect` */
  static async open(options: AdministrationOptions): Promise<Administration> {
    const parsed = clusterFileSchema.safeParse(options.cluster);
    if (!parsed.success) throw new QuorateError("CONFIG_INVALID", `the cluster file: ${firstIssue(parsed.error)}`);
    const cluster = clusterOf(options.crypto, parsed.data);
    const [first] = options.administrators;
    const known = new Set(cluster.view.administrators.map(latin1));
    if (!first || options.administrators.some(({ signKey }) => !known.has(latin1(signKey)))) {
      const message =
        "these are not the keys of an administrator of this cluster; name the admin.key that kv init wrote";
      throw new QuorateError("NOT_ADMINISTRATOR", message);
    }
    const chain = await storedChain(options.crypto, cluster.view, options.views ?? null);
    const administration = new Administration(options, cluster, { first, chain });
    try {
      await administration.#session.ready({ timeoutMs: administration.#timeoutMs });
    } catch (error) {
      await administration.close();
      throw error;
    }
    return administration;
  }

  /**
   * Gives a client rights, instead of those it had.
   * @throws QuorateError INVALID_ARGUMENT, REFUSED (maxClients), NOT_ADMINISTRATOR, BUSY (another statement came first),
   *   DEADLINE, UNKNOWN_OUTCOME, QUORUM_UNAVAILABLE
   */
  async grant(options: GrantOptions): Promise<void> {
    const { keys, read = [], write = [], expiresMs = 0 } = options;
    if (keys.length !== PUBLIC_KEYS_BYTES) {
      throw new QuorateError("INVALID_ARGUMENT", `a client has ${PUBLIC_KEYS_BYTES} bytes of public keys; see kv id`);
    }
    const prefixes = (list: readonly Key[]): string[] => canonicalPrefixes(list.map((key) => latin1(boundOf(key))));
    const body = { keys, expiresMs, read: prefixes(read), write: prefixes(write) };
    if (body.read.length + body.write.length === 0) {
      throw new QuorateError("INVALID_ARGUMENT", "a grant names at least one prefix to read or to write");
    }
    await this.#order("grant", encodeGrant(body), options);
  }

  /** Takes a client's rights away, a founding client's as well. @throws as `grant` */
  async revoke(id: string, options: CallOptions = {}): Promise<void> {
    if (!/^[0-9a-f]{64}$/.test(id)) {
      throw new QuorateError("INVALID_ARGUMENT", "a client id has 64 hexadecimal digits; see kv client list");
    }
    await this.#order("revoke", encodeRevocation(latin1(fromHex(id))), options);
  }

  /** Everybody who may be a client, by id. @throws as `grant` */
  async list(options: CallOptions = {}): Promise<ClientList> {
    const clients: ClientRights[] = [];
    let after: string | null = null;
    for (;;) {
      const page: Listing = await this.#page(after, options);
      for (const client of page.clients) clients.push(shown(client, page.nowMs));
      if (page.next === null) return { open: page.open, clients };
      after = latin1(page.next);
    }
  }

  async close(): Promise<void> {
    await this.#session.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #page(after: string | null, options: CallOptions): Promise<Listing> {
    const result = await this.#submit("list", { number: 0, body: encodeListing(after) }, options);
    if (result.type !== "listed") throw unexpected(`"${result.type}" to a list`);
    const page = decoded(() => decodeListingPage(result.page));
    if (isRejection(page)) throw unexpected(`an unreadable list (${page.code})`);
    return page;
  }

  /** Signed with a number above the newest one. */
  async #order(type: StatementType, body: Uint8Array, options: CallOptions): Promise<void> {
    const newest = await this.#page(LAST_ID, options);
    const number = Math.max(Math.floor(this.#clock.wallMs() * 1000), newest.number + 1);
    const result = await this.#submit(type, { number, body }, options);
    if (result.type !== "executed") throw unexpected(`"${result.type}" to a ${type}`);
  }

  /** @throws QuorateError for whatever was not executed */
  async #submit(
    type: StatementType,
    statement: { readonly number: number; readonly body: Uint8Array },
    options: CallOptions,
  ): Promise<Exclude<AdministrationResult, { type: "refused" | "overtaken" }>> {
    const { crypto, administrators } = this.#options;
    const { timeoutMs = this.#timeoutMs, signal } = options;
    const notAfterMs = Math.ceil(this.#clock.wallMs() + timeoutMs + VALID_MS);
    const signers = administrators.map(({ signKey, signSeed }) => ({ signKey, sign: crypto.signer(signSeed) }));
    const signed = signStatement(this.#cluster.id, { type, notAfterMs, ...statement }, signers);
    const bytes = await this.#session
      .administer(encodeSignedStatement(signed), { timeoutMs, signal })
      .catch((error: unknown) => {
        throw this.#withCount(error);
      });
    const result = decoded(() => decodeAdministrationResult(bytes));
    if (isRejection(result)) throw unexpected(`an unreadable result (${result.code})`);
    switch (result.type) {
      case "executed":
      case "listed":
        return result;
      case "refused":
        throw this.#withCount(new QuorateError(result.code as ErrorCode, result.message));
      case "overtaken": {
        const message = "another statement of an administrator came first; look at kv client list, then repeat it";
        throw new QuorateError("BUSY", message, { outcome: "not-executed" });
      }
      default:
        return assertNever(result);
    }
  }

  /** Of too few signatures: how many there are and must be, as far as this client knows. */
  #withCount(error: unknown): unknown {
    if (!(error instanceof QuorateError && error.code === "NOT_ADMINISTRATOR")) return error;
    const given = new Set(this.#options.administrators.map(({ signKey }) => latin1(signKey)));
    return notAdministrators(this.#session.chain.newest, given.size, error);
  }
}

function shown(client: ListedClient, nowMs: number): ClientRights {
  const id = hex(client.id);
  switch (client.type) {
    case "founding":
      return { id, state: "founding", keys: null, read: [bytesOf("")], write: [bytesOf("")], expiresMs: null };
    case "revoked":
      return { id, state: "revoked", keys: null, read: [], write: [], expiresMs: null };
    case "granted": {
      const { keys, read, write, expiresMs } = client;
      const state = expiresMs !== 0 && nowMs >= expiresMs ? "expired" : "granted";
      return { id, state, keys, read, write, expiresMs: expiresMs === 0 ? null : expiresMs };
    }
    default:
      return assertNever(client);
  }
}
