/**
 * The metrics of one replica (docs/operations.md), in a registry of its own. What the hot path counts are plain numbers and
 * maps; prom-client sees them only when somebody asks for `/metrics`. Histograms are observed once per batch.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Fault } from "./fault-log.ts";

/** The parts of an instance's time. */
export const PHASES = ["write", "journal", "verify", "accept", "execute", "state_write"] as const;
export type Phase = (typeof PHASES)[number];

/** Combinations of rejection labels kept apart; more are counted under code "OTHER". */
const REJECTED_KINDS_MAX = 1_024;
const PHASE_SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5];
const BATCH_REQUESTS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 4_000];
const BATCH_BYTES = [256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304];

/** What is shown of a transfer. */
export interface TransferGauges {
  readonly phase: string;
  readonly donor: number | null;
  readonly bytes: number;
  readonly bytesTotal: number;
  readonly bytesPerSecond: number;
  readonly secondsLeft: number | null;
}

interface Rejected {
  readonly source: string;
  readonly from: string;
  readonly code: string;
  count: number;
}

export class Metrics {
  readonly registry = new Registry();
  // Set or raised by the driver as it goes; read when metrics are asked for.
  view = 0;
  regency = 0;
  isLeader = false;
  rotation = 0;
  leadersOnProbation = 0;
  handovers = 0;
  instancesDecided = 0;
  instancesExecuted = 0;
  storeRevision = 0;
  pendingRequests = 0;
  pendingBytes = 0;
  clientConnections = 0;
  heldProposals = 0;
  regencyChanges = 0;
  repairs = 0;
  rootMismatches = 0;
  alarms = 0;
  /** While a state is fetched from the others. */
  transfer: TransferGauges | null = null;
  #checkpoint = { instance: 0, bytes: 0, seconds: 0 };
  readonly #requests = new Map<string, number>();
  readonly #fetches = new Map<string, number>();
  readonly #rejected = new Map<string, Rejected>();
  readonly #connected = new Map<number, boolean>();
  readonly #disk = new Map<string, number>();
  readonly #batchRequests: Histogram;
  readonly #batchBytes: Histogram;
  readonly #phases = new Map<Phase, ReturnType<Histogram["labels"]>>();

