/**
 * A world: machines, clients and wires under one scheduler, with the checkers listening. It knows no faults of its own;
 * `faults.ts` steers it through what is public here.
 */
import type { Transport } from "../../client/ports.ts";
import { concat, type Digest, hex, utf8 } from "../../protocol/bytes.ts";
import { decodeClientFrame } from "../../protocol/client-frames.ts";
import { type Cluster, type ClusterFile, clusterOf } from "../../protocol/cluster.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { isRejection } from "../../protocol/errors.ts";
import type { Identity } from "../../protocol/identity.ts";
import { decodeRequest, type Request } from "../../protocol/request.ts";
import type { Mode, ReplicaId, View } from "../../protocol/view.ts";
import { ViewChain } from "../../protocol/view-chain.ts";
import type { ConsensusOptions, Effect } from "../../server/consensus/contract.ts";
import type { RunObserver } from "./checkers/events.ts";
import { type CallRecord, SimulatedClient, simulatedClientId, type Workload } from "./client.ts";
import { type Attacker, Violation } from "./contract.ts";
import { identityOf, worldCrypto } from "./crypto.ts";
import { GatewayHub } from "./gateway.ts";
import { LinkHub } from "./links.ts";
import { Machine, type MachineWatcher } from "./machine.ts";
import { Network } from "./network.ts";
import type { Random } from "./random.ts";
import { Scheduler } from "./scheduler.ts";
import { Trace } from "./trace.ts";
import { brief } from "./words.ts";

/** What an attacker is made from: all that a Byzantine replica may know. */
export interface AttackerParts {
  readonly self: ReplicaId;
  readonly cluster: Cluster;
  readonly identity: Identity;
  readonly crypto: Crypto;
  readonly random: Random;
}

export interface WorldOptions {
  readonly seed: number;
  readonly n: number;
  readonly f: number;
  readonly mode?: Mode;
  readonly clients: number;
  readonly workload: Workload;
  readonly consensus: ConsensusOptions;
  readonly checkpointPeriod: number;
  readonly signedRequests: boolean;
  /** The replica whose request verifier refuses some of what all others take. */
  readonly picky?: ReplicaId | null;
  /** Only the clients of this world are founding ones; whoever else comes needs a grant. */
  readonly rights?: boolean;
  /** Instances per leader: the malicious fault model. */
  readonly rotation?: number;
  /** Machines with the keys of replicas that are no members yet: their ids follow those of the members. */
  readonly joining?: number;
  /** Members that are played by two machines each: the second ones are numbered after all others. */
  readonly twins?: readonly ReplicaId[];
  /** Endpoints beyond machines and clients, for whatever drives the wires by itself (Byzantine clients). */
  readonly extraEndpoints?: number;
  readonly observers: (world: World) => readonly RunObserver[];
  readonly listener?: (line: string) => void;
}

const CLUSTER_ID = "51".repeat(32);
const MAX_CLIENTS = 1_000;
const START_US = 1_000_000;
const SAMPLE_US = 500_000;

export class World {
  readonly options: WorldOptions;
  readonly scheduler: Scheduler;
  readonly trace: Trace;
  readonly network: Network;
  readonly crypto: Crypto;
  readonly file: ClusterFile;
  readonly cluster: Cluster;
  readonly machines: readonly Machine[];
  readonly clients: readonly SimulatedClient[];
  readonly gateways: GatewayHub;
  readonly calls: CallRecord[] = [];
  /** The highest instance that a correct replica decided. */
  decided = 0;
  /** The highest regency that a correct replica installed, by view. */
  readonly regencies = new Map<number, number>();
  /** What to do when the process of a machine ended by itself; by default that ends the run. */
  onFailed: (machine: Machine, error: unknown) => void = (_machine, error) => this.scheduler.fail(error);
  /** A replica runs, and nobody was told yet with what. */
  onStarted: (machine: Machine) => void = () => undefined;
  onRetired: (machine: Machine) => void = () => undefined;
  onEffects: (machine: Machine, effects: readonly Effect[]) => void = () => undefined;
  onWrote: (machine: Machine) => void = () => undefined;
  onSample: () => void = () => undefined;
  /** Machines and clients on the wires. */
  readonly endpoints: number;
  readonly #observers: readonly RunObserver[];
  readonly #issued = new Set<Digest>();
  readonly #views: View[];
  #chain: ViewChain;

