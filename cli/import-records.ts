/**
 * Streams records into the cluster, many puts in flight. Guarantees: at most `RECORDS_IN_FLIGHT_MAX` records and
 * `BYTES_IN_FLIGHT_MAX` bytes wait at a time; of two lines with one key the later wins; a put whose outcome is unknown is
 * asked about (docs/protocol.md section 3, RESOLVE) before it is repeated, so that it cannot strike later; when a line
 * is wrong, every record before it is in, none after it.
 */
import { UnknownOutcomeError } from "../client/errors.ts";
import { latin1 } from "../protocol/bytes.ts";
import { type ErrorCode, QuorateError } from "../protocol/errors.ts";
import { CommandExit, EXIT } from "./exit.ts";
import { isBlank, type KeyValue, LineError, lineGroups, parseRecordLine } from "./jsonl.ts";
import type { Progress } from "./progress.ts";
import type { BytesKv } from "./session.ts";

export const RECORDS_IN_FLIGHT_MAX = 2_000;
export const BYTES_IN_FLIGHT_MAX = 4 * 1024 * 1024;
const ATTEMPTS_MAX = 4;

/** The part of the SDK that an import uses. */
export type ImportTarget = Pick<BytesKv, "put" | "outcome">;

export interface ImportSource {
  readonly stream: AsyncIterable<Uint8Array | string>;
  /** Size of the input, for the time left; null when it is not known. */
  readonly bytesTotal: number | null;
}

export interface ImportCount {
  /** Records that are in the cluster. */
  readonly imported: number;
  /** Puts that were repeated. */
  readonly repeated: number;
}

/** @throws CommandExit naming the wrong line; QuorateError, the first failure; both with how many records are in. */
export async function importRecords(
  target: ImportTarget,
  source: ImportSource,
  progress: Progress,
): Promise<ImportCount> {
  const window = new PutWindow(target);
  let lineNumber = 0;
  try {
    for await (const { lines, bytesRead } of lineGroups(source.stream)) {
      for (const line of lines) {
        lineNumber += 1;
        if (isBlank(line)) continue;
        const record = parseRecordLine(line);
        const key = latin1(record.key);
        while (!window.hasRoom(key)) await window.change();
        window.start(key, record);
      }
      const share = source.bytesTotal === null ? null : Math.min(1, bytesRead / source.bytesTotal);
      progress.update(() => ({ count: window.imported, share }));
    }
  } catch (error) {
    progress.end();
    await window.settled();
    if (!(error instanceof LineError)) throw windowFailure(error, window.imported);
    const number = error.unread ? lineNumber + 1 : lineNumber;
    throw new CommandExit(EXIT.USAGE, `line ${number}: ${error.message} (${importedText(window.imported)} before it)`);
  }
  await window.settled();
  progress.end();
  if (window.failure !== null) throw windowFailure(window.failure, window.imported);
  return { imported: window.imported, repeated: window.repeated };
}

function importedText(count: number): string {
  return `${count} ${count === 1 ? "record was" : "records were"} imported`;
}

function windowFailure(error: unknown, imported: number): unknown {
  if (!(error instanceof QuorateError)) return error;
  const message = `${error.message} (${importedText(imported)}; the import can be run again)`;
  return new QuorateError(error.code, message, error.detail, error);
}

/** The puts in flight: room, order per key, repetition, the first failure. */
class PutWindow {
  imported = 0;
  repeated = 0;
  failure: unknown = null;
  readonly #target: ImportTarget;
  readonly #keys = new Set<string>();
  #bytes = 0;
  #wake: (() => void) | null = null;
  readonly #resolutions = new Map<string, Promise<boolean>>();

  constructor(target: ImportTarget) {
    this.#target = target;
  }

  /** May this key's put start now? @throws the first failure */
  hasRoom(key: string): boolean {
    if (this.failure !== null) throw this.failure;
    return this.#keys.size < RECORDS_IN_FLIGHT_MAX && this.#bytes < BYTES_IN_FLIGHT_MAX && !this.#keys.has(key);
  }

  start(key: string, record: KeyValue): void {
    const size = record.key.length + record.value.length;
    this.#keys.add(key);
    this.#bytes += size;
    this.#put(record)
      .then(
        () => {
          this.imported += 1;
        },
        (error: unknown) => {
          this.failure ??= error;
        },
      )
      .finally(() => {
        this.#keys.delete(key);
        this.#bytes -= size;
        this.#wake?.();
      });
  }

  /** Resolves when a put ended. */
  change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  async settled(): Promise<void> {
    while (this.#keys.size > 0) await this.change();
  }

  async #put(record: KeyValue): Promise<void> {
    let unknown: UnknownOutcomeError | null = null;
    for (let attempt = 1; ; attempt++) {
      try {
        if (unknown !== null) {
          if (await this.#wasExecuted(unknown)) return;
          unknown = null;
          this.repeated += 1;
        }
        await this.#target.put(record.key, record.value);
        return;
      } catch (error) {
        if (attempt >= ATTEMPTS_MAX || !mayRepeat(error)) throw error;
        if (unknown === null && error instanceof UnknownOutcomeError) unknown = error;
      }
    }
  }

  /** Asks once per request, however many puts it carried. Once it answers false, the request never executes. */
  #wasExecuted(unknown: UnknownOutcomeError): Promise<boolean> {
    if (unknown.outcome === "executed") return Promise.resolve(true);
    const { session, sequence } = unknown.requestId;
    const name = `${session}.${sequence}`;
    let resolution = this.#resolutions.get(name);
    if (!resolution) {
      resolution = this.#resolve(unknown);
      resolution.catch(() => this.#resolutions.delete(name));
      this.#resolutions.set(name, resolution);
    }
    return resolution;
  }

  async #resolve(unknown: UnknownOutcomeError): Promise<boolean> {
    const { type } = await this.#target.outcome(unknown.requestId);
    return type === "replied" || type === "executed";
  }
}

const REPEATABLE: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "UNKNOWN_OUTCOME",
  "TIMEOUT",
  "QUORUM_UNAVAILABLE",
  "DEADLINE",
  "BUSY",
  "WINDOW_FULL",
  "SESSION_EXPIRED",
]);

function mayRepeat(error: unknown): boolean {
  return error instanceof QuorateError && REPEATABLE.has(error.code);
}
