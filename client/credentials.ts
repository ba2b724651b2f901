/**
 * Everything that needs the client's secrets (docs/protocol.md section 2): proving a connection, authenticating a request
 * for every member, checking replies. The shared keys are static and derived once per member.
 */
import { type Digest, latin1 } from "../protocol/bytes.ts";
import { authStatement, encodeAuth, type Reply, verifyReply } from "../protocol/client-frames.ts";
import type { Cluster } from "../protocol/cluster.ts";
import type { Crypto, MacKey, Signer } from "../protocol/crypto/contract.ts";
import { clientIdOf, type Identity, publicKeysBytes, sharedMacKey } from "../protocol/identity.ts";
import { AUTHENTICATOR_BYTES, requestStatement } from "../protocol/request.ts";

interface MemberKeys {
  readonly request: MacKey;
  readonly reply: MacKey;
  readonly connect: MacKey;
}

/** How one request is authenticated: a MAC per member, and in signed mode a signature beside them. */
export interface RequestProof {
  readonly macs: string;
  readonly signature: Uint8Array | null;
}

export class Credentials {
  readonly client: Digest;
  readonly publicKeys: Uint8Array;
  readonly #crypto: Crypto;
  readonly #cluster: Cluster;
  readonly #keys: readonly MemberKeys[];
  readonly #sign: Signer;
  /** An administrator's: replicas that know the key let him in without a grant. */
  readonly #signsConnections: boolean;
  readonly #ids: { readonly cluster: Digest; readonly client: Digest };

  /** @throws QuorateError KEY_FILE_INVALID when a member's public key is of low order. */
  constructor(crypto: Crypto, cluster: Cluster, identity: Identity) {
    const own = latin1(identity.signKey);
    this.#signsConnections = cluster.view.administrators.some((key) => latin1(key) === own);
    this.#crypto = crypto;
    this.#cluster = cluster;
    this.client = clientIdOf(crypto, identity);
    this.publicKeys = publicKeysBytes(identity);
    this.#ids = { cluster: cluster.id, client: this.client };
    this.#sign = crypto.signer(identity.signSeed);
    this.#keys = cluster.view.members.map((theirs) => {
      const shared = { cluster: cluster.id, mine: identity, theirs };
      return {
        request: sharedMacKey(crypto, { ...shared, purpose: "client-to-replica" }),
        reply: sharedMacKey(crypto, { ...shared, purpose: "replica-to-client" }),
        connect: sharedMacKey(crypto, { ...shared, purpose: "connect" }),
      };
    });
  }

  /** The AUTH frame that answers a gateway's nonce. */
  auth(position: number, options: { replica: number; nonce: Uint8Array; session: number }): Uint8Array {
    const { replica, nonce, session } = options;
    const { connect } = this.#keys[position] as MemberKeys;
    const statement = authStatement({ cluster: this.#cluster.id, replica, nonce, client: this.client, session });
    const signature = this.#signsConnections ? this.#sign(statement) : null;
    return encodeAuth({ keys: this.publicKeys, session, mac: this.#crypto.mac(connect, statement), signature });
  }

  prove(digest: Digest, signed: boolean): RequestProof {
    const statement = requestStatement(this.#cluster.id, this.#cluster.view.id, digest);
    let macs = "";
    for (const { request } of this.#keys) macs += this.#crypto.mac(request, statement).slice(0, AUTHENTICATOR_BYTES);
    return { macs, signature: signed ? this.#sign(statement) : null };
  }

  /** True when the reply's header was MACed by the member at `position`. */
  verify(position: number, reply: Reply): boolean {
    return verifyReply(this.#crypto, (this.#keys[position] as MemberKeys).reply, this.#ids, reply);
  }
}
