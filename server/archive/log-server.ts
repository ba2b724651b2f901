/**
 * Serves the log to replicas that lag (docs/protocol.md sections 4.7 and 6): ranges of batches with a proof, single batches
 * by digest. One answer at a time per asker; what comes meanwhile is dropped, the asker asks again.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { HISTORY_BATCHES_MAX, HISTORY_BYTES_MAX } from "../../protocol/limits.ts";
import type { Certificate, HistoryProof, Message, MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import type { InstanceRecord, Journal } from "../../storage/contract.ts";

/** Records looked at beyond a range for a certificate: those learned as decided have none. */
const LOOK_AHEAD = 64;
/** Below an answer without batches. */
const NO_DIGEST = "\0".repeat(32) as Digest;

export interface LogServerPort {
  /** The installed view and regency, for the answer. */
  place(): { readonly view: number; readonly regency: number };
  send(to: ReplicaId, message: Message): void;
  /** Are its signatures valid? It is journaled while that is found out (4.3), and who serves a bad one would be taken for a liar. */
  holds(certificate: Certificate): Promise<boolean>;
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

  history(to: ReplicaId, from: number, upTo: number): void {
    this.#serve(to, () => this.segment(from, upTo));
  }

  /** Batches from `from` on, as many as fit, with a proof; none when the log does not hold `from` any more. */
  async segment(from: number, upTo: number): Promise<MessageOf<"HISTORY">> {
    const limits = { maxRecords: HISTORY_BATCHES_MAX, maxBytes: HISTORY_BYTES_MAX };
    const records = await this.#journal.range({ from, to: upTo, ...limits });
    const previous = await this.#journal.digestAt(from - 1);
    const place = this.#port.place();
    if (records.length === 0 || previous === null) {
      return { type: "HISTORY", ...place, from, previous: NO_DIGEST, batches: [], proof: null };
    }
    const proof = await this.#proof(records);
    return { type: "HISTORY", ...place, from, previous, batches: records.map((record) => record.batch), proof };
  }

  /** The best proof at hand: the nearest certificate beyond the range, else the highest one within it. */
  async #proof(records: readonly InstanceRecord[]): Promise<HistoryProof | null> {
    const last = records.at(-1) as InstanceRecord;
    const links: Digest[] = [];
    for (let instance = last.instance + 1; links.length < LOOK_AHEAD; instance++) {
      const beyond = await this.#journal.read(instance);
      if (!beyond) break;
      links.push(beyond.batchDigest);
      const { certificate } = beyond;
      if (certificate && (await this.#port.holds(certificate))) return { links, certificate };
    }
    for (const { certificate } of records.toReversed()) {
      if (certificate && (await this.#port.holds(certificate))) return { links: [], certificate };
    }
    return null;
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
