/** What a replica says about itself over admin HTTP: health checks, metrics, and the /status document. */
import { bytesOf, hex } from "../protocol/bytes.ts";
import type { ServerConfig } from "./config.ts";
import type { CoreState } from "./core.ts";
import type { AdminRoutes, HealthCheck, Health as HealthReport } from "./network/admin.ts";
import type { Gateway, Links } from "./network/contract.ts";
import type { Metrics } from "./network/metrics.ts";
import type { Replica } from "./replica.ts";
import type { Executor } from "./service/executor.ts";

/** Instances a replica may be behind what a correct peer claims and still call itself ready. */
const READY_LAG_MAX = 1_000;

export interface HealthParts {
  readonly config: ServerConfig;
  readonly replica: Replica;
  readonly executor: Executor;
  readonly links: Links;
  readonly gateway: Gateway;
  readonly metrics: Metrics;
  readonly version: string;
}

/** One other replica as this one sees it; `decided` is its own claim. */
export interface PeerStatus {
  readonly replica: number;
  readonly connected: boolean;
  readonly decided: number | null;
  readonly abstainingUntil: number | null;
  readonly queuedBytes: number;
}

export class Health implements AdminRoutes {
  readonly #parts: HealthParts;

  constructor(parts: HealthParts) {
    this.#parts = parts;
  }

  livez(): HealthReport {
    return report([{ name: "running", ok: !this.#parts.replica.halted }]);
  }

  readyz(): HealthReport {
    const { replica, links, config } = this.#parts;
    const { view } = config.cluster;
    const connected = links.connected().length + 1;
    const claims = this.#peers().map((peer) => peer.decided ?? 0);
    // W claim at least as much, so one that is correct does: a single liar makes nobody unready.
    const credible = claims.sort((a, b) => b - a)[view.weakQuorum - 1] ?? 0;
    const lag = Math.max(0, credible - replica.core.lastDecided);
    return report([
      { name: "running", ok: !replica.halted },
      { name: "accepting", ok: !replica.draining },
      { name: "recovered", ok: replica.recovered },
      {
        name: "quorum",
        ok: connected >= view.quorum,
        detail: `${connected} of ${view.n} connected, quorum ${view.quorum}`,
      },
      { name: "lag", ok: lag <= READY_LAG_MAX, detail: `${lag} instances` },
    ]);
  }

  async metrics(): Promise<string> {
    const { replica, metrics, gateway, executor } = this.#parts;
    const { view, regency, leader, lastDecided, pendingRequests, pendingBytes } = replica.core.state;
    metrics.view = view;
    metrics.regency = regency;
    metrics.isLeader = leader === this.#parts.config.replica;
    metrics.instancesDecided = lastDecided.instance;
    metrics.instancesExecuted = replica.executedInstance;
    metrics.storeRevision = executor.revision;
    metrics.pendingRequests = pendingRequests;
    metrics.pendingBytes = pendingBytes;
    metrics.clientConnections = gateway.connections;
    const { counts } = replica.intake;
    for (const [result, count] of Object.entries(counts)) metrics.setRequests(result, count);
    const { journalBytes, stateBytes } = await replica.diskUse();
    metrics.setDiskBytes("journal", journalBytes);
    metrics.setDiskBytes("state", stateBytes);
    return metrics.text();
  }

  #peers(): PeerStatus[] {
    const { config, links, replica } = this.#parts;
    const connected = new Set(links.connected());
    const others = config.cluster.view.members.filter((member) => member.id !== config.replica);
    return others.map(({ id }) => {
      const status = replica.core.statusOf(id);
      return {
        replica: id,
        connected: connected.has(id),
        decided: status?.decided ?? null,
        abstainingUntil: status?.abstainingUntil ?? null,
        queuedBytes: links.queuedBytes(id),
      };
    });
  }

  async status(): Promise<object> {
    const { config, replica, executor, gateway, version } = this.#parts;
    const { core } = replica;
    const { view, regency, wantedRegency, leader, lastDecided, holding } = core.state;
    const { pendingRequests, pendingBytes, bufferedMessages } = core.state;
    const { n, f, quorum, mode } = config.cluster.view;
    return {
      replica: config.replica,
      version,
      pid: process.pid,
      cluster: hex(bytesOf(config.cluster.id)),
      mode,
      n,
      f,
      quorum,
      view,
      regency,
      wantedRegency,
      leader,
      decided: lastDecided.instance,
      executed: replica.executedInstance,
      revision: String(executor.revision),
      historyDigest: hex(bytesOf(executor.applied.digest)),
      state: this.#state(core.state),
      holding,
      peers: this.#peers(),
      queues: {
        pendingRequests,
        pendingBytes,
        bufferedMessages,
        executionBacklog: replica.executionBacklog,
        clientConnections: gateway.connections,
      },
      requests: { ...replica.intake.counts },
      disk: { ...(await replica.diskUse()), low: replica.diskLow },
    };
  }

  #state({ abstainingUntil, catchingUp, synchronized }: CoreState): string {
    const { replica } = this.#parts;
    if (replica.halted) return "halted";
    if (replica.draining) return "draining";
    if (catchingUp) return "catching up";
    if (!replica.recovered) return "recovering";
    if (!synchronized) return "synchronizing";
    return abstainingUntil > 0 ? "abstaining" : "voting";
  }
}

function report(checks: readonly HealthCheck[]): HealthReport {
  return { ok: checks.every((check) => check.ok), checks };
}
