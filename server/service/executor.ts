/**
 * The deterministic execution of decided batches (docs/protocol.md section 3 and section 4 step 5): each request of a batch
 * is judged by the client table, executed by the service at most once, and answered. The same history gives the same
 * state, byte for byte, on every replica and after every restart, however its groups were cut.
 */
import {
  type AdministrationResult,
  type Administrators,
  administratorsOf,
  reconfigures,
  type Statement,
} from "../../protocol/administration.ts";
import type { Batch } from "../../protocol/batch.ts";
import type { Digest } from "../../protocol/bytes.ts";
import type { Cluster } from "../../protocol/cluster.ts";
import { encodeResults } from "../../protocol/commands.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { assert, assertNever, Malformed, QuorateError } from "../../protocol/errors.ts";
import { ALL_RIGHTS, type Rights } from "../../protocol/grants.ts";
import type { Request } from "../../protocol/request.ts";
import type { View } from "../../protocol/view.ts";
import { ADMINISTRATION_KEY, Administration, administrationRefused, statementOf } from "./administration.ts";
import type { Answer, BatchPlace } from "./client-records.ts";
import { CLIENT_TABLE_LIMITS, ClientTable, type ClientTableLimits } from "./client-table.ts";
import type { Position, Service, ServiceFactory, StoredState } from "./contract.ts";
import { Grants, mayDoAll, mayReadAll, permits } from "./grants.ts";
import { Membership, VIEW_KEY } from "./membership.ts";
import { type Changes, GRANT_SPACE, ReplicatedState, SERVICE_SPACE, ServiceSpace } from "./state.ts";

const MIB = 1024 * 1024;
/** Results of one request after which nothing large is added: with one more result at most, its reply fits a frame. */
export const REQUEST_RESULTS_BYTES_MAX = 4 * MIB;
/** Results of one batch after which nothing large is added: they are made and hashed in one turn, while nobody else is served. */
export const BATCH_RESULTS_BYTES_MAX = 32 * MIB;

/** The answer to one ordered request. */
export interface OrderedReply extends Answer {
  readonly request: Request;
}

/** What execution needs to know of the cluster's founding. */
export interface Founding {
  readonly cluster: Digest;
  /** Client ids with all rights, or everybody. */
  readonly clients: "open" | ReadonlySet<Digest>;
  readonly administrators: Administrators;
  /** The first view: the state holds the one in force. Without it views do not change. */
  readonly view?: View;
  readonly maxClients: number;
}

export function foundingOf({ id, clients, view, maxClients }: Cluster): Founding {
  return { cluster: id, clients, administrators: administratorsOf(view), view, maxClients };
}

export interface ExecutorOptions extends Founding {
  readonly crypto: Crypto;
  readonly stored: StoredState;
  /** Where the stored state stands. */
  readonly applied: Position;
  readonly service: ServiceFactory;
  /** Replicated constants; the protocol's unless a test says otherwise. */
  readonly limits?: Partial<Omit<ClientTableLimits, "maxClients">>;
}

/** Changes of whole instances, to be written in one atomic synced batch, and where the state then stands. */
export interface Group {
  readonly changes: Changes;
  readonly applied: Position;
}

interface MutablePlace extends BatchPlace {
  index: number;
}

/** What one command is executed in; one object per batch, as a service keeps no context beyond its call. */
interface Context {
  readonly instance: number;
  readonly timestampMs: number;
  client: Digest;
  replyFull: boolean;
}

export class Executor {
  readonly #cluster: Digest;
  readonly #state: ReplicatedState;
  readonly #clients: ClientTable;
  readonly #administration: Administration;
  readonly #grants: Grants;
  readonly #membership: Membership | null;
  readonly #service: Service;
  #applied: Position;
  /** The instance the last group taken stands at. */
  #takenInstance: number;

