/**
 * The links of a Byzantine donor (docs/protocol.md section 6): it takes part in everything as it should, and lies to whoever
 * fetches the state from it. Each way is one lie, told whenever there is occasion:
 *
 *   state     a checkpoint that is consistent in itself, chunks, manifest and signed root, of a state with one bit turned
 *   chunk     the right checkpoint, and chunks that are not those of its manifest
 *   manifest  the right checkpoint, and a manifest that is not that of its header
 *   history   the right chunks as the state at an instance that has another history
 *   root      roots signed for states that nobody had, where it has right ones and where it stands
 *   offer     a certificate and roots whose signatures are false
 */
import { copyOf, type Digest, latin1 } from "../../protocol/bytes.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { isRejection } from "../../protocol/errors.ts";
import {
  type ChunkSummary,
  decodeManifest,
  encodeManifest,
  type ImageHeader,
  imageHeader,
  rootOf,
  rootStatement,
} from "../../protocol/image.ts";
import { OFFERED_ROOTS_MAX } from "../../protocol/limits.ts";
import {
  decodeMessage,
  encodeMessage,
  type Message,
  type MessageOf,
  type SignedRoot,
} from "../../protocol/messages.ts";
import type { ServerConfig } from "../../server/config.ts";
import type { Links } from "../../server/network/contract.ts";
import { openTcpLinks, type TcpLinksOptions } from "../../server/network/tcp-links.ts";
import { WrappedLinks } from "./wrapped-links.ts";

export const DONOR_WAYS = ["state", "chunk", "manifest", "history", "root", "offer"] as const;
export type DonorWay = (typeof DONOR_WAYS)[number];

/** A checkpoint as it is claimed to be, and the one that it was made of. */
interface Doctored {
  readonly true: ImageHeader;
  readonly trueRoot: Digest;
  readonly header: ImageHeader;
  readonly root: Digest;
  readonly manifest: Uint8Array | null;
  readonly chunks: ReadonlyMap<number, Uint8Array>;
}

/** What is asked of our own replica in a peer's name, on the way to a doctored checkpoint. */
interface Making {
  readonly header: ImageHeader;
  readonly root: Digest;
  manifest: ChunkSummary[] | null;
}

export async function openLyingDonorLinks(
  options: TcpLinksOptions,
  config: ServerConfig,
  way: DonorWay,
): Promise<Links & { readonly port: number }> {
  let lying: LyingDonorLinks | null = null;
  const events: TcpLinksOptions["events"] = {
    ...options.events,
    onMessage: (from, payload) => options.events.onMessage(from, lying?.received(payload) ?? payload),
  };
  const deliver = (from: number, message: Message): void => {
    const payload = encodeMessage(message);
    setImmediate(() => options.events.onMessage(from, payload));
  };
  lying = new LyingDonorLinks(await openTcpLinks({ ...options, events }), { config, way, deliver });
  return lying;
}

class LyingDonorLinks extends WrappedLinks {
  readonly #config: ServerConfig;
  readonly #way: DonorWay;
  /** Hands our own replica a message as if a peer had sent it. */
  readonly #deliver: (from: number, message: Message) => void;
  readonly #sign: (data: Uint8Array) => Uint8Array;
  /** By the root they are claimed to have. */
  readonly #doctored = new Map<Digest, Doctored>();
  #making: Making | null = null;

  constructor(
    inner: Links & { readonly port: number },
    parts: { config: ServerConfig; way: DonorWay; deliver: (from: number, message: Message) => void },
  ) {
    super(inner);
    this.#config = parts.config;
    this.#way = parts.way;
    this.#deliver = parts.deliver;
    this.#sign = nodeCrypto.signer(parts.config.identity.signSeed);
  }

  /** What our own replica gets to see of a peer's message: it knows nothing of what we claim. */
  received(payload: Uint8Array): Uint8Array {
    const message = decodeMessage(copyOf(payload));
    if (isRejection(message) || (message.type !== "FETCH_MANIFEST" && message.type !== "FETCH_CHUNK")) return payload;
    const doctored = this.#doctored.get(message.root);
    if (!doctored) return payload;
    return encodeMessage({ ...message, instance: doctored.true.instance, root: doctored.trueRoot });
  }

  send(peer: number, payload: Uint8Array): void {
    const message = decodeMessage(copyOf(payload));
    const instead = isRejection(message) ? null : this.#instead(peer, message);
    if (isRejection(message)) this.inner.send(peer, payload);
    else if (instead) this.inner.send(peer, instead === message ? payload : encodeMessage(instead));
  }

