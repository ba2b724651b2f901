/**
 * Writes the files of a replica that is to become a member, and a member's next keys (docs/protocol.md section 7). Guarantees:
 * secret keys are 0600 in a 0700 directory and never leave it; what administrators need is in a public file beside them; nothing
 * that exists is overwritten.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { stringify as yamlText } from "yaml";
import { type ClusterFile, clusterFileText, clusterOf } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { QuorateError } from "../../protocol/errors.ts";
import { keyFileText, newIdentity } from "../../protocol/identity.ts";
import { joinFileText, rotationFileText } from "../../protocol/member-file.ts";
import { type Address, isAddress } from "../../protocol/reconfiguration.ts";
import type { Member, ReplicaId } from "../../protocol/view.ts";
import { type NodeFile, parseNodeFile, prepareDataDirectory, readClusterFile } from "../../server/config.ts";
import { NEXT_KEY_SUFFIX } from "../../server/replica-keys.ts";

/** Name of the public file in the directory of a replica that is to join. */
export const JOIN_FILE = "join.json";
/** Of the public file beside node.yaml. */
export const ROTATION_FILE = "rotate.json";

export interface NewMember {
  readonly directory: string;
  readonly clusterFile: ClusterFile;
  readonly id: ReplicaId;
  readonly address: Address;
}

/**
 * Creates the directory: cluster.json, join.json, node.yaml, replica.key and a data directory to be founded.
 * @throws QuorateError DIRECTORY_EXISTS, INVALID_ARGUMENT
 */
export async function writeMember(options: NewMember): Promise<Member> {
  const { clusterFile, id, address } = options;
  if (!isAddress(address)) throw new QuorateError("INVALID_ARGUMENT", `"${address.host}" is no host name or address`);
  const target = resolve(options.directory);
  if (existsSync(target)) {
    throw new QuorateError("DIRECTORY_EXISTS", `${target} exists already; name another with --dir`, { target });
  }
  mkdirSync(dirname(target), { recursive: true });
  const staging = mkdtempSync(join(dirname(target), `.${basename(target)}-`));
  try {
    const identity = newIdentity(nodeCrypto);
    const member: Member = { id, ...address, signKey: identity.signKey, boxKey: identity.boxKey };
    const { id: cluster } = clusterOf(nodeCrypto, clusterFile);
    writeFileSync(join(staging, "cluster.json"), clusterFileText(clusterFile), { mode: 0o644 });
    writeFileSync(join(staging, JOIN_FILE), joinFileText({ cluster, member }), { mode: 0o644 });
    writeFileSync(join(staging, "node.yaml"), nodeFileText(id), { mode: 0o600 });
    writeFileSync(join(staging, "replica.key"), keyFileText("replica", identity), { mode: 0o600, flag: "wx" });
    await prepareDataDirectory({ directory: join(staging, "data"), clusterId: clusterFile.clusterId });
    renameSync(staging, target);
    return member;
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

function nodeFileText(replica: ReplicaId): string {
  const file: NodeFile = {
    format: 1,
    replica,
    cluster: "cluster.json",
    join: JOIN_FILE,
    keyFile: "replica.key",
    dataDir: "data",
    logLevel: "info",
    requestTimeoutMs: 1_000,
  };
  return `# A replica that joins a Quorate cluster; paths are relative to this file.\n${yamlText(file)}`;
}

export interface NextKeys {
  readonly replica: ReplicaId;
  readonly keyFile: string;
  readonly rotationFile: string;
}

/**
 * Makes the next keys of the replica with this node.yaml, on its machine.
 * @throws QuorateError CONFIG_MISSING, CONFIG_INVALID, INVALID_ARGUMENT (made before)
 */
export function writeNextKeys(nodeFile: string): NextKeys {
  const node = parseNodeFile(readText(nodeFile), nodeFile);
  const beside = (path: string): string => resolve(dirname(nodeFile), path);
  const { id: cluster } = clusterOf(nodeCrypto, readClusterFile(beside(node.cluster)));
  const keyFile = `${beside(node.keyFile)}${NEXT_KEY_SUFFIX}`;
  const rotationFile = beside(ROTATION_FILE);
  const identity = newIdentity(nodeCrypto);
  try {
    writeFileSync(keyFile, keyFileText("replica", identity), { mode: 0o600, flag: "wx" });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why = code === "EEXIST" ? "exists already: its keys were made before and not used yet" : `(${code})`;
    throw new QuorateError("INVALID_ARGUMENT", `cannot write ${keyFile} ${why}`, { keyFile }, cause);
  }
  const { signKey, boxKey } = identity;
  writeFileSync(rotationFile, rotationFileText({ cluster, replica: node.replica, signKey, boxKey }), { mode: 0o644 });
  return { replica: node.replica, keyFile, rotationFile };
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const message = `${file} cannot be read; name the node.yaml of the replica whose keys are to change`;
    throw new QuorateError("CONFIG_MISSING", message, { file }, cause);
  }
}
