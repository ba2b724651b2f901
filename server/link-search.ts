/**
 * A wait for links (docs/protocol.md section 7). Where a state was rebuilt from the journal, the links went with it: the members
 * of its view have them. Nothing is said in a view before that of which the journal knows.
 */
import { keepable } from "../protocol/bytes.ts";
import { isRejection } from "../protocol/errors.ts";
import { decodeMessage, encodeMessage } from "../protocol/messages.ts";
import type { View } from "../protocol/view.ts";
import type { HostParts } from "./host-contract.ts";
import type { Views } from "./views.ts";

/** Links that are missing are asked for this often. */
const INTERVAL_US = 300_000;

/** True once the chain reaches the view `upTo`; false when interrupted before. */
export async function fetchLinks(options: {
  openLinks: HostParts["openLinks"];
  clock: HostParts["clock"];
  views: Views;
  /** Whose members are asked. */
  view: View;
  upTo: number;
  interrupted: Promise<null>;
}): Promise<boolean> {
  const { openLinks, clock, views, view, upTo, interrupted } = options;
  let arrived: (complete: true) => void = () => undefined;
  const complete = new Promise<true>((resolve) => {
    arrived = resolve;
  });
  const links = await openLinks(
    {
      onMessage: (from, payload) => {
        const message = decodeMessage(keepable(payload));
        if (!isRejection(message)) views.receive(from, message, view.id);
        if (views.chain.newest.id >= upTo) arrived(true);
      },
      onConnected: () => undefined,
      onDisconnected: () => undefined,
    },
    { view, others: [] },
  );
  const ask = (): void => {
    const message = encodeMessage({ type: "FETCH_LINKS", view: views.chain.newest.id, regency: 0 });
    for (const peer of links.connected()) links.send(peer, message);
    links.flush();
    cancel = clock.at(clock.nowUs() + INTERVAL_US, ask);
  };
  let cancel = clock.at(clock.nowUs() + INTERVAL_US, ask);
  try {
    return (await Promise.race([complete, interrupted])) ?? false;
  } finally {
    cancel();
    await links.close();
  }
}
