/**
 * One replica on its way back to voting, as /status shows it: how long each phase took, how much was fetched, from whom; and the
 * memory of all replicas meanwhile. Figures from outside: a phase shorter than the time between two looks may be missed.
 */
import { readFileSync } from "node:fs";
import type { LocalCluster } from "./local-cluster.ts";

const LOOK_MS = 200;

interface Phase {
  readonly name: string;
  readonly atMs: number;
  memoryBytes: number;
}

export interface Recovery {
  /** From the start of the process until it votes. */
  readonly totalMs: number;
  /** Of the checkpoint, as its header says. */
  readonly bytes: number;
  /** From the choice of a donor until its checkpoint can be executed on. */
  readonly fetchMs: number;
  readonly donor: number | null;
  /** What it was doing, each from when on, in milliseconds since the start of the process, and its largest memory meanwhile. */
  readonly phases: readonly Phase[];
  /** The largest resident memory by replica. */
  readonly memoryBytes: ReadonlyMap<number, number>;
  /** The same just before. */
  readonly memoryBytesBefore: ReadonlyMap<number, number>;
}

/** Starts a replica that was ended, and follows it until it votes. @throws Error when it does not within `timeoutMs` */
export async function watchRecovery(cluster: LocalCluster, id: number, timeoutMs: number): Promise<Recovery> {
  const memoryBytesBefore = memoryOf(cluster);
  const memoryBytes = new Map<number, number>();
  const phases: Phase[] = [];
  const startedMs = performance.now();
  let bytes = 0;
  let donor: number | null = null;
  let fetching: { readonly fromMs: number; toMs: number } | null = null;
  await cluster.startOne(id);
  for (;;) {
    const detail = await cluster.detail(id);
    const atMs = performance.now() - startedMs;
    for (const [replica, now] of memoryOf(cluster)) {
      memoryBytes.set(replica, Math.max(now, memoryBytes.get(replica) ?? 0));
    }
    const recovery = detail?.recovery ?? null;
    const name = recovery ? `${detail?.state}: ${recovery.phase}` : (detail?.state ?? "no answer");
    if (phases.at(-1)?.name !== name) phases.push({ name, atMs, memoryBytes: 0 });
    const phase = phases.at(-1) as Phase;
    phase.memoryBytes = Math.max(phase.memoryBytes, memoryOf(cluster).get(id) ?? 0);
    // Of catching up by log the total is an estimate of another thing.
    if (recovery && detail?.state === "transferring" && recovery.bytesTotal > 0) {
      bytes = recovery.bytesTotal;
      donor = recovery.donor ?? donor;
    }
    if (recovery?.phase === "checkpoint") {
      fetching ??= { fromMs: atMs, toMs: atMs };
      fetching.toMs = atMs;
    }
    if (detail?.state === "voting") {
      const fetchMs = fetching ? fetching.toMs - fetching.fromMs : 0;
      return { totalMs: atMs, bytes, fetchMs, donor, phases, memoryBytes, memoryBytesBefore };
    }
    if (atMs > timeoutMs || cluster.hasEnded(id)) {
      const after = cluster.hasEnded(id) ? "has ended" : `does not vote after ${timeoutMs} ms`;
      throw new Error(`replica ${id} ${after}: ${phasesText(phases)}\n${cluster.lastWords(id)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

export function phasesText(phases: Recovery["phases"]): string {
  return phases
    .map(
      ({ name, atMs, memoryBytes }) =>
        `${name} at ${(atMs / 1_000).toFixed(1)} s (${Math.round(memoryBytes / 1e6)} MB)`,
    )
    .join(", ");
}

/**
 * Memory of its own (RssAnon) by replica; empty where there is no /proc. Resident besides are LevelDB's tables, mapped from
 * files: page cache, which the kernel takes back when anybody needs it.
 */
export function memoryOf(cluster: LocalCluster): Map<number, number> {
  const memory = new Map<number, number>();
  for (const id of cluster.ids) {
    const bytes = ownBytes(cluster.pid(id));
    if (bytes !== null) memory.set(id, bytes);
  }
  return memory;
}

function ownBytes(pid: number): number | null {
  try {
    const [, kib] = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
    return kib === undefined ? null : Number(kib) * 1_024;
  } catch {
    return null;
  }
}
