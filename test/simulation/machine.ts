/**
 * One simulated machine: a disk that outlives its processes, a clock of its own, and, while a process runs on it, the
 * production replica composed as server/server.ts composes it. A process ends by a crash, by a clean stop or by halting; a
 * supervisor starts the next one. What a paused process would do is done when it goes on.
 */
import type { Cluster } from "../../protocol/cluster.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { isRejection, QuorateError } from "../../protocol/errors.ts";
import type { Identity } from "../../protocol/identity.ts";
import { decodeMessage, encodeMessage, type Message, type MessageOf } from "../../protocol/messages.ts";
import { memberOf, type ReplicaId, type View } from "../../protocol/view.ts";
import type { ConsensusOptions, Effect, SignatureCheck } from "../../server/consensus/contract.ts";
import type { Driver } from "../../server/driver.ts";
import type { Clock } from "../../server/driver-contract.ts";
import { Host } from "../../server/host.ts";
import type { GatewayListener, LinkListener } from "../../server/host-contract.ts";
import type { Gateway, Links } from "../../server/network/contract.ts";
import { RequestHooks, type RequestToVerify } from "../../server/request-hooks.ts";
import type { Executor } from "../../server/service/executor.ts";
import type { Founding, Storage } from "../../storage/contract.ts";
import type { Attacker, Outgoing } from "./contract.ts";
import { identityOf, identityOfMember } from "./crypto.ts";
import { SimulatedDisk } from "./disk.ts";
import type { GatewayHub, SimulatedGateway } from "./gateway.ts";
import type { LinkHub } from "./links.ts";
import type { Scheduler } from "./scheduler.ts";
import { RootedService, rootOf } from "./state-root.ts";
import { fingerprint, type Trace } from "./trace.ts";
import { short } from "./words.ts";

/** What a machine reports while it is correct, and how its processes end. */
export interface MachineWatcher {
  effects(machine: Machine, effects: readonly Effect[]): void;
  executed(machine: Machine, event: Parameters<Executor["execute"]>[0], digest: string, root: string): void;
  voted(machine: Machine, message: Message): void;
  /** What another replica promised reached one that may use it. */
  promised(to: Machine, from: ReplicaId, message: MessageOf<"STOPDATA">): void;
  regency(machine: Machine, installed: { regency: number; leader: ReplicaId }): void;
  started(machine: Machine, at: { newestInstance: number; executedInstance: number }): void;
  /** A write of its disk was completed, or is about to be. */
  wrote(machine: Machine): void;
  /** The replica is no member any more, and the others can do without it. */
  retired(machine: Machine): void;
  /** The process halted by itself, or could not start. */
  failed(machine: Machine, error: unknown): void;
}

export interface MachineParts {
  readonly number: number;
  readonly self: ReplicaId;
  readonly cluster: Cluster;
  readonly crypto: Crypto;
  readonly scheduler: Scheduler;
  readonly trace: Trace;
  readonly links: LinkHub;
  readonly gateways: GatewayHub;
  readonly options: ConsensusOptions;
  readonly checkpointPeriod: number;
  /** Its request verifier refuses one request in four. */
  readonly picky: boolean;
  readonly watcher: MachineWatcher;
}

/** Wall clocks count from here, in milliseconds since 1970, plus the skew of each machine. */
export const WALL_START_MS = 1_790_000_000_000;
export const HEALTHY_DISK_US = { min: 50, max: 2_000 };
const VERIFY_US = { min: 50, max: 1_500 };
const DEFER_US = { min: 5, max: 150 };
const TIMER_SLACK_US = 1_000;
const REFUSED_ONE_IN = 4;
const ATTACKER_IDLE_US = 50_000;

type State = "down" | "starting" | "up" | "stopping";

