/**
 * Is this history linearizable? Validates it, splits it where the model allows (P-compositionality), and searches the
 * partitions in turn with growing budgets of steps (`search.ts`), so that a short counterexample in one is found before a
 * long proof in another is finished. Intervals are closed: an operation may take effect at the very time of its call or
 * return.
 *
 * Three verdicts. `unknown` means that the budget ran out: it says nothing, and must never pass as `ok`.
 */
import { type Deepest, Search } from "./search.ts";

export interface Operation<I, O> {
  /** Whoever called it has one call open at a time, and calls no more once an outcome stayed unknown. */
  readonly process: string;
  readonly input: I;
  /** Null: the outcome is unknown. It may take effect at any time after its call, or never. */
  readonly output: O | null;
  readonly call: number;
  /** Null exactly when the outcome is unknown. */
  readonly return: number | null;
}

export type Step<S> = { readonly ok: true; readonly state: S } | { readonly ok: false };

/** A sequential specification. Pure: states are values and never change. */
export interface Model<S, I, O> {
  /** Parts that are linearizable if and only if the whole is; the whole in one part where this is missing. */
  partition?(operations: readonly Operation<I, O>[]): readonly (readonly Operation<I, O>[])[];
  init(): S;
  /** With an output of null the step is always ok: as if it took effect wherever it can. */
  step(state: S, input: I, output: O | null): Step<S>;
  equal(a: S, b: S): boolean;
  /** A 32-bit integer; equal states have equal ones. */
  hash(state: S): number;
  /** Changes no state: it is dropped when its outcome is unknown. */
  readOnly(input: I): boolean;
  describe(operation: Operation<I, O>): string;
  /** Something less precise about the output of this operation, or null: what was legal stays legal with it. */
  weaker?(operation: Operation<I, O>): Operation<I, O> | null;
}

export interface CheckOptions {
  /** Steps of the model in all partitions together. */
  readonly stepsMax?: number;
}

export interface Illegal<I, O> extends Deepest<I, O> {
  readonly verdict: "illegal";
  /** Still illegal with every operation of it. Writes in it whose outcome was known may count as unknown. */
  readonly minimal: readonly Operation<I, O>[];
  /** All of this for people. */
  readonly text: string;
}

export type Verdict<I, O> =
  | { readonly verdict: "ok" }
  | Illegal<I, O>
  /** So many partitions stayed undecided. */
  | { readonly verdict: "unknown"; readonly undecided: number };

/** The history itself is impossible: it was recorded or written down wrongly, and no verdict would mean anything. */
export class HistoryError extends Error {}

const STEPS_MAX = 8_000_000;
const FIRST_BUDGET = 20_000;
const BUDGET_GROWTH = 4;
/** Bounds of minimising: steps for one history tried, and for all of them. */
const TRY_STEPS_MAX = 20_000;
const MINIMISE_STEPS_MAX = 400_000;

/** The parts of a history by key. */
export function partitionBy<I, O>(
  operations: readonly Operation<I, O>[],
  keyOf: (input: I) => string,
): readonly (readonly Operation<I, O>[])[] {
  const parts = new Map<string, Operation<I, O>[]>();
  for (const operation of operations) {
    const key = keyOf(operation.input);
    const part = parts.get(key);
    if (part) part.push(operation);
    else parts.set(key, [operation]);
  }
  return [...parts.values()];
}

/** @throws HistoryError when the history is impossible. */
export function checkLinearizability<S, I, O>(
  model: Model<S, I, O>,
  history: readonly Operation<I, O>[],
  options: CheckOptions = {},
): Verdict<I, O> {
  validateHistory(history);
  const operations = history.filter((operation) => operation.output !== null || !model.readOnly(operation.input));
  const parts = model.partition?.(operations) ?? [operations];
  const result = searchAll(model, parts, options.stepsMax ?? STEPS_MAX);
  if (result.verdict !== "illegal") return result;
  const { placed, stuck } = result.search.deepest;
  const minimal = minimised(model, result.part);
  const text = report(model, { part: result.part, placed, stuck, minimal });
  return { verdict: "illegal", placed, stuck, minimal, text };
}

/** @throws HistoryError */
export function validateHistory<I, O>(history: readonly Operation<I, O>[]): void {
  const latest = new Map<string, Operation<I, O>>();
  for (const operation of [...history].sort((a, b) => a.call - b.call || returnTime(a) - returnTime(b))) {
    const { process, call, output, return: returned } = operation;
    const where = `process ${process}, call at ${call}`;
    if (!Number.isFinite(call)) throw new HistoryError(`${where}: a call has a time`);
    if ((returned === null) !== (output === null)) {
      throw new HistoryError(`${where}: a call returns exactly when its outcome is known`);
    }
    if (returned !== null && !(Number.isFinite(returned) && returned >= call)) {
      throw new HistoryError(`${where}: returned at ${returned}, before it was called`);
    }
    const earlier = latest.get(process);
    if (earlier && returnTime(earlier) > call) {
      throw new HistoryError(`${where}: this process has a call open since ${earlier.call}`);
    }
    latest.set(process, operation);
  }
}

function returnTime<I, O>(operation: Operation<I, O>): number {
  return operation.return ?? Number.POSITIVE_INFINITY;
}

