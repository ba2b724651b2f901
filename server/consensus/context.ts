/**
 * What the parts of the core share: who we are, the time of the last tick, and the effects of the step in progress.
 * Asynchronous effects carry a ticket; their continuation runs inside the step that brings the answer.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { Crypto, Signer } from "../../protocol/crypto/contract.ts";
import { assert } from "../../protocol/errors.ts";
import type { Message } from "../../protocol/messages.ts";
import { type Member, memberOf, type ReplicaId, type View } from "../../protocol/view.ts";
import type {
  Authenticate,
  ConsensusOptions,
  CoreRecord,
  Effect,
  Settled,
  SignatureCheck,
  Ticket,
} from "./contract.ts";

/** What may leave a replica that is no member. */
const OBSERVERS_SAY: ReadonlySet<Message["type"]> = new Set(["FETCH_BATCH", "FETCH_HISTORY", "FETCH_OFFER", "BATCH"]);

export interface ContextOptions {
  readonly view: View;
  readonly self: ReplicaId;
  readonly crypto: Crypto;
  readonly signer: Signer;
  readonly authenticate: Authenticate;
  readonly settled: Settled;
  readonly options: ConsensusOptions;
  /** The first instance of the view. */
  readonly firstInstance: number;
  /** The view in force at an instance, as far as this replica knows the chain of views. */
  readonly viewAt: (instance: number) => View;
}

export class CoreContext {
  readonly view: View;
  readonly self: ReplicaId;
  readonly crypto: Crypto;
  readonly signer: Signer;
  readonly authenticate: Authenticate;
  readonly settled: Settled;
  readonly options: ConsensusOptions;
  readonly firstInstance: number;
  readonly viewAt: (instance: number) => View;
  #observes: boolean;
  nowUs = 0;
  wallMs = 0;
  #effects: Effect[] = [];
  #nextTicket: Ticket = 1;
  readonly #journaling = new Map<Ticket, () => void>();
  /** What waits to be journaled, in order; null: nothing has to. */
  #held: (() => void)[] | null = null;
  readonly #verifying = new Map<Ticket, (valid: readonly boolean[]) => void>();

  constructor(options: ContextOptions) {
    this.view = options.view;
    this.self = options.self;
    this.crypto = options.crypto;
    this.signer = options.signer;
    this.authenticate = options.authenticate;
    this.settled = options.settled;
    this.options = options.options;
    this.firstInstance = options.firstInstance;
    this.viewAt = options.viewAt;
    this.#observes = !memberOf(options.view, options.self);
  }

  get cluster(): Digest {
    return this.view.cluster;
  }

  emit(effect: Effect): void {
    this.#effects.push(effect);
  }

  /** Not a member of the view (yet, or any more): it follows, and says nothing that could count. */
  get observes(): boolean {
    return this.#observes;
  }

  /** The view is over: nothing this replica says in it counts any more. */
  viewOver(): void {
    this.#observes = true;
  }

  send(to: ReplicaId, message: Message): void {
    if (this.#observes && !OBSERVERS_SAY.has(message.type)) return;
    this.#effects.push({ type: "send", to, message });
  }

  broadcast(message: Message): void {
    if (this.#observes && !OBSERVERS_SAY.has(message.type)) return;
    this.#effects.push({ type: "broadcast", message });
  }

  /**
   * While held nothing reaches the journal but what says how far it can be trusted: its end is what votes that others show
   * are compared with (recollection.ts), after the next crash as well.
   */
  holdJournal(): void {
    this.#held ??= [];
  }

  get holdsJournal(): boolean {
    return this.#held !== null;
  }

  releaseJournal(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const journal of held) journal();
  }

  journal(records: readonly CoreRecord[], then: () => void): void {
    if (this.#held) this.#held.push(() => this.journalNow(records, then));
    else this.journalNow(records, then);
  }

  journalNow(records: readonly CoreRecord[], then: () => void): void {
    const ticket = this.#nextTicket++;
    this.#journaling.set(ticket, then);
    this.#effects.push({ type: "journal", ticket, records });
  }

  verify(checks: readonly SignatureCheck[], then: (valid: readonly boolean[]) => void): void {
    const ticket = this.#nextTicket++;
    this.#verifying.set(ticket, then);
    this.#effects.push({ type: "verify", ticket, checks });
  }

  journaled(ticket: Ticket): void {
    const then = this.#journaling.get(ticket);
    assert(then, "journaled: unknown ticket");
    this.#journaling.delete(ticket);
    then();
  }

  verified(ticket: Ticket, valid: readonly boolean[]): void {
    const then = this.#verifying.get(ticket);
    assert(then, "verified: unknown ticket");
    this.#verifying.delete(ticket);
    then(valid);
  }

  takeEffects(): Effect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  member(id: ReplicaId): Member {
    const member = memberOf(this.view, id);
    assert(member, `replica ${id} is not a member`);
    return member;
  }
}
