/**
 * The decided log, executed once more by the production executor (server/service) as the cluster decides it, and what
 * came out: which request was executed where, each mutation of the store by its revision, each reply. Checkers of effects
 * listen here. A spy between executor and service sees every command that really runs, whatever the client table says.
 */
import type { Digest } from "../../../protocol/bytes.ts";
import { decodeResult } from "../../../protocol/commands.ts";
import type { Crypto } from "../../../protocol/crypto/contract.ts";
import type { Request } from "../../../protocol/request.ts";
import type { ClientTableLimits } from "../../../server/service/client-table.ts";
import type { ExecutionContext, Service, ServiceState } from "../../../server/service/contract.ts";
import { Executor, type Founding, type OrderedReply } from "../../../server/service/executor.ts";
import { KvService } from "../../../server/service/kv-service.ts";

/** Groups are taken this often, so that what the executor remembers for the disk stays small. */
const INSTANCES_PER_GROUP = 64;

/** A service whose every mutation raises a revision, as the key-value store's does. */
export interface RevisedService extends Service {
  readonly revision: number;
  grows(command: Uint8Array): boolean;
}

export interface ReplayOptions {
  readonly crypto: Crypto;
  readonly cluster: Digest;
  /** h(0). */
  readonly genesis: Digest;
  readonly maxClients: number;
  /** Default: everybody may do everything, nobody administers. */
  readonly founding?: Pick<Founding, "clients" | "administrators" | "view">;
  readonly limits?: Partial<Omit<ClientTableLimits, "maxClients">>;
  readonly service?: (state: ServiceState) => RevisedService;
}

export interface DecidedInstance {
  readonly instance: number;
  readonly digest: Digest;
  readonly timestampMs?: number;
  readonly requests: readonly Request[];
}

/** One command that the service ran. */
export interface ExecutedCommand {
  readonly instance: number;
  readonly client: Digest;
  readonly command: Uint8Array;
  readonly result: Uint8Array;
  /** The store revision after it. */
  readonly revision: number;
}

export interface ReplayedRequest {
  readonly reply: OrderedReply;
  /** The instance in which it was judged. */
  readonly instance: number;
  /** The commands of it that the service ran; none when the client table answered. */
  readonly commands: readonly ExecutedCommand[];
}

export interface ReplayListener {
  /** Before a command runs: the state is still the one at `service.revision`. */
  before?(service: RevisedService): void;
  replayed?(request: ReplayedRequest): void;
}

export class Replay {
  readonly #executor: Executor;
  readonly #stored = new Map<string, Uint8Array>();
  readonly #listeners: ReplayListener[] = [];
  /** Decided instances beyond the next one. */
  readonly #waiting = new Map<number, DecidedInstance>();
  /** What ran in the current batch, by the command's own bytes in its request. */
  #ran = new Map<Uint8Array, ExecutedCommand>();
  readonly #service: RevisedService;

  constructor(options: ReplayOptions) {
    const { crypto, cluster, genesis, maxClients, limits = {} } = options;
    const { founding = { clients: "open", administrators: { keys: [], threshold: 1 } } } = options;
    const create = options.service ?? ((state: ServiceState): RevisedService => new KvService(state));
    let inner: RevisedService | undefined;
    this.#executor = new Executor({
      crypto,
      cluster,
      ...founding,
      maxClients,
      limits,
      stored: this.#stored,
      applied: { instance: 0, digest: genesis, timestampMs: 0 },
      service: (state) => {
        inner = create(state);
        return this.#spyOn(inner);
      },
    });
    if (inner === undefined) throw new Error("the executor created no service");
    this.#service = inner;
  }

  listen(listener: ReplayListener): void {
    this.#listeners.push(listener);
  }

  /** The last replayed instance. */
  get instance(): number {
    return this.#executor.applied.instance;
  }

  /** The service as the log leaves it. */
  get service(): RevisedService {
    return this.#service;
  }

  /** The same instance may come from every replica: it is replayed once, in its turn. */
  decided(event: DecidedInstance): void {
    if (event.instance <= this.instance) return;
    this.#waiting.set(event.instance, event);
    for (;;) {
      const next = this.#waiting.get(this.instance + 1);
      if (!next) return;
      this.#waiting.delete(next.instance);
      this.#execute(next);
    }
  }

  #execute(event: DecidedInstance): void {
    const { instance, digest, requests, timestampMs } = event;
    if (timestampMs === undefined) throw new Error("a decided instance without its batch's time cannot be replayed");
    this.#ran = new Map();
    const replies = this.#executor.execute({ instance, timestampMs, requests }, digest);
    for (const reply of replies) {
      const ran = reply.request.commands.map((command) => this.#ran.get(command));
      const commands = ran.filter((executed) => executed !== undefined);
      for (const listener of this.#listeners) listener.replayed?.({ reply, instance, commands });
    }
    if (instance % INSTANCES_PER_GROUP === 0) this.#writeGroup();
  }

  #spyOn(inner: RevisedService): RevisedService {
    return {
      load: (key, value) => inner.load(key, value),
      query: (command) => inner.query(command),
      grows: (command) => inner.grows(command),
      ...(inner.accessRules ? { accessRules: inner.accessRules } : {}),
      get revision(): number {
        return inner.revision;
      },
      execute: (command: Uint8Array, context: ExecutionContext): Uint8Array => {
        for (const listener of this.#listeners) listener.before?.(inner);
        const result = inner.execute(command, context);
        const { instance, client } = context;
        this.#ran.set(command, { instance, client, command, result, revision: inner.revision });
        return result;
      },
    };
  }

  #writeGroup(): void {
    const group = this.#executor.takeGroup();
    for (const [key, value] of group?.changes ?? []) {
      if (value) this.#stored.set(key, value);
      else this.#stored.delete(key);
    }
    if (group) this.#executor.groupDurable();
  }
}

/** The revision of the mutation that a result stands for, or null when the command changed nothing. */
export function mutationOf(result: Uint8Array): number | null {
  const decoded = decodeResult(result);
  if (decoded.type === "written") return decoded.modRevision;
  return decoded.type === "deleted" ? decoded.revision : null;
}
