/**
 * `kv recover`: on the machine of a replica whose data is damaged or doubtful, sets it aside and has the replica fetch
 * everything from the others. Meanwhile that replica does not vote: it counts among the f.
 */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline/promises";
import { setTimeout as pause } from "node:timers/promises";
import { Command, Option } from "commander";
import type { View } from "../../protocol/view.ts";
import type { ViewChain } from "../../protocol/view-chain.ts";
import { loadServerConfig, type ServerConfig } from "../../server/config.ts";
import { listenAt } from "../../server/listen-at.ts";
import { CommandExit, EXIT, usageError } from "../exit.ts";
import { type ClusterChoice, chooseCluster, globalsOf, helpTail, namedCluster, requireFormat } from "../globals.ts";
import { type Io, writeOut } from "../io.ts";
import { refuseLocked, type SetAside, setStoresAside, storesIn } from "../local/set-aside.ts";
import { integerIn } from "../numbers.ts";
import { lineOn } from "../progress.ts";
import { type AdminAddress, askReplica, type ReplicaStatus } from "../replica-status.ts";
import { knownChain } from "../session.ts";
import { recoveryText } from "../status-text.ts";
import { printableText } from "../text.ts";

const STATUS_TIMEOUT_MS = 1_000;
const ASK_MS = 500;
const VOTING = "voting";
/** Bound to every interface, asked on this machine. */
const ANY_HOST: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };

interface RecoverOptions {
  readonly replica: number;
  readonly config?: string;
  readonly yes?: true;
  readonly force?: true;
  readonly wait?: true;
}

export function recoverCommand(io: Io): Command {
  return new Command("recover")
    .description("set the data of a stopped replica aside, so that it fetches everything from the others")
    .addOption(
      new Option("--replica <id>", "which replica; its data is on this machine")
        .argParser(integerIn({ min: 0, max: 65_535 }))
        .makeOptionMandatory(),
    )
    .option("--config <file>", "its node.yaml (default: replica-N/node.yaml beside the cluster file)")
    .option("--yes", "do not ask")
    .option("--force", "with --yes: also when the others are known to be no quorum without it")
    .option("--wait", "then wait until the replica, once started, votes again")
    .addHelpText(
      "after",
      helpTail({
        notes:
          "Stop the replica first. Its journal, state and staging move to aside/recover-N in its data directory; nothing is\n" +
          "deleted. The next start of kv-server fetches state and log from the others and proves them. Do this to one replica\n" +
          "at a time: until it votes again it counts among the f. The others are asked first whether they are a quorum without\n" +
          "it: --yes refuses when they say that they are not (exit code 3), and warns when admin ports cannot be reached to\n" +
          "tell. --wait waits for ever unless --timeout is given (then exit code 3).",
        json: '{"replica":3,"dataDir","aside":"…/aside/recover-1","moved":["journal","state"]}',
        examples: [
          "kv recover --replica 3",
          "kv recover --replica 3 --yes --wait --timeout 1h",
          "kv recover --replica 3 --config /etc/quorate/node.yaml",
        ],
      }),
    )
    .action(async (options: RecoverOptions, command: Command) => {
      const globals = globalsOf(command);
      const format = requireFormat(globals, ["simple", "json"]);
      const chosen = options.config === undefined ? chooseCluster(globals, io) : namedCluster(globals, io);
      const file = options.config ?? join(dirname(chosen?.path ?? ""), `replica-${options.replica}`, "node.yaml");
      const config = loadServerConfig(file, { env: io.env });
      if (config.replica !== options.replica) {
        throw usageError(`${file} is of replica ${config.replica}, not of replica ${options.replica}`);
      }
      const chain = await newestChain(config, chosen);
      const admin = adminOf(config, chain);
      await refuseRunning(config, admin);
      if (storesIn(config.dataDir).length === 0) {
        throw usageError(`${config.dataDir} holds no data; start kv-server --config ${file}: it fetches everything`);
      }
      const shortage = await shortageWithout(config, chain.newest);
      if (shortage) warnOrRefuse(io, shortage, options);
      await confirm(io, config, { yes: options.yes === true, short: shortage !== null });
      // It may have been started while the question stood there.
      await refuseRunning(config, admin);
      const aside = setStoresAside(config.dataDir);
      const { replica, dataDir } = config;
      const text =
        format === "json"
          ? `${JSON.stringify({ replica, dataDir, aside: aside.path, moved: aside.moved })}\n`
          : asideText(config, aside);
      await writeOut(io, text);
      if (options.wait) await untilVoting(io, { config, admin, waitMs: globals.timeout ?? Number.POSITIVE_INFINITY });
    });
}

/** The views that `kv` has followed, from the cluster file of the replica on or from the one that was named: whichever leads further. */
async function newestChain(config: ServerConfig, named: ClusterChoice | null): Promise<ViewChain> {
  const own = await knownChain({ path: config.clusterPath, file: config.clusterFile });
  if (named?.file.clusterId !== config.clusterFile.clusterId) return own;
  const other = await knownChain(named);
  return other.newest.id > own.newest.id ? other : own;
}

/** Where its admin port listens on this machine, as far as the views are known that `kv` has followed. */
function adminOf(config: ServerConfig, chain: ViewChain): AdminAddress {
  const { adminHost, adminPort } = listenAt(config, chain, chain.newest);
  return { id: config.replica, host: ANY_HOST[adminHost] ?? adminHost, adminPort };
}

