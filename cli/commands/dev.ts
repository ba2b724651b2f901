/**
 * `kv dev`: a whole cluster on this machine, one kv-server process per member of the newest view known beside its cluster file.
 * It restarts none: a killed replica stays down until the next start, so that one can see what the cluster does without it.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import { QuorateError } from "../../protocol/errors.ts";
import type { Member, View } from "../../protocol/view.ts";
import { CommandExit, EXIT } from "../exit.ts";
import { chooseCluster, globalsOf, helpTail, requireFormat } from "../globals.ts";
import { type Io, writeOut } from "../io.ts";
import { addressesOf, firstTaken } from "../local/ports.ts";
import {
  exitText,
  isExit,
  lastLogMessage,
  type ReplicaExit,
  type ReplicaProcess,
  startReplica,
} from "../local/replica-process.ts";
import { knownView } from "../session.ts";
import { addClusterOptions, createCluster, type InitOptions, sizesText, toleranceWarning } from "./init.ts";

type DevOptions = Pick<InitOptions, "replicas" | "mode" | "dir" | "basePort" | "faultModel" | "rotation">;

export function devCommand(io: Io): Command {
  return addClusterOptions(new Command("dev").description("run a whole cluster on this machine until Ctrl-C"))
    .addHelpText(
      "after",
      helpTail({
        notes:
          "Creates the directory as kv init does when it is missing; an existing one keeps its data, and no option\n" +
          "changes what it is. Runs the members of the newest view that kv has followed, as far as DIR/replica-N holds them.\n" +
          "Logs go to DIR/replica-N/server.log. Ctrl-C stops every replica.",
        examples: ["kv dev", "kv dev --mode cft --dir three", "kv dev --replicas 7 --dir seven --base-port 7200"],
      }),
    )
    .action(async (options: DevOptions, command: Command) => {
      requireFormat(globalsOf(command), ["simple"]);
      const view = await existingOrNew(options, io, command);
      const { here, elsewhere } = membersIn(options.dir, view);
      for (const { id, host, clientPort } of elsewhere) {
        const missing = join(options.dir, `replica-${id}`, "node.yaml");
        await writeOut(io, `replica ${id}  not started: ${missing} does not exist (it is at ${host}:${clientPort})\n`);
      }
      await refuseTakenPorts(here);
      await runCluster({ view, members: here, directory: options.dir, io });
    });
}

/** Which members have their folder in this directory, and which have not. */
export function membersIn(directory: string, { members }: View): { here: Member[]; elsewhere: Member[] } {
  const isHere = ({ id }: Member): boolean => existsSync(join(directory, `replica-${id}`, "node.yaml"));
  return { here: members.filter(isHere), elsewhere: members.filter((member) => !isHere(member)) };
}

/** The newest view known of the cluster in the directory. */
async function existingOrNew(options: DevOptions, io: Io, command: Command): Promise<View> {
  const isNew = !existsSync(options.dir);
  if (isNew) {
    await writeOut(io, `creating ${options.dir}\n`);
    await createCluster({ ...options, host: "127.0.0.1", clients: "open" });
  }
  const choice = chooseCluster({ output: "simple", cluster: join(options.dir, "cluster.json") }, io);
  const view = await knownView(choice);
  if (!isNew) refuseOther(view, options, command);
  return view;
}

/** @throws QuorateError DIRECTORY_EXISTS when the options ask for another cluster than the one that is there */
function refuseOther(view: View, options: DevOptions, command: Command): void {
  const asked = options.replicas ?? view.n;
  if (asked !== view.n) {
    const why = `${options.dir} holds a cluster of ${view.n} replicas, not ${asked}`;
    throw new QuorateError("DIRECTORY_EXISTS", `${why}; name another with --dir`);
  }
  if (command.getOptionValueSource("mode") === "cli" && options.mode !== view.mode) {
    const why = `${options.dir} holds a cluster in ${view.mode} mode, not ${options.mode}`;
    throw new QuorateError("DIRECTORY_EXISTS", `${why}; name another with --dir`);
  }
  const { faultModel } = view;
  if (command.getOptionValueSource("faultModel") === "cli" && options.faultModel !== faultModel) {
    const why = `${options.dir} holds a cluster of the ${faultModel} fault model`;
    throw new QuorateError("DIRECTORY_EXISTS", `${why}; name another with --dir`);
  }
}

