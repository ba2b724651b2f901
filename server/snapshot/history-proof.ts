/**
 * A piece of the log that proves itself (docs/protocol.md sections 4.7 and 6): HISTORY names h(from - 1), its batches hash on
 * from there, and a write certificate above them stands for all of it.
 */
import { certificateChecksAt } from "../../protocol/certificate.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import type { MessageOf } from "../../protocol/messages.ts";
import type { ViewChain } from "../../protocol/view-chain.ts";
import { type ProvenBatch, provenCount, segmentOf } from "../recovery/segments.ts";

/**
 * What of the batches the certificate proves, from the first on; empty when it proves none or is no certificate. In cft mode
 * there are none that prove anything to somebody who did not hear it from a member itself.
 */
export function provenBatches(crypto: Crypto, chain: ViewChain, history: MessageOf<"HISTORY">): readonly ProvenBatch[] {
  const { batches, proof } = history;
  const view = chain.genesis;
  if (!proof || batches.length === 0 || view.mode === "cft") return [];
  const segment = segmentOf(crypto, view, history);
  const count = provenCount(crypto, view, segment, proof);
  if (count === "false" || count === 0) return [];
  const checks = certificateChecksAt((instance) => chain.at(instance), proof.certificate);
  if (checks === null || checks === "unknown") return [];
  const valid = checks.every((check) => crypto.verify(check.publicKey, check.statement, check.signature));
  return valid ? segment.batches.slice(0, count) : [];
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
