/**
 * The next view (docs/protocol.md section 7): a pure function of the view in force and the decided batch, so that every
 * replica, and everybody who follows the chain of views, comes to the same one, whatever else it knows. Invariants:
 * 1. the change is signed by the administrators of the view it applies to, names that view and what comes out, and is in
 * time; so none can be replayed. 2. one change at a time: one member comes, goes, or both, or f changes, never two of them.
 * 3. an id is never used again. 4. who becomes a member, or changes its keys, has shown for this very view that it holds
 * them and the state.
 */
import {
  type AdministrationResult,
  administered,
  administratorsOf,
  decodeSignedStatement,
  type SignedStatement,
} from "./administration.ts";
import { BATCH_HEADER_BYTES, BATCH_REQUEST_HEADER_BYTES, type Batch } from "./batch.ts";
import { latin1, sameBytes } from "./bytes.ts";
import type { Crypto } from "./crypto/contract.ts";
import { assertNever, decoded, isRejection, QuorateError } from "./errors.ts";
import { LINK_BATCH_BYTES_MAX, READY_AGE_INSTANCES_MAX, REPLICAS_MAX } from "./limits.ts";
import {
  type Address,
  type Change,
  decodeReconfiguration,
  type Ready,
  type Reconfiguration,
  readyStatement,
} from "./reconfiguration.ts";
import { faultsTolerated, type Member, memberOf, type ReplicaId, type View, viewOf } from "./view.ts";

/** Why a RECONFIGURE makes no view. It is decided and executed like any request, and changes nothing. */
export const REFUSALS = {
  FORM: "it is no RECONFIGURE in a batch of its own",
  SIZE: "it is larger than any change needs to be",
  ADMINISTRATORS: "it is not signed by the administrators of the view in force",
  EXPIRED: "it was ordered after its not-after time; sign it again",
  OTHER_VIEW: "it was made for another view than the one in force; look at the view and sign it again",
  OTHER_RESULT: "the view that comes out is not the one that was signed; are all programs of one version?",
  NO_CHANGE: "it changes nothing",
  NOT_A_MEMBER: "the replica it names is no member",
  ID_USED: "the id was used before, or is below one that was: ids rise, and are never used again",
  KEY_USED: "another member has that key, or this one has it already",
  KEY_WEAK: "the box key is of low order: anybody could compute what is shared with it",
  ADDRESS_USED: "another member listens at that address, or two of the ports are the same",
  SIZES: "so few replicas cannot stand f faults, or there are too many; change f, or the members, in a step of its own",
  THRESHOLD: "so many signatures can never come together, or none would be needed",
  READY_AGE: "its READY is too old, or from the future; let the replica sign a new one",
  READY_SIGNATURE: "its READY is not signed by the replica's new key for this view, address and id",
} as const;
export type RefusalCode = keyof typeof REFUSALS;

export type NextView = { readonly view: View } | { readonly refused: RefusalCode };

/** What a view is made of, as one change leaves it. */
interface Parts {
  readonly members: readonly Member[];
  readonly f: number;
  readonly idsBelow: number;
  readonly administrators: readonly Uint8Array[];
  readonly administratorThreshold: number;
}

/** The part of a batch that the next view depends on. */
export type DecidedBatch = Pick<Batch, "instance" | "timestampMs" | "requests">;

/** Any secret finds a key of low order out. */
const PROBE_SECRET = new Uint8Array(32).fill(9);

/** The view that the batch ends in, or why it goes on in `view`. */
export function nextView(crypto: Crypto, view: View, batch: DecidedBatch): NextView {
  const signed = statementOf(batch);
  if (typeof signed === "string") return { refused: signed };
  const body = decoded(() => decodeReconfiguration(signed.body));
  if (isRejection(body)) return { refused: "FORM" };
  if (body.expected !== view.digest) return { refused: "OTHER_VIEW" };
  if (batch.timestampMs > signed.notAfterMs) return { refused: "EXPIRED" };
  if (!signedByAdministrators(crypto, view, signed)) return { refused: "ADMINISTRATORS" };
  const made = changedView(crypto, view, { change: body.change, instance: batch.instance });
  if ("refused" in made) return made;
  return made.view.digest === body.resulting ? made : { refused: "OTHER_RESULT" };
}