  constructor(options: ExecutorOptions) {
    this.#cluster = options.cluster;
    this.#state = new ReplicatedState(options.stored);
    const { maxClients, limits } = options;
    this.#clients = new ClientTable(options.crypto, { ...CLIENT_TABLE_LIMITS, ...limits, maxClients });
    const { crypto, cluster } = options;
    this.#membership = options.view ? new Membership(crypto, options.view) : null;
    this.#administration = new Administration({
      crypto,
      cluster,
      administrators: () => (this.#membership ? administratorsOf(this.#membership.view) : options.administrators),
      carryOut: (statement, place) => this.#carryOut(statement, place),
    });
    this.#grants = new Grants({ crypto, clients: options.clients, maxClients });
    this.#service = options.service(new ServiceSpace(this.#state));
    this.#applied = options.applied;
    this.#takenInstance = options.applied.instance;
  }

  /**
   * One stored entry: every one of them, in key order, before anything else.
   * @throws QuorateError STORAGE_DAMAGED when it is none that a group ever held.
   */
  load(key: string, value: Uint8Array): void {
    try {
      if (key.startsWith(SERVICE_SPACE)) this.#service.load(key.slice(SERVICE_SPACE.length), value);
      else if (key.startsWith(GRANT_SPACE)) this.#grants.load(key, value);
      else if (key === ADMINISTRATION_KEY) this.#administration.load(value);
      else if (key === VIEW_KEY) this.#membership?.load(value);
      else this.#clients.load(key, value);
    } catch (cause) {
      if (!(cause instanceof Malformed)) throw cause;
      const message =
        "the stored state holds an entry that was never written; rebuild it from the journal or from peers";
      throw new QuorateError("STORAGE_DAMAGED", message, { key: [...key].map((byte) => byte.charCodeAt(0)) }, cause);
    }
  }

  /** The last executed instance, its history digest and its batch's time. */
  get applied(): Position {
    return this.#applied;
  }

  get revision(): number {
    return this.#service.revision ?? this.#applied.instance;
  }

  /** The view in force after the last executed instance. */
  get view(): View {
    assert(this.#membership, "an executor that has no first view has none later");
    return this.#membership.view;
  }

  /** Clients in the replicated client table. */
  get clients(): number {
    return this.#clients.size;
  }

  /** Who may be a client, and what it may do, as of the last executed instance. */
  get grants(): Grants {
    return this.#grants;
  }

  /** May this client be one at batch time, or at a later time? */
  permits(client: Digest, atMs = 0): boolean {
    return this.#grants.rightsOf(client, Math.max(atMs, this.#applied.timestampMs)) !== null;
  }

  /** May this client read the whole state, at batch time or a later time? */
  permitsAll(client: Digest, atMs: number): boolean {
    const rights = this.#grants.rightsOf(client, Math.max(atMs, this.#applied.timestampMs));
    return rights !== null && mayReadAll(rights);
  }

  /** Executes the next decided batch: one answer per request, in order. `digest` is h(instance). */
  execute(batch: Batch, digest: Digest): OrderedReply[] {
    const { instance, timestampMs, requests } = batch;
    assert(instance === this.#applied.instance + 1, "batches are executed in order, each once");
    assert(timestampMs >= this.#applied.timestampMs, "batch time never goes back: whoever voted checked it");
    this.#clients.beginBatch(timestampMs);
    const place: MutablePlace = { instance, timestampMs, index: 0 };
    const context: Context = { instance, timestampMs, client: "" as Digest, replyFull: false };
    const replies: OrderedReply[] = [];
    let roomBytes = BATCH_RESULTS_BYTES_MAX;
    this.#beginBatch(batch);
    for (const request of requests) {
      if (this.#membership && reconfigures(request)) {
        replies.push({ request, ...this.#clients.answerOf(this.#membership.execute(batch, request), instance) });
        place.index += 1;
        continue;
      }
      const { status, instance: at, resultDigest, result } = this.#answer(request, place, context, roomBytes);
      if (result) roomBytes -= result.length;
      replies.push({ request, status, instance: at, resultDigest, result });
      place.index += 1;
    }
    this.#service.endBatch?.();
    this.#applied = { instance, digest, timestampMs };
    return replies;
  }

  /**
   * At intake: the answer to a request that was executed, cancelled, finished or expired before, or whose sequence is
   * another request's. Null: it must be ordered. Changes nothing.
   */
  lookup(request: Request): OrderedReply | null {
    if (request.cluster !== this.#cluster) return null;
    const answer = this.#known(request);
    if (answer === null) return null;
    const { status, instance, resultDigest, result } = answer;
    return { request, status, instance, resultDigest, result };
  }

  #known(request: Request): Answer | null {
    const { instance } = this.#applied;
    if (request.kind === "ordered") return this.#clients.lookup(request, instance);
    const keeper = this.#membership && reconfigures(request) ? this.#membership : this.#administration;
    const result = keeper.lookup(request);
    return result && this.#clients.answerOf(result, instance);
  }

  /**
   * Answers all commands of an unordered request against the last executed state. Null: order it instead, because some
   * command is no query or because the results would not fit one reply.
   */
  query(request: Request): { readonly result: Uint8Array; readonly revision: number } | null {
    const rights = this.#grants.rightsOf(request.client, this.#applied.timestampMs);
    if (rights === null || !this.#maySpeak(rights)) return null;
    const results: Uint8Array[] = [];
    let bytes = 0;
    for (const command of request.commands) {
      if (bytes >= REQUEST_RESULTS_BYTES_MAX) return null;
      const result = this.#refusalFor(rights, command) ?? this.#service.query(command);
      if (result === null) return null;
      bytes += result.length;
      results.push(result);
    }
    return { result: encodeResults(results), revision: this.revision };
  }

  /** Is the statement of an `administer` request signed by the administrators in force? */
  proven(request: Request): boolean {
    const signed = statementOf(request);
    return signed !== null && this.#administration.proven(signed);
  }

  /** Would any command of this request add to the state? */
  grows(request: Request): boolean {
    return request.kind === "ordered" && request.commands.some((command) => this.#service.grows?.(command) ?? true);
  }

  /** Everything executed since the last group was taken, or null when nothing was. `changes` may be empty. */
  takeGroup(): Group | null {
    if (this.#takenInstance === this.#applied.instance) return null;
    this.#takenInstance = this.#applied.instance;
    this.#clients.writeChanges(this.#state);
    this.#administration.writeChanges(this.#state);
    this.#grants.writeChanges(this.#state);
    this.#membership?.writeChanges(this.#state);
    return { changes: this.#state.takeGroup(), applied: this.#applied };
  }

  /** The oldest group taken and not yet reported is on disk. */
  groupDurable(): void {
    this.#state.groupDurable();
  }

  /** Shows the service the batch, but for what is between the client table and a client. */
  #beginBatch({ instance, timestampMs, requests }: Batch): void {
    if (!this.#service.beginBatch) return;
    const ordered = requests.filter(({ kind }) => kind === "ordered");
    this.#service.beginBatch({ instance, timestampMs, requests: ordered });
  }

  #answer(request: Request, place: BatchPlace, context: Context, roomBytes: number): Answer {
    // Unreachable as long as voters check requests; answered all the same, as an assertion must not hang on a client's bytes.
    if (request.cluster !== this.#cluster) return this.#clients.refusal("CLUSTER_MISMATCH", place.instance);
    if (request.kind === "unordered") return this.#clients.refusal("INVALID_ARGUMENT", place.instance);
    if (request.kind === "administer") {
      return this.#clients.answerOf(this.#administration.execute(request, place), place.instance);
    }
    const rights = this.#grants.rightsOf(request.client, place.timestampMs);
    if (rights === null || !this.#maySpeak(rights)) return this.#strangersAnswer(request, place.instance);
    if (request.kind === "resolve") return this.#clients.resolve(request, place);
    const judgement = this.#clients.judge(request, place);
    if (!judgement.execute) return judgement.answer;
    context.client = request.client;
    const result = this.#executeCommands(request, rights, context, Math.min(roomBytes, REQUEST_RESULTS_BYTES_MAX));
    return this.#clients.record(judgement.session, request, place, result);
  }

  /** Nothing is opened or consumed for whoever may not be a client; what was executed while he was one is told. */
  #strangersAnswer(request: Request, instance: number): Answer {
    const known = request.kind === "ordered" ? this.#clients.lookup(request, instance) : null;
    return known ?? this.#clients.refusal("NOT_PERMITTED", instance);
  }

  /** A service that does not say which keys a command touches is for clients with all rights. */
  #maySpeak(rights: Rights): boolean {
    return this.#service.accessRules !== undefined || mayDoAll(rights);
  }

  /** The result of a command that its client has no right to, or null when it has. */
  #refusalFor(rights: Rights, command: Uint8Array): Uint8Array | null {
    const rules = this.#service.accessRules;
    if (rights === ALL_RIGHTS || rules === undefined) return null;
    const access = rules.access(command);
    return access === null || permits(rights, access) ? null : rules.notPermitted;
  }

  #executeCommands(request: Request, rights: Rights, context: Context, roomBytes: number): Uint8Array {
    const results: Uint8Array[] = [];
    let left = roomBytes;
    for (const command of request.commands) {
      context.replyFull = left <= 0;
      const result = this.#refusalFor(rights, command) ?? this.#service.execute(command, context);
      left -= result.length;
      results.push(result);
    }
    return encodeResults(results);
  }

  #carryOut({ type, body }: Statement, { timestampMs: nowMs }: BatchPlace): AdministrationResult {
    switch (type) {
      case "reconfigure":
        return administrationRefused("INVALID_ARGUMENT", "this release does not change the membership");
      case "grant":
        return this.#grants.grant(body, nowMs);
      case "revoke": {
        const { result, client } = this.#grants.revoke(body);
        if (client !== null) this.#clients.forget(client);
        return result;
      }
      case "list":
        return this.#grants.list(body, { nowMs, number: this.#administration.number });
      case "invite":
        return administrationRefused(
          "INVALID_ARGUMENT",
          "an invitation is not ordered: members take it at their admin ports",
        );
      default:
        return assertNever(type);
    }
  }
}
