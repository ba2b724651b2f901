/** What ordering journals and sends about one digest: pure constructors, so that each field is bound in one place. */
import type { Digest } from "../../protocol/bytes.ts";
import { type Certificate, type MessageOf, writeStatement } from "../../protocol/messages.ts";
import type { CoreContext } from "./context.ts";
import type { CoreRecord, SignatureCheck } from "./contract.ts";
import type { Candidate } from "./running-instance.ts";
import type { Vote } from "./votes.ts";

interface Place {
  readonly view: number;
  readonly regency: number;
}

/** The record that must be on disk before ACCEPT: batch and write certificate. */
export function acceptRecord(place: Place, candidate: Candidate, votes: readonly Vote[]): CoreRecord {
  const { digest, batchDigest, bytes, batch } = candidate;
  const { instance } = batch;
  const signed = votes.map((vote) => ({ replica: vote.sender, signature: vote.signature }));
  const certificate = { ...place, instance, digest, votes: signed };
  return { type: "instance", ...place, instance, digest, batchDigest, batch: bytes, certificate };
}

/** A batch learned as decided. */
export function decidedRecord(place: Place, candidate: Candidate): CoreRecord {
  const { digest, batchDigest, bytes, batch } = candidate;
  return { type: "instance", ...place, instance: batch.instance, digest, batchDigest, batch: bytes, certificate: null };
}

/** The same with a valid certificate of others: as good as an accept record of our own. */
export function learnedRecord(candidate: Candidate, certificate: Certificate): CoreRecord {
  const { digest, batchDigest, bytes, batch } = candidate;
  const { view, regency } = certificate;
  return { type: "instance", view, regency, instance: batch.instance, digest, batchDigest, batch: bytes, certificate };
}

export function acceptMessage(
  view: number,
  regency: number,
  vote: { readonly instance: number; readonly digest: Digest },
): MessageOf<"ACCEPT"> {
  return { type: "ACCEPT", view, regency, instance: vote.instance, digest: vote.digest };
}

/** The signatures of these WRITEs, ready to be checked. */
export function writeChecks(
  context: CoreContext,
  place: Place & { readonly instance: number; readonly digest: Digest },
  votes: readonly { readonly replica: number; readonly signature: Uint8Array }[],
): SignatureCheck[] {
  const statement = writeStatement(context.cluster, place);
  return votes.map(({ replica, signature }) => ({
    publicKey: context.member(replica).signKey,
    statement,
    signature,
  }));
}
