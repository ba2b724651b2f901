/**
 * Four or more kv-server processes on loopback for an evaluation: killed, frozen, thawed and started again by replica, and asked
 * who leads. Guarantees: every process has ended and the folder is gone after `close`.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse as parseYaml, stringify as yamlText } from "yaml";
import { addressesOf, firstTaken } from "../../cli/local/ports.ts";
import { isExit, lastLogMessage, type ReplicaProcess, startReplica } from "../../cli/local/replica-process.ts";
import { writeCluster } from "../../cli/local/write-cluster.ts";
import { askReplicas, type ReplicaStatus } from "../../cli/replica-status.ts";
import { type ClusterFile, clusterOf } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import type { NodeFile } from "../../server/config.ts";

const BASE_PORT_MIN = 20_000;
const BASE_PORTS = 10_000;
const PORT_TRIES = 20;
const ANSWER_MS_MAX = 500;
const LOOK_MS = 20;

export interface LocalClusterOptions {
  readonly replicas: number;
  readonly requestTimeoutMs: number;
  readonly server: URL;
}

export interface Leadership {
  readonly regency: number;
  readonly leader: number;
}

export class LocalCluster {
  readonly folder: string;
  readonly file: ClusterFile;
  readonly #server: URL;
  readonly #processes = new Map<number, ReplicaProcess>();

  private constructor(folder: string, file: ClusterFile, server: URL) {
    this.folder = folder;
    this.file = file;
    this.#server = server;
  }

  /** Writes the files and starts every replica. @throws Error with the last words of one that did not start */
  static async start(options: LocalClusterOptions): Promise<LocalCluster> {
    const folder = mkdtempSync(join(tmpdir(), "quorate-evaluation-"));
    let cluster: LocalCluster | null = null;
    try {
      cluster = new LocalCluster(folder, await writeFiles(folder, options), options.server);
      for (const { id } of cluster.file.members) await cluster.startOne(id);
      return cluster;
    } catch (error) {
      await cluster?.close();
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  get path(): string {
    return join(this.folder, "cluster", "cluster.json");
  }

  get ids(): readonly number[] {
    return this.file.members.map(({ id }) => id);
  }

  async startOne(id: number): Promise<void> {
    const home = join(this.folder, "cluster", `replica-${id}`);
    const log = join(home, "server.log");
    const replica = startReplica({ config: join(home, "node.yaml"), log, program: this.#server });
    this.#processes.set(id, replica);
    if (!isExit(await replica.ready)) return;
    throw new Error(`replica ${id} did not start: ${lastLogMessage(log) ?? "no log"}`);
  }

  signal(id: number, signal: "SIGSTOP" | "SIGCONT"): void {
    this.#processes.get(id)?.kill(signal);
  }

  async kill(id: number): Promise<void> {
    const replica = this.#processes.get(id);
    replica?.kill("SIGKILL");
    await replica?.exited;
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
    rmSync(this.folder, { recursive: true, force: true });
  }
}

async function writeFiles(folder: string, options: LocalClusterOptions): Promise<ClusterFile> {
  const directory = join(folder, "cluster");
  for (let attempt = 0; attempt < PORT_TRIES; attempt++) {
    const basePort = BASE_PORT_MIN + Math.floor(Math.random() * BASE_PORTS);
    const wanted = { directory, basePort, hosts: ["127.0.0.1"], clients: "listed", signedRequests: false } as const;
    const file = await writeCluster({ ...wanted, replicas: options.replicas });
    if ((await firstTaken(addressesOf(file))) === null) {
      for (const { id } of file.members) configure(join(directory, `replica-${id}`, "node.yaml"), options);
      return file;
    }
    rmSync(directory, { recursive: true });
  }
  throw new Error(`found no free ports for ${options.replicas} replicas`);
}

function configure(path: string, { requestTimeoutMs }: LocalClusterOptions): void {
  const node = parseYaml(readFileSync(path, "utf8")) as NodeFile;
  writeFileSync(path, yamlText({ ...node, requestTimeoutMs }));
}

/** @throws Error naming what was awaited */
async function untilFound<T>(timeoutMs: number, what: string, look: () => Promise<T | null>): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== null) return found;
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}