type Parts<I, O> = readonly (readonly Operation<I, O>[])[];

type Found<S, I, O> =
  | { readonly verdict: "ok" }
  | { readonly verdict: "illegal"; readonly search: Search<S, I, O>; readonly part: readonly Operation<I, O>[] }
  | { readonly verdict: "unknown"; readonly undecided: number };

function searchAll<S, I, O>(model: Model<S, I, O>, parts: Parts<I, O>, stepsMax: number): Found<S, I, O> {
  let open = parts.map((part) => ({ part, search: new Search(model, part) }));
  let left = stepsMax;
  for (let budget = FIRST_BUDGET; open.length > 0; budget *= BUDGET_GROWTH) {
    const undecided: typeof open = [];
    for (const [at, one] of open.entries()) {
      const steps = Math.min(budget, left);
      const verdict = one.search.run(steps);
      if (verdict === "illegal") return { verdict, search: one.search, part: one.part };
      if (verdict === "ok") continue;
      undecided.push(one);
      left -= steps;
      if (left <= 0) return { verdict: "unknown", undecided: undecided.length + open.length - at - 1 };
    }
    open = undecided;
  }
  return { verdict: "ok" };
}

/**
 * Fewer and less precise operations, still illegal. Only reductions that keep a legal history legal: cutting the end off,
 * dropping what only reads, saying less about an output, forgetting an outcome. Dropping a write would not: whatever read
 * it would be left without a cause.
 */
function minimised<S, I, O>(model: Model<S, I, O>, part: readonly Operation<I, O>[]): readonly Operation<I, O>[] {
  let left = MINIMISE_STEPS_MAX;
  const illegal = (operations: readonly Operation<I, O>[]): boolean => {
    if (left <= 0) return false;
    const search = new Search(model, operations);
    const verdict = search.run(TRY_STEPS_MAX);
    left -= search.steps + operations.length;
    return verdict === "illegal";
  };
  let kept = shortestPrefix(model, part, illegal);
  const replaced = (at: number, by: Operation<I, O> | null): boolean => {
    const fewer = [...kept.slice(0, at), ...(by ? [by] : []), ...kept.slice(at + 1)];
    if (!illegal(fewer)) return false;
    kept = fewer;
    return true;
  };
  for (let at = kept.length - 1; at >= 0; at--) {
    const operation = kept[at] as Operation<I, O>;
    if (operation.output === null) continue;
    if (replaced(at, model.readOnly(operation.input) ? null : forgotten(operation))) continue;
    const weaker = model.weaker?.(operation);
    if (weaker) replaced(at, weaker);
  }
  return kept;
}

function forgotten<I, O>(operation: Operation<I, O>): Operation<I, O> {
  return { ...operation, output: null, return: null };
}

/** The history up to the earliest return at which it is illegal. */
function shortestPrefix<S, I, O>(
  model: Model<S, I, O>,
  part: readonly Operation<I, O>[],
  illegal: (operations: readonly Operation<I, O>[]) => boolean,
): readonly Operation<I, O>[] {
  const times = [...new Set(part.map((operation) => operation.return).filter((time) => time !== null))];
  times.sort((a, b) => a - b);
  let shortest = part;
  let low = 0;
  let high = times.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const prefix = upTo(model, part, times[middle] as number);
    if (illegal(prefix)) {
      shortest = prefix;
      high = middle - 1;
    } else {
      low = middle + 1;
    }
  }
  return shortest;
}

/** What was known at this time: calls until then, returns until then. */
function upTo<S, I, O>(
  model: Model<S, I, O>,
  part: readonly Operation<I, O>[],
  time: number,
): readonly Operation<I, O>[] {
  return part
    .filter((operation) => operation.call <= time)
    .map((operation) => (returnTime(operation) <= time ? operation : forgotten(operation)))
    .filter((operation) => operation.output !== null || !model.readOnly(operation.input));
}

interface Finding<I, O> extends Deepest<I, O> {
  readonly part: readonly Operation<I, O>[];
  readonly minimal: readonly Operation<I, O>[];
}

function report<S, I, O>(model: Model<S, I, O>, finding: Finding<I, O>): string {
  const { part, placed, stuck, minimal } = finding;
  const known = minimal.filter((operation) => operation.output !== null);
  const unknown = minimal.filter((operation) => operation.output === null);
  const lines = [
    `not linearizable: ${placed.length} of ${part.length} operations have a place in the longest linearization found`,
    "the longest partial linearization:",
    ...placed.map((operation) => lineOf(model, operation)),
    "no place for:",
    stuck ? lineOf(model, stuck) : "  any operation",
    `the same in ${known.length} operations:`,
    ...[...known].sort((a, b) => a.call - b.call).map((operation) => lineOf(model, operation)),
  ];
  if (unknown.length > 0) lines.push(`wherever these took effect, if they did (${unknown.length}):`);
  for (const operation of unknown) lines.push(lineOf(model, operation));
  return lines.join("\n");
}

function lineOf<S, I, O>(model: Model<S, I, O>, operation: Operation<I, O>): string {
  const { call, process, return: returned } = operation;
  return `  [${call}, ${returned ?? "..."}] ${process}: ${model.describe(operation)}`;
}
