/**
 * The view: who the members are, how many votes decide, who leads (docs/protocol.md section 1). Pure functions only.
 */
import { bytesOf, copyOf, type Digest, latin1 } from "./bytes.ts";
import type { Crypto } from "./crypto/contract.ts";
import { Malformed, QuorateError } from "./errors.ts";
import { Reader, Writer } from "./layout.ts";
import { HOST_BYTES_MAX, REPLICAS_MAX } from "./limits.ts";

const KEY_BYTES = 32;

export type ReplicaId = number;
export type Mode = "bft" | "cft";
/** `malicious`: leaders rotate, each is held to what the others sustain, and requests are signed (section 5). */
export type FaultModel = "plain" | "malicious";

/** Instances per leader where the cluster file names none (docs/decisions/027-leaders-in-turn.md). */
export const ROTATION_DEFAULT = 1_000;
export const ROTATION_MAX = 1_000_000;

export interface Member {
  readonly id: ReplicaId;
  readonly signKey: Uint8Array;
  readonly boxKey: Uint8Array;
  readonly host: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly adminPort: number;
}

/**
 * Invariants: 1. members are sorted by id and ids are unique. 2. n >= 3f+1 in bft, n >= 2f+1 in cft. 3. any two quorums
 * share at least one correct replica; a weak quorum holds at least one correct (in cft: not crashed) replica. 4. leaders
 * rotate exactly in the malicious fault model, so the digest says which one it is.
 */
export interface View {
  readonly id: number;
  readonly cluster: Digest;
  readonly mode: Mode;
  readonly members: readonly Member[];
  /** Every id that a member ever had is below it: who joins has another one. */
  readonly idsBelow: number;
  readonly administrators: readonly Uint8Array[];
  /** How many administrators must sign a statement of theirs (administration.ts). */
  readonly administratorThreshold: number;
  readonly n: number;
  readonly f: number;
  /** Q: bft floor((n+f)/2)+1, cft floor(n/2)+1. Compare with `votes >= view.quorum`. */
  readonly quorum: number;
  /** W: bft f+1, cft 1. */
  readonly weakQuorum: number;
  /** bft 2f+1, cft 1: of so many that say something W are correct; a correct leader hears it from those, too. */
  readonly witnesses: number;
  /**
   * How many others bound what a replica that lost its journal may have said: a correct member of any quorum that it was in is
   * among them, oneself counted among the f. bft n-Q+f; cft n-Q+1, since who has forgotten as well does not answer.
   */
  readonly rememberers: number;
  /** How many others a replica with its journal asks before it votes. bft n-Q+f; cft n-f-1, who can always be waited for. */
  readonly consulted: number;
  /** Other members whose roots a fetched state has to reproduce: W are behind it then, its donor included. bft f; cft 0. */
  readonly rootWitnesses: number;
  /** n - f: how many replicas one can always wait for. */
  readonly reachable: number;
  /** Instances per leader when leaders rotate, 0 when they do not. */
  readonly rotation: number;
  readonly faultModel: FaultModel;
  readonly digest: Digest;
}

export interface ViewOptions {
  readonly id: number;
  readonly cluster: Digest;
  readonly mode: Mode;
  readonly f: number;
  readonly members: readonly Member[];
  /** Default, for a first view: the highest id and one more. */
  readonly idsBelow?: number;
  readonly administrators: readonly Uint8Array[];
  /** Default 1. */
  readonly administratorThreshold?: number;
  readonly rotation?: number;
}

export function quorumOf(sizes: { n: number; f: number; mode: Mode }): number {
  return sizes.mode === "bft" ? Math.floor((sizes.n + sizes.f) / 2) + 1 : Math.floor(sizes.n / 2) + 1;
}

/** The most faults n replicas can stand. */
export function faultsTolerated(sizes: { n: number; mode: Mode }): number {
  return sizes.mode === "bft" ? Math.floor((sizes.n - 1) / 3) : Math.floor((sizes.n - 1) / 2);
}

/** The fewest replicas that can stand f faults. */
export function replicasFor(sizes: { f: number; mode: Mode }): number {
  return sizes.mode === "bft" ? 3 * sizes.f + 1 : 2 * sizes.f + 1;
}

