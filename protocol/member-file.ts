/**
 * The public files and answers by which a replica becomes a member or gets other keys (docs/protocol.md section 7): who it will
 * be, as `kv init` writes it beside the secret keys, and the READY it answers at its admin port.
 */
import { z } from "zod";
import { type Digest, fromHex, hex, latin1 } from "./bytes.ts";
import { firstIssue, keySchema, memberSchema } from "./cluster.ts";
import { QuorateError } from "./errors.ts";
import type { Ready } from "./reconfiguration.ts";
import type { Member, ReplicaId } from "./view.ts";

const joinSchema = z.strictObject({ format: z.literal(1), clusterId: keySchema, member: memberSchema });

const rotationSchema = z.strictObject({
  format: z.literal(1),
  clusterId: keySchema,
  replica: z.int().min(0).max(65_535),
  signKey: keySchema,
  boxKey: keySchema,
});

/** A replica that is to become a member: join.json. */
export interface Joining {
  readonly cluster: Digest;
  readonly member: Member;
}

/** A member's next keys: rotate.json. */
export interface Rotation {
  readonly cluster: Digest;
  readonly replica: ReplicaId;
  readonly signKey: Uint8Array;
  readonly boxKey: Uint8Array;
}

export function joinFileText({ cluster, member }: Joining): string {
  const { signKey, boxKey } = member;
  const file = {
    format: 1,
    clusterId: hex(cluster),
    member: { ...member, signKey: hex(signKey), boxKey: hex(boxKey) },
  };
  return `${JSON.stringify(file, null, 2)}\n`;
}

/** @throws QuorateError CONFIG_INVALID */
export function parseJoinFile(text: string, name: string): Joining {
  const { clusterId, member } = parsed(joinSchema, text, { name, expected: "the join.json that kv init --join wrote" });
  const keys = { signKey: fromHex(member.signKey), boxKey: fromHex(member.boxKey) };
  return { cluster: digestOf(clusterId), member: { ...member, ...keys } };
}

export function rotationFileText({ cluster, replica, signKey, boxKey }: Rotation): string {
  const file = { format: 1, clusterId: hex(cluster), replica, signKey: hex(signKey), boxKey: hex(boxKey) };
  return `${JSON.stringify(file, null, 2)}\n`;
}

/** @throws QuorateError CONFIG_INVALID */
export function parseRotationFile(text: string, name: string): Rotation {
  const expected = "the rotate.json that kv init --rotate-key wrote";
  const { clusterId, replica, signKey, boxKey } = parsed(rotationSchema, text, { name, expected });
  return { cluster: digestOf(clusterId), replica, signKey: fromHex(signKey), boxKey: fromHex(boxKey) };
}

function digestOf(text: string): Digest {
  return latin1(fromHex(text)) as Digest;
}

function parsed<T>(schema: z.ZodType<T>, text: string, file: { name: string; expected: string }): T {
  const { name, expected } = file;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new QuorateError("CONFIG_INVALID", `${name} is not JSON; name ${expected}`, { name }, cause);
  }
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  throw new QuorateError("CONFIG_INVALID", `${name}: ${firstIssue(result.error)}; name ${expected}`, { name });
}

const readySchema = z.object({
  /** The digest of the view that the READY is for. */
  view: keySchema,
  replica: z.int().min(0).max(65_535),
  instance: z.int().min(0).max(Number.MAX_SAFE_INTEGER),
  root: keySchema,
  signature: z.string().regex(/^[0-9a-f]{128}$/),
});

/** A READY with the view and the id it is for. */
export interface ReadyAnswer {
  readonly view: Digest;
  readonly replica: ReplicaId;
  readonly ready: Ready;
}

/** What a replica that is ready answers to GET /ready. */
export function readyText({ view, replica, ready }: ReadyAnswer): string {
  const { instance, root, signature } = ready;
  return JSON.stringify({ view: hex(view), replica, instance, root: hex(root), signature: hex(signature) });
}

/** Null for anything else. Nothing is verified. */
export function parseReady(text: string): ReadyAnswer | null {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return null;
  }
  const { success, data } = readySchema.safeParse(json);
  if (!success) return null;
  const { replica, instance } = data;
  const ready = { instance, root: digestOf(data.root), signature: fromHex(data.signature) };
  return { view: digestOf(data.view), replica, ready };
}
