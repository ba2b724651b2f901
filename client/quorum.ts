/**
 * Vote counting, pure (docs/protocol.md section 3): one vote per member, its latest; only verified replies get here.
 * A result is taken on `view.quorum` equal (status, result digest) and only when bytes with that digest are in hand.
 */
import { type Digest, EMPTY } from "../protocol/bytes.ts";
import type { Reply, ReplyStatus } from "../protocol/client-frames.ts";
import type { View } from "../protocol/view.ts";

/** Verified replies to one request, by position in the view. */
export class Votes {
  readonly #replies: (Reply | undefined)[];
  #voters = 0;

  constructor(n: number) {
    this.#replies = new Array<Reply | undefined>(n).fill(undefined);
  }

  /** The member's vote, replacing its earlier one; bytes it sent before for the same result are kept. */
  add(position: number, reply: Reply): void {
    const earlier = this.#replies[position];
    if (earlier === undefined) this.#voters++;
    else if (
      earlier.body === "full" &&
      reply.body !== "full" &&
      earlier.status === reply.status &&
      earlier.resultDigest === reply.resultDigest
    ) {
      return;
    }
    this.#replies[position] = reply;
  }

  /** The bytes contradicted the digest: the vote stays (the MAC covers the header only), the bytes go. */
  dropBody(position: number): void {
    const reply = this.#replies[position];
    if (reply) this.#replies[position] = { ...reply, body: "digest", result: EMPTY };
  }

  /** Forgets every vote with one of these statuses. */
  forget(statuses: ReadonlySet<ReplyStatus>): void {
    for (let position = 0; position < this.#replies.length; position++) {
      const reply = this.#replies[position];
      if (reply === undefined || !statuses.has(reply.status)) continue;
      this.#replies[position] = undefined;
      this.#voters--;
    }
  }

  has(position: number): boolean {
    return this.#replies[position] !== undefined;
  }

  get voters(): number {
    return this.#voters;
  }

  /** How many members say this, result digest included. */
  count(status: ReplyStatus, resultDigest: Digest): number {
    let count = 0;
    for (const reply of this.#replies) {
      if (reply !== undefined && reply.status === status && reply.resultDigest === resultDigest) count++;
    }
    return count;
  }

  countStatus(status: ReplyStatus): number {
    let count = 0;
    for (const reply of this.#replies) if (reply !== undefined && reply.status === status) count++;
    return count;
  }

  /** Of those that say this: how many no longer have the result's bytes. */
  countGone(status: ReplyStatus, resultDigest: Digest): number {
    let count = 0;
    for (const reply of this.#replies) {
      if (reply?.body === "gone" && reply.status === status && reply.resultDigest === resultDigest) count++;
    }
    return count;
  }

  /** The position of a reply that carries the result in full, or -1. */
  fullAt(status: ReplyStatus, resultDigest: Digest): number {
    return this.#replies.findIndex(
      (reply) => reply?.body === "full" && reply.status === status && reply.resultDigest === resultDigest,
    );
  }

  at(position: number): Reply | undefined {
    return this.#replies[position];
  }

  /** True while some (status OK, digest) can still reach `need` if `pending` more members answer. */
  okPossible(need: number, pending: number): boolean {
    if (pending >= need) return true;
    for (const reply of this.#replies) {
      if (reply?.status === "OK" && this.count("OK", reply.resultDigest) + pending >= need) return true;
    }
    return false;
  }

  /** The replies with this status that carry their result. */
  full(status: ReplyStatus): Reply[] {
    const replies: Reply[] = [];
    for (const reply of this.#replies) if (reply?.body === "full" && reply.status === status) replies.push(reply);
    return replies;
  }
}

/**
 * The W-th highest of what members claim: at most f of them lie, so a correct member's claim is at least as high.
 * 0 when fewer than W claim anything.
 */
export function credibleMaximum(view: View, claims: readonly number[]): number {
  return [...claims].sort((a, b) => b - a)[view.weakQuorum - 1] ?? 0;
}
