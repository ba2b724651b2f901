/**
 * Four or more kv-server processes on loopback for an evaluation: killed, frozen, thawed, robbed of their data and started
 * again by replica, added to and removed from the view, and asked who leads and where they stand. Guarantees: every process has
 * ended and the folder is gone after `close`.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse as parseYaml, stringify as yamlText } from "yaml";
import { addressesOf, firstTaken } from "../../cli/local/ports.ts";
import {
  isExit,
  lastLogMessage,
  type ReplicaExit,
  type ReplicaProcess,
  startReplica,
} from "../../cli/local/replica-process.ts";
import { type NewCluster, writeCluster } from "../../cli/local/write-cluster.ts";
import { JOIN_FILE } from "../../cli/local/write-member.ts";
import { adminUrl, askReplicas, httpGet, type ReplicaStatus } from "../../cli/replica-status.ts";
import { type ClusterFile, clusterOf, memberSchema } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import type { Mode } from "../../protocol/view.ts";
import type { NodeFile } from "../../server/config.ts";
import type { TransferProgress } from "../../server/transfer/transfer.ts";
import { run } from "../integration/programs.ts";

const BASE_PORT_MIN = 20_000;
const BASE_PORTS = 10_000;
const PORT_TRIES = 20;
const ANSWER_MS_MAX = 500;
const DETAIL_MS_MAX = 5_000;
const LOOK_MS = 20;
const LAST_WORDS = 15;
const HOST = "127.0.0.1";
const KV_MS_MAX = 120_000;

export interface LocalClusterOptions {
  readonly replicas: number;
  readonly mode?: Mode;
  readonly requestTimeoutMs: number;
  readonly server: URL;
  /** Of the fault model, where it is not the plain one. */
  readonly model?: Partial<Pick<NewCluster, "signedRequests" | "faultModel" | "rotation">>;
  /** Who may be a client: by default the one whose key lies beside the cluster file. */
  readonly clients?: "open" | "listed";
  /** Further settings of every replica. */
  readonly settings?: Partial<NodeFile>;
  /** What runs instead of `server` for some replicas. */
  readonly programs?: ReadonlyMap<number, ReplicaProgram>;
}

export interface ReplicaProgram {
  readonly program: URL;
  readonly args: readonly string[];
}

/** What `/status` says beyond what the command line uses. */
export interface ReplicaDetail extends Omit<ReplicaStatus, "state" | "recovery" | "alarms" | "checkpoints" | "log"> {
  readonly state: string;
  readonly recovery: TransferProgress | null;
  readonly alarms: readonly { readonly code: string; readonly detail: string }[];
  readonly checkpoints?: {
    readonly newest: { readonly instance: number; readonly root: string; readonly bytes: number } | null;
    readonly computing: boolean;
  };
  readonly log?: { readonly first: number; readonly last: number; readonly bytes: number };
  readonly queues?: Readonly<Record<string, number>>;
}

export interface Leadership {
  readonly regency: number;
  readonly leader: number;
}

export class LocalCluster {
  readonly folder: string;
  readonly #options: LocalClusterOptions;
  readonly #server: URL;
  readonly #programs: ReadonlyMap<number, ReplicaProgram>;
  readonly #processes = new Map<number, ReplicaProcess>();
  readonly #ended = new Set<number>();
  #file: ClusterFile;

