import { describe, expect, it } from "vitest";
import { utf8 } from "../../../protocol/bytes.ts";
import { overlaid } from "../../../server/transfer/overlay.ts";
import type { StateSnapshot } from "../../../storage/contract.ts";
import { seeded } from "../../simulation/random.ts";

type Entries = Map<string, Uint8Array | null>;
const at = (instance: number) => ({ instance, digest: `${instance}`, timestampMs: instance });

function snapshotOf(entries: Entries, chunk: number): StateSnapshot {
  const sorted = [...entries].sort(([a], [b]) => (a < b ? -1 : 1)) as [string, Uint8Array][];
  return {
    applied: at(1),
    async *chunks({ from, to }) {
      const inside = sorted.filter(([key]) => key >= from && key < to);
      for (let index = 0; index < inside.length; index += chunk) yield inside.slice(index, index + chunk);
    },
    close: async () => {},
  };
}

async function contents(snapshot: StateSnapshot, range: { from: string; to: string }): Promise<string[]> {
  const found: string[] = [];
  for await (const chunk of snapshot.chunks(range)) for (const [key, value] of chunk) found.push(`${key}=${value}`);
  return found;
}

describe("a group above a snapshot", () => {
  it("is the state after it, in order, whatever changed where", async () => {
    const random = seeded(7);
    for (let round = 0; round < 300; round++) {
      const before: Entries = new Map();
      const changes: Entries = new Map();
      const key = (): string => `k${String(random.below(30)).padStart(2, "0")}`;
      for (let count = random.below(20); count > 0; count--) before.set(key(), utf8(`old ${count}`));
      for (let count = random.below(20); count > 0; count--)
        changes.set(key(), random.below(3) === 0 ? null : utf8(`new ${count}`));
      const after: Entries = new Map([...before, ...changes]);
      for (const [name, value] of after) if (value === null) after.delete(name);
      const range = { from: key(), to: `k${random.below(4)}9` };
      const chunk = 1 + random.below(5);
      const above = overlaid(snapshotOf(before, chunk), { changes, applied: at(2) });
      expect(await contents(above, range)).toEqual(await contents(snapshotOf(after, chunk), range));
      expect(above.applied.instance).toBe(2);
    }
  });
});
