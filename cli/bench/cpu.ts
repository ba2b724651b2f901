/**
 * CPU time of every process of a benchmark: our own, and the replicas' by `/proc/PID/stat` when they run on this machine, else
 * by `process_cpu_seconds_total` of their `/metrics`.
 */
import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import type { ClusterFile } from "../../protocol/cluster.ts";
import { adminUrl, askReplicas, httpGet, type Member } from "../replica-status.ts";

/** Linux counts CPU time for /proc in hundredths of a second on every architecture Node runs on. */
const TICK_US = 10_000;
const METRICS_TIMEOUT_MS = 2_000;

/** CPU time in microseconds; null for a replica that tells nothing. */
export interface CpuSnapshot {
  readonly clientUs: number;
  readonly replicasUs: ReadonlyMap<number, number | null>;
}

export class CpuMeter {
  readonly #members: readonly Member[];
  readonly #pids: ReadonlyMap<number, number>;

  private constructor(members: readonly Member[], pids: ReadonlyMap<number, number>) {
    this.#members = members;
    this.#pids = pids;
  }

  static async open(file: ClusterFile): Promise<CpuMeter> {
    const pids = new Map<number, number>();
    for (const { replica, host, status } of await askReplicas(file, METRICS_TIMEOUT_MS)) {
      if (status?.pid !== undefined && isLocal(host) && procCpuUs(status.pid) !== null) pids.set(replica, status.pid);
    }
    return new CpuMeter(file.members, pids);
  }

  async read(): Promise<CpuSnapshot> {
    const { user, system } = process.cpuUsage();
    const replicasUs = await Promise.all(
      this.#members.map(async (member): Promise<[number, number | null]> => {
        const pid = this.#pids.get(member.id);
        return [member.id, pid === undefined ? await metricsCpuUs(member) : procCpuUs(pid)];
      }),
    );
    return { clientUs: user + system, replicasUs: new Map(replicasUs) };
  }
}

function isLocal(host: string): boolean {
  if (host === "localhost" || host === "::1" || host.startsWith("127.")) return true;
  return Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ address }) => address === host));
}

function procCpuUs(pid: number): number | null {
  try {
    return cpuUsOfStat(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return null;
  }
}

/** utime + stime of a `/proc/PID/stat` line; the command's name in it may hold spaces and parentheses. */
export function cpuUsOfStat(stat: string): number | null {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = Number(fields[11]) + Number(fields[12]);
  return Number.isFinite(ticks) ? ticks * TICK_US : null;
}

async function metricsCpuUs(member: Member): Promise<number | null> {
  const answer = await httpGet(adminUrl(member, "/metrics"), METRICS_TIMEOUT_MS);
  return answer.problem === null ? cpuUsOfMetrics(answer.text) : null;
}

export function cpuUsOfMetrics(text: string): number | null {
  const match = /^process_cpu_seconds_total(?:\{[^}]*\})? (\S+)/m.exec(text);
  const seconds = Number(match?.[1] ?? Number.NaN);
  return Number.isFinite(seconds) ? Math.round(seconds * 1e6) : null;
}

/** CPU used between snapshots, added up over several stretches. */
export class CpuTotal {
  clientUs = 0;
  readonly replicasUs = new Map<number, number | null>();

  add(before: CpuSnapshot, after: CpuSnapshot): void {
    this.clientUs += after.clientUs - before.clientUs;
    for (const [replica, end] of after.replicasUs) {
      const start = before.replicasUs.get(replica) ?? null;
      const sum = this.replicasUs.has(replica) ? (this.replicasUs.get(replica) ?? null) : 0;
      this.replicasUs.set(replica, end === null || start === null || sum === null ? null : sum + end - start);
    }
  }
}
