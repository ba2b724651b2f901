/** `kv status`: what each replica says about itself, once or again and again. Reads and writes never rely on it. */
import { setTimeout as pause } from "node:timers/promises";
import { Command, Option } from "commander";
import { hex } from "../../protocol/bytes.ts";
import type { ClusterFile } from "../../protocol/cluster.ts";
import type { View } from "../../protocol/view.ts";
import { parseDurationMs } from "../duration.ts";
import { EXIT, type ExitCode, usageError } from "../exit.ts";
import { chooseCluster, type Format, globalsOf, helpTail, requireFormat } from "../globals.ts";
import { type Io, writeOut } from "../io.ts";
import { integerIn } from "../numbers.ts";
import { knownView } from "../session.ts";
import { type ClusterStatus, statusJson, statusLines, statusTable } from "../status-text.ts";
import { sizesOf } from "./init.ts";

const STATUS_TIMEOUT_MS = 2_000;
const INTERVAL_MS = 1_000;
const INTERVAL_MS_MIN = 100;
/** Cursor to the corner, and everything behind it erased: no flicker. */
const REDRAW = "\x1b[H\x1b[J";

interface StatusOptions {
  readonly watch?: true;
  readonly interval?: number;
  readonly count?: number;
}

export function statusCommand(io: Io, end: (code: ExitCode) => void): Command {
  return new Command("status")
    .description("show what each replica says about itself")
    .option("--watch", "again and again until Ctrl-C: redrawn on a terminal, else a line per replica each time")
    .option("--interval <duration>", "between two looks, with --watch (default: 1s)", parseDurationMs)
    .addOption(
      new Option("--count <n>", "end after so many looks, with --watch").argParser(
        integerIn({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      ),
    )
    .addHelpText(
      "after",
      helpTail({
        notes:
          "Exit code 3 when fewer than a quorum of this cluster's replicas answer (with --watch: at the last look; 0 after Ctrl-C). LAG is how\n" +
          "many instances a replica has executed fewer than the furthest one. A replica that recovers has a line below the\n" +
          "table with its progress, and so has each alarm. -o table adds CHECKPOINT (the newest; + while another is being\n" +
          "taken), LOG (instances held) and DISK (all of the data directory). --timeout is per replica, 2s unless given.",
        json:
          '{"mode":"bft","n":4,"f":1,"quorum":3,"rotation":0,"reachable":4,"replicas":[{"replica":0,"reachable":true,"view":0,"regency":0,' +
          '"leader":0,"decided":12,"executed":12,"revision":"40","lag":0,"state":"voting","historyDigest":"…",' +
          '"recovery":null,"alarms":[],"checkpoints":{},"log":{},"disk":{}}]}, the last five as in /status where the replica\n' +
          'has them; for a replica that does not answer {"replica":1,"reachable":false,"state":"not running"}. With --watch a\n' +
          "line each time",
        examples: [
          "kv status",
          "kv status -o table",
          "kv status --watch",
          "kv status --watch --count 10 --interval 500ms -o json",
        ],
      }),
    )
    .action(async (options: StatusOptions, command: Command) => {
      const globals = globalsOf(command);
      const format = requireFormat(globals, ["simple", "table", "json"]);
      const choice = chooseCluster(globals, io);
      const file = inView(choice.file, await knownView(choice));
      const timeoutMs = globals.timeout ?? STATUS_TIMEOUT_MS;
      if (!options.watch) {
        refuseWatchOptions(options);
        const cluster = await look(file, timeoutMs);
        await writeOut(
          io,
          format === "json" ? statusJson(cluster) : statusTable(cluster, { wide: format === "table" }),
        );
        endWith(io, cluster, end);
        return;
      }
      const last = await watch(io, { file, timeoutMs, format, ...options });
      if (last) endWith(io, last, end);
    });
}

/** The members of the newest view that `kv` has followed, instead of the first one's. */
function inView(file: ClusterFile, { members, f }: View): ClusterFile {
  const shown = members.map((member) => ({ ...member, signKey: hex(member.signKey), boxKey: hex(member.boxKey) }));
  return { ...file, f, members: shown };
}

/** @throws CommandExit (usage) */
function refuseWatchOptions({ interval, count }: StatusOptions): void {
  if (interval !== undefined || count !== undefined) throw usageError("--interval and --count belong to --watch");
}

async function look(file: ClusterFile, timeoutMs: number): Promise<ClusterStatus> {
  const { askReplicas } = await import("../replica-status.ts");
  const replicas = await askReplicas(file, timeoutMs);
  const reachable = replicas.filter(({ status }) => status !== null).length;
  return { ...sizesOf(file), reachable, replicas };
}

function endWith(io: Io, { reachable, quorum, n }: ClusterStatus, end: (code: ExitCode) => void): void {
  if (reachable >= quorum) return;
  io.stderr.write(`kv: no quorum: ${reachable} of ${n} replicas answer, ${quorum} are needed\n`);
  end(EXIT.UNAVAILABLE);
}

/** The last look when `count` ended it, null when it was interrupted. */
async function watch(
  io: Io,
  options: StatusOptions & { file: ClusterFile; timeoutMs: number; format: Format },
): Promise<ClusterStatus | null> {
  const { file, timeoutMs, format, interval = INTERVAL_MS, count = Number.POSITIVE_INFINITY } = options;
  if (interval < INTERVAL_MS_MIN) throw usageError(`--interval must be at least ${INTERVAL_MS_MIN}ms`);
  const stop = new AbortController();
  const onSignal = (): void => stop.abort();
  const interrupted = aborted(stop.signal);
  process.once("SIGINT", onSignal).once("SIGTERM", onSignal);
  try {
    for (let seen = 1; ; seen++) {
      const cluster = await Promise.race([look(file, timeoutMs), interrupted]);
      if (!cluster) return null;
      await writeOut(io, shown(io, cluster, format));
      if (seen >= count) return cluster;
      await pause(interval, null, { signal: stop.signal }).catch(() => {});
      if (stop.signal.aborted) return null;
    }
  } finally {
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
  }
}

function aborted(signal: AbortSignal): Promise<null> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(null), { once: true }));
}

function shown(io: Io, cluster: ClusterStatus, format: Format): string {
  if (format === "json") return statusJson(cluster);
  const nowMs = Date.now();
  if (!io.stdout.isTTY) return statusLines(cluster, nowMs);
  return `${REDRAW}${statusTable(cluster, { wide: format === "table", nowMs })}`;
}
