/**
 * Segments of the log that prove themselves (docs/protocol.md sections 4.7 and 6): hashed from the digest they begin with up
 * to their own certificate, whoever sent them. Digests are chained, so the certificate commits to all of it, the digest
 * below the first batch included.
 */
import { historyDigest } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import type { HistoryProof, MessageOf } from "../../protocol/messages.ts";
import type { View } from "../../protocol/view.ts";

/** A batch of the history as a segment claims it: `digest` is h(instance). */
export interface ProvenBatch {
  readonly instance: number;
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

/** Batches hashed onto `previous`, which is h(from - 1). */
export interface Segment {
  readonly from: number;
  readonly previous: Digest;
  readonly batches: readonly ProvenBatch[];
}

export function segmentOf(crypto: Crypto, view: View, message: MessageOf<"HISTORY">): Segment {
  let { previous } = message;
  const batches = message.batches.map((bytes, index) => {
    const instance = message.from + index;
    const batchDigest = crypto.sha256(bytes);
    previous = historyDigest(crypto, { cluster: view.cluster, instance, previous, batchDigest });
    return { instance, digest: previous, bytes };
  });
  return { from: message.from, previous: message.previous, batches };
}

/**
 * How many batches of the segment the proof's certificate proves, were its signatures valid; "false" when the segment
 * contradicts its own certificate, which no honest one does.
 */
export function provenCount(crypto: Crypto, view: View, segment: Segment, proof: HistoryProof): number | "false" {
  const { certificate, links } = proof;
  const { from, batches } = segment;
  if (certificate.instance < from) return 0;
  const last = from + batches.length - 1;
  let digest = batches[Math.min(certificate.instance, last) - from]?.digest;
  if (certificate.instance > last) {
    if (links.length !== certificate.instance - last) return "false";
    links.forEach((batchDigest, index) => {
      const previous = digest as Digest;
      digest = historyDigest(crypto, { cluster: view.cluster, instance: last + 1 + index, previous, batchDigest });
    });
  }
  if (digest !== certificate.digest) return "false";
  return Math.min(batches.length, certificate.instance - from);
}

/** The first `count` batches. */
export function prefix(segment: Segment, count: number): Segment {
  return { ...segment, batches: segment.batches.slice(0, count) };
}
