/**
 * What is known of one instance: batches by digest, what of it is in the own journal, and the ballot of the installed
 * regency with its proposal and votes.
 */
import type { Batch } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId, View } from "../../protocol/view.ts";
import { type Vote, VoteBox } from "./votes.ts";

/** A batch that would be this instance, with h(i) over it. */
export interface Candidate {
  readonly digest: Digest;
  readonly batchDigest: Digest;
  readonly bytes: Uint8Array;
  readonly batch: Batch;
  /** The view that begins after it, if it ends this one. */
  readonly next: View | null;
}

/** What a leader proposed in a ballot and what still stands between it and our WRITE. */
export interface Proposal {
  /** The PROPOSE, or null for the batch of a SYNC. */
  readonly message: MessageOf<"PROPOSE"> | null;
  readonly candidate: Candidate;
  readonly envelopes: readonly Uint8Array[];
  readonly sinceUs: number;
  /** Requests whose origin is not proven to us (yet). */
  readonly unproven: Set<Digest>;
  /** A write certificate vouches for it: neither origins nor time are judged again. */
  readonly selected: boolean;
  /** Signatures of requests are being verified. */
  verifying: boolean;
}

/** From Q WRITEs (in cft mode from a proposal) to our ACCEPT: the certificate is verified and its record journaled, synced. */
export interface Certification {
  readonly instance: number;
  readonly digest: Digest;
  readonly votes: readonly Vote[];
  verified: boolean;
  journaled: boolean;
}

/** An ACCEPT as it is sent: signed for a batch that ends the view. */
export type Accept = MessageOf<"ACCEPT"> | MessageOf<"SIGNED_ACCEPT">;

/** One regency's try at an instance. Own messages are kept to be sent again on reconnect. */
export class Ballot {
  readonly regency: number;
  readonly writes = new VoteBox();
  readonly accepts = new VoteBox();
  proposal: Proposal | null = null;
  /** How long the batch executed last had taken when the proposal came: for so long it could not come. */
  executionUs = 0;
  /** Its leader proposed what everybody refuses: nothing else of it is looked at. */
  refused = false;
  ownWrite: MessageOf<"WRITE"> | null = null;
  certification: Certification | null = null;
  ownAccept: Accept | null = null;

  constructor(regency: number) {
    this.regency = regency;
  }

  /** Nothing holds its proposal here any more. */
  get answered(): boolean {
    return this.ownWrite !== null || this.certification !== null;
  }
}

/** The newest record of an instance that was given to the journal: what the disk will hold. */
export interface LastRecord {
  readonly digest: Digest;
  /** The certificate it holds; null for a batch learned as decided. */
  readonly certification: Certification | null;
  /** False when that certificate turned out to be none: the record proves nothing. */
  certified: boolean;
  durable: boolean;
}

/** A batch being fetched by its digest: how many were asked, and when the last one was. */
export interface BatchFetch {
  readonly digest: Digest;
  readonly asked: number;
  readonly atUs: number;
}

/** A batch fetch is repeated with the next source after this long. */
export const BATCH_FETCH_RETRY_US = 200_000;

/** Whom to ask now for the batch of `digest`, in turn among those who should have it; null while an answer may still come. */
export function nextFetch(
  last: BatchFetch | null,
  wanted: { digest: Digest; sources: readonly ReplicaId[]; self: ReplicaId; nowUs: number },
): { readonly fetch: BatchFetch; readonly source: ReplicaId } | null {
  const { digest, self, nowUs } = wanted;
  const current = last?.digest === digest ? last : null;
  if (current && nowUs - current.atUs < BATCH_FETCH_RETRY_US) return null;
  const sources = wanted.sources.filter((source) => source !== self);
  const asked = current ? current.asked + 1 : 0;
  const source = sources[asked % sources.length];
  return source === undefined ? null : { fetch: { digest, asked, atUs: nowUs }, source };
}

export class RunningInstance {
  readonly instance: number;
  /** When it could first have been proposed. */
  readonly sinceUs: number;
  /** The same by the clock of people; for what may have been proposed before a start, the time of the batch before it. */
  readonly sinceWallMs: number;
  readonly candidates = new Map<Digest, Candidate>();
  ballot: Ballot;
  lastRecord: LastRecord | null = null;
  fetch: BatchFetch | null = null;

  constructor(options: { instance: number; regency: number; sinceUs: number; sinceWallMs: number }) {
    this.instance = options.instance;
    this.sinceUs = options.sinceUs;
    this.sinceWallMs = options.sinceWallMs;
    this.ballot = new Ballot(options.regency);
  }
}
