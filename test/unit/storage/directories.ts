/** Real data directories with known contents, for the tests of storage on LevelDB. */
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { hex } from "../../../protocol/bytes.ts";
import type { InstanceRecord, Storage } from "../../../storage/contract.ts";
import { openStorage, prepareDirectory } from "../../../storage/leveldb.ts";
import { asAppend, FOUNDING, historyOf, plain } from "./history.ts";

export const CLUSTER_ID = hex(FOUNDING.cluster);

export async function temporary(): Promise<string> {
  return mkdtemp(join(tmpdir(), "quorate-storage-"));
}

/**
 * Appends and closes `sessions` times, so that old records lie in tables and the newest in a log; every fifth instance brings
 * a regency. With `keep`, all but the newest so many are dropped at the end of each session.
 */
export async function fill(
  directory: string,
  options: { perSession: number; sessions: number; bytes: number; keep?: number },
): Promise<InstanceRecord[]> {
  const { perSession, sessions, bytes, keep } = options;
  await prepareDirectory({ directory, clusterId: CLUSTER_ID });
  const records = historyOf({ count: perSession * sessions, bytes });
  for (let session = 0; session < sessions; session++) {
    const storage = await openStorage({ directory, founding: FOUNDING });
    for (const record of records.slice(session * perSession, (session + 1) * perSession)) {
      const { instance, digest } = record;
      const regency = { type: "regency", view: 0, regency: instance } as const;
      await storage.journal.append(instance % 5 === 0 ? [regency, asAppend(record)] : [asAppend(record)]);
      await storage.state.write({ changes: changesAt(instance), applied: { instance, digest, timestampMs: instance } });
    }
    if (keep) await storage.journal.truncate(storage.journal.last - keep + 1);
    await storage.close();
  }
  return records;
}

/** Every instance adds a key, overwrites one, and deletes one. */
export function changesAt(instance: number): Map<string, Uint8Array | null> {
  return new Map<string, Uint8Array | null>([
    [`key ${instance}`, Buffer.alloc(200, String(instance))],
    ["newest", Buffer.from(String(instance))],
    [`key ${instance - 3}`, null],
  ]);
}

function stateAt(instance: number): Map<string, string> {
  const state = new Map<string, string>();
  for (let each = 1; each <= instance; each++) {
    for (const [key, value] of changesAt(each)) {
      if (value) state.set(key, Buffer.from(value).toString("latin1"));
      else state.delete(key);
    }
  }
  return new Map([...state].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Both stores stand at exact instances of what `fill` wrote. @throws QuorateError STORAGE_DAMAGED from reading entries */
export async function expectPrefix(storage: Storage, records: readonly InstanceRecord[]): Promise<void> {
  const { base, last, regency, newestAccepted, forgotten } = storage.journal.summary;
  const end = Math.max(base.instance, last);
  expect(base.digest).toBe(records[base.instance - 1]?.digest ?? FOUNDING.genesis);
  const range = { from: base.instance + 1, to: end, maxRecords: end, maxBytes: 1e9 };
  expect((await storage.journal.range(range)).map(plain)).toEqual(records.slice(base.instance, end).map(plain));
  if (!forgotten) {
    expect(plain(newestAccepted)).toEqual(plain(records[end - 1] ?? null));
    expect(regency.regency).toBe(end - (end % 5));
  }
  const state = new Map<string, string>();
  for await (const chunk of storage.state.chunks({ from: "", to: "\xff" })) {
    for (const [key, value] of chunk) {
      state.set(key, Buffer.from(value).toString("latin1"));
      expect(Buffer.from(storage.state.get(key) ?? "missing").toString("latin1")).toBe(state.get(key));
    }
  }
  expect(state).toEqual(stateAt(storage.state.applied.instance));
}
