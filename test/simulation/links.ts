/**
 * The links between simulated machines (server/network/contract.ts): one stream per pair, dialled again after it ended. A
 * machine plays one member of the view; two machines may play the same one (`twins`): then a peer has a link to each, and
 * blocked paths decide whom it reaches.
 */
import type { ReplicaId } from "../../protocol/view.ts";
import { type Network, type Side, Stream } from "./network.ts";

/** What is told to the replica on a machine while it runs. */
export interface LinkPort {
  readonly machine: number;
  onMessages(from: ReplicaId, payloads: readonly Uint8Array[]): void;
  onConnected(peer: ReplicaId): void;
  onDisconnected(peer: ReplicaId): void;
}

type Payloads = readonly Uint8Array[];

interface Pair {
  readonly machines: readonly [number, number];
  /** Whom each side plays. */
  readonly identities: readonly [ReplicaId, ReplicaId];
  stream: Stream<Payloads> | null;
  /** Who on each side was told that the link stands. */
  readonly told: [LinkPort | null, LinkPort | null];
  dialling: boolean;
}

const SIDES = [0, 1] as const;
const REDIAL_US = { min: 5_000, max: 300_000 };
/** The dialled side learns of a new link within this time. */
const ACCEPT_US_MAX = 2_000;

export class LinkHub {
  readonly #network: Network;
  /** By machine. */
  readonly #pairs: Pair[][];
  readonly #ports = new Map<number, LinkPort>();

  /** `identities`: the member that each machine plays. */
  constructor(network: Network, identities: readonly ReplicaId[]) {
    this.#network = network;
    this.#pairs = identities.map(() => []);
    const all: Pair[] = [];
    identities.forEach((low, a) => {
      identities.forEach((high, b) => {
        if (b <= a || low === high) return;
        const pair: Pair = {
          machines: [a, b],
          identities: [low, high],
          stream: null,
          told: [null, null],
          dialling: false,
        };
        all.push(pair);
        this.#pairs[a]?.push(pair);
        this.#pairs[b]?.push(pair);
      });
    });
    network.onOpened = () => {
      for (const pair of all) if (!pair.stream?.whole) this.#dialSoon(pair);
    };
  }

  /** A replica starts to listen and dial. */
  attach(port: LinkPort): void {
    this.#ports.set(port.machine, port);
    for (const pair of this.#pairsOf(port.machine)) this.#dialSoon(pair);
  }

  /** The replica on this machine is gone; what it sent last may arrive (`linger`) or not. */
  detach(machine: number, options: { linger: boolean }): void {
    this.#ports.delete(machine);
    for (const pair of this.#pairsOf(machine)) {
      const side = sideOf(pair, machine);
      pair.told[side] = null;
      pair.stream?.end(side, options);
    }
  }

  /** The peers that this machine has a standing link to. */
  connected(machine: number): ReplicaId[] {
    const peers = new Set<ReplicaId>();
    for (const pair of this.#pairsOf(machine)) {
      const side = sideOf(pair, machine);
      if (pair.told[side]) peers.add(pair.identities[1 - side] as ReplicaId);
    }
    return [...peers];
  }

  /** Sends messages that leave together to every machine that plays this peer. */
  send(machine: number, peer: ReplicaId, payloads: Payloads): void {
    for (const pair of this.#pairsOf(machine)) {
      const side = sideOf(pair, machine);
      if (!pair.told[side] || pair.identities[1 - side] !== peer) continue;
      if (this.#network.profile.lossChance > 0) for (const payload of payloads) pair.stream?.send(side, [payload]);
      else pair.stream?.send(side, payloads);
    }
  }

  /** Drops the links of this machine to a peer. */
  punish(machine: number, peer: ReplicaId): void {
    for (const pair of this.#pairsOf(machine)) {
      if (pair.identities[1 - sideOf(pair, machine)] === peer) pair.stream?.break();
    }
  }

  #pairsOf(machine: number): readonly Pair[] {
    return this.#pairs[machine] as readonly Pair[];
  }

  #dialSoon(pair: Pair): void {
    if (pair.dialling) return;
    pair.dialling = true;
    const { scheduler } = this.#network;
    scheduler.after(scheduler.between(REDIAL_US.min, REDIAL_US.max), () => {
      pair.dialling = false;
      this.#dial(pair);
    });
  }

  #dial(pair: Pair): void {
    const [a, b] = pair.machines;
    const low = this.#ports.get(a);
    const high = this.#ports.get(b);
    if (pair.stream?.whole || !low || !high || !this.#network.open(a, b)) return;
    pair.stream?.abandon();
    for (const side of SIDES) this.#lost(pair, side);
    const ports = [low, high] as const;
    const tell = (side: Side): void => {
      pair.told[side] = ports[side];
      ports[side].onConnected(pair.identities[1 - side] as ReplicaId);
    };
    const endOf = (side: Side) => ({
      receive: (payloads: Payloads) => {
        if (!pair.told[side]) tell(side);
        ports[side].onMessages(pair.identities[1 - side] as ReplicaId, payloads);
      },
      closed: () => {
        if (pair.stream !== stream) return;
        this.#lost(pair, side);
        this.#dialSoon(pair);
      },
    });
    const stream: Stream<Payloads> = new Stream(this.#network, {
      ends: pair.machines,
      handlers: [endOf(0), endOf(1)],
      lossy: true,
    });
    pair.stream = stream;
    const { scheduler, trace } = this.#network;
    trace.event("link", a, b, 1, () => `link ${a} - ${b} stands`);
    scheduler.after(scheduler.random.next() * ACCEPT_US_MAX, () => {
      if (pair.stream === stream && stream.whole && !pair.told[1]) tell(1);
    });
    tell(0);
  }

  #lost(pair: Pair, side: Side): void {
    const port = pair.told[side];
    if (!port) return;
    pair.told[side] = null;
    const [a, b] = pair.machines;
    this.#network.trace.event("link", a, b, 0, () => `link ${a} - ${b} lost at ${pair.machines[side]}`);
    port.onDisconnected(pair.identities[1 - side] as ReplicaId);
  }
}

function sideOf(pair: Pair, machine: number): Side {
  return pair.machines[0] === machine ? 0 : 1;
}
