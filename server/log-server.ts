/**
 * Serves the log to replicas that lag (docs/protocol.md sections 4.7 and 6): ranges of batches with a proof, single batches
 * by digest. One answer at a time per asker; what comes meanwhile is dropped, the asker asks again.
 */
import type { Digest } from "../protocol/bytes.ts";
import { HISTORY_BATCHES_MAX, HISTORY_BYTES_MAX } from "../protocol/limits.ts";
import type { HistoryProof, Message } from "../protocol/messages.ts";
import type { ReplicaId } from "../protocol/view.ts";
import type { InstanceRecord, Journal } from "../storage/contract.ts";

export interface LogServerPort {
  /** The installed view and regency, for the answer. */
  place(): { readonly view: number; readonly regency: number };
  send(to: ReplicaId, message: Message): void;
  /** The journal cannot be read: this replica is damaged. */
  failed(error: unknown): void;
}

export class LogServer {
  readonly #journal: Journal;
  readonly #port: LogServerPort;
  readonly #serving = new Set<ReplicaId>();

  constructor(journal: Journal, port: LogServerPort) {
    this.#journal = journal;
    this.#port = port;
  }

  history(to: ReplicaId, from: number, decided: number): void {
    this.#serve(to, async () => {
      const limits = { maxRecords: HISTORY_BATCHES_MAX, maxBytes: HISTORY_BYTES_MAX };
      const records = await this.#journal.range({ from, to: decided, ...limits });
      const last = records.at(-1);
      if (!last) return null;
      const beyond = await this.#journal.read(last.instance + 1);
      const batches = records.map((record) => record.batch);
      return { type: "HISTORY", ...this.#port.place(), from, batches, proof: proofOf(records, beyond) };
    });
  }

  batch(to: ReplicaId, instance: number, digest: Digest): void {
    this.#serve(to, async () => {
      const record = await this.#journal.read(instance);
      if (record?.digest !== digest) return null;
      return { type: "BATCH", ...this.#port.place(), instance, digest, batch: record.batch };
    });
  }

  #serve(to: ReplicaId, work: () => Promise<Message | null>): void {
    if (this.#serving.has(to)) return;
    this.#serving.add(to);
    work()
      .then((message) => {
        if (message) this.#port.send(to, message);
      })
      .catch((error: unknown) => this.#port.failed(error))
      .finally(() => this.#serving.delete(to));
  }
}

/** The best proof at hand: a certificate just beyond the range, else the highest one within it. */
function proofOf(records: readonly InstanceRecord[], beyond: InstanceRecord | null): HistoryProof | null {
  if (beyond?.certificate) return { links: [beyond.batchDigest], certificate: beyond.certificate };
  const certificate = records.findLast((record) => record.certificate)?.certificate;
  return certificate ? { links: [], certificate } : null;
}
