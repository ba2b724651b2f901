/** What a replica says about itself over admin HTTP: health checks, metrics, and the /status document. */
import { bytesOf, hex } from "../protocol/bytes.ts";
import { nodeCrypto } from "../protocol/crypto/node.ts";
import { readyText } from "../protocol/member-file.ts";
import { readyStatement } from "../protocol/reconfiguration.ts";
import { memberOf, type View } from "../protocol/view.ts";
import type { ServerConfig } from "./config.ts";
import type { Driver } from "./driver.ts";
import type { Alarm } from "./driver-contract.ts";
import type { Host } from "./host.ts";
import type { Stage } from "./host-contract.ts";
import type {
  AdminRoutes,
  HealthCheck,
  Health as HealthReport,
  SnapshotAnswer,
  SnapshotRequest,
} from "./network/admin.ts";
import type { Links } from "./network/contract.ts";
import type { Metrics } from "./network/metrics.ts";
import type { ReplicaKeys } from "./replica-keys.ts";
import type { SnapshotAccess } from "./snapshot/access.ts";
import type { TransferProgress } from "./transfer/transfer.ts";
import type { VotingWatch } from "./voting-watch.ts";

/** Instances a replica may be behind what a correct peer claims and still call itself ready. */
const READY_LAG_MAX = 1_000;

export interface HealthParts {
  readonly config: ServerConfig;
  readonly host: Host;
  readonly metrics: Metrics;
  readonly version: string;
  readonly access: SnapshotAccess;
  readonly keys: ReplicaKeys;
  readonly voting: VotingWatch;
}

/** One other replica as this one sees it; `decided` is its own claim. */
export interface PeerStatus {
  readonly replica: number;
  readonly connected: boolean;
  readonly decided: number | null;
  readonly abstainingUntil: number | null;
  readonly queuedBytes: number;
}

/** What a replica says about itself; an operator's `/status` has more. */
export interface ReplicaStatus {
  readonly replica: number;
  readonly version: string;
  /**
   * "voting" in good times; else "recovering", "transferring", "catching up", "recalling", "forgotten", "synchronizing",
   * "abstaining", "draining", "disk full" or "halted" (docs/operations.md).
   */
  readonly state: string;
  readonly n: number;
  readonly f: number;
  readonly quorum: number;
  readonly view: number;
  readonly regency: number;
  readonly leader: number;
  /** The last decided and the last executed instance. */
  readonly decided: number;
  readonly executed: number;
  /** Of the service: see `Service.revision`. */
  readonly revision: string;
  /** h(executed), in hexadecimal digits: equal on replicas that executed the same. */
  readonly historyDigest: string;
  readonly peers: readonly PeerStatus[];
  /** How far a checkpoint that is fetched is. */
  readonly recovery: TransferProgress | null;
  /** What an operator should look at. */
  readonly alarms: readonly Alarm[];
}

type Running = Extract<Stage, { type: "replica" }>;

export class Health implements AdminRoutes {
  readonly #parts: HealthParts;

  constructor(parts: HealthParts) {
    this.#parts = parts;
  }

