/**
 * Clients and gateways over simulated streams: the production rules of a gateway (server/network/client-session.ts) on one
 * side, the SDK's `Transport` (client/ports.ts) on the other, real frames in between.
 */
import type { Channel, ChannelEvents, Transport } from "../../client/ports.ts";
import { type Digest, sameBytes } from "../../protocol/bytes.ts";
import type { Cluster } from "../../protocol/cluster.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import type { Identity } from "../../protocol/identity.ts";
import type { Member, ReplicaId } from "../../protocol/view.ts";
import {
  authenticator,
  type Carrier,
  type ClientSession,
  ClientSessions,
  GATEWAY_LIMITS,
  type SessionTime,
} from "../../server/network/client-session.ts";
import type { ClientConnection, Gateway } from "../../server/network/contract.ts";
import { type Endpoint, type Network, Stream, type StreamEnd } from "./network.ts";

/** What travels between client and gateway: a frame, or the gateway's goodbye. */
type Packet = Uint8Array | { readonly code: number; readonly reason: string };

const CLIENT = 0;
const GATEWAY = 1;
/** How a client's stack names a connection that broke. */
const BROKEN = { code: 1006, reason: "" };

export interface GatewayPort {
  readonly machine: number;
  /** The id of the view that its replica is in, and the links from a view on. */
  readonly view: number;
  links(fromView: number): readonly Uint8Array[];
  readonly replica: ReplicaId;
  readonly identity: Identity;
  readonly time: SessionTime;
  /** Runs what concerns the replica on this machine as its process would: later while it is paused, never once it is gone. */
  enter(run: () => void): void;
  admits(client: Digest): boolean;
  onAuthenticated(connection: ClientConnection, keys: Uint8Array): void;
  onRequest(connection: ClientConnection, envelope: Uint8Array, request: Uint8Array): void;
}

/** The gateways that listen, by machine. */
export class GatewayHub {
  readonly #network: Network;
  readonly #cluster: Cluster;
  readonly #crypto: Crypto;
  readonly #listening = new Map<number, SimulatedGateway>();
  readonly #identities: readonly ReplicaId[];

  /** `identities`: the member that each machine plays. */
  constructor(options: { network: Network; cluster: Cluster; crypto: Crypto; identities: readonly ReplicaId[] }) {
    this.#network = options.network;
    this.#cluster = options.cluster;
    this.#crypto = options.crypto;
    this.#identities = options.identities;
  }

  open(port: GatewayPort): SimulatedGateway {
    const gateway = new SimulatedGateway({ port, cluster: this.#cluster, crypto: this.#crypto });
    this.#listening.set(port.machine, gateway);
    return gateway;
  }

  /** The process is gone: connections end without a goodbye. */
  kill(machine: number, options: { linger: boolean }): void {
    this.#listening.get(machine)?.kill(options);
    this.#listening.delete(machine);
  }

  /** The SDK's way to the replicas from this endpoint. */
  transport(client: Endpoint, onFrame: (frame: Uint8Array) => void = () => undefined): Transport {
    return { open: (member, events) => this.#dial(client, member, events, onFrame) };
  }

  #dial(client: Endpoint, member: Member, events: ChannelEvents, onFrame: (frame: Uint8Array) => void): Channel {
    const { scheduler } = this.#network;
    let stream: Stream<Packet> | null = null;
    let closed = false;
    const report = (why: { code: number; reason: string }): void => {
      if (closed) return;
      closed = true;
      events.onClosed(why);
    };
    const copies = this.#identities.flatMap((identity, machine) => (identity === member.id ? [machine] : []));
    const machine = scheduler.random.pick(copies);
    scheduler.at(this.#network.arrivalUs(client, machine), () => {
      // A blocked path swallows the attempt: the client gives it up.
      if (closed || !this.#network.open(client, machine)) return;
      const gateway = this.#listening.get(machine);
      if (!gateway) {
        report({ code: 0, reason: "refused" });
        return;
      }
      stream = gateway.accept(this.#network, client, {
        receive: (packet) => {
          if (closed) return;
          if (packet instanceof Uint8Array) events.onFrame(Uint8Array.from(packet));
          else {
            stream?.end(CLIENT, { linger: true });
            report(packet);
          }
        },
        closed: () => report(BROKEN),
      });
    });
    return {
      send(frame) {
        if (closed) return;
        onFrame(frame);
        stream?.send(CLIENT, frame);
      },
      queuedBytes: 0,
      close() {
        if (closed) return;
        stream?.end(CLIENT, { linger: true });
        scheduler.after(0, () => report({ code: 1000, reason: "" }));
      },
    };
  }
}

/** One gateway while its process lives. */
export class SimulatedGateway implements Gateway {
  readonly port = 0;
  readonly #port: GatewayPort;
  readonly #sessions: ClientSessions;
  readonly #streams = new Set<Stream<Packet>>();
  #gone = false;

  constructor(options: { port: GatewayPort; cluster: Cluster; crypto: Crypto }) {
    const { port, cluster, crypto } = options;
    const { replica, identity, time } = port;
    this.#port = port;
    const admit = (client: Digest): boolean => port.admits(client);
    const administers = (signKey: Uint8Array): boolean =>
      cluster.view.administrators.some((key) => sameBytes(key, signKey));
    this.#sessions = new ClientSessions({
      crypto,
      cluster: cluster.id,
      replica,
      view: port.view,
      authenticate: authenticator({ crypto, cluster: cluster.id, replica, identity, admit, administers }),
      events: {
        onAuthenticated: (connection, keys) => port.onAuthenticated(connection, keys),
        onRequest: (connection, envelope, request) => port.onRequest(connection, envelope, request),
        links: (fromView) => port.links(fromView),
        onClosed: () => undefined,
        onFault: () => undefined,
      },
      limits: GATEWAY_LIMITS,
      time,
    });
  }

  get connections(): number {
    return this.#sessions.size;
  }

  get queuedBytes(): number {
    return this.#sessions.queuedBytes;
  }

  connectionOf(client: Digest, session: number): ClientConnection | undefined {
    return this.#sessions.connectionOf(client, session);
  }

  /** A client's connection arrived. */
  accept(network: Network, client: Endpoint, theirs: StreamEnd<Packet>): Stream<Packet> {
    const { machine } = this.#port;
    let session: ClientSession | null = null;
    const stream: Stream<Packet> = new Stream<Packet>(network, {
      ends: [client, machine],
      lossy: false,
      handlers: [
        theirs,
        {
          receive: (packet) => {
            if (packet instanceof Uint8Array) this.#enter(() => session?.received(packet, true));
          },
          closed: () => {
            this.#streams.delete(stream);
            this.#enter(() => session?.gone(null));
          },
        },
      ],
    });
    this.#streams.add(stream);
    const carrier: Carrier = {
      remote: `client ${client}`,
      queuedBytes: 0,
      together: null,
      send(frame) {
        stream.send(GATEWAY, Uint8Array.from(frame));
        return true;
      },
      end: (code, reason) => {
        stream.send(GATEWAY, { code, reason });
        stream.end(GATEWAY, { linger: true });
        this.#streams.delete(stream);
      },
    };
    this.#enter(() => {
      session = this.#sessions.open(carrier);
    });
    return stream;
  }

  kill(options: { linger: boolean }): void {
    this.#gone = true;
    for (const stream of this.#streams) stream.end(GATEWAY, options);
    this.#streams.clear();
  }

  /** A clean end: everybody is told. */
  async close(): Promise<void> {
    this.#sessions.close();
  }

  #enter(run: () => void): void {
    if (!this.#gone) this.#port.enter(run);
  }
}
