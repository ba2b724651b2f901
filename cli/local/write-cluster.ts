/**
 * Writes the files of a new cluster: cluster.json (public), admin.key, client.key, and per replica node.yaml,
 * replica.key and a data directory to be founded (docs/protocol.md section 2), with its own copy of the snapshot to begin with if
 * there is one. Guarantees: key files are 0600 in 0700 directories; an existing directory is never touched; everything is written
 * beside it and renamed into place, so that a failure leaves nothing behind.
 */
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { chmod, constants, copyFile, open } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { stringify as yamlText } from "yaml";
import { type Digest, hex, latin1 } from "../../protocol/bytes.ts";
import { type ClusterFile, type ClusterOrigin, clusterFileText, clusterOf } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { QuorateError } from "../../protocol/errors.ts";
import { clientIdOf, type Identity, keyFileText, newIdentity, type Role } from "../../protocol/identity.ts";
import { REPLICAS_MAX } from "../../protocol/limits.ts";
import { type FaultModel, faultsTolerated, type Mode, ROTATION_DEFAULT } from "../../protocol/view.ts";
import { type NodeFile, prepareDataDirectory } from "../../server/config.ts";
import { SNAPSHOT_FILE } from "../../server/snapshot/file.ts";

export const DEFAULT_BASE_PORT = 7_000;
const PORT_MAX = 65_535;
const PORTS_PER_REPLICA = 10;

export interface NewCluster {
  readonly directory: string;
  readonly replicas: number;
  /** What replicas may do when they fail: anything ("bft", the default), or nothing more than crash ("cft"). */
  readonly mode?: Mode;
  /** One host for all replicas, or one each. */
  readonly hosts: readonly string[];
  readonly basePort: number;
  /** "open" for development; "listed": only the client.key written here. */
  readonly clients: "open" | "listed";
  readonly signedRequests: boolean;
  /** Plain unless said otherwise; the malicious one takes signed requests. */
  readonly faultModel?: FaultModel;
  /** Instances in a leader's turn, in the malicious fault model. */
  readonly rotation?: number;
  /** A verified snapshot to begin with. */
  readonly origin?: NewOrigin | null;
}

export interface NewOrigin {
  readonly file: string;
  readonly origin: ClusterOrigin;
}

/**
 * Creates the directory. Returns what its cluster.json says.
 * @throws QuorateError DIRECTORY_EXISTS, INVALID_ARGUMENT (sizes, hosts, ports), CONFIG_INVALID
 */
