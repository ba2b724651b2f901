/**
 * Linearizability of everything at once, ranges and bundles included, in linear time: the decided log is the order
 * (docs/protocol.md section 3). Two rules:
 * - **replay**: the log, replayed by the production executor, gives each acknowledged result: of a write at its revision, of
 *   a read in the state that its answer names. Each mutation is acknowledged to one call only.
 * - **real-time**: the calls can be placed in the order of the log such that none comes before one that had returned when it
 *   was called.
 *
 * A call's place is a *point*: the mutation to revision R is at 2R, reading the state of revision R at 2R+1. A write's point
 * is known. A read's lies in an interval, as an answer may hold in several states; placed in the order of their calls, each
 * as early as it can be, calls constrain later ones the least.
 *
 * Trusts the log. `agreement.ts` says that correct replicas share it, `linearizability.ts` judges without it.
 */
import { type Digest, hex, latin1, sameBytes } from "../../../protocol/bytes.ts";
import { type Command, decodeCommand, decodeResult, type Result } from "../../../protocol/commands.ts";
import { Violation } from "../contract.ts";
import type { Acknowledged, RunObserver } from "./events.ts";
import {
  type DecidedInstance,
  type ExecutedCommand,
  mutationOf,
  Replay,
  type ReplayOptions,
  type RevisedService,
} from "./replay.ts";

/** A key begins or ceases to be there, or gets a new value. */
interface Change {
  readonly revision: number;
  readonly present: boolean;
}

/** The earliest point from `bound` on at which a call may stand, or null. */
type Placing = (bound: number) => number | null;

interface Call extends Acknowledged {
  readonly decodedCommand: Command;
  readonly decodedResult: Result;
}

interface Placed {
  readonly call: Call;
  readonly point: number;
}

const writePoint = (revision: number): number => 2 * revision;
const readPoint = (revision: number): number => 2 * revision + 1;
/** The revision of the first state that can be read at this point or later. */
const stateFrom = (point: number): number => Math.max(0, Math.ceil((point - 1) / 2));

export class MultiKeyChecker implements RunObserver {
  readonly #options: ReplayOptions;
  readonly #log = new Map<number, DecidedInstance>();
  readonly #calls: Call[] = [];

  constructor(options: ReplayOptions) {
    this.#options = options;
  }

