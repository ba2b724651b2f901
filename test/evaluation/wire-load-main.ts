/** A load generator in a process of its own: takes one task after the other, says when it begins, and then what it measured. */
import { type ClusterFile, clusterOf } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { serveTasks } from "../simulation/pool.ts";
import { WireLoad, type WireLoadOptions, type WireResult } from "./wire-load.ts";

export interface WireTask extends Omit<WireLoadOptions, "cluster"> {
  readonly file: ClusterFile;
  readonly warmupMs: number;
  readonly measureMs: number;
}

export type WireAnswer = { readonly began: true } | { readonly result: WireResult };

serveTasks<WireTask, WireAnswer>(async ({ file, warmupMs, measureMs, ...options }) => {
  const load = await WireLoad.open({ ...options, cluster: clusterOf(nodeCrypto, file) });
  const began: WireAnswer = { began: true };
  process.send?.(began);
  return { result: await load.measure(warmupMs, measureMs) };
});
