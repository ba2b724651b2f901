/** A log as a cluster would decide it: chained digests, batches, and the events that checkers are told. */
import { encodeBatch, historyDigest } from "../../../protocol/batch.ts";
import type { Digest } from "../../../protocol/bytes.ts";
import { fromHex } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import type { Request } from "../../../protocol/request.ts";
import { type View, viewOf } from "../../../protocol/view.ts";
import { Stall, Violation } from "../../simulation/contract.ts";
import { CLUSTER, GENESIS } from "../service/fixtures.ts";

export const VIEW: View = viewOf(nodeCrypto, {
  id: 0,
  cluster: CLUSTER,
  mode: "bft",
  f: 1,
  members: [0, 1, 2, 3].map((id) => ({
    id,
    signKey: new Uint8Array(32),
    boxKey: new Uint8Array(32),
    host: "h",
    clientPort: 1,
    peerPort: 2,
    adminPort: 3,
  })),
  administrators: [],
});

export const CHAIN = { crypto: nodeCrypto, cluster: CLUSTER, genesis: GENESIS };

export interface LogEntry {
  readonly instance: number;
  readonly digest: Digest;
  readonly timestampMs: number;
  readonly requests: readonly Request[];
}

/** One instance per list of requests; `timestampMs` is the instance number. */
export function logOf(batches: readonly (readonly Request[])[], previous: Digest = GENESIS, from = 1): LogEntry[] {
  const log: LogEntry[] = [];
  let digest = previous;
  for (const [at, requests] of batches.entries()) {
    const instance = from + at;
    const timestampMs = instance;
    const batch = encodeBatch({ instance, timestampMs, requests: requests.map((request) => request.bytes) });
    digest = historyDigest(nodeCrypto, {
      cluster: CLUSTER,
      instance,
      previous: digest,
      batchDigest: nodeCrypto.sha256(batch),
    });
    log.push({ instance, digest, timestampMs, requests });
  }
  return log;
}

export function entryAt(log: readonly LogEntry[], instance: number): LogEntry {
  const entry = log[instance - 1];
  if (!entry) throw new RangeError(`the log has no instance ${instance}`);
  return entry;
}

export function digestOf(byte: number): Digest {
  return nodeCrypto.sha256(fromHex(byte.toString(16).padStart(2, "0")));
}

/** The rule that a step breaks, "stall", or null when nobody objects. */
export function ruleBroken(step: () => void): string | null {
  try {
    step();
  } catch (error) {
    if (error instanceof Violation) return error.rule;
    if (error instanceof Stall) return "stall";
    throw error;
  }
  return null;
}
