/**
 * Write certificates: Q distinct members' signatures on one WRITE statement (docs/protocol.md sections 4.3 and 5). In cft mode
 * there are no WRITEs: an accept record is the word of a member, which does not lie, and has no votes.
 */
import { type Certificate, writeStatement } from "./messages.ts";
import { memberOf, type View } from "./view.ts";

/** One Ed25519 signature to check: by this member's or client's key, over these bytes. */
export interface SignatureCheck {
  readonly publicKey: Uint8Array;
  readonly statement: Uint8Array;
  readonly signature: Uint8Array;
}

/** The view in force at an instance, as far as the chain of views is known. */
export type ViewAt = (instance: number) => View;

/**
 * Like `certificateChecks`, for the view in force at its instance: the votes of former members never count. "unknown": it is
 * of a view that is not known here yet, which proves nothing for or against it.
 */
export function certificateChecksAt(viewAt: ViewAt, certificate: Certificate): SignatureCheck[] | "unknown" | null {
  const view = viewAt(certificate.instance);
  return certificate.view > view.id ? "unknown" : certificateChecks(view, certificate);
}

/**
 * The signatures to check before this certificate, from a member or the own disk, is believed; null when it cannot be one of
 * this view: too few voters, the same voter twice, or a stranger. In cft mode there is nothing to check.
 */
export function certificateChecks(view: View, certificate: Certificate): SignatureCheck[] | null {
  const { votes } = certificate;
  if (view.mode === "cft") return certificate.view === view.id && votes.length === 0 ? [] : null;
  if (certificate.view !== view.id || votes.length < view.quorum) return null;
  if (new Set(votes.map((vote) => vote.replica)).size !== votes.length) return null;
  const statement = writeStatement(view.cluster, certificate);
  const checks: SignatureCheck[] = [];
  for (const { replica, signature } of votes) {
    const member = memberOf(view, replica);
    if (!member) return null;
    checks.push({ publicKey: member.signKey, statement, signature });
  }
  return checks;
}
