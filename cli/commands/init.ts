/** `kv init`: the files of a new cluster. */
import { join } from "node:path";
import { Command, Option } from "commander";
import { hex } from "../../protocol/bytes.ts";
import { type ClusterFile, ORIGIN_REVISION_OFFSET, rotationOf } from "../../protocol/cluster.ts";
import { type FaultModel, type Mode, quorumOf, ROTATION_DEFAULT, ROTATION_MAX } from "../../protocol/view.ts";
import { usageError } from "../exit.ts";
import {
  chooseCluster,
  DEFAULT_DIRECTORY,
  type Globals,
  globalsOf,
  helpTail,
  namedCluster,
  requireFormat,
} from "../globals.ts";
import { type Io, writeOut } from "../io.ts";
import { placeIn } from "../local/member-place.ts";
import type { NewOrigin } from "../local/write-cluster.ts";
import { integerIn } from "../numbers.ts";
import { knownView } from "../session.ts";
import { modeText } from "../status-text.ts";

export interface InitOptions {
  /** By default the fewest that stand one fault. */
  readonly replicas?: number;
  readonly mode: Mode;
  readonly dir: string;
  readonly host: string;
  readonly basePort: number;
  readonly clients: "open" | "listed";
  readonly signedRequests?: true;
  readonly faultModel?: FaultModel;
  readonly rotation?: number;
  readonly fromSnapshot?: string;
}

/** The fewest replicas that stand one fault. */
const REPLICAS_DEFAULT: Readonly<Record<Mode, number>> = { bft: 4, cft: 3 };

interface InitCommandOptions extends InitOptions {
  readonly join?: true;
  readonly id?: number;
  readonly replaces?: number;
  readonly rotateKey?: string;
}

/** Options of a new cluster: what is prepared for one that is there has what that one has. */
const FOUNDING_OPTIONS = [
  "mode",
  "replicas",
  "faultModel",
  "rotation",
  "clients",
  "signedRequests",
  "fromSnapshot",
] as const;

/** The options of a new cluster, shared with `kv dev`. */
export function addClusterOptions(command: Command): Command {
  const number = (flags: string, text: string, range: { min: number; max: number }): Option =>
    new Option(flags, text).argParser(integerIn(range));
  return command
    .addOption(
      new Option("--mode <mode>", "bft: replicas may fail in any way, lies included; cft: they only crash")
        .choices(["bft", "cft"])
        .default("bft"),
    )
    .addOption(
      number("--replicas <n>", "how many; f faults take 3f+1 in bft, 2f+1 in cft (default: 4 in bft, 3 in cft)", {
        min: 1,
        max: 64,
      }),
    )
    .addOption(new Option("--dir <dir>", "directory to create").default(DEFAULT_DIRECTORY))
    .addOption(
      number("--base-port <port>", "replica N: clients at this + 10N, peers +1, admin +2", {
        min: 1,
        max: 65_533,
      }).default(7_000),
    )
    .addOption(
      new Option(
        "--fault-model <model>",
        "malicious: leaders take turns, slow or unfair ones are replaced, requests are signed",
      )
        .choices(["plain", "malicious"])
        .default("plain"),
    )
    .addOption(
      number("--rotation <k>", `instances in a leader's turn, in the malicious fault model (${ROTATION_DEFAULT})`, {
        min: 1,
        max: ROTATION_MAX,
      }),
    );
}