/** The digests and the change of a batch that holds a RECONFIGURE alone; null for any other batch. Checks nothing else. */
export function reconfigurationOf(batch: DecidedBatch): Reconfiguration | null {
  const signed = statementOf(batch);
  if (typeof signed === "string") return null;
  const body = decoded(() => decodeReconfiguration(signed.body));
  return isRejection(body) ? null : body;
}

function statementOf({ requests }: DecidedBatch): SignedStatement | RefusalCode {
  const [request] = requests;
  if (requests.length !== 1 || request?.kind !== "administer") return "FORM";
  if (request.bytes.length > LINK_BATCH_BYTES_MAX - BATCH_HEADER_BYTES - BATCH_REQUEST_HEADER_BYTES) return "SIZE";
  const signed = decoded(() => decodeSignedStatement(request.commands[0] as Uint8Array));
  return isRejection(signed) || signed.type !== "reconfigure" ? "FORM" : signed;
}

function signedByAdministrators(crypto: Crypto, view: View, signed: SignedStatement): boolean {
  const checks = administered(view.cluster, signed, administratorsOf(view));
  if (isRejection(checks)) return false;
  return checks.every(({ publicKey, statement, signature }) => crypto.verify(publicKey, statement, signature));
}

/**
 * What `change` makes of `view` in a batch of this instance: everything `nextView` checks but the administrators' word. Who
 * signs a change learns from it what comes out.
 */
export function changedView(crypto: Crypto, view: View, at: { change: Change; instance: number }): NextView {
  const { change, instance } = at;
  const parts = applied(crypto, view, change);
  if (typeof parts === "string") return { refused: parts };
  const { members, f, administrators, administratorThreshold } = parts;
  const n = members.length;
  if (n < 1 || n > REPLICAS_MAX || f > faultsTolerated({ n, mode: view.mode })) return { refused: "SIZES" };
  if (administratorThreshold < 1 || administratorThreshold > administrators.length) return { refused: "THRESHOLD" };
  const unready = readyRefusal(crypto, view, { change, instance });
  if (unready) return { refused: unready };
  return { view: viewOf(crypto, { ...view, ...parts, id: view.id + 1 }) };
}

function applied(crypto: Crypto, view: View, change: Change): Parts | RefusalCode {
  switch (change.type) {
    case "add":
      return joined(crypto, view, { member: change.member, without: null });
    case "replace":
      if (!memberOf(view, change.id)) return "NOT_A_MEMBER";
      return joined(crypto, view, { member: change.member, without: change.id });
    case "remove":
      if (!memberOf(view, change.id)) return "NOT_A_MEMBER";
      return { ...view, members: view.members.filter(({ id }) => id !== change.id) };
    case "setF":
      return change.f === view.f ? "NO_CHANGE" : { ...view, f: change.f };
    case "setAddress":
    case "rotateKey":
      return altered(crypto, view, change);
    case "administrators":
      return sameAdministrators(view, change)
        ? "NO_CHANGE"
        : { ...view, administrators: change.keys, administratorThreshold: change.threshold };
    default:
      return assertNever(change);
  }
}

/** A new member, in the place of another one or not. */
function joined(
  crypto: Crypto,
  view: View,
  { member, without }: { member: Member; without: ReplicaId | null },
): Parts | RefusalCode {
  if (member.id < view.idsBelow) return "ID_USED";
  const unusable = keyRefusal(crypto, view, member);
  if (unusable) return unusable;
  const others = view.members.filter(({ id }) => id !== without);
  if (addressUsed(others, member)) return "ADDRESS_USED";
  return { ...view, members: [...others, member], idsBelow: member.id + 1 };
}

