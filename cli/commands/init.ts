/** `kv init`: the files of a new cluster. */
import { join } from "node:path";
import { Command, Option } from "commander";
import { hex } from "../../protocol/bytes.ts";
import { type ClusterFile, ORIGIN_REVISION_OFFSET } from "../../protocol/cluster.ts";
import { quorumOf } from "../../protocol/view.ts";
import { DEFAULT_DIRECTORY, globalsOf, helpTail, requireFormat } from "../globals.ts";
import { type Io, writeOut } from "../io.ts";
import type { NewOrigin } from "../local/write-cluster.ts";
import { integerIn } from "../numbers.ts";

export interface InitOptions {
  readonly replicas: number;
  readonly dir: string;
  readonly host: string;
  readonly basePort: number;
  readonly clients: "open" | "listed";
  readonly signedRequests?: true;
  readonly fromSnapshot?: string;
}

/** The options of a new cluster, shared with `kv dev`. */
export function addClusterOptions(command: Command): Command {
  const number = (flags: string, text: string, range: { min: number; max: number }): Option =>
    new Option(flags, text).argParser(integerIn(range));
  return command
    .addOption(number("--replicas <n>", "how many replicas; 3f+1 stand f faults", { min: 1, max: 64 }).default(4))
    .addOption(new Option("--dir <dir>", "directory to create").default(DEFAULT_DIRECTORY))
    .addOption(
      number("--base-port <port>", "replica N: clients at this + 10N, peers +1, admin +2", {
        min: 1,
        max: 65_533,
      }).default(7_000),
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
    .addHelpText(
      "after",
      helpTail({
        notes:
          "Writes DIR/cluster.json (public), DIR/admin.key, DIR/client.key, and per replica DIR/replica-N/node.yaml,\n" +
          "replica.key and data. For several hosts, copy cluster.json and one replica-N directory to each.\n" +
          "--from-snapshot verifies the file first and puts it into every data directory; each kv-server verifies it again at\n" +
          "its first start. Keys, values and revisions are kept, the store revision rises by 2^32, clients begin anew.",
        json:
          '{"directory","replicas":4,"f":1,"quorum":3,"cluster":"DIR/cluster.json"}, with --from-snapshot also ' +
          '"origin":{"clusterId","root","instance","snapshot","revisionOffset"}',
        examples: [
          "kv init --replicas 4 --dir demo",
          "kv init --dir prod --host 10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4 --clients listed",
          "kv init --dir restored --from-snapshot backup.qsnap",
        ],
      }),
    )
    .action(async (options: InitOptions, command: Command) => {
      const format = requireFormat(globalsOf(command), ["simple", "json"]);
      const file = await createCluster(options, await originOf(io, options.fromSnapshot));
      const { n, f, quorum } = sizesOf(file);
      if (format === "json") {
        const cluster = join(options.dir, "cluster.json");
        const { origin } = file;
        await writeOut(io, `${JSON.stringify({ directory: options.dir, replicas: n, f, quorum, cluster, origin })}\n`);
      } else {
        await writeOut(io, createdText(options.dir, { n, f, quorum }));
      }
      if (f === 0) io.stderr.write(`kv: warning: ${toleranceWarning(n)}\n`);
    });
}

/** @throws QuorateError SNAPSHOT_INVALID */
async function originOf(io: Io, file: string | undefined): Promise<NewOrigin | null> {
  if (file === undefined) return null;
  const { verified } = await import("./snapshot.ts");
  const { clusterFile, instance, root, sha256 } = await verified(io, file, null);
  io.stderr.write(`kv: ${file} is a valid snapshot of cluster ${clusterFile.clusterId} at instance ${instance}\n`);
  const from = { clusterId: clusterFile.clusterId, root: hex(root), instance, snapshot: hex(sha256) };
  return { file, origin: { ...from, revisionOffset: ORIGIN_REVISION_OFFSET } };
}

/** @throws QuorateError DIRECTORY_EXISTS, INVALID_ARGUMENT */
export async function createCluster(options: InitOptions, origin: NewOrigin | null = null): Promise<ClusterFile> {
  const { writeCluster } = await import("../local/write-cluster.ts");
  return await writeCluster({
    directory: options.dir,
    replicas: options.replicas,
    hosts: options.host.split(",").map((host) => host.trim()),
    basePort: options.basePort,
    clients: options.clients,
    signedRequests: options.signedRequests === true,
    origin,
  });
}

interface Sizes {
  readonly n: number;
  readonly f: number;
  readonly quorum: number;
}

export function sizesOf(file: ClusterFile): Sizes {
  const n = file.members.length;
  return { n, f: file.f, quorum: quorumOf({ n, f: file.f, mode: file.mode }) };
}

export function toleranceWarning(n: number): string {
  return `${n} replicas tolerate no fault (f=0); use --replicas 4 or more to stand a faulty one`;
}

function createdText(directory: string, { n, f, quorum }: Sizes): string {
  const first = Array.from(
    { length: n },
    (_, replica) => `  kv-server --config ${directory}/replica-${replica}/node.yaml`,
  );
  return [
    `created ${directory}: n=${n} f=${f} quorum=${quorum}`,
    "start each replica, on its host:",
    ...first,
    "then:",
    `  kv --cluster ${directory}/cluster.json status`,
    "",
  ].join("\n");
}
