/**
 * Links to every other member over TCP (docs/protocol.md section 2): authenticated, ordered, reconnecting; lossy only across
 * a reconnect. Of each pair the replica with the lower id dials and the other listens, so two connections of one pair
 * never race; a newly authenticated connection replaces the one before, which is then half-open and not known to be.
 * What a turn of the event loop queues for a peer leaves as one frame at `flush`.
 */
import { createServer, connect as dialTcp, type Server, type Socket } from "node:net";
import { type Digest, sameBytes } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import type { Identity } from "../../protocol/identity.ts";
import { HANDSHAKE_MS_MAX, LINK_QUEUE_BYTES_MAX } from "../../protocol/limits.ts";
import type { Member, ReplicaId } from "../../protocol/view.ts";
import type { LinkEvents, Links } from "./contract.ts";
import { type LinkFaultCode, MESSAGE_BYTES_MAX } from "./frames.ts";
import { type HandshakeContext, type PeerSecret, peerSecret, roleTowards } from "./handshake.ts";
import { type ListenAddress, listening } from "./listening.ts";
import { type ChainPort, present } from "./presentation.ts";
import { TcpLink } from "./tcp-link.ts";

/** Bounds a test may tighten. Times in milliseconds. */
export interface LinkLimits {
  readonly handshakeMs: number;
  /** An authenticated link that sends nothing for so long is dropped: its other end may be gone without a word. */
  readonly silenceMs: number;
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
  readonly queueBytesMax: number;
  /** Connections accepted but not authenticated, at any time. */
  readonly unauthenticatedMax: number;
}

const LIMITS: LinkLimits = {
  handshakeMs: HANDSHAKE_MS_MAX,
  silenceMs: 10_000,
  backoffMsMin: 50,
  backoffMsMax: 2_000,
  queueBytesMax: LINK_QUEUE_BYTES_MAX,
  unauthenticatedMax: 64,
};

/** How often silence is looked for within `silenceMs`. */
const SILENCE_LOOKS = 4;
/** A link that stood this many looks clears what its peer did before. */
const FORGIVEN_LOOKS = 4 * SILENCE_LOOKS;

export interface TcpLinksOptions {
  readonly crypto: Crypto;
  readonly cluster: Digest;
  readonly self: ReplicaId;
  readonly identity: Identity;
  /** All members of the view, this replica included. */
  readonly members: readonly Member[];
  readonly listen: ListenAddress;
  readonly events: LinkEvents;
  /** The chain of views: brought to members without a link, and taken from anybody. None: neither. */
  readonly chain?: ChainPort;
  readonly limits?: Partial<LinkLimits>;
}

/** What is known of one other member. */
interface Slot {
  readonly member: Member;
  readonly secret: PeerSecret;
  readonly dials: boolean;
  link: TcpLink | null;
  /** The connection being dialled, not authenticated yet. */
  dialling: TcpLink | null;
  redial: NodeJS.Timeout | null;
  /** Dials since the last authenticated link. */
  attempts: number;
  /** Faults and punishments since the peer last behaved for a while: each doubles its back-off. */
  offences: number;
  refusedUntilMs: number;
  queue: Uint8Array[];
  queueBytes: number;
  silentLooks: number;
  standingLooks: number;
  /** The connection on which the chain is being brought to it. */
  presenting: Socket | null;
  /** How often that was tried: each of its addresses has its turn. */
  presentations: number;
}

