/** Where a replica listens in a view: its address may have changed since the cluster file was written (docs/protocol.md section 7). */
import { memberOf, type ReplicaId, type View } from "../protocol/view.ts";
import type { ViewChain } from "../protocol/view-chain.ts";
import { type ListenAddresses, listenOf, type ServerConfig } from "./config.ts";
import type { PeerAddress } from "./network/presentation.ts";

/** Of one replica, in all views. */
const FORMER_ADDRESSES_MAX = 16;

/** Who is no member of the view, yet or any more, listens where it was announced last. */
export function listenAt(config: ServerConfig, chain: ViewChain, view: View): ListenAddresses {
  const { replica, member } = config;
  let at = memberOf(view, replica);
  for (let id = view.id - 1; !at && id >= 0; id--) at = memberOf(chain.of(id) ?? view, replica);
  return listenOf(at ?? member, config);
}

/** Where a replica was reached before it moved, oldest first: there it listens again when all it knows is an earlier view. */
export function formerAddresses(chain: ViewChain, replica: ReplicaId): PeerAddress[] {
  const present = memberOf(chain.newest, replica);
  const found: PeerAddress[] = [];
  for (let id = 0; id < chain.newest.id && found.length < FORMER_ADDRESSES_MAX; id++) {
    const view = chain.of(id);
    const at = view && memberOf(view, replica);
    if (!at || [present, ...found].some((known) => known?.host === at.host && known.peerPort === at.peerPort)) continue;
    found.push({ host: at.host, peerPort: at.peerPort });
  }
  return found;
}