export class Machine {
  readonly number: number;
  readonly self: ReplicaId;
  readonly disk: SimulatedDisk;
  readonly parts: MachineParts;
  /** Set: whatever leaves passes through it, and nothing this machine does is held against the product. */
  attacker: Attacker | null = null;
  /** Byzantine, or played by two machines: its own faults prove nothing. */
  trusted = true;
  /** Its disk was rolled back and nobody has shown it so yet: what it says may contradict what it said. */
  forgetful = false;
  /** Since then it found out, and this process knows it or its disk does; what the copy itself remembers of an earlier loss says nothing of this one. */
  aware = false;
  /** Its keys are erased: no process starts here any more. */
  retired = false;
  /** Milliseconds its wall clock is ahead. */
  skewMs = 0;
  /** How fast its monotonic clock runs. */
  clockRate = 1;
  /** How long a write to disk takes. */
  diskUs = HEALTHY_DISK_US;
  host: Host | null = null;
  #service: RootedService | null = null;
  #executor: Executor | null = null;
  #state: State = "down";
  /** Raised whenever a process ends: callbacks of earlier processes find nobody. */
  #process = 0;
  /** The process that opened the disk last. */
  #opened = 0;
  #pausedWork: (() => void)[] | null = null;

  constructor(parts: MachineParts) {
    this.parts = parts;
    this.number = parts.number;
    this.self = parts.self;
    const { scheduler, crypto } = parts;
    this.disk = new SimulatedDisk({
      crypto,
      schedule: (complete) => {
        const process = this.#process;
        scheduler.after(scheduler.between(this.diskUs.min, this.diskUs.max), () => {
          this.#enter(process, () => {
            parts.watcher.wrote(this);
            if (process === this.#process) complete();
          });
        });
      },
    });
  }

  get state(): State {
    return this.#state;
  }

  /** While a replica runs in the process. */
  get replica(): Driver | null {
    return this.host?.replica ?? null;
  }

  /** Open while a process runs. */
  get storage(): Storage | null {
    const stage = this.host?.stage;
    return stage?.type === "replica" || stage?.type === "transfer" ? stage.storage : null;
  }

  get paused(): boolean {
    return this.#pausedWork !== null;
  }

  get wallMs(): number {
    return WALL_START_MS + Math.floor(this.parts.scheduler.nowUs / 1000) + this.skewMs;
  }

  // ---- processes

  /** Starts a process on what the disk holds. */
  start(): void {
    if (this.#state !== "down" || this.retired) return;
    this.#state = "starting";
    this.#note("starts");
    const process = ++this.#process;
    this.#boot(process).catch((error: unknown) => this.#failed(process, error));
  }

  async #boot(process: number): Promise<void> {
    const { cluster, crypto, options, checkpointPeriod, picky, watcher, trace } = this.parts;
    const { self } = this;
    const logger = {
      info: (detail: object, message: string) => this.#log(process, message, detail),
      warn: (detail: object, message: string) => this.#log(process, message, detail),
      error: (detail: object, message: string) => this.#log(process, message, detail),
    };
    const host = new Host({
      cluster,
      self,
      identityOf: (view) => this.#identityIn(view),
      crypto,
      openStorage: (founding) => this.#open(founding),
      openLinks: async (listener) => this.#links(process, listener),
      openGateway: async (listener, view) => this.#openGateway(process, listener, view),
      service: (state) => {
        this.#service = new RootedService(state);
        return this.#service;
      },
      options,
      checkpointPeriod,
      clock: this.#clock(process),
      verifier: (checks, then) => this.#verify(process, checks, then),
      logger,
      hooks: new RequestHooks({ logger, verifier: picky ? (request) => this.#refusal(request) : undefined }),
      hasSpace: async () => !this.disk.full,
      retired: () => {
        this.retired = true;
        watcher.retired(this);
      },
      fatal: (error) => this.#failed(process, error),
      observer: {
        decided: () => undefined,
        phase: () => undefined,
        fault: (_source, from, code) => trace.count(`rejected: ${code} of ${from === self ? "self" : "peer"}`),
        clientFault: (_client, code) => trace.count(`rejected: ${code} of a client`),
        suspected: (_leader, reason) => trace.count(`suspected: ${reason.split(" ")[0]}`),
        regencyInstalled: (regency, leader) => watcher.regency(this, { regency, leader }),
        fetched: (kind) => trace.count(`fetched: ${kind}`),
        repaired: () => trace.count("repaired"),
        checkpoint: () => trace.count("checkpoints"),
        rootMismatch: () => trace.count("roots that differ"),
      },
      incarnated: (replica, executor) => {
        if (process === this.#process) this.#listen(replica, executor);
      },
    });
    this.host = host;
    await host.start();
    if (process !== this.#process) return;
    this.#state = "up";
    if (this.attacker) this.#every(process, ATTACKER_IDLE_US, () => this.#post(this.#idle()));
  }

  /** The keys of the member it plays; those it was made with while it plays none. */
  #identityIn(view: View): Identity {
    const member = memberOf(view, this.self);
    return member ? identityOfMember(member) : identityOf(`replica ${this.self}`);
  }

  /** Of the same request always the same. */
  #refusal({ session, sequence }: RequestToVerify): string | null {
    if ((session + sequence) % REFUSED_ONE_IN !== 0) return null;
    this.parts.trace.count("refused by a picky replica");
    return "PICKY";
  }

  #log(process: number, message: string, detail: object): void {
    if (process !== this.#process) return;
    this.parts.trace.count(`log: ${message.split(":")[0]}`);
    const { trace } = this.parts;
    trace.event(
      "note",
      this.number,
      message.length,
      0,
      () => `${this.name} says: ${message} ${JSON.stringify(detail)}`,
    );
  }

  #openGateway(process: number, listener: GatewayListener, view: View): Gateway {
    const clock = this.#clock(process);
    const { gateways } = this.parts;
    const gateway: SimulatedGateway = gateways.open({
      machine: this.number,
      view: view.id,
      links: (fromView) => this.host?.views.encodedFrom(fromView) ?? [],
      replica: this.self,
      identity: this.#identityIn(view),
      enter: (run) => this.#enter(process, run),
      time: {
        nowMs: () => clock.nowUs() / 1000,
        every: (periodMs, run) => this.#every(process, periodMs * 1000, run),
      },
      admits: (client) => listener.admits(client),
      onAuthenticated: (connection, keys) => listener.onAuthenticated(connection, keys),
      onRequest: (connection, envelope, request) => listener.onRequest(connection, envelope, request),
    });
    const close = gateway.close.bind(gateway);
    gateway.close = async () => {
      await close();
      if (process === this.#process) gateways.kill(this.number, { linger: true });
    };
    return gateway;
  }

  /** Power is lost. `keep` says which of the writes not completed are on the disk. */
  crash(options: { keep: "none" | "all" | ((write: number) => boolean); linger: boolean }): void {
    if (this.#state === "down") return;
    this.#note("crashes");
    this.#end(options);
    this.disk.crash({ keep: options.keep });
  }

  /** A clean stop: drains for `drainMs`, then the process ends by itself. */
  stop(drainMs: number): void {
    const { host } = this;
    if (this.#state !== "up" || !host) return;
    this.#state = "stopping";
    this.#note("stops");
    const process = this.#process;
    const closed = async (): Promise<void> => {
      await host.stop(drainMs);
      if (process !== this.#process) return;
      this.#end({ linger: true });
      this.disk.crash({ keep: "all" });
      this.#note("stopped");
    };
    closed().catch((error: unknown) => this.#failed(process, error));
  }

  /** The process stands still until `resume`; its kernel goes on. */
  pause(): void {
    if (this.#state === "down" || this.#pausedWork) return;
    this.#note("pauses");
    this.#pausedWork = [];
  }

  resume(): void {
    const work = this.#pausedWork;
    if (!work) return;
    this.#note("goes on");
    this.#pausedWork = null;
    for (const run of work) this.parts.scheduler.after(0, run);
  }

  #end(options: { linger: boolean }): void {
    this.#process++;
    this.#state = "down";
    this.#pausedWork = null;
    this.parts.links.detach(this.number, options);
    this.parts.gateways.kill(this.number, options);
    this.host = null;
    this.#service = null;
    this.#executor = null;
  }

  #failed(process: number, error: unknown): void {
    if (process !== this.#process) return;
    const why = error instanceof QuorateError ? error.code : String(error);
    this.#note(`halts: ${why}`);
    this.#end({ linger: true });
    const { random } = this.parts.scheduler;
    this.disk.crash({ keep: () => random.chance(0.5) });
    this.parts.watcher.failed(this, error);
  }

  // ---- what a process is given

  /** Runs for one process: later while it is paused, never once it is gone. */
  #enter(process: number, run: () => void): void {
    if (process !== this.#process) return;
    if (this.#pausedWork) this.#pausedWork.push(() => this.#enter(process, run));
    else run();
  }

  #clock(process: number): Clock {
    const { scheduler } = this.parts;
    const bornUs = scheduler.nowUs;
    const rate = this.clockRate;
    const nowUs = (): number => Math.floor((scheduler.nowUs - bornUs) * rate) + 1_000_000;
    return {
      nowUs,
      wallMs: () => this.wallMs,
      defer: (callback) => {
        scheduler.after(scheduler.between(DEFER_US.min, DEFER_US.max), () => this.#enter(process, callback));
      },
      at: (us, callback) => {
        const delayUs = Math.max(0, us - nowUs()) / rate + scheduler.random.next() * TIMER_SLACK_US;
        const timer = scheduler.after(delayUs, () => this.#enter(process, callback));
        return () => timer.cancel();
      },
    };
  }

  #every(process: number, periodUs: number, run: () => void): () => void {
    let ended = false;
    const again = (): void => {
      this.parts.scheduler.after(periodUs, () => {
        if (ended || process !== this.#process) return;
        this.#enter(process, run);
        again();
      });
    };
    again();
    return () => {
      ended = true;
    };
  }

  #verify(process: number, checks: readonly SignatureCheck[], then: (valid: readonly boolean[]) => void): void {
    const { scheduler, crypto } = this.parts;
    const valid = checks.map((check) => crypto.verify(check.publicKey, check.statement, check.signature));
    scheduler.after(scheduler.between(VERIFY_US.min, VERIFY_US.max), () => this.#enter(process, () => then(valid)));
  }

  // ---- what enters and leaves

  #links(process: number, listener: LinkListener): Links {
    const { links } = this.parts;
    const queues = new Map<ReplicaId, Uint8Array[]>();
    let reported: Uint8Array | null = null;
    let open = true;
    const alive = (): boolean => open && process === this.#process;
    const enter = (run: () => void): void => this.#enter(process, () => alive() && run());
    const send = (peer: ReplicaId, payload: Uint8Array): void => {
      if (!alive()) return;
      const queue = queues.get(peer);
      if (queue) queue.push(payload);
      else queues.set(peer, [payload]);
      // A broadcast is the same bytes for everybody.
      if (reported === payload) return;
      reported = payload;
      if (this.trusted) this.#report(payload);
    };
    links.attach({
      machine: this.number,
      onMessages: (from, payloads) => enter(() => this.#deliver(listener, from, payloads)),
      onConnected: (peer) => enter(() => listener.onConnected(peer)),
      onDisconnected: (peer) => enter(() => listener.onDisconnected(peer)),
    });
    return {
      send,
      flush: () => {
        if (!alive()) return;
        for (const [peer, payloads] of queues) this.#leave(peer, payloads);
        queues.clear();
      },
      punish: (peer) => links.punish(this.number, peer),
      connected: () => links.connected(this.number),
      queuedBytes: () => 0,
      close: async () => {
        if (alive()) links.detach(this.number, { linger: true });
        open = false;
      },
    };
  }

  async #open(founding: Founding): Promise<Storage> {
    const storage = await this.disk.open({ founding });
    const { forgotten } = storage.journal.summary;
    if (forgotten?.until === null) this.aware = true;
    // A process that found out, and could not write it down, has taken that with it.
    else if (forgotten === null && this.#opened !== this.#process) this.aware = false;
    this.#opened = this.#process;
    return storage;
  }

  #report(payload: Uint8Array): void {
    const message = decodeMessage(payload);
    if (isRejection(message)) throw new Error(`replica ${this.self} encodes what nobody can decode: ${message.code}`);
    if (this.forgetful && !this.aware) return;
    this.parts.watcher.voted(this, message);
  }

  #leave(peer: ReplicaId, payloads: readonly Uint8Array[]): void {
    const { links, scheduler, trace } = this.parts;
    const { attacker } = this;
    for (const payload of payloads)
      trace.event("send", this.number, peer, fingerprint(payload), () => `${this.name} > ${peer}  ${short(payload)}`);
    if (!attacker) {
      links.send(this.number, peer, payloads);
      return;
    }
    for (const payload of payloads) {
      const message = decodeMessage(payload);
      if (!isRejection(message)) this.#post(attacker.rewrite({ to: peer, message }, scheduler.nowUs));
    }
  }

  #idle(): readonly Outgoing[] {
    return this.attacker?.idle(this.parts.scheduler.nowUs) ?? [];
  }

  #post(outgoing: readonly Outgoing[]): void {
    const { links, scheduler, trace } = this.parts;
    for (const { to, message, delayUs = 0 } of outgoing) {
      const payload = encodeMessage(message);
      trace.count("fault: sent by an attacker");
      trace.event("fault", this.number, to, fingerprint(payload), () => `${this.name} > ${to} !${short(payload)}`);
      const post = (): void => links.send(this.number, to, [payload]);
      if (delayUs > 0) scheduler.after(delayUs, post);
      else post();
    }
  }

  #deliver(listener: LinkListener, from: ReplicaId, payloads: readonly Uint8Array[]): void {
    const { trace } = this.parts;
    for (const payload of payloads) {
      trace.event(
        "receive",
        this.number,
        from,
        fingerprint(payload),
        () => `${from} > ${this.name}  received ${short(payload)}`,
      );
      if (this.attacker) {
        const message = decodeMessage(payload);
        if (!isRejection(message)) this.attacker.observe(from, message);
      }
      listener.onMessage(from, payload);
    }
  }

  /** The seams of the driver that reports need: effects as they are performed, batches as they execute. */
  #listen(replica: Driver, executor: Executor): void {
    const { watcher, crypto } = this.parts;
    const { core } = replica;
    const service = this.#service;
    const { instance: executedInstance } = executor.applied;
    watcher.started(this, { newestInstance: replica.newestAtStart, executedInstance });
    const step = core.step.bind(core);
    core.step = (input) => {
      if (input.type === "message" && input.message.type === "STOPDATA") {
        watcher.promised(this, input.from, input.message);
      }
      const effects = step(input);
      watcher.effects(this, effects);
      return effects;
    };
    // From one view to the next it is the same one.
    if (this.#executor === executor) return;
    this.#executor = executor;
    const execute = executor.execute.bind(executor);
    executor.execute = (batch, digest) => {
      const replies = execute(batch, digest);
      if (this.trusted && service) {
        const root = rootOf(crypto, { digest, entries: service.root, replies });
        watcher.executed(this, batch, digest, root);
      }
      return replies;
    };
  }

  /** How traces call it. */
  get name(): string {
    return this.number === this.self ? `r${this.self}` : `r${this.self}'`;
  }

  #note(what: string): void {
    const { trace } = this.parts;
    trace.event("machine", this.number, what.length, 0, () => `${this.name} ${what}`);
  }
}
