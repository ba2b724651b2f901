/**
 * Deficit round robin (docs/protocol.md section 8): whoever waits is served in turn, each for the same cost per round, whatever the
 * number and size of what it wants. Within twice the largest item's cost plus a round nobody who waits gets less than
 * another (Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", 1995).
 */
import { ROUND_COST } from "../../protocol/limits.ts";

/** What one client has waiting, in its order. */
export interface Lane<T> {
  /** Cost it may be served now; kept between calls while something waits. */
  credit: number;
  /** What comes next, or undefined. */
  next(): T | undefined;
  /** `next` was taken. */
  advance(): void;
}

/**
 * Offers what waits to `take`, in turn, until that returns false or nothing is left.
 * @returns the lanes that had their turn in the round that was cut short: they go last in the next call
 */
export function takeInTurns<T, L extends Lane<T>>(
  lanes: Iterable<L>,
  costOf: (item: T) => number,
  take: (item: T) => boolean,
): readonly L[] {
  let open: L[] = [...lanes].filter((lane) => lane.next() !== undefined);
  while (open.length > 0) {
    const credit = ROUND_COST * roundsToServeOne(open, costOf);
    const left: L[] = [];
    for (let at = 0; at < open.length; at++) {
      const lane = open[at] as L;
      lane.credit += credit;
      let served = 0;
      for (let item = lane.next(); item !== undefined && costOf(item) <= lane.credit; item = lane.next()) {
        if (!take(item)) {
          lane.credit = Math.min(lane.credit, costOf(item));
          return open.slice(0, served > 0 ? at + 1 : at);
        }
        served++;
        lane.credit -= costOf(item);
        lane.advance();
      }
      if (lane.next() === undefined) lane.credit = 0;
      else left.push(lane);
    }
    open = left;
  }
  return [];
}

/** Rounds in which nobody can be served are passed over at once. */
function roundsToServeOne<T>(lanes: readonly Lane<T>[], costOf: (item: T) => number): number {
  let rounds = Number.POSITIVE_INFINITY;
  for (const lane of lanes) {
    const item = lane.next();
    if (item === undefined) continue;
    const missing = costOf(item) - lane.credit;
    if (missing <= ROUND_COST) return 1;
    rounds = Math.min(rounds, Math.ceil(missing / ROUND_COST));
  }
  return rounds;
}
