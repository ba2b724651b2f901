/**
 * Real input through a real cluster: records imported with `kv import` into four kv-server processes, one that does not lead
 * killed with SIGKILL half-way, everything exported with `kv export` and compared record by record.
 * `npm run demo:debian` does it with Debian's package index; `npm test` with generated records.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream, createWriteStream, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import { pathToFileURL } from "node:url";
import { type KeyValue, lineGroups, parseRecordLine, recordLine } from "../../cli/jsonl.ts";
import { addressesOf, firstTaken } from "../../cli/local/ports.ts";
import {
  isExit,
  lastLogMessage,
  programCommand,
  type ReplicaProcess,
  startReplica,
} from "../../cli/local/replica-process.ts";
import { askReplicas } from "../../cli/replica-status.ts";
import type { ClusterFile } from "../../protocol/cluster.ts";
import { readClusterFile } from "../../server/config.ts";
import { debianRecords } from "./debian-index.ts";

/** The compiled programs where there are any: they are what users run. */
const DIST = new URL("../../dist/", import.meta.url);
const SOURCES = new URL("../../", import.meta.url);

export interface Programs {
  readonly kv: URL;
  readonly server: URL;
}

export function programsIn(base: "dist" | "sources"): Programs {
  const program = (path: string): URL =>
    new URL(`${path}.${base === "dist" ? "js" : "ts"}`, base === "dist" ? DIST : SOURCES);
  return { kv: program("cli/main"), server: program("server/main") };
}

export interface ImportDemo {
  /** Keys must be unique. */
  readonly records: readonly KeyValue[];
  readonly programs?: Programs;
  readonly say?: (line: string) => void;
}

export interface ImportDemoResult {
  readonly imported: number;
  readonly recordsPerSecond: number;
  readonly killed: number;
  /** Store revision at which the replica was killed, as the leader tells. */
  readonly killedAtRevision: number;
  readonly exported: number;
}

/** @throws Error naming the first difference, or what failed; every process has ended and the folder is gone in any case */
export async function runImportDemo(demo: ImportDemo): Promise<ImportDemoResult> {
  const { records, programs = programsIn("dist"), say = () => {} } = demo;
  if (!existsSync(programs.kv)) throw new Error("the compiled programs are missing; run: npm run build");
  const folder = mkdtempSync(join(tmpdir(), "quorate-demo-"));
  const replicas: ReplicaProcess[] = [];
  try {
    const directory = join(folder, "cluster");
    const file = await initCluster(programs, directory);
    for (const { id } of file.members) replicas.push(await startOne({ programs, directory, id }));
    say(`four replicas are ready; importing ${records.length} records`);
    const kv = (...args: string[]) => startKv(programs, ["--cluster", join(directory, "cluster.json"), ...args]);
    const { imported, recordsPerSecond, killed, killedAtRevision } = await importHalves({
      kv,
      records,
      file,
      replicas,
      say,
    });
    say(`imported ${imported} records at ${recordsPerSecond} records/s`);
    const exported = await exportAndCompare(kv, records, join(folder, "export.jsonl"));
    say(`exported ${exported} records; all equal to the input`);
    return { imported, recordsPerSecond, killed, killedAtRevision, exported };
  } finally {
    await Promise.all(replicas.map((replica) => replica.stop()));
    rmSync(folder, { recursive: true, force: true });
  }
}

type StartKv = (...args: string[]) => ChildProcess;

function startKv(programs: Programs, args: readonly string[]): ChildProcess {
  const [program, ...before] = programCommand(programs.kv);
  return spawn(program, [...before, ...args], { stdio: ["pipe", "pipe", "pipe"] });
}

/** Waits for the end of a kv process. @throws Error with what it said on stderr unless it ends with 0 */
async function outputOf(child: ChildProcess): Promise<string> {
  let out = "";
  let err = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    out += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    err += text;
  });
  const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
  if (code !== 0)
    throw new Error(`${child.spawnargs.slice(2).join(" ")}: ${signal ?? `exit code ${code}`}: ${err.trim()}`);
  return out;
}

const BASE_PORT_MIN = 20_000;
const BASE_PORTS = 10_000;
const PORT_TRIES = 20;

/** `kv init` on ports that are free now. */
async function initCluster(programs: Programs, directory: string): Promise<ClusterFile> {
  for (let attempt = 0; attempt < PORT_TRIES; attempt++) {
    const basePort = BASE_PORT_MIN + Math.floor(Math.random() * BASE_PORTS);
    const init = startKv(programs, ["init", "--replicas", "4", "--dir", directory, "--base-port", String(basePort)]);
    await outputOf(init);
    const file = readClusterFile(join(directory, "cluster.json"));
    if ((await firstTaken(addressesOf(file))) === null) return file;
    rmSync(directory, { recursive: true });
  }
  throw new Error("found no free ports for four replicas");
}

