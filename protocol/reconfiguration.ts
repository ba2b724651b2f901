/**
 * What administrators change about a view, in fixed layouts (docs/protocol.md section 7): the body of a statement of type
 * "reconfigure", what a replica signs that is ready to be a member, and the invitation that lets it fetch the state before.
 * Every layout has one encoding; whether a change is allowed is `next-view.ts`.
 */
import { type Digest, latin1 } from "./bytes.ts";
import { assertNever, Malformed } from "./errors.ts";
import { Reader, Writer } from "./layout.ts";
import { ADMINISTRATORS_MAX, HOST_BYTES_MAX, REPLICA_ID_MAX } from "./limits.ts";
import { SIGNATURE_BYTES } from "./request.ts";
import { type Member, type ReplicaId, writeTag } from "./view.ts";

const KEY_BYTES = 32;
const HOST = /^[\w.:-]+$/;
const PORT_MAX = 65_535;

/** Where a member listens. */
export type Address = Pick<Member, "host" | "clientPort" | "peerPort" | "adminPort">;

/** Says that a replica with these keys had the state with this root after this instance: proof that it is there and knows it. */
export interface Ready {
  readonly instance: number;
  readonly root: Digest;
  /** By the new sign key, over `readyStatement`. */
  readonly signature: Uint8Array;
}

/** One change of a view. */
export type Change =
  | { readonly type: "add"; readonly member: Member; readonly ready: Ready }
  | { readonly type: "remove"; readonly id: ReplicaId }
  | { readonly type: "replace"; readonly id: ReplicaId; readonly member: Member; readonly ready: Ready }
  | { readonly type: "setF"; readonly f: number }
  | { readonly type: "setAddress"; readonly id: ReplicaId; readonly address: Address }
  | {
      readonly type: "rotateKey";
      readonly id: ReplicaId;
      readonly signKey: Uint8Array;
      readonly boxKey: Uint8Array;
      readonly ready: Ready;
    }
  | { readonly type: "administrators"; readonly keys: readonly Uint8Array[]; readonly threshold: number };
export type ChangeType = Change["type"];

/** The byte on the wire is the position here: only ever append. */
const CHANGE_TYPES: readonly ChangeType[] = [
  "add",
  "remove",
  "replace",
  "setF",
  "setAddress",
  "rotateKey",
  "administrators",
];

/** Digests of the view it applies to and of the one that comes out: who signs it knows both. */
export interface Reconfiguration {
  readonly expected: Digest;
  readonly resulting: Digest;
  readonly change: Change;
}

/** The body of a "reconfigure" statement. */
export function encodeReconfiguration({ expected, resulting, change }: Reconfiguration): Uint8Array {
  const writer = new Writer(1024).rawLatin1(expected).rawLatin1(resulting).u8(CHANGE_TYPES.indexOf(change.type));
  return writeChange(writer, change).finish();
}

function writeChange(writer: Writer, change: Change): Writer {
  switch (change.type) {
    case "add":
      return writeReady(writeMember(writer, change.member), change.ready);
    case "remove":
      return writer.u32(change.id);
    case "replace":
      return writeReady(writeMember(writer.u32(change.id), change.member), change.ready);
    case "setF":
      return writer.u32(change.f);
    case "setAddress":
      return writeAddress(writer.u32(change.id), change.address);
    case "rotateKey":
      return writeReady(writer.u32(change.id).raw(change.signKey).raw(change.boxKey), change.ready);
    case "administrators":
      writer.u8(change.threshold).u8(change.keys.length);
      for (const key of change.keys) writer.raw(key);
      return writer;
    default:
      return assertNever(change);
  }
}

/** @throws Malformed */
export function decodeReconfiguration(bytes: Uint8Array): Reconfiguration {
  const reader = new Reader(bytes);
  const expected = reader.rawLatin1(32) as Digest;
  const resulting = reader.rawLatin1(32) as Digest;
  const change = readChange(reader, CHANGE_TYPES[reader.u8()]);
  reader.end();
  return { expected, resulting, change };
}