/** @throws QuorateError PORT_IN_USE */
async function refuseTakenPorts(members: readonly Member[]): Promise<void> {
  const taken = await firstTaken(addressesOf({ members }));
  if (!taken) return;
  const { host, port, code } = taken;
  if (code !== "EADDRINUSE") {
    throw new QuorateError(
      "CONFIG_INVALID",
      `cannot listen on ${host}:${port} (${code}); kv dev runs every replica here`,
    );
  }
  const todo = "stop what runs there (another kv dev?), or start a new cluster with --dir DIR --base-port PORT";
  throw new QuorateError("PORT_IN_USE", `port ${port} of ${host} is in use; ${todo}`, { host, port });
}

async function runCluster(options: {
  view: View;
  members: readonly Member[];
  directory: string;
  io: Io;
}): Promise<void> {
  const { view, members, directory, io } = options;
  const running = new Map<number, ReplicaProcess>();
  let stopping = false;
  const asked = stopRequest();
  try {
    for (const { id } of members) {
      const home = join(directory, `replica-${id}`);
      const log = join(home, "server.log");
      const replica = startReplica({ config: join(home, "node.yaml"), log });
      running.set(id, replica);
      void replica.exited.then(async (exit) => {
        running.delete(id);
        const retired = await replica.retired;
        if (!stopping) io.stdout.write(retired ? retiredText(id) : downText(id, exit, log));
      });
    }
    const started = Promise.all(
      [...running].map(async ([id, replica]) => {
        const outcome = await replica.ready;
        if (isExit(outcome)) return false;
        if (!stopping) io.stdout.write(readyText(id, replica, outcome));
        return true;
      }),
    );
    const ready = await Promise.race([started, asked.signal]);
    if (typeof ready === "object" && !ready.includes(true)) {
      throw new CommandExit(
        EXIT.USAGE,
        `no replica started; the lines above and ${directory}/replica-N/server.log say why`,
      );
    }
    if (typeof ready === "object") io.stdout.write(usageText(directory, view));
    await Promise.race([asked.signal, everyoneExited(running)]);
    if (running.size === 0 && !asked.wasAsked()) throw new CommandExit(EXIT.UNAVAILABLE, "every replica ended");
  } finally {
    stopping = true;
    if (running.size > 0) io.stdout.write("stopping\n");
    await Promise.all([...running.values()].map((replica) => replica.stop()));
    asked.release();
  }
}

function retiredText(id: number): string {
  return `replica ${id}  retired: it is no member any more, and its secret keys are erased\n`;
}

function downText(id: number, exit: ReplicaExit, log: string): string {
  const said = exit.signal === null ? lastLogMessage(log) : null;
  return `replica ${id}  down: ${exitText(exit)}${said === null ? "" : `: ${said}`} (log: ${log})\n`;
}

function readyText(id: number, replica: ReplicaProcess, readyLine: string): string {
  const address = /clients=(\S+)/.exec(readyLine)?.[1] ?? "";
  return `replica ${id}  ready  pid ${replica.pid}  ${address}\n`;
}

async function everyoneExited(running: ReadonlyMap<number, ReplicaProcess>): Promise<void> {
  await Promise.all([...running.values()].map((replica) => replica.exited));
}

/** Resolves on the first SIGINT, SIGTERM or SIGHUP; later ones are swallowed while the replicas stop. */
function stopRequest(): { signal: Promise<"asked">; wasAsked: () => boolean; release: () => void } {
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  let asked = false;
  let onSignal = (): void => {};
  const signal = new Promise<"asked">((resolve) => {
    onSignal = () => {
      asked = true;
      resolve("asked");
    };
  });
  for (const name of signals) process.on(name, onSignal);
  const release = (): void => {
    for (const name of signals) process.off(name, onSignal);
  };
  return { signal, wasAsked: () => asked, release };
}

function usageText(directory: string, view: View): string {
  const cluster = directory === ".kv" ? "" : ` --cluster ${join(directory, "cluster.json")}`;
  return [
    "",
    `${sizesText(view)}. In another terminal:`,
    `  npx kv put greeting hello${cluster}`,
    `  npx kv get greeting${cluster}`,
    `  npx kv status${cluster}`,
    "Ctrl-C stops all replicas.",
    ...(view.f === 0 ? [toleranceWarning(view)] : []),
    "",
  ].join("\n");
}
