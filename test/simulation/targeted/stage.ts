/**
 * A core cluster for targeted attacks: nothing moves but what the script moves, and Byzantine replicas are nothing but what
 * the script sends in their name. What correct replicas do is checked all along, as in every simulation.
 */
import { encodeBatch } from "../../../protocol/batch.ts";
import type { Digest } from "../../../protocol/bytes.ts";
import type { Message, MessageType } from "../../../protocol/messages.ts";
import { decodeEnvelope, type Request } from "../../../protocol/request.ts";
import type { Mode, ReplicaId } from "../../../protocol/view.ts";
import { Guild, type KnownBatch } from "../byzantine/guild.ts";
import { AgreementChecker } from "../checkers/agreement.ts";
import type { RunObserver } from "../checkers/events.ts";
import { ValidityChecker } from "../checkers/validity.ts";
import { VotesChecker } from "../checkers/votes.ts";
import { type Attacker, Stall, Violation } from "../contract.ts";
import { CoreCluster } from "../core-cluster.ts";
import { CLUSTER, ENVELOPE, GENESIS, type SimulatedReplica, signerOf } from "../core-replica.ts";
import { fastCrypto } from "../fast-crypto.ts";
import { type Random, seeded } from "../random.ts";

export const REQUEST_TIMEOUT_MS = 200;
/** Whatever a replica waits for happens within so many passes, or never. */
const PASSES_MAX = 500;
const SETTLE_US = 60_000;

/** Says what script moves: messages of these kinds, on links between these replicas. */
export interface Moving {
  readonly among?: readonly ReplicaId[];
  readonly types?: readonly MessageType[];
}

export interface StageOptions {
  readonly seed: number;
  readonly n: number;
  readonly f?: number;
  readonly mode?: Mode;
  readonly liars?: readonly ReplicaId[];
  /** Requests that nobody can prove: by default there are none. */
  readonly unproven?: (request: Request) => boolean;
}

/** The slot of a liar is empty: its words come from the script. */
const NOBODY: Attacker = { rewrite: () => [], observe: () => undefined, idle: () => [] };

/** Batch time is agreed on and never goes back. */
class TimeChecker implements RunObserver {
  readonly #times = new Map<number, number>();

  decided({ instance, timestampMs = 0 }: { readonly instance: number; readonly timestampMs?: number }): void {
    this.#times.set(instance, timestampMs);
    const before = this.#times.get(instance - 1) ?? 0;
    if (timestampMs < before) throw new Violation("time", `instance ${instance} is earlier than the one before it`);
  }
}

export class Stage {
  readonly random: Random;
  readonly cluster: CoreCluster;
  /** What the liars know and can sign. They hear everything. */
  readonly guild: Guild;
  readonly liars: ReadonlySet<ReplicaId>;
  readonly #validity = new ValidityChecker();
  readonly #requests: Request[] = [];

  constructor({ seed, n, f, mode = "bft", liars = [], unproven = () => false }: StageOptions) {
    this.random = seeded(seed);
    this.liars = new Set(liars);
    const sizes = f === undefined ? { n } : { n, f };
    this.cluster = new CoreCluster({
      ...sizes,
      mode,
      seed,
      random: this.random,
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      attackers: new Map(liars.map((id) => [id, NOBODY])),
      authentic: (_replica, request) => !unproven(request),
      observers: [
        new AgreementChecker({ crypto: fastCrypto, cluster: CLUSTER, genesis: GENESIS }),
        this.#validity,
        new VotesChecker(fastCrypto),
        new TimeChecker(),
      ],
      probe: { sent: (from, _to, message) => this.guild.see(from, message) },
    });
    this.guild = new Guild(this.cluster.view, fastCrypto);
    for (const id of liars) {
      this.guild.join(id, signerOf(id));
      this.replica(id).up = false;
    }
    // Everybody's STATUS: the history starts at the same genesis.
    this.cluster.tick(0);
    this.complete();
    this.drop();
  }

  get correct(): ReplicaId[] {
    return this.cluster.view.members.map((member) => member.id).filter((id) => !this.liars.has(id));
  }

  replica(id: ReplicaId): SimulatedReplica {
    return this.cluster.replicas[id] as SimulatedReplica;
  }

  decided(id: ReplicaId): number {
    return this.replica(id).core.lastDecided;
  }

  /** A client asks these replicas, or all. */
  request(to?: readonly ReplicaId[]): Request {
    const request = this.cluster.request(to ? { to } : {});
    this.#validity.issued({ client: request.client, request });
    this.#requests.push(request);
    return request;
  }

  // ---- what moves

  /** Journals, verifications and executions under way, at these replicas. */
  complete(ids: readonly ReplicaId[] = this.correct): boolean {
    let moved = false;
    for (const replica of ids.map((id) => this.replica(id))) {
      while (replica.up && replica.journaling.length + replica.verifying.length > 0) {
        moved = true;
        this.cluster.journalOne(replica);
        this.cluster.verifyOne(replica);
      }
      for (let left = replica.toExecute.length; replica.up && left > 0; left--) this.cluster.executeOne(replica);
    }
    return moved;
  }

