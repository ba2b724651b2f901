/** TCP links for tests: members with fresh keys on loopback, started from the highest id down so that ports are known. */
import { setTimeout as sleep } from "node:timers/promises";
import { type Digest, latin1 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { type Identity, newIdentity } from "../../../protocol/identity.ts";
import type { Member, ReplicaId } from "../../../protocol/view.ts";
import type { LinkEvents, Links } from "../../../server/network/contract.ts";
import type { ChainPort } from "../../../server/network/presentation.ts";
import { type LinkLimits, openTcpLinks } from "../../../server/network/tcp-links.ts";
import type { LinksHarness } from "./links-contract.ts";

export const CLUSTER = latin1(new Uint8Array(32).fill(7)) as Digest;

export async function until(condition: () => boolean, what: string): Promise<void> {
  const giveUp = performance.now() + 20_000;
  while (!condition()) {
    if (performance.now() > giveUp) throw new Error(`never happened: ${what}`);
    await sleep(5);
  }
}

export class TcpHarness implements LinksHarness {
  readonly identities = new Map<ReplicaId, Identity>();
  readonly members: (Member & { peerPort: number })[] = [];
  readonly opened: Links[] = [];
  readonly until = until;

  constructor(ids: readonly ReplicaId[]) {
    for (const id of ids) {
      const identity = newIdentity(nodeCrypto);
      this.identities.set(id, identity);
      const { signKey, boxKey } = identity;
      this.members.push({ id, signKey, boxKey, host: "127.0.0.1", clientPort: 1, peerPort: 0, adminPort: 1 });
    }
  }

  member(id: ReplicaId): Member & { peerPort: number } {
    return this.members.find((member) => member.id === id) as Member & { peerPort: number };
  }

  identity(id: ReplicaId): Identity {
    return this.identities.get(id) as Identity;
  }

  /** `members` lets one replica see others at other addresses (a proxy). */
  async start(
    id: ReplicaId,
    events: LinkEvents,
    options: {
      limits?: Partial<LinkLimits>;
      members?: readonly Member[];
      identity?: Identity;
      cluster?: Digest;
      chain?: ChainPort;
    } = {},
  ): Promise<Links & { port: number }> {
    const links = await openTcpLinks({
      crypto: nodeCrypto,
      cluster: options.cluster ?? CLUSTER,
      self: id,
      identity: options.identity ?? this.identity(id),
      members: options.members ?? this.members,
      listen: { host: "127.0.0.1", port: this.member(id).peerPort },
      events,
      ...(options.chain ? { chain: options.chain } : {}),
      limits: { backoffMsMin: 5, backoffMsMax: 50, ...options.limits },
    });
    this.member(id).peerPort = links.port;
    this.opened.push(links);
    return links;
  }

  async stop(): Promise<void> {
    await Promise.all(this.opened.map((links) => links.close()));
  }
}
