/**
 * Clients that write down everything they ask and everything they hear, for a linearizability check
 * (test/simulation/checkers): a few keys that all of them put, read, delete and swap at once, one operation of a client at a
 * time, unique values. An outcome nobody told stays open in the history.
 */
import { type Kv, QuorateError, UnknownOutcomeError } from "../../client/index.ts";
import { HistoryRecorder, type KvAnswer, type KvOperation } from "../simulation/checkers/history.ts";
import { checkHistory } from "../simulation/checkers/kv-model.ts";

export interface RecordedOptions {
  /** Each carries its own share of the clients. */
  readonly connections: readonly Kv<string>[];
  readonly clients: number;
  /** Few keys make conflicts. */
  readonly keys: number;
  readonly timeoutMs?: number;
  /** Pause of a client between two operations, in milliseconds: bounds the length of the history. */
  readonly pauseMs?: number;
}

const PREFIX = "recorded/";
/** After an error that came at once, a client does not fill the history with more of them. */
const ERROR_PAUSE_MS = 50;

/** What may happen to an operation while replicas fail; anything else is a finding. */
const EXPECTED: ReadonlySet<string> = new Set(["QUORUM_UNAVAILABLE", "TIMEOUT", "UNKNOWN_OUTCOME", "CANCELLED"]);

export class RecordedLoad {
  readonly #options: RecordedOptions;
  readonly #recorder = new HistoryRecorder(() => Math.round(performance.now() * 1_000));
  readonly #loops: Promise<void>[];
  readonly #errors: unknown[] = [];
  #stopping = false;

  constructor(options: RecordedOptions) {
    this.#options = options;
    const { connections, clients } = options;
    this.#loops = Array.from({ length: clients }, (_, client) =>
      this.#run(connections[client % connections.length] as Kv<string>, client).catch((error: unknown) => {
        this.#errors.push(error);
      }),
    );
  }

  /** Operations whose outcome is known, and which are executed or read something. */
  get operations(): number {
    return this.#recorder.records.filter(({ outcome }) => outcome.type === "ok").length;
  }

  /** Ends the clients, each after its operation under way; then every key is read once more. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#loops);
    const [kv] = this.#options.connections;
    for (let index = 0; kv && index < this.#options.keys; index++) await this.#perform(kv, "last", keyOf(index), GET);
  }

  /** @throws Error with the shortest impossible history, or with what a client met that it must not meet */
  verify(): void {
    if (this.#errors.length > 0) throw this.#errors[0];
    const verdict = checkHistory(this.#recorder.records);
    if (verdict.verdict === "illegal") throw new Error(verdict.text);
    if (verdict.verdict === "unknown") {
      throw new Error(
        `${this.#recorder.records.length} operations are too many to decide whether they are linearizable`,
      );
    }
  }

  async #run(kv: Kv<string>, client: number): Promise<void> {
    /** What this client last saw of each key: the revision it expects when it swaps. */
    const seen = new Map<string, number>();
    const { keys, pauseMs = 10 } = this.#options;
    for (let number = 1; !this.#stopping; number++) {
      const key = keyOf(Math.floor(Math.random() * keys));
      const op = operationOf(`${client}.${number}`, seen.get(key) ?? 0);
      const answer = await this.#perform(kv, `client ${client}`, key, op);
      if (answer !== null) seen.set(key, revisionIn(answer));
      await new Promise((resolve) => setTimeout(resolve, answer === null ? ERROR_PAUSE_MS : pauseMs));
    }
  }

  async #perform(kv: Kv<string>, process: string, key: string, op: KvOperation): Promise<KvAnswer | null> {
    const call = this.#recorder.begin(process, key, op);
    try {
      const answer = await ask(kv, key, op, this.#options.timeoutMs);
      call.ok(answer);
      return answer;
    } catch (error) {
      if (error instanceof UnknownOutcomeError) call.unknown();
      else call.failed();
      if (!(error instanceof QuorateError && EXPECTED.has(error.code))) throw error;
      return null;
    }
  }
}

const GET: KvOperation = { type: "get" };

function keyOf(index: number): string {
  return `${PREFIX}${index}`;
}

function operationOf(value: string, expect: number): KvOperation {
  const dice = Math.random();
  if (dice < 0.35) return { type: "put", value, ifRevision: null };
  if (dice < 0.65) return GET;
  return dice < 0.9 ? { type: "cas", value, expect } : { type: "delete", ifRevision: null };
}

/** The modRevision that the key has after this answer; 0 when it is absent. */
function revisionIn(answer: KvAnswer): number {
  return answer.type === "absent" || answer.type === "deleted" ? 0 : answer.modRevision;
}

async function ask(kv: Kv<string>, key: string, op: KvOperation, timeoutMs: number | undefined): Promise<KvAnswer> {
  switch (op.type) {
    case "put": {
      const { revision, createRevision, version } = await kv.put(key, op.value, { timeoutMs });
      const detail = { createRevision: Number(createRevision), version: Number(version) };
      return { type: "written", modRevision: Number(revision), ...detail };
    }
    case "cas": {
      const expect = op.expect === 0 ? "absent" : BigInt(op.expect);
      const { swapped, revision } = await kv.cas(key, { expect, value: op.value, timeoutMs });
      return { type: swapped ? "written" : "conflict", modRevision: Number(revision) };
    }
    case "delete": {
      const { deleted, revision } = await kv.delete(key, { timeoutMs });
      return deleted ? { type: "deleted", revision: Number(revision) } : { type: "absent", revision: Number(revision) };
    }
    case "get": {
      const entry = await kv.get(key, { timeoutMs });
      if (entry === null) return { type: "absent" };
      const { value, modRevision, createRevision, version } = entry;
      const detail = { createRevision: Number(createRevision), version: Number(version) };
      return { type: "found", value, modRevision: Number(modRevision), ...detail };
    }
  }
}