/** A member with another address or other keys. */
function altered(
  crypto: Crypto,
  view: View,
  change: Extract<Change, { type: "setAddress" | "rotateKey" }>,
): Parts | RefusalCode {
  const member = memberOf(view, change.id);
  if (!member) return "NOT_A_MEMBER";
  const others = view.members.filter(({ id }) => id !== change.id);
  if (change.type === "rotateKey") {
    const unusable = keyRefusal(crypto, view, change);
    return unusable ?? { ...view, members: [...others, rotated(member, change)] };
  }
  const { address } = change;
  if (sameAddress(member, address)) return "NO_CHANGE";
  if (addressUsed(others, address)) return "ADDRESS_USED";
  return { ...view, members: [...others, { ...member, ...address }] };
}

function rotated(member: Member, { signKey, boxKey }: Pick<Member, "signKey" | "boxKey">): Member {
  return { ...member, signKey, boxKey };
}

/** One identity has one vote, and clients must be able to share a key with every member. */
function keyRefusal(
  crypto: Crypto,
  view: View,
  { signKey, boxKey }: Pick<Member, "signKey" | "boxKey">,
): RefusalCode | null {
  const used = view.members.some((member) => sameBytes(member.signKey, signKey) || sameBytes(member.boxKey, boxKey));
  if (used) return "KEY_USED";
  try {
    crypto.agree(PROBE_SECRET, boxKey);
    return null;
  } catch (error) {
    if (error instanceof QuorateError) return "KEY_WEAK";
    throw error;
  }
}

function portsOf({ clientPort, peerPort, adminPort }: Address): readonly number[] {
  return [clientPort, peerPort, adminPort];
}

/** Are two of its ports the same, or one of them a port of another member on its host? */
export function addressUsed(others: readonly Address[], address: Address): boolean {
  const ports = new Set(portsOf(address));
  if (ports.size !== 3) return true;
  return others.some((other) => other.host === address.host && portsOf(other).some((port) => ports.has(port)));
}

function sameAddress(a: Address, b: Address): boolean {
  return a.host === b.host && portsOf(a).every((port, index) => port === portsOf(b)[index]);
}

function sameAdministrators(view: View, change: Extract<Change, { type: "administrators" }>): boolean {
  const now = new Set(view.administrators.map(latin1));
  const same = now.size === change.keys.length && change.keys.every((key) => now.has(latin1(key)));
  return same && change.threshold === view.administratorThreshold;
}

/** Who comes, or comes with other keys, has shown that it is there: at the view it applies to and not long ago. */
function readyRefusal(crypto: Crypto, view: View, at: { change: Change; instance: number }): RefusalCode | null {
  const claim = readyClaim(view, at.change);
  if (claim === null) return null;
  const { member, ready } = claim;
  const age = at.instance - ready.instance;
  if (age < 0 || age > READY_AGE_INSTANCES_MAX) return "READY_AGE";
  const { instance, root } = ready;
  const statement = readyStatement(view.cluster, { view: view.digest, member, instance, root });
  return crypto.verify(member.signKey, statement, ready.signature) ? null : "READY_SIGNATURE";
}

/** The member that `change` brings into the next view with new keys, and its READY; null when it brings none. */
function readyClaim(view: View, change: Change): { member: Member; ready: Ready } | null {
  switch (change.type) {
    case "add":
    case "replace":
      return change;
    case "rotateKey":
      return { member: rotated(memberOf(view, change.id) as Member, change), ready: change.ready };
    case "remove":
    case "setF":
    case "setAddress":
    case "administrators":
      return null;
    default:
      return assertNever(change);
  }
}

/** What the request that carried it is answered. */
export function reconfigurationResult(next: NextView): AdministrationResult {
  if ("view" in next) return { type: "executed" };
  const code = next.refused === "ADMINISTRATORS" ? "NOT_ADMINISTRATOR" : "REFUSED";
  return { type: "refused", code, message: `${next.refused}: ${REFUSALS[next.refused]}` };
}
