/**
 * A real cluster with clients that write, read and record all the time, and the verdict at the end: every replica agrees,
 * nothing acknowledged is lost, each write was executed once, and the recorded history is linearizable.
 */
import { type NewCluster, TestCluster } from "./cluster.ts";
import { Load } from "./load.ts";
import { RecordedLoad } from "./recorded-load.ts";

export interface UnderLoad {
  readonly cluster: TestCluster;
  readonly load: Load;
  /** Ends the load and holds all of it to what must be true at these replicas, all by default. */
  conclude(replicas?: readonly number[]): Promise<void>;
}

export interface UnderLoadOptions extends NewCluster {
  /** Starts the replicas, when not all of them are plain kv-servers. */
  readonly start?: (cluster: TestCluster) => Promise<unknown>;
}

/** Longer than any fault of a test lasts, so that outcomes stay known. */
const OPERATION_TIMEOUT_MS = 30_000;

export async function underLoad(options: UnderLoadOptions = {}): Promise<UnderLoad> {
  const { start = (cluster) => cluster.startAll(), ...wanted } = options;
  const cluster = await TestCluster.create(wanted);
  await start(cluster);
  const connections = [await cluster.connect(), await cluster.connect()];
  const load = new Load({ connections, writers: 10, readers: 2, putTimeoutMs: OPERATION_TIMEOUT_MS, pauseMs: 5 });
  const recorded = new RecordedLoad({ connections, clients: 6, keys: 3, timeoutMs: OPERATION_TIMEOUT_MS, pauseMs: 20 });
  await load.progress(100);
  return {
    cluster,
    load,
    async conclude(replicas = cluster.ids) {
      await Promise.all([load.stop(), recorded.stop()]);
      await cluster.agreement(replicas);
      await load.verify(await cluster.connect());
      recorded.verify();
    },
  };
}
