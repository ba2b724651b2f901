/**
 * Every checker behind one observer. Rules about single events come before those that replay the log, so that what is
 * reported is the first thing that went wrong.
 */
import type { Digest } from "../../../protocol/bytes.ts";
import type { Message } from "../../../protocol/messages.ts";
import type { Request } from "../../../protocol/request.ts";
import type { ReplicaId, View } from "../../../protocol/view.ts";
import { AgreementChecker } from "./agreement.ts";
import { DurabilityChecker } from "./durability.ts";
import type { Acknowledged, Pending, RunObserver } from "./events.ts";
import { ExactlyOnceChecker } from "./exactly-once.ts";
import { ImagesChecker } from "./images.ts";
import { LivenessChecker } from "./liveness.ts";
import { MemoryChecker } from "./memory.ts";
import { MultiKeyChecker } from "./multi-key.ts";
import { type DecidedInstance, Replay, type ReplayOptions } from "./replay.ts";
import { RightsChecker } from "./rights.ts";
import { StateRootsChecker } from "./state-roots.ts";
import { ValidityChecker } from "./validity.ts";
import { VotesChecker } from "./votes.ts";

export interface CheckersOptions extends ReplayOptions {
  /** The first one. */
  readonly view: View;
  /** Where views change: all of them so far. */
  readonly views?: () => readonly View[];
  /** The most that each memory count of a replica may reach. */
  readonly memoryLimits: Readonly<Record<string, number>>;
  /** Virtual time within which a call finishes once the world is healed. */
  readonly livenessUs: number;
}

export class Checkers implements RunObserver {
  readonly agreement: AgreementChecker;
  readonly memoryChecker: MemoryChecker;
  readonly liveness: LivenessChecker;
  readonly #replay: Replay;
  readonly #all: readonly RunObserver[];

  constructor(options: CheckersOptions) {
    const { crypto, view, memoryLimits, livenessUs } = options;
    this.agreement = new AgreementChecker(options);
    this.memoryChecker = new MemoryChecker(memoryLimits);
    this.liveness = new LivenessChecker(livenessUs);
    const exactlyOnce = new ExactlyOnceChecker();
    const durability = new DurabilityChecker(options.views ?? (() => [view]));
    this.#replay = new Replay(options);
    this.#replay.listen(exactlyOnce);
    this.#replay.listen(durability);
    const { cluster, founding } = options;
    if (founding) this.#replay.listen(new RightsChecker({ crypto, cluster, ...founding }));
    this.#all = [
      this.agreement,
      new ValidityChecker(),
      new StateRootsChecker(),
      new ImagesChecker(options),
      new VotesChecker(crypto),
      exactlyOnce,
      durability,
      this.memoryChecker,
      this.liveness,
      new MultiKeyChecker(options),
    ];
  }

  issued(event: { readonly client: Digest; readonly request: Request }): void {
    for (const checker of this.#all) checker.issued?.(event);
  }

  decided(event: DecidedInstance & { readonly replica: ReplicaId }): void {
    for (const checker of this.#all) checker.decided?.(event);
    this.#replay.decided(event);
  }

  executed(event: {
    readonly replica: ReplicaId;
    readonly instance: number;
    readonly digest: Digest;
    readonly root: Digest;
  }): void {
    for (const checker of this.#all) checker.executed?.(event);
  }

  voted(event: { readonly replica: ReplicaId; readonly message: Message }): void {
    for (const checker of this.#all) checker.voted?.(event);
  }

  promised(event: { readonly replica: ReplicaId; readonly view: number; readonly regency: number }): void {
    for (const checker of this.#all) checker.promised?.(event);
  }

  memory(event: { readonly replica: ReplicaId; readonly counts: Readonly<Record<string, number>> }): void {
    for (const checker of this.#all) checker.memory?.(event);
  }

  restarted(event: {
    readonly replica: ReplicaId;
    readonly newestInstance?: number;
    readonly executedInstance?: number;
  }): void {
    for (const checker of this.#all) checker.restarted?.(event);
  }

  lost(event: { readonly replica: ReplicaId }): void {
    for (const checker of this.#all) checker.lost?.(event);
  }

  unnoticed(event: { readonly replica: ReplicaId }): void {
    for (const checker of this.#all) checker.unnoticed?.(event);
  }

  acknowledged(event: Acknowledged): void {
    for (const checker of this.#all) checker.acknowledged?.(event);
  }

  pending(event: Pending): void {
    for (const checker of this.#all) checker.pending?.(event);
  }

  finished(event: { readonly id: number; readonly nowUs: number }): void {
    for (const checker of this.#all) checker.finished?.(event);
  }

  healed(event: { readonly nowUs: number }): void {
    for (const checker of this.#all) checker.healed?.(event);
  }

  advanced(event: { readonly nowUs: number }): void {
    for (const checker of this.#all) checker.advanced?.(event);
  }

  ended(event: { readonly nowUs: number }): void {
    for (const checker of this.#all) checker.ended?.(event);
  }
}
