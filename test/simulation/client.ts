/**
 * One correct client of a simulated world: the production SDK on a simulated transport and clock, and callers that issue a
 * seeded mix of commands on few keys, alone and in bundles. Every written value is unique. What callers experienced is
 * recorded call by call.
 */
import { UnknownOutcomeError } from "../../client/errors.ts";
import type { Kv } from "../../client/kv.ts";
import { open } from "../../client/open.ts";
import type { Clock, Transport } from "../../client/ports.ts";
import { SessionNumbers } from "../../client/session-numbers.ts";
import type { ViewStore } from "../../client/view-follower.ts";
import { type Digest, utf8 } from "../../protocol/bytes.ts";
import type { ClusterFile } from "../../protocol/cluster.ts";
import { type Command, decodeResult, encodeCommand, type Result } from "../../protocol/commands.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { QuorateError } from "../../protocol/errors.ts";
import { clientIdOf } from "../../protocol/identity.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import { encodeChain, type ViewChain } from "../../protocol/view-chain.ts";
import type { RunObserver } from "./checkers/events.ts";
import { identityOf } from "./crypto.ts";
import { fastCrypto } from "./fast-crypto.ts";
import { WALL_START_MS } from "./machine.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Trace } from "./trace.ts";

/** One command of one caller. */
export interface CallRecord {
  readonly client: number;
  readonly command: Command;
  readonly callUs: number;
  returnUs: number;
  /** "unknown": it may have been executed, or may be yet. "failed": it never was and never will be, or was a read. */
  outcome: "ok" | "unknown" | "failed";
  result: Result | null;
}

export interface Workload {
  /** Commands of all callers of a client together. */
  readonly commands: number;
  readonly callers: number;
  readonly keys: number;
  readonly thinkUs: number;
  readonly burstMax: number;
  readonly readShare: number;
  readonly orderedReadShare: number;
  readonly timeoutMs: number;
}

export interface ClientParts {
  readonly number: number;
  readonly file: ClusterFile;
  readonly crypto: Crypto;
  readonly scheduler: Scheduler;
  readonly trace: Trace;
  readonly transport: Transport;
  readonly observer: RunObserver;
  readonly workload: Workload;
  /** All calls of the world, in the order in which they were made. */
  readonly calls: CallRecord[];
  readonly signed: boolean;
}

const RETRY_US = 200_000;
const PATIENT_TIMEOUT_MS = 4_000;

interface Unresolved {
  readonly call: CallRecord;
  readonly bytes: Uint8Array;
  readonly error: UnknownOutcomeError;
}

export function simulatedClientId(number: number): Digest {
  return clientIdOf(fastCrypto, identityOf(`client ${number}`));
}

export class SimulatedClient {
  readonly id: Digest;
  readonly #parts: ClientParts;
  readonly #numbers = new SessionNumbers();
  readonly #clock: Clock;
  readonly #revisions = new Map<string, number>();
  readonly #unresolved: Unresolved[] = [];
  /** A file: what it followed outlives its process. All members that its cluster file names may have been replaced by then. */
  readonly #views: ViewStore;
  #stored: Uint8Array | null = null;
  #kv: Kv<string> | null = null;
  #left: number;
  #callersBusy = 0;
  #values = 0;
  #quiet = false;
  /** Milliseconds its wall clock is ahead. */
  skewMs = 0;
  finished = false;

