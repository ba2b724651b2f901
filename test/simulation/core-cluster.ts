/**
 * A cluster of real cores under one seeded scheduler: messages are delivered in any order between links and in order on
 * each, links are cut and come back, journals complete late, replicas crash and restart with exactly what was synced, and
 * up to f of them lie through a `liar` hook. Checks agreement and "nobody votes twice" at every step.
 */
import { decodeBatch } from "../../protocol/batch.ts";
import { bytesOf, type Digest, latin1, utf8 } from "../../protocol/bytes.ts";
import { encodeMessage, type Message } from "../../protocol/messages.ts";
import { decodeRequest, encodeEnvelope, encodeRequest, type Request } from "../../protocol/request.ts";
import { type View, viewOf } from "../../protocol/view.ts";
import { certificateChecks } from "../../server/consensus/certificate.ts";
import type { CoreRecord, Effect, Input, JournaledInstance } from "../../server/consensus/contract.ts";
import { decidedInstance, startOf } from "../../server/consensus/restart.ts";
import { Core } from "../../server/core.ts";
import { fastCrypto, fastPublicKey } from "./fast-crypto.ts";
import { type Random, seeded } from "./random.ts";

const CLUSTER = latin1(new Uint8Array(32).fill(7)) as Digest;
const GENESIS = fastCrypto.sha256(utf8("genesis"));
const CLIENT = fastCrypto.sha256(utf8("client"));

/** Any well-formed envelope: whether it is good is decided by the `authentic` hook. */
export const ENVELOPE = encodeEnvelope({
  view: 0,
  replier: 0,
  keys: null,
  authenticator: { type: "vector", macs: "0123456789abcdef" },
});

function seedOf(id: number): Uint8Array {
  return bytesOf(fastCrypto.sha256(utf8(`replica ${id}`)));
}

export function signerOf(id: number): (data: Uint8Array) => Uint8Array {
  return fastCrypto.signer(seedOf(id));
}

interface Pending {
  readonly ticket: number;
  readonly records: readonly CoreRecord[];
}

/** What survives a crash. */
interface Disk {
  readonly instances: Map<number, JournaledInstance>;
  regency: number;
  cleanStop: readonly Uint8Array[] | null;
}

export interface SimulatedReplica {
  readonly id: number;
  core: Core;
  up: boolean;
  readonly disk: Disk;
  /** Synced writes under way, in order. */
  journaling: Pending[];
  verifying: { ticket: number; valid: boolean[] }[];
  toExecute: { instance: number; digest: Digest; requests: readonly Request[] }[];
  durableUpTo: number;
  executedUpTo: number;
}

export interface ClusterOptions {
  readonly n: number;
  readonly f?: number;
  readonly seed: number;
  /** May change, drop or multiply what a replica sends; returns [to, message] pairs. */
  readonly liar?: (from: number, to: number, message: Message, random: Random) => readonly Message[];
  /** Is this request's authenticator good at this replica? Default: yes. */
  readonly authentic?: (replica: number, request: Request) => boolean;
  readonly requestTimeoutMs?: number;
}

export class Violation extends Error {}