export function initCommand(io: Io): Command {
  return addClusterOptions(new Command("init").description("write the files of a new cluster"))
    .option("--host <hosts>", "host of every replica, or a comma-separated list of one per replica", "127.0.0.1")
    .addOption(
      new Option("--clients <who>", "open: anybody; listed: only the client.key written here")
        .choices(["open", "listed"])
        .default("open"),
    )
    .option("--signed-requests", "clients sign each request instead of authenticating it per replica")
    .option("--from-snapshot <file>", "begin with the entries of a file that kv snapshot save wrote")
    .option(
      "--join",
      "instead: the files of one more replica for the cluster of --cluster, to be added with kv view add",
    )
    .addOption(
      new Option(
        "--id <id>",
        "with --join: its id (default: the next that was never used, as far as is known here)",
      ).argParser(integerIn({ min: 0, max: 65_535 })),
    )
    .addOption(
      new Option(
        "--replaces <id>",
        "with --join: the member whose place it is to take with kv view replace; it may have that one's address",
      ).argParser(integerIn({ min: 0, max: 65_535 })),
    )
    .option(
      "--rotate-key <node.yaml>",
      "instead: the next keys of this replica, to be changed to with kv view rotate-key",
    )
    .addHelpText(
      "after",
      helpTail({
        notes:
          "Writes DIR/cluster.json (public), DIR/admin.key, DIR/client.key, and per replica DIR/replica-N/node.yaml,\n" +
          "replica.key and data. For several hosts, copy cluster.json and one replica-N directory to each.\n" +
          "--from-snapshot verifies the file first and copies it into every data directory; each kv-server verifies its copy at\n" +
          "its first start. Keys, values and revisions are kept, the store revision rises by 2^32, clients begin anew.\n" +
          "With --cluster (or $KV_CLUSTER) it must be a snapshot of that cluster; without, the cluster file inside it is\n" +
          "believed: compare the cluster id that is printed.\n" +
          "--join writes DIR/join.json (public), node.yaml, replica.key and data, for the host where it is run: start kv-server\n" +
          "there and give join.json to an administrator. --base-port is its own clients' port then. An id that was given before, and\n" +
          "ports of a member on the same host, are refused as far as --cluster and the views kept beside it tell.\n" +
          "--rotate-key writes rotate.json (public) and replica.key.next beside that node.yaml.",
        json:
          '{"directory","mode":"bft","replicas":4,"f":1,"quorum":3,"cluster":"DIR/cluster.json"}, with --from-snapshot also ' +
          '"origin":{"clusterId","root","instance","snapshot","revisionOffset"}. With --join {"directory","replica","join"}, with ' +
          '--rotate-key {"replica","keyFile","rotation"}',
        examples: [
          "kv init --replicas 4 --dir demo",
          "kv init --mode cft --replicas 3",
          "kv init --dir prod --host 10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4 --clients listed",
          "kv init --dir wary --fault-model malicious",
          "kv init --dir restored --from-snapshot backup.qsnap --cluster cluster.json",
          "kv init --join --cluster cluster.json --dir replica-4 --host 10.0.0.5 --base-port 7000",
          "kv init --rotate-key replica-2/node.yaml",
        ],
      }),
    )
    .action(async (options: InitCommandOptions, command: Command) => {
      const format = requireFormat(globalsOf(command), ["simple", "json"]);
      refuseMixed(options, command);
      if (options.join) return await prepareMember(io, { globals: globalsOf(command), options, format });
      if (options.rotateKey !== undefined) return await prepareKeys(io, options.rotateKey, format);
      const file = await createCluster(options, await originOf(io, options.fromSnapshot, globalsOf(command)));
      const sizes = sizesOf(file);
      const { mode, n, f, quorum } = sizes;
      if (format === "json") {
        const cluster = join(options.dir, "cluster.json");
        const { origin } = file;
        const created = { directory: options.dir, mode, replicas: n, f, quorum, cluster, origin };
        await writeOut(io, `${JSON.stringify(created)}\n`);
      } else {
        await writeOut(io, createdText(options.dir, sizes));
      }
      if (f === 0) io.stderr.write(`kv: warning: ${toleranceWarning(sizes)}\n`);
    });
}

/** Options of different uses together. @throws CommandExit (usage) */
function refuseMixed({ join, rotateKey, id, replaces }: InitCommandOptions, command: Command): void {
  if (join && rotateKey !== undefined) throw usageError("--join and --rotate-key exclude each other");
  if (id !== undefined && !join) throw usageError("--id belongs to --join");
  if (replaces !== undefined && !join) throw usageError("--replaces belongs to --join");
  if (!join && rotateKey === undefined) return;
  const founding = FOUNDING_OPTIONS.find((name) => command.getOptionValueSource(name) === "cli");
  if (founding === undefined) return;
  const flag = command.options.find((option) => option.attributeName() === founding)?.long ?? founding;
  const other = join ? "--join" : "--rotate-key";
  throw usageError(`${flag} is of a new cluster, and ${other} prepares for one that is there; leave one of them out`);
}

