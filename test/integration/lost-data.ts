/** A cluster with some records and checkpoints, for tests in which a replica loses what it has on disk. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { type NewCluster, type Status, TestCluster, until } from "./cluster.ts";

/** The shortest there is: logs are truncated soon. */
export const SHORT_PERIOD = 128;
const VALUE = "x".repeat(1_000);
const RECOVERY_MS_MAX = 60_000;

export interface Filled {
  readonly cluster: TestCluster;
  /** Records written together: fewer of them make more instances. */
  readonly together: number;
  /** How many records `expectRecords` looks for. */
  records: number;
}

/** A running cluster whose replicas have records and checkpoints; `start` starts those that are not plain servers. */
export async function filledCluster(
  options: NewCluster & {
    records?: number;
    together?: number;
    start?: (cluster: TestCluster) => Promise<unknown>;
  } = {},
): Promise<Filled> {
  const { records = 2_400, together = 8, settings, start = (created) => created.startAll(), ...wanted } = options;
  const short = { checkpointPeriod: SHORT_PERIOD, requestTimeoutMs: 1_000, ...settings };
  const cluster = await TestCluster.create({ ...wanted, settings: short });
  await start(cluster);
  const filled = { cluster, together, records: 0 };
  await write(filled, records);
  return filled;
}

/** Writes so many records more, some per instance. */
export async function write(filled: Filled, count: number): Promise<void> {
  const kv = await filled.cluster.connect();
  const to = filled.records + count;
  while (filled.records < to) {
    const from = filled.records;
    const size = Math.min(filled.together, to - from);
    const puts = Array.from({ length: size }, (_, offset) => kv.put(keyOf(from + offset), `${from + offset}:${VALUE}`));
    await Promise.all(puts);
    filled.records += size;
  }
  await kv.close();
}

/** Advances the cluster by about so many instances without adding records. */
export async function advance({ cluster }: Filled, instances: number): Promise<void> {
  const kv = await cluster.connect();
  for (let put = 0; put < instances; put++) await kv.put("advance", String(put));
  await kv.close();
}

export function dataOf({ cluster }: Filled, replica: number): string {
  return join(cluster.home(replica), "data");
}

/** Kills a replica and deletes its data directory. */
export async function rob(filled: Filled, replica: number): Promise<void> {
  await filled.cluster.kill(replica, "SIGKILL");
  rmSync(dataOf(filled, replica), { recursive: true });
}

/** Until a replica votes. */
export function votes({ cluster }: Filled, replica: number): Promise<Status> {
  let last: Status | null = null;
  return until(
    async () => {
      last = await cluster.status(replica);
      return last.state === "voting" ? last : null;
    },
    { timeoutMs: RECOVERY_MS_MAX, what: () => `replica ${replica} to vote: ${JSON.stringify(last)}` },
  );
}

/** Until a replica fetches a checkpoint, and has some of it when `begun`; or votes, when that was over between two looks. */
export function transfers({ cluster }: Filled, replica: number, begun = false): Promise<Status> {
  let last: Status | null = null;
  return until(
    async () => {
      last = await cluster.status(replica);
      if (last.state === "voting") return last;
      return isTransferring(last) && (!begun || (last.recovery?.bytes ?? 0) > 0) ? last : null;
    },
    { everyMs: 10, what: () => `replica ${replica} to fetch a checkpoint: ${JSON.stringify(last)}` },
  );
}

/** Robs a replica and starts it, until it is seen in the middle of fetching a checkpoint. */
export async function robUntilTransfers(filled: Filled, replica: number): Promise<Status> {
  for (;;) {
    await rob(filled, replica);
    await filled.cluster.startOne(replica);
    const status = await transfers(filled, replica, true);
    if (isTransferring(status)) return status;
  }
}

/** Catching up by log has a progress as well. */
export function isTransferring({ state, recovery }: Status): boolean {
  return state === "transferring" && recovery !== null;
}

/**
 * Every record is there in reads that need the answer of `recovered`: `down`, f others, are killed before. The replicas that
 * are left agree.
 */
export async function expectRecords(
  filled: Filled,
  { recovered, down }: { recovered: number; down: readonly number[] },
): Promise<void> {
  const { cluster, records } = filled;
  expect(down).not.toContain(recovered);
  await Promise.all(down.map((replica) => cluster.kill(replica, "SIGKILL")));
  const kv = await cluster.connect();
  const seen: string[] = [];
  for await (const { key, value } of kv.range({ prefix: "record/" })) {
    expect(value, key).toBe(`${seen.length}:${VALUE}`);
    seen.push(key);
  }
  expect(seen).toEqual(Array.from({ length: records }, (_, index) => keyOf(index)));
  await cluster.agreement(cluster.ids.filter((id) => !down.includes(id)));
}

/** Did the process that runs this replica fetch a checkpoint to its end? */
export function fetched({ cluster }: Filled, replica: number): boolean {
  return cluster.log(replica).some(({ msg }) => msg === "the fetched state is complete");
}

function keyOf(index: number): string {
  return `record/${String(index).padStart(6, "0")}`;
}
