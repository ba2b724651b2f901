/** What is known of the running instance: batches by digest, and per regency the proposal and the votes. */
import type { Batch } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { MessageOf } from "../../protocol/messages.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import { type Vote, VoteBox } from "./votes.ts";

/** A batch that would be the running instance, with h(i) over it. */
export interface Candidate {
  readonly digest: Digest;
  readonly batchDigest: Digest;
  readonly bytes: Uint8Array;
  readonly batch: Batch;
}

/** The first PROPOSE of a round and what still stands between it and our WRITE. */
export interface Proposal {
  readonly message: MessageOf<"PROPOSE">;
  readonly candidate: Candidate;
  /** Requests whose origin is not proven to us (yet). */
  readonly unproven: Set<Digest>;
  /** Signatures of requests are being verified. */
  verifying: boolean;
}

/** From Q WRITEs to our ACCEPT: verification and the synced journal record run side by side. */
export interface Certification {
  readonly instance: number;
  readonly digest: Digest;
  readonly votes: readonly Vote[];
  verified: boolean;
  journaled: boolean;
}

/** One regency's try at an instance. Own messages are kept to be sent again on reconnect. */
export class Round {
  readonly regency: number;
  readonly writes = new VoteBox();
  readonly accepts = new VoteBox();
  proposal: Proposal | null = null;
  ownWrite: MessageOf<"WRITE"> | null = null;
  certification: Certification | null = null;
  ownAccept: MessageOf<"ACCEPT"> | null = null;

  constructor(regency: number) {
    this.regency = regency;
  }
}

/** A batch being fetched by its digest: how many were asked, and when the last one was. */
export interface BatchFetch {
  readonly digest: Digest;
  readonly asked: number;
  readonly atUs: number;
}

/** A batch fetch is repeated with the next voter after this long. */
export const BATCH_FETCH_RETRY_US = 200_000;

/** Whom to ask now for the batch of `digest`, in turn among those who voted for it; null while an answer may still come. */
export function nextFetch(
  last: BatchFetch | null,
  wanted: { digest: Digest; voters: readonly Vote[]; self: ReplicaId; nowUs: number },
): { readonly fetch: BatchFetch; readonly source: ReplicaId } | null {
  const { digest, voters, self, nowUs } = wanted;
  const current = last?.digest === digest ? last : null;
  if (current && nowUs - current.atUs < BATCH_FETCH_RETRY_US) return null;
  const sources = voters.filter((vote) => vote.sender !== self);
  const asked = current ? current.asked + 1 : 0;
  const source = sources[asked % sources.length];
  return source ? { fetch: { digest, asked, atUs: nowUs }, source: source.sender } : null;
}

export class RunningInstance {
  readonly instance: number;
  /** When it could first have been proposed. */
  readonly sinceUs: number;
  /** The same by the clock of people; for what may have been proposed before a start, the time of the batch before it. */
  readonly sinceWallMs: number;
  readonly candidates = new Map<Digest, Candidate>();
  round: Round;
  fetch: BatchFetch | null = null;

  constructor(options: { instance: number; regency: number; sinceUs: number; sinceWallMs: number }) {
    this.instance = options.instance;
    this.sinceUs = options.sinceUs;
    this.sinceWallMs = options.sinceWallMs;
    this.round = new Round(options.regency);
  }
}
