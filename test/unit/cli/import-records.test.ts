/** The import: everything before a wrong line is in, nothing after it; unknown outcomes are asked about before a repeat. */
import { describe, expect, test } from "vitest";
import { CommandExit } from "../../../cli/exit.ts";
import {
  BYTES_IN_FLIGHT_MAX,
  type ImportTarget,
  importRecords,
  RECORDS_IN_FLIGHT_MAX,
} from "../../../cli/import-records.ts";
import { recordLine } from "../../../cli/jsonl.ts";
import { type RequestId, UnknownOutcomeError } from "../../../client/errors.ts";
import { utf8 } from "../../../protocol/bytes.ts";
import { QuorateError } from "../../../protocol/errors.ts";

const noProgress = { update: () => {}, end: () => {} };

async function* stream(text: string, pieceBytes = 64 * 1024): AsyncGenerator<Uint8Array> {
  const bytes = utf8(text);
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

const unknown = (sequence: number): UnknownOutcomeError =>
  new UnknownOutcomeError("UNKNOWN_OUTCOME", "timed out", { requestId: { session: 1, sequence } });

/** A store whose puts take a few turns of the event loop, in any order, and fail as `fail` says. */
class Store {
  readonly entries = new Map<string, string>();
  readonly asked: number[] = [];
  puts = 0;
  inFlight = 0;
  inFlightMax = 0;
  bytesInFlight = 0;
  bytesInFlightMax = 0;
  fail: (key: string, put: number) => Error | null = () => null;
  resolve: (sequence: number) => "replied" | "executed" | "cancelled" | "unknown" = () => "cancelled";

  readonly target = {
    put: async (key: Uint8Array, value: Uint8Array) => {
      const size = key.length + value.length;
      const number = ++this.puts;
      this.inFlight += 1;
      this.bytesInFlight += size;
      this.inFlightMax = Math.max(this.inFlightMax, this.inFlight);
      this.bytesInFlightMax = Math.max(this.bytesInFlightMax, this.bytesInFlight);
      for (let turn = 0; turn < (number * 7) % 5; turn++) await new Promise((next) => setImmediate(next));
      this.inFlight -= 1;
      this.bytesInFlight -= size;
      const name = Buffer.from(key).toString("latin1");
      const error = this.fail(name, number);
      if (error) throw error;
      this.entries.set(name, Buffer.from(value).toString("latin1"));
      return { revision: 1n, createRevision: 1n, version: 1 };
    },
    outcome: async ({ sequence }: RequestId) => {
      this.asked.push(sequence);
      return { type: this.resolve(sequence) };
    },
  } as unknown as ImportTarget;

  import(text: string) {
    return importRecords(this.target, { stream: stream(text), bytesTotal: text.length }, noProgress);
  }
}

const line = (key: string, value: string): string => `${recordLine({ key: utf8(key), value: utf8(value) })}\n`;
const many = (count: number): string => Array.from({ length: count }, (_, at) => line(`k${at}`, `v${at}`)).join("");

async function failure<E extends Error>(promise: Promise<unknown>, kind: new (...args: never[]) => E): Promise<E> {
  const error = await promise.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(kind);
  return error as E;
}

describe("kv import", () => {
  test("every record is in, with a bounded number in flight", async () => {
    const store = new Store();
    expect(await store.import(`\n${many(9_000)}  \n`)).toEqual({ imported: 9_000, repeated: 0 });
    expect(store.entries.size).toBe(9_000);
    expect(store.entries.get("k8999")).toBe("v8999");
    expect(store.inFlightMax).toBeLessThanOrEqual(RECORDS_IN_FLIGHT_MAX);
    expect(store.inFlightMax).toBeGreaterThan(100);
  });

  test("large values are bounded by their bytes", async () => {
    const store = new Store();
    const large = "x".repeat(300_000);
    await store.import(Array.from({ length: 60 }, (_, at) => line(`k${at}`, large)).join(""));
    expect(store.entries.size).toBe(60);
    expect(store.bytesInFlightMax).toBeLessThan(BYTES_IN_FLIGHT_MAX + 300_010);
  });

  test("of two lines with one key the later wins", async () => {
    const store = new Store();
    const text = Array.from({ length: 500 }, (_, at) => line(`k${at % 3}`, `v${at}`)).join("");
    await store.import(text);
    expect([...store.entries.values()].sort()).toEqual(["v497", "v498", "v499"]);
  });

  test("a wrong line is named; what was before it is in, nothing after it", async () => {
    const store = new Store();
    const error = await failure(store.import(`${many(16)}{"key":"x"}\n${line("after", "v")}`), CommandExit);
    expect(error.exitCode).toBe(2);
    expect(error.message).toBe("line 17: value is missing (16 records were imported before it)");
    expect(store.entries.size).toBe(16);
    expect(store.entries.has("after")).toBe(false);
  });

  test("a line that is never finished is named too", async () => {
    const store = new Store();
    const error = await failure(store.import(`${line("a", "b")}{"key":"${"k".repeat(9 * 1024 * 1024)}`), CommandExit);
    expect(error.message).toMatch(/^line 2: longer than .* \(1 record was imported before it\)$/);
  });

  test("an unknown outcome that turns out executed is not repeated", async () => {
    const store = new Store();
    store.fail = (key) => (key === "k3" ? unknown(3) : null);
    store.resolve = () => "executed";
    expect(await store.import(many(5))).toEqual({ imported: 5, repeated: 0 });
    expect(store.puts).toBe(5);
  });

  test("one that was cancelled is repeated, asked about once per request", async () => {
    const store = new Store();
    store.fail = (_, put) => (put <= 5 ? unknown(9) : null);
    expect(await store.import(many(5))).toEqual({ imported: 5, repeated: 5 });
    expect(store.entries.size).toBe(5);
    expect(store.asked.length).toBeLessThan(5);
  });

  test("a put is never repeated while nobody can say what became of it", async () => {
    const store = new Store();
    store.fail = () => unknown(1);
    store.resolve = () => {
      throw new QuorateError("TIMEOUT", "no quorum answers");
    };
    const error = await failure(store.import(many(1)), QuorateError);
    expect(error.code).toBe("TIMEOUT");
    expect(error.message).toContain("0 records were imported");
    expect(store.puts).toBe(1);
  });

  test("lasting trouble ends the import with its code", async () => {
    const store = new Store();
    store.fail = (_, put) => (put > 4 ? new QuorateError("TIMEOUT", "no quorum answers") : null);
    const timeout = await failure(store.import(many(6)), QuorateError);
    expect(timeout.code).toBe("TIMEOUT");
    expect(timeout.message).toContain("no quorum answers (4 records were imported");
    store.fail = () => new QuorateError("STORAGE_FULL", "the disk is full");
    expect((await failure(store.import(many(1)), QuorateError)).code).toBe("STORAGE_FULL");
  });

  test("a defect is not dressed up as an outcome", async () => {
    const store = new Store();
    store.fail = () => new TypeError("oops");
    await expect(store.import(many(3))).rejects.toThrow(TypeError);
  });
});
