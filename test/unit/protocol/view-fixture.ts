/**
 * Clusters whose views change, on real cryptography: identities for ids, administrators, signed changes, READYs, and links
 * that the members of a view really signed.
 */
import { encodeSignedStatement, type Statement, signStatement } from "../../../protocol/administration.ts";
import { decodeBatch, encodeBatch, historyDigest } from "../../../protocol/batch.ts";
import { type Digest, hex } from "../../../protocol/bytes.ts";
import { nodeCrypto as crypto } from "../../../protocol/crypto/node.ts";
import { type Identity, newIdentity } from "../../../protocol/identity.ts";
import { acceptStatement } from "../../../protocol/messages.ts";
import { changedView, type DecidedBatch } from "../../../protocol/next-view.ts";
import { type Address, type Change, encodeReconfiguration, readyStatement } from "../../../protocol/reconfiguration.ts";
import { encodeRequest } from "../../../protocol/request.ts";
import { type Member, type Mode, memberOf, type ReplicaId, type View, viewOf } from "../../../protocol/view.ts";
import type { Link } from "../../../protocol/view-chain.ts";

export { crypto };

/** What a READY says where a test does not care. */
const READY_INSTANCE = 50;
const ROOT = crypto.sha256(new Uint8Array([7]));

export function addressOf(id: ReplicaId): Address {
  return { host: "127.0.0.1", clientPort: 7000 + 10 * id, peerPort: 7001 + 10 * id, adminPort: 7002 + 10 * id };
}

export function memberFrom(id: ReplicaId, identity: Identity): Member {
  return { id, signKey: identity.signKey, boxKey: identity.boxKey, ...addressOf(id) };
}

/** How a change is signed and ordered, where it is not as it should be. */
export interface Flaws {
  readonly statement?: Partial<Statement>;
  readonly administrators?: readonly Identity[];
  readonly expected?: Digest;
  readonly resulting?: Digest;
  readonly instance?: number;
  readonly timestampMs?: number;
}

/** Who signs what: every replica that ever was, by id, and the administrators. */
export class Reconfigured {
  readonly cluster: Digest;
  readonly administrators: readonly Identity[];
  readonly identities = new Map<ReplicaId, Identity>();
  readonly genesis: View;
  readonly #byKey = new Map<string, Identity>();
  #sequence = 0;

  constructor(options: { n?: number; f?: number; mode?: Mode; administrators?: number; threshold?: number } = {}) {
    const { n = 4, f = Math.floor((n - 1) / 3), mode = "bft", threshold = 1 } = options;
    this.cluster = crypto.sha256(crypto.random(32));
    this.administrators = Array.from({ length: options.administrators ?? 1 }, () => newIdentity(crypto));
    this.genesis = viewOf(crypto, {
      id: 0,
      cluster: this.cluster,
      mode,
      f,
      members: Array.from({ length: n }, (_, id) => this.newMember(id)),
      administrators: this.administrators.map(({ signKey }) => signKey),
      administratorThreshold: threshold,
    });
  }

  newMember(id: ReplicaId): Member {
    const identity = newIdentity(crypto);
    this.know(id, identity);
    return memberFrom(id, identity);
  }

  /** A READY as the replica signs it whose identity this is. */
  ready(view: View, member: Member, options: { instance?: number; identity?: Identity } = {}) {
    const { instance = READY_INSTANCE, identity = this.identities.get(member.id) as Identity } = options;
    const statement = readyStatement(this.cluster, { view: view.digest, member, instance, root: ROOT });
    return { instance, root: ROOT, signature: crypto.signer(identity.signSeed)(statement) };
  }

  adding(view: View, id: ReplicaId): Change {
    const member = this.newMember(id);
    return { type: "add", member, ready: this.ready(view, member) };
  }

  replacing(view: View, id: ReplicaId, by: ReplicaId): Change {
    const member = this.newMember(by);
    return { type: "replace", id, member, ready: this.ready(view, member) };
  }