export async function writeCluster(options: NewCluster): Promise<ClusterFile> {
  checkSizes(options);
  const target = resolve(options.directory);
  refuseExisting(target);
  mkdirSync(dirname(target), { recursive: true });
  const staging = mkdtempSync(join(dirname(target), `.${basename(target)}-`));
  try {
    const file = await writeFiles(staging, options);
    // A rename replaces an empty directory without a word: look again.
    refuseExisting(target);
    renameSync(staging, target);
    return file;
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

/** @throws QuorateError INVALID_ARGUMENT */
function checkSizes({ replicas, hosts, basePort, faultModel, rotation }: NewCluster): void {
  const wrong = (why: string): QuorateError => new QuorateError("INVALID_ARGUMENT", why);
  if (rotation !== undefined && faultModel !== "malicious") {
    throw wrong("--rotation belongs to --fault-model malicious; otherwise leaders do not take turns");
  }
  if (replicas < 1 || replicas > REPLICAS_MAX) throw wrong(`--replicas must be from 1 to ${REPLICAS_MAX}`);
  if (hosts.length !== 1 && hosts.length !== replicas) {
    throw wrong(`--host names ${hosts.length} hosts for ${replicas} replicas; give one host, or one per replica`);
  }
  for (const host of hosts) {
    if (!/^[\w.:-]{1,255}$/.test(host)) throw wrong(`--host: "${host}" is no host name or address`);
  }
  const last = basePort + PORTS_PER_REPLICA * (replicas - 1) + 2;
  if (last > PORT_MAX) {
    const highest = PORT_MAX - (last - basePort);
    throw wrong(`--base-port ${basePort} would need port ${last}; for ${replicas} replicas it is at most ${highest}`);
  }
}

function refuseExisting(target: string): void {
  if (!existsSync(target)) return;
  const todo = "name another with --dir, or remove it if nothing in it is needed";
  throw new QuorateError("DIRECTORY_EXISTS", `${target} exists already; ${todo}`, { directory: target });
}

async function writeFiles(directory: string, options: NewCluster): Promise<ClusterFile> {
  const replicas = Array.from({ length: options.replicas }, () => newIdentity(nodeCrypto));
  const administrator = newIdentity(nodeCrypto);
  const client = newIdentity(nodeCrypto);
  const file = clusterFileOf(options, { replicas, administrator, client });
  clusterOf(nodeCrypto, file);
  writeFileSync(join(directory, "cluster.json"), clusterFileText(file), { mode: 0o644 });
  writeKey(join(directory, "admin.key"), "admin", administrator);
  writeKey(join(directory, "client.key"), "client", client);
  for (const [replica, identity] of replicas.entries()) {
    const home = join(directory, `replica-${replica}`);
    mkdirSync(home, { mode: 0o700 });
    writeFileSync(join(home, "node.yaml"), nodeFileText(replica), { mode: 0o600 });
    writeKey(join(home, "replica.key"), "replica", identity);
    const data = join(home, "data");
    await prepareDataDirectory({ directory: data, clusterId: file.clusterId });
    if (options.origin) await placeSnapshot(options.origin.file, join(data, SNAPSHOT_FILE));
  }
  return file;
}

/** A file of its own, so that damage to one reaches nobody else; file systems that can share blocks do. Synced. */
async function placeSnapshot(file: string, target: string): Promise<void> {
  await copyFile(file, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  await chmod(target, 0o600);
  await sync(target);
  await sync(dirname(target));
}

async function sync(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function writeKey(path: string, role: Role, identity: Identity): void {
  writeFileSync(path, keyFileText(role, identity), { mode: 0o600, flag: "wx" });
}

function clusterFileOf(
  options: NewCluster,
  keys: { replicas: readonly Identity[]; administrator: Identity; client: Identity },
): ClusterFile {
  const { replicas, hosts, basePort, mode = "bft" } = options;
  const id = latin1(nodeCrypto.random(32)) as Digest;
  return {
    format: 1,
    clusterId: hex(id),
    mode,
    f: faultsTolerated({ n: replicas, mode }),
    members: keys.replicas.map((identity, replica) => ({
      id: replica,
      host: hosts[hosts.length === 1 ? 0 : replica] as string,
      clientPort: basePort + PORTS_PER_REPLICA * replica,
      peerPort: basePort + PORTS_PER_REPLICA * replica + 1,
      adminPort: basePort + PORTS_PER_REPLICA * replica + 2,
      signKey: hex(identity.signKey),
      boxKey: hex(identity.boxKey),
    })),
    administrators: [hex(keys.administrator.signKey)],
    clients: options.clients === "open" ? "open" : [hex(clientIdOf(nodeCrypto, keys.client))],
    signedRequests: options.signedRequests,
    ...(options.faultModel === "malicious"
      ? { faultModel: "malicious", rotation: options.rotation ?? ROTATION_DEFAULT }
      : {}),
    maxClients: 10_000,
    ...(options.origin ? { origin: options.origin.origin } : {}),
  };
}

function nodeFileText(replica: number): string {
  const file: NodeFile = {
    format: 1,
    replica,
    cluster: "../cluster.json",
    keyFile: "replica.key",
    dataDir: "data",
    logLevel: "info",
    requestTimeoutMs: 1_000,
  };
  return `# One replica of a Quorate cluster; paths are relative to this file.\n${yamlText(file)}`;
}
