/**
 * A piece of the log that proves itself (docs/protocol.md sections 4.7 and 6): HISTORY names h(from - 1), its batches hash on
 * from there, and a write certificate above them stands for all of it.
 */
import { historyDigest } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import { certificateChecks } from "../../protocol/certificate.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import type { MessageOf } from "../../protocol/messages.ts";
import type { View } from "../../protocol/view.ts";

export interface ProvenBatch {
  readonly instance: number;
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

/** What of the batches the certificate proves, from the first on; empty when it proves none or is no certificate. */
export function provenBatches(crypto: Crypto, view: View, history: MessageOf<"HISTORY">): ProvenBatch[] {
  const { from, previous, batches, proof } = history;
  if (!proof) return [];
  const { certificate, links } = proof;
  const last = from + batches.length - 1;
  if (certificate.instance > last && links.length !== certificate.instance - last) return [];
  const chained: ProvenBatch[] = [];
  let digest = previous;
  const link = (instance: number, batchDigest: Digest): void => {
    digest = historyDigest(crypto, { cluster: view.cluster, instance, previous: digest, batchDigest });
  };
  for (const bytes of batches) {
    const instance = from + chained.length;
    link(instance, crypto.sha256(bytes));
    chained.push({ instance, digest, bytes });
  }
  if (certificate.instance > last) {
    for (const [index, batchDigest] of links.entries()) link(last + 1 + index, batchDigest);
  } else {
    digest = chained[certificate.instance - from]?.digest ?? "";
  }
  if (digest !== certificate.digest) return [];
  const checks = certificateChecks(view, certificate);
  const valid = checks?.every((check) => crypto.verify(check.publicKey, check.statement, check.signature)) ?? false;
  return valid ? chained.slice(0, certificate.instance - from) : [];
}

/** The first `count` of its proven batches as an answer of its own, proven to its end by the same certificate. */
export function provenPrefix(crypto: Crypto, history: MessageOf<"HISTORY">, count: number): MessageOf<"HISTORY"> {
  const { from, batches, proof } = history;
  if (!proof || count === batches.length) return history;
  const { certificate, links } = proof;
  const beyond = batches.slice(count, certificate.instance - from + 1).map((bytes) => crypto.sha256(bytes));
  const last = from + batches.length - 1;
  const rest = certificate.instance > last ? links : [];
  return { ...history, batches: batches.slice(0, count), proof: { certificate, links: [...beyond, ...rest] } };
}
