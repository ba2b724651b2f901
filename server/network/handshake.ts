/**
 * The handshake of a replica link (docs/protocol.md section 2), without I/O. Both sides say HELLO with a random nonce, then
 * PROOF: a MAC over both HELLOs under a key from the static shared secret, both nonces, and labels that bind cluster,
 * ids, direction and both public keys. Nothing else is accepted before. The replica with the lower id dials, the other
 * listens, so there is one connection per pair and its role is part of what is proved; nothing said in one role or
 * direction counts in the other. The keys of the frames come from the same inputs under another label.
 */
import { bytesOf, copyOf, type Digest, EMPTY, utf8 } from "../../protocol/bytes.ts";
import { type Crypto, equalMacs, type MacKey } from "../../protocol/crypto/contract.ts";
import { decoded, isRejection, Malformed, type Rejection } from "../../protocol/errors.ts";
import type { Identity } from "../../protocol/identity.ts";
import { Reader, Writer } from "../../protocol/layout.ts";
import { WIRE_VERSION } from "../../protocol/limits.ts";
import { type Member, type ReplicaId, writeTag } from "../../protocol/view.ts";
import { framed, type LinkFaultCode } from "./frames.ts";

const MAGIC = 0x5142_4c31; // "QBL1"
const NONCE_BYTES = 32;
const PROOF_BYTES = 32;
/** The largest body before a link is authenticated. */
export const HANDSHAKE_BODY_BYTES_MAX = 128;

const ROLES = ["dialer", "listener"] as const;
export type LinkRole = (typeof ROLES)[number];

/** The role of `self` towards `peer`: the lower id dials. */
export function roleTowards(self: ReplicaId, peer: ReplicaId): LinkRole {
  return self < peer ? "dialer" : "listener";
}

/** What two replicas share for good: computed once per peer. */
export interface PeerSecret {
  readonly secret: Uint8Array;
  readonly boxKey: Uint8Array;
}

/** @throws QuorateError KEY_FILE_INVALID when the member's public key is of low order. */
export function peerSecret(
  crypto: Crypto,
  options: { cluster: Digest; identity: Identity; member: Member },
): PeerSecret {
  const agreed = crypto.agree(options.identity.boxSecret, options.member.boxKey);
  const secret = crypto.hkdf(agreed, bytesOf(options.cluster), utf8("quorate/key/1/link"), 32);
  return { secret, boxKey: options.member.boxKey };
}

export interface HandshakeContext {
  readonly crypto: Crypto;
  readonly cluster: Digest;
  readonly self: ReplicaId;
  readonly boxKey: Uint8Array;
  /** Undefined for whoever is not another member. */
  secretOf(peer: ReplicaId): PeerSecret | undefined;
  /** True while a member that misbehaved has to wait: it is turned away without a word. */
  refuses(peer: ReplicaId): boolean;
}

export type HandshakeStep =
  | { readonly type: "fault"; readonly code: LinkFaultCode }
  | { readonly type: "refused" }
  /** Send these bytes and wait for the next body. */
  | { readonly type: "send"; readonly bytes: Uint8Array }
  | { readonly type: "done"; readonly peer: ReplicaId; readonly sendKey: MacKey; readonly receiveKey: MacKey };

interface HelloFields {
  readonly version: number;
  readonly cluster: Digest;
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  readonly role: number;
  readonly nonce: Uint8Array;
}

function encodeHello(hello: HelloFields): Uint8Array {
  const writer = new Writer(HANDSHAKE_BODY_BYTES_MAX).u32(MAGIC).u8(hello.version).rawLatin1(hello.cluster);
  return writer.u32(hello.from).u32(hello.to).u8(hello.role).raw(hello.nonce).finish();
}

function decodeHello(bytes: Uint8Array): HelloFields | Rejection {
  return decoded(() => {
    const reader = new Reader(bytes);
    if (reader.u32() !== MAGIC) throw new Malformed("LINK_MAGIC");
    const hello = {
      version: reader.u8(),
      cluster: reader.rawLatin1(32) as Digest,
      from: reader.u32(),
      to: reader.u32(),
      role: reader.u8(),
      nonce: reader.raw(NONCE_BYTES),
    };
    reader.end();
    return hello;
  });
}

interface LinkKeys {
  readonly sendProof: MacKey;
  readonly receiveProof: MacKey;
  readonly send: MacKey;
  readonly receive: MacKey;
}

/** One handshake, one connection: feed it the bodies received, in order. */
export class Handshake {
  readonly #context: HandshakeContext;
  readonly #role: LinkRole;
  readonly #nonce: Uint8Array;
  /** Who the other side must be; for a listener, known once its HELLO came. */
  #peer: ReplicaId | null;
  #dialerHello: Uint8Array = EMPTY;
  #listenerHello: Uint8Array = EMPTY;
  #keys: LinkKeys | null = null;

