/**
 * Links and the chain of views (docs/protocol.md section 7). A link takes whoever knows view v to view v+1: the batch with
 * the RECONFIGURE, and Q members of v that accepted it, each by signature. Since any two quorums of v share a correct member,
 * which accepts one batch per instance and regency and locks later ones to it, no second link of v can exist. Nobody's word
 * counts for a view: only its link.
 */
import { decodeBatch, historyDigest } from "./batch.ts";
import type { Digest } from "./bytes.ts";
import type { SignatureCheck } from "./certificate.ts";
import type { Crypto } from "./crypto/contract.ts";
import { assert, decoded, isRejection, Malformed, type Rejection, reject } from "./errors.ts";
import { Reader, Writer } from "./layout.ts";
import { LINK_BATCH_BYTES_MAX, LINK_BYTES_MAX, REPLICAS_MAX } from "./limits.ts";
import { acceptStatement } from "./messages.ts";
import { type NextView, nextView, reconfigurationOf } from "./next-view.ts";
import { SIGNATURE_BYTES } from "./request.ts";
import { memberOf, type ReplicaId, type View } from "./view.ts";

export interface LinkVote {
  readonly replica: ReplicaId;
  readonly signature: Uint8Array;
}

/** Takes view v to view v+1, for ever and for anybody who knows v. */
export interface Link {
  readonly instance: number;
  readonly regency: number;
  /** h(instance - 1). */
  readonly previous: Digest;
  /** The RECONFIGURE, alone. */
  readonly batch: Uint8Array;
  /** Of members of v, in ascending order of their ids, on `acceptStatement`. */
  readonly votes: readonly LinkVote[];
}

const MAGIC = 0x514c_4e31; // "QLN1"

export function encodeLink({ instance, regency, previous, batch, votes }: Link): Uint8Array {
  const writer = new Writer(4096).u32(MAGIC).u53(instance).u32(regency).rawLatin1(previous).bytes(batch);
  writer.u8(votes.length);
  for (const { replica, signature } of votes) writer.u32(replica).raw(signature);
  return writer.finish();
}

/** Views into `bytes`. Shape alone: nothing is verified. */
export function decodeLink(bytes: Uint8Array): Link | Rejection {
  return decoded(() => {
    if (bytes.length > LINK_BYTES_MAX) throw new Malformed("LINK_TOO_LARGE");
    const reader = new Reader(bytes);
    if (reader.u32() !== MAGIC) throw new Malformed("LINK_MAGIC");
    const place = { instance: reader.u53(), regency: reader.u32(), previous: reader.rawLatin1(32) as Digest };
    const batch = reader.bytes(LINK_BATCH_BYTES_MAX);
    const count = reader.u8();
    if (count === 0 || count > REPLICAS_MAX) throw new Malformed("LINK_VOTES");
    const votes: LinkVote[] = [];
    for (let index = 0; index < count; index++) {
      const replica = reader.u32();
      if (index > 0 && replica <= (votes[index - 1] as LinkVote).replica) throw new Malformed("LINK_VOTES");
      votes.push({ replica, signature: reader.raw(SIGNATURE_BYTES) });
    }
    reader.end();
    return { ...place, batch, votes };
  });
}

/** h(instance): what a link's votes accepted. */
export function decidedBy(crypto: Crypto, cluster: Digest, { instance, previous, batch }: Link): Digest {
  return historyDigest(crypto, { cluster, instance, previous, batchDigest: crypto.sha256(batch) });
}

/**
 * The signatures to check before this link of `view` is believed; null when it cannot be one: no RECONFIGURE alone for this
 * very view, too few votes, one of a stranger, or one voter twice. What it leads to is `nextOf`, to be asked afterwards.
 */
export function verifyLink(crypto: Crypto, view: View, link: Link): SignatureCheck[] | null {
  const { instance, regency, votes } = link;
  if (votes.length < view.quorum) return null;
  if (new Set(votes.map(({ replica }) => replica)).size !== votes.length) return null;
  const batch = decoded(() => decodeBatch(crypto, link.batch));
  if (isRejection(batch) || batch.instance !== instance) return null;
  if (reconfigurationOf(batch)?.expected !== view.digest) return null;
  const digest = decidedBy(crypto, view.cluster, link);
  const statement = acceptStatement(view.cluster, { view: view.id, regency, instance, digest });
  const checks: SignatureCheck[] = [];
  for (const { replica, signature } of votes) {
    const member = memberOf(view, replica);
    if (!member) return null;
    checks.push({ publicKey: member.signKey, statement, signature });
  }
  return checks;
}