async function startOne(options: { programs: Programs; directory: string; id: number }): Promise<ReplicaProcess> {
  const home = join(options.directory, `replica-${options.id}`);
  const log = join(home, "server.log");
  const replica = startReplica({ config: join(home, "node.yaml"), log, program: options.programs.server });
  if (!isExit(await replica.ready)) return replica;
  throw new Error(`replica ${options.id} did not start: ${lastLogMessage(log) ?? "no log"}`);
}

/** Feeds the import through a pipe, so that the kill falls half-way, while the second half is being written. */
async function importHalves(parts: {
  kv: StartKv;
  records: readonly KeyValue[];
  file: ClusterFile;
  replicas: readonly ReplicaProcess[];
  say: (line: string) => void;
}): Promise<Omit<ImportDemoResult, "exported">> {
  const { kv, records, file, replicas, say } = parts;
  const child = kv("import", "-", "-o", "json");
  const output = outputOf(child);
  output.catch(() => child.stdin?.destroy());
  child.stdin?.on("error", () => {});
  const half = Math.ceil(records.length / 2);
  // The last ones wait for the kill, which must not come after the end.
  const most = Math.ceil(0.9 * records.length);
  const ended = once(child, "close");
  await feed(child, records.slice(0, half), ended);
  const [victim] = await Promise.all([killFollower(file, replicas), feed(child, records.slice(half, most), ended)]);
  await feed(child, records.slice(most), ended);
  say(`killed replica ${victim.killed} with SIGKILL at revision ${victim.killedAtRevision}`);
  child.stdin?.end();
  const { imported, recordsPerSecond } = JSON.parse(await output) as { imported: number; recordsPerSecond: number };
  if (imported !== records.length) throw new Error(`kv import says ${imported} of ${records.length} records`);
  return { imported, recordsPerSecond, ...victim };
}

/** Writes to an import as fast as it reads. One that has ended reads no more: then there is nothing to wait for. */
async function feed(child: ChildProcess, records: readonly KeyValue[], ended: Promise<unknown>): Promise<void> {
  for (const record of records) {
    if (child.stdin?.destroyed !== false || child.stdin.write(`${recordLine(record)}\n`)) continue;
    await Promise.race([new Promise((resolve) => child.stdin?.once("drain", resolve)), ended]);
  }
}

async function killFollower(
  file: ClusterFile,
  replicas: readonly ReplicaProcess[],
): Promise<{ killed: number; killedAtRevision: number }> {
  const answers = await askReplicas(file, 5_000);
  const leader = answers.find(({ status }) => status !== null)?.status?.leader;
  const at = file.members.findLastIndex(({ id }) => id !== leader);
  const victim = replicas[at];
  if (leader === undefined || !victim) throw new Error("no replica says who leads");
  victim.kill("SIGKILL");
  await victim.exited;
  const killedAtRevision = Math.max(...answers.map(({ status }) => Number(status?.revision ?? 0)));
  return { killed: file.members[at]?.id ?? at, killedAtRevision };
}

/** @throws Error naming the first record that differs */
async function exportAndCompare(kv: StartKv, records: readonly KeyValue[], path: string): Promise<number> {
  const child = kv("export");
  const target = createWriteStream(path);
  child.stdout?.pipe(target);
  await Promise.all([outputEnd(child), finished(target)]);
  const expected = [...records].sort((a, b) => Buffer.compare(a.key, b.key));
  let at = 0;
  for await (const { lines } of lineGroups(createReadStream(path))) {
    for (const line of lines) {
      compare(parseRecordLine(line), expected[at], at);
      at += 1;
    }
  }
  if (at !== expected.length) throw new Error(`the export ends after ${at} of ${expected.length} records`);
  return at;
}

async function outputEnd(child: ChildProcess): Promise<void> {
  let err = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    err += text;
  });
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`kv export: exit code ${code}: ${err.trim()}`);
}

function compare(exported: KeyValue, expected: KeyValue | undefined, at: number): void {
  const name = Buffer.from(exported.key).toString();
  if (!expected) throw new Error(`record ${at} of the export, ${name}, was never imported`);
  if (Buffer.compare(exported.key, expected.key) !== 0) {
    throw new Error(`record ${at} of the export is ${name}, not ${Buffer.from(expected.key).toString()}`);
  }
  if (Buffer.compare(exported.value, expected.value) !== 0) throw new Error(`the value of ${name} differs`);
}

async function main(): Promise<void> {
  const say = (line: string): void => {
    process.stdout.write(`${line}\n`);
  };
  say("reading the package index: apt-cache dumpavail");
  const records = await debianRecords();
  const bytes = records.reduce((sum, { key, value }) => sum + key.length + value.length, 0);
  say(`${records.length} records, ${(bytes / 1_048_576).toFixed(1)} MiB`);
  await runImportDemo({ records, say });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await main().catch((error: unknown) => {
    process.stderr.write(`demo: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  });
}
