/**
 * Links of the chain of views for a replica that may know nobody any more (docs/protocol.md section 7, decisions/036): all the
 * members it knew may have been replaced while it was away. Whoever has no link to somebody it should have one to brings its
 * chain there, as anybody may: links prove themselves. One short connection to the peer port:
 *
 *   -> PRESENT {magic, version, cluster, newest view}   <- KNOWN {newest view}   -> LINKS from there on
 */
import { connect as dialTcp, type Socket } from "node:net";
import type { Digest } from "../../protocol/bytes.ts";
import { decoded, isRejection, Malformed } from "../../protocol/errors.ts";
import { Reader, Writer } from "../../protocol/layout.ts";
import { LINK_BYTES_MAX, LINKS_PER_ANSWER_MAX, WIRE_VERSION } from "../../protocol/limits.ts";
import type { Member, ReplicaId } from "../../protocol/view.ts";
import { FrameSplitter, framed, type LinkFaultCode } from "./frames.ts";

const MAGIC = 0x5142_5631; // "QBV1"
const KNOWN_BYTES_MAX = 8;
/** Of the body that holds the links: four of the largest. */
const BODY_BYTES_MAX = 4 * (LINK_BYTES_MAX + 4) + 4;

export type PeerAddress = Pick<Member, "host" | "peerPort">;

/** The chain of views, as its owner knows it. */
export interface ChainPort {
  newest(): number;
  /** Links, encoded, from the one that leads out of this view on. */
  from(viewId: number): readonly Uint8Array[];
  /** Where this replica was in earlier views: whoever lost its data begins in the first that it knows. */
  formerly(replica: ReplicaId): readonly PeerAddress[];
  /**
   * Follows links as far as they lead on from the newest view; false when one leads nowhere. Costs a quorum of signature checks for
   * each that is followed, and for the first that is not.
   */
  take(links: readonly Uint8Array[]): boolean;
}

interface Presented {
  readonly version: number;
  readonly cluster: Digest;
  readonly newest: number;
}

/** What the receiver of a presentation does about a body. */
export type PresentationStep =
  | { readonly type: "fault"; readonly code: LinkFaultCode }
  /** Send these bytes and take a body of so many bytes at most. */
  | { readonly type: "send"; readonly bytes: Uint8Array; readonly bodyBytesMax: number }
  | { readonly type: "done" };

/** Does a connection that begins with this body bring links? */
export function isPresentation(body: Uint8Array): boolean {
  return body.length >= 4 && new Reader(body).u32() === MAGIC;
}

/** The receiving end, without I/O: feed it the bodies received, in order. */
export class PresentationReceiver {
  readonly #cluster: Digest;
  readonly #chain: ChainPort;
  #presented = false;

  constructor(cluster: Digest, chain: ChainPort) {
    this.#cluster = cluster;
    this.#chain = chain;
  }

  receive(body: Uint8Array): PresentationStep {
    if (this.#presented) return this.#receiveLinks(body);
    this.#presented = true;
    const presented = decodePresented(body);
    if (presented === null) return { type: "fault", code: "LINK_HANDSHAKE" };
    if (presented.version !== WIRE_VERSION) return { type: "fault", code: "LINK_VERSION" };
    if (presented.cluster !== this.#cluster) return { type: "fault", code: "LINK_CLUSTER" };
    const newest = this.#chain.newest();
    if (presented.newest <= newest) return { type: "done" };
    return { type: "send", bytes: framed(new Writer(4).u32(newest).finish()), bodyBytesMax: BODY_BYTES_MAX };
  }

  #receiveLinks(body: Uint8Array): PresentationStep {
    const links = decodeLinks(body);
    if (links === null) return { type: "fault", code: "LINK_HANDSHAKE" };
    return this.#chain.take(links) ? { type: "done" } : { type: "fault", code: "LINK_CHAIN" };
  }
}

/**
 * Brings the chain to a member, as much as one body holds, on a connection of its own that it gives back: whether it was of use
 * shows in the link that comes to stand.
 */
export function present(
  { host, peerPort }: PeerAddress,
  { cluster, chain, timeoutMs }: { cluster: Digest; chain: ChainPort; timeoutMs: number },
): Socket {
  const socket = dialTcp({ host, port: peerPort, noDelay: true });
  const deadline = setTimeout(() => socket.destroy(), timeoutMs);
  const splitter = new FrameSplitter(KNOWN_BYTES_MAX);
  let answered = false;
  /** Once: whoever is there may say as much as it likes. */
  const answer = (body: Uint8Array): LinkFaultCode | null => {
    const known = answered ? null : decodeKnown(body);
    answered = true;
    if (known === null) return "LINK_HANDSHAKE";
    socket.end(framed(encodeLinks(chain.from(known))));
    return null;
  };
  socket.once("connect", () => {
    socket.write(framed(encodePresented({ version: WIRE_VERSION, cluster, newest: chain.newest() })));
  });
  socket.on("data", (chunk: Buffer) => {
    if (splitter.push(chunk, answer) !== null) socket.destroy();
  });
  socket.on("error", () => socket.destroy());
  socket.once("close", () => clearTimeout(deadline));
  return socket;
}

function encodePresented({ version, cluster, newest }: Presented): Uint8Array {
  return new Writer(48).u32(MAGIC).u8(version).rawLatin1(cluster).u32(newest).finish();
}

function decodePresented(body: Uint8Array): Presented | null {
  const presented = decoded(() => {
    const reader = new Reader(body);
    if (reader.u32() !== MAGIC) throw new Malformed("LINK_MAGIC");
    const fields = { version: reader.u8(), cluster: reader.rawLatin1(32) as Digest, newest: reader.u32() };
    reader.end();
    return fields;
  });
  return isRejection(presented) ? null : presented;
}

function decodeKnown(body: Uint8Array): number | null {
  const known = decoded(() => {
    const reader = new Reader(body);
    const newest = reader.u32();
    reader.end();
    return newest;
  });
  return isRejection(known) ? null : known;
}

/** As many of them, from the first on, as one body holds. */
function encodeLinks(links: readonly Uint8Array[]): Uint8Array {
  let bytes = 4;
  const some = links.slice(0, LINKS_PER_ANSWER_MAX).filter((link) => {
    bytes += link.length + 4;
    return bytes <= BODY_BYTES_MAX;
  });
  const writer = new Writer(4096).u32(some.length);
  for (const link of some) writer.bytes(link);
  return writer.finish();
}

function decodeLinks(body: Uint8Array): Uint8Array[] | null {
  const links = decoded(() => {
    const reader = new Reader(body);
    const count = reader.u32();
    if (count > LINKS_PER_ANSWER_MAX) throw new Malformed("LINKS_COUNT");
    const found = Array.from({ length: count }, () => Uint8Array.from(reader.bytes(LINK_BYTES_MAX)));
    reader.end();
    return found;
  });
  return isRejection(links) ? null : links;
}
