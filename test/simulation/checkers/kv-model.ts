/**
 * The key-value store as a sequential specification, key by key (protocol/commands.ts, server/service/kv-service.ts): values,
 * conditions, and the revisions that its answers name. Revisions come from one counter of the whole store, so within a key
 * they only rise. What ties keys together (ranges, one revision used twice) is `multi-key.ts`'s business.
 *
 * A write of unknown outcome leaves an entry whose revision nobody has seen. It stays open until the first answer that
 * names it; from then on it is that.
 */
import type { HistoryRecord, KvAnswer, KvOperation } from "./history.ts";
import {
  checkLinearizability,
  HistoryError,
  type Model,
  type Operation,
  partitionBy,
  type Step,
  type Verdict,
} from "./linearizability.ts";

export interface KvInput {
  readonly key: string;
  readonly op: KvOperation;
}

/** The entry, or its absence. `null` is a revision that was not seen yet. */
export interface KvState {
  /** Null: the key is absent. */
  readonly value: string | null;
  readonly modRevision: number | null;
  readonly createRevision: number | null;
  readonly version: number;
  /** The store's revision is at least this. An entry with a modRevision not seen yet has at least this one. */
  readonly floor: number;
}

type Answer<T extends KvAnswer["type"]> = Extract<KvAnswer, { type: T }>;

const ABSENT: KvState = { value: null, modRevision: null, createRevision: null, version: 0, floor: 0 };
const IMPOSSIBLE: Step<KvState> = { ok: false };

function possible(state: KvState): Step<KvState> {
  return { ok: true, state };
}

/** The state with the entry's modRevision being this one (0: absent), or null when it cannot be. */
function at(state: KvState, modRevision: number): KvState | null {
  if (modRevision === 0) return state.value === null ? state : null;
  if (state.value === null) return null;
  if (state.modRevision !== null) return state.modRevision === modRevision ? state : null;
  if (modRevision < state.floor) return null;
  const createRevision = state.version === 1 ? modRevision : state.createRevision;
  return { ...state, modRevision, createRevision, floor: modRevision };
}

/** The state in which this condition holds, or null. */
function holding(state: KvState, condition: number | null): KvState | null {
  return condition === null ? state : at(state, condition);
}

/** What an answer says about version and creation, taken into the state, or null when it cannot be. */
function detailed(
  state: KvState,
  answer: { version?: number | undefined; createRevision?: number | undefined },
): KvState | null {
  const { version, createRevision } = answer;
  if (version !== undefined && version !== state.version) return null;
  if (createRevision === undefined || createRevision === state.createRevision) return state;
  if (state.createRevision !== null || createRevision >= (state.modRevision ?? 0)) return null;
  return { ...state, createRevision };
}

function written(state: KvState, value: string, modRevision: number | null): KvState {
  const created = state.value === null;
  return {
    value,
    modRevision,
    createRevision: created ? modRevision : state.createRevision,
    version: created ? 1 : state.version + 1,
    floor: modRevision ?? state.floor + 1,
  };
}

function afterPut(
  state: KvState,
  put: { value: string; condition: number | null },
  answer: KvAnswer | null,
): Step<KvState> {
  const { value, condition } = put;
  const held = holding(state, condition);
  if (answer === null) return possible(held ? written(held, value, null) : state);
  if (answer.type === "conflict") return afterConflict(state, condition, answer);
  if (answer.type !== "written" || !held || answer.modRevision <= held.floor) return IMPOSSIBLE;
  const next = detailed(written(held, value, answer.modRevision), answer);
  return next ? possible(next) : IMPOSSIBLE;
}

function afterDelete(state: KvState, condition: number | null, answer: KvAnswer | null): Step<KvState> {
  const held = holding(state, condition);
  if (answer === null) {
    return possible(held && held.value !== null ? { ...ABSENT, floor: held.floor + 1 } : state);
  }
  switch (answer.type) {
    case "conflict":
      return afterConflict(state, condition, answer);
    case "absent":
      return held ? afterAbsent(held, answer) : IMPOSSIBLE;
    case "deleted":
      if (!held || held.value === null || answer.revision <= held.floor) return IMPOSSIBLE;
      return possible({ ...ABSENT, floor: answer.revision });
    default:
      return IMPOSSIBLE;
  }
}

function afterConflict(state: KvState, condition: number | null, answer: Answer<"conflict">): Step<KvState> {
  if (condition === null || answer.modRevision === condition) return IMPOSSIBLE;
  const seen = at(state, answer.modRevision);
  return seen ? possible(seen) : IMPOSSIBLE;
}

function afterAbsent(state: KvState, answer: Answer<"absent">): Step<KvState> {
  if (state.value !== null) return IMPOSSIBLE;
  const { revision = state.floor } = answer;
  if (revision < state.floor) return IMPOSSIBLE;
  return possible(revision === state.floor ? state : { ...state, floor: revision });
}