  /** Everything selected is delivered, with what is sent in answer, until nothing of it is on the way. */
  deliver({ among = this.correct, types }: Moving = {}): void {
    for (let pass = 0; pass < PASSES_MAX; pass++) {
      let moved = this.complete(among);
      for (const [name, queue] of this.cluster.links) {
        const [from, to] = name.split(">").map(Number) as [number, number];
        if (!among.includes(from) || !among.includes(to)) continue;
        for (let at = 0; at < queue.length; ) {
          const message = queue[at] as Message;
          if (types && !types.includes(message.type)) {
            at++;
            continue;
          }
          queue.splice(at, 1);
          moved = true;
          this.say(from, to, message);
        }
      }
      if (!moved) return;
    }
    throw new Stall("messages never come to rest");
  }

  /** Whatever is on the way is lost. */
  drop(): void {
    this.cluster.links.clear();
  }

  /** `from` says this to `to`, who takes it in at once. */
  say(from: ReplicaId, to: ReplicaId, message: Message): void {
    this.cluster.input(this.replica(to), { type: "message", from, message });
  }

  /** A liar says this to each of them. */
  lie(from: ReplicaId, to: readonly ReplicaId[], message: Message): void {
    for (const id of to) if (!this.liars.has(id)) this.say(from, id, message);
    this.complete(to.filter((id) => !this.liars.has(id)));
  }

  /** Time passes among these, and what they say to each other arrives. */
  pass(ms: number, among: readonly ReplicaId[] = this.correct): void {
    for (let passed = 0; passed < ms; passed += SETTLE_US / 1000) {
      this.cluster.tick(SETTLE_US);
      this.deliver({ among });
    }
  }

  /** Until `regency` is installed and on disk among these, or they never get there. */
  change(regency: number, among: readonly ReplicaId[]): void {
    for (let round = 0; round < PASSES_MAX; round++) {
      if (among.every((id) => this.replica(id).core.state.regency >= regency)) return;
      this.cluster.tick(SETTLE_US);
      for (const liar of this.liars) {
        const view = this.cluster.view.id;
        this.lie(liar, among, { type: "STOP", view, regency, named: [] });
      }
      this.deliver({ among, types: ["STOP", "FORWARD", "STATUS"] });
    }
    throw new Stall(`regency ${regency} is never installed`);
  }

  // ---- lies

  /** A batch that could be `instance`, with this time, as the liars see the history. */
  batch(instance: number, timestampMs: number, requests: readonly Request[] = []): KnownBatch {
    const bytes = Uint8Array.from(
      encodeBatch({ instance, timestampMs, requests: requests.map((request) => request.bytes) }),
    );
    const known = this.guild.learnBatch(
      bytes,
      requests.map(() => ENVELOPE),
    );
    if (!known) throw new Error(`the history below ${instance} is not known`);
    return known;
  }

  /** All liars vote for it, to each of these. */
  support(regency: number, { instance, digest }: KnownBatch, to: readonly ReplicaId[]): void {
    for (const liar of this.liars) {
      this.lie(liar, to, this.guild.write(liar, { regency, instance }, digest));
      this.lie(liar, to, this.guild.accept({ regency, instance }, digest));
    }
  }

  get wallMs(): number {
    return Math.floor(this.cluster.nowUs / 1000);
  }

  // ---- the end

  /** The network heals: every request is executed by every correct replica, whatever the liars say in `each` round. */
  live(each: () => void = () => undefined, rounds = 1_000): void {
    const { cluster, correct } = this;
    this.drop();
    for (const id of correct) if (!this.replica(id).up) cluster.restart(id);
    for (const a of correct) for (const b of correct) if (a < b) cluster.mend(a, b);
    const envelope = ENVELOPE;
    const { replier } = decodeEnvelope(envelope);
    for (let round = 0; round < rounds; round++) {
      if (round % 20 === 0) {
        for (const id of correct) {
          for (const request of this.#requests) {
            if (this.replica(id).executedKeys.has(request.key)) continue;
            cluster.input(this.replica(id), { type: "request", request, envelope, replier });
          }
        }
      }
      each();
      this.pass(SETTLE_US / 1000);
      if (this.#isDone()) return;
    }
    const standing = correct.map((id) => {
      const { regency, wantedRegency } = this.replica(id).core.state;
      return `r${id} regency ${regency}>${wantedRegency} decided ${this.decided(id)}`;
    });
    throw new Stall(standing.join("; "));
  }

  /** What a replica stands on, decided before a restart or after, in memory and on disk, is what was decided. */
  #checkHistories(): void {
    const known = new Map<number, Digest>(this.cluster.decided);
    const check = (id: ReplicaId, instance: number, digest: Digest): void => {
      if ((known.get(instance) ?? digest) !== digest) {
        throw new Violation("agreement", `replica ${id} has another history up to instance ${instance}`);
      }
      known.set(instance, digest);
    };
    for (const id of this.correct) {
      const { core, disk, durableUpTo } = this.replica(id);
      const { instance, digest } = core.state.lastDecided;
      if (instance > 0) check(id, instance, digest);
      for (const record of disk.instances.values()) {
        if (record.instance <= durableUpTo) check(id, record.instance, record.digest);
      }
    }
  }

  #isDone(): boolean {
    this.#checkHistories();
    const [first = 0] = this.correct.map((id) => this.decided(id));
    return this.correct.every((id) => {
      const { executedUpTo, executedKeys } = this.replica(id);
      return (
        this.decided(id) === first &&
        executedUpTo === first &&
        this.#requests.every((request) => executedKeys.has(request.key))
      );
    });
  }
}
