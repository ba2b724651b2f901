/**
 * What the synchronization phase of a regency goes on with (docs/protocol.md section 5): pure functions of STOPDATAs, so that
 * every replica checks what the synchronizer chose.
 *
 * Why it is safe: a decided value has Q accept records, so any n-f STOPDATAs hold one of them from a correct replica; two
 * values never both have write certificates in one (instance, regency), because correct replicas WRITE once; and a record
 * for I proves that everything below I is decided. In cft mode a leader proposes once in one (instance, regency), and Q + (n-f) > n
 * puts one of the Q among the STOPDATAs.
 */
import { certificateChecks, type SignatureCheck } from "../../protocol/certificate.ts";
import { type Certificate, type StopData, stopDataStatement } from "../../protocol/messages.ts";
import { memberOf, type ReplicaId, type View } from "../../protocol/view.ts";

/** Order of accept records: by instance, then by regency. */
export function isNewer(
  a: { readonly instance: number; readonly regency: number },
  b: { readonly instance: number; readonly regency: number } | null,
): boolean {
  return b === null || a.instance > b.instance || (a.instance === b.instance && a.regency > b.regency);
}

/** The record with the highest (instance, regency), or null when nobody accepted anything in this view. */
export function selected(stopData: readonly StopData[]): Certificate | null {
  let newest: Certificate | null = null;
  for (const { record } of stopData) if (record && isNewer(record, newest)) newest = record;
  return newest;
}

/** Who may hold the selected batch besides those that reported it: the voters of its certificate; in cft mode who decided it. */
export function keepersOf(view: View, selection: Certificate): ReplicaId[] {
  return view.mode === "cft" ? view.members.map(({ id }) => id) : selection.votes.map((vote) => vote.replica);
}

/** Who gathers the STOPDATAs of a regency, with or without rotation of leaders. */
export function synchronizerOf(view: View, regency: number): ReplicaId {
  return (view.members[regency % view.n] as { id: ReplicaId }).id;
}

/**
 * The signatures to check before a STOPDATA for `regency` is believed; null when its shape shows already that no correct
 * replica sent it: a stranger, or a record that is no certificate of this view and of an earlier regency.
 */
export function stopDataChecks(view: View, regency: number, data: StopData): SignatureCheck[] | null {
  const member = memberOf(view, data.replica);
  if (!member) return null;
  const { record, signature } = data;
  const place = { view: view.id, regency, replica: data.replica };
  const own = { publicKey: member.signKey, statement: stopDataStatement(view.cluster, place, record), signature };
  if (!record) return [own];
  const certificate = record.regency < regency ? certificateChecks(view, record) : null;
  return certificate ? [own, ...certificate] : null;
}

/** STOPDATAs with the signatures that have to be checked; those that cannot be valid are left out, and repeated ones. */
export function checkable(
  view: View,
  regency: number,
  stopData: readonly StopData[],
): { readonly data: StopData; readonly checks: readonly SignatureCheck[] }[] {
  const seen = new Set<ReplicaId>();
  const found: { data: StopData; checks: readonly SignatureCheck[] }[] = [];
  for (const data of stopData) {
    if (seen.has(data.replica)) continue;
    const checks = stopDataChecks(view, regency, data);
    if (!checks) continue;
    seen.add(data.replica);
    found.push({ data, checks });
  }
  return found;
}