/** @throws QuorateError CONFIG_INVALID when sizes or ids break an invariant. */
export function viewOf(crypto: Crypto, options: ViewOptions): View {
  const members = [...options.members].sort((a, b) => a.id - b.id);
  const n = members.length;
  const { f, mode } = options;
  if (new Set(members.map((member) => member.id)).size !== n) {
    throw new QuorateError("CONFIG_INVALID", "two members of the view have the same id; give each replica its own");
  }
  if (!Number.isInteger(f) || f < 0 || f > faultsTolerated({ n, mode })) {
    const least = replicasFor({ f, mode });
    throw new QuorateError(
      "CONFIG_INVALID",
      `${n} replicas cannot tolerate f=${f} in ${mode} mode; it takes at least ${least}`,
      { n, f, mode },
    );
  }
  const { administratorThreshold = 1 } = options;
  const administrators = new Set(options.administrators.map(latin1)).size;
  if (administratorThreshold > Math.max(1, administrators)) {
    const few = `${administrators} different administrators cannot give the ${administratorThreshold} signatures it takes`;
    throw new QuorateError("CONFIG_INVALID", `${few}; lower administratorThreshold`, { administratorThreshold });
  }
  const rotation = options.rotation ?? 0;
  if (rotation > 0 && mode === "cft") {
    throw new QuorateError("CONFIG_INVALID", "the malicious fault model takes mode bft; cft trusts every replica");
  }
  const idsBelow = options.idsBelow ?? Math.max(0, ...members.map(({ id }) => id + 1));
  const base = { ...options, members, n, f, rotation, idsBelow, administratorThreshold };
  return {
    ...base,
    faultModel: rotation > 0 ? "malicious" : "plain",
    quorum: quorumOf({ n, f, mode }),
    weakQuorum: mode === "bft" ? f + 1 : 1,
    witnesses: mode === "bft" ? 2 * f + 1 : 1,
    rememberers: n - quorumOf({ n, f, mode }) + (mode === "bft" ? f : 1),
    consulted: mode === "bft" ? n - quorumOf({ n, f, mode }) + f : n - f - 1,
    rootWitnesses: mode === "bft" ? f : 0,
    reachable: n - f,
    digest: viewDigest(crypto, base),
  };
}

function viewDigest(crypto: Crypto, view: Required<ViewOptions>): Digest {
  const writer = writeTag(new Writer(1024), "quorate/view/1", view.cluster);
  return crypto.sha256(writeView(writer, view).view());
}

/** All that a view is but its cluster: what its digest covers. */
export function encodeView(view: View): Uint8Array {
  return writeView(new Writer(1024), view).finish();
}

/** @throws Malformed; QuorateError CONFIG_INVALID for what `viewOf` refuses */
export function decodeView(crypto: Crypto, cluster: Digest, bytes: Uint8Array): View {
  const reader = new Reader(bytes);
  const id = reader.u32();
  const mode: Mode = reader.u8() === 0 ? "bft" : "cft";
  const f = reader.u32();
  const rotation = reader.u32();
  const members = Array.from({ length: counted(reader) }, () => readMember(reader));
  const administrators = Array.from({ length: counted(reader) }, () => copyOf(reader.bytes(KEY_BYTES)));
  const administratorThreshold = reader.u32();
  const idsBelow = reader.u32();
  reader.end();
  return viewOf(crypto, { id, cluster, mode, f, rotation, members, administrators, administratorThreshold, idsBelow });
}

function counted(reader: Reader): number {
  const count = reader.u32();
  if (count > REPLICAS_MAX) throw new Malformed("VIEW_COUNT");
  return count;
}

function readMember(reader: Reader): Member {
  const id = reader.u32();
  const signKey = copyOf(reader.raw(KEY_BYTES));
  const boxKey = copyOf(reader.raw(KEY_BYTES));
  const host = new TextDecoder().decode(reader.bytes(HOST_BYTES_MAX));
  return { id, signKey, boxKey, host, clientPort: reader.u32(), peerPort: reader.u32(), adminPort: reader.u32() };
}

function writeView(writer: Writer, view: Required<ViewOptions>): Writer {
  writer
    .u32(view.id)
    .u8(view.mode === "bft" ? 0 : 1)
    .u32(view.f)
    .u32(view.rotation);
  writer.u32(view.members.length);
  for (const member of view.members) {
    writer.u32(member.id).raw(member.signKey).raw(member.boxKey).bytes(new TextEncoder().encode(member.host));
    writer.u32(member.clientPort).u32(member.peerPort).u32(member.adminPort);
  }
  writer.u32(view.administrators.length);
  for (const key of view.administrators) writer.bytes(key);
  writer.u32(view.administratorThreshold);
  return writer.u32(view.idsBelow);
}

export function memberOf(view: View, id: ReplicaId): Member | undefined {
  return view.members.find((member) => member.id === id);
}

/** Position of a replica in the view, or -1. Authenticators and checkpoints go by position. */
export function positionOf(view: View, id: ReplicaId): number {
  return view.members.findIndex((member) => member.id === id);
}

/**
 * A pure function of view, regency and instance. Where leaders rotate, each has `rotation` instances in a row; the next
 * regency moves every turn on by one member.
 */
export function leaderOf(view: View, regency: number, instance: number): ReplicaId {
  const shift = view.rotation > 0 ? Math.floor(instance / view.rotation) : 0;
  return (view.members[(regency + shift) % view.n] as Member).id;
}

/** h(0): binds the history to the cluster, its first view and who may be a client. */
export function genesisDigest(crypto: Crypto, view: View, clientsDigest: Digest): Digest {
  const writer = new Writer();
  writeTag(writer, "quorate/genesis/1", view.cluster).raw(bytesOf(view.digest)).raw(bytesOf(clientsDigest));
  return crypto.sha256(writer.view());
}

/** Every signed, MACed or hashed statement starts so: tag length, tag, cluster id. */
export function writeTag(writer: Writer, tag: string, cluster: Digest): Writer {
  return writer.u8(tag.length).rawLatin1(tag).rawLatin1(cluster);
}
