/**
 * The choices of a core schedule: one generator per piece of it. A schedule with another last piece is the same up to where
 * that begins, which is what guided runs (guided.ts) mutate and what a replay needs to name.
 */
import { type Random, seeded } from "./random.ts";

/** From this step on the choices come from this seed. */
export interface Piece {
  readonly from: number;
  readonly seed: number;
}

export class ScheduleRandom implements Random {
  readonly #pieces: readonly Piece[];
  #next = 0;
  #current: Random;

  constructor(seed: number, pieces: readonly Piece[] = []) {
    this.#current = seeded(seed);
    this.#pieces = pieces;
  }

  /** Step number `step` begins. */
  at(step: number): void {
    for (let piece = this.#pieces[this.#next]; piece && piece.from <= step; piece = this.#pieces[this.#next]) {
      this.#current = seeded(piece.seed);
      this.#next++;
    }
  }

  next(): number {
    return this.#current.next();
  }

  below(below: number): number {
    return this.#current.below(below);
  }

  chance(probability: number): boolean {
    return this.#current.chance(probability);
  }

  pick<T>(items: readonly T[]): T {
    return this.#current.pick(items);
  }
}

/** As the command line names it: `17`, or `17+240:99+310:5`. */
export function scheduleName(seed: number, pieces: readonly Piece[]): string {
  return [String(seed), ...pieces.map((piece) => `${piece.from}:${piece.seed}`)].join("+");
}

export function scheduleOf(name: string): { readonly seed: number; readonly pieces: Piece[] } {
  const [first = "", ...rest] = name.split("+");
  const number = (text: string | undefined): number => {
    const value = Number(text);
    if (text === undefined || text === "" || !Number.isSafeInteger(value)) throw new Error(`no schedule: ${name}`);
    return value;
  };
  const pieces = rest.map((piece) => {
    const [from, seed] = piece.split(":");
    return { from: number(from), seed: number(seed) };
  });
  return { seed: number(first), pieces };
}
