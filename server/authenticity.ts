/**
 * Whose request is it? Client keys, the MAC keys shared with each client, and the checks of authenticator entries and
 * signatures (docs/protocol.md section 2). Keys certify themselves: a client id is their fingerprint. They are learned from
 * AUTH and from envelopes and kept beside the replicated state; those of granted clients are in it. A replica that lacks them
 * holds a proposal until others vouch. Whether a client has rights is no question here: that is judged at execution, and a
 * request sent in time must not look forged to whoever has executed its client's revocation already.
 */
import { copyOf, type Digest } from "../protocol/bytes.ts";
import type { Cluster } from "../protocol/cluster.ts";
import { type Crypto, equalMacs } from "../protocol/crypto/contract.ts";
import { decoded, isRejection } from "../protocol/errors.ts";
import type { Identity } from "../protocol/identity.ts";
import { MUST_SIGN_MAX } from "../protocol/limits.ts";
import {
  AUTHENTICATOR_BYTES,
  decodeEnvelope,
  type Envelope,
  macAt,
  type Request,
  requestStatement,
} from "../protocol/request.ts";
import { positionOf, type ReplicaId } from "../protocol/view.ts";
import { ClientKeyring, type ClientKeys } from "./client-keyring.ts";
import type { Authentication } from "./consensus/contract.ts";

/** What the state knows of clients. */
export interface KnownClients {
  /** The public keys of a client that is or was granted. */
  keysOf(client: Digest): Uint8Array | null;
  /** May its keys be learned from what it sends? */
  knows(client: Digest): boolean;
}

export class Authenticity {
  readonly #crypto: Crypto;
  readonly #cluster: Cluster;
  readonly #known: KnownClients;
  readonly #position: number;
  readonly #keyring: ClientKeyring;
  readonly #mustSign = new Set<Digest>();

  constructor(options: { crypto: Crypto; cluster: Cluster; self: ReplicaId; identity: Identity; known: KnownClients }) {
    this.#crypto = options.crypto;
    this.#cluster = options.cluster;
    this.#known = options.known;
    this.#keyring = new ClientKeyring({ crypto: options.crypto, cluster: options.cluster.id, mine: options.identity });
    this.#position = positionOf(options.cluster.view, options.self);
  }

  /** The keys of a client if they are known, or given here and really its own. */
  keysOf(client: Digest, given: Uint8Array | null): ClientKeys | null {
    return this.#keyring.keysOf(client, null) ?? this.#keyring.keysOf(client, this.#known.keysOf(client) ?? given);
  }

  /** Which MAC of a vector is this replica's. */
  get position(): number {
    return this.#position;
  }

  /** Keys a client has proved to hold, from its AUTH. */
  learn(client: Digest, keys: Uint8Array): void {
    this.keysOf(client, keys);
  }

  /** W members could not prove this client's requests: its MACs count no more here. */
  demandSignatures(client: Digest): void {
    this.#mustSign.add(client);
    if (this.#mustSign.size > MUST_SIGN_MAX) this.#mustSign.delete(this.#mustSign.values().next().value as Digest);
  }

  mustSign(client: Digest): boolean {
    return this.#cluster.signedRequests || this.#mustSign.has(client);
  }

  /** Judges a request by its decoded envelope: a signature comes back as a check to be made off the event loop. */
  judge(request: Request, envelope: Envelope): Authentication {
    if (request.cluster !== this.#cluster.id) return "unproven";
    if (envelope.view !== this.#cluster.view.id) return "unproven";
    const keys = this.keysOf(request.client, this.#learnable(request) ? envelope.keys : null);
    if (!keys) return "unproven";
    const statement = requestStatement(this.#cluster.id, envelope.view, request.digest);
    const { authenticator } = envelope;
    if (authenticator.type === "signature") {
      const { signature } = authenticator;
      return { publicKey: keys.publicKeys.signKey, statement: copyOf(statement), signature };
    }
    if (this.mustSign(request.client)) return "unproven";
    return this.#matches(keys, statement, macAt(authenticator.macs, this.#position)) ? "authentic" : "unproven";
  }

  /** An administrator need not be a client: his statement is proven by itself. */
  #learnable(request: Request): boolean {
    return request.kind === "administer" || this.#known.knows(request.client);
  }

  /** For the core: the same on the envelope's bytes. */
  readonly authenticate = (request: Request, envelope: Uint8Array): Authentication => {
    const parsed = decoded(() => decodeEnvelope(envelope));
    return isRejection(parsed) ? "unproven" : this.judge(request, parsed);
  };

  #matches(keys: ClientKeys, statement: Uint8Array, mac: string): boolean {
    return equalMacs(mac, this.#crypto.mac(keys.incoming, statement).slice(0, AUTHENTICATOR_BYTES));
  }
}
