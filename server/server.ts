/**
 * One replica with all its real parts: storage opened and recovered, links, gateway and admin HTTP listening, faults
 * counted and logged. `kv-server` is a command line around it.
 */
import { readFileSync } from "node:fs";
import { bytesOf, hex } from "../protocol/bytes.ts";
import { clientMay } from "../protocol/cluster.ts";
import { nodeCrypto } from "../protocol/crypto/node.ts";
import { QuorateError } from "../protocol/errors.ts";
import { BATCH_BYTES_MAX, STATUS_INTERVAL_MS } from "../protocol/limits.ts";
import type { ReplicaId } from "../protocol/view.ts";
import { openStorage } from "../storage/leveldb.ts";
import { realClock } from "./clock.ts";
import type { ServerConfig } from "./config.ts";
import type { ConsensusOptions } from "./consensus/contract.ts";
import { watchDisk } from "./disk-reserve.ts";
import { type Admin, openAdmin } from "./network/admin.ts";
import type { Gateway, Links } from "./network/contract.ts";
import { FaultLog } from "./network/fault-log.ts";
import { type GatewayOptions, openGateway } from "./network/gateway.ts";
import { Metrics } from "./network/metrics.ts";
import { openTcpLinks, type TcpLinksOptions } from "./network/tcp-links.ts";
import { recover } from "./recover.ts";
import { type DriverLogger, Replica } from "./replica.ts";
import type { Service, ServiceState } from "./service/contract.ts";
import { KvService } from "./service/kv-service.ts";
import { Health } from "./status.ts";
import { threadPoolVerifier } from "./verifier.ts";

/** How long a clean stop waits for pending requests. */
const DRAIN_MS = 1_000;
const BATCH_WAIT_US = 20_000;
const CLOCK_DRIFT_MS = 5_000;
const EXECUTION_LAG_MAX = 16;

export const VERSION: string = (
  JSON.parse(readFileSync(new URL("../package.json", packageBase()), "utf8")) as { version: string }
).version;

/** package.json lies one folder above the sources and two above the compiled files. */
function packageBase(): string {
  return import.meta.url.includes("/dist/") ? new URL("../", import.meta.url).href : import.meta.url;
}

export interface RunningServer {
  readonly replica: Replica;
  readonly addresses: { readonly clients: string; readonly peers: string; readonly http: string };
  /** Resolves when this replica can no longer keep its promises. */
  readonly failed: Promise<unknown>;
  /** Drains, journals what was sent, closes everything. */
  stop(): Promise<void>;
}

/** What a replica is made of that a caller may replace: another service, or parts that misbehave in a test. */
export interface ServerParts {
  readonly service: (state: ServiceState) => Service;
  readonly openLinks: (options: TcpLinksOptions) => Promise<Links & { readonly port: number }>;
  readonly openGateway: (options: GatewayOptions) => Promise<Gateway>;
}

const REAL_PARTS: ServerParts = { service: (state) => new KvService(state), openLinks: openTcpLinks, openGateway };

/**
 * Opens and runs a replica. Only code can pass `parts`: no configuration and no environment variable leads to them.
 * @throws QuorateError of storage and ports (STORAGE_*, CLUSTER_MISMATCH, PORT_IN_USE, CONFIG_INVALID)
 */
