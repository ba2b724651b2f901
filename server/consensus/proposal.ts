/**
 * What a replica makes of a proposed batch (docs/protocol.md section 4.2): is it well formed and onto our history, is it
 * invalid in a way that everybody sees alike, and what in it can this replica alone not vouch for?
 */

import { reconfigures } from "../../protocol/administration.ts";
import { type Batch, decodeBatch, historyDigest } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { decoded, isRejection, type Rejection, reject } from "../../protocol/errors.ts";
import type { MessageOf } from "../../protocol/messages.ts";
import { nextView } from "../../protocol/next-view.ts";
import type { View } from "../../protocol/view.ts";
import type { CoreContext } from "./context.ts";
import type { SignatureCheck } from "./contract.ts";
import { isSigned, type RequestQueue } from "./request-queue.ts";
import type { Position } from "./restart.ts";
import type { Candidate, Proposal } from "./running-instance.ts";

/** The batch as the instance after `position`, with h(i) over it. Requests held already are not parsed again. */
export function candidateOf(
  context: CoreContext,
  queue: RequestQueue,
  position: Position,
  bytes: Uint8Array,
): Candidate | Rejection {
  const { crypto, cluster } = context;
  const instance = position.instance + 1;
  const batch = decoded(() => decodeBatch(crypto, bytes, (digest) => queue.authentic(digest)?.request));
  if (isRejection(batch)) return batch;
  if (batch.instance !== instance) return reject("ignore", "BATCH_INSTANCE");
  const batchDigest = crypto.sha256(bytes);
  const digest = historyDigest(crypto, { cluster, instance, previous: position.digest, batchDigest });
  return { digest, batchDigest, bytes, batch, next: viewAfter(crypto, context.view, batch) };
}

/** The view that begins after this batch, if it ends `view`. */
export function viewAfter(crypto: Crypto, view: View, batch: Batch): View | null {
  if (!batch.requests.some(reconfigures)) return null;
  const next = nextView(crypto, view, batch);
  return "view" in next ? next.view : null;
}

/** What every correct replica judges alike. */
export function invalidity(
  context: CoreContext,
  position: Position,
  candidate: Candidate,
  envelopes: readonly Uint8Array[],
): Rejection | null {
  const { batch } = candidate;
  if (envelopes.length !== batch.requests.length) return reject("ignore", "PROPOSE_ENVELOPES");
  if (batch.timestampMs < position.timestampMs) return reject("ignore", "PROPOSE_TIMESTAMP");
  if (batch.requests.some((request) => request.cluster !== context.cluster)) return reject("ignore", "PROPOSE_CLUSTER");
  return null;
}

/** A batch that its proposer, or a write certificate, answers for. */
export function unquestioned(
  context: CoreContext,
  message: MessageOf<"PROPOSE"> | null,
  candidate: Candidate,
): Proposal {
  const envelopes = message?.envelopes ?? [];
  const { nowUs } = context;
  return { message, candidate, envelopes, sinceUs: nowUs, unproven: new Set(), selected: true, verifying: false };
}

/**
 * What this replica alone cannot vouch for holds the proposal; it is no reason to call it invalid. Signatures are verified
 * off the event loop: `then` runs when their verdict is in. In cft mode the leader vouches for every request: it has checked
 * them, or W did that forwarded them, and one member's word is enough (W = 1).
 */
export function examine(
  context: CoreContext,
  queue: RequestQueue,
  message: MessageOf<"PROPOSE"> | null,
  offered: { readonly candidate: Candidate; readonly envelopes: readonly Uint8Array[] },
  then: () => void,
): Proposal {
  const { candidate, envelopes } = offered;
  const unproven = new Set<Digest>();
  const checks: SignatureCheck[] = [];
  const checked: Digest[] = [];
  const questionable = context.view.mode === "cft" ? [] : candidate.batch.requests;
  questionable.forEach((request, index) => {
    if (queue.authentic(request.digest)) return;
    const verdict = context.authenticate(request, envelopes[index] as Uint8Array);
    if (verdict === "authentic") return;
    unproven.add(request.digest);
    if (verdict === "unproven") return;
    checks.push(verdict);
    checked.push(request.digest);
  });
  const verifying = checks.length > 0;
  const sinceUs = context.nowUs;
  const proposal: Proposal = { message, candidate, envelopes, sinceUs, unproven, selected: false, verifying };
  if (checks.length > 0) {
    context.verify(checks, (valid) => {
      proposal.verifying = false;
      checked.forEach((digest, index) => {
        if (valid[index]) unproven.delete(digest);
      });
      then();
    });
  }
  return proposal;
}

/**
 * Is its timestamp outside the allowed drift: ahead of our clock now (time may cure that), or before the instance could
 * have been proposed? A proposal may be delivered long after it was made, when its leader was stopped meanwhile; so the
 * past is measured from when our instance began (`sinceWallMs`), which still keeps a leader from holding time back.
 */
export function drifted(context: CoreContext, proposal: Proposal, sinceWallMs: number): boolean {
  const { timestampMs } = proposal.candidate.batch;
  const { clockDriftMs } = context.options;
  return timestampMs > context.wallMs + clockDriftMs || timestampMs < sinceWallMs - clockDriftMs;
}

/** Nothing stands between this proposal and our WRITE. */
export function approved(context: CoreContext, proposal: Proposal, sinceWallMs: number): boolean {
  return proposal.selected || (proposal.unproven.size === 0 && !drifted(context, proposal, sinceWallMs));
}

/** Looks again at what was not proven: the keys of its client may be known by now. */
export function examineAgain(context: CoreContext, queue: RequestQueue, proposal: Proposal): void {
  const { envelopes, candidate, unproven } = proposal;
  candidate.batch.requests.forEach((request, index) => {
    if (!unproven.has(request.digest)) return;
    const known = queue.authentic(request.digest) !== undefined;
    if (known || context.authenticate(request, envelopes[index] as Uint8Array) === "authentic") {
      unproven.delete(request.digest);
    }
  });
}

/** Does it hold a request that is neither proven to us nor signed? Where all requests are signed no correct leader has one. */
export function lacksSignature({ candidate, envelopes, unproven }: Proposal): boolean {
  return candidate.batch.requests.some(
    ({ digest }, index) => unproven.has(digest) && !isSigned(envelopes[index] as Uint8Array),
  );
}

/** Whose requests in it are not proven, each client once. */
export function unprovenClients({ candidate, unproven }: Proposal): readonly Digest[] {
  const requests = candidate.batch.requests.filter((request) => unproven.has(request.digest));
  return [...new Set(requests.map((request) => request.client))];
}
