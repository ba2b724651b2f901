/** Where a replica listens in a view: its address may have changed since the cluster file was written (docs/protocol.md section 7). */
import { memberOf, type View } from "../protocol/view.ts";
import type { ViewChain } from "../protocol/view-chain.ts";
import type { ListenAddresses, ServerConfig } from "./config.ts";

/** Who is no member of the view, yet or any more, listens where it was announced last. */
export function listenAt(
  { replica, member, listenHost, listenAdminHost }: ServerConfig,
  chain: ViewChain,
  view: View,
): ListenAddresses {
  let at = memberOf(view, replica);
  for (let id = view.id - 1; !at && id >= 0; id--) at = memberOf(chain.of(id) ?? view, replica);
  const { host: announced, clientPort, peerPort, adminPort } = at ?? member;
  const host = listenHost ?? announced;
  return { host, adminHost: listenAdminHost ?? host, clientPort, peerPort, adminPort };
}
