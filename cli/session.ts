/** One connection to the cluster for the length of one command: opened from the global options, closed whatever happens. */
import type { Consistency } from "../client/kv-types.ts";
import { chooseCluster, chooseIdentity, DEFAULT_TIMEOUT_MS, type Globals } from "./globals.ts";
import type { Io } from "./io.ts";

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
