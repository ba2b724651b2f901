/**
 * A cluster of real cores under one seeded scheduler: messages are delivered in any order between links and in order on
 * each, links are cut and come back, journals complete late, replicas crash and restart with exactly what was synced. Some
 * lie: through a `liar` hook, through attackers (byzantine/), or because two slots play one member. Checks agreement and
 * "nobody votes twice" at every step.
 */
import { type Digest, utf8 } from "../../protocol/bytes.ts";
import { encodeMessage, type Message } from "../../protocol/messages.ts";
import { decodeRequest, encodeRequest, type Request } from "../../protocol/request.ts";
import type { Mode, View } from "../../protocol/view.ts";
import type {
  Authentication,
  CoreRecord,
  Decision,
  Effect,
  Input,
  JournaledInstance,
  OfferFacts,
  SignatureCheck,
} from "../../server/consensus/contract.ts";
import type { ResultCosts } from "../../server/consensus/debts.ts";
import type { RunObserver } from "./checkers/events.ts";
import { type Attacker, type Outgoing, Violation } from "./contract.ts";
import {
  boot,
  CLIENT,
  CLUSTER,
  coreView,
  type Disk,
  ENVELOPE,
  emptyDisk,
  GENESIS,
  SECOND_CLIENT,
  type SimulatedReplica,
} from "./core-replica.ts";
import { fastCrypto } from "./fast-crypto.ts";
import { type Random, seeded } from "./random.ts";

export { Violation } from "./contract.ts";
export { CLUSTER, copyOfDisk, ENVELOPE, GENESIS, type SimulatedReplica, signerOf } from "./core-replica.ts";

export interface ClusterOptions {
  readonly n: number;
  readonly f?: number;
  readonly mode?: Mode;
  readonly seed: number;
  /** May change, drop or multiply what a replica sends; returns [to, message] pairs. */
  readonly liar?: (from: number, to: number, message: Message, random: Random) => readonly Message[];
  /** The minds of Byzantine replicas: nothing those do is checked. */
  readonly attackers?: ReadonlyMap<number, Attacker>;
  /** Members that are played twice, by correct code: the second ones take the slots from n on. */
  readonly twins?: readonly number[];
  /** Is this request's authenticator good at this replica, or which signature has to be? Default: yes. */
  readonly authentic?: (replica: number, request: Request, envelope: Uint8Array) => boolean | SignatureCheck;
  readonly requestTimeoutMs?: number;
  /** Instances per leader: the malicious fault model. */
  readonly rotation?: number;
  /** Do replicas ask what the others remember of them, before they vote? Default: no. */
  readonly recollect?: boolean;
  /** What every choice is drawn from; by default a generator for `seed`. */
  readonly random?: Random;
  /** Told what correct replicas do. */
  readonly observers?: readonly RunObserver[];
  readonly probe?: ClusterProbe;
  /** Sees every effect of every core, before it is performed. */
  readonly tap?: (replica: number, effect: Effect) => void;
}

/** Follows a run event by event, for a digest of it, a transcript, or a score. */
export interface ClusterProbe {
  /** A core takes this input now. */
  input?(slot: number, input: Input): void;
  /** This message goes onto the link between two slots. */
  sent?(from: number, to: number, message: Message): void;
}

/** Attackers are asked what they send unasked this often. */
const ATTACKER_IDLE_US = 50_000;

export class CoreCluster {
  readonly view: View;
  readonly random: Random;
  readonly replicas: SimulatedReplica[] = [];
  /** In-flight messages per directed link, in order. */
  readonly links = new Map<string, Message[]>();
  readonly decided = new Map<number, Digest>();
  readonly executedRequests: string[] = [];
  readonly suspicions: { readonly at: number; readonly reason: string }[] = [];
  readonly misbehaviour: { readonly at: number; readonly replica: number; readonly code: string }[] = [];
  readonly installed: { readonly at: number; readonly regency: number }[] = [];
  readonly demoted: { readonly at: number; readonly client: Digest }[] = [];
  readonly #untrusted = new Set<number>();
  readonly #cut = new Set<string>();
  /** What attackers hold back. */
  #delayed: { readonly from: number; readonly to: number; readonly message: Message; readonly atUs: number }[] = [];
  #idleAtUs = 0;
  readonly #votes = new Map<string, Digest>();
  readonly #options: ClusterOptions;
  nowUs = 1_000_000;
  /** What the execution of a batch takes. */
  executionUs = 0;
  #sequence = 0;