  constructor(parts: ClientParts) {
    this.#parts = parts;
    this.#left = parts.workload.commands;
    this.#views = {
      load: () => this.#stored,
      save: (bytes) => {
        this.#stored = bytes;
      },
    };
    this.id = clientIdOf(parts.crypto, identityOf(`client ${parts.number}`));
    const { scheduler } = parts;
    this.#clock = {
      monotonicMs: () => scheduler.nowUs / 1000,
      wallMs: () => WALL_START_MS + scheduler.nowUs / 1000 + this.skewMs,
      after: (delayMs, run) => scheduler.after(delayMs * 1000, run),
      turnEnd: (run) => void scheduler.after(scheduler.random.below(50), run),
      random: () => scheduler.random.next(),
    };
  }

  /** All commands were issued and answered, or given up. */
  get idle(): boolean {
    return this.#callersBusy === 0;
  }

  get connected(): boolean {
    return this.#kv !== null;
  }

  start(): void {
    this.#guard(this.#connect());
    for (let caller = 0; caller < this.#parts.workload.callers; caller++) {
      this.#callersBusy++;
      this.#guard(
        this.#call().finally(() => {
          this.#callersBusy--;
        }),
      );
    }
  }

  /** The process ends and another begins: what was pending is lost to its callers, the new session knows nothing of it. */
  restart(): void {
    const kv = this.#kv;
    if (!kv) return;
    this.#kv = null;
    this.#guard(kv.close());
    this.#guard(this.#connect());
  }

  /**
   * Was away for so long that nobody it knows of is left to tell it who came after them: it is given the views as operators are
   * told to (docs/operations.md), and starts again.
   */
  returns(chain: ViewChain, live: readonly ReplicaId[]): void {
    const known = this.#kv?.service.view ?? chain.of(0);
    if (known?.members.some(({ id }) => live.includes(id))) return;
    this.#parts.trace.count("client: given the views anew");
    this.#stored = encodeChain(chain);
    this.restart();
  }

  /** After the world healed: settles every write of unknown outcome, then writes and reads once more, however long it takes. */
  finish(): void {
    this.#guard(this.#finish());
  }

  /** One more write, however long it takes. */
  write(): void {
    this.finished = false;
    const written = this.#patiently("put").then(() => {
      this.finished = true;
    });
    this.#guard(written);
  }

  async close(): Promise<void> {
    await this.#kv?.close();
  }

  #guard(work: Promise<unknown>): void {
    work.catch((error: unknown) => this.#parts.scheduler.fail(error));
  }

  async #connect(): Promise<void> {
    const { file, crypto, transport, scheduler, number, signed } = this.#parts;
    const identity = identityOf(`client ${number}`);
    for (;;) {
      try {
        this.#kv = await open<string>({
          cluster: file,
          identity,
          crypto,
          transport,
          clock: this.#clock,
          sessionNumbers: this.#numbers,
          timeoutMs: 3_000,
          signed,
          views: this.#views,
        });
        return;
      } catch (error) {
        if (!(error instanceof QuorateError)) throw error;
      }
      await scheduler.sleep(RETRY_US);
    }
  }

  async #connection(): Promise<Kv<string>> {
    while (!this.#kv) await this.#parts.scheduler.sleep(RETRY_US);
    return this.#kv;
  }

  async #call(): Promise<void> {
    const { scheduler, workload } = this.#parts;
    const { random } = scheduler;
    while (this.#left > 0 && !this.#quiet) {
      await scheduler.sleep(scheduler.exponential(workload.thinkUs));
      const kv = this.#kv;
      if (!kv || this.#quiet) {
        await scheduler.sleep(RETRY_US / 4);
        continue;
      }
      const count = Math.min(this.#left, 1 + random.below(workload.burstMax));
      this.#left -= count;
      const commands = Array.from({ length: count }, () => this.#command());
      await Promise.all(commands.map((command) => this.#issue(kv, command, workload.timeoutMs)));
    }
  }

  #command(): Command {
    const { scheduler, workload, number } = this.#parts;
    const { random } = scheduler;
    const name = `k${random.below(workload.keys)}`;
    const key = utf8(name);
    if (random.chance(workload.readShare)) {
      if (random.chance(0.8)) return { type: "get", key };
      const reverse = random.chance(0.5);
      return { type: "range", from: utf8("k"), to: null, limit: random.below(4), reverse, keysOnly: false };
    }
    const revision = this.#revisions.get(name) ?? 0;
    if (random.chance(0.15)) return { type: "delete", key, ifRevision: random.chance(0.3) ? revision : null };
    const value = utf8(`${number}.${++this.#values}`);
    if (random.chance(0.3)) return { type: "cas", key, expect: revision, value };
    return { type: "put", key, value, ifRevision: random.chance(0.15) ? revision : null };
  }

  async #issue(kv: Kv<string>, command: Command, timeoutMs: number): Promise<CallRecord> {
    const { scheduler, workload, trace, calls, number, observer } = this.#parts;
    const call: CallRecord = {
      client: number,
      command,
      callUs: scheduler.nowUs,
      returnUs: Number.POSITIVE_INFINITY,
      outcome: "unknown",
      result: null,
    };
    const id = calls.push(call) - 1;
    const what = `client ${number}: ${wordsOf(command)}`;
    observer.pending?.({ id, what, nowUs: scheduler.nowUs });
    trace.event("client", number, id, 0, () => `c${number} calls ${wordsOf(command)} (#${id})`);
    const reads = command.type === "get" || command.type === "range";
    const ordered = !reads || scheduler.random.chance(workload.orderedReadShare);
    const bytes = encodeCommand(command);
    try {
      const { service } = kv;
      const result = await (ordered
        ? service.invokeOrderedHashed(bytes, { timeoutMs })
        : service.invokeUnorderedHashed(bytes, { timeoutMs }));
      this.#answered(call, bytes, result);
    } catch (error) {
      if (!(error instanceof QuorateError)) throw error;
      this.#failed(call, { reads, bytes, error });
    }
    observer.finished?.({ id, nowUs: scheduler.nowUs });
    const { outcome } = call;
    trace.event("client", number, id, outcome.length, () => `c${number} #${id} ${outcome} ${resultWords(call.result)}`);
    return call;
  }

  #answered(call: CallRecord, command: Uint8Array, bytes: Uint8Array): void {
    const { observer, scheduler } = this.#parts;
    const result = decodeResult(bytes);
    call.outcome = result.type === "refused" ? "failed" : "ok";
    call.result = result;
    call.returnUs = scheduler.nowUs;
    const { callUs, returnUs } = call;
    observer.acknowledged?.({ client: this.id, command, result: bytes, callUs, returnUs });
    if (!("key" in call.command)) return;
    const name = Buffer.from(call.command.key).toString();
    if ("modRevision" in result) this.#revisions.set(name, result.modRevision);
    else if (result.type === "deleted" || result.type === "absent") this.#revisions.set(name, 0);
  }

  #failed(call: CallRecord, how: { reads: boolean; bytes: Uint8Array; error: QuorateError }): void {
    const { error, bytes, reads } = how;
    const { trace, scheduler } = this.#parts;
    trace.count(`client: ${error.code}`);
    const { outcome } = error.detail;
    const never = outcome === "not-sent" || outcome === "not-executed";
    call.outcome = reads || never ? "failed" : "unknown";
    call.returnUs = scheduler.nowUs;
    if (!reads && error instanceof UnknownOutcomeError) this.#unresolved.push({ call, bytes, error });
  }

  async #finish(): Promise<void> {
    const { observer, scheduler, number } = this.#parts;
    this.#quiet = true;
    const id = -1 - number;
    observer.pending?.({
      id,
      what: `client ${number}: whatever it left open, then a last write`,
      nowUs: scheduler.nowUs,
    });
    while (!this.idle) await scheduler.sleep(RETRY_US / 4);
    for (const unresolved of this.#unresolved.splice(0)) await this.#settle(unresolved);
    for (const type of ["put", "get"] as const) await this.#patiently(type);
    observer.finished?.({ id, nowUs: scheduler.nowUs });
    this.finished = true;
  }

  async #patiently(type: "put" | "get"): Promise<void> {
    const { scheduler, workload, number } = this.#parts;
    for (;;) {
      const key = utf8(`k${scheduler.random.below(workload.keys)}`);
      const value = utf8(`${number}.${++this.#values}`);
      const command: Command = type === "put" ? { type, key, value, ifRevision: null } : { type, key };
      const call = await this.#issue(await this.#connection(), command, PATIENT_TIMEOUT_MS);
      if (call.outcome === "ok") return;
      await scheduler.sleep(RETRY_US);
    }
  }

  /** Asks until it is known what became of a write. */
  async #settle({ call, bytes, error }: Unresolved): Promise<void> {
    const { scheduler } = this.#parts;
    for (;;) {
      const kv = await this.#connection();
      try {
        const outcome = await kv.outcome(error.requestId, { timeoutMs: PATIENT_TIMEOUT_MS });
        if (outcome.type === "replied" && outcome.status === "OK") this.#answered(call, bytes, outcome.bytes);
        else if (outcome.type === "cancelled" || outcome.type === "replied") call.outcome = "failed";
        return;
      } catch (failure) {
        if (!(failure instanceof QuorateError)) throw failure;
      }
      await scheduler.sleep(RETRY_US);
    }
  }
}

function wordsOf(command: Command): string {
  const key = "key" in command ? Buffer.from(command.key).toString() : "";
  const value = "value" in command ? ` = ${Buffer.from(command.value).toString()}` : "";
  const condition =
    "expect" in command ? ` if ${command.expect}` : "ifRevision" in command ? ` if ${command.ifRevision}` : "";
  return `${command.type} ${key}${value}${condition}`;
}

function resultWords(result: Result | null): string {
  if (!result) return "";
  if (result.type === "found") return `found ${Buffer.from(result.value).toString()} @${result.modRevision}`;
  if (result.type === "written" || result.type === "conflict") return `${result.type} @${result.modRevision}`;
  return result.type;
}
