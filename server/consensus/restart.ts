/**
 * The restart rules (docs/protocol.md section 4, "Restart rules"): what a journal says about where a replica stands and
 * what it must not send again. A pure function, tested on its own.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { assert, isRejection } from "../../protocol/errors.ts";
import { decodeMessage, type Message } from "../../protocol/messages.ts";
import type { JournaledInstance } from "./contract.ts";

/** A place in the history: the instance, h(instance) and the agreed time of its batch. */
export interface Position {
  readonly instance: number;
  readonly digest: Digest;
  readonly timestampMs: number;
}

/** What the journal and the state store hold at start. */
export interface Durable {
  readonly regency: number;
  readonly newest: JournaledInstance | null;
  /** The newest record whose certificate is valid: what this replica has accepted. */
  readonly newestAccepted: JournaledInstance | null;
  /** The record of the last decided instance, if the journal holds it. */
  readonly lastRecord: JournaledInstance | null;
  /** Messages of a clean stop, or null after anything else. Founding leaves an empty list. */
  readonly cleanStop: readonly Uint8Array[] | null;
}

export interface Start {
  readonly lastDecided: Position;
  readonly regency: number;
  readonly newest: JournaledInstance | null;
  readonly newestAccepted: JournaledInstance | null;
  readonly lastRecord: JournaledInstance | null;
  /**
   * No new PROPOSE, SYNC or WRITE in `regency` up to this instance. With i0 the newest journaled instance: i0 + 1 after
   * anything but a clean stop (we may have voted there and forgotten); i0 after a clean stop, which remembers what was
   * sent for i0 + 1 but not our votes that the accept record of i0 made unnecessary.
   */
  readonly abstainUntil: number;
  /** Own PROPOSE and WRITE messages of a clean stop, to be sent again exactly. */
  readonly resend: readonly Message[];
  /** The clean-stop record must be erased, synced, before any new vote. */
  readonly eraseCleanStop: boolean;
}

/**
 * Last decided = max(applied, newest journaled - 1): nobody accepts i+1 before deciding i. A record without certificate
 * was learned as decided, so it counts itself.
 */
export function decidedInstance(options: { applied: number; newest: JournaledInstance | null }): number {
  const { applied, newest } = options;
  if (!newest) return applied;
  return Math.max(applied, newest.certificate ? newest.instance - 1 : newest.instance);
}

export function startOf(durable: Durable, lastDecided: Position): Start {
  const newestInstance = durable.newest?.instance ?? 0;
  const resend: Message[] = [];
  for (const bytes of durable.cleanStop ?? []) {
    const message = decodeMessage(bytes);
    assert(!isRejection(message), "the clean-stop record holds a malformed message");
    resend.push(message);
  }
  return {
    lastDecided,
    regency: durable.regency,
    newest: durable.newest,
    newestAccepted: durable.newestAccepted,
    lastRecord: durable.lastRecord,
    abstainUntil: durable.cleanStop ? newestInstance : newestInstance + 1,
    resend,
    eraseCleanStop: durable.cleanStop !== null,
  };
}