  constructor(options: ClusterOptions) {
    this.#options = options;
    this.random = options.random ?? seeded(options.seed);
    this.view = coreView(options.n, options.f, options.mode, options.rotation);
    const ids = this.view.members.map((member) => member.id);
    const twins = options.twins ?? [];
    [...ids, ...twins].forEach((id, slot) => {
      this.replicas.push(this.#boot(id, slot, emptyDisk()));
      if (twins.includes(id) || options.attackers?.has(slot)) this.#untrusted.add(slot);
    });
  }

  #boot(id: number, slot: number, disk: Disk): SimulatedReplica {
    const authenticate = (request: Request, envelope: Uint8Array): Authentication => {
      const verdict = this.#options.authentic?.(id, request, envelope) ?? true;
      if (typeof verdict === "object") return verdict;
      return verdict && !this.replicas[slot]?.demoted.has(request.client) ? "authentic" : "unproven";
    };
    const requestTimeoutMs = this.#options.requestTimeoutMs ?? 1_000;
    const hear = this.#options.recollect ? this.view.consulted : 0;
    return boot({ view: this.view, id, slot, disk, authenticate, requestTimeoutMs, hear });
  }

  /** Correct, and the only one of its identity: what it does is held against the product. */
  trusted(slot: number): boolean {
    return !this.#untrusted.has(slot);
  }

  input(replica: SimulatedReplica, input: Input): void {
    if (!replica.up) return;
    this.#options.probe?.input?.(replica.slot, input);
    if (this.trusted(replica.slot)) this.#performAll(replica, replica.core.step(input));
    else this.#risk(replica, input);
  }

