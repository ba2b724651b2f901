/**
 * Ordering messages for instances or regencies not reached yet, bounded per sender (docs/protocol.md section 4.6).
 * When a sender's share is full its messages for the lowest instance go first: that instance is fetched from the log.
 */
import { FUTURE_BYTES_PER_SENDER_MAX, FUTURE_MESSAGES_PER_SENDER_MAX } from "../../protocol/limits.ts";
import type { Message, MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import type { Accept } from "./running-instance.ts";

export type OrderingMessage = MessageOf<"PROPOSE"> | MessageOf<"WRITE"> | Accept;

export function isOrderingMessage(message: Message): message is OrderingMessage {
  return ["PROPOSE", "WRITE", "ACCEPT", "SIGNED_ACCEPT"].includes(message.type);
}

interface Held {
  readonly from: ReplicaId;
  readonly message: OrderingMessage;
  readonly bytes: number;
}

interface Share {
  messages: number;
  bytes: number;
}

function sizeOf(message: OrderingMessage): number {
  if (message.type !== "PROPOSE") return 256;
  return message.envelopes.reduce((bytes, envelope) => bytes + envelope.length + 128, message.batch.length + 256);
}

export class FutureMessages {
  /** Sorted by nothing: few instances are held, and only the lowest is ever looked for. */
  readonly #byInstance = new Map<number, Held[]>();
  readonly #shares = new Map<ReplicaId, Share>();

  add(from: ReplicaId, message: OrderingMessage): void {
    const held: Held = { from, message, bytes: sizeOf(message) };
    const share = this.#share(from);
    while (
      share.messages > 0 &&
      (share.messages >= FUTURE_MESSAGES_PER_SENDER_MAX || share.bytes + held.bytes > FUTURE_BYTES_PER_SENDER_MAX)
    ) {
      const lowest = this.#lowestOf(from);
      if (message.instance <= lowest) return;
      this.#remove(lowest, (other) => other.from === from);
    }
    const list = this.#byInstance.get(message.instance);
    if (list) list.push(held);
    else this.#byInstance.set(message.instance, [held]);
    share.messages++;
    share.bytes += held.bytes;
  }

  /** Removes and returns what is held for this instance. */
  take(instance: number): readonly { readonly from: ReplicaId; readonly message: OrderingMessage }[] {
    if (this.#byInstance.size === 0) return [];
    const held = this.#byInstance.get(instance);
    if (!held) return [];
    this.#remove(instance, () => true);
    return held;
  }

  /** Drops everything for instances below this one. */
  dropBelow(instance: number): void {
    for (const other of this.#byInstance.keys()) if (other < instance) this.#remove(other, () => true);
  }

  get size(): number {
    let size = 0;
    for (const share of this.#shares.values()) size += share.messages;
    return size;
  }

  #share(from: ReplicaId): Share {
    let share = this.#shares.get(from);
    if (!share) {
      share = { messages: 0, bytes: 0 };
      this.#shares.set(from, share);
    }
    return share;
  }

  #lowestOf(from: ReplicaId): number {
    let lowest = Number.POSITIVE_INFINITY;
    for (const [instance, list] of this.#byInstance) {
      if (instance < lowest && list.some((held) => held.from === from)) lowest = instance;
    }
    return lowest;
  }

  #remove(instance: number, which: (held: Held) => boolean): void {
    const left: Held[] = [];
    for (const held of this.#byInstance.get(instance) ?? []) {
      if (!which(held)) {
        left.push(held);
        continue;
      }
      const share = this.#share(held.from);
      share.messages--;
      share.bytes -= held.bytes;
    }
    if (left.length > 0) this.#byInstance.set(instance, left);
    else this.#byInstance.delete(instance);
  }
}
