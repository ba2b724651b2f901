/**
 * A closed loop with a pace: a client has one operation under way, and begins the next one at its next due moment after the answer,
 * together with all clients that are due in the same tick, as operations of one program are. Moments that pass while it waits are
 * gone, so that no burst follows an outage. A quarter of the operations put a key that is never put again, the others put (two of
 * three) and read a few keys that all clients share. Guarantees: every operation is in the recorded history; a write counts as
 * acknowledged only when it was answered.
 */
import { type Kv, QuorateError, UnknownOutcomeError } from "../../client/index.ts";
import { HistoryRecorder, type KvAnswer, type KvOperation } from "../simulation/checkers/history.ts";
import { checkHistory } from "../simulation/checkers/kv-model.ts";

/** So many that each has a history which is short enough to be checked in full. */
const SHARED_KEYS = 256;
const KEPT_SHARE = 0.25;
const SHARED_PUT_SHARE = 0.5;
const TICK_MS = 10;
/** After an error a client waits, so that it does not fill the history with errors. */
const ERROR_PAUSE_MS = 50;

export interface TimelineLoadOptions {
  /** The connection of each client; several may share one. */
  readonly clients: readonly Kv<string>[];
  /** Of all clients together; infinite: each begins the next operation when the last is answered. */
  readonly perSecond: number;
  readonly valueBytes: number;
  /** Prefix of all keys. */
  readonly name: string;
}

export interface Answer {
  /** Since the load began. */
  readonly atMs: number;
  readonly latencyMs: number;
}

export class TimelineLoad {
  /** In the order in which they came. */
  readonly answers: Answer[] = [];
  readonly errors = new Map<string, number>();
  readonly #options: TimelineLoadOptions;
  readonly #beganMs = performance.now();
  readonly #recorder = new HistoryRecorder(() => Math.round(performance.now() * 1_000));
  /** Key and value of the acknowledged writes of keys that are put once. */
  readonly #kept = new Map<string, string>();
  readonly #loops: Promise<void>[];
  readonly #ticker = setInterval(() => this.#tick(), TICK_MS);
  #waiting: { readonly dueMs: number; readonly begin: () => void }[] = [];
  #stopping = false;

  constructor(options: TimelineLoadOptions) {
    this.#options = options;
    this.#loops = options.clients.map((kv, client) => this.#run(kv, client));
  }

  /** Since the load began. */
  get nowMs(): number {
    return performance.now() - this.#beganMs;
  }

  get acknowledged(): number {
    return this.#kept.size;
  }

  /** Ends the clients, each after its operation under way. @throws what a client met that it must not meet */
  async stop(): Promise<void> {
    this.#stopping = true;
    try {
      await Promise.all(this.#loops);
    } finally {
      clearInterval(this.#ticker);
    }
  }

  /** The acknowledged writes of keys that are put once which are gone or changed. Call after `stop`. */
  async lost(): Promise<string[]> {
    const found = new Map<string, string>();
    for await (const { key, value } of this.#first.range({ prefix: this.#keptPrefix })) found.set(key, value);
    return [...this.#kept].filter(([key, value]) => found.get(key) !== value).map(([key]) => key);
  }

  /** Reads every shared key once more and checks all that was recorded; null when it is linearizable. Call after `stop`. */
  async violation(): Promise<string | null> {
    for (let index = 0; index < SHARED_KEYS; index++) {
      await this.#perform(this.#first, { client: "last", key: this.#sharedKey(index), op: GET });
    }
    const verdict = checkHistory(this.#recorder.records);
    if (verdict.verdict === "ok") return null;
    return verdict.verdict === "illegal" ? verdict.text : `${verdict.undecided} keys stayed undecided`;
  }

  /** How many operations the history has. */
  get recorded(): number {
    return this.#recorder.records.length;
  }

  get #first(): Kv<string> {
    return this.#options.clients[0] as Kv<string>;
  }

  get #keptPrefix(): string {
    return `${this.#options.name}/kept/`;
  }

  #sharedKey(index: number): string {
    return `${this.#options.name}/shared/${index}`;
  }

  async #run(kv: Kv<string>, client: number): Promise<void> {
    const { clients, perSecond, valueBytes } = this.#options;
    const periodMs = (clients.length * 1_000) / perSecond;
    let dueMs = (client / clients.length) * periodMs;
    for (let number = 0; !this.#stopping; number++) {
      await this.#due(dueMs);
      const value = `${client}.${number}`.padEnd(valueBytes, " x");
      const { key, op } = this.#chosen(`${client}/${number}`, value);
      const answer = await this.#perform(kv, { client: `client ${client}`, key, op });
      if (answer === null) await new Promise((resolve) => setTimeout(resolve, ERROR_PAUSE_MS));
      else if (key.startsWith(this.#keptPrefix)) this.#kept.set(key, value);
      dueMs = nextDueMs(dueMs, { periodMs, nowMs: this.nowMs });
    }
  }

  async #due(dueMs: number): Promise<void> {
    if (dueMs > this.nowMs) await new Promise<void>((begin) => this.#waiting.push({ dueMs, begin }));
  }

  #tick(): void {
    const { nowMs } = this;
    const due = this.#waiting.filter(({ dueMs }) => dueMs <= nowMs);
    this.#waiting = this.#waiting.filter(({ dueMs }) => dueMs > nowMs);
    for (const { begin } of due) begin();
  }

  #chosen(number: string, value: string): { key: string; op: KvOperation } {
    const dice = Math.random();
    const put: KvOperation = { type: "put", value, ifRevision: null };
    if (dice < KEPT_SHARE) return { key: `${this.#keptPrefix}${number}`, op: put };
    const key = this.#sharedKey(Math.floor(Math.random() * SHARED_KEYS));
    return { key, op: dice < KEPT_SHARE + SHARED_PUT_SHARE ? put : GET };
  }

  async #perform(kv: Kv<string>, ask: { client: string; key: string; op: KvOperation }): Promise<KvAnswer | null> {
    const { client, key, op } = ask;
    const beganMs = this.nowMs;
    const call = this.#recorder.begin(client, key, op);
    try {
      const answer = op.type === "put" ? await put(kv, key, op.value) : await get(kv, key);
      call.ok(answer);
      const atMs = this.nowMs;
      this.answers.push({ atMs, latencyMs: atMs - beganMs });
      return answer;
    } catch (error) {
      if (!(error instanceof QuorateError)) throw error;
      if (error instanceof UnknownOutcomeError) call.unknown();
      else call.failed();
      this.errors.set(error.code, (this.errors.get(error.code) ?? 0) + 1);
      return null;
    }
  }
}

const GET: KvOperation = { type: "get" };

/** The first due moment that has not passed yet; now for a client without a pace. */
export function nextDueMs(dueMs: number, { periodMs, nowMs }: { periodMs: number; nowMs: number }): number {
  if (periodMs === 0) return nowMs;
  return dueMs + periodMs * Math.max(1, Math.ceil((nowMs - dueMs) / periodMs));
}

async function put(kv: Kv<string>, key: string, value: string): Promise<KvAnswer> {
  const { revision, createRevision, version } = await kv.put(key, value);
  const detail = { createRevision: Number(createRevision), version: Number(version) };
  return { type: "written", modRevision: Number(revision), ...detail };
}

async function get(kv: Kv<string>, key: string): Promise<KvAnswer> {
  const entry = await kv.get(key);
  if (entry === null) return { type: "absent" };
  const { value, modRevision, createRevision, version } = entry;
  const detail = { createRevision: Number(createRevision), version: Number(version) };
  return { type: "found", value, modRevision: Number(modRevision), ...detail };
}
