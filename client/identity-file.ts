/**
 * Reads the public cluster file and the client's key file (docs/protocol.md section 2: mode 0600). Node only: nothing that a
 * browser loads imports this.
 */
import { readFile, stat } from "node:fs/promises";
import { type ClusterFile, parseClusterFile } from "../protocol/cluster.ts";
import { QuorateError } from "../protocol/errors.ts";
import { type Identity, parseKeyFile } from "../protocol/identity.ts";

/** @throws QuorateError CONFIG_MISSING, CONFIG_INVALID */
export async function readClusterFile(path: string): Promise<ClusterFile> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    const message = missing
      ? `there is no cluster file ${path}; create a cluster with: kv init, or name its cluster.json`
      : `cannot read the cluster file ${path}`;
    throw new QuorateError(missing ? "CONFIG_MISSING" : "CONFIG_INVALID", message, { path }, cause);
  }
  return parseClusterFile(text, path);
}

/**
 * A client's (or administrator's) keys.
 * @throws QuorateError KEY_FILE_UNREADABLE, KEY_FILE_PERMISSIONS (others may read it), KEY_FILE_INVALID
 */
export async function readIdentityFile(path: string): Promise<Identity> {
  let text: string;
  try {
    const { mode } = await stat(path);
    if (process.platform !== "win32" && (mode & 0o077) !== 0) {
      throw new QuorateError("KEY_FILE_PERMISSIONS", `others may read ${path}; run: chmod 600 ${path}`, { path });
    }
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (cause instanceof QuorateError) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    const message =
      code === "ENOENT"
        ? `the key file ${path} does not exist; kv init and kv client-key write key files`
        : `cannot read the key file ${path} (${code ?? "unknown error"}); check path and owner`;
    throw new QuorateError("KEY_FILE_UNREADABLE", message, { path }, cause);
  }
  const { role, identity } = parseKeyFile(text, path);
  if (role === "replica") {
    throw new QuorateError("KEY_FILE_INVALID", `${path} holds a replica's keys; use client.key`, { path });
  }
  return identity;
}
