/**
 * The stage on worker threads (contract.ts). The event loop copies requests, hands them over, small ones many at a time, and builds
 * what the answers say without hashing or proving anything again. That costs it about as much as hashing 1 KiB and checking a MAC,
 * so small requests without a signature are judged where they are (docs/evaluation/intake.md).
 *
 * Queues are bounded both ways: what waits by the order's bounds, and what a worker holds by a few batches, each of which is
 * answered once. So batches grow with the load, and one client's flood waits behind what the others sent.
 */
import { Worker } from "node:worker_threads";
import { copyOf, type Digest, EMPTY } from "../../protocol/bytes.ts";
import { assert, decoded, InvariantViolation, isRejection, reject } from "../../protocol/errors.ts";
import { claimsSignature, decodeEnvelope, decodeRequest } from "../../protocol/request.ts";
import type { ClientConnection } from "../network/contract.ts";
import { type Answer, type Answered, decodeAnswers, decodeRaw, encodeRaw, type Raw } from "./batches.ts";
import type { IntakeStage, OpenIntakeStage, Outcome, StageOptions } from "./contract.ts";
import { InThreadStage } from "./in-thread.ts";
import { ConnectionOrder, type Place } from "./order.ts";
import { Turns } from "./turns.ts";

/** What a worker knows from its start on: of the replica's secrets only the one that MAC keys come from. */
export interface WorkerData {
  readonly cluster: Digest;
  readonly boxSecret: Uint8Array;
}

/** Of one message to a worker; a single request may have more bytes. */
const BATCH_REQUESTS = 64;
const BATCH_BYTES = 1024 * 1024;
/** A smaller request is handed over only for its signature; a larger one travels in memory of its own, which comes back. */
const LARGE_BYTES = 16 * 1024;
/** One is worked at, one is at hand when it is done. */
const BATCHES_AHEAD = 2;

interface Small extends Raw {
  readonly type: "small";
  readonly place: Place;
}

interface Large {
  readonly type: "large";
  readonly place: Place;
  /** Of this one request. */
  readonly buffer: ArrayBuffer;
}

type Entry = Small | Large;

interface Batch {
  readonly small: Small[];
  readonly large: Large[];
}

interface Thread {
  readonly worker: Worker;
  /** Oldest first. */
  readonly batches: Batch[];
}

class WorkerStage implements IntakeStage {
  readonly #options: StageOptions;
  readonly #order: ConnectionOrder;
  readonly #here: InThreadStage;
  readonly #turns = new Turns<Entry>();
  readonly #threads: readonly Thread[];
  #handOverDue = false;
  #closed = false;

  constructor(options: StageOptions, settings: { workers: number; boxSecret: Uint8Array }) {
    this.#options = options;
    this.#order = new ConnectionOrder((connection, outcome) => options.judged(connection, outcome));
    this.#here = new InThreadStage(options, this.#order);
    const data: WorkerData = { cluster: options.cluster, boxSecret: settings.boxSecret };
    this.#threads = Array.from({ length: settings.workers }, (_, index) => this.#start(index, data));
  }

  get waiting(): number {
    return this.#order.waiting;
  }

  submit(connection: ClientConnection, envelopeView: Uint8Array, requestView: Uint8Array): boolean {
    const large = requestView.length >= LARGE_BYTES;
    if (!large && !claimsSignature(envelopeView)) {
      return this.#here.submit(connection, envelopeView, requestView);
    }
    const { client } = connection;
    const bytes = envelopeView.length + requestView.length;
    if (this.#closed || !this.#order.room(client, bytes)) return false;
    const place = this.#order.join(connection, bytes);
    const keys = this.#options.keysOf(client, null)?.publicBytes ?? EMPTY;
    if (large) {
      const raw = { keys, envelope: envelopeView, request: requestView };
      this.#turns.push(client, { type: "large", place, buffer: encodeRaw(this.#options.position(), [raw]) });
    } else {
      const [envelope, request] = [copyOf(envelopeView), copyOf(requestView)];
      this.#turns.push(client, { type: "small", place, keys, envelope, request });
    }
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
    worker.on("message", (answered: Answered) => this.#answered(thread, answered));
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
      const buffers = batch.large.map(({ buffer }) => buffer);
      if (batch.small.length > 0) buffers.unshift(encodeRaw(this.#options.position(), batch.small));
      thread.worker.postMessage(buffers, buffers);
    }
  }

  #nextBatch(): Batch {
    const requestsMax = Math.min(BATCH_REQUESTS, Math.ceil(this.#turns.size / this.#threads.length));
    const batch: Batch = { small: [], large: [] };
    let [requests, bytes] = [0, 0];
    const fits = ({ place }: Entry): boolean => requests === 0 || bytes + place.bytes <= BATCH_BYTES;
    while (requests < requestsMax) {
      const entry = this.#turns.take(fits);
      if (!entry) break;
      if (entry.type === "small") batch.small.push(entry);
      else batch.large.push(entry);
      requests++;
      bytes += entry.place.bytes;
    }
    return batch;
  }

  #answered(thread: Thread, { answers: encoded, buffers }: Answered): void {
    if (this.#closed) return;
    this.#options.guard(() => {
      const batch = thread.batches.shift();
      assert(batch, "a worker answers what it was given");
      // The worker has something to do while the answers are dealt with.
      this.#feed();
      const answers = decodeAnswers(encoded);
      const { small, large } = batch;
      small.forEach((entry, at) => {
        this.#settle(entry.place, entry, answers[at]);
      });
      const returned = buffers.slice(buffers.length - large.length);
      large.forEach(({ place }, at) => {
        this.#settle(place, decodeRaw(returned[at] as ArrayBuffer).requests[0], answers[small.length + at]);
      });
    });
  }

  #settle(place: Place, raw: Raw | undefined, answer: Answer | undefined): void {
    assert(raw && answer, "a worker answers every request of a batch");
    this.#order.settle(place, this.#outcome(raw, answer));
  }

  #outcome({ envelope: envelopeBytes, request: requestBytes }: Raw, answer: Answer): Outcome {
    if (answer.type === "malformed") return reject("punish", answer.code);
    const { crypto, keysOf } = this.#options;
    const request = decoded(() => decodeRequest(crypto, requestBytes, answer.digest));
    const envelope = decoded(() => decodeEnvelope(envelopeBytes));
    assert(!isRejection(request) && !isRejection(envelope), "a worker has found these bytes well-formed");
    // Without its keys no reply could be authenticated: this thread must know them, too.
    const known = keysOf(request.client, envelope.keys) !== null;
    return { request, envelope, envelopeBytes, proof: known ? answer.type : "unproven" };
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
