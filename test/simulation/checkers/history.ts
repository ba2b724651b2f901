/**
 * What clients of the key-value store did and saw, with times of one monotonic clock: recorded in a simulation or from real
 * processes, saved as lines of JSON, checked by `kv-model.ts`. Keys and values are opaque text.
 */
import { z } from "zod";
import { HistoryError } from "./linearizability.ts";

const revision = z.int().nonnegative();
/** `ifRevision` as in protocol/commands.ts: null for no condition, 0 for "must be absent". */
const condition = revision.nullable();
const detail = { version: revision.optional(), createRevision: revision.optional() };

const operationSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("put"), value: z.string(), ifRevision: condition }),
  z.strictObject({ type: z.literal("cas"), value: z.string(), expect: revision }),
  z.strictObject({ type: z.literal("delete"), ifRevision: condition }),
  z.strictObject({ type: z.literal("get") }),
]);
export type KvOperation = z.infer<typeof operationSchema>;

/** What the store answered; the results of protocol/commands.ts, as far as the caller saw them. */
const answerSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("written"), modRevision: revision, ...detail }),
  z.strictObject({ type: z.literal("found"), value: z.string(), modRevision: revision, ...detail }),
  z.strictObject({ type: z.literal("absent"), revision: revision.optional() }),
  z.strictObject({ type: z.literal("deleted"), revision }),
  z.strictObject({ type: z.literal("conflict"), modRevision: revision }),
]);
export type KvAnswer = z.infer<typeof answerSchema>;

const recordSchema = z.strictObject({
  process: z.string(),
  key: z.string(),
  op: operationSchema,
  callUs: z.number(),
  returnUs: z.number().nullable(),
  outcome: z.discriminatedUnion("type", [
    z.strictObject({ type: z.literal("ok"), answer: answerSchema }),
    /** Certainly never executed. A failed condition is an answer, no failure. */
    z.strictObject({ type: z.literal("failed") }),
    z.strictObject({ type: z.literal("unknown") }),
  ]),
});
export type HistoryRecord = z.infer<typeof recordSchema>;

/** Ends one call, once. */
export interface OpenCall {
  ok(answer: KvAnswer): void;
  failed(): void;
  unknown(): void;
}

interface Call {
  readonly process: string;
  readonly key: string;
  readonly op: KvOperation;
  readonly callUs: number;
}

/** Records calls from before they are sent until after their answers came. */
export class HistoryRecorder {
  readonly #nowUs: () => number;
  readonly #records: HistoryRecord[] = [];
  readonly #open = new Map<string, Call>();
  /** How often a process was retired, as its call stayed open for good. */
  readonly #retired = new Map<string, number>();
  #lastUs = Number.NEGATIVE_INFINITY;

  /** `nowUs`: one monotonic clock for all processes of the history. */
  constructor(nowUs: () => number) {
    this.#nowUs = nowUs;
  }

  /** Ended calls in the order of their ends, then the calls still open, as unknown. */
  get records(): readonly HistoryRecord[] {
    const open = [...this.#open.values()].map((call): HistoryRecord => {
      return { ...call, returnUs: null, outcome: { type: "unknown" } };
    });
    return [...this.#records, ...open];
  }

  /**
   * A call leaves now. A process has one call open at a time; after an unknown outcome it goes on under another name.
   * @throws HistoryError
   */
  begin(process: string, key: string, op: KvOperation): OpenCall {
    const retired = this.#retired.get(process) ?? 0;
    const name = retired === 0 ? process : `${process}/${retired}`;
    if (this.#open.has(name)) throw new HistoryError(`process ${name} has a call open already`);
    const call: Call = { process: name, key, op, callUs: this.#now() };
    this.#open.set(name, call);
    const end = (returnUs: number | null, outcome: HistoryRecord["outcome"]): void => {
      if (this.#open.get(name) !== call) throw new HistoryError(`a call of process ${name} ended twice`);
      this.#open.delete(name);
      this.#records.push({ ...call, returnUs, outcome });
    };
    return {
      ok: (answer) => end(this.#now(), { type: "ok", answer }),
      failed: () => end(this.#now(), { type: "failed" }),
      unknown: () => {
        end(null, { type: "unknown" });
        this.#retired.set(process, retired + 1);
      },
    };
  }

  #now(): number {
    const nowUs = this.#nowUs();
    if (!(nowUs >= this.#lastUs)) throw new HistoryError(`the clock went from ${this.#lastUs} to ${nowUs}`);
    this.#lastUs = nowUs;
    return nowUs;
  }
}

/** One record a line. */
export function encodeHistory(records: readonly HistoryRecord[]): string {
  return records.map((record) => `${JSON.stringify(record)}\n`).join("");
}

/** @throws HistoryError naming the first line that is no record, and for a history without any. */
export function decodeHistory(text: string): HistoryRecord[] {
  const records: HistoryRecord[] = [];
  for (const [at, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    records.push(recordOf(line, at + 1));
  }
  if (records.length === 0) throw new HistoryError("the history holds no record: there is nothing to check");
  return records;
}

function recordOf(line: string, number: number): HistoryRecord {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new HistoryError(`line ${number} is no JSON`);
  }
  const parsed = recordSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new HistoryError(`line ${number} is no record of a history: ${z.prettifyError(parsed.error)}`);
}
