/**
 * A real cluster for one test: kv-server processes over a temporary folder and free ports. Everything started is ended by its
 * own pid and the folder removed when the test ends, however it ends.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { firstTaken } from "../../cli/local/ports.ts";
import { writeCluster } from "../../cli/local/write-cluster.ts";
import { bytes, type ConnectOptions, connect, type Kv, utf8 } from "../../client/index.ts";
import type { ClusterFile } from "../../protocol/cluster.ts";
import { compiled, type Ended, type Exit, Program, run } from "./programs.ts";

const READY_MS = 30_000;
/** Below the ports that systems give to outgoing connections. */
const PORTS = { from: 10_000, blocks: 50, size: 100 };
const PORTS_PER_REPLICA = 10;

/** The first port of a block in which a cluster of `replicas` finds every port free. */
export async function freeBasePort(replicas: number): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    // Test files that run at the same time stay out of each other's way: a killed replica's ports look free.
    const block = 2 * Math.floor(Math.random() * PORTS.blocks) + (Number(process.env.VITEST_POOL_ID) % 2);
    const base = PORTS.from + PORTS.size * block;
    const wanted = Array.from({ length: replicas }, (_, id) => base + PORTS_PER_REPLICA * id).flatMap((port) => [
      { host: "127.0.0.1", port },
      { host: "127.0.0.1", port: port + 1 },
      { host: "127.0.0.1", port: port + 2 },
    ]);
    if ((await firstTaken(wanted)) === null) return base;
  }
  throw new Error("no free block of ports");
}

/** A folder that is removed when the test ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "quorate-integration-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  return folder;
}

/** What `/status` says, as far as tests look at it. */
export interface Status {
  readonly replica: number;
  readonly pid: number;
  readonly view: number;
  readonly regency: number;
  readonly leader: number;
  readonly decided: number;
  readonly executed: number;
  readonly revision: string;
  readonly historyDigest: string;
  readonly state: string;
  readonly peers: readonly { readonly replica: number; readonly connected: boolean; readonly decided: number | null }[];
  readonly queues: Readonly<Record<string, number>>;
  readonly requests: Readonly<Record<string, number>>;
  readonly disk: { readonly journalBytes: number; readonly stateBytes: number };
}

export interface NewCluster {
  readonly replicas?: number;
  readonly clients?: "open" | "listed";
  readonly signedRequests?: boolean;
}

export class TestCluster {
  readonly folder: string;
  readonly directory: string;
  readonly file: ClusterFile;
  readonly #servers = new Map<number, Program>();
  readonly #connections = new Set<{ close(): Promise<void> }>();

  private constructor(folder: string, file: ClusterFile) {
    this.folder = folder;
    this.directory = join(folder, "cluster");
    this.file = file;
  }

  /** The files of a new cluster; nothing runs yet. */
  static async create(options: NewCluster = {}): Promise<TestCluster> {
    const { replicas = 4, clients = "open", signedRequests = false } = options;
    compiled("server/main");
    const folder = temporaryFolder();
    const file = await writeCluster({
      directory: join(folder, "cluster"),
      replicas,
      hosts: ["127.0.0.1"],
      basePort: await freeBasePort(replicas),
      clients,
      signedRequests,
    });
    const cluster = new TestCluster(folder, file);
    onTestFinished(async ({ task }) => {
      if (task.result?.state === "fail") console.error(await cluster.describe());
      await cluster.close();
    });
    return cluster;
  }

  /** A new cluster with every replica running. */
  static async start(options: NewCluster = {}): Promise<TestCluster> {
    const cluster = await TestCluster.create(options);
    await cluster.startAll();
    return cluster;
  }

  get ids(): readonly number[] {
    return this.file.members.map(({ id }) => id);
  }

  get clusterPath(): string {
    return join(this.directory, "cluster.json");
  }

  home(replica: number): string {
    return join(this.directory, `replica-${replica}`);
  }

  member(replica: number): ClusterFile["members"][number] {
    const member = this.file.members.find(({ id }) => id === replica);
    if (!member) throw new Error(`there is no replica ${replica}`);
    return member;
  }

  /** Starts kv-server for a replica without waiting: what becomes of it is the test's business. */
  launch(replica: number, options: { program?: URL; args?: readonly string[] } = {}): Program {
    const config = ["--config", join(this.home(replica), "node.yaml")];
    const program = options.program ?? compiled("server/main");
    const env = { QUORATE_STOP_ON_STDIN_END: "1" };
    const server = new Program(program, [...config, ...(options.args ?? [])], { env });
    this.#servers.set(replica, server);
    return server;
  }

  /** Starts a replica and waits until it listens. @throws Error with what it said when it does not */
  async startOne(replica: number, options: { program?: URL; args?: readonly string[] } = {}): Promise<Program> {
    const server = this.launch(replica, options);
    await server.line((line) => line.startsWith(`ready replica=${replica} `), READY_MS);
    return server;
  }

  async startAll(): Promise<void> {
    await Promise.all(this.ids.map((replica) => this.startOne(replica)));
  }

  server(replica: number): Program {
    const server = this.#servers.get(replica);
    if (!server) throw new Error(`replica ${replica} was never started`);
    return server;
  }

  /** Sends a signal and waits for the end of the process. */
  kill(replica: number, signal: "SIGTERM" | "SIGINT" | "SIGKILL"): Promise<Exit> {
    return this.server(replica).kill(signal);
  }