function readChange(reader: Reader, type: ChangeType | undefined): Change {
  switch (type) {
    case "add":
      return { type, member: readMember(reader), ready: readReady(reader) };
    case "remove":
      return { type, id: reader.u32() };
    case "replace":
      return { type, id: reader.u32(), member: readMember(reader), ready: readReady(reader) };
    case "setF":
      return { type, f: reader.u32() };
    case "setAddress":
      return { type, id: reader.u32(), address: readAddress(reader) };
    case "rotateKey":
      return { type, id: reader.u32(), ...readKeys(reader), ready: readReady(reader) };
    case "administrators":
      return readAdministrators(reader);
    case undefined:
      throw new Malformed("CHANGE_TYPE");
  }
}

/** In ascending order, so that a set of keys has one encoding. */
function readAdministrators(reader: Reader): Change {
  const threshold = reader.u8();
  const count = reader.u8();
  if (count === 0 || count > ADMINISTRATORS_MAX) throw new Malformed("CHANGE_ADMINISTRATORS");
  const keys: Uint8Array[] = [];
  let previous = "";
  for (let index = 0; index < count; index++) {
    const key = reader.raw(KEY_BYTES);
    const name = latin1(key);
    if (name <= previous) throw new Malformed("CHANGE_ADMINISTRATORS");
    previous = name;
    keys.push(key);
  }
  return { type: "administrators", keys, threshold };
}

function writeMember(writer: Writer, member: Member): Writer {
  return writeAddress(writer.u32(member.id).raw(member.signKey).raw(member.boxKey), member);
}

function readMember(reader: Reader): Member {
  const id = reader.u32();
  if (id > REPLICA_ID_MAX) throw new Malformed("MEMBER_ID");
  return { id, ...readKeys(reader), ...readAddress(reader) };
}

function readKeys(reader: Reader): { signKey: Uint8Array; boxKey: Uint8Array } {
  return { signKey: reader.raw(KEY_BYTES), boxKey: reader.raw(KEY_BYTES) };
}

function writeAddress(writer: Writer, { host, clientPort, peerPort, adminPort }: Address): Writer {
  return writer.u8(host.length).rawLatin1(host).u32(clientPort).u32(peerPort).u32(adminPort);
}

function readAddress(reader: Reader): Address {
  const host = reader.rawLatin1(reader.u8());
  const address = { host, clientPort: reader.u32(), peerPort: reader.u32(), adminPort: reader.u32() };
  if (!isAddress(address)) throw new Malformed("MEMBER_ADDRESS");
  return address;
}

/** A host name or IP address and three ports: what a layout here can carry. */
export function isAddress({ host, clientPort, peerPort, adminPort }: Address): boolean {
  if (host.length > HOST_BYTES_MAX || !HOST.test(host)) return false;
  return [clientPort, peerPort, adminPort].every((port) => Number.isInteger(port) && port >= 1 && port <= PORT_MAX);
}

function writeReady(writer: Writer, { instance, root, signature }: Ready): Writer {
  return writer.u53(instance).rawLatin1(root).raw(signature);
}

function readReady(reader: Reader): Ready {
  return { instance: reader.u53(), root: reader.rawLatin1(32) as Digest, signature: reader.raw(SIGNATURE_BYTES) };
}

/**
 * What the replica signs that is to become this member, with its sign key of the next view: for one view alone, so that an
 * old READY brings nobody back.
 */
export function readyStatement(
  cluster: Digest,
  claim: { readonly view: Digest; readonly member: Member; readonly instance: number; readonly root: Digest },
): Uint8Array {
  const writer = writeTag(new Writer(512), "quorate/ready/1", cluster).rawLatin1(claim.view);
  return writeMember(writer, claim.member).u53(claim.instance).rawLatin1(claim.root).finish();
}

/** The body of an "invite" statement: members may talk to this replica, which is none yet, and serve it state. */
export function encodeInvitation(member: Member): Uint8Array {
  return writeMember(new Writer(256), member).finish();
}

/** @throws Malformed */
export function decodeInvitation(bytes: Uint8Array): Member {
  const reader = new Reader(bytes);
  const member = readMember(reader);
  reader.end();
  return member;
}
