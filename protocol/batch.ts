/** Batches and the history digest (docs/protocol.md section 1). A batch is the concatenation of requests as received. */

import { reconfigures } from "./administration.ts";
import type { Digest } from "./bytes.ts";
import type { Crypto } from "./crypto/contract.ts";
import { Malformed } from "./errors.ts";
import { Reader, Writer } from "./layout.ts";
import { BATCH_BYTES_MAX, BATCH_REQUESTS_MAX, BATCH_STATEMENTS_MAX, REQUEST_BYTES_MAX } from "./limits.ts";
import { decodeRequest, type Request } from "./request.ts";
import { writeTag } from "./view.ts";

const MAGIC = 0x5142_5431; // "QBT1"
/** Bytes of a batch without requests, and in front of each request. */
export const BATCH_HEADER_BYTES = 24;
export const BATCH_REQUEST_HEADER_BYTES = 4;

export interface Batch {
  readonly instance: number;
  /** Agreed time: milliseconds since 1970, never below the previous batch's. */
  readonly timestampMs: number;
  readonly requests: readonly Request[];
}

const writer = new Writer(64 * 1024);

export function encodeBatch(batch: {
  instance: number;
  timestampMs: number;
  requests: readonly Uint8Array[];
}): Uint8Array {
  writer.reset().u32(MAGIC).u53(batch.instance).u53(batch.timestampMs).u32(batch.requests.length);
  for (const request of batch.requests) writer.bytes(request);
  return writer.finish();
}

/**
 * A RECONFIGURE fills a batch of its own, so that the instances after it belong to the next view and links stay small. A
 * request known by its digest is not parsed again: `known(bytes)` may return it.
 * @throws Malformed
 */
export function decodeBatch(crypto: Crypto, bytes: Uint8Array, known?: (digest: Digest) => Request | undefined): Batch {
  if (bytes.length > BATCH_BYTES_MAX) throw new Malformed("BATCH_TOO_LARGE");
  const reader = new Reader(bytes);
  if (reader.u32() !== MAGIC) throw new Malformed("BATCH_MAGIC");
  const instance = reader.u53();
  const timestampMs = reader.u53();
  const count = reader.u32();
  if (count > BATCH_REQUESTS_MAX) throw new Malformed("BATCH_REQUESTS");
  const requests: Request[] = [];
  const keys = new Set<string>();
  let statements = 0;
  for (let index = 0; index < count; index++) {
    const raw = reader.bytes(REQUEST_BYTES_MAX);
    const request = known?.(crypto.sha256(raw)) ?? decodeRequest(crypto, raw);
    if (request.kind === "unordered") throw new Malformed("BATCH_UNORDERED");
    if (request.kind === "administer" && ++statements > BATCH_STATEMENTS_MAX) throw new Malformed("BATCH_STATEMENTS");
    if (keys.has(request.key)) throw new Malformed("BATCH_DUPLICATE");
    keys.add(request.key);
    if (count > 1 && reconfigures(request)) throw new Malformed("BATCH_RECONFIGURE");
    requests.push(request);
  }
  reader.end();
  return { instance, timestampMs, requests };
}

const scratch = new Writer(256);

/** h(i) = SHA-256(tag, cluster, i, h(i-1), SHA-256(batch bytes)). */
export function historyDigest(
  crypto: Crypto,
  link: { cluster: Digest; instance: number; previous: Digest; batchDigest: Digest },
): Digest {
  writeTag(scratch.reset(), "quorate/history/1", link.cluster).u53(link.instance);
  return crypto.sha256(scratch.rawLatin1(link.previous).rawLatin1(link.batchDigest).view());
}