  get #running(): Running | null {
    const { stage } = this.#parts.host;
    return stage.type === "replica" ? stage : null;
  }

  /** The view that this replica is in or, without a state, the newest one it knows. */
  get #view(): View {
    return this.#running?.executor.view ?? this.#parts.host.views.chain.newest;
  }

  invitation(body: Uint8Array): boolean {
    return this.#parts.host.invite(body);
  }

  /** Of a replica that is to become a member, or to get other keys, and has a state to show. */
  ready(): string | null {
    const { host, config, keys } = this.#parts;
    const proven = this.#running?.replica.provenState;
    const { newest } = host.views.chain;
    const present = memberOf(newest, config.replica);
    const identity = present ? keys.next : keys.current;
    if (!proven || !identity || this.#lag > READY_LAG_MAX) return null;
    const { signKey, boxKey } = identity;
    const member = { ...(present ?? config.member), signKey, boxKey };
    const statement = readyStatement(config.cluster.id, { view: newest.digest, member, ...proven });
    const signature = nodeCrypto.signer(identity.signSeed)(statement);
    return readyText({ view: newest.digest, replica: config.replica, ready: { ...proven, signature } });
  }

  /** How far behind what W members claim, one of them correct: a single liar makes nobody unready. */
  get #lag(): number {
    const claims = this.#peers().map((peer) => peer.decided ?? 0);
    const credible = claims.sort((a, b) => b - a)[this.#view.weakQuorum - 1] ?? 0;
    return Math.max(0, credible - (this.#running?.replica.core.lastDecided ?? 0));
  }

  get #links(): Links | null {
    const { stage } = this.#parts.host;
    return stage.type === "replica" || stage.type === "transfer" ? stage.links : null;
  }

  snapshot(request: SnapshotRequest): Promise<SnapshotAnswer> {
    return this.#parts.access.answer(request);
  }

  livez(): HealthReport {
    return report([{ name: "running", ok: this.#parts.host.stage.type !== "ended" }]);
  }

  readyz(): HealthReport {
    const view = this.#view;
    const replica = this.#running?.replica;
    const connected = (this.#links?.connected().length ?? 0) + 1;
    const lag = this.#lag;
    return report([
      { name: "running", ok: replica !== undefined && !replica.halted },
      { name: "accepting", ok: replica !== undefined && !replica.draining },
      { name: "recovered", ok: replica?.recovered ?? false },
      {
        name: "quorum",
        ok: connected >= view.quorum,
        detail: `${connected} of ${view.n} connected, quorum ${view.quorum}`,
      },
      { name: "lag", ok: lag <= READY_LAG_MAX, detail: `${lag} instances` },
    ]);
  }

  async metrics(): Promise<string> {
    const { metrics, host } = this.#parts;
    const running = this.#running;
    metrics.transfer = host.recovery;
    metrics.alarms = this.#alarms.length;
    for (const [name, bytes] of Object.entries(await host.diskUse())) {
      metrics.setDiskBytes(name.replace(/Bytes$/, ""), bytes);
    }
    if (running) this.#measure(running);
    return metrics.text();
  }

  #measure({ replica, gateway, executor }: Running): void {
    const { metrics, config } = this.#parts;
    const { view, regency, leader, lastDecided, pendingRequests, pendingBytes } = replica.core.state;
    const { onProbation, handovers } = replica.core.state;
    metrics.view = view;
    metrics.regency = regency;
    metrics.isLeader = leader === config.replica;
    metrics.rotation = config.cluster.view.rotation;
    metrics.leadersOnProbation = onProbation.length;
    metrics.handovers = handovers;
    metrics.instancesDecided = lastDecided.instance;
    metrics.instancesExecuted = replica.executedInstance;
    metrics.storeRevision = executor.revision;
    metrics.pendingRequests = pendingRequests;
    metrics.pendingBytes = pendingBytes;
    metrics.clientConnections = gateway.connections;
    for (const [result, count] of Object.entries(replica.intake.counts)) metrics.setRequests(result, count);
  }

  #peers(): PeerStatus[] {
    const { config } = this.#parts;
    const links = this.#links;
    const connected = new Set(links?.connected());
    const others = this.#view.members.filter((member) => member.id !== config.replica);
    return others.map(({ id }) => {
      const status = this.#running?.replica.core.statusOf(id);
      return {
        replica: id,
        connected: connected.has(id),
        decided: status?.decided ?? null,
        abstainingUntil: status?.abstainingUntil ?? null,
        queuedBytes: links?.queuedBytes(id) ?? 0,
      };
    });
  }

  /** In one word: see `ReplicaStatus.state`. */
  get state(): string {
    const running = this.#running;
    return running ? runningState(running.replica) : stateOf(this.#parts.host.stage);
  }

  get #alarms(): readonly Alarm[] {
    const { host, voting } = this.#parts;
    return voting.alarm ? [...host.alarms, voting.alarm] : host.alarms;
  }

  async status(): Promise<ReplicaStatus> {
    const { config, host, version } = this.#parts;
    const { n, f, quorum, mode, faultModel, rotation, id: view } = this.#view;
    const running = this.#running;
    const status = {
      replica: config.replica,
      version,
      pid: process.pid,
      cluster: hex(bytesOf(config.cluster.id)),
      mode,
      n,
      f,
      quorum,
      faultModel,
      rotation,
      view,
      ...(running ? runningStatus(running) : IDLE),
      state: this.state,
      peers: this.#peers(),
      recovery: host.recovery,
      alarms: this.#alarms,
      disk: { ...(await host.diskUse()), low: host.diskLow },
    };
    return status;
  }
}

/** What a replica reports while it has no state to speak of. */
const IDLE = {
  regency: 0,
  wantedRegency: 0,
  leader: 0,
  onProbation: [],
  decided: 0,
  executed: 0,
  revision: "0",
  historyDigest: "",
  holding: false,
};

function stateOf(stage: Stage): string {
  if (stage.type === "transfer") return "transferring";
  if (stage.type === "full") return "disk full";
  return stage.type === "ended" ? "halted" : "recovering";
}

function runningStatus({ replica, executor, gateway }: Running) {
  const { regency, wantedRegency, leader, onProbation, lastDecided, holding } = replica.core.state;
  const { pendingRequests, pendingBytes, bufferedMessages } = replica.core.state;
  return {
    regency,
    wantedRegency,
    leader,
    onProbation,
    decided: lastDecided.instance,
    executed: replica.executedInstance,
    revision: String(executor.revision),
    historyDigest: hex(bytesOf(executor.applied.digest)),
    holding,
    queues: {
      pendingRequests,
      pendingBytes,
      pendingClients: replica.core.queue.clients,
      pendingCost: replica.core.queue.pendingCost,
      pendingCostMax: Math.round(replica.core.queue.capacity),
      waitingForTurn: replica.intake.readsWaiting,
      bufferedMessages,
      intake: replica.intake.waiting,
      executionBacklog: replica.executionBacklog,
      clientConnections: gateway.connections,
      clientUnreadBytes: gateway.queuedBytes,
    },
    requests: { ...replica.intake.counts },
    ...replica.archiveStatus,
  };
}

function runningState(replica: Driver): string {
  const { abstainingUntil, catchingUp, synchronized, forgotten, heard } = replica.core.state;
  // Between two stages; a host that ends says so itself.
  if (replica.halted) return "recovering";
  if (replica.draining) return "draining";
  if (!replica.member) return catchingUp ? "catching up" : "following";
  if (catchingUp) return "catching up";
  if (!replica.recovered) return "recovering";
  if (forgotten) return "forgotten";
  if (!heard) return "recalling";
  if (!synchronized) return "synchronizing";
  return abstainingUntil > 0 ? "abstaining" : "voting";
}

function report(checks: readonly HealthCheck[]): HealthReport {
  return { ok: checks.every((check) => check.ok), checks };
}
