/** Journal records with true digests, the same for the same arguments: what the storage tests write and compare with. */
import { encodeBatch, historyDigest } from "../../../protocol/batch.ts";
import type { Digest } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import type { QuorateError } from "../../../protocol/errors.ts";
import type { Founding, InstanceRecord, JournalRecord, Storage } from "../../../storage/contract.ts";

export const FOUNDING: Founding = { cluster: "c".repeat(32), replica: 2, genesis: "g".repeat(32) };

/** Records 1..count of one history; `bytes` of request in each batch. */
export function historyOf(options: {
  count: number;
  bytes?: number;
  accepted?: (instance: number) => boolean;
}): InstanceRecord[] {
  const { count, bytes = 100, accepted = () => true } = options;
  const records: InstanceRecord[] = [];
  let previous: Digest = FOUNDING.genesis;
  for (let instance = 1; instance <= count; instance++) {
    const record = following(previous, { instance, bytes, accepted: accepted(instance) });
    records.push(record);
    previous = record.digest;
  }
  return records;
}

/** A record of this instance after the history of that digest. */
export function following(
  previous: Digest,
  { instance, bytes, accepted }: { instance: number; bytes: number; accepted: boolean },
): InstanceRecord {
  const request = Buffer.alloc(bytes, `${instance}:`);
  const batch = encodeBatch({ instance, timestampMs: 1000 + instance, requests: [request] });
  const batchDigest = nodeCrypto.sha256(batch);
  const digest = historyDigest(nodeCrypto, { cluster: FOUNDING.cluster, instance, previous, batchDigest });
  const place = { view: 0, regency: 0, instance, digest };
  const votes = [0, 1, 3].map((replica) => ({ replica, signature: Buffer.alloc(64, replica + instance) }));
  return { ...place, batchDigest, batch, certificate: accepted ? { ...place, votes } : null };
}

export function asAppend(record: InstanceRecord): JournalRecord {
  return { type: "instance", ...record };
}

/** Comparable form: byte strings from a store are views of another class. */
export function plain(record: InstanceRecord | null | undefined): unknown {
  if (!record) return record;
  const votes = record.certificate?.votes.map((vote) => [vote.replica, Buffer.from(vote.signature).toString("hex")]);
  const certificate = record.certificate && { ...record.certificate, votes };
  return { ...record, batch: Buffer.from(record.batch).toString("hex"), certificate };
}

export async function appendAll(storage: Storage, records: readonly InstanceRecord[]): Promise<void> {
  await Promise.all(records.map((record) => storage.journal.append([asAppend(record)])));
}

/** The record of an instance in `historyOf`. */
export function at(records: readonly InstanceRecord[], instance: number): InstanceRecord {
  const record = records[instance - 1];
  if (!record) throw new RangeError(`no instance ${instance} in this history`);
  return record;
}

export async function codeOf(promise: Promise<unknown>): Promise<QuorateError> {
  try {
    await promise;
  } catch (error) {
    return error as QuorateError;
  }
  throw new Error("expected a rejection");
}