  /** The member's identity is the new one afterwards. */
  rotating(view: View, id: ReplicaId): Change {
    const identity = newIdentity(crypto);
    const { signKey, boxKey } = identity;
    const member = { ...(memberOf(view, id) as Member), signKey, boxKey };
    const ready = this.ready(view, member, { identity });
    this.know(id, identity);
    return { type: "rotateKey", id, signKey, boxKey, ready };
  }

  /** The command of an `administer` request. */
  command(view: View, change: Change, flaws: Flaws = {}): Uint8Array {
    const { instance = 100, administrators = this.administrators.slice(0, view.administratorThreshold) } = flaws;
    const made = changedView(crypto, view, { change, instance });
    const resulting = flaws.resulting ?? ("view" in made ? made.view.digest : crypto.sha256(new Uint8Array(1)));
    const body = encodeReconfiguration({ expected: flaws.expected ?? view.digest, resulting, change });
    const statement: Statement = { type: "reconfigure", number: 1, notAfterMs: 2_000, body, ...flaws.statement };
    const signers = administrators.map(({ signKey, signSeed }) => ({ signKey, sign: crypto.signer(signSeed) }));
    return encodeSignedStatement(signStatement(this.cluster, statement, signers));
  }

  request(command: Uint8Array, kind: "administer" | "ordered" = "administer"): Uint8Array {
    const client = crypto.sha256(new Uint8Array([3]));
    const numbers = { session: 5, sequence: ++this.#sequence, ackedBelow: 0, deadlineMs: 0 };
    return encodeRequest({ cluster: this.cluster, client, ...numbers, kind, commands: [command] });
  }

  /** A batch with this change alone. */
  batchBytes(view: View, change: Change, flaws: Flaws = {}): Uint8Array {
    const { instance = 100, timestampMs = 1_000 } = flaws;
    return encodeBatch({ instance, timestampMs, requests: [this.request(this.command(view, change, flaws))] });
  }

  batch(view: View, change: Change, flaws: Flaws = {}): DecidedBatch {
    return decodeBatch(crypto, this.batchBytes(view, change, flaws));
  }

  /** Who had the keys of this view's members: identities that changed since are found by their keys. */
  identitiesOf(view: View): ReadonlyMap<ReplicaId, Identity> {
    return new Map(view.members.map(({ id, signKey }) => [id, this.#byKey.get(hex(signKey)) as Identity]));
  }

  /** Another identity of a replica, such as its next one. */
  know(id: ReplicaId, identity: Identity): void {
    this.identities.set(id, identity);
    this.#byKey.set(hex(identity.signKey), identity);
  }

  /** Signed by a quorum of `view`, or by `voters`. Call it before identities change, or pass those of then. */
  link(
    view: View,
    batch: Uint8Array,
    options: { instance?: number; voters?: readonly ReplicaId[]; identities?: ReadonlyMap<ReplicaId, Identity> } = {},
  ): Link {
    const { instance = 100, identities = this.identities } = options;
    const voters = options.voters ?? view.members.slice(0, view.quorum).map(({ id }) => id);
    const previous = crypto.sha256(new Uint8Array([4]));
    const place = { cluster: this.cluster, instance, previous, batchDigest: crypto.sha256(batch) };
    const digest = historyDigest(crypto, place);
    const statement = acceptStatement(this.cluster, { view: view.id, regency: 2, instance, digest });
    const votes = voters.map((replica) => {
      const { signSeed } = identities.get(replica) as Identity;
      return { replica, signature: crypto.signer(signSeed)(statement) };
    });
    return { instance, regency: 2, previous, batch, votes };
  }

  /** Makes `change` of `view` in this instance: the link, and the view that comes out. */
  step(view: View, changeOf: (view: View) => Change, instance: number): { link: Link; view: View } {
    const identities = new Map(this.identities);
    const change = changeOf(view);
    const made = changedView(crypto, view, { change, instance });
    if ("refused" in made) throw new Error(`refused: ${made.refused}`);
    const link = this.link(view, this.batchBytes(view, change, { instance }), { instance, identities });
    return { link, view: made.view };
  }
}