/** @throws QuorateError CONFIG_MISSING, CONFIG_INVALID, DIRECTORY_EXISTS, INVALID_ARGUMENT; CommandExit (usage) */
async function prepareMember(
  io: Io,
  { globals, options, format }: { globals: Globals; options: InitCommandOptions; format: "simple" | "json" },
): Promise<void> {
  const { writeMember, JOIN_FILE } = await import("../local/write-member.ts");
  const choice = chooseCluster(globals, io);
  const { dir, host, basePort, replaces } = options;
  const address = { host, clientPort: basePort, peerPort: basePort + 1, adminPort: basePort + 2 };
  const id = placeIn(await knownView(choice), { id: options.id, address, replaces });
  await writeMember({ directory: dir, clusterFile: choice.file, id, address });
  const file = join(dir, JOIN_FILE);
  if (format === "json") return await writeOut(io, `${JSON.stringify({ directory: dir, replica: id, join: file })}\n`);
  const change = replaces === undefined ? "add" : `replace ${replaces}`;
  const steps = [
    `  kv-server --config ${dir}/node.yaml`,
    "then, as an administrator:",
    `  kv view ${change} ${file}`,
    "",
  ];
  await writeOut(io, [`created ${dir}: replica ${id} at ${host}:${basePort}`, "start it here:", ...steps].join("\n"));
}

/** @throws QuorateError CONFIG_MISSING, CONFIG_INVALID, INVALID_ARGUMENT */
async function prepareKeys(io: Io, nodeFile: string, format: "simple" | "json"): Promise<void> {
  const { writeNextKeys } = await import("../local/write-member.ts");
  const { replica, keyFile, rotationFile } = writeNextKeys(nodeFile);
  if (format === "json") {
    return await writeOut(io, `${JSON.stringify({ replica, keyFile, rotation: rotationFile })}\n`);
  }
  const steps = ["then, as an administrator:", `  kv view rotate-key ${rotationFile}`, ""];
  await writeOut(io, [`created ${keyFile}: the next keys of replica ${replica}`, ...steps].join("\n"));
}

/** @throws QuorateError SNAPSHOT_INVALID, also when it is not of the cluster that was named; CONFIG_MISSING, CONFIG_INVALID */
async function originOf(io: Io, file: string | undefined, globals: Globals): Promise<NewOrigin | null> {
  if (file === undefined) return null;
  const named = namedCluster(globals, io);
  const { verified } = await import("./snapshot.ts");
  const { clusterFile, instance, root, sha256 } = await verified(io, file, named?.file ?? null);
  io.stderr.write(`kv: ${file} is a valid snapshot of cluster ${clusterFile.clusterId} at instance ${instance}\n`);
  const from = { clusterId: clusterFile.clusterId, root: hex(root), instance, snapshot: hex(sha256) };
  return { file, origin: { ...from, revisionOffset: ORIGIN_REVISION_OFFSET } };
}

/** @throws QuorateError DIRECTORY_EXISTS, INVALID_ARGUMENT */
export async function createCluster(options: InitOptions, origin: NewOrigin | null = null): Promise<ClusterFile> {
  const { writeCluster } = await import("../local/write-cluster.ts");
  return await writeCluster({
    directory: options.dir,
    replicas: options.replicas ?? REPLICAS_DEFAULT[options.mode],
    mode: options.mode,
    hosts: options.host.split(",").map((host) => host.trim()),
    basePort: options.basePort,
    clients: options.clients,
    signedRequests: options.signedRequests === true || options.faultModel === "malicious",
    ...(options.faultModel === undefined ? {} : { faultModel: options.faultModel }),
    ...(options.rotation === undefined ? {} : { rotation: options.rotation }),
    origin,
  });
}

interface Sizes {
  readonly mode: Mode;
  readonly n: number;
  readonly f: number;
  readonly quorum: number;
  /** Instances in a leader's turn; 0: one leads until it fails. */
  readonly rotation: number;
}

export function sizesOf(file: ClusterFile): Sizes {
  const n = file.members.length;
  const { f, mode } = file;
  return { mode, n, f, quorum: quorumOf({ n, f, mode }), rotation: rotationOf(file) };
}

export function toleranceWarning({ mode, n }: Pick<Sizes, "mode" | "n">): string {
  return `${n} replicas tolerate no fault (f=0); use --replicas ${REPLICAS_DEFAULT[mode]} or more to stand a faulty one`;
}

export function sizesText(sizes: Sizes): string {
  const { n, f, quorum } = sizes;
  return `n=${n} f=${f} quorum=${quorum} ${modeText(sizes)}`;
}

function createdText(directory: string, sizes: Sizes): string {
  const first = Array.from(
    { length: sizes.n },
    (_, replica) => `  kv-server --config ${directory}/replica-${replica}/node.yaml`,
  );
  return [
    `created ${directory}: ${sizesText(sizes)}`,
    "start each replica, on its host:",
    ...first,
    "then:",
    `  kv --cluster ${directory}/cluster.json status`,
    "",
  ].join("\n");
}
