/** Where a replica listens in a view: its address may have changed since the cluster file was written (docs/protocol.md section 7). */
import { memberOf, type View } from "../protocol/view.ts";
import type { ViewChain } from "../protocol/view-chain.ts";
import { type ListenAddresses, listenOf, type ServerConfig } from "./config.ts";

/** Who is no member of the view, yet or any more, listens where it was announced last. */
export function listenAt(config: ServerConfig, chain: ViewChain, view: View): ListenAddresses {
  const { replica, member } = config;
  let at = memberOf(view, replica);
  for (let id = view.id - 1; !at && id >= 0; id--) at = memberOf(chain.of(id) ?? view, replica);
  return listenOf(at ?? member, config);
}
