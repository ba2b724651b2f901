/**
 * The configuration of one replica: `node.yaml`, its key file and its cluster file, checked as a whole before anything
 * starts (docs/protocol.md section 2 for the keys). Guarantees: every problem is one `QuorateError` with one line that
 * says what to do; unknown settings are errors; a key others could read is refused. A setting is taken from the first of
 * command line, environment (`QUORATE_LOG_LEVEL`, `QUORATE_DATA_DIR`), file and default that has it.
 */
import { existsSync, readFileSync, realpathSync, type Stats, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parse as parseYaml, YAMLParseError } from "yaml";
import { z } from "zod";
import { sameBytes } from "../protocol/bytes.ts";
import { type Cluster, type ClusterFile, clusterOf, firstIssue, parseClusterFile } from "../protocol/cluster.ts";
import { nodeCrypto } from "../protocol/crypto/node.ts";
import { type ErrorCode, QuorateError } from "../protocol/errors.ts";
import { type Identity, parseKeyFile, type Role } from "../protocol/identity.ts";
import { BATCH_BYTES_MAX, BATCH_REQUESTS_MAX, CHECKPOINT_PERIOD, DISK_RESERVE_BYTES } from "../protocol/limits.ts";
import { parseJoinFile } from "../protocol/member-file.ts";
import { type Member, memberOf, type ReplicaId } from "../protocol/view.ts";
import { RETIRED_SUFFIX } from "./erase-keys.ts";

export { prepareDirectory as prepareDataDirectory } from "../storage/leveldb.ts";
export { NOT_REPORTED } from "../storage/recovered.ts";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const WORKERS_MAX = 64;

const path = z.string().min(1);

/** `node.yaml`, field by field. Paths are relative to the file itself. */
export const nodeFileSchema = z.strictObject({
  format: z.literal(1),
  /** The id of this replica among the members of the cluster file. */
  replica: z.int().min(0).max(65_535),
  cluster: path,
  /** join.json of a replica that is no member of the cluster file: who it will be. */
  join: path.optional(),
  keyFile: path,
  dataDir: path,
  /** Where to bind, when that is not the host the cluster file announces (several interfaces, address translation). */
  listen: z
    .strictObject({
      /** For clients and replicas. */
      host: z.string().min(1).max(255).optional(),
      /** For the admin HTTP port, which answers anybody: keep it on a private interface. */
      adminHost: z.string().min(1).max(255).optional(),
    })
    .default({}),
  logLevel: z.enum(LOG_LEVELS).default("info"),
  /** Worker threads for client intake (parsing, authenticators, signatures); 0: on the event loop. */
  workers: z.int().min(0).max(WORKERS_MAX).default(0),
  /** Age of the oldest pending request at which this replica acts on it, in milliseconds. */
  requestTimeoutMs: z.int().min(50).max(600_000).default(1_000),
  /** Free disk below which commands that add to the state are refused with STORAGE_FULL; 0 switches the check off. */
  diskReserveBytes: z.int().min(0).max(Number.MAX_SAFE_INTEGER).default(DISK_RESERVE_BYTES),
  /** P: instances between two checkpoints of this replica, at least 128. The same everywhere. */
  checkpointPeriod: z.int().min(128).max(100_000_000).default(CHECKPOINT_PERIOD),
  batch: z
    .strictObject({
      /** Requests in one batch this replica proposes. */
      requestsMax: z.int().min(1).max(BATCH_REQUESTS_MAX).default(BATCH_REQUESTS_MAX),
      /** Bytes of one batch this replica proposes; a larger single request travels alone. */
      bytesMax: z.int().min(1_024).max(BATCH_BYTES_MAX).default(BATCH_BYTES_MAX),
    })
    .prefault({}),
});
/** What `node.yaml` may hold, before defaults. */
export type NodeFile = z.input<typeof nodeFileSchema>;

/** Where one replica listens: hosts to bind, ports of its member in the cluster file. */
export interface ListenAddresses {
  readonly host: string;
  readonly adminHost: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly adminPort: number;
}

/** A configuration that was checked as a whole. All paths are absolute. */
export interface ServerConfig {
  readonly file: string;
  readonly replica: ReplicaId;
  readonly member: Member;
  readonly clusterPath: string;
  readonly clusterFile: ClusterFile;
  readonly cluster: Cluster;
  readonly keyPath: string;
  readonly identity: Identity;
  readonly dataDir: string;
  readonly listen: ListenAddresses;
  /** Given in node.yaml: where it listens whatever its member's host is. */
  readonly listenHost: string | null;
  /** The same of its admin port. */
  readonly listenAdminHost: string | null;
  readonly logLevel: LogLevel;
  readonly workers: number;
  readonly requestTimeoutMs: number;
  readonly diskReserveBytes: number;
  readonly checkpointPeriod: number;
  readonly batch: { readonly requestsMax: number; readonly bytesMax: number };
}

