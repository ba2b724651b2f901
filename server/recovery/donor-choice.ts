/**
 * Whose checkpoint to fetch (docs/protocol.md section 6): a pure function of what the members offer. What counts is that
 * no f liars together can make it fetch without bound, or keep it from a donor that works.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { ImageHeader } from "../../protocol/image.ts";
import { CHUNKS_MAX } from "../../protocol/limits.ts";
import type { ReplicaId, View } from "../../protocol/view.ts";

/** Less log than this is executed sooner than a checkpoint is taken. */
const STALE_BYTES = 32 * 1024 * 1024;
/** A claim of bytes counts up to this times the W-th largest. */
const SIZE_TOLERANCE = 1.25;
/** And up to this always: a small state may be several times as large as it was an instance ago. */
const SIZE_BYTES_ALWAYS = 8 * 1024 * 1024;

/** What the choice looks at of one member's offer. */
export interface DonorOffer {
  readonly logFirst: number;
  readonly checkpoints: readonly ImageHeader[];
}

export interface DonorQuestion {
  readonly view: View;
  readonly self: ReplicaId;
  readonly offers: ReadonlyMap<ReplicaId, DonorOffer>;
  /** Verified roots of a member. */
  rootsOf(member: ReplicaId): ReadonlyMap<number, Digest>;
  /** Where the live state stands: only a newer checkpoint helps. */
  readonly position: number;
  /** A height known to be decided. */
  readonly target: number;
  /** Does this member still serve the log from there on, as far as is known? */
  servesLog(member: ReplicaId, from: number): boolean;
  /** Not this one: its sender lied, or it is not offered any more. */
  excluded(member: ReplicaId, header: ImageHeader): boolean;
  /** Members to be asked again only after all others. */
  readonly tried: ReadonlySet<ReplicaId>;
}

export interface DonorChoice {
  readonly donor: ReplicaId;
  readonly header: ImageHeader;
  /** Enough others have roots that speak for or against it, as far as it can be executed, or one instance further. */
  readonly witnessed: boolean;
}

/** Is there so much log above this checkpoint that a younger one would be had sooner? Sizes as its donor says. */
export function isStale(
  header: ImageHeader,
  offer: { readonly logFirst: number; readonly logBytes: number; readonly decided: number },
  target: number,
): boolean {
  const { logFirst, logBytes, decided } = offer;
  if (logFirst === 0 || header.instance >= target) return false;
  const above = (logBytes / Math.max(1, decided - logFirst + 1)) * (target - header.instance);
  return above > STALE_BYTES && above > header.bytes / 2;
}

/** The most bytes a checkpoint may claim; null while fewer than W members claim anything. */
export function sizeBound(view: View, claims: readonly number[]): number | null {
  const largest = [...claims].sort((a, b) => b - a)[view.weakQuorum - 1];
  return largest === undefined ? null : Math.max(largest * SIZE_TOLERANCE, SIZE_BYTES_ALWAYS);
}

export function chooseDonor(question: DonorQuestion): DonorChoice | null {
  const { view, self, offers, position } = question;
  const others = view.members.map((member) => member.id).filter((id) => id !== self && offers.has(id));
  const claims = others.flatMap((id) => {
    const bytes = (offers.get(id)?.checkpoints ?? []).map((header) => header.bytes);
    return bytes.length > 0 ? [Math.max(...bytes)] : [];
  });
  const bound = sizeBound(view, claims);
  if (bound === null) return null;
  let best: (DonorChoice & { readonly rank: readonly number[] }) | null = null;
  for (const donor of others) {
    for (const header of offers.get(donor)?.checkpoints ?? []) {
      if (header.instance <= position || header.bytes > bound || header.chunks > CHUNKS_MAX) continue;
      if (question.excluded(donor, header) || !logReachable(question, header.instance)) continue;
      const fresh = question.tried.has(donor) ? 0 : 1;
      const reachable = Math.max(question.target, header.instance);
      const witnessed = [reachable, reachable + 1].filter(
        (upTo) => witnesses(question, donor, header.instance, upTo) >= view.rootWitnesses,
      ).length;
      const rank = [fresh, witnessed, header.instance, -donor];
      if (best === null || higher(rank, best.rank)) best = { donor, header, witnessed: witnessed > 0, rank };
    }
  }
  return best && { donor: best.donor, header: best.header, witnessed: best.witnessed };
}

/** How many members other than the donor have a root that a replay from `instance` up to `reachable` passes. */
function witnesses(question: DonorQuestion, donor: ReplicaId, instance: number, reachable: number): number {
  const { view, self } = question;
  return view.members.filter(({ id }) => {
    if (id === donor || id === self) return false;
    return [...question.rootsOf(id).keys()].some((at) => at >= instance && at <= reachable);
  }).length;
}

/** Somebody serves the log above `instance`, or there is none yet. */
function logReachable({ view, self, offers, target, servesLog }: DonorQuestion, instance: number): boolean {
  if (instance >= target) return true;
  return view.members.some(({ id }) => {
    const first = offers.get(id)?.logFirst ?? 0;
    return id !== self && first > 0 && first <= instance + 1 && servesLog(id, instance + 1);
  });
}

function higher(a: readonly number[], b: readonly number[]): boolean {
  const index = a.findIndex((value, at) => value !== b[at]);
  return index >= 0 && (a[index] as number) > (b[index] as number);
}
