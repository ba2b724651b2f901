/** Legal histories of a simulated linearizable store under random delays, and illegal ones made from them by one change. */
import type { HistoryRecord, KvAnswer, KvOperation } from "../../simulation/checkers/history.ts";
import type { Random } from "../../simulation/random.ts";

interface Entry {
  readonly value: string;
  readonly modRevision: number;
  readonly createRevision: number;
  readonly version: number;
}

/** The store as docs/protocol.md and protocol/commands.ts describe it, in thirty lines. */
class PlainStore {
  readonly #entries = new Map<string, Entry>();
  #revision = 0;

  apply(key: string, op: KvOperation): KvAnswer {
    const entry = this.#entries.get(key);
    const condition = op.type === "cas" ? op.expect : op.type === "get" ? null : op.ifRevision;
    const present = entry?.modRevision ?? 0;
    if (condition !== null && condition !== present) return { type: "conflict", modRevision: present };
    if (op.type === "get") {
      return entry ? { type: "found", ...entry } : { type: "absent", revision: this.#revision };
    }
    if (op.type === "delete") {
      if (!entry) return { type: "absent", revision: this.#revision };
      this.#entries.delete(key);
      this.#revision += 1;
      return { type: "deleted", revision: this.#revision };
    }
    this.#revision += 1;
    const modRevision = this.#revision;
    const createRevision = entry?.createRevision ?? modRevision;
    const version = (entry?.version ?? 0) + 1;
    this.#entries.set(key, { value: op.value, modRevision, createRevision, version });
    return { type: "written", modRevision, createRevision, version };
  }

  modRevision(key: string): number {
    return this.#entries.get(key)?.modRevision ?? 0;
  }
}

export interface GeneratorOptions {
  readonly processes?: number;
  readonly keys?: number;
  readonly operations?: number;
  /** Every outcome is known. */
  readonly lossless?: boolean;
}

/** A record and when it took effect, or null when it never did. */
export interface GeneratedRecord {
  readonly record: HistoryRecord;
  readonly effectUs: number | null;
}

/** Each process calls again and again; every call takes effect somewhere between its ends; some outcomes get lost. */
export function generateHistory(random: Random, options: GeneratorOptions = {}): GeneratedRecord[] {
  const { processes = 4, keys = 3, operations = 60, lossless = false } = options;
  const store = new PlainStore();
  const generated: GeneratedRecord[] = [];
  interface Turn {
    readonly process: string;
    readonly callUs: number;
    readonly effectUs: number;
    readonly returnUs: number;
  }
  const turn = (process: string, fromUs: number): Turn => {
    const callUs = fromUs + random.below(20);
    const effectUs = callUs + random.below(40);
    return { process, callUs, effectUs, returnUs: effectUs + random.below(40) };
  };
  const turns = Array.from({ length: processes }, (_, at) => turn(`c${at}`, 0));
  for (let count = 0; count < operations; count++) {
    turns.sort((a, b) => a.effectUs - b.effectUs);
    const { process, callUs, effectUs, returnUs } = turns.shift() as Turn;
    const key = `k${random.below(keys)}`;
    const op = randomOperation(random, { value: `v${count}`, modRevision: store.modRevision(key) });
    const call = { process, key, op, callUs };
    const fate = random.next();
    if (fate < 0.05 && !lossless) {
      // Lost: it took effect late, or never.
      const applied = random.chance(0.5);
      if (applied) store.apply(key, op);
      const record: HistoryRecord = { ...call, returnUs: null, outcome: { type: "unknown" } };
      generated.push({ record, effectUs: applied ? effectUs : null });
      turns.push(turn(`${process}'`, returnUs));
    } else if (fate < 0.1) {
      generated.push({ record: { ...call, returnUs, outcome: { type: "failed" } }, effectUs: null });
      turns.push(turn(process, returnUs + 1));
    } else {
      const answer = store.apply(key, op);
      generated.push({ record: { ...call, returnUs, outcome: { type: "ok", answer } }, effectUs });
      turns.push(turn(process, returnUs + 1));
    }
  }
  return generated;
}

function randomOperation(random: Random, now: { value: string; modRevision: number }): KvOperation {
  const { value, modRevision } = now;
  const guess = random.chance(0.6) ? modRevision : random.below(modRevision + 2);
  const roll = random.next();
  if (roll < 0.4) return { type: "get" };
  if (roll < 0.65) return { type: "put", value, ifRevision: random.chance(0.3) ? guess : null };
  if (roll < 0.85) return { type: "cas", value, expect: guess };
  return { type: "delete", ifRevision: random.chance(0.3) ? guess : null };
}

type AnswerOf<T extends KvAnswer["type"]> = Extract<KvAnswer, { type: T }>;

function answered(generated: GeneratedRecord, type: KvAnswer["type"]): boolean {
  const { outcome } = generated.record;
  return outcome.type === "ok" && outcome.answer.type === type;
}

function answering(record: HistoryRecord, answer: KvAnswer): HistoryRecord {
  return { ...record, outcome: { type: "ok", answer } };
}

/** Mutations of one key that surely happened, in the order of their effects. */
function writesOf(history: readonly GeneratedRecord[], key: string): GeneratedRecord[] {
  const writes = history.filter(
    (one) => one.record.key === key && (answered(one, "written") || answered(one, "deleted")),
  );
  return writes.sort((a, b) => (a.effectUs ?? 0) - (b.effectUs ?? 0));
}

function answerOf<T extends KvAnswer["type"]>({ record }: GeneratedRecord, type: T): AnswerOf<T> {
  const { outcome } = record;
  if (outcome.type !== "ok" || outcome.answer.type !== type) throw new Error(`the answer is not ${type}`);
  return outcome.answer as AnswerOf<T>;
}

function writtenValue({ op }: HistoryRecord): string {
  if (op.type !== "put" && op.type !== "cas") throw new Error(`a ${op.type} has no value`);
  return op.value;
}

export type Change = (history: readonly GeneratedRecord[], random: Random) => readonly HistoryRecord[] | null;

/** What a read answers when it sees this write and nothing newer. */
function seen(write: GeneratedRecord): KvAnswer {
  const { modRevision, version, createRevision } = answerOf(write, "written");
  return { type: "found", value: writtenValue(write.record), modRevision, version, createRevision };
}

function replaced(history: readonly GeneratedRecord[], old: GeneratedRecord, by: HistoryRecord): HistoryRecord[] {
  return history.map((one) => (one === old ? by : one.record));
}

function reads(history: readonly GeneratedRecord[]): GeneratedRecord[] {
  return history.filter((one) => answered(one, "found") || (answered(one, "absent") && one.record.op.type === "get"));
}

function pickOrNull<T>(random: Random, items: readonly T[]): T | null {
  return items.length > 0 ? random.pick(items) : null;
}

/** A newer mutation of the key had returned before this call. */
function overwritten(history: readonly GeneratedRecord[], write: GeneratedRecord, callUs: number): boolean {
  return writesOf(history, write.record.key).some(
    (other) =>
      (other.effectUs ?? 0) > (write.effectUs ?? 0) && (other.record.returnUs ?? Number.POSITIVE_INFINITY) < callUs,
  );
}

/** A read answers a value that was overwritten, or deleted, before it was called. */
const staleRead: Change = (history, random) => {
  const pairs = reads(history).flatMap((read) =>
    writesOf(history, read.record.key)
      .filter((write) => answered(write, "written") && overwritten(history, write, read.record.callUs))
      .map((write) => [read, write] as const),
  );
  const pair = pickOrNull(random, pairs);
  return pair && replaced(history, pair[0], answering(pair[0].record, seen(pair[1])));
};

/** A deleted key is found again, with its old value, and nobody wrote it since. */
const resurrectedDelete: Change = (history, random) => {
  const pairs = reads(history).flatMap((read) => {
    const writes = writesOf(history, read.record.key);
    return writes.flatMap((write, at) => {
      const next = writes[at + 1];
      const dead = next && answered(next, "deleted") && (next.record.returnUs ?? 0) < read.record.callUs;
      return dead && answered(write, "written") ? [[read, write] as const] : [];
    });
  });
  const pair = pickOrNull(random, pairs);
  return pair && replaced(history, pair[0], answering(pair[0].record, seen(pair[1])));
};

/** A read answers the value of a call that certainly was never executed. */
const abortedRead: Change = (history, random) => {
  const pairs = reads(history)
    .filter((read) => answered(read, "found"))
    .flatMap((read) =>
      history
        .filter(
          ({ record }) => record.outcome.type === "failed" && (record.op.type === "put" || record.op.type === "cas"),
        )
        .filter(({ record }) => record.key === read.record.key)
        .map((failed) => [read, failed] as const),
    );
  const pair = pickOrNull(random, pairs);
  if (!pair) return null;
  const [read, failed] = pair;
  const answer: KvAnswer = { ...answerOf(read, "found"), value: writtenValue(failed.record) };
  return replaced(history, read, answering(read.record, answer));
};

/** A second compare-and-swap with the same expectation claims to have swapped as well. */
const doubleSwap: Change = (history, random) => {
  const pairs = history.flatMap((winner) => {
    const { op } = winner.record;
    if (op.type !== "cas" || !answered(winner, "written")) return [];
    const losers = history.filter(
      (other) =>
        other.record.key === winner.record.key && other.record.op.type === "cas" && answered(other, "conflict"),
    );
    return losers.map((loser) => [winner, loser] as const);
  });
  const pair = pickOrNull(random, pairs);
  if (!pair) return null;
  const [winner, loser] = pair;
  const { op } = winner.record;
  if (op.type !== "cas" || loser.record.op.type !== "cas" || op.expect === 0) return null;
  const answer: KvAnswer = { type: "written", modRevision: answerOf(winner, "written").modRevision + 1 };
  const record = { ...loser.record, op: { ...loser.record.op, expect: op.expect } };
  return replaced(history, loser, answering(record, answer));
};

/** A write's effect is missing: a later compare-and-swap finds the revision from before it. */
const lostUpdate: Change = (history, random) => {
  const triples = history.flatMap((later) => {
    if (later.record.op.type !== "cas" || !answered(later, "written")) return [];
    return writesOf(history, later.record.key)
      .filter((write) => answered(write, "written") && overwritten(history, write, later.record.callUs))
      .map((write) => [later, write] as const);
  });
  const pair = pickOrNull(random, triples);
  if (!pair) return null;
  const [later, write] = pair;
  if (later.record.op.type !== "cas") return null;
  const op = { ...later.record.op, expect: answerOf(write, "written").modRevision };
  return replaced(history, later, { ...later.record, op });
};

/** A read sees a write that another client only called after the read had returned. */
const inversion: Change = (history, random) => {
  const pairs = reads(history).flatMap((read) =>
    writesOf(history, read.record.key)
      .filter((write) => answered(write, "written") && write.record.process !== read.record.process)
      .filter((write) => write.record.callUs > (read.record.returnUs ?? Number.POSITIVE_INFINITY))
      .map((write) => [read, write] as const),
  );
  const pair = pickOrNull(random, pairs);
  return pair && replaced(history, pair[0], answering(pair[0].record, seen(pair[1])));
};

export const CHANGES: Readonly<Record<string, Change>> = {
  "stale read": staleRead,
  "resurrected delete": resurrectedDelete,
  "read of a value whose write failed": abortedRead,
  "double compare-and-swap success": doubleSwap,
  "lost update": lostUpdate,
  "real-time inversion across clients": inversion,
};

/**
 * A write is counted twice: the key's version rose by two. Illegal in a lossless history: elsewhere a lost write may explain it.
 */
export const doubleExecution: Change = (history, random) => {
  const write = pickOrNull(
    random,
    history.filter((one) => answered(one, "written")),
  );
  if (!write) return null;
  const answer = answerOf(write, "written");
  return replaced(history, write, answering(write.record, { ...answer, version: (answer.version ?? 0) + 1 }));
};
