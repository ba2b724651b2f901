/**
 * The stage on worker threads (contract.ts). The event loop copies requests, hands them over many at a time, and builds what the
 * answers say without hashing or proving anything again.
 *
 * Queues are bounded both ways: what waits by the order's bounds, and what a worker holds by a few batches, each of which is
 * answered once. So batches grow with the load, and one client's flood waits behind what the others sent.
 */
import { Worker } from "node:worker_threads";
import { copyOf, type Digest, EMPTY } from "../../protocol/bytes.ts";
import { assert, decoded, InvariantViolation, isRejection, reject } from "../../protocol/errors.ts";
import { decodeEnvelope, decodeRequest } from "../../protocol/request.ts";
import type { ClientConnection } from "../network/contract.ts";
import { type Answer, decodeAnswers, encodeRaw, type Raw } from "./batches.ts";
import type { IntakeStage, OpenIntakeStage, Outcome, StageOptions } from "./contract.ts";
import { ConnectionOrder, type Place } from "./order.ts";
import { Turns } from "./turns.ts";

/** What a worker knows from its start on: of the replica's secrets only the one that MAC keys come from. */
export interface WorkerData {
  readonly cluster: Digest;
  readonly boxSecret: Uint8Array;
}

/** Of one message to a worker; a single larger request travels alone. */
const BATCH_REQUESTS = 64;
const BATCH_BYTES = 256 * 1024;
/** One is worked at, one is at hand when it is done. */
const BATCHES_AHEAD = 2;

interface Entry extends Raw {
  readonly place: Place;
}

interface Thread {
  readonly worker: Worker;
  /** Oldest first. */
  readonly batches: (readonly Entry[])[];
}

class WorkerStage implements IntakeStage {
  readonly #options: StageOptions;
  readonly #order: ConnectionOrder;
  readonly #turns = new Turns<Entry>();
  readonly #threads: readonly Thread[];
  #handOverDue = false;
  #closed = false;

  constructor(options: StageOptions, settings: { workers: number; boxSecret: Uint8Array }) {
    this.#options = options;
    this.#order = new ConnectionOrder((connection, outcome) => options.judged(connection, outcome));
    const data: WorkerData = { cluster: options.cluster, boxSecret: settings.boxSecret };
    this.#threads = Array.from({ length: settings.workers }, (_, index) => this.#start(index, data));
  }

  get waiting(): number {
    return this.#order.waiting;
  }

  submit(connection: ClientConnection, envelopeView: Uint8Array, requestView: Uint8Array): boolean {
    const { client } = connection;
    const bytes = envelopeView.length + requestView.length;
    if (this.#closed || !this.#order.room(client, bytes)) return false;
    this.#turns.push(client, {
      place: this.#order.join(connection, bytes),
      keys: this.#options.keysOf(client, null)?.publicBytes ?? EMPTY,
      envelope: copyOf(envelopeView),
      request: copyOf(requestView),
    });
    if (!this.#handOverDue) {
      this.#handOverDue = true;
      setImmediate(this.#handOver);
    }
    return true;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#turns.clear();
    await Promise.all(this.#threads.map(({ worker }) => worker.terminate()));
  }

  #start(index: number, data: WorkerData): Thread {
    const worker = new Worker(workerProgram(), { name: `intake-${index}`, workerData: data, execArgv: [] });
    const thread: Thread = { worker, batches: [] };
    const died = (why: string, cause?: unknown): void => {
      if (!this.#closed) this.#options.failed(new InvariantViolation(`intake worker ${index} ${why}`, { cause }));
    };
    worker.on("message", (buffer: ArrayBuffer) => this.#answered(thread, buffer));
    worker.on("error", (error) => died(`died: ${error.message}`, error));
    worker.on("messageerror", (error) => died(`sent what cannot be read: ${error.message}`, error));
    worker.on("exit", (code) => died(`ended with code ${code}`));
    return thread;
  }

  readonly #handOver = (): void => {
    this.#handOverDue = false;
    if (!this.#closed) this.#options.guard(() => this.#feed());
  };

  /** Gives every worker that has room a share of what waits. */
  #feed(): void {
    while (this.#turns.size > 0) {
      const thread = this.#threads.reduce((a, b) => (b.batches.length < a.batches.length ? b : a));
      if (thread.batches.length >= BATCHES_AHEAD) return;
      const batch = this.#nextBatch();
      thread.batches.push(batch);
      const buffer = encodeRaw(this.#options.position(), batch);
      thread.worker.postMessage(buffer, [buffer]);
    }
  }

  #nextBatch(): Entry[] {
    const requestsMax = Math.min(BATCH_REQUESTS, Math.ceil(this.#turns.size / this.#threads.length));
    const batch: Entry[] = [];
    let bytes = 0;
    const fits = ({ place }: Entry): boolean => batch.length === 0 || bytes + place.bytes <= BATCH_BYTES;
    while (batch.length < requestsMax) {
      const entry = this.#turns.take(fits);
      if (!entry) break;
      batch.push(entry);
      bytes += entry.place.bytes;
    }
    return batch;
  }

  #answered(thread: Thread, buffer: ArrayBuffer): void {
    if (this.#closed) return;
    this.#options.guard(() => {
      const batch = thread.batches.shift();
      const answers = decodeAnswers(buffer);
      assert(batch?.length === answers.length, "a worker answers every request of a batch");
      // The worker has something to do while the answers are dealt with.
      this.#feed();
      batch.forEach((entry, at) => {
        this.#order.settle(entry.place, this.#outcome(entry, answers[at] as Answer));
      });
    });
  }

  #outcome({ envelope: envelopeBytes, request: requestBytes }: Entry, answer: Answer): Outcome {
    if (answer.type === "malformed") return reject("punish", answer.code);
    const { crypto, keysOf } = this.#options;
    const judged = decoded(() => ({
      request: decodeRequest(crypto, requestBytes, answer.digest),
      envelope: decodeEnvelope(envelopeBytes),
    }));
    assert(!isRejection(judged), "a worker has found these bytes well-formed");
    // Without its keys no reply could be authenticated: this thread must know them, too.
    const known = keysOf(judged.request.client, judged.envelope.keys) !== null;
    return { ...judged, envelopeBytes, proof: known ? answer.type : "unproven" };
  }
}

/** `worker.js` beside this file in the compiled package; the TypeScript source goes through tsx, which a thread has to load itself. */
function workerProgram(): URL {
  if (!import.meta.url.endsWith(".ts")) return new URL("./worker.js", import.meta.url);
  const source = new URL("./worker.ts", import.meta.url);
  const program = `import { register } from ${JSON.stringify(import.meta.resolve("tsx/esm/api"))};
    register();
    await import(${JSON.stringify(source.href)});`;
  return new URL(`data:text/javascript,${encodeURIComponent(program)}`);
}

/** `workers` threads, at least one. */
export function workerStage(settings: { workers: number; boxSecret: Uint8Array }): OpenIntakeStage {
  assert(settings.workers > 0, "a stage on worker threads has one");
  return (options) => new WorkerStage(options, settings);
}
