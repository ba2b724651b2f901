/** One connection to the cluster for the length of one command: opened from the global options, closed whatever happens. */
import type { Consistency } from "../client/kv-types.ts";
import { clusterOf } from "../protocol/cluster.ts";
import { nodeCrypto } from "../protocol/crypto/node.ts";
import type { View } from "../protocol/view.ts";
import { type ClusterChoice, chooseCluster, chooseIdentity, DEFAULT_TIMEOUT_MS, type Globals } from "./globals.ts";
import type { Io } from "./io.ts";

/** Where the views are kept that were followed from this cluster file on. */
export function viewsOf(cluster: ClusterChoice): string {
  return `${cluster.path}.views`;
}

/** The newest view known without asking anybody. */
export async function knownView(cluster: ClusterChoice): Promise<View> {
  const { storedChain } = await import("../client/view-follower.ts");
  const { viewFile } = await import("../client/view-file.ts");
  const { view } = clusterOf(nodeCrypto, cluster.file);
  return (await storedChain(nodeCrypto, view, viewFile(viewsOf(cluster)))).newest;
}

export type BytesKv = Awaited<ReturnType<typeof openKv>>;

/** How one command wants to be connected, beyond the global options. */
export interface SessionOptions {
  readonly timeoutMs?: number;
  readonly orderedReads?: boolean;
  readonly consistency?: Consistency;
}

export async function openKv(globals: Globals, io: Io, options: SessionOptions = {}) {
  const cluster = chooseCluster(globals, io);
  const identity = chooseIdentity(globals, cluster);
  // Loaded late: verbs that open no connection start faster without it.
  const { bytes, connect } = await import("../client/index.ts");
  return await connect({
    cluster: cluster.file,
    identity,
    viewFile: viewsOf(cluster),
    transport: io.network?.transport,
    codec: bytes,
    timeoutMs: globals.timeout ?? options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    orderedReads: options.orderedReads ?? false,
    consistency: options.consistency,
  });
}

/** Runs `use` with an open connection. */
export async function withKv<T>(
  globals: Globals,
  io: Io,
  use: (kv: BytesKv) => Promise<T>,
  options: SessionOptions = {},
): Promise<T> {
  const kv = await openKv(globals, io, options);
  try {
    return await use(kv);
  } finally {
    await kv.close();
  }
}
