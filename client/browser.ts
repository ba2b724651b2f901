/**
 * `quorate/client` for browsers: the same API without files. A browser client is its own quorum: it talks to every
 * replica, checks every MAC, and trusts none of them alone (docs/protocol.md section 3).
 */
import type { ClusterFile } from "../protocol/cluster.ts";
import { portableCrypto } from "../protocol/crypto/portable.ts";
import { type Identity, newIdentity as newIdentityWith, parseKeyFile } from "../protocol/identity.ts";
import type { Kv } from "./kv.ts";
import { type ConnectionOptions, type Ends, open, openService, type ServiceConnectionOptions } from "./open.ts";
import type { ServiceProxy } from "./service-proxy.ts";
import { browserTransport } from "./transport-browser.ts";

export * from "./public.ts";

interface Parsed {
  /** The parsed content of cluster.json. */
  readonly cluster: ClusterFile;
  readonly identity: Identity;
  /** Connect with wss:, as pages served over https must. */
  readonly secure?: boolean | undefined;
}

export interface ConnectServiceOptions extends ServiceConnectionOptions, Parsed {}

export interface ConnectOptions<T> extends ConnectionOptions<T>, Parsed {}

/**
 * Connects to a cluster from a browser.
 * @throws QuorateError CONFIG_INVALID, QUORUM_UNAVAILABLE, CLUSTER_MISMATCH, REFUSED, ABORTED
 */
export function connect<T = string>(options: ConnectOptions<T>): Promise<Kv<T>> {
  return open({ ...options, ...endsOf(options) });
}

/** The same for a service of one's own and its opaque commands. @throws QuorateError as `connect` */
export function connectService(options: ConnectServiceOptions): Promise<ServiceProxy> {
  return openService({ ...options, ...endsOf(options) });
}

function endsOf({ cluster, identity, secure = false, transport }: ConnectServiceOptions): Ends {
  return { cluster, identity, crypto: portableCrypto, transport: transport ?? browserTransport({ secure }) };
}

/** Fresh keys: a client nobody knows yet, welcome where clients are "open". */
export function newIdentity(): Identity {
  return newIdentityWith(portableCrypto);
}

/** The keys in the text of a key file. @throws QuorateError KEY_FILE_INVALID */
export function identityFromKeyFile(text: string): Identity {
  return parseKeyFile(text, "the key file").identity;
}