function isCertified(view: View, { certificate }: JournaledInstance): boolean {
  const checks = certificate && certificateChecks(view, certificate);
  return checks?.every((check) => fastCrypto.verify(check.publicKey, check.statement, check.signature)) ?? false;
}

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
  readonly #cut = new Set<string>();
  readonly #votes = new Map<string, Digest>();
  readonly #options: ClusterOptions;
  nowUs = 1_000_000;
  #sequence = 0;

  constructor(options: ClusterOptions) {
    this.#options = options;
    this.random = seeded(options.seed);
    const ids = Array.from({ length: options.n }, (_, id) => id);
    this.view = viewOf(fastCrypto, {
      id: 0,
      cluster: CLUSTER,
      mode: "bft",
      f: options.f ?? Math.floor((options.n - 1) / 3),
      members: ids.map((id) => ({
        id,
        signKey: fastPublicKey(seedOf(id)),
        boxKey: new Uint8Array(32),
        host: "h",
        clientPort: 1,
        peerPort: 2,
        adminPort: 3,
      })),
      administrators: [],
    });
    for (const id of ids) {
      const disk: Disk = { instances: new Map(), regency: 0, cleanStop: [] };
      this.replicas.push(this.#boot(id, disk));
    }
    for (const replica of this.replicas) this.#performAll(replica, []);
  }

  #boot(id: number, disk: Disk): SimulatedReplica {
    const last = Math.max(0, ...disk.instances.keys());
    const newest = disk.instances.get(last) ?? null;
    const decided = decidedInstance({ applied: 0, newest });
    const at = disk.instances.get(decided);
    const timestampMs = at ? decodeBatch(fastCrypto, at.batch).timestampMs : 0;
    const accepted = [...disk.instances.values()]
      .filter((record) => isCertified(this.view, record))
      .sort((a, b) => b.instance - a.instance);
    const start = startOf(
      {
        regency: disk.regency,
        newest,
        newestAccepted: accepted[0] ?? null,
        lastRecord: at ?? null,
        cleanStop: disk.cleanStop,
      },
      { instance: decided, digest: at?.digest ?? GENESIS, timestampMs },
    );
    const core = new Core(
      {
        view: this.view,
        self: id,
        crypto: fastCrypto,
        signer: signerOf(id),
        authenticate: (request) => (this.#options.authentic?.(id, request) === false ? "unproven" : "authentic"),
        settled: () => false,
        options: {
          batchRequestsMax: 8,
          batchBytesMax: 1_000_000,
          batchWaitUs: 1_000,
          clockDriftMs: 5_000,
          requestTimeoutMs: this.#options.requestTimeoutMs ?? 1_000,
          statusIntervalMs: 250,
          executionLagMax: 16,
        },
      },
      start,
    );
    return {
      id,
      core,
      up: true,
      disk,
      journaling: [],
      verifying: [],
      toExecute: [],
      durableUpTo: decided,
      executedUpTo: decided,
    };
  }

  input(replica: SimulatedReplica, input: Input): void {
    if (!replica.up) return;
    this.#performAll(replica, replica.core.step(input));
  }

  /** Storage refuses an instance that does not follow those on disk and those under way. */
  #checkContiguous(replica: SimulatedReplica, records: readonly CoreRecord[]): void {
    const under = replica.journaling.flatMap((pending) => pending.records);
    let last = Math.max(0, ...replica.disk.instances.keys());
    for (const record of under) if (record.type === "instance") last = Math.max(last, record.instance);
    for (const record of records) {
      if (record.type !== "instance") continue;
      if (record.instance > last + 1)
        throw new Violation(`replica ${replica.id} journals ${record.instance} after ${last}`);
      last = Math.max(last, record.instance);
    }
  }

  #performAll(replica: SimulatedReplica, effects: readonly Effect[]): void {
    for (const effect of effects) this.#perform(replica, effect);
  }

  #perform(replica: SimulatedReplica, effect: Effect): void {
    switch (effect.type) {
      case "send":
        this.#post(replica.id, effect.to, effect.message);
        return;
      case "broadcast":
        for (const { id } of this.view.members) if (id !== replica.id) this.#post(replica.id, id, effect.message);
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
      case "decide": {
        const { instance, digest, batch } = effect.decision;
        const known = this.decided.get(instance);
        if (known !== undefined && known !== digest)
          throw new Violation(`instance ${instance} decided twice, at ${replica.id}`);
        this.decided.set(instance, digest);
        replica.toExecute.push({ instance, digest, requests: batch.requests });
        return;
      }
      case "durable":
        replica.durableUpTo = effect.instance;
        return;
      case "serveHistory":
        this.#serveHistory(replica, effect.to, effect.from, effect.decided);
        return;
      case "serveBatch": {
        const record = replica.disk.instances.get(effect.instance);
        const { instance, digest } = effect;
        if (record?.digest === digest) {
          this.#post(replica.id, effect.to, {
            type: "BATCH",
            view: 0,
            regency: 0,
            instance,
            digest,
            batch: record.batch,
          });
        }
        return;
      }
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
        return;
      case "stopping":
        if (effect.messages) replica.disk.cleanStop = effect.messages.map(encodeMessage);
        return;
      case "wake":
        return;
    }
  }

  #serveHistory(replica: SimulatedReplica, to: number, from: number, decided: number): void {
    const records: JournaledInstance[] = [];
    for (let at = from; at <= decided && records.length < 4; at++)
      records.push(replica.disk.instances.get(at) as JournaledInstance);
    const last = records.at(-1);
    if (!last) return;
    const beyond = last.instance < decided ? replica.disk.instances.get(last.instance + 1) : undefined;
    const within = records.findLast((record) => record.certificate)?.certificate;
    const proof = beyond?.certificate
      ? { links: [beyond.batchDigest], certificate: beyond.certificate }
      : within
        ? { links: [], certificate: within }
        : null;
    this.#post(replica.id, to, {
      type: "HISTORY",
      view: 0,
      regency: 0,
      from,
      batches: records.map((r) => r.batch),
      proof,
    });
  }

  #post(from: number, to: number, message: Message): void {
    const sent = this.#options.liar ? this.#options.liar(from, to, message, this.random) : [message];
    if (!this.#options.liar) this.#checkVote(from, message);
    const name = `${from}>${to}`;
    if (this.#cut.has(name)) return;
    const queue = this.links.get(name);
    if (queue) queue.push(...sent);
    else this.links.set(name, [...sent]);
  }

  /** Nobody may vote twice in one (instance, regency): across restarts, for WRITE and for ACCEPT. */
  #checkVote(from: number, message: Message): void {
    if (message.type !== "WRITE" && message.type !== "ACCEPT") return;
    const name = `${message.type} ${from} ${message.instance} ${message.regency}`;
    const earlier = this.#votes.get(name);
    if (earlier !== undefined && earlier !== message.digest) throw new Violation(`${name} twice`);
    this.#votes.set(name, message.digest);
  }

  // ---- events

  request(options: { sequence?: number; to?: readonly number[]; text?: string } = {}): Request {
    const sequence = options.sequence ?? ++this.#sequence;
    const bytes = encodeRequest({
      cluster: CLUSTER,
      client: CLIENT,
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
  }

  tickOne(replica: SimulatedReplica): void {
    this.input(replica, { type: "tick", nowUs: this.nowUs, wallMs: Math.floor(this.nowUs / 1000) });
  }

  deliverOne(name: string): void {
    const message = this.links.get(name)?.shift();
    if (!message) return;
    const [from, to] = name.split(">").map(Number) as [number, number];
    const replica = this.replicas[to] as SimulatedReplica;
    this.input(replica, { type: "message", from, message });
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
    if (next.instance !== replica.executedUpTo + 1) throw new Violation(`replica ${replica.id} executes out of order`);
    replica.executedUpTo = next.instance;
    this.input(replica, { type: "executed", instance: next.instance });
  }

  /** What is on the way in both directions is lost. */
  cut(a: number, b: number): void {
    for (const name of [`${a}>${b}`, `${b}>${a}`]) {
      this.#cut.add(name);
      this.links.delete(name);
    }
  }

  mend(a: number, b: number): void {
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      if (!this.#cut.delete(`${from}>${to}`)) continue;
      this.input(this.replicas[from] as SimulatedReplica, { type: "connected", peer: to });
    }
  }

  /** Loses everything that is not synced; of the writes under way a random prefix is on disk. */
  crash(id: number): void {
    const replica = this.replicas[id] as SimulatedReplica;
    const kept = this.random.below(replica.journaling.length + 1);
    for (const write of replica.journaling.slice(0, kept)) {
      this.#reachDisk(replica, write.records);
    }
    replica.up = false;
    for (const { id: other } of this.view.members) if (other !== id) this.cut(id, other);
  }

  restart(id: number): void {
    const old = this.replicas[id] as SimulatedReplica;
    const replica = this.#boot(id, old.disk);
    this.replicas[id] = replica;
    this.input(replica, { type: "tick", nowUs: this.nowUs, wallMs: Math.floor(this.nowUs / 1000) });
    for (const { id: other } of this.view.members) if (this.replicas[other]?.up && other !== id) this.mend(id, other);
  }

  stopCleanly(id: number): void {
    const replica = this.replicas[id] as SimulatedReplica;
    while (replica.journaling.length > 0) this.journalOne(replica);
    this.input(replica, { type: "stop" });
    replica.up = false;
    for (const { id: other } of this.view.members) if (other !== id) this.cut(id, other);
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
