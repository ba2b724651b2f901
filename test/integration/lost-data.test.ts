/** A replica that lost its data comes back by itself (docs/protocol.md section 4, "Lost journal"; section 6): real processes. */
import { cpSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type Status, until } from "./cluster.ts";
import {
  advance,
  expectRecords,
  type Filled,
  fetched,
  filledCluster,
  isTransferring,
  rob,
  robUntilTransfers,
  transfers,
  votes,
  write,
} from "./lost-data.ts";

const LIAR = new URL("./lying-replica.ts", import.meta.url);

test("a data directory deleted while its replica is down: the replica votes again without help, with the state of the others", async () => {
  const filled = await filledCluster();
  const { cluster } = filled;
  await rob(filled, 3);
  await write(filled, 200);
  await cluster.startOne(3);
  await votes(filled, 3);
  expect(fetched(filled, 3)).toBe(true);
  await write(filled, 200);
  await cluster.agreement();
  for (const id of cluster.ids) {
    const { alarms } = await cluster.status(id);
    expect(alarms.filter(({ code }) => code !== "REPAIRED")).toEqual([]);
  }
  await expectRecords(filled, { recovered: 3, down: [0] });
});

test("a new directory with the key, node.yaml and cluster.json of a replica, and nothing else, becomes that replica", async () => {
  const filled = await filledCluster();
  const { cluster } = filled;
  await cluster.kill(2, "SIGKILL");
  const home = cluster.home(2);
  const kept = join(cluster.folder, "kept");
  mkdirSync(kept, { mode: 0o700 });
  for (const name of ["replica.key", "node.yaml"]) cpSync(join(home, name), join(kept, name));
  rmSync(home, { recursive: true });
  mkdirSync(home, { mode: 0o700 });
  cpSync(kept, home, { recursive: true });
  await cluster.startOne(2);
  await votes(filled, 2);
  await cluster.agreement();
  await expectRecords(filled, { recovered: 2, down: [0] });
});

test("the receiver and then the donor are killed in the middle of a transfer, which is completed all the same", async () => {
  const filled = await filledCluster({ records: 6_000, together: 20 });
  const { cluster } = filled;
  let status: Status;
  do {
    await robUntilTransfers(filled, 3);
    await cluster.kill(3, "SIGKILL");
    await cluster.startOne(3);
    status = await transfers(filled, 3);
  } while (!isTransferring(status));
  const donor = status.recovery?.donor ?? 0;
  await cluster.kill(donor, "SIGKILL");
  await until(() => (fetched(filled, 3) ? true : null), { what: "replica 3 to complete its state" });
  // With the donor and the votes of one that forgot its own, two are missing: a quorum needs one of them back.
  await cluster.startOne(donor);
  await votes(filled, 3);
  await write(filled, 100);
  await expectRecords(filled, { recovered: 3, down: [donor] });
});

test("with f of seven down, one that lost its data fetches the state, and votes", async () => {
  const filled = await filledCluster({ replicas: 7, records: 900, together: 3 });
  const { cluster } = filled;
  await Promise.all([rob(filled, 6), cluster.kill(5, "SIGKILL")]);
  await cluster.startOne(6);
  await votes(filled, 6);
  expect(fetched(filled, 6)).toBe(true);
  await write(filled, 100);
  await cluster.kill(0, "SIGKILL");
  await expectRecords(filled, { recovered: 6, down: [0, 5] });
});

test("two of seven lost their data at once: both fetch the state, and vote", async () => {
  const filled = await filledCluster({ replicas: 7, records: 900, together: 3 });
  const { cluster } = filled;
  await Promise.all([rob(filled, 6), rob(filled, 5)]);
  await Promise.all([cluster.startOne(6), cluster.startOne(5)]);
  await Promise.all([votes(filled, 6), votes(filled, 5)]);
  await write(filled, 100);
  await expectRecords(filled, { recovered: 6, down: [0, 1] });
});

test("one lying donor: the state that is fetched is right, and the liar is named", async () => {
  const filled = await filledCluster({
    start: async (cluster) => {
      await Promise.all([0, 2, 3].map((replica) => cluster.startOne(replica)));
      await cluster.startOne(1, { program: LIAR, args: ["--lies", "donor", "--donor-way", "state"] });
    },
  });
  const { cluster } = filled;
  const warnings = () => cluster.log(3).filter(({ msg }) => msg === "this replica sent something false");
  // Another checkpoint may be completed after the look at them, and somebody else be asked first.
  for (let attempts = 0; attempts < 5 && warnings().length === 0; attempts++) {
    await untilAskedFirst(filled, 1);
    await rob(filled, 3);
    await cluster.startOne(3);
    await votes(filled, 3);
  }
  expect(warnings().map(({ peer }) => peer)).toContain(1);
  expect(warnings().filter(({ peer }) => peer !== 1)).toEqual([]);
  await expectRecords(filled, { recovered: 3, down: [0] });
});

/** Writes until this replica is the last but one of three that took a checkpoint: one other can speak for its state. */
async function untilAskedFirst(filled: Filled, replica: number): Promise<void> {
  const { cluster } = filled;
  for (let steps = 0; steps < 200; steps++) {
    const others = cluster.ids.filter((id) => id !== 3);
    const newest = await Promise.all(
      others.map(async (id) => ({ id, instance: (await cluster.status(id)).checkpoints?.newest?.instance ?? 0 })),
    );
    const byAge = newest.sort((a, b) => a.instance - b.instance);
    if (byAge[1]?.id === replica && new Set(byAge.map(({ instance }) => instance)).size === 3) return;
    await advance(filled, 5);
  }
}
