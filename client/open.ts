/**
 * Opens a connection on given ports: what `connectService()` and `connect()` of Node and of browsers share, and what tests and
 * simulators call.
 */
import { type ClusterFile, clusterFileSchema, clusterOf, firstIssue } from "../protocol/cluster.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { QuorateError } from "../protocol/errors.ts";
import type { Identity } from "../protocol/identity.ts";
import { systemClock } from "./clock.ts";
import { type Codec, utf8 } from "./codecs.ts";
import { Kv } from "./kv.ts";
import type { Consistency } from "./kv-types.ts";
import type { Clock, Transport } from "./ports.ts";
import { ServiceProxy } from "./service-proxy.ts";
import { Session } from "./session.ts";
import { SessionNumbers } from "./session-numbers.ts";
import { storedChain, type ViewStore } from "./view-follower.ts";

/** Options of `connectService()` that do not depend on the platform. */
export interface ServiceConnectionOptions {
  /** Milliseconds each call waits for a quorum, connecting included; 5,000 by default. */
  readonly timeoutMs?: number | undefined;
  /** Sign every request (Ed25519). Done anyway when the cluster asks for it. */
  readonly signed?: boolean | undefined;
  /**
   * What unordered commands promise unless they say otherwise; "linearizable" by default. With "local" one replica is enough to
   * connect: see `Consistency` for what is lost.
   */
  readonly consistency?: Consistency | undefined;
  /** Keeps the views that this client has followed: without it, it follows them again from the cluster file's on. */
  readonly views?: ViewStore | undefined;
  /** Gives up connecting. */
  readonly signal?: AbortSignal | undefined;
  /** Replaces the WebSocket transport. */
  readonly transport?: Transport | undefined;
  /** Replaces time and chance. */
  readonly clock?: Clock | undefined;
  /** Session numbers of this process, which must only rise. */
  readonly sessionNumbers?: SessionNumbers | undefined;
}

/** Options of `connect()` that do not depend on the platform. */
export interface ConnectionOptions<T> extends ServiceConnectionOptions {
  /** How values become bytes; `utf8` by default. See `Kv.withCodec`. */
  readonly codec?: Codec<T> | undefined;
  /** Order every read like a write. */
  readonly orderedReads?: boolean | undefined;
}

/** Whom to talk to, as whom, and how. */
export interface Ends {
  readonly cluster: ClusterFile;
  readonly identity: Identity;
  readonly crypto: Crypto;
  readonly transport: Transport;
}

const TIMEOUT_MS = 5_000;

/** Never below the last session of this process. */
const processNumbers = new SessionNumbers();

/** @throws QuorateError CONFIG_INVALID, KEY_FILE_INVALID, INVALID_ARGUMENT, and as `Replicas.whenQuorumReady` */
export async function openService(options: ServiceConnectionOptions & Ends): Promise<ServiceProxy> {
  const { crypto, identity, transport, timeoutMs = TIMEOUT_MS, signal, consistency = "linearizable" } = options;
  if (!(timeoutMs > 0)) throw new QuorateError("INVALID_ARGUMENT", "timeoutMs must be above 0");
  const parsed = clusterFileSchema.safeParse(options.cluster);
  if (!parsed.success) throw new QuorateError("CONFIG_INVALID", `the cluster file: ${firstIssue(parsed.error)}`);
  const cluster = clusterOf(crypto, parsed.data);
  const store = options.views ?? null;
  const session = new Session({
    cluster,
    chain: await storedChain(crypto, cluster.view, store),
    store,
    identity,
    crypto,
    transport,
    clock: options.clock ?? systemClock(),
    numbers: options.sessionNumbers ?? processNumbers,
    signed: options.signed ?? cluster.signedRequests,
  });
  try {
    await session.ready({ timeoutMs, signal, ...(consistency === "local" ? { need: 1 } : {}) });
  } catch (error) {
    await session.close();
    throw error;
  }
  return new ServiceProxy(session, { timeoutMs, consistency });
}

/** @throws QuorateError as `openService` */
export async function open<T>(options: ConnectionOptions<T> & Ends): Promise<Kv<T>> {
  const { orderedReads = false, consistency = "linearizable" } = options;
  if (orderedReads && consistency === "local") {
    throw new QuorateError("INVALID_ARGUMENT", "reads are either local or ordered, not both");
  }
  const codec = options.codec ?? (utf8 as Codec<unknown> as Codec<T>);
  return new Kv(await openService(options), codec, { orderedReads, consistency });
}
