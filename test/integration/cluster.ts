/**
 * A real cluster for one test: kv-server processes over a temporary folder and free ports. Everything started is ended by its
 * own pid and the folder removed when the test ends, however it ends.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { parse as parseYaml, stringify as yamlText } from "yaml";
import { firstTaken } from "../../cli/local/ports.ts";
import { writeCluster } from "../../cli/local/write-cluster.ts";
import { bytes, type ConnectOptions, connect, type Kv, utf8 } from "../../client/index.ts";
import { type ClusterFile, clusterFileText } from "../../protocol/cluster.ts";
import type { Mode } from "../../protocol/view.ts";
import type { NodeFile } from "../../server/config.ts";
import { compiled, type Ended, type Exit, Program, run } from "./programs.ts";
import { type Proxied, TcpProxy } from "./tcp-proxy.ts";

const READY_MS = 30_000;
/** For tests in which no correct leader is to be blamed for a machine that stands still for a second or two. */
export const PATIENT = { settings: { requestTimeoutMs: 5_000 } };
/** Below the ports that systems give to outgoing connections. */
const PORTS = { from: 10_000, blocks: 50, size: 100 };
const PORTS_PER_REPLICA = 10;

/** What cluster.json announces. */
const HOST = "127.0.0.1";
/** Where replicas behind a proxy listen, on the same ports. */
const HOST_BEHIND = "127.0.0.2";
/** Every address of 127.0.0.0/8 is there without being set up. */
export const PROXY_WORKS = process.platform === "linux";

/** The first port of a block in which a cluster of `replicas` finds every port free; the block is ours until the test ends. */
export async function freeBasePort(replicas: number): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    // Test files that run at the same time stay out of each other's way: a killed replica's ports look free.
    const block = 2 * Math.floor(Math.random() * PORTS.blocks) + (Number(process.env.VITEST_POOL_ID) % 2);
    const base = PORTS.from + PORTS.size * block;
    const wanted = Array.from({ length: replicas }, (_, id) => base + PORTS_PER_REPLICA * id).flatMap((port) => [
      { host: HOST, port },
      { host: HOST, port: port + 1 },
      { host: HOST, port: port + 2 },
    ]);
    // The last port of the block is held, by one test run at a time, before anybody looks at the others.
    const claimed = await occupy(base + PORTS.size - 1).then(
      () => true,
      () => false,
    );
    if (claimed && (await firstTaken(wanted)) === null) return base;
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
  readonly faultModel: string;
  readonly rotation: number;
  readonly onProbation: readonly number[];
  readonly decided: number;
  readonly executed: number;
  readonly revision: string;
  readonly historyDigest: string;
  readonly state: string;
  readonly peers: readonly { readonly replica: number; readonly connected: boolean; readonly decided: number | null }[];
  readonly queues: Readonly<Record<string, number>>;
  readonly requests: Readonly<Record<string, number>>;
  readonly recovery: { readonly phase: string; readonly donor: number | null; readonly bytes: number } | null;
  readonly alarms: readonly { readonly code: string; readonly detail: string }[];
  readonly checkpoints?: {
    readonly newest: { readonly instance: number; readonly root: string } | null;
    readonly computing: boolean;
  };
  readonly log?: { readonly first: number; readonly last: number; readonly bytes: number };
  readonly disk: {
    readonly journalBytes: number;
    readonly stateBytes: number;
    readonly asideBytes: number;
    readonly low: boolean;
  };
}

export interface NewCluster {
  readonly replicas?: number;
  readonly mode?: Mode;
  readonly clients?: "open" | "listed";
  readonly signedRequests?: boolean;
  /** Instances in a leader's turn: the malicious fault model, in which requests are signed. */
  readonly rotation?: number;
  /** Every link between replicas runs through `TestCluster.proxy`; clients and admin HTTP do not. */
  readonly proxied?: boolean;
  /** Settings for every replica. */
  readonly settings?: Partial<NodeFile>;
}

/** Beside cluster.json, with the addresses that clients use when a proxy stands at the announced ones. */
const REACHED = "reached.json";

function frontsOf(announced: ClusterFile, reached: ClusterFile): Proxied[] {
  return announced.members.map(({ id, host, peerPort }, index) => ({
    id,
    front: { host, port: peerPort },
    back: { host: reached.members[index]?.host ?? host, port: peerPort },
  }));
}

export class TestCluster {
  readonly folder: string;
  readonly directory: string;
  /** As clients and this test reach the replicas. */
  readonly file: ClusterFile;
  #proxy: TcpProxy | null = null;
  readonly #servers = new Map<number, Program>();
  readonly #connections = new Set<{ close(): Promise<void> }>();

  private constructor(folder: string, file: ClusterFile) {
    this.folder = folder;
    this.directory = join(folder, "cluster");
    this.file = file;
  }

  /** The files of a new cluster; nothing runs yet. */
  static async create(options: NewCluster = {}): Promise<TestCluster> {
    const {
      replicas = 4,
      mode = "bft",
      clients = "open",
      signedRequests = false,
      proxied = false,
      settings = {},
    } = options;
    const { rotation } = options;
    compiled("server/main");
    const folder = temporaryFolder();
    const directory = join(folder, "cluster");
    const written = await writeCluster({
      directory,
      replicas,
      mode,
      hosts: [HOST],
      basePort: await freeBasePort(replicas),
      clients,
      signedRequests: signedRequests || rotation !== undefined,
      ...(rotation === undefined ? {} : { faultModel: "malicious", rotation }),
    });
    const host = proxied ? HOST_BEHIND : HOST;
    const file = { ...written, members: written.members.map((member) => ({ ...member, host })) };
    if (proxied) writeFileSync(join(directory, REACHED), clusterFileText(file));
    const cluster = new TestCluster(folder, file);
    for (const id of cluster.ids) cluster.#configure(id, { ...settings, ...(proxied ? { listen: { host } } : {}) });
    if (proxied) cluster.#proxy = await TcpProxy.open(frontsOf(written, file));
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
    return join(this.directory, this.#proxy ? REACHED : "cluster.json");
  }

  /** The network between the replicas, of a cluster that was created with `proxied`. */
  get proxy(): TcpProxy {
    if (!this.#proxy) throw new Error("this cluster was created without a proxy");
    return this.#proxy;
  }

  #configure(replica: number, settings: Partial<NodeFile>): void {
    const path = join(this.home(replica), "node.yaml");
    const node = parseYaml(readFileSync(path, "utf8")) as NodeFile;
    writeFileSync(path, yamlText({ ...node, ...settings }));
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
  async http(replica: number, path: string, timeoutMs = 10_000): Promise<{ code: number; text: string }> {
    const { host, adminPort } = this.member(replica);
    const signal = AbortSignal.timeout(timeoutMs);
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

  async status(replica: number, timeoutMs = 10_000): Promise<Status> {
    const { code, text } = await this.http(replica, "/status", timeoutMs);
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
    await this.#proxy?.close();
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
