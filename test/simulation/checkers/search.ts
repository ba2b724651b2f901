/**
 * The search of Wing, Gong and Lowe for one partition of a history: calls and returns in a doubly linked list; an operation
 * that the model accepts is lifted out with its return; at a return that is still there the search goes back. Iterative,
 * resumable, with a memo of (operations placed, state): looked up by hash, compared in full, as a bare hash could hide a
 * violation.
 *
 * An operation of unknown outcome has no return in the list: it may be placed anywhere after its call, or never. Placing
 * it where it changes nothing is the same as not placing it, and not tried.
 */
import type { Model, Operation } from "./linearizability.ts";

export type SearchVerdict = "ok" | "illegal";

/** The longest way the search came, and the operation whose return it could not get past there. */
export interface Deepest<I, O> {
  readonly placed: readonly Operation<I, O>[];
  readonly stuck: Operation<I, O> | null;
}

const NONE = -1;

export class Search<S, I, O> {
  readonly #model: Model<S, I, O>;
  readonly #operations: readonly Operation<I, O>[];
  /** Entries in the order of time; entry -> operation, whether it is the call, and the entry of the return or NONE. */
  readonly #operationOf: Int32Array;
  readonly #isCall: Uint8Array;
  readonly #returnOf: Int32Array;
  /** The list; the last index is its head and its end. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #head: number;
  readonly #zobrist: Int32Array;
  readonly #memo: Memo<S>;
  readonly #bits: Uint32Array;
  #bitsHash = 0;
  #state: S;
  #cursor: number;
  /** Lifted calls and the state before each. */
  readonly #lifted: number[] = [];
  readonly #before: S[] = [];
  /** Returns still in the list. */
  #returnsLeft: number;
  #fewestLeft = Number.POSITIVE_INFINITY;
  #deepest: number[] = [];
  #stuck: number = NONE;
  #steps = 0;

  constructor(model: Model<S, I, O>, operations: readonly Operation<I, O>[]) {
    this.#model = model;
    this.#operations = operations;
    const entries = entriesOf(operations);
    const count = entries.length;
    this.#operationOf = Int32Array.from(entries, (entry) => entry.operation);
    this.#isCall = Uint8Array.from(entries, (entry) => (entry.call ? 1 : 0));
    this.#returnOf = new Int32Array(count).fill(NONE);
    const calls = new Int32Array(operations.length);
    for (const [at, { operation, call }] of entries.entries()) {
      if (call) calls[operation] = at;
      else this.#returnOf[calls[operation] as number] = at;
    }
    this.#head = count;
    this.#next = Int32Array.from({ length: count + 1 }, (_, at) => (at === count ? 0 : at + 1));
    this.#previous = Int32Array.from({ length: count + 1 }, (_, at) => (at === 0 ? count : at - 1));
    this.#zobrist = Int32Array.from(operations, (_, at) => mixed(at + 1));
    this.#bits = new Uint32Array(Math.ceil(operations.length / 32));
    this.#memo = new Memo(this.#bits.length);
    this.#state = model.init();
    this.#returnsLeft = operations.filter((operation) => operation.return !== null).length;
    this.#cursor = this.#next[this.#head] as number;
  }

  /** Steps of the model so far. */
  get steps(): number {
    return this.#steps;
  }

