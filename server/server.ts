/**
 * One replica with all its real parts: its host, links, gateway and admin HTTP, faults counted and logged. `library.ts` is its
 * public face.
 */
import { readFileSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { sameBytes } from "../protocol/bytes.ts";
import { shortId } from "../protocol/cluster.ts";
import { nodeCrypto } from "../protocol/crypto/node.ts";
import { QuorateError } from "../protocol/errors.ts";
import { BATCH_BYTES_MAX, STATUS_INTERVAL_MS } from "../protocol/limits.ts";
import { encodeMessage } from "../protocol/messages.ts";
import type { ReplicaId, View } from "../protocol/view.ts";
import { openStorage } from "../storage/leveldb.ts";
import { AdminEndpoint } from "./admin-endpoint.ts";
import { realClock } from "./clock.ts";
import type { ListenAddresses, ServerConfig } from "./config.ts";
import type { ConsensusOptions } from "./consensus/contract.ts";
import { watchDisk } from "./disk-reserve.ts";
import type { DriverLogger, DriverObserver } from "./driver-contract.ts";
import { Garbage } from "./garbage.ts";
import { Host } from "./host.ts";
import type { GatewayListener, LinkListener, Peers } from "./host-contract.ts";
import { workerStage } from "./intake-stage/worker-stage.ts";
import { formerAddresses, listenAt } from "./listen-at.ts";
import type { Gateway, Links } from "./network/contract.ts";
import { FaultLog } from "./network/fault-log.ts";
import { type GatewayOptions, openGateway } from "./network/gateway.ts";
import { Metrics } from "./network/metrics.ts";
import type { ChainPort } from "./network/presentation.ts";
import { openTcpLinks, type TcpLinksOptions } from "./network/tcp-links.ts";
import { reportCatchingUp } from "./recovery-report.ts";
import { ReplicaKeys } from "./replica-keys.ts";
import type { RequestHooks } from "./request-hooks.ts";
import type { ServiceFactory } from "./service/contract.ts";
import { kvService } from "./service/kv-service.ts";
import { SnapshotAccess, type SnapshotSource } from "./snapshot/access.ts";
import { foundOrigin } from "./snapshot/founding.ts";
import { Health } from "./status.ts";
import { watchStores } from "./store-watch.ts";
import { threadPoolVerifier } from "./verifier.ts";
import type { Views } from "./views.ts";
import { VotingWatch, watchVoting } from "./voting-watch.ts";

/** How long a clean stop waits for pending requests. */
const DRAIN_MS = 1_000;
const BATCH_WAIT_US = 20_000;
const CLOCK_DRIFT_MS = 5_000;
const EXECUTION_LAG_MAX = 16;
/** An empty replica that is further behind fetches a checkpoint instead of the whole log. */
const EMPTY_LAG_MAX = 64;
/** A disk that was full must have this much room before anything is written again. */
const ROOM_BYTES_MIN = 64 * 1024 * 1024;

export const VERSION: string = (
  JSON.parse(readFileSync(new URL("../package.json", packageBase()), "utf8")) as { version: string }
).version;

/** package.json lies one folder above the sources and two above the compiled files. */
function packageBase(): string {
  return import.meta.url.includes("/dist/") ? new URL("../", import.meta.url).href : import.meta.url;
}

export interface RunningServer {
  readonly host: Host;
  readonly health: Health;
  readonly addresses: { readonly clients: string; readonly peers: string; readonly http: string };
  /** Resolves when this replica can no longer keep its promises. */
  readonly failed: Promise<unknown>;
  /** Resolves when this replica is no member any more, with the number of the view it is not in, and nobody needs it: its keys are to be erased. */
  readonly retired: Promise<number>;
  /** Drains, journals what was sent, closes everything. */
  stop(): Promise<void>;
}

/** What runs on a replica. */
export interface Application {
  readonly service: ServiceFactory;
  /** None: every authentic request is taken, every reply leaves. */
  readonly hooks?: RequestHooks;
}

/** What a replica is made of that a caller may replace with parts that misbehave in a test. */
export interface ServerParts {
  readonly openLinks: (options: TcpLinksOptions) => Promise<Links & { readonly port: number }>;
  readonly openGateway: (options: GatewayOptions) => Promise<Gateway>;
}

const REAL_PARTS: ServerParts = { openLinks: openTcpLinks, openGateway };

interface Reporting {
  readonly faults: FaultLog;
  readonly metrics: Metrics;
  readonly logger: DriverLogger;
}

/**
 * Opens and runs a replica. Only code can pass `parts`: no configuration and no environment variable leads to them.
 * @throws QuorateError of storage and ports (STORAGE_*, CLUSTER_MISMATCH, PORT_IN_USE, CONFIG_INVALID)
 */
export async function startServer(
  config: ServerConfig,
  logger: DriverLogger,
  application: Application,
  parts: Partial<ServerParts> = {},
): Promise<RunningServer> {
  const { cluster, replica: self, dataDir, workers } = config;
  if (cluster.origin && application.service !== kvService) {
    const why = "only the key-value store can begin with a snapshot; create the cluster without --from-snapshot";
    throw new QuorateError("CONFIG_INVALID", why);
  }
  const network = { ...REAL_PARTS, ...parts };
  const metrics = new Metrics();
  const count = (fault: Parameters<Metrics["countRejected"]>[0]): void => metrics.countRejected(fault);
  const faults = new FaultLog({ logger, count, now: () => performance.now() });
  const reporting: Reporting = { faults, metrics, logger };
  let fail: (error: unknown) => void = () => undefined;
  const failed = new Promise<unknown>((resolve) => {
    fail = resolve;
  });
  const keys = new ReplicaKeys({ keyPath: config.keyPath, self, identity: config.identity, logger });
  let retire: (view: number) => void = () => undefined;
  const retired = new Promise<number>((resolve) => {
    retire = resolve;
  });
  let admin: AdminEndpoint | null = null;
  const listenIn = (view: View): ListenAddresses => listenAt(config, host.views.chain, view);
  const host: Host = new Host({
    cluster,
    self,
    identityOf: (view) => keys.of(view),
    crypto: nodeCrypto,
    openStorage: (founding) => openStorage({ directory: dataDir, founding }),
    openLinks: async (listener, peers) => {
      const listen = listenIn(peers.view);
      await admin?.move(adminOf(listen));
      const chain = chainFor(host.views, (links) => listener.onMessage(self, links));
      return await network.openLinks(linksOptions(config, listener, { ...reporting, ...peers, listen, keys, chain }));
    },
    openGateway: (listener, view) => {
      const at = { faults, view, views: host.views, listen: listenIn(view), keys };
      return network.openGateway(gatewayOptions(config, listener, at));
    },
    ...application,
    options: consensusOptions(config),
    checkpointPeriod: config.checkpointPeriod,
    clock: realClock,
    verifier: threadPoolVerifier,
    ...(workers > 0
      ? { openIntakeStage: (parts) => workerStage({ workers, boxSecret: keys.current.boxSecret })(parts) }
      : {}),
    logger,
    observer: observerOf(reporting),
    hasSpace: () => hasRoom(dataDir),
    garbage: new Garbage(),
    found: (storage) => foundOrigin({ directory: dataDir, cluster, crypto: nodeCrypto, storage, logger }),
    retired: () => retire(host.views.chain.newest.id),
    fatal: fail,
  });
  const open: (() => Promise<void>)[] = [];
  const closeAll = async (): Promise<void> => {
    for (const close of open.splice(0).reverse()) await close();
  };
  try {
    await host.start();
    const access = new SnapshotAccess({
      crypto: nodeCrypto,
      cluster,
      replica: self,
      source: sourceOf(host),
      nowMs: () => Date.now(),
      mayRead: (client) => host.mayReadAll(client),
    });
    const voting = new VotingWatch(logger);
    const health = new Health({ config, host, metrics, version: VERSION, access, keys, voting });
    const stopVotingWatch = watchVoting(voting, () => health.state);
    open.push(async () => stopVotingWatch());
    const endpoint = await AdminEndpoint.open(
      { routes: health, setting: `adminPort of replica ${self}`, logger },
      adminOf(listenIn(host.views.chain.newest)),
    );
    admin = endpoint;
    open.push(() => endpoint.close());
    const stopWatching = await watchDisk({
      directory: dataDir,
      reserveBytes: config.diskReserveBytes,
      report: (low) => {
        host.diskLow = low;
      },
    });
    open.push(async () => stopWatching());
    const stopLooking = watchStores(() => host.lookAtStores());
    open.push(async () => stopLooking());
    const catchingUp = () => (host.replica ? host.recovery : null);
    const stopReporting = reportCatchingUp(catchingUp, logger);
    open.push(async () => stopReporting());
    let stopping: Promise<void> | null = null;
    return {
      host,
      health,
      failed,
      retired,
      get addresses() {
        const { host: at, clientPort, peerPort } = listenIn(host.views.chain.newest);
        return { clients: `ws://${at}:${clientPort}/`, peers: `${at}:${peerPort}`, http: endpoint.url };
      },
      stop() {
        stopping ??= host
          .stop(DRAIN_MS)
          .then(closeAll)
          .then(() => metrics.close());
        return stopping;
      },
    };
  } catch (error) {
    await host.stop(0);
    await closeAll();
    throw error;
  }
}

/** A disk that cannot be asked may have room: the next attempt shows it. */
async function hasRoom(directory: string): Promise<boolean> {
  try {
    const { bavail, bsize } = await statfs(directory);
    return bavail * bsize >= ROOM_BYTES_MIN;
  } catch {
    return true;
  }
}

/** Whatever replica runs at the moment; none, nothing. */
function sourceOf(host: Host): SnapshotSource {
  return {
    offer: async (rootsFrom) => (await host.replica?.snapshotSource.offer(rootsFrom)) ?? null,
    manifest: async (checkpoint) => (await host.replica?.snapshotSource.manifest(checkpoint)) ?? null,
    chunk: async (checkpoint, index) => (await host.replica?.snapshotSource.chunk(checkpoint, index)) ?? null,
    history: async (range) => (await host.replica?.snapshotSource.history(range)) ?? null,
  };
}

function observerOf({ metrics, faults, logger }: Reporting): DriverObserver {
  return {
    decided: (batch) => metrics.observeBatch(batch),
    phase: (name, seconds) => metrics.observePhase(name, seconds),
    fault: (source, from, code) => faults.report({ source, from, code, remote: `replica ${from}` }),
    clientFault: (client, code) => faults.report({ source: "gateway", from: null, code, remote: shortId(client) }),
    suspected: (leader, reason) => {
      const fault = { source: "message", from: leader, code: reason, remote: `replica ${leader}` } as const;
      if (reason.startsWith("HELD")) {
        metrics.heldProposals++;
        faults.report(fault);
        return;
      }
      metrics.countRejected(fault);
      logger.warn({ leader, reason }, "asking for another leader");
    },
    regencyInstalled: (regency, leader) => {
      metrics.regencyChanges++;
      logger.info({ regency, leader }, "another leader");
    },
    fetched: (kind) => metrics.countFetch(kind),
    repaired: () => {
      metrics.repairs++;
    },
    checkpoint: ({ instance, bytes, seconds }) => {
      metrics.observeCheckpoint({ instance, bytes, seconds });
      logger.info({ instance, bytes, seconds }, "checkpoint complete");
    },
    rootMismatch: (replica, instance) => {
      metrics.rootMismatches++;
      logger.error({ peer: replica, instance }, "another replica has another state than this one");
    },
  };
}

function consensusOptions(config: ServerConfig): ConsensusOptions {
  return {
    batchRequestsMax: config.batch.requestsMax,
    batchBytesMax: Math.min(config.batch.bytesMax, BATCH_BYTES_MAX - 1024),
    batchWaitUs: BATCH_WAIT_US,
    clockDriftMs: CLOCK_DRIFT_MS,
    requestTimeoutMs: config.requestTimeoutMs,
    statusIntervalMs: STATUS_INTERVAL_MS,
    executionLagMax: EXECUTION_LAG_MAX,
    emptyLagMax: EMPTY_LAG_MAX,
  };
}

/** The view that a stage of this replica runs in, where it listens in it, and its keys. */
interface AtView {
  readonly view: View;
  readonly listen: ListenAddresses;
  readonly keys: ReplicaKeys;
}

function adminOf({ adminHost, adminPort }: ListenAddresses): { host: string; port: number } {
  return { host: adminHost, port: adminPort };
}

/** Links that a stranger brings are heard like those of a member once they are proven: it is of no account who sent them. */
function chainFor(views: Views, heard: (payload: Uint8Array) => void): ChainPort {
  return {
    newest: () => views.chain.newest.id,
    from: (viewId) => views.encodedFrom(viewId),
    formerly: (replica) => formerAddresses(views.chain, replica),
    take: (links) => {
      const { proven, all } = views.leadingOn(links);
      const { id } = views.chain.newest;
      if (proven.length > 0) heard(encodeMessage({ type: "LINKS", view: id, regency: 0, links: [...proven] }));
      return all;
    },
  };
}

function linksOptions(
  config: ServerConfig,
  listener: LinkListener,
  { faults, metrics, logger, view, others, listen, keys, chain }: Reporting & AtView & Peers & { chain: ChainPort },
): TcpLinksOptions {
  const { cluster, replica: self } = config;
  const connected = (peer: ReplicaId, up: boolean): void => {
    metrics.setConnected(peer, up);
    logger.info({ peer, up }, up ? "link stands" : "link lost");
  };
  for (const { id } of view.members) if (id !== self) metrics.setConnected(id, false);
  return {
    crypto: nodeCrypto,
    cluster: cluster.id,
    self,
    identity: keys.of(view),
    members: [...view.members, ...others],
    listen: { host: listen.host, port: listen.peerPort },
    chain,
    events: {
      onMessage: (from, payload) => listener.onMessage(from, payload),
      onConnected: (peer) => {
        connected(peer, true);
        listener.onConnected(peer);
      },
      onDisconnected: (peer) => {
        connected(peer, false);
        listener.onDisconnected(peer);
      },
      onFault: ({ from, code, remote }) => faults.report({ source: "link", from, code, remote }),
    },
  };
}

function gatewayOptions(
  config: ServerConfig,
  listener: GatewayListener,
  { faults, view, views, listen, keys }: AtView & { faults: FaultLog; views: Views },
): GatewayOptions {
  const { cluster, replica: self } = config;
  return {
    crypto: nodeCrypto,
    cluster: cluster.id,
    view: view.id,
    replica: self,
    identity: keys.of(view),
    listen: { host: listen.host, port: listen.clientPort },
    events: {
      admit: (client) => listener.admits(client),
      administers: (signKey) => cluster.view.administrators.some((key) => sameBytes(key, signKey)),
      onAuthenticated: (connection, keys) => listener.onAuthenticated(connection, keys),
      onRequest: (connection, envelope, request) => listener.onRequest(connection, envelope, request),
      links: (fromView) => views.encodedFrom(fromView),
      onClosed: () => undefined,
      onFault: ({ code, remote }) => faults.report({ source: "gateway", from: null, code, remote }),
    },
  };
}