class TcpLinks implements Links {
  port = 0;
  readonly #options: TcpLinksOptions;
  readonly #self: ReplicaId;
  readonly #events: LinkEvents;
  readonly #limits: LinkLimits;
  readonly #slots = new Map<ReplicaId, Slot>();
  readonly #context: HandshakeContext;
  readonly #server: Server;
  /** Accepted and not authenticated, oldest first. */
  readonly #strangers = new Set<TcpLink>();
  #dirty: Slot[] = [];
  #watch: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(options: TcpLinksOptions) {
    const { crypto, cluster, self, identity } = options;
    this.#options = options;
    this.#self = self;
    this.#events = options.events;
    this.#limits = { ...LIMITS, ...options.limits };
    for (const member of options.members) if (member.id !== self) this.#addSlot(member);
    this.#context = {
      crypto,
      cluster,
      self,
      boxKey: identity.boxKey,
      secretOf: (peer) => this.#slots.get(peer)?.secret,
      refuses: (peer) => performance.now() < (this.#slots.get(peer)?.refusedUntilMs ?? 0),
    };
    this.#server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
  }

  async open(listen: ListenAddress): Promise<void> {
    this.port = await listening(this.#server, { listen, setting: `peerPort of replica ${this.#self}` });
    this.#watch = setInterval(() => this.#look(), this.#limits.silenceMs / SILENCE_LOOKS);
    for (const slot of this.#slots.values()) if (slot.dials) this.#dial(slot);
  }

  admit(member: Member): void {
    if (this.#closed || member.id === this.#self) return;
    const known = this.#slots.get(member.id);
    if (known && isSame(known.member, member)) return;
    if (known) this.#forget(known);
    const slot = this.#addSlot(member);
    if (slot.dials) this.#dial(slot);
  }

  #forget(slot: Slot): void {
    const { link, member } = slot;
    this.#slots.delete(member.id);
    endConnections(slot);
    if (link) this.#events.onDisconnected(member.id);
  }

  #addSlot(member: Member): Slot {
    const { crypto, cluster, identity } = this.#options;
    const slot: Slot = {
      member,
      secret: peerSecret(crypto, { cluster, identity, member }),
      dials: roleTowards(this.#self, member.id) === "dialer",
      link: null,
      dialling: null,
      redial: null,
      attempts: 0,
      offences: 0,
      refusedUntilMs: 0,
      queue: [],
      queueBytes: 0,
      silentLooks: 0,
      standingLooks: 0,
      presenting: null,
      presentations: 0,
    };
    this.#slots.set(member.id, slot);
    return slot;
  }

  send(peer: ReplicaId, payload: Uint8Array): void {
    const slot = this.#slots.get(peer);
    const link = slot?.link;
    if (!slot || !link) return;
    if (payload.length > MESSAGE_BYTES_MAX) {
      this.#events.onFault({ from: null, code: "LINK_MESSAGE_SIZE", remote: link.remote });
      return;
    }
    if (slot.queueBytes + link.unsentBytes + payload.length > this.#limits.queueBytesMax) {
      link.close("LINK_QUEUE");
      return;
    }
    if (slot.queue.length === 0) this.#dirty.push(slot);
    slot.queue.push(payload);
    slot.queueBytes += payload.length;
  }

  flush(): void {
    if (this.#dirty.length === 0) return;
    const dirty = this.#dirty;
    this.#dirty = [];
    for (const slot of dirty) {
      if (slot.queue.length === 0) continue;
      slot.link?.send(slot.queue);
      slot.queue = [];
      slot.queueBytes = 0;
    }
  }

  punish(peer: ReplicaId, code: string): void {
    const slot = this.#slots.get(peer);
    const link = slot?.link;
    if (!slot || !link) return;
    this.#events.onFault({ from: peer, code, remote: link.remote });
    this.#offended(slot);
    link.close(null);
  }

  connected(): readonly ReplicaId[] {
    const ids: ReplicaId[] = [];
    for (const [id, slot] of this.#slots) if (slot.link !== null) ids.push(id);
    return ids.sort((a, b) => a - b);
  }

  queuedBytes(peer: ReplicaId): number {
    const slot = this.#slots.get(peer);
    return slot ? slot.queueBytes + (slot.link?.unsentBytes ?? 0) : 0;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#watch) clearInterval(this.#watch);
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const stranger of this.#strangers) stranger.close(null);
    for (const slot of this.#slots.values()) endConnections(slot);
    await closed;
  }

  #accept(socket: Socket): void {
    const [oldest] = this.#strangers;
    if (oldest && this.#strangers.size >= this.#limits.unauthenticatedMax) oldest.close("LINK_FLOOD");
    this.#strangers.add(this.#link(socket, null));
  }

  #dial(slot: Slot): void {
    slot.redial = null;
    slot.attempts++;
    const { host, peerPort, id } = slot.member;
    slot.dialling = this.#link(dialTcp({ host, port: peerPort, noDelay: true }), id);
  }

  #link(socket: Socket, dials: ReplicaId | null): TcpLink {
    const { handshakeMs } = this.#limits;
    const chain = dials === null ? (this.#options.chain ?? null) : null;
    return new TcpLink({ socket, dials, chain, context: this.#context, events: this, handshakeMs });
  }

  onAuthenticated(link: TcpLink, peer: ReplicaId): void {
    const slot = this.#slots.get(peer) as Slot;
    this.#strangers.delete(link);
    if (slot.dialling === link) slot.dialling = null;
    slot.link?.close(null);
    slot.link = link;
    slot.attempts = 0;
    slot.silentLooks = 0;
    slot.standingLooks = 0;
    this.#events.onConnected(peer);
  }

  onMessage(link: TcpLink, message: Uint8Array): void {
    this.#events.onMessage(link.peer as ReplicaId, message);
  }

  onClosed(link: TcpLink, fault: LinkFaultCode | null): void {
    this.#strangers.delete(link);
    const slot = link.peer === null ? this.#dialled(link) : this.#slots.get(link.peer);
    if (fault !== null) this.#events.onFault({ from: link.peer, code: fault, remote: link.remote });
    if (!slot) return;
    if (fault !== null && link.peer !== null) this.#offended(slot);
    if (slot.dialling === link) slot.dialling = null;
    if (slot.link === link) {
      slot.link = null;
      slot.queue = [];
      slot.queueBytes = 0;
      if (!this.#closed) this.#events.onDisconnected(slot.member.id);
    }
    this.#redialLater(slot);
  }

  #dialled(link: TcpLink): Slot | undefined {
    for (const slot of this.#slots.values()) if (slot.dialling === link) return slot;
    return undefined;
  }

  #offended(slot: Slot): void {
    slot.offences++;
    slot.refusedUntilMs = performance.now() + this.#backoffMs(slot.offences);
  }

  #redialLater(slot: Slot): void {
    if (this.#closed || !slot.dials || slot.link || slot.dialling || slot.redial) return;
    slot.redial = setTimeout(() => this.#dial(slot), this.#backoffMs(Math.max(slot.attempts, slot.offences)));
  }

  /** 1, 2, 3... to the minimum, twice, four times as much..., with up to half of it taken off at random. */
  #backoffMs(failures: number): number {
    const { backoffMsMin, backoffMsMax } = this.#limits;
    const whole = Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(30, Math.max(0, failures - 1)));
    return whole * (1 - Math.random() / 2);
  }

  /** Somebody without a link may know only members that are none any more, and refuse us. */
  #present(slot: Slot): void {
    const { chain, cluster } = this.#options;
    if (!chain || chain.newest() === 0 || slot.presenting) return;
    const places = [slot.member, ...chain.formerly(slot.member.id)];
    const place = places[slot.presentations++ % places.length] ?? slot.member;
    const socket = present(place, { cluster, chain, timeoutMs: this.#limits.handshakeMs });
    slot.presenting = socket;
    socket.once("close", () => {
      slot.presenting = null;
    });
  }

  /** Runs `SILENCE_LOOKS` times within `silenceMs`. */
  #look(): void {
    for (const slot of this.#slots.values()) {
      const link = slot.link;
      if (link === null) {
        this.#present(slot);
        continue;
      }
      slot.silentLooks = link.heard ? 0 : slot.silentLooks + 1;
      link.heard = false;
      if (++slot.standingLooks >= FORGIVEN_LOOKS) slot.offences = 0;
      if (slot.silentLooks >= SILENCE_LOOKS) link.close("LINK_TIMEOUT");
    }
  }
}

/** Everything that stands, is being made or is to be made. */
function endConnections({ redial, dialling, presenting, link }: Slot): void {
  if (redial) clearTimeout(redial);
  dialling?.close(null);
  presenting?.destroy();
  link?.close(null);
}

function isSame(one: Member, other: Member): boolean {
  const sameKeys = sameBytes(one.boxKey, other.boxKey) && sameBytes(one.signKey, other.signKey);
  return sameKeys && one.host === other.host && one.peerPort === other.peerPort;
}

/**
 * Opens this replica's links: listens, and dials every member with a higher id, for ever. `onMessage` gets a view that is
 * valid during the call only; payloads given to `send` must not change before `flush`. Events may be called from within
 * `send` (queue full) and `punish`.
 * @throws QuorateError PORT_IN_USE, CONFIG_INVALID (address), KEY_FILE_INVALID (a member's key is of low order)
 */
export async function openTcpLinks(options: TcpLinksOptions): Promise<Links & { readonly port: number }> {
  const links = new TcpLinks(options);
  await links.open(options.listen);
  return links;
}
