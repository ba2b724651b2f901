/** Votes of one kind in one (view, instance, regency): one per sender, the first counts (docs/protocol.md section 4.6). */
import type { Digest } from "../../protocol/bytes.ts";
import type { ReplicaId } from "../../protocol/view.ts";

export interface Vote {
  readonly sender: ReplicaId;
  readonly digest: Digest;
  /** Of a WRITE; empty for an ACCEPT. */
  readonly signature: Uint8Array;
  /** "unverified" until the signature was checked; own votes and MAC-only votes are "valid" at once. */
  standing: "unverified" | "valid" | "invalid";
}

/**
 * Invariants: 1. at most one vote per sender. 2. an invalid vote counts for nothing and keeps its sender's place, so that
 * nobody votes twice. 3. `count(digest)` is the number of votes for it that are not invalid.
 */
export class VoteBox {
  readonly #votes = new Map<ReplicaId, Vote>();
  readonly #counts = new Map<Digest, number>();

  /** Adds a vote; false when its sender has voted already. */
  add(vote: Vote): boolean {
    if (this.#votes.has(vote.sender)) return false;
    this.#votes.set(vote.sender, vote);
    this.#counts.set(vote.digest, this.count(vote.digest) + 1);
    return true;
  }

  /** Did this sender vote for something else before? No correct replica does. */
  conflicts({ sender, digest }: Pick<Vote, "sender" | "digest">): boolean {
    const known = this.#votes.get(sender);
    return known !== undefined && known.digest !== digest;
  }

  invalidate(vote: Vote): void {
    if (vote.standing === "invalid") return;
    vote.standing = "invalid";
    this.#counts.set(vote.digest, this.count(vote.digest) - 1);
  }

  count(digest: Digest): number {
    return this.#counts.get(digest) ?? 0;
  }

  /** The digest with at least `threshold` votes. For a quorum or weak quorum of more than half there is one at most;
   * otherwise the smallest digest is chosen, so that the choice does not depend on arrival. */
  reached(threshold: number): Digest | null {
    let found: Digest | null = null;
    for (const [digest, count] of this.#counts) {
      if (count >= threshold && (found === null || digest < found)) found = digest;
    }
    return found;
  }

  /** Votes for `digest` that are not invalid, in order of arrival. */
  of(digest: Digest): Vote[] {
    const votes: Vote[] = [];
    for (const vote of this.#votes.values())
      if (vote.digest === digest && vote.standing !== "invalid") votes.push(vote);
    return votes;
  }

  /** Can no digest reach `threshold` any more, whoever of `members` has still to vote? */
  hopeless(threshold: number, members: number): boolean {
    const open = members - this.#votes.size;
    for (const count of this.#counts.values()) if (count + open >= threshold) return false;
    return open < threshold;
  }

  has(sender: ReplicaId): boolean {
    return this.#votes.has(sender);
  }
}