  /** Null: nothing is sent. */
  #instead(peer: number, message: Message): Message | null {
    switch (message.type) {
      case "OFFER":
        return this.#offer(peer, message);
      case "ROOT":
        if (this.#way === "state") {
          // There is a new checkpoint: time to make a false one of it, before anybody asks.
          this.#askOffer(peer);
          return null;
        }
        return this.#way === "root" ? { ...message, ...this.#falseRoot(message.instance) } : message;
      case "MANIFEST":
        return this.#manifest(peer, message);
      case "CHUNK":
        return this.#chunk(peer, message);
      default:
        return message;
    }
  }

  #offer(peer: number, offer: MessageOf<"OFFER">): Message | null {
    const newest = offer.checkpoints[0];
    switch (this.#way) {
      case "offer":
        return {
          ...offer,
          newest: offer.newest && {
            ...offer.newest,
            votes: offer.newest.votes.map((vote) => ({ ...vote, signature: flipped(vote.signature) })),
          },
          roots: offer.roots.map((root) => ({ ...root, signature: flipped(root.signature) })),
        };
      case "root":
        return { ...offer, roots: this.#falseRoots(offer) };
      case "history":
        return newest ? { ...offer, checkpoints: [this.#elsewhere(newest)] } : offer;
      case "state": {
        if (!newest) return offer;
        const trueRoot = this.#rootOf(newest);
        const doctored = [...this.#doctored.values()].find((one) => one.trueRoot === trueRoot);
        if (!doctored) {
          // The offer is sent when there is something false to offer.
          this.#make(peer, newest);
          return null;
        }
        // None of the right roots: who says both is noticed before anybody fetches from it.
        const roots = [...this.#doctored.values()].map(({ header: { instance }, root }) => ({
          instance,
          root,
          signature: this.#signedRoot(instance, root),
        }));
        return { ...offer, checkpoints: [doctored.header], roots: roots.slice(-OFFERED_ROOTS_MAX) };
      }
      default:
        return offer;
    }
  }

  /** The same checkpoint, said to be of the instance before: with the history of nobody. */
  #elsewhere(header: ImageHeader): ImageHeader {
    const trueRoot = this.#rootOf(header);
    const known = [...this.#doctored.values()].find((one) => one.trueRoot === trueRoot);
    if (known) return known.header;
    const moved = { ...header, digest: latin1(nodeCrypto.random(32)) as Digest };
    const root = this.#rootOf(moved);
    this.#doctored.set(root, { true: header, trueRoot, header: moved, root, manifest: null, chunks: new Map() });
    return moved;
  }

  /** Our own replica sends an offer, and we what we make of it. */
  #askOffer(peer: number): void {
    this.#deliver(peer, { type: "FETCH_OFFER", view: this.#config.cluster.view.id, regency: 0, rootsFrom: 0 });
  }

  #make(peer: number, header: ImageHeader): void {
    const root = this.#rootOf(header);
    if (this.#making?.root === root) return;
    this.#making = { header, root, manifest: null };
    const { instance } = header;
    this.#deliver(peer, { type: "FETCH_MANIFEST", view: this.#config.cluster.view.id, regency: 0, instance, root });
  }

  #manifest(peer: number, message: MessageOf<"MANIFEST">): Message | null {
    const making = this.#making;
    if (making && making.manifest === null && message.root === making.root && message.manifest.length > 0) {
      making.manifest = decodeManifest(message.manifest);
      const { view, regency, instance, root } = message;
      this.#deliver(peer, { type: "FETCH_CHUNK", view, regency, instance, root, index: falseIndex(making.manifest) });
      return null;
    }
    if (this.#way === "manifest") return { ...message, manifest: flipped(message.manifest) };
    const doctored = this.#claimed(message.root);
    if (!doctored) return message;
    const { instance } = doctored.header;
    return { ...message, instance, root: doctored.root, manifest: doctored.manifest ?? message.manifest };
  }

  #chunk(peer: number, message: MessageOf<"CHUNK">): Message | null {
    const { index, root, chunk } = message;
    const making = this.#making;
    if (making?.manifest && root === making.root && index === falseIndex(making.manifest)) {
      this.#making = null;
      this.#doctor(making.header, making.manifest, chunk);
      this.#askOffer(peer);
      return null;
    }
    if (this.#way === "chunk") return { ...message, chunk: flipped(chunk) };
    const doctored = this.#claimed(root);
    if (!doctored) return message;
    const { instance } = doctored.header;
    return { ...message, instance, root: doctored.root, chunk: doctored.chunks.get(index) ?? chunk };
  }

  /** The last bit of one chunk turned, and everything above it made to match. */
  #doctor(header: ImageHeader, manifest: readonly ChunkSummary[], right: Uint8Array): void {
    if (right.length === 0) return;
    const index = falseIndex(manifest);
    const chunk = Uint8Array.from(right);
    chunk[chunk.length - 1] = (chunk.at(-1) as number) ^ 1;
    const summary = { digest: nodeCrypto.sha256(chunk), bytes: chunk.length };
    const chunks = manifest.with(index, summary);
    const claimed = imageHeader(nodeCrypto, header, chunks);
    const doctored = {
      true: header,
      trueRoot: this.#rootOf(header),
      header: claimed,
      root: this.#rootOf(claimed),
      manifest: encodeManifest(chunks),
      chunks: new Map([[index, chunk]]),
    };
    this.#doctored.set(doctored.root, doctored);
  }

  #claimed(trueRoot: Digest): Doctored | null {
    return [...this.#doctored.values()].find((one) => one.trueRoot === trueRoot) ?? null;
  }

  #rootOf(header: ImageHeader): Digest {
    return rootOf(nodeCrypto, this.#config.cluster.view, header);
  }

  #falseRoots({ decided, roots }: MessageOf<"OFFER">): SignedRoot[] {
    const instances = new Set([decided, ...roots.map(({ instance }) => instance)].filter((instance) => instance > 0));
    return [...instances].slice(0, OFFERED_ROOTS_MAX).map((instance) => this.#falseRoot(instance));
  }

  /** Always the same one for an instance: two of them would be noticed at once. */
  #falseRoot(instance: number): { instance: number; root: Digest; signature: Uint8Array } {
    const root = nodeCrypto.sha256(Buffer.from(`nobody had this at ${instance}`));
    return { instance, root, signature: this.#signedRoot(instance, root) };
  }

  #signedRoot(instance: number, root: Digest): Uint8Array {
    const { id, view } = this.#config.cluster;
    return this.#sign(rootStatement(id, { view: view.id, instance, root }));
  }
}

/** In the middle lie records that are written once: what is written all the time would soon be right again. */
function falseIndex(manifest: readonly ChunkSummary[]): number {
  return manifest.length >> 1;
}

/** A copy with one bit turned. */
function flipped(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes);
  if (copy.length > 0) copy[copy.length >> 1] = (copy[copy.length >> 1] as number) ^ 1;
  return copy;
}
