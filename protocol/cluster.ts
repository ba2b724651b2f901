/**
 * The public cluster file: who the replicas are, where they listen, who may be a client. It only roots trust: its digest
 * is h(0) of the history (docs/protocol.md sections 1 and 3).
 */
import { z } from "zod";
import { bytesOf, type Digest, fromHex, hex, latin1 } from "./bytes.ts";
import type { Crypto } from "./crypto/contract.ts";
import { QuorateError } from "./errors.ts";
import { Writer } from "./layout.ts";
import { ADMINISTRATORS_MAX, REPLICAS_MAX } from "./limits.ts";
import { genesisDigest, ROTATION_DEFAULT, ROTATION_MAX, type View, viewOf, writeTag } from "./view.ts";

/** More revisions than a cluster goes on with after the snapshot that another one is founded from. */
export const ORIGIN_REVISION_OFFSET = 4_294_967_296;

/** 32 bytes as hexadecimal digits. */
export const keySchema = z.string().regex(/^[0-9a-f]{64}$/, "must be 64 hexadecimal digits");
const port = z.int().min(1).max(65_535);

/** A member as files hold it. */
export const memberSchema = z.strictObject({
  id: z.int().min(0).max(65_535),
  host: z.string().min(1).max(255),
  clientPort: port,
  peerPort: port,
  adminPort: port,
  signKey: keySchema,
  boxKey: keySchema,
});

export const clusterFileSchema = z.strictObject({
  format: z.literal(1),
  clusterId: keySchema,
  mode: z.enum(["bft", "cft"]),
  f: z.int().min(0),
  members: z.array(memberSchema).min(1).max(REPLICAS_MAX),
  administrators: z.array(keySchema).min(1).max(ADMINISTRATORS_MAX),
  /** How many of them must sign what they order; 1 unless set. */
  administratorThreshold: z.int().min(1).max(ADMINISTRATORS_MAX).optional(),
  /** "open" for development, or the ids (`kv id`) that may be clients. */
  clients: z.union([z.literal("open"), z.array(keySchema).max(10_000)]),
  /** Requests must carry a signature instead of an authenticator vector. */
  signedRequests: z.boolean(),
  /** Plain when left out. Part of what the cluster is founded on, like the rest of the view. */
  faultModel: z.enum(["plain", "malicious"]).optional(),
  /** In the malicious fault model: instances that a leader has in a row. */
  rotation: z.int().min(1).max(ROTATION_MAX).optional(),
  maxClients: z.int().min(1).max(1_000_000),
  /** Set by `kv init --from-snapshot`: whose entries the cluster begins with. Part of what it is founded on. */
  origin: z
    .strictObject({
      /** The cluster that the snapshot was taken of, and its state's root and instance. */
      clusterId: keySchema,
      root: keySchema,
      instance: z.int().min(0).max(Number.MAX_SAFE_INTEGER),
      /** SHA-256 of the snapshot file. */
      snapshot: keySchema,
      /** What the store revision is raised by, so that no revision of the old cluster means anything else in the new one. */
      revisionOffset: z.literal(ORIGIN_REVISION_OFFSET),
    })
    .optional(),
});
export type ClusterFile = z.infer<typeof clusterFileSchema>;
export type ClusterOrigin = NonNullable<ClusterFile["origin"]>;

/** A cluster file checked and turned into what the code works with. */
export interface Cluster {
  readonly id: Digest;
  readonly view: View;
  readonly genesis: Digest;
  /** Client ids that may be clients, or "open". */
  readonly clients: "open" | ReadonlySet<Digest>;
  readonly signedRequests: boolean;
  readonly maxClients: number;
  /** The snapshot the cluster begins with, or null when it begins empty. */
  readonly origin: ClusterOrigin | null;
}

/** @throws QuorateError CONFIG_INVALID with the path of the first thing wrong. */
export function parseClusterFile(text: string, name: string): ClusterFile {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new QuorateError(
      "CONFIG_INVALID",
      `${name} is not JSON; it must be the cluster.json that kv init wrote`,
      { name },
      cause,
    );
  }
  const parsed = clusterFileSchema.safeParse(json);
  if (!parsed.success) throw new QuorateError("CONFIG_INVALID", `${name}: ${firstIssue(parsed.error)}`, { name });
  return parsed.data;
}

/** `path: what is wrong` of the first issue, on one line. */
export function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0];
  if (!issue) return "invalid";
  const path = issue.path.map(String).join(".");
  return path === "" ? issue.message : `${path}: ${issue.message}`;
}

/** @throws QuorateError CONFIG_INVALID */
export function clusterOf(crypto: Crypto, file: ClusterFile): Cluster {
  const id = latin1(fromHex(file.clusterId)) as Digest;
  const view = viewOf(crypto, {
    id: 0,
    cluster: id,
    mode: file.mode,
    f: file.f,
    members: file.members.map((member) => ({
      ...member,
      signKey: fromHex(member.signKey),
      boxKey: fromHex(member.boxKey),
    })),
    administrators: file.administrators.map(fromHex),
    administratorThreshold: file.administratorThreshold ?? 1,
    rotation: rotationOf(file),
  });
  const clients =
    file.clients === "open" ? "open" : new Set(file.clients.map((client) => latin1(fromHex(client)) as Digest));
  const writer = writeTag(new Writer(1024), "quorate/clients/1", id)
    .u8(file.signedRequests ? 1 : 0)
    .u53(file.maxClients);
  if (clients !== "open") for (const client of [...clients].sort()) writer.raw(bytesOf(client));
  const clientsDigest = crypto.sha256(writer.view());
  const origin = file.origin ?? null;
  return {
    id,
    view,
    genesis: genesisDigest(crypto, view, origin ? originDigest(crypto, id, { clientsDigest, origin }) : clientsDigest),
    clients,
    signedRequests: file.signedRequests,
    maxClients: file.maxClients,
    origin,
  };
}

/**
 * Instances in a leader's turn, 0 in the plain fault model.
 * @throws QuorateError CONFIG_INVALID when what the fault model takes is missing, or set without it.
 */
export function rotationOf({ faultModel, rotation, signedRequests }: ClusterFile): number {
  if (faultModel !== "malicious") {
    if (rotation === undefined) return 0;
    throw new QuorateError("CONFIG_INVALID", 'rotation: leaders rotate only with faultModel "malicious"');
  }
  if (!signedRequests) {
    throw new QuorateError("CONFIG_INVALID", 'signedRequests: must be true with faultModel "malicious"');
  }
  return rotation ?? ROTATION_DEFAULT;
}

/** Stands in the place of the clients' digest in a genesis that has an origin. */
function originDigest(crypto: Crypto, id: Digest, founded: { clientsDigest: Digest; origin: ClusterOrigin }): Digest {
  const { clusterId, root, instance, snapshot, revisionOffset } = founded.origin;
  const writer = writeTag(new Writer(256), "quorate/origin/1", id).rawLatin1(founded.clientsDigest);
  writer.raw(fromHex(clusterId)).raw(fromHex(root)).u53(instance).raw(fromHex(snapshot)).u53(revisionOffset);
  return crypto.sha256(writer.view());
}

export function clusterFileText(file: ClusterFile): string {
  return `${JSON.stringify(file, null, 2)}\n`;
}

/** A short name for messages: the first eight hexadecimal digits. */
export function shortId(digest: Digest): string {
  return hex(digest).slice(0, 8);
}
