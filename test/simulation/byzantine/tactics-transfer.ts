/**
 * Lies to whoever fetches a state, or asks what it may have forgotten: false claims in OFFER, false roots under a good
 * signature, whole images that differ in one entry and are consistent in themselves, chunks that are not what their manifest
 * says, no answer at all, and log that begins at another history.
 */
import { utf8 } from "../../../protocol/bytes.ts";
import { decoded, isRejection } from "../../../protocol/errors.ts";
import {
  ChunkBuilder,
  decodeChunk,
  encodeManifest,
  type ImageHeader,
  imageHeader,
  rootOf,
} from "../../../protocol/image.ts";
import type { Message, MessageOf } from "../../../protocol/messages.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import type { Outgoing } from "../contract.ts";
import { type Liar, sendTo, type Tactic } from "./tactic.ts";

type Offer = MessageOf<"OFFER">;

const FAR = [1, 1, 3, 100, 4_000_000_000];
const STALL_US_MAX = 8_000_000;
const IMAGES_MAX = 4;

/** A checkpoint with some of its claims changed, under a root that the liar signs. */
function changedHeader({ random, guild }: Liar, header: ImageHeader): ImageHeader {
  const far = random.pick(FAR);
  switch (random.below(5)) {
    case 0:
      return { ...header, bytes: random.pick([0, Math.ceil(header.bytes * 1.2), header.bytes * 1_000]) };
    case 1:
      return { ...header, instance: header.instance + far };
    case 2:
      return { ...header, digest: guild.crypto.sha256(Uint8Array.of(far & 255)) };
    case 3:
      return { ...header, timestampMs: random.chance(0.5) ? 0 : header.timestampMs + far };
    default:
      return { ...header, chunks: random.pick([0, header.chunks + 1, 60_000]) };
  }
}

/** Votes of the asker: none, an old one that is real, one it never gave. */
function falseWrite({ random, guild }: Liar, to: ReplicaId): Offer["yourWrite"] {
  const real = guild.writesOf(to);
  if (real.length === 0 || random.chance(0.3)) return null;
  const write = random.pick(real);
  return random.chance(0.5) ? write : { ...write, instance: write.instance + random.pick(FAR) };
}

function falseOffer(liar: Liar, to: ReplicaId, offer: Offer): Offer {
  const { random, guild, self } = liar;
  const far = random.pick(FAR);
  switch (random.below(9)) {
    case 0:
      return { ...offer, wanted: Math.min(0xffff_ffff, random.chance(0.5) ? offer.wanted + far : 0) };
    case 1:
      return { ...offer, decided: random.chance(0.5) ? offer.decided + far : 0 };
    case 2:
      return {
        ...offer,
        newest: random.chance(0.5) || guild.certificates.length === 0 ? null : guild.anyCertificate(random),
      };
    case 3:
      return { ...offer, yourWrite: falseWrite(liar, to) };
    case 4:
      return {
        ...offer,
        logFirst: random.pick([0, 1, offer.logFirst + far]),
        logBytes: offer.logBytes * random.below(3),
      };
    case 5:
      return { ...offer, checkpoints: [] };
    case 6:
      return { ...offer, roots: [] };
    case 7:
      return { ...offer, roots: offer.roots.map(({ instance }) => guild.root(self, instance, falseRoot(liar))) };
    default: {
      const checkpoints = offer.checkpoints.map((header) => changedHeader(liar, header));
      const signed = checkpoints.map((header) =>
        guild.root(self, header.instance, rootOf(guild.crypto, guild.view, header)),
      );
      return { ...offer, checkpoints, roots: [...signed, ...offer.roots].slice(0, Math.max(1, offer.roots.length)) };
    }
  }
}

function falseRoot({ guild, random }: Liar) {
  return guild.crypto.sha256(utf8(`another state ${random.below(3)}`));
}

/** Nothing of what it offers, or remembers, is quite so. */
export function falseOffers(liar: Liar): Tactic {
  return {
    personal: true,
    rewrite: ({ to, message }) => (message.type === "OFFER" ? [{ to, message: falseOffer(liar, to, message) }] : null),
  };
}

/** Says in ROOT, and signs, that its state was another one. */
export function falseRoots(liar: Liar): Tactic {
  const { guild, self, random } = liar;
  return {
    rewrite({ to, message }) {
      if (message.type !== "ROOT") return null;
      const instance = message.instance + (random.chance(0.3) ? random.pick(FAR) : 0);
      return [{ to, message: { ...message, ...guild.root(self, instance, falseRoot(liar)) } }];
    },
  };
}

