/**
 * From an open data directory to a replica that knows where it stands: load the stored state, execute again from the
 * journal what the state store lacks, and apply the restart rules (docs/protocol.md section 4 and 6).
 */
import { decodeBatch } from "../protocol/batch.ts";
import { certificateChecks } from "../protocol/certificate.ts";
import type { Cluster } from "../protocol/cluster.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { decoded, isRejection, QuorateError } from "../protocol/errors.ts";
import { HISTORY_BATCHES_MAX } from "../protocol/limits.ts";
import type { Certificate } from "../protocol/messages.ts";
import type { View } from "../protocol/view.ts";
import type { InstanceRecord, Storage } from "../storage/contract.ts";
import { decidedInstance, type Position, regenciesIn, type Start, startOf } from "./consensus/restart.ts";
import type { ServiceFactory } from "./service/contract.ts";
import { Executor, foundingOf } from "./service/executor.ts";
import { settledFrom } from "./transfer/settled.ts";

const CHUNK_BYTES = 8 * 1024 * 1024;

export interface Recovered {
  readonly executor: Executor;
  readonly start: Start;
  readonly settledFrom: number;
  /** Instances executed again. */
  readonly replayed: number;
}

/** @throws QuorateError STORAGE_DAMAGED, STORAGE_FAILED */
export async function recover(options: {
  crypto: Crypto;
  /** With its first view. */
  cluster: Cluster;
  storage: Storage;
  service: ServiceFactory;
}): Promise<Recovered> {
  const { crypto, cluster, storage, service } = options;
  const { journal, state } = storage;
  const { summary } = journal;
  const { applied } = state;
  const executor = new Executor({
    crypto,
    ...foundingOf(cluster),
    stored: state,
    applied,
    service,
  });
  for await (const chunk of state.chunks({ from: "", to: "\u00ff" })) {
    for (const [key, value] of chunk) executor.load(key, value);
  }
  const newest = summary.last > 0 ? await journal.read(summary.last) : null;
  const decided = decidedInstance({ applied: applied.instance, newest });
  await replay(crypto, storage, executor, decided);
  const lastDecided: Position = executor.applied;
  const { view } = executor;
  const regencies = regenciesIn(view.id, summary.regency);
  const { keptCertificate, newestAccepted } = await acceptedIn({ crypto, view, storage });
  const lastRecord = lastDecided.instance > 0 ? await journal.read(lastDecided.instance) : null;
  const { cleanStop, forgotten } = summary;
  const base = summary.base.instance;
  const hear = view.consulted;
  const durable = {
    ...regencies,
    newest,
    newestAccepted,
    lastRecord,
    cleanStop,
    base,
    forgotten,
    keptCertificate,
    hear,
  };
  const start = startOf(durable, lastDecided);
  return { executor, start, settledFrom: settledFrom(state), replayed: decided - applied.instance };
}

/** What this replica has accepted, as far as the journal knows and the certificates are valid. */
export async function acceptedIn(options: {
  crypto: Crypto;
  view: View;
  storage: Storage;
}): Promise<{ keptCertificate: Certificate | null; newestAccepted: InstanceRecord | null }> {
  const { crypto, view, storage } = options;
  const kept = storage.journal.summary.keptCertificate;
  const keptCertificate = kept && certified(crypto, view, kept) ? kept : null;
  return { keptCertificate, newestAccepted: await newestValid(crypto, view, storage) };
}

/**
 * The newest accept record that counts: its certificate verifies. The record is journaled while that is checked, so the
 * newest of all may hold a bad one.
 */
async function newestValid(crypto: Crypto, view: View, { journal }: Storage): Promise<InstanceRecord | null> {
  let record = journal.summary.newestAccepted;
  while (record && !isValid(crypto, view, record)) {
    let { instance } = record;
    if ((record.certificate?.view ?? 0) < view.id) return null;
    do record = --instance > 0 ? await journal.read(instance) : null;
    while (record && !record.certificate);
  }
  return record;
}

function isValid(crypto: Crypto, view: View, { certificate }: InstanceRecord): boolean {
  return certificate !== null && certified(crypto, view, certificate);
}

function certified(crypto: Crypto, view: View, certificate: Certificate): boolean {
  const checks = certificateChecks(view, certificate);
  return checks?.every((check) => crypto.verify(check.publicKey, check.statement, check.signature)) ?? false;
}

/** Executes the journal from where the state stands up to `decided`, writing the state in groups on the way. */
async function replay(crypto: Crypto, storage: Storage, executor: Executor, decided: number): Promise<void> {
  while (executor.applied.instance < decided) {
    const from = executor.applied.instance + 1;
    const limits = { maxRecords: HISTORY_BATCHES_MAX, maxBytes: CHUNK_BYTES };
    const records = await storage.journal.range({ from, to: decided, ...limits });
    if (records[0]?.instance !== from) {
      throw new QuorateError("STORAGE_DAMAGED", `the journal lacks instance ${from}, which the state store needs`, {
        store: "state",
        instance: from,
      });
    }
    for (const record of records) {
      const batch = decoded(() => decodeBatch(crypto, record.batch));
      if (isRejection(batch)) {
        throw new QuorateError(
          "STORAGE_DAMAGED",
          `the batch of instance ${record.instance} in the journal is malformed`,
          { store: "journal", instance: record.instance },
        );
      }
      executor.execute(batch, record.digest);
    }
    const group = executor.takeGroup();
    if (!group) continue;
    await storage.state.write(group);
    executor.groupDurable();
  }
}