  constructor(options: WorldOptions) {
    this.options = options;
    const { n, seed, listener, twins = [] } = options;
    this.scheduler = new Scheduler({ seed, startUs: START_US });
    this.trace = new Trace(this.scheduler, listener ?? null);
    this.crypto = worldCrypto(this.scheduler.random);
    this.file = clusterFile(options);
    this.cluster = clusterOf(this.crypto, this.file);
    this.#views = [this.cluster.view];
    this.#chain = ViewChain.of(this.cluster.view);
    const { joining = 0 } = options;
    const identities = [...Array.from({ length: n + joining }, (_, id) => id), ...twins];
    const firstClient = identities.length;
    const endpoints = firstClient + options.clients + (options.extraEndpoints ?? 0);
    this.endpoints = endpoints;
    const { scheduler, trace, crypto, cluster } = this;
    this.network = new Network({ scheduler, trace, endpoints });
    const links = new LinkHub(this.network, identities);
    this.gateways = new GatewayHub({ network: this.network, cluster, crypto, identities });
    const watcher = this.#watcher();
    const { gateways } = this;
    const { consensus, checkpointPeriod } = options;
    const parts = { cluster, crypto, scheduler, trace, links, gateways, watcher };
    const shared = { ...parts, options: consensus, checkpointPeriod };
    this.machines = identities.map(
      (self, number) => new Machine({ ...shared, number, self, picky: self === options.picky }),
    );
    for (const machine of this.machines) if (twins.includes(machine.self)) machine.trusted = false;
    this.#observers = options.observers(this);
    this.clients = Array.from({ length: options.clients }, (_, number) => {
      return new SimulatedClient({
        number,
        file: this.file,
        crypto,
        scheduler,
        trace,
        transport: this.transport(number),
        observer: this.#guarded(),
        workload: options.workload,
        calls: this.calls,
        signed: options.signedRequests,
      });
    });
  }

