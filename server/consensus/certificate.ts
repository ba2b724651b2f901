/** Write certificates: Q distinct members' signatures on one WRITE statement (docs/protocol.md sections 4.3 and 5). */
import { type Certificate, writeStatement } from "../../protocol/messages.ts";
import { memberOf, type View } from "../../protocol/view.ts";
import type { SignatureCheck } from "./contract.ts";

/**
 * The signatures to check before this certificate is believed; null when it cannot be one of this view: too few voters, the
 * same voter twice, or a stranger.
 */
export function certificateChecks(view: View, certificate: Certificate): SignatureCheck[] | null {
  const { votes } = certificate;
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

/** Order of accept records: by instance, then by regency. */
export function isNewer(
  a: { readonly instance: number; readonly regency: number },
  b: { readonly instance: number; readonly regency: number } | null,
): boolean {
  return b === null || a.instance > b.instance || (a.instance === b.instance && a.regency > b.regency);
}
