/**
 * Replicas that are to become members, and may be served before (docs/protocol.md section 7): each by an invitation that
 * administrators of the newest view signed. Kept in memory alone: administrators say it again while they wait.
 *
 * Invariants: 1. nobody is let in without valid signatures, or longer than they say. 2. at most `INVITED_MAX` at a time; an
 * invited id was never used.
 */
import { administered, administratorsOf, decodeSignedStatement } from "../protocol/administration.ts";
import type { Digest } from "../protocol/bytes.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { decoded, isRejection } from "../protocol/errors.ts";
import { decodeInvitation } from "../protocol/reconfiguration.ts";
import type { Member, ReplicaId, View } from "../protocol/view.ts";

const INVITED_MAX = 16;

interface Invited {
  readonly member: Member;
  /** Of the statement: a later one is not undone by somebody who repeats an earlier one. */
  readonly number: number;
  readonly notAfterMs: number;
}

export class Invitations {
  readonly #crypto: Crypto;
  readonly #cluster: Digest;
  readonly #invited = new Map<ReplicaId, Invited>();

  constructor(crypto: Crypto, cluster: Digest) {
    this.#crypto = crypto;
    this.#cluster = cluster;
  }

  /** Those that may be served now. */
  at(nowMs: number): readonly Member[] {
    for (const [id, { notAfterMs }] of [...this.#invited]) if (notAfterMs < nowMs) this.#invited.delete(id);
    return [...this.#invited.values()].map(({ member }) => member);
  }

  /** The member it invites, or null when it is none that counts. */
  take(bytes: Uint8Array, view: View, nowMs: number): Member | null {
    const signed = decoded(() => decodeSignedStatement(bytes));
    if (isRejection(signed) || signed.type !== "invite" || signed.notAfterMs < nowMs) return null;
    const member = decoded(() => decodeInvitation(Uint8Array.from(signed.body)));
    if (isRejection(member) || member.id < view.idsBelow) return null;
    if (this.at(nowMs).length >= INVITED_MAX && !this.#invited.has(member.id)) return null;
    if (signed.number < (this.#invited.get(member.id)?.number ?? 0)) return null;
    const checks = administered(this.#cluster, signed, administratorsOf(view));
    if (isRejection(checks)) return null;
    const valid = checks.every((check) => this.#crypto.verify(check.publicKey, check.statement, check.signature));
    if (!valid) return null;
    const { number, notAfterMs } = signed;
    this.#invited.set(member.id, { member, number, notAfterMs });
    return member;
  }
}