function afterGet(state: KvState, answer: KvAnswer | null): Step<KvState> {
  if (answer === null) return possible(state);
  if (answer.type === "absent") return afterAbsent(state, answer);
  if (answer.type !== "found" || state.value !== answer.value || answer.modRevision === 0) return IMPOSSIBLE;
  const seen = at(state, answer.modRevision);
  const next = seen && detailed(seen, answer);
  return next ? possible(next) : IMPOSSIBLE;
}

export const kvModel: Model<KvState, KvInput, KvAnswer> = {
  partition: (operations) => partitionBy(operations, ({ key }) => key),
  init: () => ABSENT,
  step: (state, { op }, answer) => {
    switch (op.type) {
      case "put":
        return afterPut(state, { value: op.value, condition: op.ifRevision }, answer);
      case "cas":
        return afterPut(state, { value: op.value, condition: op.expect }, answer);
      case "delete":
        return afterDelete(state, op.ifRevision, answer);
      case "get":
        return afterGet(state, answer);
    }
  },
  equal: (a, b) =>
    a.value === b.value &&
    a.modRevision === b.modRevision &&
    a.createRevision === b.createRevision &&
    a.version === b.version &&
    a.floor === b.floor,
  hash: (state) => {
    let hash = Math.imul((state.modRevision ?? -1) + 7, 0x9e3779b1) ^ Math.imul(state.floor, 0x85ebca6b);
    hash = Math.imul(hash ^ (state.createRevision ?? -1), 0xc2b2ae35) ^ state.version;
    const { value } = state;
    if (value === null) return hash | 0;
    for (let index = 0; index < value.length; index++) hash = (Math.imul(hash, 31) + value.charCodeAt(index)) | 0;
    return Math.imul(hash, 31) + value.length + 1;
  },
  readOnly: ({ op }) => op.type === "get",
  describe: ({ input, output }) => `${describeOp(input)} -> ${output ? describeAnswer(output) : "unknown"}`,
  weaker: (operation) => {
    const { output } = operation;
    if (output?.type !== "written" && output?.type !== "found") return null;
    if (output.version === undefined && output.createRevision === undefined) return null;
    const { version: _, createRevision: __, ...rest } = output;
    return { ...operation, output: rest };
  },
};

function describeOp({ key, op }: KvInput): string {
  const name = JSON.stringify(key);
  switch (op.type) {
    case "put":
      return `put ${name} ${JSON.stringify(op.value)}${op.ifRevision === null ? "" : ` if ${op.ifRevision}`}`;
    case "cas":
      return `cas ${name} ${JSON.stringify(op.value)} expecting ${op.expect}`;
    case "delete":
      return `delete ${name}${op.ifRevision === null ? "" : ` if ${op.ifRevision}`}`;
    case "get":
      return `get ${name}`;
  }
}

function describeAnswer(answer: KvAnswer): string {
  switch (answer.type) {
    case "written":
      return `written at ${answer.modRevision}${describeDetail(answer)}`;
    case "found":
      return `${JSON.stringify(answer.value)} of ${answer.modRevision}${describeDetail(answer)}`;
    case "absent":
      return answer.revision === undefined ? "absent" : `absent at ${answer.revision}`;
    case "deleted":
      return `deleted at ${answer.revision}`;
    case "conflict":
      return answer.modRevision === 0 ? "conflict: absent" : `conflict with ${answer.modRevision}`;
  }
}

function describeDetail({
  version,
  createRevision,
}: {
  version?: number | undefined;
  createRevision?: number | undefined;
}): string {
  const created = createRevision === undefined ? "" : `, created at ${createRevision}`;
  return `${version === undefined ? "" : `, version ${version}`}${created}`;
}

/** Calls that certainly were never executed say nothing and are left out. @throws HistoryError */
export function operationsOf(records: readonly HistoryRecord[]): Operation<KvInput, KvAnswer>[] {
  const operations: Operation<KvInput, KvAnswer>[] = [];
  for (const { process, key, op, callUs, returnUs, outcome } of records) {
    if ((returnUs === null) !== (outcome.type === "unknown")) {
      throw new HistoryError(`process ${process}, call at ${callUs}: a call returns exactly when its outcome is known`);
    }
    if (outcome.type === "failed") continue;
    const output = outcome.type === "ok" ? outcome.answer : null;
    operations.push({ process, input: { key, op }, output, call: callUs, return: returnUs });
  }
  return operations;
}

/** @throws HistoryError */
export function checkHistory(
  records: readonly HistoryRecord[],
  options: { readonly stepsMax?: number } = {},
): Verdict<KvInput, KvAnswer> {
  return checkLinearizability(kvModel, operationsOf(records), options);
}
