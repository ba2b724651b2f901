/**
 * A replica that cannot reach its peers by log fetches a state (docs/protocol.md section 6): the shell around
 * `StateTransfer`. It takes messages, the time and the verifier's verdicts in, sends, and has the staging area carry out one
 * thing after another. It decides nothing, neither votes nor answers reads, and leaves the live stores untouched.
 */
import type { Cluster } from "../../protocol/cluster.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { assertNever } from "../../protocol/errors.ts";
import type { ImagePlace } from "../../protocol/image.ts";
import type { Certificate, Message } from "../../protocol/messages.ts";
import type { ReplicaId, View } from "../../protocol/view.ts";
import type { Storage } from "../../storage/contract.ts";
import type { Clock, DriverLogger } from "../driver-contract.ts";
import { StateTransfer } from "../recovery/state-transfer.ts";
import type { TransferEffect, TransferInput, TransferPhase } from "../recovery/transfer-contract.ts";
import type { ServiceFactory } from "../service/contract.ts";
import type { Verifier } from "../verifier.ts";
import type { Views } from "../views.ts";
import { Pace } from "./pace.ts";
import { type Outcome, Staging } from "./staging.ts";

const TICK_US = 100_000;
const REPORT_US = 5_000_000;

export interface TransferParts {
  /** With the newest view that is known: its members are asked. */
  readonly cluster: Cluster;
  readonly views: Views;
  readonly self: ReplicaId;
  readonly crypto: Crypto;
  readonly storage: Storage;
  readonly service: ServiceFactory;
  readonly clock: Clock;
  readonly verifier: Verifier;
  readonly logger: DriverLogger;
  readonly send: (to: ReplicaId, message: Message) => void;
  /** A peer was found out: for the metrics. */
  readonly fault: (from: ReplicaId, code: string) => void;
}

/** What a transfer ends with: the staged state stands at `place`, ready for `Storage.install`. */
export interface Transferred {
  readonly certificate: Certificate | null;
  readonly place: ImagePlace;
}

/** How far it is: `recovery` of /status. */
export interface TransferProgress {
  readonly phase: TransferPhase;
  readonly donor: ReplicaId | null;
  readonly sources: readonly ReplicaId[];
  readonly instance: number;
  readonly bytes: number;
  readonly bytesTotal: number;
  readonly bytesPerSecond: number;
  readonly secondsLeft: number | null;
  readonly startedMs: number;
}

export class Transfer {
  readonly #parts: TransferParts;
  readonly #pure: StateTransfer;
  readonly #staging: Staging;
  readonly #startedMs: number;
  readonly #pace = new Pace();
  readonly #inputs: TransferInput[] = [];
  readonly #jobs: (() => Promise<void>)[] = [];
  #working: Promise<void> | null = null;
  #stepping = false;
  #running = false;
  #needless = false;
  #cancelTick: (() => void) | null = null;
  #reportedUs = 0;
  #reportedPhase: TransferPhase | null = null;
  #settle: { resolve: (result: Transferred | null) => void; reject: (error: unknown) => void } | null = null;

  constructor(parts: TransferParts) {
    this.#parts = parts;
    const { cluster, views, self, crypto, storage, service, clock } = parts;
    const { genesis } = views.chain;
    const viewAt = (instance: number): View => views.chain.at(instance);
    this.#pure = new StateTransfer({ view: cluster.view, viewAt, genesis, self, crypto });
    this.#staging = new Staging({ crypto, cluster, views, storage, service, clock });
    this.#startedMs = clock.wallMs();
  }