export async function startServer(
  config: ServerConfig,
  logger: DriverLogger,
  parts: Partial<ServerParts> = {},
): Promise<RunningServer> {
  const { cluster, replica: self, identity } = config;
  if (cluster.view.mode !== "bft") {
    throw new QuorateError("CONFIG_INVALID", "this release runs mode bft only; create the cluster with kv init");
  }
  const founding = { cluster: cluster.id, replica: self, genesis: cluster.genesis };
  const storage = await openStorage({ directory: config.dataDir, founding });
  const open: (() => Promise<void>)[] = [() => storage.close()];
  const closeAll = async (): Promise<void> => {
    for (const close of open.splice(0).reverse()) await close();
  };
  try {
    const { service, ...network } = { ...REAL_PARTS, ...parts };
    const { executor, start, replayed } = await recover({ crypto: nodeCrypto, cluster, storage, service });
    const at = { instance: start.lastDecided.instance, replayed, clean: start.eraseCleanStop };
    logger.info(at, "recovered from the data directory");
    const metrics = new Metrics();
    const faults = new FaultLog({
      logger,
      count: (fault) => metrics.countRejected(fault),
      now: () => performance.now(),
    });
    let fail: (error: unknown) => void = () => undefined;
    const failed = new Promise<unknown>((resolve) => {
      fail = resolve;
    });
    const replica = new Replica({
      cluster,
      self,
      identity,
      crypto: nodeCrypto,
      storage,
      executor,
      start,
      options: consensusOptions(config),
      clock: realClock,
      verifier: threadPoolVerifier,
      logger,
      halt: fail,
      observer: {
        decided: (batch) => metrics.observeBatch(batch),
        phase: (name, seconds) => metrics.observePhase(name, seconds),
        fault: (source, from, code) => faults.report({ source, from, code, remote: `replica ${from}` }),
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
      },
    });
    const links = await network.openLinks(linksOptions(config, replica, { faults, metrics, logger }));
    open.push(() => links.close());
    const gateway = await network.openGateway(gatewayOptions(config, replica, faults));
    open.push(() => gateway.close());
    const health = new Health({ config, replica, executor, links, gateway, metrics, version: VERSION });
    const admin = await openAdminHttp(config, health, logger);
    open.push(() => admin.close());
    const stopWatching = await watchDisk({
      directory: config.dataDir,
      reserveBytes: config.diskReserveBytes,
      report: (low) => {
        replica.diskLow = low;
      },
    });
    open.push(async () => stopWatching());
    replica.run(links, gateway);
    const { host, adminHost } = config.listen;
    let stopping: Promise<void> | null = null;
    return {
      replica,
      failed,
      addresses: {
        clients: `ws://${host}:${gateway.port}/`,
        peers: `${host}:${links.port}`,
        http: `http://${adminHost}:${admin.port}/`,
      },
      stop() {
        stopping ??= replica
          .stop(DRAIN_MS)
          .then(closeAll)
          .then(() => metrics.close());
        return stopping;
      },
    };
  } catch (error) {
    await closeAll();
    throw error;
  }
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
  };
}

function linksOptions(
  config: ServerConfig,
  replica: Replica,
  ports: { faults: FaultLog; metrics: Metrics; logger: DriverLogger },
): TcpLinksOptions {
  const { cluster, replica: self, identity, listen } = config;
  const connected = (peer: ReplicaId, up: boolean): void => {
    ports.metrics.setConnected(peer, up);
    ports.logger.info({ peer, up }, up ? "link stands" : "link lost");
  };
  for (const { id } of cluster.view.members) if (id !== self) ports.metrics.setConnected(id, false);
  return {
    crypto: nodeCrypto,
    cluster: cluster.id,
    self,
    identity,
    members: cluster.view.members,
    listen: { host: listen.host, port: listen.peerPort },
    events: {
      onMessage: (from, payload) => replica.onMessage(from, payload),
      onConnected: (peer) => {
        connected(peer, true);
        replica.onConnected(peer);
      },
      onDisconnected: (peer) => connected(peer, false),
      onFault: ({ from, code, remote }) => ports.faults.report({ source: "link", from, code, remote }),
    },
  };
}

function gatewayOptions(config: ServerConfig, replica: Replica, faults: FaultLog): GatewayOptions {
  const { cluster, replica: self, identity, listen } = config;
  return {
    crypto: nodeCrypto,
    cluster: cluster.id,
    view: cluster.view.id,
    replica: self,
    identity,
    listen: { host: listen.host, port: listen.clientPort },
    events: {
      admit: (client) => clientMay(cluster, client),
      onAuthenticated: (connection, keys) => replica.authenticity.learn(connection.client, keys),
      onRequest: (connection, envelope, request) => {
        const rejection = replica.onRequest(connection, envelope, request);
        if (!rejection) return;
        faults.report({
          source: "gateway",
          from: null,
          code: rejection.code,
          remote: hex(bytesOf(connection.client)).slice(0, 8),
        });
        if (rejection.action === "punish") connection.close(4400, rejection.code);
      },
      onClosed: () => undefined,
      onFault: ({ code, remote }) => faults.report({ source: "gateway", from: null, code, remote }),
    },
  };
}

function openAdminHttp(config: ServerConfig, health: Health, logger: DriverLogger): Promise<Admin> {
  const { listen, replica } = config;
  return openAdmin({
    listen: { host: listen.adminHost, port: listen.adminPort },
    routes: health,
    setting: `adminPort of replica ${replica}`,
    onError: (error) => logger.warn({ error: String(error) }, "an admin request failed"),
  });
}
