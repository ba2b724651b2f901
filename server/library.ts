/**
 * The public face of the server (docs/library.md): `Replica` runs one replica of a replicated service in this process, `serve` is
 * the whole life of a process that does nothing else. `kv-server` is `serve` with the key-value service.
 */
import { QuorateError } from "../protocol/errors.ts";
import { loadServerConfig, type ServerConfig } from "./config.ts";
import type { DriverLogger } from "./driver-contract.ts";
import { eraseKeys, RETIRED_SUFFIX } from "./erase-keys.ts";
import { openLogger } from "./logger.ts";
import { type Replier, RequestHooks, type RequestVerifier } from "./request-hooks.ts";
import { type RunningServer, startServer } from "./server.ts";
import type { ServiceFactory } from "./service/contract.ts";
import type { ReplicaStatus } from "./status.ts";

const READY_POLL_MS = 50;
const EXIT_FAILED = 1;

export interface ReplicaOptions {
  /** The replica's node.yaml as `kv init` writes it: its path, or loaded and checked (`loadServerConfig`). */
  readonly config: string | ServerConfig;
  /** What is replicated. The same on every replica, like everything that decides a result. */
  readonly service: ServiceFactory;
  /** Refuses requests before they are ordered. */
  readonly verifier?: RequestVerifier | undefined;
  /** Hears of replies, and may withhold them. */
  readonly replier?: Replier | undefined;
  /** JSON lines on stderr, at the configured level, by default. */
  readonly logger?: DriverLogger | undefined;
}

/**
 * One running replica.
 *
 * @example
 * ```ts
 * const replica = await Replica.start({ config: ".kv/replica-0/node.yaml", service: (state) => new Counter(state) });
 * await replica.ready();
 * console.log((await replica.status()).state); // "voting"
 * await replica.stop();
 * ```
 */
export class Replica implements AsyncDisposable {
  readonly #server: RunningServer;
  readonly #config: ServerConfig;
  #stopped = false;
  #failure: { readonly error: unknown } | null = null;

  private constructor(server: RunningServer, config: ServerConfig) {
    this.#server = server;
    this.#config = config;
    void server.failed.then((error) => {
      this.#failure = { error };
    });
  }

  /**
   * Opens the data directory and listens; resolves when that stands. Whether the replica votes yet, `ready` and `status` say.
   * @throws QuorateError CONFIG_*, KEY_FILE_*, REPLICA_RETIRED, STORAGE_*, CLUSTER_MISMATCH, PORT_IN_USE, SNAPSHOT_INVALID
   */
  static async start(options: ReplicaOptions): Promise<Replica> {
    const { service, verifier, replier } = options;
    const config = typeof options.config === "string" ? loadServerConfig(options.config) : options.config;
    const logger = options.logger ?? openLogger({ level: config.logLevel, replica: config.replica });
    const hooks = new RequestHooks({ verifier, replier, logger });
    return new Replica(await startServer(config, logger, { service, hooks }), config);
  }

  /** Its id in the cluster file. */
  get id(): number {
    return this.#config.replica;
  }

  /** Where it listens. */
  get addresses(): RunningServer["addresses"] {
    return this.#server.addresses;
  }

  /** Resolves, with the reason, when this replica can no longer keep its promises: end the process. */
  get failed(): Promise<unknown> {
    return this.#server.failed;
  }

  /**
   * Resolves once it is recovered, connected to a quorum and not far behind: what `/readyz` says.
   * @throws QuorateError ABORTED, CLOSED; and what `failed` resolves with
   */
  async ready(options: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    const { signal } = options;
    while (!this.#server.health.readyz().ok) {
      if (this.#failure) throw this.#failure.error;
      if (this.#stopped) throw new QuorateError("CLOSED", "the replica was stopped before it was ready");
      if (signal?.aborted) throw new QuorateError("ABORTED", "aborted by the caller's signal", {}, signal.reason);
      await new Promise<void>((resolve) => setTimeout(resolve, READY_POLL_MS));
    }
  }

  /** Resolves, with the view it is not in, when this replica is no member any more and nobody needs it: stop it, and call `eraseKeys`. */
  get retired(): Promise<number> {
    return this.#server.retired;
  }

  /** Erases its secret keys from the disk, and leaves a note of that: it can sign for nobody any more. */
  eraseKeys(): void {
    eraseKeys(this.#config.keyPath);
  }

  /** What it says about itself. */
  status(): Promise<ReplicaStatus> {
    return this.#server.health.status();
  }

  /** A clean stop: gives what is pending a moment, journals what was sent, closes everything. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#server.stop();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/**
 * Runs a replica until SIGTERM or SIGINT, a second of which ends the process at once: JSON logs on stderr (pretty on a
 * terminal), one ready line on stdout. Resolves with the exit code: 0 after a clean stop, also of a replica that was removed from
 * the cluster, whose secret keys are erased then; 1 when the replica could no longer keep
 * its promises.
 * @throws QuorateError as `Replica.start`
 * @example
 * ```ts
 * process.exit(await serve({ config: "node.yaml", service: (state) => new Counter(state) }));
 * ```
 */
export async function serve(options: ReplicaOptions): Promise<number> {
  const config = typeof options.config === "string" ? loadServerConfig(options.config) : options.config;
  const logger = options.logger ?? openLogger({ level: config.logLevel, replica: config.replica });
  const stopping = stopRequest();
  const replica = await Replica.start({ ...options, config, logger });
  const { clients, peers, http } = replica.addresses;
  process.stdout.write(`ready replica=${replica.id} clients=${clients} peers=${peers} http=${http}\n`);
  const retired = replica.retired.then((view) => ({ view }));
  const ended = await Promise.race([stopping, retired, replica.failed.then((error) => ({ error }))]);
  if (typeof ended === "object" && "error" in ended) {
    const { error } = ended;
    const code = error instanceof QuorateError ? { code: error.code } : {};
    logger.error({ ...code, error: String(error) }, "halted: this replica can no longer keep its promises");
    return EXIT_FAILED;
  }
  logger.info({ signal: typeof ended === "string" ? ended : "retired" }, "stopping");
  await replica.stop();
  if (typeof ended === "object") {
    replica.eraseKeys();
    const { view } = ended;
    const left = `${config.keyPath}${RETIRED_SUFFIX}`;
    logger.info({ view }, `removed from the cluster, no member of view ${view}; secret keys erased, ${left} left`);
    process.stdout.write(`retired replica=${replica.id}: no member any more; its secret keys are erased\n`);
  }
  logger.info({}, "stopped");
  return 0;
}

/** Resolves with what asks for a stop first. */
function stopRequest(): Promise<string> {
  return new Promise((resolve) => {
    let asked = false;
    const ask = (signal: string): void => {
      if (asked) process.exit(EXIT_FAILED);
      asked = true;
      resolve(signal);
    };
    process.on("SIGTERM", () => ask("SIGTERM"));
    process.on("SIGINT", () => ask("SIGINT"));
    if (process.env.QUORATE_STOP_ON_STDIN_END === "1") {
      process.stdin.on("end", () => resolve("stdin")).on("error", () => resolve("stdin"));
      process.stdin.resume();
    }
  });
}
