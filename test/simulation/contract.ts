/**
 * The seams of the simulator: what checkers are told, and how a Byzantine replica rewrites what correct code wanted to
 * send. The world (`world.ts`) calls both; checkers and attackers know nothing of the world.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { Message } from "../../protocol/messages.ts";
import type { Request } from "../../protocol/request.ts";
import type { ReplicaId } from "../../protocol/view.ts";

/** A promise of the system is broken: which one, and what shows it. */
export class Violation extends Error {
  readonly rule: string;

  constructor(rule: string, message: string) {
    super(`${rule}: ${message}`);
    this.rule = rule;
  }
}

/** Something stays undone although at most f replicas are faulty and the network is healed. */
export class Stall extends Error {}

/** What a checker is told, in the order in which it happens. Only correct replicas are reported. Times are virtual. */
export interface SimulationObserver {
  /** A client's SDK encoded this request; Byzantine clients report what they sign as well. */
  issued?(event: { readonly client: Digest; readonly request: Request }): void;
  /** A correct replica decided; also again after a restart, when it decides once more what it had not executed. */
  decided?(event: {
    readonly replica: ReplicaId;
    readonly instance: number;
    readonly digest: Digest;
    readonly requests: readonly Request[];
    /** The batch's agreed time: the checkers that replay the log cannot do without it. */
    readonly timestampMs?: number;
  }): void;
  /** A correct replica executed an instance; `root` is a digest of its whole replicated state after it. */
  executed?(event: {
    readonly replica: ReplicaId;
    readonly instance: number;
    readonly digest: Digest;
    readonly root: Digest;
  }): void;
  /** A correct replica's vote left it: WRITE, ACCEPT, PROPOSE, SYNC or STOPDATA. */
  voted?(event: { readonly replica: ReplicaId; readonly message: Message }): void;
  /** How much a correct replica holds in memory, sampled. */
  memory?(event: { readonly replica: ReplicaId; readonly counts: Readonly<Record<string, number>> }): void;
}

/** One message on its way out of a Byzantine replica. */
export interface Outgoing {
  readonly to: ReplicaId;
  readonly message: Message;
  /** Held back this long (virtual), beyond the delay of the network. */
  readonly delayUs?: number;
}

/** The mind of a Byzantine replica: correct code runs behind it; what leaves is what `rewrite` returns. */
export interface Attacker {
  rewrite(outgoing: Outgoing, nowUs: number): readonly Outgoing[];
  /** Everything that reaches the replica: an attacker remembers what it may replay. */
  observe(from: ReplicaId, message: Message): void;
  /** Called now and then (every 50 ms of virtual time): what it sends unasked. */
  idle(nowUs: number): readonly Outgoing[];
}
