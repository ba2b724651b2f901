/** A snapshot with a group of changes above it that is nowhere written: the state as it would stand after them. */
import type { StateSnapshot } from "../../storage/contract.ts";
import type { Group } from "../service/executor.ts";

type Entry = readonly [key: string, value: Uint8Array];

/** Closing it closes the snapshot. */
export function overlaid(snapshot: StateSnapshot, { changes, applied }: Group): StateSnapshot {
  const changed = [...changes].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    applied,
    async *chunks({ from, to }) {
      const above = changed.filter(([key]) => key >= from && key < to);
      let at = 0;
      /** Changes below `end`, or all that are left; deletions bring nothing. */
      function* next(end: string | null): Iterable<Entry> {
        for (let change = above[at]; change && (end === null || change[0] < end); change = above[++at]) {
          const [key, value] = change;
          if (value !== null) yield [key, value];
        }
      }
      for await (const chunk of snapshot.chunks({ from, to })) {
        const merged: Entry[] = [];
        for (const entry of chunk) {
          merged.push(...next(entry[0]));
          if (!changes.has(entry[0])) merged.push(entry);
        }
        yield merged;
      }
      yield [...next(null)];
    },
    close: () => snapshot.close(),
  };
}