/** Chunks and manifests that are wrong, empty, late, or never come. */
export function badDonor(liar: Liar): Tactic {
  const { random } = liar;
  const broken = (bytes: Uint8Array): Uint8Array => {
    const copy = Uint8Array.from(bytes);
    if (copy.length > 0) copy[random.below(copy.length)] = random.below(256);
    return random.chance(0.3) ? copy.slice(0, random.below(copy.length + 1)) : copy;
  };
  const worse = (bytes: Uint8Array): Uint8Array => (random.chance(0.3) ? new Uint8Array(0) : broken(bytes));
  return {
    personal: true,
    rewrite(outgoing: Outgoing) {
      const { to, message } = outgoing;
      if (message.type !== "CHUNK" && message.type !== "MANIFEST") return null;
      if (random.chance(0.3)) return [];
      if (random.chance(0.3)) return [{ ...outgoing, delayUs: random.below(STALL_US_MAX) }];
      if (message.type === "CHUNK") return [{ to, message: { ...message, chunk: worse(message.chunk) } }];
      return [{ to, message: { ...message, manifest: worse(message.manifest) } }];
    },
  };
}

/** History that hangs on another digest than it should. */
export function falsePrevious(liar: Liar): Tactic {
  const { guild, random } = liar;
  return {
    rewrite({ to, message }) {
      if (message.type !== "HISTORY") return null;
      const digests = guild.batches.map(({ digest }) => digest);
      const previous = digests.length > 0 && random.chance(0.5) ? random.pick(digests) : falseRoot(liar);
      return [{ to, message: { ...message, previous } }];
    },
  };
}

interface FalseImage {
  readonly header: ImageHeader;
  readonly root: string;
  readonly manifest: Uint8Array;
  readonly chunk: Uint8Array;
}

/** The same image with one entry changed: consistent in itself, and signed. */
function altered(liar: Liar, header: ImageHeader, chunk: Uint8Array): FalseImage | null {
  const { guild, random } = liar;
  const entries = decoded(() => decodeChunk(chunk));
  if (isRejection(entries) || entries.length === 0) return null;
  const victim = random.below(entries.length);
  const builder = new ChunkBuilder();
  entries.forEach(([key, value], at) => {
    if (at !== victim) builder.add(key, value);
    else if (random.chance(0.7)) {
      const changed = Uint8Array.from(value);
      const last = changed.length - 1;
      if (last >= 0) changed[last] = (changed[last] as number) ^ 1;
      builder.add(key, changed);
    }
  });
  const bytes = builder.take();
  if (!bytes) return null;
  const copy = Uint8Array.from(bytes);
  const chunks = [{ digest: guild.crypto.sha256(copy), bytes: copy.length }];
  const { instance, digest, timestampMs } = header;
  const place = random.chance(0.8) ? { instance, digest, timestampMs } : changedHeader(liar, header);
  const own = imageHeader(guild.crypto, place, chunks);
  return { header: own, root: rootOf(guild.crypto, guild.view, own), manifest: encodeManifest(chunks), chunk: copy };
}

/** Fetches the checkpoints of others, and offers them with an entry changed. */
export function falseImages(liar: Liar): Tactic {
  const { guild, self, others, random } = liar;
  const wanted = new Map<string, ImageHeader>();
  const images: FalseImage[] = [];
  let asking: Outgoing[] = [];
  const place = () => ({ view: guild.view.id, regency: guild.regency });
  const answer = (message: Message): Message | null => {
    if (message.type !== "MANIFEST" && message.type !== "CHUNK") return null;
    const image = images.find(({ root }) => root === message.root);
    if (!image) return null;
    return message.type === "MANIFEST" ? { ...message, manifest: image.manifest } : { ...message, chunk: image.chunk };
  };
  return {
    personal: true,
    observe(from, message) {
      if (message.type === "OFFER") {
        for (const header of message.checkpoints) {
          const root = rootOf(guild.crypto, guild.view, header);
          if (header.chunks !== 1 || wanted.has(root)) continue;
          wanted.set(root, header);
          if (wanted.size > IMAGES_MAX) wanted.delete(wanted.keys().next().value as string);
          asking.push({
            to: from,
            message: { type: "FETCH_CHUNK", ...place(), instance: header.instance, root, index: 0 },
          });
        }
      } else if (message.type === "CHUNK" && message.chunk.length > 0) {
        const header = wanted.get(message.root);
        const image = header ? altered(liar, header, message.chunk) : null;
        if (image) images.unshift(image);
        images.splice(IMAGES_MAX);
      }
    },
    rewrite({ to, message }) {
      const lie = answer(message);
      if (lie) return [{ to, message: lie }];
      if (message.type === "ROOT") {
        const image = images.find(({ header }) => header.instance === message.instance);
        return image
          ? [
              {
                to,
                message: {
                  ...message,
                  ...guild.root(self, message.instance, rootOf(guild.crypto, guild.view, image.header)),
                },
              },
            ]
          : null;
      }
      if (message.type !== "OFFER" || images.length === 0) return null;
      const checkpoints = images.map(({ header }) => header).slice(0, 2);
      const roots = checkpoints.map((header) =>
        guild.root(self, header.instance, rootOf(guild.crypto, guild.view, header)),
      );
      return [{ to, message: { ...message, checkpoints, roots } }];
    },
    idle() {
      const due = asking;
      asking = [];
      if (!random.chance(0.1)) return due;
      return [...due, ...sendTo([random.pick(others)], [{ type: "FETCH_OFFER", ...place(), rootsFrom: 0 }])];
    },
  };
}
