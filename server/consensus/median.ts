/** The median; of an even number of values the lower one. Null when there is none. */
export function lowerMedian(values: readonly number[]): number | null {
  return [...values].sort((a, b) => a - b)[(values.length - 1) >> 1] ?? null;
}