function asking({ clusterFile: { clusterId } }: ServerConfig): { clusterId: string; timeoutMs: number } {
  return { clusterId, timeoutMs: STATUS_TIMEOUT_MS };
}

/** @throws CommandExit, QuorateError STORAGE_LOCKED */
async function refuseRunning(config: ServerConfig, admin: AdminAddress): Promise<void> {
  const { status } = await askReplica(admin, asking(config));
  if (status) {
    const pid = status.pid === undefined ? "" : ` (pid ${status.pid})`;
    throw usageError(`replica ${config.replica} is running${pid}; stop it first, then run this again`);
  }
  if (!existsSync(config.dataDir))
    throw usageError(`the data directory ${config.dataDir} does not exist; look at dataDir`);
  await refuseLocked(config.dataDir);
}

/** Why the other members may be no quorum while this replica does not vote. */
interface Shortage {
  readonly text: string;
  /**
   * They are none even if everybody votes whose admin port was not reached: it may listen on its own machine alone. Or nobody here knows who
   * they are.
   */
  readonly certain: boolean;
  readonly remedy: string;
}

/** Null when a quorum of the others votes, as they say themselves. */
async function shortageWithout(config: ServerConfig, { id: view, members, quorum }: View): Promise<Shortage | null> {
  const others = members.filter(({ id }) => id !== config.replica);
  const answers = await Promise.all(others.map((member) => askReplica(member, asking(config))));
  const newest = Math.max(...answers.map(({ status }) => status?.view ?? 0));
  if (newest > view) {
    const text = `the others are in view ${newest}, and only view ${view} is known here: it cannot be told whether they are a quorum without replica ${config.replica}`;
    return { text, certain: true, remedy: "name a cluster file with its .views beside it (--cluster)" };
  }
  const idle = answers.filter(({ status }) => status?.state !== VOTING);
  const voting = answers.length - idle.length;
  if (voting >= quorum) return null;
  const unheard = idle.filter(({ status }) => status === null).length;
  const certain = voting + unheard < quorum;
  const claim = certain ? "the others are no quorum" : "it cannot be told from here whether the others are a quorum";
  const said = idle.map(
    ({ replica, status, problem }) => `replica ${replica}: ${status?.state ?? problem ?? "running"}`,
  );
  const list = said.length === 0 ? "" : ` (${printableText(said.join(", "))})`;
  const text = `${claim} without replica ${config.replica}: ${voting} of ${others.length} vote, ${quorum} are needed${list}`;
  return { text, certain, remedy: "bring them back first" };
}

/** Nobody reads a warning where nobody is asked. @throws CommandExit */
function warnOrRefuse(io: Io, { text, certain, remedy }: Shortage, { yes, force }: RecoverOptions): void {
  if (certain && yes && !force) throw new CommandExit(EXIT.UNAVAILABLE, `${text}; ${remedy}, or add --force`);
  io.stderr.write(`kv: warning: ${text}\n`);
}

/** @throws CommandExit unless the answer is yes */
async function confirm(io: Io, config: ServerConfig, { yes, short }: { yes: boolean; short: boolean }): Promise<void> {
  if (yes) return;
  if (!io.stdin.isTTY)
    throw usageError("there is no terminal to ask on; add --yes to set the data aside without asking");
  const question = createInterface({ input: io.stdin, output: io.stderr });
  try {
    const anyway = short ? " all the same" : "";
    const what = `Set the data of replica ${config.replica} in ${config.dataDir} aside and fetch everything anew${anyway}? (y/N) `;
    const answer = (await question.question(what)).trim().toLowerCase();
    if (answer !== "y" && answer !== "yes") throw new CommandExit(EXIT.USAGE, "nothing was changed");
  } finally {
    question.close();
  }
}

function asideText({ replica, file }: ServerConfig, { path, moved }: SetAside): string {
  return [
    `replica ${replica}: ${moved.join(", ")} moved to ${path}`,
    "start it now; it fetches everything from the others (kv status --watch shows how far it is):",
    `  kv-server --config ${file}`,
    "when it votes again and nothing in the old data is needed:",
    `  rm -r ${path}`,
    "",
  ].join("\n");
}

/** @throws CommandExit when `waitMs` have passed */
async function untilVoting(
  io: Io,
  { config, admin, waitMs }: { config: ServerConfig; admin: AdminAddress; waitMs: number },
): Promise<void> {
  const untilMs = performance.now() + waitMs;
  const line = lineOn(io);
  try {
    for (;;) {
      const { status, problem } = await askReplica(admin, asking(config));
      if (status?.state === VOTING) break;
      const text = status ? progressOf(status) : `waiting for replica ${admin.id}: ${problem}`;
      line.draw(() => text);
      if (performance.now() >= untilMs) {
        throw new CommandExit(EXIT.UNAVAILABLE, `replica ${admin.id} does not vote yet: ${text}`);
      }
      await pause(ASK_MS);
    }
  } finally {
    line.erase();
  }
  io.stderr.write(`kv: replica ${admin.id} votes again\n`);
}

function progressOf(status: ReplicaStatus): string {
  return status.recovery ? recoveryText(status.recovery) : printableText(status.state ?? "running");
}