  /** SIGSTOP and SIGCONT, which end nothing. */
  signal(replica: number, signal: "SIGSTOP" | "SIGCONT"): void {
    this.server(replica).signal(signal);
  }

  /** The log lines of the process that runs a replica now. */
  log(replica: number): Record<string, unknown>[] {
    const lines = this.server(replica).stderr.split("\n").slice(0, -1);
    return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  /** @throws Error with its last words when the replica has ended */
  async http(replica: number, path: string): Promise<{ code: number; text: string }> {
    const { host, adminPort } = this.member(replica);
    const signal = AbortSignal.timeout(10_000);
    try {
      const response = await fetch(`http://${host}:${adminPort}${path}`, { signal });
      return { code: response.status, text: await response.text() };
    } catch (error) {
      const server = this.server(replica);
      const exit = await Promise.race([server.exited, sleep(500)]);
      if (!exit) throw error;
      const { code, signal: by } = exit;
      throw new Error(`replica ${replica} has ended (${code ?? by}):\n${server.stderr.slice(-4_000)}`);
    }
  }

  async status(replica: number): Promise<Status> {
    const { code, text } = await this.http(replica, "/status");
    if (code !== 200) throw new Error(`replica ${replica}: /status answers ${code}: ${text}`);
    return JSON.parse(text) as Status;
  }

  /** The sum of a counter over all its labels. */
  async metric(replica: number, name: string, labels = ""): Promise<number> {
    const { text } = await this.http(replica, "/metrics");
    const lines = text.split("\n").filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
    const matching = lines.filter((line) => line.includes(labels));
    return matching.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
  }

  /** What a replica refused, by label. */
  async faults(replica: number): Promise<{ source: string; from: string; code: string; count: number }[]> {
    const { text } = await this.http(replica, "/metrics");
    const pattern = /^quorate_rejected_total\{source="([^"]*)",from="([^"]*)",code="([^"]*)"\} (\d+)$/gm;
    return [...text.matchAll(pattern)].map(([, source = "", from = "", code = "", count = ""]) => ({
      source,
      from,
      code,
      count: Number(count),
    }));
  }

  /** Runs `kv` against this cluster. */
  kv(args: readonly string[], options: { stdin?: string | Uint8Array; timeoutMs?: number } = {}): Promise<Ended> {
    return run(compiled("cli/main"), ["--cluster", this.clusterPath, ...args], options);
  }

  /** An SDK connection in this process, closed with the cluster. */
  async connect(options: Partial<ConnectOptions<string>> = {}): Promise<Kv<string>> {
    const kv = await connect({ cluster: this.clusterPath, timeoutMs: 20_000, codec: utf8, ...options });
    this.#connections.add(kv);
    return kv;
  }

  async connectBytes(options: Partial<ConnectOptions<Uint8Array>> = {}): Promise<Kv<Uint8Array>> {
    const kv = await connect({ cluster: this.clusterPath, timeoutMs: 20_000, codec: bytes, ...options });
    this.#connections.add(kv);
    return kv;
  }

  /** Waits until these replicas have executed the same instance with the same history, and gives that status. */
  async agreement(replicas: readonly number[] = this.ids, timeoutMs = 30_000): Promise<Status> {
    let last: readonly Status[] = [];
    const [first] = await until(
      async () => {
        last = await Promise.all(replicas.map((replica) => this.status(replica)));
        const names = new Set(last.map((status) => `${status.executed} ${status.historyDigest} ${status.revision}`));
        return names.size === 1 ? last : null;
      },
      { timeoutMs, what: () => `agreement of replicas ${replicas.join(", ")}: ${JSON.stringify(last)}` },
    );
    return first as Status;
  }

  /** Where every replica stands, for the report of a failed test. */
  async describe(): Promise<string> {
    const lines: string[] = [];
    for (const [replica, server] of this.#servers) {
      const words = server.stderr.split("\n").slice(-8).join("\n");
      const answers = await Promise.allSettled([this.status(replica), this.faults(replica)]);
      const known = answers.map((answer) =>
        answer.status === "fulfilled" ? JSON.stringify(answer.value) : "no answer",
      );
      lines.push(`replica ${replica}, ${server.ended ? "ended" : "running"}: ${known.join("\n")}`, words);
    }
    return lines.join("\n");
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#connections].map((connection) => connection.close()));
    await Promise.allSettled([...this.#servers.values()].map((server) => server.kill("SIGKILL")));
  }
}

/** Asks again until there is an answer other than null. @throws Error naming `what` was awaited */
export async function until<T>(
  look: () => Promise<T | null> | T | null,
  options: { timeoutMs?: number; everyMs?: number; what: string | (() => string) },
): Promise<T> {
  const { timeoutMs = 30_000, everyMs = 100, what } = options;
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== null) return found;
    if (performance.now() > deadline) {
      throw new Error(`waited ${timeoutMs} ms in vain for ${typeof what === "string" ? what : what()}`);
    }
    await sleep(everyMs);
  }
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Listens on a port of 127.0.0.1 until the test ends. */
export async function occupy(port: number): Promise<void> {
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: "127.0.0.1", port, exclusive: true }, resolve);
  });
  onTestFinished(() => new Promise<void>((resolve) => server.close(() => resolve())));
}
