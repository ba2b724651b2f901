/** One connection to the cluster for the length of one command: opened from the global options, closed whatever happens. */
import type { Consistency } from "../client/kv-types.ts";
import { viewsBeside } from "../client/view-file.ts";
import { clusterOf } from "../protocol/cluster.ts";
import { nodeCrypto } from "../protocol/crypto/node.ts";
import { QuorateError } from "../protocol/errors.ts";
import type { View } from "../protocol/view.ts";
import type { ViewChain } from "../protocol/view-chain.ts";
import { type ClusterChoice, chooseCluster, chooseIdentity, DEFAULT_TIMEOUT_MS, type Globals } from "./globals.ts";
import type { Io } from "./io.ts";

/** How long a replica is looked for that knows newer views. */
const FOLLOW_MS = 2_000;

/** Where the views are kept that were followed from this cluster file on. */
export function viewsOf(cluster: ClusterChoice): string {
  return viewsBeside(cluster.path);
}

/** The views known without asking anybody. */
export async function knownChain(cluster: ClusterChoice): Promise<ViewChain> {
  const { storedChain } = await import("../client/view-follower.ts");
  const { viewFile } = await import("../client/view-file.ts");
  const { view } = clusterOf(nodeCrypto, cluster.file);
  return await storedChain(nodeCrypto, view, viewFile(viewsOf(cluster)));
}

/** The newest view known without asking anybody. */
export async function knownView(cluster: ClusterChoice): Promise<View> {
  return (await knownChain(cluster)).newest;
}

/** The views up to the one in force, as far as any replica that answers knows; those known before when none does. */
export async function followedChain(globals: Globals, io: Io, cluster: ClusterChoice): Promise<ViewChain> {
  try {
    await withKv({ ...globals, timeout: FOLLOW_MS }, io, async () => undefined, { consistency: "local" });
  } catch (error) {
    if (!(error instanceof QuorateError)) throw error;
    // Whoever is asked next says what is wrong.
  }
  return await knownChain(cluster);
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
