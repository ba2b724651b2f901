/** The options every command takes, before or after the verb, and what they default to. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Command, Option } from "commander";
import { type ClusterFile, clusterOf, parseClusterFile } from "../protocol/cluster.ts";
import { nodeCrypto } from "../protocol/crypto/node.ts";
import { QuorateError } from "../protocol/errors.ts";
import { parseDurationMs } from "./duration.ts";
import { usageError } from "./exit.ts";
import type { Io } from "./io.ts";

export const FORMATS = ["simple", "json", "table", "raw"] as const;
export type Format = (typeof FORMATS)[number];

export const DEFAULT_TIMEOUT_MS = 5_000;
export const DEFAULT_DIRECTORY = ".kv";

export interface Globals {
  readonly cluster?: string;
  readonly identity?: string;
  readonly output: Format;
  /** Undefined when not given: commands that wait longer have a default of their own. */
  readonly timeout?: number;
}

/** Adds the global options to the program; commander accepts them before and after the verb. */
export function addGlobalOptions(program: Command): void {
  program
    .option("--cluster <file>", "cluster file (default: $KV_CLUSTER, else .kv/cluster.json)")
    .option("--identity <file>", "key file of the client (default: client.key beside the cluster file)")
    .addOption(new Option("-o, --output <format>", "form of the results").choices(FORMATS).default("simple"))
    .option("--timeout <duration>", "how long to wait for the cluster: 500ms, 3s, 1m (default: 5s)", parseDurationMs);
}

export function globalsOf(command: Command): Globals {
  return command.optsWithGlobals<Globals>();
}

/** Refuses a form that the command does not have. @throws CommandExit (usage) */
export function requireFormat<F extends Format>(globals: Globals, formats: readonly F[]): F {
  const format = formats.find((known) => known === globals.output);
  if (!format) throw usageError(`-o ${globals.output} is not a form of this command; use ${formats.join(", ")}`);
  return format;
}

export interface ClusterChoice {
  readonly path: string;
  readonly file: ClusterFile;
}

function namedPath(globals: Globals, io: Io): string | undefined {
  return globals.cluster ?? (io.env.KV_CLUSTER || undefined);
}

/**
 * The cluster file that was named, or null: for what can do without one, and may not believe the default one unasked.
 * @throws QuorateError CONFIG_MISSING, CONFIG_INVALID
 */
export function namedCluster(globals: Globals, io: Io): ClusterChoice | null {
  return namedPath(globals, io) === undefined ? null : chooseCluster(globals, io);
}

/**
 * Reads the cluster file that was named, or the default one, and names the identity beside it.
 * @throws QuorateError CONFIG_MISSING, CONFIG_INVALID
 */
export function chooseCluster(globals: Globals, io: Io): ClusterChoice {
  const named = namedPath(globals, io);
  const path = named ?? join(DEFAULT_DIRECTORY, "cluster.json");
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw unreadableCluster({ path, named: named !== undefined }, cause);
  }
  const file = parseClusterFile(text, path);
  clusterOf(nodeCrypto, file);
  return { path, file };
}

/** The key file the client uses: the one named, else client.key beside the cluster file. @throws QuorateError KEY_FILE_UNREADABLE */
export function chooseIdentity(globals: Globals, cluster: ClusterChoice): string {
  const path = globals.identity ?? join(dirname(cluster.path), "client.key");
  if (existsSync(path)) return path;
  const todo = "name a client key with --identity, or create one with: kv client-key FILE";
  throw new QuorateError("KEY_FILE_UNREADABLE", `key file ${path} does not exist; ${todo}`, { path });
}

function unreadableCluster(choice: { path: string; named: boolean }, cause: unknown): QuorateError {
  const { code } = cause as NodeJS.ErrnoException;
  if (code !== "ENOENT" && code !== "ENOTDIR") {
    const why = `cannot be read (${code ?? "unknown error"}); name a cluster file with --cluster`;
    return new QuorateError("CONFIG_INVALID", `cluster file ${choice.path} ${why}`, {}, cause);
  }
  const todo = choice.named
    ? "name the cluster.json that kv init wrote"
    : "start a local cluster with: kv dev, or name a cluster file with --cluster";
  return new QuorateError("CONFIG_MISSING", `cluster file ${choice.path} does not exist; ${todo}`, {}, cause);
}

/** Text that ends a command's help: the stable json form where there is one, and examples that run. */
export function helpTail(parts: { json?: string; notes?: string; examples: readonly string[] }): string {
  const blocks = [
    parts.notes === undefined ? "" : `\n${parts.notes}\n`,
    parts.json === undefined ? "" : `\nWith -o json (stable): ${parts.json}\n`,
    `\nExamples:\n${parts.examples.map((example) => `  $ ${example}`).join("\n")}`,
  ];
  return blocks.join("");
}
