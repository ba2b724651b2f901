/**
 * Reads everything on disk again, slowly, so that damage is found while the other replicas can still repair it
 * (docs/protocol.md section 6): the journal record by record along its chain of history digests, then every entry of the state
 * against its digest. Small pieces, each with a pause that keeps the whole under a small share of the time; nothing is held
 * open in between.
 */

import { historyDigest } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { QuorateError } from "../../protocol/errors.ts";
import type { InstanceRecord, Journal, StateStore } from "../../storage/contract.ts";
import { KEYS_END } from "./image-builder.ts";
import type { PaceClock } from "./pause.ts";

const HOUR_US = 3_600_000_000;
const RECORDS_PER_PIECE = 256;
const PAUSE_US_MIN = 10_000;

export interface ScrubPace {
  /** Bytes read at a time. */
  readonly pieceBytes: number;
  /** Share of the time, at most. */
  readonly share: number;
  /** From the start to the first pass. */
  readonly firstUs: number;
  /** From the end of a pass to the next. */
  readonly intervalUs: number;
}

export const SCRUB_PACE: ScrubPace = {
  pieceBytes: 1024 * 1024,
  share: 0.02,
  firstUs: 60_000_000,
  intervalUs: 6 * HOUR_US,
};

export interface ScrubPort {
  readonly clock: PaceClock;
  wallMs(): number;
  /** STORAGE_DAMAGED with `detail.store`; the scrub ends with it. */
  damaged(error: QuorateError): void;
  /** Any other error of reading; the scrub ends with it. */
  failed(error: unknown): void;
}

export interface ScrubProgress {
  /** The pass under way, or the last one; from 1. */
  readonly pass: number;
  /** What is being read; null between passes. */
  readonly store: "journal" | "state" | null;
  readonly lastCompletedMs: number | null;
}

/** What one piece read: where the next begins, or null at the end. */
type Next<T> = { readonly next: T | null };

export class Scrub {
  readonly #crypto: Crypto;
  readonly #cluster: Digest;
  readonly #journal: Journal;
  readonly #state: StateStore;
  readonly #port: ScrubPort;
  readonly #pace: ScrubPace;
  #pass = 0;
  #store: ScrubProgress["store"] = null;
  #lastCompletedMs: number | null = null;
  #cancelPause: (() => void) | null = null;
  #stopped = false;

  constructor(parts: {
    crypto: Crypto;
    cluster: Digest;
    journal: Journal;
    state: StateStore;
    port: ScrubPort;
    pace?: Partial<ScrubPace> | undefined;
  }) {
    this.#crypto = parts.crypto;
    this.#cluster = parts.cluster;
    this.#journal = parts.journal;
    this.#state = parts.state;
    this.#port = parts.port;
    this.#pace = { ...SCRUB_PACE, ...parts.pace };
  }

  get progress(): ScrubProgress {
    return { pass: this.#pass, store: this.#store, lastCompletedMs: this.#lastCompletedMs };
  }

  start(): void {
    this.#run().catch((error: unknown) => {
      if (this.#stopped) return;
      this.#stopped = true;
      if (error instanceof QuorateError && error.code === "STORAGE_DAMAGED") {
        this.#port.damaged(withStore(error, this.#store ?? "state"));
      } else this.#port.failed(error);
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelPause?.();
  }

  async #run(): Promise<void> {
    await this.#pause(this.#pace.firstUs);
    while (!this.#stopped) {
      this.#pass += 1;
      this.#store = "journal";
      await this.#pieces(this.#journal.base, (from) => this.#journalPiece(from));
      this.#store = "state";
      await this.#pieces("", (from) => this.#statePiece(from));
      if (this.#stopped) return;
      this.#store = null;
      this.#lastCompletedMs = this.#port.wallMs();
      await this.#pause(this.#pace.intervalUs);
    }
  }

  /** Piece after piece, each with the pause it owes. */
  async #pieces<T>(from: T, read: (from: T) => Promise<Next<T>>): Promise<void> {
    const { clock } = this.#port;
    let at: T | null = from;
    while (at !== null && !this.#stopped) {
      const sinceUs = clock.nowUs();
      at = (await read(at)).next;
      const workedUs = clock.nowUs() - sinceUs;
      await this.#pause(Math.max(PAUSE_US_MIN, workedUs / this.#pace.share - workedUs));
    }
  }

  /** Never resolves after `stop`. */
  #pause(us: number): Promise<void> {
    const { clock } = this.#port;
    return new Promise((resolve) => {
      this.#cancelPause = clock.at(clock.nowUs() + us, resolve);
    });
  }

  /** Only what the state has executed: a record above may still be replaced by another. */
  async #journalPiece(after: {
    instance: number;
    digest: Digest;
  }): Promise<Next<{ instance: number; digest: Digest }>> {
    const { base } = this.#journal;
    let at = after.instance < base.instance ? base : after;
    const to = Math.min(this.#journal.last, this.#state.applied.instance);
    if (at.instance >= to) return { next: null };
    const limits = { maxRecords: RECORDS_PER_PIECE, maxBytes: this.#pace.pieceBytes };
    const records = await this.#journal.range({ from: at.instance + 1, to, ...limits });
    // None where they go while the log is truncated, which its base shows only when they are gone. What is lost is thrown.
    for (const record of records) at = this.#checked(record, at);
    return { next: at };
  }

  #checked(record: InstanceRecord, before: { instance: number; digest: Digest }): { instance: number; digest: Digest } {
    const { instance, digest, batch, batchDigest } = record;
    if (instance !== before.instance + 1) throw damagedJournal(before.instance + 1, "an instance is missing");
    if (this.#crypto.sha256(batch) !== batchDigest) throw damagedJournal(instance, "a batch is not the one it was");
    const link = { cluster: this.#cluster, instance, previous: before.digest, batchDigest };
    if (historyDigest(this.#crypto, link) !== digest) throw damagedJournal(instance, "the history does not continue");
    return { instance, digest };
  }

  async #statePiece(from: string): Promise<Next<string>> {
    let bytes = 0;
    for await (const chunk of this.#state.chunks({ from, to: KEYS_END })) {
      for (const [key, value] of chunk) {
        bytes += key.length + value.length;
        if (bytes >= this.#pace.pieceBytes) return { next: `${key}\0` };
      }
    }
    return { next: null };
  }
}

function damagedJournal(instance: number, why: string): QuorateError {
  return new QuorateError("STORAGE_DAMAGED", `the journal is damaged at instance ${instance}: ${why}`, {
    store: "journal",
    instance,
  });
}

function withStore(error: QuorateError, store: "journal" | "state"): QuorateError {
  if (error.detail.store !== undefined) return error;
  return new QuorateError("STORAGE_DAMAGED", error.message, { ...error.detail, store }, error.cause ?? error);
}