  /** The newest view that a machine knows of, and every one before it. */
  get views(): readonly View[] {
    for (const { host } of this.machines) {
      const chain = host?.views.chain;
      if (chain && chain.newest.id > this.#chain.newest.id) this.#chain = chain;
      while (chain?.of(this.#views.length)) this.#views.push(chain.of(this.#views.length) as View);
    }
    return this.#views;
  }

  /** What leads to the newest view. */
  get chain(): ViewChain {
    void this.views;
    return this.#chain;
  }

  /** Of the newest view. */
  get highestRegency(): number {
    return this.regencies.get(this.view.id) ?? 0;
  }

  get view(): View {
    return this.views.at(-1) as View;
  }

  /** Where a client, or an extra one, is on the wires. */
  endpointOf(client: number): number {
    return this.machines.length + client;
  }

  /** The way to the replicas for a client, or for an extra one; what is sent on it counts as issued. */
  transport(client: number): Transport {
    return this.gateways.transport(this.endpointOf(client), (frame) => this.#sent(frame));
  }

  get nowUs(): number {
    return this.scheduler.nowUs;
  }

  /** Gives a member's machine a mind of its own. */
  corrupt(id: ReplicaId, make: (parts: AttackerParts) => Attacker): void {
    const machine = this.machines[id] as Machine;
    const { cluster, crypto, scheduler } = this;
    const identity = identityOf(`replica ${id}`);
    machine.trusted = false;
    machine.attacker = make({ self: id, cluster, identity, crypto, random: scheduler.random });
  }

  start(): void {
    for (const machine of this.machines) machine.start();
    for (const client of this.clients) client.start();
    this.#sample();
  }

  /** @throws whatever goes wrong */
  run(options: { untilUs: number; done?: () => boolean }): Promise<void> {
    return this.scheduler.run(options);
  }

  tell(event: (observer: RunObserver) => void): void {
    for (const observer of this.#observers) event(observer);
  }

  /** A client, or an administrator, has sent this. */
  issue(request: Request): void {
    if (this.#issued.has(request.digest)) return;
    this.#issued.add(request.digest);
    this.#told((observer) => observer.issued?.({ client: request.client, request }));
  }

  /** Every one of these machines is up, in the same regency, stands at the same instance, and has executed it. */
  converged(machines: readonly Machine[]): boolean {
    const [first] = machines;
    if (!first?.replica) return false;
    const { lastDecided, regency } = first.replica.core.state;
    return machines.every(({ replica }) => {
      if (!replica) return false;
      const state = replica.core.state;
      return (
        state.view === this.view.id &&
        state.regency === regency &&
        state.lastDecided.digest === lastDecided.digest &&
        replica.executedInstance === lastDecided.instance &&
        replica.executionBacklog === 0
      );
    });
  }

  /** Where a machine stands, in words. */
  standing(machine: Machine): string {
    const { replica } = machine;
    if (!replica) {
      const stage = machine.host?.stage;
      const transfer = stage?.type === "transfer" ? ` ${JSON.stringify(stage.transfer.progress)}` : "";
      return `${machine.name} ${machine.state} ${stage?.type ?? ""}${transfer}`;
    }
    const { forgotten, heard } = replica.core.state;
    const { lastDecided, regency, leader, abstainingUntil, holding, catchingUp, pendingRequests } = replica.core.state;
    const flags = `${holding ? " holding" : ""}${catchingUp ? " catching up" : ""}${machine.paused ? " paused" : ""}${forgotten ? " forgotten" : ""}${heard ? "" : " not heard"}`;
    return (
      `${machine.name} ${machine.state} decided ${lastDecided.instance} ${brief(lastDecided.digest)} executed ` +
      `${replica.executedInstance} regency ${regency} leader ${leader} abstains ${abstainingUntil} pending ${pendingRequests}${flags}`
    );
  }

  /**
   * The bytes that these machines hold on disk for the same instance must be the same.
   * @throws Violation
   */
  async compareStates(machines: readonly Machine[]): Promise<void> {
    let expected: { name: string; instance: number; digest: string } | null = null;
    for (const machine of machines) {
      const { storage, disk } = machine;
      // What is damaged there cannot be compared, and was not met yet.
      if (!storage || !disk.sound) continue;
      const parts: Uint8Array[] = [];
      for await (const chunk of storage.state.chunks({ from: "", to: "\u00ff" })) {
        for (const [key, value] of chunk) {
          parts.push(utf8(`${key.length} ${value.length} `), Buffer.from(key, "latin1"), value);
        }
      }
      const { instance } = storage.state.applied;
      const found = { name: machine.name, instance, digest: hex(this.crypto.sha256(concat(parts))) };
      expected ??= found;
      if (found.instance === expected.instance && found.digest !== expected.digest) {
        throw new Violation(
          "state",
          `after instance ${instance} ${found.name} and ${expected.name} stored other bytes`,
        );
      }
    }
  }

  #sent(frame: Uint8Array): void {
    const decoded = decodeClientFrame(frame);
    if (isRejection(decoded) || decoded.type !== "REQUEST") return;
    this.issue(decodeRequest(this.crypto, Uint8Array.from(decoded.request)));
  }

  /** Observers must not throw into product code, which would take it for its own fault. */
  #told(event: (observer: RunObserver) => void): void {
    try {
      for (const observer of this.#observers) event(observer);
    } catch (error) {
      this.scheduler.fail(error);
    }
  }

  /** What clients report to. */
  #guarded(): RunObserver {
    return {
      pending: (event) => this.#told((observer) => observer.pending?.(event)),
      finished: (event) => this.#told((observer) => observer.finished?.(event)),
      acknowledged: (event) => this.#told((observer) => observer.acknowledged?.(event)),
    };
  }

  #watcher(): MachineWatcher {
    return {
      effects: (machine, effects) => this.#effects(machine, effects),
      executed: (machine, batch, digest, root) => {
        const { instance } = batch;
        this.trace.event(
          "execute",
          machine.number,
          instance,
          batch.requests.length,
          () => `${machine.name} executed ${instance}`,
        );
        this.#told((observer) => observer.executed?.({ replica: machine.self, instance, digest, root }));
      },
      voted: (machine, message) => this.#told((observer) => observer.voted?.({ replica: machine.self, message })),
      promised: (_, from, { view, regency }) =>
        this.#told((observer) => observer.promised?.({ replica: from, view, regency })),
      wrote: (machine) => this.onWrote(machine),
      started: (machine, at) => {
        const { newestInstance } = at;
        this.onStarted(machine);
        this.trace.event(
          "machine",
          machine.number,
          newestInstance,
          1,
          () => `${machine.name} is up with ${newestInstance}`,
        );
        if (machine.trusted) this.#told((observer) => observer.restarted?.({ replica: machine.self, ...at }));
      },
      regency: (machine, { regency, leader }) => {
        this.trace.event(
          "note",
          machine.number,
          regency,
          leader,
          () => `${machine.name} installs regency ${regency} of ${leader}`,
        );
        const view = machine.replica?.core.state.view ?? 0;
        const highest = this.regencies.get(view) ?? 0;
        if (!machine.trusted || regency <= highest) return;
        this.trace.count("regency changes", regency - highest);
        this.regencies.set(view, regency);
      },
      retired: (machine) => this.onRetired(machine),
      failed: (machine, error) => this.onFailed(machine, error),
    };
  }

  #effects(machine: Machine, effects: readonly Effect[]): void {
    this.onEffects(machine, effects);
    for (const effect of effects) {
      if (effect.type === "decide") this.#decided(machine, effect);
      else if (effect.type === "mustSign") this.trace.count("a client must sign");
      else if (effect.type === "suspect")
        this.trace.event(
          "note",
          machine.number,
          effect.leader,
          effect.reason.length,
          () => `${machine.name} suspects ${effect.leader}: ${effect.reason}`,
        );
      else if (effect.type === "misbehaved")
        this.trace.event(
          "note",
          machine.number,
          effect.replica,
          effect.code.length,
          () => `${machine.name} blames ${effect.replica}: ${effect.code}`,
        );
    }
  }

  #decided(machine: Machine, effect: Extract<Effect, { type: "decide" }>): void {
    const { instance, digest, batch } = effect.decision;
    const { requests, timestampMs } = batch;
    this.trace.event(
      "decide",
      machine.number,
      instance,
      digest.charCodeAt(0),
      () => `${machine.name} decides ${instance} ${brief(digest)} (${requests.length})`,
    );
    if (!machine.trusted) return;
    this.decided = Math.max(this.decided, instance);
    this.#told((observer) => observer.decided?.({ replica: machine.self, instance, digest, requests, timestampMs }));
  }

  #sample(): void {
    this.scheduler.after(SAMPLE_US, () => {
      this.onSample();
      for (const { replica, storage, trusted, self } of this.machines) {
        if (!replica || !storage || !trusted) continue;
        const { pendingRequests, pendingBytes, bufferedMessages } = replica.core.state;
        const { executionBacklog } = replica;
        const logRecords = storage.journal.last - storage.journal.base.instance;
        const counts = { pendingRequests, pendingBytes, bufferedMessages, executionBacklog, logRecords };
        this.#told((observer) => observer.memory?.({ replica: self, counts }));
      }
      this.#told((observer) => observer.advanced?.({ nowUs: this.nowUs }));
      this.#sample();
    });
  }
}

function clusterFile(options: WorldOptions): ClusterFile {
  const { n, f, mode = "bft", signedRequests, rights = false, rotation = 0 } = options;
  const clients = Array.from({ length: options.clients }, (_, number) => hex(simulatedClientId(number)));
  return {
    format: 1,
    clusterId: CLUSTER_ID,
    mode,
    f,
    members: Array.from({ length: n }, (_, id) => {
      const { signKey, boxKey } = identityOf(`replica ${id}`);
      const ports = { clientPort: 1, peerPort: 2, adminPort: 3 };
      return { id, host: `r${id}`, ...ports, signKey: hex(signKey), boxKey: hex(boxKey) };
    }),
    administrators: [hex(identityOf("administrator").signKey)],
    clients: rights ? clients : "open",
    signedRequests,
    ...(rotation > 0 ? { faultModel: "malicious", rotation } : {}),
    maxClients: MAX_CLIENTS,
  };
}
