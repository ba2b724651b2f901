/**
 * Which checkpoint to save, and with whose roots: pure choices over what the replicas offer (docs/protocol.md section 6). A plan
 * may fail (somebody lied); then the next one is tried, until one holds more honest roots than there can be liars.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { certificateChecksAt } from "../../protocol/certificate.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { type ImageHeader, rootOf, rootStatement } from "../../protocol/image.ts";
import type { MessageOf } from "../../protocol/messages.ts";
import { memberOf, type View } from "../../protocol/view.ts";
import type { ViewChain } from "../../protocol/view-chain.ts";
import type { RootOfMember } from "../../server/snapshot/file.ts";

/** Sizes count only up to this much of the W-th largest claim. */
const SIZE_FACTOR = 1.25;

/** An offer with what of it is proven. */
export interface CheckedOffer {
  readonly replica: number;
  readonly decided: number;
  readonly logFirst: number;
  readonly checkpoints: readonly ImageHeader[];
  /** With valid signatures. */
  readonly roots: readonly RootOfMember[];
  /** Certificates prove the history up to here. */
  readonly proven: number;
}

export interface Plan {
  readonly donor: number;
  readonly header: ImageHeader;
  readonly root: Digest;
  /** The log goes up to here. */
  readonly end: number;
  /** All known ones of the instances in between. */
  readonly roots: readonly RootOfMember[];
}

/** Roots count that members of the newest view signed for it. */
export function checkedOffer(
  crypto: Crypto,
  chain: ViewChain,
  replica: number,
  offer: MessageOf<"OFFER">,
): CheckedOffer {
  const view = chain.newest;
  const { decided, logFirst, checkpoints, newest } = offer;
  const member = memberOf(view, replica);
  const roots = offer.roots
    .map((root) => ({ replica, ...root }))
    .filter(({ instance, root, signature }) => {
      const statement = rootStatement(view.cluster, { view: view.id, instance, root });
      return member !== undefined && crypto.verify(member.signKey, statement, signature);
    });
  const checks = newest && certificateChecksAt((instance) => chain.at(instance), newest);
  const known = checks !== null && checks !== "unknown";
  const valid = known && checks.every((check) => crypto.verify(check.publicKey, check.statement, check.signature));
  return { replica, decided, logFirst, checkpoints, roots, proven: newest && valid ? newest.instance - 1 : 0 };
}

/** So many replicas claim at least this; one of them is correct. */
export function credibleDecided(view: View, offers: readonly CheckedOffer[]): number {
  const claims = offers.map(({ decided }) => decided).sort((a, b) => b - a);
  return claims[view.weakQuorum - 1] ?? 0;
}

/** What could work, the best first: few roots before many, a late end before an early one, a short log before a long one. */
export function plansOf(crypto: Crypto, chain: ViewChain, offers: readonly CheckedOffer[]): Plan[] {
  const view = chain.newest;
  const proven = Math.max(0, ...offers.map((offer) => offer.proven));
  const sizes = offers.map(({ checkpoints }) => Math.max(0, ...checkpoints.map(({ bytes }) => bytes)));
  const claimed = sizes.sort((a, b) => b - a)[view.weakQuorum - 1] || Number.POSITIVE_INFINITY;
  const ranked: { plan: Plan; extra: number }[] = [];
  for (const donor of offers) {
    for (const header of donor.checkpoints) {
      if (header.bytes > SIZE_FACTOR * claimed) continue;
      const root = rootOf(crypto, chain.genesis, header);
      const own = donor.roots.some((signed) => signed.instance === header.instance && signed.root === root);
      if (!own) continue;
      // In cft mode the donor's own root is enough (W = 1), and no log above it could be proven by a file.
      const from = { donor: donor.replica, header, root, proven };
      const others = view.mode === "cft" ? [] : firstRoots(offers, from);
      const needed = view.weakQuorum - 1;
      for (let count = needed; count <= others.length; count++) {
        const end = others[count - 1]?.instance ?? header.instance;
        if (!logReaches(offers, header.instance, end)) break;
        const roots = offers.flatMap((offer) =>
          offer.roots.filter(({ instance }) => instance >= header.instance && instance <= end),
        );
        ranked.push({ plan: { donor: donor.replica, header, root, end, roots }, extra: count - needed });
      }
    }
  }
  const logOf = ({ plan }: { plan: Plan }): number => plan.end - plan.header.instance;
  ranked.sort((a, b) => a.extra - b.extra || b.plan.end - a.plan.end || logOf(a) - logOf(b));
  return ranked.map(({ plan }) => plan);
}

/** Per other member its first root that replaying from this checkpoint would pass, in order of instances. */
function firstRoots(
  offers: readonly CheckedOffer[],
  from: { donor: number; header: ImageHeader; root: Digest; proven: number },
): RootOfMember[] {
  const { donor, header, root, proven } = from;
  const passes = (signed: RootOfMember): boolean =>
    signed.instance === header.instance
      ? signed.root === root
      : signed.instance > header.instance && signed.instance <= proven;
  const first: RootOfMember[] = [];
  for (const offer of offers) {
    if (offer.replica === donor) continue;
    const [earliest] = offer.roots.filter(passes).sort((a, b) => a.instance - b.instance);
    if (earliest) first.push(earliest);
  }
  return first.sort((a, b) => a.instance - b.instance);
}

function logReaches(offers: readonly CheckedOffer[], from: number, to: number): boolean {
  return to === from || offers.some((offer) => holdsLog(offer, from + 1) && offer.decided >= to);
}

export function holdsLog({ logFirst, decided }: CheckedOffer, instance: number): boolean {
  return logFirst > 0 && logFirst <= instance && decided >= instance;
}