  /** What a liar's own core believes after its lies may contradict itself: that ends its process, not the run. */
  #risk(replica: SimulatedReplica, input: Input): void {
    let effects: readonly Effect[];
    try {
      effects = replica.core.step(input);
    } catch {
      this.crash(replica.slot);
      return;
    }
    this.#performAll(replica, effects);
  }

  /** Storage refuses an instance that does not follow those on disk and those under way. */
  #checkContiguous(replica: SimulatedReplica, records: readonly CoreRecord[]): void {
    const under = replica.journaling.flatMap((pending) => pending.records);
    let last = Math.max(replica.disk.installed?.instance ?? 0, ...replica.disk.instances.keys());
    for (const record of under) if (record.type === "instance") last = Math.max(last, record.instance);
    for (const record of records) {
      if (record.type !== "instance") continue;
      if (record.instance > last + 1)
        throw new Violation("journal", `replica ${replica.id} journals ${record.instance} after ${last}`);
      last = Math.max(last, record.instance);
    }
  }

  #performAll(replica: SimulatedReplica, effects: readonly Effect[]): void {
    for (const effect of effects) this.#perform(replica, effect);
  }

  #observe(slot: number, report: (observer: RunObserver) => void): void {
    if (!this.trusted(slot)) return;
    for (const observer of this.#options.observers ?? []) report(observer);
  }

  /** A message to a member reaches every slot that plays it. */
  #postTo(from: SimulatedReplica, to: (id: number) => boolean, message: Message): void {
    if (!this.#options.liar) {
      this.#checkVote(from.slot, message);
      this.#observe(from.slot, (observer) => observer.voted?.({ replica: from.id, message }));
    }
    for (const { id, slot } of this.replicas) if (id !== from.id && to(id)) this.#post(from.slot, slot, message);
  }

  #perform(replica: SimulatedReplica, effect: Effect): void {
    this.#options.tap?.(replica.id, effect);
    switch (effect.type) {
      case "send":
        this.#postTo(replica, (id) => id === effect.to, effect.message);
        return;
      case "broadcast":
        this.#postTo(replica, () => true, effect.message);
        return;
      case "journal":
        this.#checkContiguous(replica, effect.records);
        replica.journaling.push({ ticket: effect.ticket, records: effect.records });
        return;
      case "verify": {
        const valid = effect.checks.map((check) =>
          fastCrypto.verify(check.publicKey, check.statement, check.signature),
        );
        replica.verifying.push({ ticket: effect.ticket, valid });
        return;
      }
      case "decide":
        this.#decided(replica, effect.decision);
        return;
      case "durable":
        replica.durableUpTo = effect.instance;
        return;
      case "serveHistory":
        this.#serveHistory(replica, effect.to, effect.from, effect.upTo);
        return;
      case "serveBatch":
        this.#serveBatch(replica, effect);
        return;
      case "suspect":
        this.suspicions.push({ at: replica.id, reason: effect.reason });
        return;
      case "misbehaved":
        this.misbehaviour.push({ at: replica.id, replica: effect.replica, code: effect.code });
        return;
      case "regency":
        this.installed.push({ at: replica.id, regency: effect.regency });
        return;
      case "mustSign":
        this.demoted.push({ at: replica.id, client: effect.client });
        replica.demoted.add(effect.client);
        return;
      case "stopping":
        if (effect.messages) replica.disk.cleanStop = effect.messages.map(encodeMessage);
        return;
      case "offer":
        this.#offer(replica, effect.to, effect.facts);
        return;
      case "forgotten":
      case "remembered":
      case "root":
      case "serveImage":
      case "wake":
        return;
      case "transfer":
        throw new Violation("log", `replica ${replica.id} cannot reach the log of anybody: ${effect.reason}`);
    }
  }

  #offer(replica: SimulatedReplica, to: number, facts: OfferFacts): void {
    const first = Math.min(...replica.disk.instances.keys());
    const logFirst = Number.isFinite(first) ? first : 0;
    this.#postTo(replica, (id) => id === to, {
      type: "OFFER",
      ...facts,
      logFirst,
      logBytes: 0,
      checkpoints: [],
      roots: [],
    });
  }

  #decided(replica: SimulatedReplica, { instance, digest, batch }: Decision): void {
    const { requests, timestampMs } = batch;
    replica.toExecute.push({ instance, digest, timestampMs, requests });
    if (!this.trusted(replica.slot)) return;
    const known = this.decided.get(instance);
    if (known !== undefined && known !== digest)
      throw new Violation("agreement", `instance ${instance} decided twice, at ${replica.id}`);
    this.decided.set(instance, digest);
    this.#observe(replica.slot, (observer) =>
      observer.decided?.({ replica: replica.id, instance, digest, requests, timestampMs }),
    );
  }

  #serveBatch(replica: SimulatedReplica, wanted: { to: number; instance: number; digest: Digest }): void {
    const { to, instance, digest } = wanted;
    const record = replica.disk.instances.get(instance);
    if (record?.digest !== digest) return;
    const { batch } = record;
    this.#postTo(replica, (id) => id === to, { type: "BATCH", view: 0, regency: 0, instance, digest, batch });
  }

  #serveHistory(replica: SimulatedReplica, to: number, from: number, upTo: number): void {
    const { instances } = replica.disk;
    const records: JournaledInstance[] = [];
    for (let at = from; at <= upTo && records.length < 4; at++) records.push(instances.get(at) as JournaledInstance);
    const last = records.at(-1);
    if (!last) return;
    const beyond = instances.get(last.instance + 1);
    const previous = instances.get(from - 1)?.digest ?? GENESIS;
    const within = records.findLast((record) => record.certificate)?.certificate;
    const proof = beyond?.certificate
      ? { links: [beyond.batchDigest], certificate: beyond.certificate }
      : within
        ? { links: [], certificate: within }
        : null;
    const batches = records.map((record) => record.batch);
    this.#postTo(replica, (id) => id === to, {
      type: "HISTORY",
      view: 0,
      regency: 0,
      from,
      previous,
      batches,
      proof,
    });
  }

  #post(from: number, to: number, message: Message): void {
    const { liar, attackers } = this.#options;
    const attacker = attackers?.get(from);
    if (attacker) this.#postAll(from, attacker.rewrite({ to, message }, this.nowUs));
    else if (liar) for (const lie of liar(from, to, message, this.random)) this.#put(from, to, lie);
    else this.#put(from, to, message);
  }

  #postAll(from: number, outgoing: readonly Outgoing[]): void {
    for (const { to, message, delayUs = 0 } of outgoing) {
      if (to === from || !this.replicas[to]) continue;
      if (delayUs > 0) this.#delayed.push({ from, to, message, atUs: this.nowUs + delayUs });
      else this.#put(from, to, message);
    }
  }

  /** Onto the link, unless it is cut: then it is lost. */
  #put(from: number, to: number, message: Message): void {
    const name = `${from}>${to}`;
    if (this.#cut.has(name)) return;
    this.#options.probe?.sent?.(from, to, message);
    const queue = this.links.get(name);
    if (queue) queue.push(message);
    else this.links.set(name, [message]);
  }

  /** Nobody may vote twice in one (instance, regency): across restarts, for WRITE and for ACCEPT. */
  #checkVote(from: number, message: Message): void {
    if ((message.type !== "WRITE" && message.type !== "ACCEPT") || !this.trusted(from)) return;
    const name = `${message.type} ${from} ${message.instance} ${message.regency}`;
    const earlier = this.#votes.get(name);
    if (earlier !== undefined && earlier !== message.digest) throw new Violation("votes", `${name} twice`);
    this.#votes.set(name, message.digest);
  }

  // ---- events

  request(options: { sequence?: number; to?: readonly number[]; text?: string } = {}): Request {
    const sequence = options.sequence ?? ++this.#sequence;
    const bytes = encodeRequest({
      cluster: CLUSTER,
      client: sequence % 3 === 0 ? SECOND_CLIENT : CLIENT,
      session: 1,
      sequence,
      ackedBelow: 1,
      kind: "ordered",
      deadlineMs: 0,
      commands: [utf8(options.text ?? `command ${sequence}`)],
    });
    const request = decodeRequest(fastCrypto, bytes);
    for (const replica of this.replicas) {
      if (options.to && !options.to.includes(replica.id)) continue;
      this.input(replica, { type: "request", request, envelope: ENVELOPE, replier: 0 });
    }
    return request;
  }

  tick(advanceUs: number): void {
    this.nowUs += advanceUs;
    for (const replica of this.replicas) this.tickOne(replica);
    if (this.#options.attackers) this.#stir();
  }

  tickOne(replica: SimulatedReplica): void {
    this.input(replica, { type: "tick", nowUs: this.nowUs, wallMs: this.wallMsOf(replica) });
  }

  wallMsOf(replica: SimulatedReplica): number {
    return Math.floor(this.nowUs / 1000) + replica.skewMs;
  }

  deliverOne(name: string): void {
    const message = this.links.get(name)?.shift();
    if (!message) return;
    const [from, to] = name.split(">").map(Number) as [number, number];
    const replica = this.replicas[to] as SimulatedReplica;
    const sender = this.replicas[from] as SimulatedReplica;
    if (replica.up) this.#options.attackers?.get(to)?.observe(sender.id, message);
    this.input(replica, { type: "message", from: sender.id, message });
  }

  /** What attackers held back long enough, and what they send unasked. */
  #stir(): void {
    const due = this.#delayed.filter((held) => held.atUs <= this.nowUs);
    if (due.length > 0) this.#delayed = this.#delayed.filter((held) => held.atUs > this.nowUs);
    for (const { from, to, message } of due) if (this.replicas[from]?.up) this.#put(from, to, message);
    if (this.nowUs - this.#idleAtUs < ATTACKER_IDLE_US) return;
    this.#idleAtUs = this.nowUs;
    for (const [slot, attacker] of this.#options.attackers ?? []) {
      if (this.replicas[slot]?.up) this.#postAll(slot, attacker.idle(this.nowUs));
    }
  }

  journalOne(replica: SimulatedReplica): void {
    const write = replica.journaling.shift();
    if (!write) return;
    this.#reachDisk(replica, write.records);
    this.input(replica, { type: "journaled", ticket: write.ticket });
  }

  #reachDisk({ disk }: SimulatedReplica, records: readonly CoreRecord[]): void {
    for (const record of records) {
      // A clean stop counts only while it is the newest write.
      disk.cleanStop = null;
      if (record.type === "instance") disk.instances.set(record.instance, record);
      if (record.type === "regency") disk.regency = Math.max(disk.regency, record.regency);
      if (record.type === "wanted" || record.type === "regency") disk.wanted = Math.max(disk.wanted, record.regency);
      if (record.type === "forgotten") disk.forgotten = { until: record.until, regency: record.regency };
      if (record.type === "remembered") disk.forgotten = null;
    }
  }

  verifyOne(replica: SimulatedReplica): void {
    const check = replica.verifying.shift();
    if (check) this.input(replica, { type: "verified", ...check });
  }

  executeOne(replica: SimulatedReplica): void {
    const next = replica.toExecute[0];
    if (!next || next.instance > replica.durableUpTo) return;
    replica.toExecute.shift();
    if (next.instance !== replica.executedUpTo + 1)
      throw new Violation("execution", `replica ${replica.id} executes out of order`);
    replica.executedUpTo = next.instance;
    for (const request of next.requests) replica.executedKeys.add(request.key);
    const { instance, timestampMs, requests } = next;
    this.input(replica, {
      type: "executed",
      instance,
      tookUs: this.executionUs,
      timestampMs,
      costs: costsOf(requests),
    });
  }

  /** What is on the way in both directions is lost. */
  cut(a: number, b: number): void {
    this.block(a, b);
    this.block(b, a);
  }

  /** Cuts one direction only. */
  block(from: number, to: number): void {
    const name = `${from}>${to}`;
    this.#cut.add(name);
    this.links.delete(name);
  }

  mend(a: number, b: number): void {
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      if (!this.#cut.delete(`${from}>${to}`)) continue;
      const peer = (this.replicas[to] as SimulatedReplica).id;
      this.input(this.replicas[from] as SimulatedReplica, { type: "connected", peer });
    }
  }

  #isolate(slot: number): void {
    for (const { slot: other } of this.replicas) if (other !== slot) this.cut(slot, other);
  }

  /** Loses everything that is not synced; of the writes under way the first `kept` are on disk, or a random number. */
  crash(id: number, kept?: number): void {
    const replica = this.replicas[id] as SimulatedReplica;
    kept ??= this.random.below(replica.journaling.length + 1);
    for (const write of replica.journaling.slice(0, kept)) {
      this.#reachDisk(replica, write.records);
    }
    replica.up = false;
    this.#isolate(id);
  }

  restart(id: number): void {
    const old = this.replicas[id] as SimulatedReplica;
    const replica = this.#boot(old.id, old.slot, old.disk);
    replica.skewMs = old.skewMs;
    this.replicas[id] = replica;
    this.#observe(id, (observer) =>
      observer.restarted?.({ replica: old.id, newestInstance: Math.max(0, ...old.disk.instances.keys()) }),
    );
    this.tickOne(replica);
    for (const { slot, up } of this.replicas) if (up && slot !== id) this.mend(id, slot);
  }

  /** The disk of a replica that is down is replaced by an empty one, or by an older copy of itself. */
  replaceDisk(id: number, disk: Disk | null): void {
    const replica = this.replicas[id] as SimulatedReplica;
    const lost = { ...emptyDisk(), cleanStop: null, forgotten: { until: null, regency: 0 } };
    this.replicas[id] = { ...replica, disk: disk ?? lost };
  }

  stopCleanly(id: number): void {
    const replica = this.replicas[id] as SimulatedReplica;
    while (replica.journaling.length > 0) this.journalOne(replica);
    this.input(replica, { type: "stop" });
    replica.up = false;
    this.#isolate(id);
  }

  /** One random event among those possible. */
  randomStep(): void {
    const roll = this.random.next();
    if (roll < 0.6) {
      const busy = [...this.links].filter(([, queue]) => queue.length > 0).map(([name]) => name);
      if (busy.length > 0) this.deliverOne(this.random.pick(busy));
      return;
    }
    const replica = this.random.pick(this.replicas);
    if (!replica.up) return;
    if (roll < 0.75) this.journalOne(replica);
    else if (roll < 0.88) this.verifyOne(replica);
    else if (roll < 0.95) this.executeOne(replica);
    else this.tick(this.random.below(20_000));
  }

  /** Everything is delivered, completed and executed, time passes: what a healed network does. */
  settle(rounds = 40): void {
    for (let round = 0; round < rounds; round++) {
      this.tick(60_000);
      for (let pass = 0; pass < 200; pass++) {
        let idle = true;
        for (const [name, queue] of this.links) {
          while (queue.length > 0) {
            idle = false;
            this.deliverOne(name);
          }
        }
        for (const replica of this.replicas) {
          if (!replica.up) continue;
          if (replica.journaling.length + replica.verifying.length > 0) idle = false;
          while (replica.journaling.length > 0) this.journalOne(replica);
          while (replica.verifying.length > 0) this.verifyOne(replica);
          for (let left = replica.toExecute.length; left > 0; left--) this.executeOne(replica);
        }
        if (idle) break;
      }
    }
  }

  heights(): number[] {
    return this.replicas.map((replica) => replica.core.lastDecided);
  }
}

/** Every so many requests have a large result. */
const LARGE_RESULT_EVERY = 16;
const LARGE_RESULT_COST = 1_000_000;

function costsOf(requests: readonly Request[]): ResultCosts {
  const large = requests.filter(({ sequence }) => sequence % LARGE_RESULT_EVERY === 0);
  return new Map(large.map(({ client }) => [client, LARGE_RESULT_COST]));
}