  get progress(): TransferProgress {
    const { phase, donor, sources, instance, bytes, bytesTotal } = this.#pure.state;
    const { bytesPerSecond } = this.#pace;
    const left = phase === "checkpoint" && bytesPerSecond > 0 ? (bytesTotal - bytes) / bytesPerSecond : null;
    const secondsLeft = left === null ? null : Math.ceil(left);
    const pace = { bytesPerSecond: Math.round(bytesPerSecond), secondsLeft };
    return { phase, donor, sources, instance, bytes, bytesTotal, ...pace, startedMs: this.#startedMs };
  }

  /** It ended because this replica goes on better without. */
  get needless(): boolean {
    return this.#needless;
  }

  /**
   * Resolves when the staged state is believed and written; with null when stopped before, or needless.
   * @throws QuorateError STORAGE_FAILED, STORAGE_FULL, STORAGE_DAMAGED (rejections)
   */
  async start(): Promise<Transferred | null> {
    this.#running = true;
    await this.#staging.open();
    if (!this.#running) return null;
    const ended = new Promise<Transferred | null>((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#reportedUs = this.#parts.clock.nowUs();
    const { journal, state } = this.#parts.storage;
    const { instance } = state.applied;
    const optional = instance >= journal.base.instance;
    this.#input({ type: "started", nowUs: this.#parts.clock.nowUs(), instance, optional, held: this.#staging.held });
    this.#tick();
    return ended;
  }

  /** Ends soon and leaves what is staged on disk, for the next start. */
  async stop(): Promise<void> {
    this.#end({ result: null });
    this.#staging.abandon();
    await this.#working;
    await this.#staging.close();
  }

  /** One decoded message of an authenticated peer, in memory of its own. */
  onMessage(from: ReplicaId, message: Message): void {
    this.#input({ type: "message", from, message });
  }

  onConnected(peer: ReplicaId): void {
    this.#input({ type: "connected", peer });
  }

  onDisconnected(peer: ReplicaId): void {
    this.#input({ type: "disconnected", peer });
  }

  // ---- inputs

  #tick(): void {
    if (!this.#running) return;
    const { clock } = this.#parts;
    const nowUs = clock.nowUs();
    this.#input({ type: "tick", nowUs });
    if (!this.#running) return;
    this.#pace.sample(nowUs, this.#pure.state.bytes);
    this.#report(nowUs);
    this.#cancelTick = clock.at(nowUs + TICK_US, () => this.#tick());
  }

  /** Never re-entrant: what an effect brings about at once waits its turn. */
  #input(input: TransferInput): void {
    if (!this.#settle || !this.#running) return;
    this.#inputs.push(input);
    if (this.#stepping) return;
    this.#stepping = true;
    try {
      for (let next = this.#inputs.shift(); next && this.#running; next = this.#inputs.shift()) {
        for (const effect of this.#pure.step(next)) this.#perform(effect);
      }
    } catch (error) {
      this.#end({ error });
    } finally {
      this.#stepping = false;
    }
  }

  // ---- effects

  #perform(effect: TransferEffect): void {
    const { logger, send, verifier } = this.#parts;
    switch (effect.type) {
      case "send":
        send(effect.to, effect.message);
        return;
      case "verify":
        verifier(effect.checks, (valid) => this.#input({ type: "verified", ticket: effect.ticket, valid }));
        return;
      case "chosen": {
        const { instance, bytes } = effect.header;
        logger.info({ donor: effect.donor, instance, bytes }, "fetching the checkpoint of this replica");
        return;
      }
      case "dropped":
        logger.warn(
          { donor: effect.donor, code: effect.code, reason: reasonOf(effect.code) },
          "no longer fetching from this replica",
        );
        return;
      case "blame":
        this.#blame(effect.replica, effect.code);
        return;
      case "believed":
        this.#staging.believe();
        logger.info({ instance: effect.instance }, "enough other replicas had the same state");
        return;
      case "needless":
        this.#needless = true;
        logger.info({}, "no checkpoint is to be had, or none is needed: going on by log");
        this.#end({ result: null });
        return;
      default:
        this.#stage(effect);
    }
  }

  #blame(replica: ReplicaId, code: string): void {
    this.#parts.fault(replica, code);
    this.#parts.logger.warn({ peer: replica, code, reason: reasonOf(code) }, "this replica sent something false");
  }

  /** Effects on the staged state, each after the one before. */
  #stage(effect: Extract<TransferEffect, { type: StagingEffect }>): void {
    const staging = this.#staging;
    switch (effect.type) {
      case "retain":
        this.#job(() => staging.retain(effect.digests));
        return;
      case "stage": {
        const digests = effect.chunks.map((chunk) => chunk.digest);
        this.#job(async () => {
          const fit = await staging.add(effect.chunks);
          this.#input(fit ? { type: "staged", digests } : { type: "unusable" });
        });
        return;
      }
      case "complete":
        this.#job(async () => this.#outcome(await staging.complete(effect.place), { type: "completed" }));
        return;
      case "replay": {
        const instance = effect.batches.at(-1)?.instance ?? 0;
        this.#job(async () => this.#outcome(await staging.replay(effect.batches), { type: "replayed", instance }));
        return;
      }
      case "try":
        this.#job(async () => {
          const root = await staging.tryOut(effect.batch);
          if (root !== "abandoned") this.#input({ type: "tried", instance: effect.batch.instance, root });
        });
        return;
      case "computeRoot":
        this.#job(async () => {
          const root = await staging.root();
          if (root !== null) this.#input({ type: "root", instance: effect.instance, root });
        });
        return;
      case "discard":
        staging.abandon();
        this.#job(async () => {
          await staging.discard();
          this.#input({ type: "discarded", held: staging.held });
        });
        return;
      case "accepted":
        this.#job(() => this.#accept(effect));
        return;
      default:
        assertNever(effect);
    }
  }

  async #accept({ certificate, place, settledFrom }: Extract<TransferEffect, { type: "accepted" }>): Promise<void> {
    await this.#staging.flush();
    await this.#staging.storeViews();
    if (settledFrom > 0) await this.#staging.settles(settledFrom);
    this.#parts.logger.info({ instance: place.instance, settledFrom }, "the fetched state is complete");
    this.#end({ result: { certificate, place } });
  }

  #outcome(outcome: Outcome, report: TransferInput): void {
    if (outcome.type === "done") this.#input(report);
    if (outcome.type !== "unusable") return;
    this.#parts.logger.warn({ err: outcome.error }, "the fetched state cannot be executed on");
    this.#input({ type: "unusable" });
  }

  #job(job: () => Promise<void>): void {
    this.#jobs.push(job);
    this.#working ??= this.#work();
  }

  async #work(): Promise<void> {
    try {
      for (let job = this.#jobs.shift(); job && this.#running; job = this.#jobs.shift()) await job();
    } catch (error) {
      this.#end({ error });
    } finally {
      this.#working = null;
    }
  }

  // ---- reports and the end

  #report(nowUs: number): void {
    const { phase } = this.#pure.state;
    if (phase === this.#reportedPhase && nowUs - this.#reportedUs < REPORT_US) return;
    this.#reportedPhase = phase;
    this.#reportedUs = nowUs;
    const { donor, sources, instance, bytes, bytesTotal, bytesPerSecond, secondsLeft } = this.progress;
    const detail = { phase, donor, sources, instance, bytes, bytesTotal, bytesPerSecond, secondsLeft };
    this.#parts.logger.info(detail, "fetching the state from the other replicas");
  }

  #end(outcome: { readonly result: Transferred | null } | { readonly error: unknown }): void {
    this.#running = false;
    this.#cancelTick?.();
    this.#cancelTick = null;
    this.#jobs.length = 0;
    if ("error" in outcome) this.#settle?.reject(outcome.error);
    else this.#settle?.resolve(outcome.result);
  }
}