  private constructor(context: HandshakeContext, role: LinkRole, peer: ReplicaId | null) {
    this.#context = context;
    this.#role = role;
    this.#peer = peer;
    this.#nonce = context.crypto.random(NONCE_BYTES);
  }

  /** The dialling side, and the bytes it starts with. */
  static dial(context: HandshakeContext, peer: ReplicaId): { handshake: Handshake; bytes: Uint8Array } {
    const handshake = new Handshake(context, "dialer", peer);
    handshake.#dialerHello = handshake.#hello(peer);
    return { handshake, bytes: framed(handshake.#dialerHello) };
  }

  static listen(context: HandshakeContext): Handshake {
    return new Handshake(context, "listener", null);
  }

  receive(body: Uint8Array): HandshakeStep {
    return this.#keys === null ? this.#receiveHello(body) : this.#receiveProof(body, this.#keys);
  }

  #hello(to: ReplicaId): Uint8Array {
    const { cluster, self } = this.#context;
    const role = ROLES.indexOf(this.#role);
    return encodeHello({ version: WIRE_VERSION, cluster, from: self, to, role, nonce: this.#nonce });
  }

  #receiveHello(body: Uint8Array): HandshakeStep {
    const { cluster, self } = this.#context;
    const hello = decodeHello(body);
    if (isRejection(hello)) return { type: "fault", code: "LINK_HANDSHAKE" };
    if (hello.version !== WIRE_VERSION) return { type: "fault", code: "LINK_VERSION" };
    if (hello.cluster !== cluster) return { type: "fault", code: "LINK_CLUSTER" };
    const peer = hello.from;
    const secret = this.#context.secretOf(peer);
    const theirRole = this.#role === "dialer" ? "listener" : "dialer";
    const expected = hello.to === self && (this.#peer === null || this.#peer === peer);
    if (!secret || !expected || ROLES[hello.role] !== theirRole || roleTowards(self, peer) !== this.#role) {
      return { type: "fault", code: "LINK_IDENTITY" };
    }
    if (this.#context.refuses(peer)) return { type: "refused" };
    this.#peer = peer;
    if (this.#role === "dialer") this.#listenerHello = copyOf(body);
    else {
      this.#dialerHello = copyOf(body);
      this.#listenerHello = this.#hello(peer);
    }
    const keys = this.#deriveKeys(secret, peer);
    this.#keys = keys;
    const proof = framed(bytesOf(this.#proof(keys.sendProof)));
    const bytes = this.#role === "dialer" ? proof : Buffer.concat([framed(this.#listenerHello), proof]);
    return { type: "send", bytes };
  }

  #receiveProof(body: Uint8Array, keys: LinkKeys): HandshakeStep {
    if (body.length !== PROOF_BYTES) return { type: "fault", code: "LINK_HANDSHAKE" };
    const proof = new Reader(body).rawLatin1(PROOF_BYTES);
    if (!equalMacs(proof, this.#proof(keys.receiveProof))) return { type: "fault", code: "LINK_MAC" };
    return { type: "done", peer: this.#peer as ReplicaId, sendKey: keys.send, receiveKey: keys.receive };
  }

  #proof(key: MacKey): Digest {
    const { crypto, cluster } = this.#context;
    const transcript = writeTag(new Writer(), "quorate/link-proof/1", cluster);
    return crypto.mac(key, transcript.bytes(this.#dialerHello).bytes(this.#listenerHello).view());
  }

  #deriveKeys(secret: PeerSecret, peer: ReplicaId): LinkKeys {
    const { crypto, cluster, self } = this.#context;
    const salt = crypto.sha256(new Writer().bytes(this.#dialerHello).bytes(this.#listenerHello).view());
    const mine = { id: self, boxKey: this.#context.boxKey };
    const theirs = { id: peer, boxKey: secret.boxKey };
    const derive = (label: string, from: typeof mine, to: typeof mine): MacKey => {
      const info = writeTag(new Writer(), label, cluster).u32(from.id).u32(to.id).raw(from.boxKey).raw(to.boxKey);
      return crypto.macKey(crypto.hkdf(secret.secret, bytesOf(salt), info.finish(), 32));
    };
    return {
      sendProof: derive("quorate/link-proof-key/1", mine, theirs),
      receiveProof: derive("quorate/link-proof-key/1", theirs, mine),
      send: derive("quorate/link-frame-key/1", mine, theirs),
      receive: derive("quorate/link-frame-key/1", theirs, mine),
    };
  }
}