  get deepest(): Deepest<I, O> {
    const at = (operation: number): Operation<I, O> => this.#operations[operation] as Operation<I, O>;
    return { placed: this.#deepest.map(at), stuck: this.#stuck === NONE ? null : at(this.#stuck) };
  }

  /** Goes on for at most so many steps of the model; null when they did not suffice. */
  run(stepsMax: number): SearchVerdict | null {
    const stepsEnd = this.#steps + stepsMax;
    while (this.#returnsLeft > 0) {
      const entry = this.#cursor;
      if (entry !== this.#head && this.#isCall[entry] === 1) {
        if (this.#steps >= stepsEnd) return null;
        this.#steps++;
        if (!this.#place(entry)) this.#cursor = this.#next[entry] as number;
      } else {
        this.#remember(entry);
        if (!this.#goBack()) return "illegal";
      }
    }
    return "ok";
  }

  /** Lifts the operation called here when the model accepts it and the place is new. */
  #place(entry: number): boolean {
    const index = this.#operationOf[entry] as number;
    const { input, output } = this.#operations[index] as Operation<I, O>;
    const step = this.#model.step(this.#state, input, output);
    if (!step.ok || (output === null && this.#model.equal(step.state, this.#state))) return false;
    this.#flip(index);
    const hash = Math.imul(this.#bitsHash, 0x9e3779b1) ^ this.#model.hash(step.state);
    if (!this.#memo.add(hash, this.#bits, step.state, this.#model.equal)) {
      this.#flip(index);
      return false;
    }
    this.#lifted.push(entry);
    this.#before.push(this.#state);
    this.#state = step.state;
    this.#unlink(entry);
    const returned = this.#returnOf[entry] as number;
    if (returned !== NONE) {
      this.#unlink(returned);
      this.#returnsLeft--;
    }
    this.#cursor = this.#next[this.#head] as number;
    return true;
  }

  #goBack(): boolean {
    const entry = this.#lifted.pop();
    if (entry === undefined) return false;
    this.#state = this.#before.pop() as S;
    this.#flip(this.#operationOf[entry] as number);
    const returned = this.#returnOf[entry] as number;
    if (returned !== NONE) {
      this.#relink(returned);
      this.#returnsLeft++;
    }
    this.#relink(entry);
    this.#cursor = this.#next[entry] as number;
    return true;
  }

  /** Called at a return that is still in the list: nothing called before it can be placed any more. */
  #remember(blocking: number): void {
    if (this.#returnsLeft >= this.#fewestLeft) return;
    this.#fewestLeft = this.#returnsLeft;
    this.#deepest = this.#lifted.map((entry) => this.#operationOf[entry] as number);
    this.#stuck = this.#operationOf[blocking] as number;
  }

  #flip(operation: number): void {
    const word = operation >>> 5;
    this.#bits[word] = (this.#bits[word] as number) ^ (1 << (operation & 31));
    this.#bitsHash ^= this.#zobrist[operation] as number;
  }

  #unlink(entry: number): void {
    const before = this.#previous[entry] as number;
    const after = this.#next[entry] as number;
    this.#next[before] = after;
    this.#previous[after] = before;
  }

  /** Only in the reverse order of unlinking: the entry still knows its neighbours. */
  #relink(entry: number): void {
    this.#next[this.#previous[entry] as number] = entry;
    this.#previous[this.#next[entry] as number] = entry;
  }
}

interface Entry {
  readonly operation: number;
  readonly call: boolean;
  readonly at: number;
}

/** Intervals are closed: at equal times calls come before returns. */
function entriesOf<I, O>(operations: readonly Operation<I, O>[]): Entry[] {
  const entries: Entry[] = [];
  for (const [operation, { call, return: returned }] of operations.entries()) {
    entries.push({ operation, call: true, at: call });
    if (returned !== null) entries.push({ operation, call: false, at: returned });
  }
  return entries.sort((a, b) => a.at - b.at || Number(b.call) - Number(a.call) || a.operation - b.operation);
}

function mixed(value: number): number {
  let hash = Math.imul(value, 0x9e3779b1);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

const MEMO_BYTES_MAX = 192 * 1024 * 1024;
/** What a memo entry costs beside its bits, roughly: its state, its place in the map and in the chain. */
const MEMO_ENTRY_BYTES = 160;

/** Places visited. When it is full it takes no more: the search then repeats work, but decides the same. */
export class Memo<S> {
  readonly #words: number;
  readonly #entriesMax: number;
  readonly #heads = new Map<number, number>();
  #bits: Uint32Array;
  readonly #states: S[] = [];
  /** The next entry with the same hash, or NONE. */
  readonly #chain: number[] = [];

  constructor(words: number) {
    this.#words = words;
    this.#entriesMax = Math.floor(MEMO_BYTES_MAX / (4 * words + MEMO_ENTRY_BYTES));
    this.#bits = new Uint32Array(words * 64);
  }

  /** False when the place was visited before. */
  add(hash: number, bits: Uint32Array, state: S, equal: (a: S, b: S) => boolean): boolean {
    const head = this.#heads.get(hash) ?? NONE;
    for (let entry = head; entry !== NONE; entry = this.#chain[entry] as number) {
      if (this.#sameBits(entry, bits) && equal(this.#states[entry] as S, state)) return false;
    }
    const entry = this.#states.length;
    if (entry >= this.#entriesMax) return true;
    this.#room((entry + 1) * this.#words);
    this.#bits.set(bits, entry * this.#words);
    this.#states.push(state);
    this.#chain.push(head);
    this.#heads.set(hash, entry);
    return true;
  }

  #sameBits(entry: number, bits: Uint32Array): boolean {
    const from = entry * this.#words;
    for (let word = 0; word < this.#words; word++) if (this.#bits[from + word] !== bits[word]) return false;
    return true;
  }

  #room(words: number): void {
    if (words <= this.#bits.length) return;
    const larger = new Uint32Array(this.#bits.length * 2);
    larger.set(this.#bits);
    this.#bits = larger;
  }
}
