/**
 * `connect()` and `connectService()` on Node: read the cluster file and the client's keys, and talk over `ws` with node:crypto.
 */
import { dirname, join } from "node:path";
import type { ClusterFile } from "../protocol/cluster.ts";
import { nodeCrypto } from "../protocol/crypto/node.ts";
import { QuorateError } from "../protocol/errors.ts";
import { type Identity, newIdentity as newIdentityWith } from "../protocol/identity.ts";
import { Administration } from "./administration.ts";
import { readClusterFile, readIdentityFile } from "./identity-file.ts";
import type { Kv } from "./kv.ts";
import { type ConnectionOptions, type Ends, open, openService, type ServiceConnectionOptions } from "./open.ts";
import type { Transport } from "./ports.ts";
import type { ServiceProxy } from "./service-proxy.ts";
import { wsTransport } from "./transport-ws.ts";
import { viewFile, viewsBeside } from "./view-file.ts";

interface Files {
  /** The cluster file `kv init` wrote: its path, or its parsed content. */
  readonly cluster: string | ClusterFile;
  /** The client's keys: a key file's path, or the keys; `client.key` beside the cluster file by default. */
  readonly identity?: string | Identity | undefined;
  /**
   * Instead of `views`: a file to keep the views in that this client has followed. With neither, those are read, not written, that `kv`
   * keeps beside the cluster file named by its path (`cluster.json.views`).
   */
  readonly viewFile?: string | undefined;
}

export interface ConnectServiceOptions extends ServiceConnectionOptions, Files {}

export interface ConnectOptions<T> extends ConnectionOptions<T>, Files {}

/**
 * Connects to a cluster: resolves once a quorum of its replicas is connected; the others follow in the background, and
 * every connection that breaks is made again. Values are text unless `codec` says otherwise.
 *
 * @throws QuorateError CONFIG_MISSING, CONFIG_INVALID, KEY_FILE_UNREADABLE, KEY_FILE_PERMISSIONS, KEY_FILE_INVALID;
 *   QUORUM_UNAVAILABLE after `timeoutMs`; CLUSTER_MISMATCH (the replicas belong to another cluster) and REFUSED (this
 *   identity may not be a client) at once; ABORTED
 * @example
 * ```ts
 * const kv = await connect({ cluster: ".kv/cluster.json" });
 * await kv.put("greeting", "hello");
 * await kv.close();
 * ```
 */
export async function connect<T = string>(options: ConnectOptions<T>): Promise<Kv<T>> {
  return open({ ...options, ...(await endsOf(options)) });
}

/**
 * Connects to a cluster that runs a service of its own (`quorate/server`), for its opaque commands. Like `connect()` otherwise.
 * @throws QuorateError as `connect`
 * @example
 * ```ts
 * const counter = await connectService({ cluster: ".kv/cluster.json" });
 * await counter.invokeOrdered(new TextEncoder().encode("+1"));
 * await counter.close();
 * ```
 */
export async function connectService(options: ConnectServiceOptions): Promise<ServiceProxy> {
  return openService({ ...options, ...(await endsOf(options)) });
}

/** Where a client begins to follow the views, and where it keeps them. */
function viewsFor({
  cluster,
  views,
  viewFile: keptIn,
}: Pick<ConnectServiceOptions, "views" | "viewFile"> & Pick<Files, "cluster">) {
  if (views) return views;
  if (keptIn !== undefined) return viewFile(keptIn);
  if (typeof cluster !== "string") return undefined;
  const { load } = viewFile(viewsBeside(cluster));
  return { load, save: () => Promise.resolve() };
}

async function endsOf(options: ConnectServiceOptions): Promise<Ends & Pick<ServiceConnectionOptions, "views">> {
  const { cluster, identity, transport } = options;
  const path = typeof cluster === "string" ? cluster : null;
  const file = typeof cluster === "string" ? await readClusterFile(cluster) : cluster;
  const keys = identity ?? (path === null ? undefined : join(dirname(path), "client.key"));
  if (keys === undefined) {
    throw new QuorateError("INVALID_ARGUMENT", "give identity: a key file's path, or keys such as newIdentity()");
  }
  return {
    cluster: file,
    identity: typeof keys === "string" ? await readIdentityFile(keys) : keys,
    crypto: nodeCrypto,
    transport: transport ?? wsTransport,
    views: viewsFor(options),
  };
}

/** Fresh keys: a client nobody knows yet, welcome where clients are "open". */
export function newIdentity(): Identity {
  return newIdentityWith(nodeCrypto);
}

export interface AdministrationConnectOptions extends Pick<ConnectServiceOptions, "cluster" | "views" | "viewFile"> {
  /** Key files of administrators, or their keys: at least as many as the cluster's threshold. */
  readonly administrators: readonly (string | Identity)[];
  /** Milliseconds each call waits for a quorum; 5,000 by default. */
  readonly timeoutMs?: number | undefined;
  readonly transport?: Transport | undefined;
}

/**
 * Connects as an administrator, who may grant and revoke clients' rights.
 * @throws QuorateError NOT_ADMINISTRATOR, and as `connect`
 * @example
 * ```ts
 * const administration = await connectAdministration({ cluster: ".kv/cluster.json", administrators: [".kv/admin.key"] });
 * await administration.grant({ keys, read: ["shared/"], write: ["alice/"] });
 * await administration.close();
 * ```
 */
export async function connectAdministration(options: AdministrationConnectOptions): Promise<Administration> {
  const { cluster, administrators, timeoutMs, transport = wsTransport } = options;
  const file = typeof cluster === "string" ? await readClusterFile(cluster) : cluster;
  const identities: Identity[] = [];
  for (const keys of administrators) identities.push(typeof keys === "string" ? await readIdentityFile(keys) : keys);
  const views = viewsFor(options);
  return Administration.open({
    cluster: file,
    administrators: identities,
    crypto: nodeCrypto,
    transport,
    timeoutMs,
    views,
  });
}