  constructor() {
    const registers = [this.registry];
    collectDefaultMetrics({ register: this.registry, prefix: "quorate_" });
    this.#publishNumbers();
    this.#publishMaps();
    this.#publishTransfer();
    this.#batchRequests = new Histogram({
      name: "quorate_batch_requests",
      help: "Requests in each decided batch",
      buckets: BATCH_REQUESTS,
      registers,
    });
    this.#batchBytes = new Histogram({
      name: "quorate_batch_bytes",
      help: "Bytes of each decided batch",
      buckets: BATCH_BYTES,
      registers,
    });
    const seconds = new Histogram({
      name: "quorate_phase_seconds",
      help: "Time of each phase of an instance",
      labelNames: ["phase"],
      buckets: PHASE_SECONDS,
      registers,
    });
    for (const phase of PHASES) this.#phases.set(phase, seconds.labels({ phase }));
  }

  /** One request finished at this replica with this result (a reply status, in lower case or as it is). */
  countRequest(result: string, count = 1): void {
    this.#requests.set(result, (this.#requests.get(result) ?? 0) + count);
  }

  /** The same for a count that is kept elsewhere. */
  setRequests(result: string, total: number): void {
    this.#requests.set(result, total);
  }

  /** A fetch of batches, history, or whatever else `kind` names. */
  countFetch(kind: string): void {
    this.#fetches.set(kind, (this.#fetches.get(kind) ?? 0) + 1);
  }

  /** Bytes of a peer or client that were refused. */
  countRejected(fault: Pick<Fault, "source" | "from" | "code">): void {
    const from = fault.from === null ? "unknown" : String(fault.from);
    let rejected = this.#rejected.get(`${fault.source} ${from} ${fault.code}`);
    if (!rejected) {
      const code = this.#rejected.size < REJECTED_KINDS_MAX ? fault.code : "OTHER";
      rejected = this.#rejectedOf({ source: fault.source, from: code === "OTHER" ? "unknown" : from, code });
    }
    rejected.count++;
  }

  #rejectedOf(labels: { source: string; from: string; code: string }): Rejected {
    const name = `${labels.source} ${labels.from} ${labels.code}`;
    let rejected = this.#rejected.get(name);
    if (!rejected) {
      rejected = { ...labels, count: 0 };
      this.#rejected.set(name, rejected);
    }
    return rejected;
  }

  setConnected(replica: number, connected: boolean): void {
    this.#connected.set(replica, connected);
  }

  observeCheckpoint(checkpoint: { instance: number; bytes: number; seconds: number }): void {
    this.#checkpoint = checkpoint;
  }

  setDiskBytes(store: string, bytes: number): void {
    this.#disk.set(store, bytes);
  }

  observeBatch(batch: { requests: number; bytes: number }): void {
    this.#batchRequests.observe(batch.requests);
    this.#batchBytes.observe(batch.bytes);
  }

  observePhase(phase: Phase, seconds: number): void {
    this.#phases.get(phase)?.observe(seconds);
  }

  /** Prometheus text of everything. */
  text(): Promise<string> {
    return this.registry.metrics();
  }

  /** Ends the default metrics' observers of this registry. */
  close(): void {
    this.registry.clear();
  }

  #publishNumbers(): void {
    const gauges: readonly (readonly [name: string, help: string, read: () => number])[] = [
      ["quorate_view", "Id of the installed view", () => this.view],
      ["quorate_regency", "Installed regency", () => this.regency],
      ["quorate_is_leader", "1 while this replica leads", () => (this.isLeader ? 1 : 0)],
      ["quorate_rotation", "Instances in a leader's turn; 0 when one leads until it fails", () => this.rotation],
      [
        "quorate_leaders_on_probation",
        "Members with less patience because they failed as leaders lately",
        () => this.leadersOnProbation,
      ],
      ["quorate_instances_decided", "Last decided instance", () => this.instancesDecided],
      ["quorate_instances_executed", "Last executed instance", () => this.instancesExecuted],
      ["quorate_store_revision", "Revision of the key-value store", () => this.storeRevision],
      ["quorate_pending_requests", "Requests waiting to be ordered", () => this.pendingRequests],
      ["quorate_pending_bytes", "Bytes of requests waiting to be ordered", () => this.pendingBytes],
      ["quorate_client_connections", "Open client connections", () => this.clientConnections],
      ["quorate_alarms", "Alarms in /status", () => this.alarms],
      ["quorate_transfer_active", "1 while a state is fetched from other replicas", () => (this.transfer ? 1 : 0)],
      ["quorate_transfer_bytes", "Bytes of the checkpoint fetched so far", () => this.transfer?.bytes ?? 0],
      ["quorate_transfer_bytes_wanted", "Bytes of the checkpoint", () => this.transfer?.bytesTotal ?? 0],
      ["quorate_transfer_bytes_per_second", "Rate of the transfer", () => this.transfer?.bytesPerSecond ?? 0],
      ["quorate_transfer_seconds_left", "Time left for the checkpoint", () => this.transfer?.secondsLeft ?? 0],
      ["quorate_checkpoint_instance", "Instance of the newest checkpoint", () => this.#checkpoint.instance],
      ["quorate_checkpoint_bytes", "Bytes of the newest checkpoint", () => this.#checkpoint.bytes],
      ["quorate_checkpoint_seconds", "Time that the newest checkpoint took", () => this.#checkpoint.seconds],
    ];
    for (const [name, help, read] of gauges) {
      new Gauge({
        name,
        help,
        registers: [this.registry],
        collect() {
          this.set(read());
        },
      });
    }
    const counters: readonly [name: string, help: string, read: () => number][] = [
      [
        "quorate_held_proposals_total",
        "Proposals held because a request was not authentic yet or the clock disagreed",
        () => this.heldProposals,
      ],
      ["quorate_leader_handovers_total", "Turns of leaders that ended in order since the start", () => this.handovers],
      ["quorate_regency_changes_total", "Regencies installed since the start", () => this.regencyChanges],
      [
        "quorate_root_mismatches_total",
        "Roots of other replicas that differ from this one's at the same instance",
        () => this.rootMismatches,
      ],
      ["quorate_repairs_total", "Stores set aside and begun anew since the start", () => this.repairs],
    ];
    for (const [name, help, read] of counters) {
      new Counter({
        name,
        help,
        registers: [this.registry],
        collect() {
          this.reset();
          this.inc(read());
        },
      });
    }
  }

  #publishTransfer(): void {
    const transfer = (): TransferGauges | null => this.transfer;
    new Gauge({
      name: "quorate_transfer_phase",
      help: "1 for the phase of the transfer, with its donor",
      labelNames: ["phase", "donor"],
      registers: [this.registry],
      collect() {
        this.reset();
        const now = transfer();
        if (now) this.set({ phase: now.phase, donor: now.donor === null ? "none" : String(now.donor) }, 1);
      },
    });
  }

  #publishMaps(): void {
    const registers = [this.registry];
    const totals = [
      ["quorate_requests_total", "Requests finished at this replica", "result", this.#requests],
      ["quorate_fetches_total", "Fetches from other replicas", "kind", this.#fetches],
    ] as const;
    for (const [name, help, label, counts] of totals) {
      new Counter({
        name,
        help,
        labelNames: [label],
        registers,
        collect() {
          this.reset();
          for (const [value, count] of counts) this.inc({ [label]: value }, count);
        },
      });
    }
    const rejected = this.#rejected;
    new Counter({
      name: "quorate_rejected_total",
      help: "Frames, messages and requests refused, by who sent them and why",
      labelNames: ["source", "from", "code"],
      registers,
      collect() {
        this.reset();
        for (const { source, from, code, count } of rejected.values()) this.inc({ source, from, code }, count);
      },
    });
    const connected = this.#connected;
    new Gauge({
      name: "quorate_replica_connected",
      help: "1 while the link to the replica stands",
      labelNames: ["replica"],
      registers,
      collect() {
        for (const [replica, up] of connected) this.set({ replica: String(replica) }, up ? 1 : 0);
      },
    });
    const disk = this.#disk;
    new Gauge({
      name: "quorate_disk_bytes",
      help: "Bytes on disk",
      labelNames: ["store"],
      registers,
      collect() {
        for (const [store, bytes] of disk) this.set({ store }, bytes);
      },
    });
  }
}