/** Settings from outside the file. `flags` come from the command line and win over `env`. */
export interface ConfigOverrides {
  readonly flags?: { readonly logLevel?: string; readonly dataDir?: string };
  /** Default: `process.env`. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/**
 * Reads and checks one replica's configuration; changes nothing on disk.
 * @throws QuorateError CONFIG_MISSING, CONFIG_INVALID, KEY_FILE_UNREADABLE, KEY_FILE_PERMISSIONS, KEY_FILE_INVALID, REPLICA_RETIRED
 */
export function loadServerConfig(file: string, overrides: ConfigOverrides = {}): ServerConfig {
  const name = resolve(file);
  const node = parseNodeFile(readConfigText(name, "a replica's node.yaml, as kv init writes it"), name);
  const beside = (other: string): string => resolve(dirname(name), other);
  const clusterPath = beside(node.cluster);
  const clusterFile = readClusterFile(clusterPath);
  const cluster = clusterOf(nodeCrypto, clusterFile);
  const member = memberOf(cluster.view, node.replica) ?? joining(node, { cluster, clusterPath, name, beside });
  const keyPath = beside(node.keyFile);
  const identity = replicaIdentity(keyPath, member, clusterPath);
  const { logLevel, dataDir } = chooseSettings(node, overrides, { name, beside });
  const hosts = { listenHost: node.listen.host ?? null, listenAdminHost: node.listen.adminHost ?? null };
  return {
    file: name,
    replica: node.replica,
    member,
    clusterPath,
    clusterFile,
    cluster,
    keyPath,
    identity,
    dataDir,
    ...hosts,
    listen: listenOf(member, hosts),
    logLevel,
    workers: node.workers,
    requestTimeoutMs: node.requestTimeoutMs,
    diskReserveBytes: node.diskReserveBytes,
    checkpointPeriod: node.checkpointPeriod,
    batch: node.batch,
  };
}

/** Where a replica listens that is this member. */
export function listenOf(
  { host: announced, clientPort, peerPort, adminPort }: Member,
  { listenHost, listenAdminHost }: Pick<ServerConfig, "listenHost" | "listenAdminHost">,
): ListenAddresses {
  const host = listenHost ?? announced;
  return { host, adminHost: listenAdminHost ?? host, clientPort, peerPort, adminPort };
}

/** Who a replica will be that is no member of the cluster file, from the join.json beside it. */
function joining(
  node: z.output<typeof nodeFileSchema>,
  at: { cluster: Cluster; clusterPath: string; name: string; beside: (other: string) => string },
): Member {
  const { cluster, clusterPath, name, beside } = at;
  if (node.join === undefined) {
    const ids = cluster.view.members.map(({ id }) => id).join(", ");
    throw invalid(name, `replica: ${node.replica} is no member of ${clusterPath}, which has ${ids}`);
  }
  const file = beside(node.join);
  const joins = parseJoinFile(readConfigText(file, "the join.json that kv init --join wrote"), file);
  if (joins.cluster !== cluster.id) throw invalid(file, `it is for another cluster than ${clusterPath}`);
  if (joins.member.id !== node.replica) throw invalid(name, `replica: ${node.replica} is not the one of ${file}`);
  return joins.member;
}

/** Parses the text of a `node.yaml`. @throws QuorateError CONFIG_INVALID naming the line or the setting. */
export function parseNodeFile(text: string, name: string): z.output<typeof nodeFileSchema> {
  let value: unknown;
  try {
    value = parseYaml(text, { schema: "core", uniqueKeys: true, maxAliasCount: 0 });
  } catch (cause) {
    const line = cause instanceof YAMLParseError ? cause.linePos?.[0].line : undefined;
    const why = cause instanceof Error ? (cause.message.split("\n")[0] ?? "") : "unreadable";
    const place = line === undefined || why.includes("at line") ? "" : ` at line ${line}`;
    throw invalid(name, `not YAML: ${why.replace(/:$/, "")}${place}`, cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalid(name, "must hold settings such as `replica: 0`; kv init writes a complete one");
  }
  const parsed = nodeFileSchema.safeParse(value);
  if (!parsed.success) throw invalid(name, firstIssue(parsed.error));
  return parsed.data;
}

/** @throws QuorateError CONFIG_MISSING, CONFIG_INVALID */
export function readClusterFile(file: string): ClusterFile {
  const clusterFile = parseClusterFile(readConfigText(file, "the cluster.json that kv init wrote"), file);
  clusterOf(nodeCrypto, clusterFile);
  return clusterFile;
}

/**
 * Reads a key file of the given role. It must be 0600 (or stricter) in a directory nobody else can enter.
 * @throws QuorateError KEY_FILE_UNREADABLE, KEY_FILE_PERMISSIONS, KEY_FILE_INVALID
 */
export function readKeyFile(file: string, role: Role): Identity {
  refuseLooseMode(file, keyFileStat(file), { kind: "file", allowed: 0o600 });
  // Where the key really lies: a symbolic link in a private directory protects nothing.
  const directory = dirname(realpathSync(file));
  refuseLooseMode(directory, keyFileStat(directory), { kind: "directory", allowed: 0o700 });
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw unreadableKey(file, cause);
  }
  const key = parseKeyFile(text, file);
  if (key.role !== role) {
    const why = `${file} holds the keys of role ${key.role}; name a key file of role ${role}`;
    throw new QuorateError("KEY_FILE_INVALID", why, { file });
  }
  return key.identity;
}

/** Beside a key file: its keys are those of a later view than the cluster file's, which are compared where views are known. */
export const ROTATED_SUFFIX = ".rotated";

function replicaIdentity(keyPath: string, member: Member, clusterPath: string): Identity {
  refuseRetired(keyPath, member.id);
  const identity = readKeyFile(keyPath, "replica");
  if (existsSync(`${keyPath}${ROTATED_SUFFIX}`)) return identity;
  if (!sameBytes(identity.signKey, member.signKey) || !sameBytes(identity.boxKey, member.boxKey)) {
    const why = `its public keys are not those of replica ${member.id} in ${clusterPath}; use the key of that replica`;
    throw new QuorateError("KEY_FILE_INVALID", `${keyPath}: ${why}`, { file: keyPath, replica: member.id });
  }
  return identity;
}

/** @throws QuorateError REPLICA_RETIRED */
function refuseRetired(keyPath: string, replica: ReplicaId): void {
  if (existsSync(keyPath) || !existsSync(`${keyPath}${RETIRED_SUFFIX}`)) return;
  const why = `replica ${replica} was removed from the cluster and its keys ${keyPath} were erased; its id is never used again`;
  const todo = "make a new replica, with an id of its own: kv init --join";
  throw new QuorateError("REPLICA_RETIRED", `${why}; ${todo}`, { file: keyPath, replica });
}

function chooseSettings(
  node: { logLevel: LogLevel; dataDir: string },
  overrides: ConfigOverrides,
  file: { name: string; beside: (other: string) => string },
): { logLevel: LogLevel; dataDir: string } {
  const { flags = {}, env = process.env } = overrides;
  const level = flags.logLevel ?? env.QUORATE_LOG_LEVEL ?? node.logLevel;
  const logLevel = LOG_LEVELS.find((known) => known === level);
  if (!logLevel) {
    const source = flags.logLevel === undefined ? "QUORATE_LOG_LEVEL" : "--log-level";
    throw new QuorateError("CONFIG_INVALID", `${source}: "${level}" is not one of ${LOG_LEVELS.join(", ")}`);
  }
  const outside = flags.dataDir ?? env.QUORATE_DATA_DIR;
  if (outside === "")
    throw new QuorateError("CONFIG_INVALID", "QUORATE_DATA_DIR is empty; unset it or name a directory");
  return { logLevel, dataDir: outside === undefined ? file.beside(node.dataDir) : resolve(outside) };
}

function refuseLooseMode(file: string, stat: Stats, rule: { kind: "file" | "directory"; allowed: number }): void {
  if (rule.kind === "file" && !stat.isFile()) {
    throw new QuorateError("KEY_FILE_UNREADABLE", `${file} is not a file; name the key file that kv init wrote`, {
      file,
    });
  }
  const mode = stat.mode & 0o777;
  if ((mode & ~rule.allowed) === 0) return;
  const octal = (bits: number): string => bits.toString(8).padStart(3, "0");
  const what = rule.kind === "file" ? "the key file" : "the directory of the key file";
  const why = `${what} ${file} has mode ${octal(mode)}, so others could read the key`;
  const fix = `chmod ${octal(rule.allowed)} ${file}`;
  throw new QuorateError("KEY_FILE_PERMISSIONS", `${why}; run: ${fix}`, { file, mode, fix });
}

function keyFileStat(file: string): Stats {
  try {
    return statSync(file);
  } catch (cause) {
    throw unreadableKey(file, cause);
  }
}

function unreadableKey(file: string, cause: unknown): QuorateError {
  const { code } = cause as NodeJS.ErrnoException;
  const why =
    code === "ENOENT" || code === "ENOTDIR"
      ? "does not exist; kv init and kv client-key write key files"
      : `cannot be read (${code ?? "unknown error"}); run as the user that owns it`;
  return new QuorateError("KEY_FILE_UNREADABLE", `key file ${file} ${why}`, { file, errno: code }, cause);
}

function readConfigText(file: string, expected: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const missing = code === "ENOENT" || code === "ENOTDIR";
    const [errorCode, why]: [ErrorCode, string] = missing
      ? ["CONFIG_MISSING", `does not exist; name ${expected}`]
      : ["CONFIG_INVALID", `cannot be read (${code ?? "unknown error"}); name ${expected}`];
    throw new QuorateError(errorCode, `${file} ${why}`, { file, errno: code }, cause);
  }
}

function invalid(name: string, why: string, cause?: unknown): QuorateError {
  return new QuorateError("CONFIG_INVALID", `${name}: ${why}`, { name }, cause);
}
