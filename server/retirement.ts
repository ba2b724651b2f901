/**
 * The end of a replica that is no member any more (docs/protocol.md section 7): it serves links, log and checkpoints until so
 * many members of the next view are in it that they can do without. Who was down when it left hears of that when it is back.
 */
import { type Member, memberOf, type ReplicaId, type View } from "../protocol/view.ts";
import type { ViewChain } from "../protocol/view-chain.ts";
import type { Driver } from "./driver.ts";
import type { Clock } from "./driver-contract.ts";

const INTERVAL_US = 500_000;
/** So many are dialled that have left: most of them are gone for good. */
const FORMER_MAX = 16;

/** Was it a member of an earlier view, and is none of this one? */
export function isFormer(chain: ViewChain, view: View, self: ReplicaId): boolean {
  if (memberOf(view, self)) return false;
  for (let id = 0; id < view.id; id++) {
    const earlier = chain.of(id);
    if (earlier && memberOf(earlier, self)) return true;
  }
  return false;
}

/**
 * Former members that may not know of this view yet, those that left last first. Not where a member lives now: what listens there is
 * another replica.
 */
export function formerMembers(chain: ViewChain, view: View): Member[] {
  const taken = new Set(view.members.map(({ host, peerPort }) => `${host}:${peerPort}`));
  const former = new Map<ReplicaId, Member>();
  for (let id = view.id - 1; id >= 0; id--) {
    for (const member of chain.of(id)?.members ?? []) {
      if (former.size === FORMER_MAX) return [...former.values()];
      const elsewhere = !taken.has(`${member.host}:${member.peerPort}`);
      if (elsewhere && !memberOf(view, member.id) && !former.has(member.id)) former.set(member.id, member);
    }
  }
  return [...former.values()];
}

/** Looks again and again, as long as the replica runs. */
export function retireWhenDone(replica: Driver, view: View, clock: Clock): void {
  clock.at(clock.nowUs() + INTERVAL_US, () => {
    if (replica.halted || replica.draining) return;
    const arrived = view.members.filter(({ id }) => replica.core.statusOf(id) !== undefined);
    if (arrived.length >= view.reachable) replica.retire();
    else retireWhenDone(replica, view, clock);
  });
}
