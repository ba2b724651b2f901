/** `kv status`: what each replica says about itself. It is their word, unproven; reads and writes never rely on it. */
import { Command } from "commander";
import { EXIT, type ExitCode } from "../exit.ts";
import { chooseCluster, globalsOf, helpTail, requireFormat } from "../globals.ts";
import { type Io, writeOut } from "../io.ts";
import type { ReplicaStatus, StatusAnswer } from "../replica-status.ts";
import { printableText, tableText } from "../text.ts";
import { sizesOf } from "./init.ts";

const STATUS_TIMEOUT_MS = 2_000;

export interface ClusterStatus {
  readonly n: number;
  readonly f: number;
  readonly quorum: number;
  readonly reachable: number;
  readonly replicas: readonly StatusAnswer[];
}

export function statusCommand(io: Io, end: (code: ExitCode) => void): Command {
  return new Command("status")
    .description("show what each replica says about itself")
    .addHelpText(
      "after",
      helpTail({
        notes:
          "Exit code 3 when fewer than a quorum of replicas answer. LAG is how many instances a replica has executed\n" +
          "fewer than the furthest one. --timeout is per replica, 2s unless given.",
        json:
          '{"n":4,"f":1,"quorum":3,"reachable":4,"replicas":[{"replica":0,"reachable":true,"view":0,"regency":0,' +
          '"leader":0,"decided":12,"executed":12,"revision":"40","lag":0,"state":"ready","historyDigest":"…"}]}; ' +
          'for a replica that does not answer {"replica":1,"reachable":false,"state":"not running"}',
        examples: ["kv status", "kv status -o json", "kv status --timeout 500ms"],
      }),
    )
    .action(async (_options: object, command: Command) => {
      const globals = globalsOf(command);
      const format = requireFormat(globals, ["simple", "table", "json"]);
      const { file } = chooseCluster(globals, io);
      const { askReplicas } = await import("../replica-status.ts");
      const replicas = await askReplicas(file, globals.timeout ?? STATUS_TIMEOUT_MS);
      const reachable = replicas.filter(({ status }) => status !== null).length;
      const cluster: ClusterStatus = { ...sizesOf(file), reachable, replicas };
      await writeOut(io, format === "json" ? statusJson(cluster) : statusTable(cluster));
      if (reachable >= cluster.quorum) return;
      io.stderr.write(`kv: no quorum: ${reachable} of ${cluster.n} replicas answer, ${cluster.quorum} are needed\n`);
      end(EXIT.UNAVAILABLE);
    });
}

function furthest(cluster: ClusterStatus): number {
  return Math.max(0, ...cluster.replicas.map(({ status }) => status?.executed ?? 0));
}

function stateOf(status: ReplicaStatus, lag: number): string {
  return printableText(status.state ?? (lag === 0 ? "ready" : "behind"));
}

export function statusTable(cluster: ClusterStatus): string {
  const { n, f, quorum, reachable } = cluster;
  const top = furthest(cluster);
  const rows = cluster.replicas.map(({ replica, status, problem }) => {
    if (!status) return [String(replica), "no", "-", "-", "-", "-", "-", "-", "-", printableText(problem ?? "")];
    const { view, regency, leader, decided, executed, revision } = status;
    const lag = top - executed;
    const cells = [replica, "yes", view, regency, leader, decided, executed, revision, lag, stateOf(status, lag)];
    return cells.map(String);
  });
  const header = "REPLICA,REACHABLE,VIEW,REGENCY,LEADER,DECIDED,EXECUTED,REVISION,LAG,STATE".split(",");
  return `n=${n} f=${f} quorum=${quorum} reachable=${reachable}\n${tableText(header, rows)}`;
}

export function statusJson(cluster: ClusterStatus): string {
  const top = furthest(cluster);
  const replicas = cluster.replicas.map(({ replica, status, problem }) => {
    if (!status) return { replica, reachable: false, state: problem };
    const { view, regency, leader, decided, executed, revision, historyDigest } = status;
    const lag = top - executed;
    const where = { view, regency, leader, decided, executed, revision, lag };
    return { replica, reachable: true, ...where, state: stateOf(status, lag), historyDigest };
  });
  return `${JSON.stringify({ ...cluster, replicas })}\n`;
}
