/** The status of a cluster as people and scripts read it; what replicas say about themselves is contained, never trusted. */
import type { Mode } from "../protocol/view.ts";
import { formatBytes } from "./byte-size.ts";
import { formatDurationMs } from "./duration.ts";
import type { RecoveryStatus, ReplicaStatus, StatusAnswer } from "./replica-status.ts";
import { printableText, tableText } from "./text.ts";

export interface ClusterStatus {
  readonly mode: Mode;
  readonly n: number;
  readonly f: number;
  readonly quorum: number;
  /** Instances in a leader's turn; 0: one leads until it fails. */
  readonly rotation: number;
  readonly reachable: number;
  readonly replicas: readonly StatusAnswer[];
}

const COLUMNS = [
  "REPLICA",
  "REACHABLE",
  "VIEW",
  "REGENCY",
  "LEADER",
  "DECIDED",
  "EXECUTED",
  "REVISION",
  "LAG",
  "STATE",
];
/** With -o table. */
const WIDE_COLUMNS = ["CHECKPOINT", "LOG", "DISK"];

function furthest(cluster: ClusterStatus): number {
  return Math.max(0, ...cluster.replicas.map(({ status }) => status?.executed ?? 0));
}

function shareOf({ bytes, bytesTotal }: RecoveryStatus): number {
  return bytesTotal > 0 ? Math.min(100, Math.floor((100 * bytes) / bytesTotal)) : 0;
}

function stateOf(status: ReplicaStatus, lag: number): string {
  return printableText(status.state ?? (lag === 0 ? "ready" : "behind"));
}

/** STATE of the table: while a replica recovers, how far it is. */
function stateCell(status: ReplicaStatus, lag: number): string {
  const state = stateOf(status, lag);
  return status.recovery ? `${state} ${shareOf(status.recovery)}%` : state;
}

/** Mode and fault model, as the cluster was founded with. */
export function modeText({ mode, rotation }: Pick<ClusterStatus, "mode" | "rotation">): string {
  return `mode=${mode}${rotation > 0 ? ` fault-model=malicious rotation=${rotation}` : ""}`;
}

export function statusTable(cluster: ClusterStatus, options: { wide?: boolean; nowMs?: number } = {}): string {
  const { n, f, quorum, reachable } = cluster;
  const { wide = false, nowMs = Date.now() } = options;
  const top = furthest(cluster);
  const header = wide ? [...COLUMNS.slice(0, -1), ...WIDE_COLUMNS, "STATE"] : COLUMNS;
  const rows = cluster.replicas.map(({ replica, status, problem }) => {
    if (!status) return [String(replica), "no", ...header.slice(3).map(() => "-"), printableText(problem ?? "")];
    const { view, regency, leader, decided, executed, revision } = status;
    const lag = top - executed;
    const cells = [replica, "yes", view, regency, leader, decided, executed, revision, lag];
    return [...cells, ...(wide ? wideCells(status) : []), stateCell(status, lag)].map(String);
  });
  const sizes = `n=${n} f=${f} quorum=${quorum} reachable=${reachable} ${modeText(cluster)}`;
  const below = [...turnLines(cluster), ...recoveryLines(cluster), ...alarmLines(cluster, nowMs)].map(
    (line) => `${line}\n`,
  );
  return `${sizes}\n${tableText(header, rows)}${below.join("")}`;
}

function wideCells({ checkpoints, log, disk }: ReplicaStatus): string[] {
  const newest = checkpoints?.newest;
  const computing = checkpoints?.computing ? "+" : "";
  return [
    newest ? `${newest.instance}${computing}` : checkpoints?.computing ? "computing" : "-",
    log ? `${log.first}-${log.last}` : "-",
    disk ? `${formatBytes(bytesOnDisk(disk))}${disk.low ? " low" : ""}` : "-",
  ];
}

