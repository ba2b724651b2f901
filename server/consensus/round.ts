/** What is known of the running instance: batches by digest, and per regency the proposal and the votes. */
import type { Batch } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { MessageOf } from "../../protocol/messages.ts";
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
  /** Its timestamp is too far from our clock. */
  readonly drifted: boolean;
  /** Signatures of requests are being verified. */
  verifying: boolean;
}

/** From Q WRITEs to our ACCEPT: verification and the synced journal record run side by side. */
export interface Certification {
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

export class RunningInstance {
  readonly instance: number;
  /** When it could first have been proposed. */
  readonly sinceUs: number;
  readonly candidates = new Map<Digest, Candidate>();
  round: Round;
  /** The batch fetch under way: whom we asked last, and when. */
  fetch: { readonly digest: Digest; readonly asked: number; readonly atUs: number } | null = null;

  constructor(options: { instance: number; regency: number; sinceUs: number }) {
    this.instance = options.instance;
    this.sinceUs = options.sinceUs;
    this.round = new Round(options.regency);
  }
}