  decided(event: DecidedInstance): void {
    if (!this.#log.has(event.instance)) this.#log.set(event.instance, event);
  }

  acknowledged(event: Acknowledged): void {
    const decodedCommand = decodeCommand(event.command);
    this.#calls.push({ ...event, decodedCommand, decodedResult: decodeResult(event.result) });
  }

  ended(): void {
    const index = new LogIndex(this.#calls);
    const replay = new Replay(this.#options);
    replay.listen(index);
    for (const instance of [...this.#log.keys()].sort((a, b) => a - b)) {
      replay.decided(this.#log.get(instance) as DecidedInstance);
    }
    index.finish(replay.service);
    const placings = this.#calls.map((call) => index.placingOf(call));
    placeInRealTime(this.#calls, placings);
  }
}

/** What the replay shows: each mutation by revision, each key's changes, and the reads whose answers do not hold. */
class LogIndex {
  /** Reads by the revision of the state that their answer names. */
  readonly #reads = new Map<number, Call[]>();
  readonly #mutations = new Map<number, ExecutedCommand & { readonly key: string; readonly at: number }>();
  readonly #changes = new Map<string, Change[]>();
  readonly #acknowledged = new Set<number>();
  #last = 0;

  constructor(calls: readonly Call[]) {
    for (const call of calls) {
      const revision = revisionRead(call);
      if (revision === null) continue;
      const reads = this.#reads.get(revision);
      if (reads) reads.push(call);
      else this.#reads.set(revision, [call]);
    }
  }

  before(service: RevisedService): void {
    const reads = this.#reads.get(service.revision);
    if (!reads) return;
    this.#reads.delete(service.revision);
    for (const call of reads) {
      const result = service.query(call.command);
      if (result && sameBytes(result, call.result)) continue;
      const now = result ? describeResult(decodeResult(result)) : "no query";
      throw new Violation("replay", `${describe(call)}: the log gives, at revision ${service.revision}, ${now}`);
    }
  }

  replayed({ commands }: { readonly commands: readonly ExecutedCommand[] }): void {
    for (const executed of commands) {
      const revision = mutationOf(executed.result);
      if (revision === null) continue;
      const command = decodeCommand(executed.command);
      const key = "key" in command ? latin1(command.key) : "";
      const changes = this.#changes.get(key) ?? [];
      this.#changes.set(key, changes);
      this.#mutations.set(revision, { ...executed, key, at: changes.length });
      changes.push({ revision, present: command.type !== "delete" });
    }
  }

  /** The log has been replayed: what is left must hold in its last state, or never. */
  finish(service: RevisedService): void {
    this.before(service);
    this.#last = service.revision;
    for (const [revision, [call]] of this.#reads) {
      if (call) throw new Violation("replay", `${describe(call)}: the log ends before revision ${revision}`);
    }
  }

  placingOf(call: Call): Placing {
    const { decodedCommand: command, decodedResult: result } = call;
    switch (result.type) {
      case "written":
        return this.#mutation(call, result.modRevision);
      case "deleted":
        return this.#mutation(call, result.revision);
      case "page":
        return exactly(readPoint(result.revision));
      case "absent":
        if (command.type === "delete") this.#checkAbsent(call, result.revision);
        return exactly(readPoint(result.revision));
      case "found":
        return this.#whilePresent(call, result.modRevision);
      case "conflict":
        return result.modRevision === 0 ? this.#whileAbsent(call) : this.#whilePresent(call, result.modRevision);
      case "noop":
      case "refused":
        return (bound) => bound;
    }
  }

  #mutation(call: Call, revision: number): Placing {
    const mutation = this.#mutations.get(revision);
    const same =
      mutation?.client === call.client &&
      sameBytes(mutation.command, call.command) &&
      sameBytes(mutation.result, call.result);
    if (!same) throw new Violation("replay", `${describe(call)}: the log has ${describeMutation(mutation)} there`);
    if (this.#acknowledged.has(revision)) {
      throw new Violation("replay", `${describe(call)}: this mutation was acknowledged to another call already`);
    }
    this.#acknowledged.add(revision);
    return exactly(writePoint(revision));
  }

  /** In the states from this mutation of the key to its next. */
  #whilePresent(call: Call, modRevision: number): Placing {
    const key = keyOf(call);
    const mutation = this.#mutations.get(modRevision);
    const changes = this.#changes.get(key) ?? [];
    if (mutation?.key !== key || changes[mutation.at]?.present !== true) {
      throw new Violation("replay", `${describe(call)}: the key never had this revision`);
    }
    const end = changes[mutation.at + 1]?.revision ?? Number.POSITIVE_INFINITY;
    return (bound) => {
      const revision = Math.max(modRevision, stateFrom(bound));
      return revision < end ? readPoint(revision) : null;
    };
  }

  /** In any state without the key. */
  #whileAbsent(call: Call): Placing {
    const changes = this.#changes.get(keyOf(call)) ?? [];
    return (bound) => {
      const from = stateFrom(bound);
      let at = lastUpTo(changes, from);
      if (changes[at]?.present !== true) return readPoint(from);
      while (changes[at]?.present === true) at++;
      const gone = changes[at];
      return gone ? readPoint(gone.revision) : null;
    };
  }

  #checkAbsent(call: Call, revision: number): void {
    const changes = this.#changes.get(keyOf(call)) ?? [];
    if (revision > this.#last || changes[lastUpTo(changes, revision)]?.present === true) {
      throw new Violation("replay", `${describe(call)}: the log has no such state without the key`);
    }
  }
}

/** The index of the last change up to this revision, or -1. */
function lastUpTo(changes: readonly Change[], revision: number): number {
  let low = 0;
  let high = changes.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((changes[middle] as Change).revision <= revision) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function exactly(point: number): Placing {
  return (bound) => (bound <= point ? point : null);
}

/** Calls without times are not ordered. */
function placeInRealTime(calls: readonly Call[], placings: readonly Placing[]): void {
  interface Timed {
    readonly call: Call;
    readonly placing: Placing;
    readonly callUs: number;
    readonly returnUs: number;
    point: number;
  }
  const timed: Timed[] = [];
  for (const [at, call] of calls.entries()) {
    const { callUs, returnUs } = call;
    if (callUs === undefined || returnUs === undefined) continue;
    if (!(returnUs >= callUs)) throw new Error(`${describe(call)}: it returned before it was called`);
    timed.push({ call, placing: placings[at] as Placing, callUs, returnUs, point: Number.NaN });
  }
  const byReturn = [...timed].sort((a, b) => a.returnUs - b.returnUs);
  let returned = 0;
  let newest: Placed | null = null;
  for (const one of [...timed].sort((a, b) => a.callUs - b.callUs)) {
    for (let next = byReturn[returned]; next && next.returnUs < one.callUs; next = byReturn[++returned]) {
      if (!newest || next.point > newest.point) newest = { call: next.call, point: next.point };
    }
    const point = one.placing(newest?.point ?? 0);
    if (point === null) {
      const before: string = newest ? describe(newest.call) : "the beginning";
      throw new Violation(
        "real-time",
        `${describe(one.call)}: it stands in the log before what had returned: ${before}`,
      );
    }
    one.point = point;
  }
}

/** The state that a read's answer names, or null for what is no read. */
function revisionRead({ decodedCommand: command, decodedResult: result }: Call): number | null {
  if (result.type === "page") return result.revision;
  if (result.type === "found") return result.modRevision;
  return result.type === "absent" && command.type === "get" ? result.revision : null;
}

function keyOf({ decodedCommand: command }: Call): string {
  return "key" in command ? latin1(command.key) : "";
}

function describe(call: Call): string {
  const { client, decodedCommand: command, decodedResult: result, callUs, returnUs } = call;
  const when = callUs === undefined ? "" : ` [${callUs}, ${returnUs}]`;
  const key = "key" in command ? ` ${JSON.stringify(latin1(command.key).slice(0, 32))}` : "";
  return `${command.type}${key} of client ${shortly(client)}${when} -> ${describeResult(result)}`;
}

function describeResult(result: Result): string {
  switch (result.type) {
    case "written":
    case "found":
    case "conflict":
      return `${result.type} ${result.modRevision}`;
    case "page":
      return `page of ${result.entries.length} at ${result.revision}`;
    case "absent":
    case "deleted":
      return `${result.type} ${result.revision}`;
    default:
      return result.type;
  }
}

function describeMutation(mutation: ExecutedCommand | undefined): string {
  if (!mutation) return "no mutation";
  return `a ${decodeCommand(mutation.command).type} of client ${shortly(mutation.client)}`;
}

function shortly(client: Digest): string {
  return hex(client).slice(0, 8);
}
