/**
 * A load of single puts on the wire. Open: each is due at its time, whatever became of those before, and its latency counts from
 * then, so that a stall is seen by everything that was due during it (no coordinated omission). Closed: so many are under way;
 * one that W replicas call BUSY is tried again after a pause, as the SDK does. A put is answered when Q replicas say OK.
 */
import type { Cluster } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { newIdentity } from "../../protocol/identity.ts";
import { MadeFrames } from "./made-frames.ts";
import { BUSY, OK, type WireEvents, WireSession } from "./wire-session.ts";

const TICK_MS = 2;
/** A generator that cannot keep up issues what is due later, at this much work per tick; latency counts from when it was due. */
const ISSUING_MS_MAX = 20;
/** Sequences of one session that may be unfinished; older ones are given up. */
const WINDOW = 1_000;
/** What is not answered by then is not counted as answered: the SDK's callers wait so long. */
const ANSWER_MS_MAX = 5_000;
const RETRY_MS = { min: 50, max: 5_000 };
const RESEND_MS = 500;
/** A generator that falls behind in writing says so instead of queueing without bound. */
const UNSENT_BYTES_MAX = 32 * 1024 * 1024;

export interface WireLoadOptions {
  readonly cluster: Cluster;
  readonly identities: number;
  readonly sessionsEach: number;
  readonly keys: number;
  readonly valueBytes: number;
  /** So many puts are encoded and authenticated when the load is opened: they cost no part of the machine during it. */
  readonly made?: number;
  /** `together`: so many, due one after the other, are of one session; those of one tick leave in one write. */
  readonly load:
    | { readonly type: "open"; readonly perSecond: number; readonly together: number }
    | { readonly type: "closed"; readonly loops: number };
}

export interface WireResult {
  readonly seconds: number;
  readonly duePerSecond: number;
  /** Answered within the measured time, per second. */
  readonly answeredPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** Of the puts due in the measured time: turned away by W replicas, and neither answered nor turned away. */
  readonly busy: number;
  readonly unanswered: number;
  /** Share of one core that the generator itself took. */
  readonly generatorCpu: number;
}

interface UnderWay {
  readonly dueMs: number;
  readonly frame: Buffer | null;
  /** Which replicas said so, a bit for each. */
  oks: number;
  busys: number;
  resendMs: number;
}

interface Lane {
  readonly session: WireSession;
  readonly underWay: Map<number, UnderWay>;
  readonly made: MadeFrames;
  /** Sequence that was sent last. */
  newest: number;
}

export class WireLoad {
  readonly #options: WireLoadOptions;
  readonly #lanes: Lane[] = [];
  readonly #laneOf = new Map<WireSession, Lane>();
  readonly #value: Buffer;
  readonly #answers: { readonly dueMs: number; readonly latencyMs: number }[] = [];
  /** When puts were due that ended without an answer. */
  readonly #busy: number[] = [];
  readonly #unanswered: number[] = [];
  #timer: NodeJS.Timeout | null = null;
  #beganMs = 0;
  #issued = 0;
  #pauses = 0;

  private constructor(options: WireLoadOptions) {
    this.#options = options;
    this.#value = Buffer.alloc(options.valueBytes, "x");
  }

