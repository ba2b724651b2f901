/**
 * One step beyond the proven history (docs/decisions/021). When everything that can be proven is executed and the roots still
 * missing lie just above it, the batch of that instance is taken from the member that signed such a root, executed for
 * trial, compared, and undone.
 *
 * Invariants: 1. one batch is tried at a time, and of one member once. 2. it stands on the history and the time of the state it
 * is tried on, so that a correct member's root vouches for both.
 */
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { decoded, isRejection } from "../../protocol/errors.ts";
import type { ImagePlace } from "../../protocol/image.ts";
import type { MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId, View } from "../../protocol/view.ts";
import { timestampMsOf } from "./attempt.ts";
import { type ProvenBatch, segmentOf } from "./segments.ts";
import type { TransferPort } from "./transfer-contract.ts";

const REQUEST_TIMEOUT_US = 1_000_000;

export interface ProbeOptions {
  readonly view: View;
  readonly crypto: Crypto;
  readonly port: TransferPort;
}

/** What a member's answer is worth. */
export type Trial = { readonly type: "batch"; readonly batch: ProvenBatch } | { readonly type: "contradicts" };

export class Probe {
  readonly #options: ProbeOptions;
  #asked: { readonly member: ReplicaId; readonly instance: number; readonly untilUs: number } | null = null;
  /** Of these no answer came; they are asked again when all were. */
  readonly #silent = new Set<ReplicaId>();
  /** Whose batch is executed on the staged state now. */
  #trying: ReplicaId | null = null;

  constructor(options: ProbeOptions) {
    this.#options = options;
  }

  /** Asks one of these members for the batch of the instance, and another one when no answer comes. */
  ask(members: readonly ReplicaId[], instance: number): void {
    const { port, view } = this.#options;
    const nowUs = port.nowUs();
    if (this.#asked && this.#asked.instance === instance && nowUs < this.#asked.untilUs) return;
    if (this.#asked) this.#silent.add(this.#asked.member);
    if (members.every((id) => this.#silent.has(id))) this.#silent.clear();
    const member = members.find((id) => !this.#silent.has(id));
    this.#asked = null;
    if (member === undefined) return;
    this.#asked = { member, instance, untilUs: nowUs + REQUEST_TIMEOUT_US };
    port.send(member, { type: "FETCH_HISTORY", view: view.id, regency: 0, from: instance, to: instance });
  }

  /** The answer to it, judged for a state that stands at `place`; null: it is none, or empty. */
  onHistory(from: ReplicaId, message: MessageOf<"HISTORY">, place: ImagePlace): Trial | null {
    const asked = this.#asked;
    if (asked?.member !== from || asked.instance !== message.from || message.from !== place.instance + 1) return null;
    const { crypto, view } = this.#options;
    const [bytes] = message.batches;
    if (!bytes) return null;
    this.#asked = null;
    const segment = segmentOf(crypto, view, { ...message, batches: [bytes] });
    const batch = segment.batches[0] as ProvenBatch;
    const timestampMs = decoded(() => timestampMsOf(batch));
    const inOrder = !isRejection(timestampMs) && timestampMs >= place.timestampMs;
    return segment.previous === place.digest && inOrder ? { type: "batch", batch } : { type: "contradicts" };
  }

  began(member: ReplicaId): void {
    this.#trying = member;
  }

  /** Whose batch was tried. */
  ended(): ReplicaId | null {
    const member = this.#trying;
    this.#trying = null;
    return member;
  }
}