  /** However this process ends, by `process.exit` too. */
  readonly #atExit = (): void => {
    for (const replica of this.#processes.values()) replica.kill("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  };

  private constructor(folder: string, file: ClusterFile, options: LocalClusterOptions) {
    this.folder = folder;
    this.#file = file;
    this.#options = options;
    this.#server = options.server;
    this.#programs = options.programs ?? new Map();
    process.once("exit", this.#atExit);
  }

  /** Writes the files and starts every replica. @throws Error with the last words of one that did not start */
  static async start(options: LocalClusterOptions): Promise<LocalCluster> {
    const folder = mkdtempSync(join(tmpdir(), "quorate-evaluation-"));
    let cluster: LocalCluster | null = null;
    try {
      cluster = new LocalCluster(folder, await writeFiles(folder, options), options);
      for (const { id } of cluster.file.members) await cluster.startOne(id);
      return cluster;
    } catch (error) {
      await cluster?.close();
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** As it was written, but for its members: they are those of the view now. */
  get file(): ClusterFile {
    return this.#file;
  }

  get path(): string {
    return join(this.folder, "cluster", "cluster.json");
  }

  get ids(): readonly number[] {
    return this.file.members.map(({ id }) => id);
  }

  home(id: number): string {
    return join(this.folder, "cluster", `replica-${id}`);
  }

  hasEnded(id: number): boolean {
    return this.#ended.has(id);
  }

  pid(id: number): number {
    return this.#processes.get(id)?.pid ?? 0;
  }

  async startOne(id: number): Promise<void> {
    const home = this.home(id);
    const log = join(home, "server.log");
    const { program, args } = this.#programs.get(id) ?? { program: this.#server, args: [] };
    const replica = startReplica({ config: join(home, "node.yaml"), log, program, args });
    this.#processes.set(id, replica);
    this.#ended.delete(id);
    void replica.exited.then(() => {
      if (this.#processes.get(id) === replica) this.#ended.add(id);
    });
    if (!isExit(await replica.ready)) return;
    throw new Error(`replica ${id} did not start: ${lastLogMessage(log) ?? "no log"}`);
  }

  /** How the newest process of this replica ends. */
  async exited(id: number): Promise<ReplicaExit> {
    return (await this.#processes.get(id)?.exited) ?? { code: null, signal: null };
  }

  /** Prepares a replica with `kv init --join` and starts it: it waits to be invited. */
  async startJoining(kv: URL, id: number): Promise<void> {
    const home = this.home(id);
    const basePort = String(await freeBasePort());
    await this.#kv(kv, ["init", "--join", "--dir", home, "--id", String(id), "--base-port", basePort]);
    configure(join(home, "node.yaml"), this.#options);
    await this.startOne(id);
  }

  /** `kv view add` of a replica that was started to join, until it is a member. @throws Error with what `kv` said */
  async addToView(kv: URL, id: number): Promise<void> {
    const path = join(this.home(id), JOIN_FILE);
    await this.#kv(kv, ["view", "add", path, "--yes"]);
    const { member } = JSON.parse(readFileSync(path, "utf8")) as { member: unknown };
    this.#file = { ...this.#file, members: [...this.#file.members, memberSchema.parse(member)] };
  }

  /** `kv view remove`: that replica is to end by itself then. @throws Error with what `kv` said */
  async removeFromView(kv: URL, id: number): Promise<void> {
    await this.#kv(kv, ["view", "remove", String(id), "--yes"]);
    this.#file = { ...this.#file, members: this.#file.members.filter((member) => member.id !== id) };
  }

  async #kv(kv: URL, args: readonly string[]): Promise<void> {
    const done = await run(kv, ["--cluster", this.path, ...args], { timeoutMs: KV_MS_MAX });
    if (done.code !== 0) throw new Error(`kv ${args.join(" ")}: exit code ${done.code}: ${done.stderr.trim()}`);
  }

  signal(id: number, signal: "SIGSTOP" | "SIGCONT" | "SIGUSR2"): void {
    this.#processes.get(id)?.kill(signal);
  }

  async kill(id: number): Promise<void> {
    const replica = this.#processes.get(id);
    replica?.kill("SIGKILL");
    await replica?.exited;
  }

  /** Ends the replica and deletes everything it has on disk but its keys and configuration. */
  async rob(id: number): Promise<void> {
    await this.kill(id);
    rmSync(join(this.home(id), "data"), { recursive: true });
  }

  /** The log of all processes that ran this replica, line by line. */
  log(id: number): Record<string, unknown>[] {
    // What follows the last line end is a line that is being written.
    const lines = readFileSync(join(this.home(id), "server.log"), "utf8")
      .split("\n")
      .slice(0, -1);
    return lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  /** The newest lines of its log, for a report of what went wrong. */
  lastWords(id: number): string {
    return this.log(id)
      .slice(-LAST_WORDS)
      .map((line) => JSON.stringify(line))
      .join("\n");
  }

  /** What a replica says of itself in full; null when it does not answer. */
  async detail(id: number): Promise<ReplicaDetail | null> {
    const answer = await this.#get(id, "/status");
    return answer === null ? null : (JSON.parse(answer) as ReplicaDetail);
  }

  /** The sum of a counter over all its labels. @throws Error when the replica does not answer */
  async metric(id: number, name: string): Promise<number> {
    const answer = await this.#get(id, "/metrics");
    if (answer === null) throw new Error(`replica ${id} does not say its metrics`);
    const lines = answer.split("\n").filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
    return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
  }

  async #get(id: number, path: string): Promise<string | null> {
    const member = this.file.members.find((other) => other.id === id);
    if (!member) return null;
    const answer = await httpGet(adminUrl(member, path), DETAIL_MS_MAX);
    return answer.problem === null ? answer.text : null;
  }

  /** Until these replicas have executed the same instance with the same history; gives what they say. */
  async agreement(ids: readonly number[] = this.ids, timeoutMs = 60_000): Promise<ReplicaDetail[]> {
    return await untilFound(timeoutMs, `agreement of replicas ${ids.join(", ")}`, async () => {
      const details = await Promise.all(ids.map((id) => this.detail(id)));
      const names = new Set(details.map((detail) => detail && `${detail.executed} ${detail.historyDigest}`));
      return names.size === 1 && !details.includes(null) ? (details as ReplicaDetail[]) : null;
    });
  }

  /** What each replica that answers says of itself. */
  async statuses(ids: readonly number[] = this.ids): Promise<ReplicaStatus[]> {
    const members = this.file.members.filter(({ id }) => ids.includes(id));
    const answers = await askReplicas({ ...this.file, members }, ANSWER_MS_MAX);
    return answers.flatMap(({ status }) => (status ? [status] : []));
  }

  /** Who leads in a regency from this one on, as soon as f+1 of these replicas say so. @throws Error after `timeoutMs` */
  async leadership(options: { from: number; ids?: readonly number[]; timeoutMs?: number }): Promise<Leadership> {
    const { from, ids = this.ids, timeoutMs = 60_000 } = options;
    const { weakQuorum } = clusterOf(nodeCrypto, this.file).view;
    return await untilFound(timeoutMs, `regency ${from}`, async () => {
      const sorted = (await this.statuses(ids)).sort((a, b) => b.regency - a.regency);
      const credible = sorted[weakQuorum - 1];
      return credible && credible.regency >= from ? { regency: credible.regency, leader: credible.leader } : null;
    });
  }

  /** Until this replica votes, in this regency or a later one, and has executed what the others have now. */
  async isBack(id: number, regency: number, timeoutMs = 60_000): Promise<void> {
    const others = await this.statuses(this.ids.filter((other) => other !== id));
    const target = Math.max(0, ...others.map(({ executed }) => executed));
    await untilFound(timeoutMs, `replica ${id} at instance ${target}`, async () => {
      const [status] = await this.statuses([id]);
      if (!status || status.executed < target || status.regency < regency) return null;
      return status.state === "voting" ? true : null;
    });
  }

  async close(): Promise<void> {
    for (const replica of this.#processes.values()) replica.kill("SIGKILL");
    await Promise.all([...this.#processes.values()].map((replica) => replica.exited));
    process.off("exit", this.#atExit);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

async function writeFiles(folder: string, options: LocalClusterOptions): Promise<ClusterFile> {
  const directory = join(folder, "cluster");
  for (let attempt = 0; attempt < PORT_TRIES; attempt++) {
    const basePort = BASE_PORT_MIN + Math.floor(Math.random() * BASE_PORTS);
    const wanted = { directory, basePort, hosts: [HOST], signedRequests: false } as const;
    const { replicas, clients = "listed", mode = "bft", model } = options;
    const file = await writeCluster({ ...wanted, ...model, replicas, clients, mode });
    if ((await firstTaken(addressesOf(file))) === null) {
      for (const { id } of file.members) configure(join(directory, `replica-${id}`, "node.yaml"), options);
      return file;
    }
    rmSync(directory, { recursive: true });
  }
  throw new Error(`found no free ports for ${options.replicas} replicas`);
}

/** The first of three ports in a row that are free now. */
async function freeBasePort(): Promise<number> {
  for (let attempt = 0; attempt < PORT_TRIES; attempt++) {
    const base = BASE_PORT_MIN + Math.floor(Math.random() * BASE_PORTS);
    const wanted = [base, base + 1, base + 2].map((port) => ({ host: HOST, port }));
    if ((await firstTaken(wanted)) === null) return base;
  }
  throw new Error("found no free ports for another replica");
}

function configure(path: string, { requestTimeoutMs, settings }: LocalClusterOptions): void {
  const node = parseYaml(readFileSync(path, "utf8")) as NodeFile;
  writeFileSync(path, yamlText({ ...node, requestTimeoutMs, ...settings }));
}

/** @throws Error naming what was awaited */
export async function untilFound<T>(timeoutMs: number, what: string, look: () => Promise<T | null>): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== null) return found;
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}
