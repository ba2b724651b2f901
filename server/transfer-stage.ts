/**
 * The stage in which a replica fetches a state from the members of the newest view that it knows (docs/protocol.md section 6). It
 * says nothing but what the others need to start without it: what it remembers of their votes, and the links of the chain.
 */
import { keepable } from "../protocol/bytes.ts";
import type { Cluster } from "../protocol/cluster.ts";
import { isRejection } from "../protocol/errors.ts";
import { decodeMessage, encodeMessage, type Message } from "../protocol/messages.ts";
import type { ReplicaId } from "../protocol/view.ts";
import type { Storage } from "../storage/contract.ts";
import type { Ending } from "./driver-contract.ts";
import type { HostParts, Peers } from "./host-contract.ts";
import type { Links } from "./network/contract.ts";
import { memoryOf } from "./transfer/memory.ts";
import { Transfer } from "./transfer/transfer.ts";
import type { Views } from "./views.ts";

export interface TransferStageOptions {
  readonly parts: HostParts;
  readonly views: Views;
  readonly storage: Storage;
  readonly peers: Peers;
  /** Resolves when the stage has to end. */
  readonly interrupted: Promise<null>;
  readonly running: (transfer: Transfer, links: Links) => void;
  /** The chain is longer now: what is to be fetched is a state of another view, from other members. */
  readonly viewsGrew: () => void;
}

/** Resolves with "installed" when the state is in its place, "needless" when the log has to do, else "stopped". */
export async function transferStage(options: TransferStageOptions): Promise<Ending> {
  const { parts, views, storage, peers, interrupted } = options;
  const { openLinks, self, crypto, service, clock, verifier, logger, observer, garbage } = parts;
  const { view } = peers;
  const cluster: Cluster = { ...parts.cluster, view };
  const memory = await memoryOf({ crypto, cluster, storage });
  let links: Links | null = null;
  let flushing = false;
  const send = (to: ReplicaId, message: Message): void => {
    links?.send(to, encodeMessage(message));
    if (flushing) return;
    flushing = true;
    clock.defer(() => {
      flushing = false;
      links?.flush();
    });
  };
  const fault = (from: ReplicaId, code: string): void => observer.fault("message", from, code);
  const transfer = new Transfer({
    cluster,
    views,
    self,
    crypto,
    storage,
    service,
    clock,
    verifier,
    logger,
    send,
    fault,
  });
  const received = (from: ReplicaId, message: Message): void => {
    const { answer, longer } = views.receive(from, message, view.id);
    if (answer) send(from, answer);
    if (longer) options.viewsGrew();
    if (message.type === "FETCH_OFFER" && memory) send(from, memory(from));
    transfer.onMessage(from, message);
  };
  links = await openLinks(
    {
      onMessage: (from, payload) => {
        garbage?.passed(payload.length);
        const message = decodeMessage(keepable(payload));
        if (!isRejection(message)) {
          received(from, message);
          return;
        }
        fault(from, message.code);
        links?.punish(from, message.code);
      },
      onConnected: (peer) => transfer.onConnected(peer),
      onDisconnected: (peer) => transfer.onDisconnected(peer),
    },
    peers,
  );
  options.running(transfer, links);
  let installed = false;
  try {
    for (const peer of links.connected()) transfer.onConnected(peer);
    const accepted = await Promise.race([transfer.start(), interrupted]);
    if (!accepted) return { type: transfer.needless ? "needless" : "stopped" };
    // Installing closes the staged state, complete as it is.
    await storage.install(accepted.certificate);
    installed = true;
    return { type: "installed" };
  } finally {
    if (!installed) await transfer.stop();
    await links.close();
  }
}
