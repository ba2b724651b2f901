/**
 * The restart rules (docs/protocol.md section 4, "Restart rules"): what a journal says about where a replica stands and
 * what it must not send again. A pure function, tested on its own.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { assert, isRejection } from "../../protocol/errors.ts";
import { type Certificate, decodeMessage, type Message } from "../../protocol/messages.ts";
import type { JournaledInstance } from "./contract.ts";
import { isNewer } from "./selection.ts";

/** A place in the history: the instance, h(instance) and the agreed time of its batch. */
export interface Position {
  readonly instance: number;
  readonly digest: Digest;
  readonly timestampMs: number;
}

/** What a replica without its journal must not do: nothing up to `until` (null: not known yet), nor in a lower regency. */
export interface Forgotten {
  readonly until: number | null;
  readonly regency: number;
}

/** What the journal and the state store hold at start. */
export interface Durable {
  readonly regency: number;
  /** The highest regency of the view that was asked for. */
  readonly wanted: number;
  /** The instance below the first record of the journal. */
  readonly base: number;
  readonly forgotten: Forgotten | null;
  /** A valid certificate whose record the journal does not hold any more. */
  readonly keptCertificate: Certificate | null;
  /** How many others must say what they remember of this replica before it votes, as long as it has its journal. */
  readonly hear: number;
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
  /** This replica has asked for it before, and others may know. */
  readonly wanted: number;
  readonly newest: JournaledInstance | null;
  readonly newestAccepted: JournaledInstance | null;
  readonly lastRecord: JournaledInstance | null;
  /** The newest certificate held, of a record or without one. */
  readonly newestCertificate: Certificate | null;
  /** Every vote sent above this instance is above the journal's end as well. */
  readonly journaledUpTo: number;
  /** The view began in this process, and as far as the disk tells nothing was said in it. */
  readonly fresh: boolean;
  readonly forgotten: Forgotten | null;
  readonly hear: number;
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
 * was learned as decided, so it counts itself. In cft mode the certificate of an accepted batch has no votes, but it is there.
 */
export function decidedInstance(options: { applied: number; newest: JournaledInstance | null }): number {
  const { applied, newest } = options;
  if (!newest) return applied;
  return Math.max(applied, newest.certificate ? newest.instance - 1 : newest.instance);
}

/** The regencies that a journal knows of in this view: installed, and asked for. */
export function regenciesIn(
  view: number,
  journaled: { readonly view: number; readonly regency: number; readonly wanted: number },
): { readonly regency: number; readonly wanted: number } {
  const { regency, wanted } = journaled;
  return journaled.view === view ? { regency, wanted } : { regency: 0, wanted: 0 };
}

/**
 * The start in a view that begins after `lastDecided`, in the process that got there. As a rule nothing was said in it, unless the
 * disk is older than it looks, which the others are asked about as at every start. `returning`: the journal held the end of the
 * view before already when it was opened, so this replica may have been in this one, up to that regency, before its state was
 * lost; then it is a start like after a crash.
 */
export function startInView(at: {
  lastDecided: Position;
  newest: JournaledInstance | null;
  hear: number;
  forgotten: Forgotten | null;
  returning: { readonly regency: number; readonly wanted: number } | null;
}): Start {
  const { lastDecided, newest, hear, forgotten, returning } = at;
  return {
    lastDecided,
    regency: returning?.regency ?? 0,
    wanted: returning?.wanted ?? 0,
    newest,
    newestAccepted: null,
    lastRecord: null,
    newestCertificate: null,
    journaledUpTo: lastDecided.instance,
    fresh: returning === null,
    forgotten,
    hear,
    abstainUntil: returning ? lastDecided.instance + 1 : lastDecided.instance,
    resend: [],
    eraseCleanStop: false,
  };
}

/** Forgotten, and nobody was asked yet how far. */
const UNBOUNDED: Forgotten = { until: null, regency: 0 };

/**
 * What of this is still forgotten in the next view, when one ends with instance `end`. Where the bound that its members gave lies
 * at or below the end, nothing was ever said in a later view; else those of the next one have to be asked as well.
 */
export function forgottenAfter(end: number, forgotten: Forgotten | null): Forgotten | null {
  const bounded = forgotten === null || (forgotten.until !== null && forgotten.until <= end);
  return bounded ? null : UNBOUNDED;
}

/**
 * What is forgotten at a start in a view that began with this instance. A bound that the members of an earlier view gave is never
 * above it, and says nothing of votes in this one.
 */
export function forgottenFrom(firstInstance: number, forgotten: Forgotten | null): Forgotten | null {
  const earlier = firstInstance > 1 && forgotten?.until != null && forgotten.until <= firstInstance;
  return earlier ? UNBOUNDED : forgotten;
}

export function startOf(durable: Durable, lastDecided: Position): Start {
  const journaledUpTo = Math.max(durable.newest?.instance ?? 0, durable.base);
  const accepted = durable.newestAccepted?.certificate ?? null;
  const kept = durable.keptCertificate;
  const resend: Message[] = [];
  for (const bytes of durable.cleanStop ?? []) {
    const message = decodeMessage(bytes);
    assert(!isRejection(message), "the clean-stop record holds a malformed message");
    resend.push(message);
  }
  return {
    lastDecided,
    regency: durable.regency,
    wanted: durable.wanted,
    newest: durable.newest,
    newestAccepted: durable.newestAccepted,
    lastRecord: durable.lastRecord,
    newestCertificate: kept && isNewer(kept, accepted) ? kept : accepted,
    journaledUpTo,
    fresh: false,
    forgotten: durable.forgotten,
    hear: durable.hear,
    abstainUntil: durable.cleanStop ? journaledUpTo : journaledUpTo + 1,
    resend,
    eraseCleanStop: durable.cleanStop !== null,
  };
}