/** What was set aside fills a disk like everything else. */
function bytesOnDisk({
  journalBytes,
  stateBytes,
  stagingBytes = 0,
  asideBytes = 0,
}: NonNullable<ReplicaStatus["disk"]>): number {
  return journalBytes + stateBytes + stagingBytes + asideBytes;
}

/** Where leaders take turns: who leads the furthest replica, how far, and who is on probation there. */
function turnLines({ rotation, replicas }: ClusterStatus): string[] {
  const furthest = replicas.map(({ status }) => status).sort((a, b) => (b?.decided ?? 0) - (a?.decided ?? 0))[0];
  if (rotation === 0 || !furthest) return [];
  const { leader, decided, onProbation = [] } = furthest;
  const last = (Math.floor((decided + 1) / rotation) + 1) * rotation - 1;
  const failed = onProbation.length > 0 ? `; on probation: ${onProbation.join(",")}` : "";
  return [`replica ${leader} leads up to instance ${last}${failed}`];
}

/** A line per replica that recovers: phase, bytes of total, rate, time left, donor, sources. */
export function recoveryLines(cluster: ClusterStatus): string[] {
  return cluster.replicas.flatMap(({ replica, status }) =>
    status?.recovery ? [`replica ${replica}: ${recoveryText(status.recovery)}`] : [],
  );
}

export function recoveryText(recovery: RecoveryStatus): string {
  const { phase, bytes, bytesTotal, bytesPerSecond, secondsLeft, donor, sources, instance } = recovery;
  const parts = [printableText(phase)];
  if (bytesTotal > 0) parts.push(`${shareOf(recovery)}%`, `${formatBytes(bytes)} of ${formatBytes(bytesTotal)}`);
  if (bytesPerSecond > 0) parts.push(`${formatBytes(bytesPerSecond)}/s`);
  if (secondsLeft !== null) parts.push(`${formatDurationMs(secondsLeft * 1_000)} left`);
  if (instance > 0) parts.push(`instance ${instance}`);
  if (donor !== null) parts.push(`checkpoint from ${donor}`);
  if (sources.length > 0) parts.push(`log from ${sources.join(",")}`);
  return parts.join(" · ");
}

function alarmLines(cluster: ClusterStatus, nowMs: number): string[] {
  return cluster.replicas.flatMap(({ replica, status }) =>
    (status?.alarms ?? []).map(({ code, detail, sinceMs }) => {
      const since = formatDurationMs(Math.max(0, nowMs - sinceMs));
      return `replica ${replica}: ALARM ${printableText(code)}: ${printableText(detail)} (for ${since})`;
    }),
  );
}

/** For a log: a line per replica, each with what it can be found by. */
export function statusLines(cluster: ClusterStatus, nowMs: number): string {
  const top = furthest(cluster);
  const time = new Date(nowMs).toISOString();
  const lines = cluster.replicas.map(({ replica, status, problem }) => {
    if (!status) return `replica ${replica}: ${printableText(problem ?? "")}`;
    const lag = top - status.executed;
    const progress = status.recovery ? ` · ${recoveryText(status.recovery)}` : "";
    return `replica ${replica}: ${stateOf(status, lag)} · executed ${status.executed} · lag ${lag}${progress}`;
  });
  return [...lines, ...alarmLines(cluster, nowMs)].map((line) => `${time} ${line}\n`).join("");
}

export function statusJson(cluster: ClusterStatus): string {
  const top = furthest(cluster);
  const replicas = cluster.replicas.map(({ replica, status, problem }) => {
    if (!status) return { replica, reachable: false, state: problem };
    const { view, regency, leader, onProbation, decided, executed, revision, historyDigest } = status;
    const { recovery, alarms, checkpoints, log, disk } = status;
    const lag = top - executed;
    const where = { view, regency, leader, onProbation, decided, executed, revision, lag };
    const more = { recovery, alarms, checkpoints, log, disk };
    return { replica, reachable: true, ...where, state: stateOf(status, lag), historyDigest, ...more };
  });
  return `${JSON.stringify({ ...cluster, replicas })}\n`;
}