/** Why a donor was dropped or a replica named, in plain words. */
const REASONS: Readonly<Record<string, string>> = {
  STALLED: "it delivered nothing for five seconds",
  SLOW: "it delivered too little",
  LOG_MISSING: "nobody delivers the log above its checkpoint",
  ROOTS_MISSING: "nobody else has a root to compare its checkpoint with",
  CHECKPOINT_GONE: "it does not offer that checkpoint any more",
  CHECKPOINT_HISTORY: "its checkpoint stands on another history than the proven one",
  CHECKPOINT_TIME: "its checkpoint is of a time later than the batches above it",
  CHECKPOINT_ROOT: "so many others had another state that one of them is correct",
  CHECKPOINT_UNUSABLE: "its checkpoint holds what no replica ever wrote",
  CHUNK_DIGEST: "a chunk is not the one of its manifest",
  CHUNK_MALFORMED: "a chunk cannot be read",
  MANIFEST_DIGEST: "its manifest is not the one of its checkpoint",
  MANIFEST_MALFORMED: "its manifest cannot be read",
  MANIFEST_SIZE: "its manifest contradicts the sizes it offered",
  MANIFEST_TWICE: "its manifest names a chunk twice",
  OFFER_CERTIFICATE: "it offered a certificate that is not valid",
  ROOT_SIGNATURE: "it offered roots with a signature that is not its own",
  ROOT_TWICE: "it signed two roots for one instance",
  ROOTS_CONTRADICT: "its roots contradict each other",
  ROOT_CONTRADICTS: "its root contradicts the state that was accepted",
  HISTORY_CHAIN: "its part of the log contradicts the certificate it came with",
  HISTORY_CERTIFICATE: "its part of the log came with a certificate that is not valid",
};

function reasonOf(code: string): string {
  return REASONS[code] ?? code;
}

type StagingEffect = "retain" | "stage" | "complete" | "replay" | "try" | "computeRoot" | "discard" | "accepted";
