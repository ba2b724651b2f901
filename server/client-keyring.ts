/**
 * The keys of clients, and the MAC keys shared with each (docs/protocol.md section 2), derived once and kept for a bounded number
 * of clients. Keys certify themselves: a client id is their fingerprint.
 */
import { copyOf, type Digest } from "../protocol/bytes.ts";
import type { Crypto, MacKey } from "../protocol/crypto/contract.ts";
import { QuorateError } from "../protocol/errors.ts";
import { clientIdOf, type Identity, type PublicKeys, publicKeysFrom, sharedMacKey } from "../protocol/identity.ts";

const CLIENTS_KEPT_MAX = 20_000;

/** What is known of one client. */
export interface ClientKeys {
  readonly publicKeys: PublicKeys;
  /** The same 64 bytes, as they travel. */
  readonly publicBytes: Uint8Array;
  /** Checks what the client sends. */
  readonly incoming: MacKey;
  /** Authenticates replies. */
  readonly outgoing: MacKey;
}

export class ClientKeyring {
  readonly #crypto: Crypto;
  readonly #cluster: Digest;
  readonly #mine: Pick<Identity, "boxSecret">;
  readonly #clients = new Map<Digest, ClientKeys>();

  constructor(options: { crypto: Crypto; cluster: Digest; mine: Pick<Identity, "boxSecret"> }) {
    this.#crypto = options.crypto;
    this.#cluster = options.cluster;
    this.#mine = options.mine;
  }

  /** The keys of a client if they are known, or given here and really its own. */
  keysOf(client: Digest, given: Uint8Array | null): ClientKeys | null {
    const known = this.#clients.get(client);
    if (known) return known;
    if (!given) return null;
    const publicKeys = publicKeysFrom(given);
    if (clientIdOf(this.#crypto, publicKeys) !== client) return null;
    const shared = { cluster: this.#cluster, mine: this.#mine, theirs: publicKeys };
    try {
      const keys: ClientKeys = {
        publicKeys,
        publicBytes: copyOf(given),
        incoming: sharedMacKey(this.#crypto, { ...shared, purpose: "client-to-replica" }),
        outgoing: sharedMacKey(this.#crypto, { ...shared, purpose: "replica-to-client" }),
      };
      if (this.#clients.size >= CLIENTS_KEPT_MAX) this.#clients.delete(this.#clients.keys().next().value as Digest);
      this.#clients.set(client, keys);
      return keys;
    } catch (error) {
      if (error instanceof QuorateError) return null;
      throw error;
    }
  }
}
