/**
 * Appends instances for ever and prints the number of each once it is acknowledged: `append-child DIRECTORY`. The test that
 * starts it kills it. Goes on after the newest instance it finds.
 */
import { writeSync } from "node:fs";
import { openStorage } from "../../../storage/leveldb.ts";
import { asAppend, FOUNDING, historyOf } from "./history.ts";

const storage = await openStorage({ directory: process.argv[2] ?? "", founding: FOUNDING });
const { last } = storage.journal.summary;
const records = historyOf({ count: last + 20_000, bytes: 300 }).slice(last);
const applied = { ...storage.state.applied };

let next = 0;

/** Several of these keep several appends in flight; the state follows behind. */
async function run(): Promise<void> {
  for (;;) {
    const record = records[next++];
    if (!record) return;
    const { instance, digest } = record;
    await storage.journal.append([asAppend(record)]);
    writeSync(1, `${instance}\n`);
    if (instance % 10 !== 0 || instance <= applied.instance) continue;
    applied.instance = instance;
    const changes = new Map([[`key ${instance % 7}`, Buffer.from(String(instance))]]);
    await storage.state.write({ changes, applied: { instance, digest, timestampMs: instance } });
  }
}

await Promise.all([run(), run(), run(), run()]);
