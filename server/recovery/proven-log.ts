/**
 * The buffer of proven log during a transfer (docs/protocol.md section 6).
 *
 * Invariants: 1. it holds proven batches only, each instance once. 2. it holds no more than its bound, except for the one
 * segment that execution waits for.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { ProvenBatch, Segment } from "./segments.ts";

/** What a buffered batch costs beyond its bytes. */
const BATCH_OVERHEAD_BYTES = 256;

/** Instances, both ends included. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

/** Buffered batches without a gap, at least one; `previous` is the digest below them. */
interface Run extends Range {
  readonly previous: Digest;
  readonly batches: readonly ProvenBatch[];
  readonly bytes: number;
}

/** Those batches of a segment that lie in the range; null when none does. */
function runOf({ from, previous, batches }: Segment, range: Range): Run | null {
  const start = Math.max(0, range.from - from);
  const inside = batches.slice(start, Math.max(start, range.to + 1 - from));
  const [first] = inside;
  if (!first) return null;
  const bytes = inside.reduce((sum, batch) => sum + batch.bytes.length + BATCH_OVERHEAD_BYTES, 0);
  const below = start === 0 ? previous : (batches[start - 1] as ProvenBatch).digest;
  const to = first.instance + inside.length - 1;
  return { from: first.instance, to, previous: below, batches: inside, bytes };
}

export class ProvenLog {
  readonly #bytesMax: number;
  /** Ascending, without overlap. */
  #runs: Run[] = [];
  #base = 0;
  #baseDigest: Digest | null = null;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** The instance below the first that is wanted. */
  get base(): number {
    return this.#base;
  }

  /** h(base), once it is proven. */
  get baseDigest(): Digest | null {
    return this.#baseDigest;
  }

  get full(): boolean {
    return this.bytes >= this.#bytesMax;
  }

  get bytes(): number {
    return this.#runs.reduce((sum, run) => sum + run.bytes, 0);
  }

  /** The last instance up to which everything from the base on is here. */
  get through(): number {
    let through = this.#base;
    for (const run of this.#runs) {
      if (run.from !== through + 1) break;
      through = run.to;
    }
    return through;
  }

  /** The batch above the base, if it is here. */
  get first(): ProvenBatch | null {
    const [run] = this.#runs;
    return run?.from === this.#base + 1 ? (run.batches[0] ?? null) : null;
  }

  /** From now on what lies above `instance` is wanted. */
  rebase(instance: number): void {
    if (instance !== this.#base) this.#baseDigest = this.#digestOf(instance);
    this.#base = instance;
    this.#trim();
  }

  /** True when it brought anything. */
  add(segment: Segment): boolean {
    const { from, previous, batches } = segment;
    const baseDigest = from - 1 === this.#base ? previous : batches[this.#base - from]?.digest;
    const news = this.#baseDigest === null && baseDigest !== undefined;
    if (news) this.#baseDigest = baseDigest;
    let start = Math.max(from, this.#base + 1);
    for (const run of this.#runs) if (run.from <= start && start <= run.to) start = run.to + 1;
    const next = this.#runs.find((run) => run.from >= start);
    const run = runOf(segment, { from: start, to: next ? next.from - 1 : Number.MAX_SAFE_INTEGER - 1 });
    if (!run || (this.full && run.from !== this.#base + 1)) return news;
    this.#runs = [...this.#runs, run].sort((a, b) => a.from - b.from);
    return true;
  }

  /** Takes batches from the base on, up to and including `to`, at least one and at most about so many bytes. */
  take(to: number, bytesMax: number): ProvenBatch[] {
    const taken: ProvenBatch[] = [];
    let bytes = 0;
    const end = Math.min(to, this.through);
    for (const batch of this.#runs.flatMap((run) => (run.from <= end ? run.batches : []))) {
      if (batch.instance > end || (taken.length > 0 && bytes + batch.bytes.length > bytesMax)) break;
      taken.push(batch);
      bytes += batch.bytes.length;
    }
    const last = taken.at(-1);
    if (last) this.rebase(last.instance);
    return taken;
  }

  /** The first range of at most `count` instances up to `to` that is neither here nor `taken`. */
  gap(to: number, count: number, taken: readonly Range[]): Range | null {
    const covered: Range[] = [...this.#runs, ...taken].sort((a, b) => a.from - b.from);
    let from = this.#base + 1;
    for (const range of covered) {
      if (range.from > from) break;
      from = Math.max(from, range.to + 1);
    }
    const next = covered.find((range) => range.from > from);
    const end = Math.min(to, from + count - 1, next ? next.from - 1 : to);
    return from <= end ? { from, to: end } : null;
  }

  #digestOf(instance: number): Digest | null {
    for (const run of this.#runs) {
      if (run.from - 1 === instance) return run.previous;
      const found = run.batches[instance - run.from];
      if (found) return found.digest;
    }
    return null;
  }

  #trim(): void {
    const above = { from: this.#base + 1, to: Number.MAX_SAFE_INTEGER - 1 };
    this.#runs = this.#runs.flatMap((run) => (run.from > this.#base ? [run] : (runOf(run, above) ?? [])));
  }
}
