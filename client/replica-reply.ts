/**
 * One replica's reply as a caller may hear it (`onReply`): verified, so this replica did say it, and yet no answer; only a
 * quorum of equal ones is (docs/protocol.md section 3).
 */
import { bytesOf, hex } from "../protocol/bytes.ts";
import type { Reply, ReplyStatus } from "../protocol/client-frames.ts";
import { decodeResults } from "../protocol/commands.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { decoded, isRejection } from "../protocol/errors.ts";

export interface ReplicaReply {
  readonly replica: number;
  readonly status: ReplyStatus;
  /** SHA-256 of the results of the request that the command travelled in: two replicas with the same say the same. */
  readonly digest: string;
  /** This command's result, when the replica sent it and it is what the digest says. */
  readonly result: Uint8Array | null;
}

/** What this reply says of the command at each place of its bundle. */
export function heardIn(crypto: Crypto, reply: Reply): (index: number) => ReplicaReply {
  const { replica, status, resultDigest } = reply;
  const digest = hex(bytesOf(resultDigest));
  const full = status === "OK" && reply.body === "full" && crypto.sha256(reply.result) === resultDigest;
  const results = full ? decoded(() => decodeResults(reply.result)) : [];
  return (index) => ({ replica, status, digest, result: isRejection(results) ? null : (results[index] ?? null) });
}
