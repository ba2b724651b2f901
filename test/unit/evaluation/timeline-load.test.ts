/** The load of the timeline: its pace, and that its checks find what a store may do wrong. */
import { expect, test } from "vitest";
import type { Kv } from "../../../client/index.ts";
import { nextDueMs, TimelineLoad } from "../../evaluation/timeline-load.ts";

interface Stored {
  readonly value: string;
  readonly createRevision: bigint;
  readonly modRevision: bigint;
  readonly version: bigint;
}

/** A store in memory as far as the load uses one; the first write of a key with `forgets` in it is acknowledged and left out. */
function store(forgets: string | null): { kv: Kv<string>; entries: Map<string, Stored>; forgotten: string[] } {
  const entries = new Map<string, Stored>();
  const forgotten: string[] = [];
  let revision = 0n;
  const kv = {
    async put(key: string, value: string) {
      revision++;
      const { createRevision = revision, version = 0n } = entries.get(key) ?? {};
      const entry = { value, createRevision, modRevision: revision, version: version + 1n };
      if (forgets !== null && key.includes(forgets) && forgotten.length === 0) forgotten.push(key);
      else entries.set(key, entry);
      return { revision, createRevision, version: entry.version };
    },
    async get(key: string) {
      const entry = entries.get(key);
      return entry ? { key, ...entry } : null;
    },
    async *range({ prefix }: { prefix: string }) {
      for (const [key, { value }] of entries) if (key.startsWith(prefix)) yield { key, value };
    },
  };
  return { kv: kv as unknown as Kv<string>, entries, forgotten };
}

/** Some hundred operations of two clients. */
async function loaded(kv: Kv<string>): Promise<TimelineLoad> {
  const load = new TimelineLoad({ clients: [kv, kv], perSecond: 20_000, valueBytes: 20, name: "test" });
  while (load.answers.length < 500) await new Promise((resolve) => setTimeout(resolve, 5));
  await load.stop();
  return load;
}

test("with a store that does its part nothing is lost, and the history is linearizable", async () => {
  const { kv, entries } = store(null);
  const load = await loaded(kv);
  expect(await load.lost()).toEqual([]);
  expect(await load.violation()).toBeNull();
  const kept = [...entries.keys()].filter((key) => key.startsWith("test/kept/"));
  expect(load.acknowledged).toBe(kept.length);
  expect(kept.length).toBeGreaterThan(50);
  expect(load.recorded).toBeGreaterThan(500);
});

test("an acknowledged write of a key that is put once is missed", async () => {
  const { kv, forgotten } = store("/kept/");
  const load = await loaded(kv);
  expect(forgotten).toHaveLength(1);
  expect(await load.lost()).toEqual(forgotten);
});

test("an acknowledged write of a shared key that takes no effect is no linearizable history", async () => {
  const { kv } = store("/shared/");
  const load = await loaded(kv);
  expect(await load.violation()).toContain("not linearizable");
});

test("due moments that passed during an operation are gone, and the others stay where they were", () => {
  expect(nextDueMs(1_000, { periodMs: 50, nowMs: 1_004 })).toBe(1_050);
  expect(nextDueMs(1_000, { periodMs: 50, nowMs: 1_050 })).toBe(1_050);
  expect(nextDueMs(1_000, { periodMs: 50, nowMs: 3_026 })).toBe(3_050);
  expect(nextDueMs(1_000, { periodMs: 0, nowMs: 1_004 })).toBe(1_004);
});