  static async open(options: WireLoadOptions): Promise<WireLoad> {
    const load = new WireLoad(options);
    const { cluster, identities, sessionsEach } = options;
    const events = { onReply: load.#onReply };
    let number = Date.now() * 1_000;
    for (let client = 0; client < identities; client++) {
      const identity = newIdentity(nodeCrypto);
      for (let index = 0; index < sessionsEach; index++) {
        const session = await WireSession.open({ cluster, identity, session: ++number, events });
        const lane: Lane = { session, underWay: new Map(), made: new MadeFrames(), newest: 0 };
        load.#lanes.push(lane);
        load.#laneOf.set(session, lane);
      }
    }
    load.#make(options.made ?? 0);
    return load;
  }

  #make(count: number): void {
    const each = Math.ceil(count / this.#lanes.length);
    for (const { session, made } of this.#lanes) {
      for (let sequence = 1; sequence <= each; sequence++) {
        // What will be finished by then is not known yet: what falls out of the window.
        made.add(this.#put(session, { sequence, ackedBelow: Math.max(1, sequence + 1 - WINDOW) }));
      }
    }
  }

  start(): void {
    this.#beganMs = performance.now();
    this.#timer = setInterval(this.#tick, TICK_MS);
    const { load } = this.#options;
    if (load.type === "closed") for (let loop = 0; loop < load.loops; loop++) this.#issue(this.#beganMs);
    this.#flush();
  }

  /** Runs for so long, then waits for what is under way. */
  async measure(warmupMs: number, measureMs: number): Promise<WireResult> {
    this.start();
    await pause(warmupMs);
    const fromMs = performance.now();
    const cpu = process.cpuUsage();
    await pause(measureMs);
    const toMs = performance.now();
    const { user, system } = process.cpuUsage(cpu);
    this.stop();
    await pause(Math.min(ANSWER_MS_MAX, measureMs));
    this.close();
    return this.#result({ fromMs, toMs, cpuUs: user + system });
  }

  /** Issues nothing more. */
  stop(): void {
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
  }

  close(): void {
    this.stop();
    for (const { session, underWay } of this.#lanes) {
      for (const { dueMs, busys } of underWay.values()) this.#giveUp(dueMs, busys);
      session.close();
    }
  }

  #result({ fromMs, toMs, cpuUs }: { fromMs: number; toMs: number; cpuUs: number }): WireResult {
    const within = (ms: number): boolean => ms >= fromMs && ms < toMs;
    const seconds = (toMs - fromMs) / 1_000;
    const due = this.#answers.filter(({ dueMs }) => within(dueMs));
    const sorted = due.map(({ latencyMs }) => latencyMs).sort((a, b) => a - b);
    const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
    const answered = this.#answers.filter(({ dueMs, latencyMs }) => within(dueMs + latencyMs)).length;
    const busy = this.#busy.filter(within).length;
    const unanswered = this.#unanswered.filter(within).length;
    return {
      seconds,
      duePerSecond: (due.length + busy + unanswered) / seconds,
      answeredPerSecond: answered / seconds,
      p50Ms: at(0.5),
      p99Ms: at(0.99),
      maxMs: sorted.at(-1) ?? 0,
      busy,
      unanswered,
      generatorCpu: cpuUs / 1_000_000 / seconds,
    };
  }

  readonly #tick = (): void => {
    const { load } = this.#options;
    const nowMs = performance.now();
    if (load.type === "open") {
      const due = ((nowMs - this.#beganMs) * load.perSecond) / 1_000;
      const untilMs = nowMs + ISSUING_MS_MAX;
      while (this.#issued < due && performance.now() < untilMs)
        this.#issue(this.#beganMs + (this.#issued * 1_000) / load.perSecond);
    } else this.#resend(nowMs);
    this.#flush();
  };

  #issue(dueMs: number): void {
    const { load } = this.#options;
    const together = load.type === "open" ? load.together : 1;
    const lane = this.#lanes[Math.floor(this.#issued++ / together) % this.#lanes.length] as Lane;
    if (lane.session.cutOff || lane.session.unsentBytes > UNSENT_BYTES_MAX) {
      this.#unanswered.push(dueMs);
      return;
    }
    const ackedBelow = this.#lowest(lane);
    const sequence = ++lane.newest;
    const frame = lane.made.take() ?? this.#put(lane.session, { sequence, ackedBelow });
    const kept = load.type === "closed" ? frame : null;
    lane.underWay.set(sequence, { dueMs, frame: kept, oks: 0, busys: 0, resendMs: performance.now() + RESEND_MS });
    lane.session.send(frame);
  }

  #put(session: WireSession, at: { readonly sequence: number; readonly ackedBelow: number }): Buffer {
    const key = Buffer.from(`load/${Math.floor(Math.random() * this.#options.keys)}`);
    return session.put({ type: "put", key, value: this.#value, ifRevision: null }, at);
  }

  /** The lowest sequence that is not given up; what fell out of the window is. */
  #lowest({ underWay, newest }: Lane): number {
    for (const [sequence, { dueMs, busys }] of underWay) {
      if (sequence > newest + 1 - WINDOW) return sequence;
      underWay.delete(sequence);
      this.#giveUp(dueMs, busys);
    }
    return newest + 1;
  }

  #giveUp(dueMs: number, busys: number): void {
    const turnedAway = votes(busys) >= this.#options.cluster.view.weakQuorum;
    (turnedAway ? this.#busy : this.#unanswered).push(dueMs);
  }

  #flush(): void {
    for (const { session } of this.#lanes) session.flush();
  }

  readonly #onReply: WireEvents["onReply"] = (session, { position, sequence, status }) => {
    const lane = this.#laneOf.get(session);
    const put = lane?.underWay.get(sequence);
    if (!lane || !put) return;
    const { view } = this.#options.cluster;
    if (status === OK) {
      put.oks |= 1 << position;
      if (votes(put.oks) < view.quorum) return;
      lane.underWay.delete(sequence);
      this.#pauses = 0;
      this.#answers.push({ dueMs: put.dueMs, latencyMs: performance.now() - put.dueMs });
      if (this.#options.load.type === "closed" && this.#timer) this.#issue(performance.now());
    } else if (status === BUSY) {
      put.busys |= 1 << position;
      if (votes(put.busys) !== view.weakQuorum || !put.frame) return;
      // Full jitter, as the SDK's.
      const ceiling = Math.min(RETRY_MS.max, RETRY_MS.min * 2 ** Math.min(this.#pauses++, 16));
      put.resendMs = performance.now() + Math.random() * ceiling;
    }
  };

  #resend(nowMs: number): void {
    for (const { session, underWay } of this.#lanes) {
      for (const put of underWay.values()) {
        if (!put.frame || put.resendMs > nowMs) continue;
        put.resendMs = nowMs + RESEND_MS;
        put.busys = 0;
        session.send(put.frame);
      }
    }
  }
}

function votes(bits: number): number {
  let count = 0;
  for (let left = bits; left > 0; left &= left - 1) count++;
  return count;
}

function pause(durationMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, durationMs));
}