/** The view that a link leads to whose signatures are verified. A quorum may have decided a RECONFIGURE that is refused. */
export function nextOf(crypto: Crypto, view: View, link: Link): NextView {
  const batch = decoded(() => decodeBatch(crypto, link.batch));
  return isRejection(batch) ? { refused: "FORM" } : nextView(crypto, view, batch);
}

/**
 * The views of a cluster from its first one on. Immutable. Invariants: 1. view v is at position v. 2. link v takes view v to
 * view v+1, and its signatures were verified. 3. instances of links rise.
 */
export class ViewChain {
  readonly #views: readonly View[];
  readonly #links: readonly Link[];

  private constructor(views: readonly View[], links: readonly Link[]) {
    this.#views = views;
    this.#links = links;
  }

  /** Of a cluster whose first view this is: the cluster file's. */
  static of(genesis: View): ViewChain {
    assert(genesis.id === 0, "a chain begins with view 0");
    return new ViewChain([genesis], []);
  }

  get genesis(): View {
    return this.#views[0] as View;
  }

  get newest(): View {
    return this.#views[this.#views.length - 1] as View;
  }

  /** The view with this id, if it is reached. */
  of(viewId: number): View | undefined {
    return this.#views[viewId];
  }

  /** The view in force at an instance: whose members decide it. */
  at(instance: number): View {
    let viewId = this.newest.id;
    while (viewId > 0 && instance <= (this.#links[viewId - 1] as Link).instance) viewId--;
    return this.#views[viewId] as View;
  }

  /** The first instance of a view: the one after its RECONFIGURE. */
  firstInstanceOf(viewId: number): number {
    return viewId === 0 ? 1 : (this.#links[viewId - 1] as Link).instance + 1;
  }

  /** The link that leads from this view to the next one, if that is reached. */
  linkFrom(viewId: number): Link | undefined {
    return this.#links[viewId];
  }

  /** All links from this view on, oldest first. */
  linksFrom(viewId: number): readonly Link[] {
    return this.#links.slice(viewId);
  }

  /** With one link more, whose signatures the caller has verified (`verifyLink`); null when it leads to no view. */
  extended(crypto: Crypto, link: Link): ViewChain | null {
    const next = nextOf(crypto, this.newest, link);
    if ("refused" in next || link.instance < this.firstInstanceOf(this.newest.id)) return null;
    return new ViewChain([...this.#views, next.view], [...this.#links, link]);
  }
}

/**
 * The chain with the links in `encoded`, oldest first, every signature verified here. A rejection when one of them is no link
 * of the view that those before it lead to; who sent it lied, and a forged one costs no more than the signatures up to the
 * first that is false.
 */
export function followed(crypto: Crypto, chain: ViewChain, encoded: readonly Uint8Array[]): ViewChain | Rejection {
  let reached = chain;
  for (const bytes of encoded) {
    const link = decodeLink(bytes);
    if (isRejection(link)) return link;
    const next = proven(crypto, reached, link);
    if (next === null) return reject("punish", "LINK_INVALID");
    reached = next;
  }
  return reached;
}

const CHAIN_MAGIC = 0x5156_4331; // "QVC1"

/** The links of a chain, to be kept beside the first view. */
export function encodeChain(chain: ViewChain): Uint8Array {
  const links = chain.linksFrom(0);
  const writer = new Writer(4096).u32(CHAIN_MAGIC).u32(links.length);
  for (const link of links) writer.bytes(encodeLink(link));
  return writer.finish();
}

/** Every link is verified again: a rejection when one does not hold for a cluster with this first view. */
export function decodeChain(crypto: Crypto, genesis: View, bytes: Uint8Array): ViewChain | Rejection {
  const links = decoded(() => {
    const reader = new Reader(bytes);
    if (reader.u32() !== CHAIN_MAGIC) throw new Malformed("CHAIN_MAGIC");
    const count = reader.u32();
    const encoded: Uint8Array[] = [];
    for (let index = 0; index < count; index++) encoded.push(reader.bytes(LINK_BYTES_MAX));
    reader.end();
    return encoded;
  });
  return isRejection(links) ? links : followed(crypto, ViewChain.of(genesis), links);
}

function proven(crypto: Crypto, chain: ViewChain, link: Link): ViewChain | null {
  const checks = verifyLink(crypto, chain.newest, link);
  if (!checks?.every((check) => crypto.verify(check.publicKey, check.statement, check.signature))) return null;
  return chain.extended(crypto, link);
}
