/**
 * Who is cut off for flooding (docs/protocol.md section 8, "Floods"): a client that goes on sending many times its share
 * while it is turned away. To turn away a frame costs little, and many frames a second cost all others what they need; a carrier
 * cannot stop reading from one connection. Decided from what came in and what was turned away, window by window.
 *
 * Invariants: 1. nobody is cut off who is the only client, who brings no more than half of the others do, or who was turned away for
 * less than `STRIKES` windows in a row. 2. who pauses when told BUSY is never cut off, however many commands it has to send. 3. what is
 * kept is bounded by the clients that sent something in this window, and by `OFFENDERS_MAX`.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { REQUEST_COST } from "../../protocol/limits.ts";
import { requestCost } from "../consensus/admission.ts";
import { lowerMedian } from "../consensus/median.ts";

const WINDOW_MS = 250;
/** Windows in a row in which a client was a flood before it is cut off. */
const STRIKES = 4;
/** A flood brings so many times its share of what was served, and of what half of all clients bring. */
const SHARES = 8;
/** And so much is turned away of it in a window: less disturbs nobody. */
const AWAY_COST_MIN = 500 * REQUEST_COST;
/** Cut off for so long at first, twice as long each time, until it has behaved for `FORGIVEN_MS`. */
const BARRED_MS_MIN = 10_000;
const BARRED_MS_MAX = 60_000;
const FORGIVEN_MS = 120_000;
const OFFENDERS_MAX = 1_024;

interface Traffic {
  came: number;
  away: number;
}

interface Offence {
  readonly untilMs: number;
  readonly barredMs: number;
}

export class FloodGuard {
  readonly #cutOff: (client: Digest) => void;
  #traffic = new Map<Digest, Traffic>();
  /** Windows in a row in which these clients were floods. */
  #strikes = new Map<Digest, number>();
  readonly #offences = new Map<Digest, Offence>();
  #windowMs = Number.NEGATIVE_INFINITY;

  /** `cutOff` closes every connection of a client. */
  constructor(cutOff: (client: Digest) => void) {
    this.#cutOff = cutOff;
  }

  /** A frame of so many bytes came. */
  came(client: Digest, bytes: number, nowMs: number): void {
    if (nowMs >= this.#windowMs + WINDOW_MS) this.#judge(nowMs);
    this.#of(client).came += requestCost(bytes, 0);
  }

  /** It was turned away, whether told so or not: there was no room for it. */
  turnedAway(client: Digest, bytes: number): void {
    this.#of(client).away += requestCost(bytes, 0);
  }

  /** Must it stay away for now? */
  barred(client: Digest, nowMs: number): boolean {
    return nowMs < (this.#offences.get(client)?.untilMs ?? Number.NEGATIVE_INFINITY);
  }

  #of(client: Digest): Traffic {
    let traffic = this.#traffic.get(client);
    if (!traffic) {
      traffic = { came: 0, away: 0 };
      this.#traffic.set(client, traffic);
    }
    return traffic;
  }

  /** The window is over: what it shows counts if the one before was the last one, or its strikes are forgotten. */
  #judge(nowMs: number): void {
    const inTurn = nowMs < this.#windowMs + 2 * WINDOW_MS;
    const traffic = this.#traffic;
    const strikes = inTurn ? this.#strikes : new Map<Digest, number>();
    this.#traffic = new Map();
    this.#strikes = new Map();
    this.#windowMs = nowMs;
    let served = 0;
    for (const { came, away } of traffic.values()) served += came - away;
    // Where all want more than there is, or this replica serves nobody for a moment, nobody is a flood.
    const typical = lowerMedian([...traffic.values()].map(({ came }) => came)) ?? 0;
    const most = SHARES * Math.max(served / traffic.size, typical);
    for (const [client, { came, away }] of traffic) {
      if (came <= most || away < AWAY_COST_MIN) continue;
      const count = (strikes.get(client) ?? 0) + 1;
      if (count < STRIKES) this.#strikes.set(client, count);
      else this.#bar(client, nowMs);
    }
  }

  #bar(client: Digest, nowMs: number): void {
    const before = this.#offences.get(client);
    const again = before && nowMs < before.untilMs + FORGIVEN_MS;
    const barredMs = again ? Math.min(BARRED_MS_MAX, 2 * before.barredMs) : BARRED_MS_MIN;
    this.#offences.delete(client);
    this.#offences.set(client, { untilMs: nowMs + barredMs, barredMs });
    const [oldest] = this.#offences.keys();
    if (this.#offences.size > OFFENDERS_MAX && oldest !== undefined) this.#offences.delete(oldest);
    this.#cutOff(client);
  }
}
