/**
 * Whom an unordered read is sent to (docs/protocol.md section 3, decisions/034): at first to as many replicas as are needed,
 * another choice each time; to the others as soon as those do not agree, or let it wait for longer than reads take. Who was the
 * reason is passed over for a while. What ends a read is as ever: a quorum of equal answers.
 *
 * Invariants: 1. who is asked first is connected and not suspected; with too few of those everybody is asked. 2. a read
 * that not everybody was asked is sent to the others after at most `HEDGE_MS_MAX`, so that no f replicas hold it up for longer.
 */
import type { InFlight } from "./call.ts";
import type { Clock, Scheduled } from "./ports.ts";
import type { Replicas } from "./replicas.ts";

/** One read in so many is sent to everybody, and shows how long reads take that nobody can hold up. */
const MEASURED_EACH = 32;
/** So many times that is waited for those asked first, within bounds. */
const HEDGE_TIMES = 3;
const HEDGE_MS_MIN = 10;
const HEDGE_MS_MAX = 50;

export interface PreferredQuorumOptions {
  readonly clock: Clock;
  readonly replicas: Replicas;
  /** Equal answers that end a read. */
  readonly quorum: () => number;
  /** Those in flight, oldest first. */
  readonly reads: () => Iterable<InFlight>;
  /** Sends it to these as well. */
  readonly transmit: (entry: InFlight, to: ReadonlySet<number>) => void;
}

export class PreferredQuorum {
  readonly #options: PreferredQuorumOptions;
  /** Smoothed, of reads that everybody was asked. */
  #latencyMs = 0;
  #untilMeasured = 0;
  #timer: Scheduled | null = null;

  constructor(options: PreferredQuorumOptions) {
    this.#options = options;
  }

  /** The positions to ask first; null: everybody. */
  choose(entry: InFlight): ReadonlySet<number> | null {
    const { replicas, quorum } = this.#options;
    if (entry.everybody || entry.calls.some((call) => call.onReply !== null)) return null;
    if (this.#untilMeasured-- <= 0) {
      this.#untilMeasured = MEASURED_EACH - 1;
      return null;
    }
    const need = quorum();
    if (replicas.readyCount <= need) return null;
    const n = replicas.connections.length;
    const chosen = new Set<number>();
    for (let step = 0; step < n && chosen.size < need; step++) {
      const position = (entry.replier + step) % n;
      if (replicas.trusted(position)) chosen.add(position);
    }
    if (chosen.size < need) return null;
    entry.asked = chosen;
    this.#arm(this.#patienceMs);
    return chosen;
  }

  /** An answer came that does not end it: when no other of those asked can, the others are. */
  answered(entry: InFlight): void {
    const { asked, votes } = entry;
    const { replicas } = this.#options;
    if (asked === null) return;
    for (const position of asked) if (!votes.has(position) && replicas.connections[position]?.ready) return;
    this.#widen(entry);
  }

  /** A quorum agreed after so long. */
  agreed({ asked, widened, votes }: InFlight, tookMs: number): void {
    const { replicas, quorum } = this.#options;
    if (!widened) {
      if (asked !== null) return;
      this.#latencyMs = this.#latencyMs === 0 ? tookMs : this.#latencyMs * 0.875 + tookMs * 0.125;
      return;
    }
    for (let position = 0; position < replicas.connections.length; position++) {
      const vote = votes.at(position);
      if (vote && votes.count(vote.status, vote.resultDigest) < quorum()) replicas.suspect(position);
    }
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  get #patienceMs(): number {
    return Math.min(HEDGE_MS_MAX, Math.max(HEDGE_MS_MIN, HEDGE_TIMES * this.#latencyMs));
  }

  #widen(entry: InFlight): void {
    const { asked } = entry;
    if (asked === null) return;
    entry.asked = null;
    entry.widened = true;
    const others = new Set(this.#options.replicas.connections.keys());
    for (const position of asked) others.delete(position);
    this.#options.transmit(entry, others);
  }

  #arm(delayMs: number): void {
    this.#timer ??= this.#options.clock.after(delayMs, () => {
      this.#timer = null;
      this.#hedge();
    });
  }

  /** Who let a read wait for too long is passed over; the others are asked. */
  #hedge(): void {
    const { clock, replicas, reads } = this.#options;
    const now = clock.monotonicMs();
    for (const entry of reads()) {
      if (entry.asked === null) continue;
      const leftMs = entry.sentAt + this.#patienceMs - now;
      if (leftMs > 0) {
        this.#arm(leftMs);
        return;
      }
      for (const position of entry.asked) if (!entry.votes.has(position)) replicas.suspect(position);
      this.#widen(entry);
    }
  }
}
