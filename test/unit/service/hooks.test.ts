/** What a service hears of a batch as a whole, and services that keep their state in memory (docs/library.md). */
import { describe, expect, test } from "vitest";
import { textOf, utf8 } from "../../../protocol/bytes.ts";
import { decodeResults } from "../../../protocol/commands.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import type { OrderedBatch, Service, ServiceState } from "../../../server/service/contract.ts";
import { type SnapshottedService, snapshotted } from "../../../server/service/snapshotted.ts";
import { ALICE, Bench, BOB, dump, request, resolve } from "./fixtures.ts";

const run = (bench: Bench, sequence: number, ...texts: string[]): string[] => {
  const reply = bench.one(request({ sequence, commands: texts.map(utf8) }));
  return decodeResults(reply.result ?? new Uint8Array(0)).map((bytes) => textOf(bytes) ?? "");
};

describe("a batch", () => {
  /** Writes down what it hears. */
  class Diary implements Service {
    readonly lines: string[] = [];
    readonly #state: ServiceState;
    constructor(state: ServiceState) {
      this.#state = state;
    }
    load(): void {}
    beginBatch({ instance, timestampMs, requests }: OrderedBatch): void {
      const whole = requests.map(({ client, commands }) => `${client === ALICE ? "a" : "b"}:${commands.map(textOf)}`);
      this.lines.push(`begin ${instance} @${timestampMs} ${whole.join(" ")}`);
    }
    execute(command: Uint8Array): Uint8Array {
      this.lines.push(`${textOf(command)}`);
      return command;
    }
    endBatch(): void {
      this.lines.push("end");
      this.#state.set("lines", utf8(`${this.lines.length}`));
    }
    query(): null {
      return null;
    }
  }

  test("is shown as a whole, executed one by one, and ended; also an empty one", () => {
    let diary: Diary | undefined;
    const bench = new Bench({
      service: (state) => {
        diary = new Diary(state);
        return diary;
      },
    });
    const first = request({ sequence: 1, commands: [utf8("x"), utf8("y")] });
    bench.batch([first, request({ client: BOB, commands: [utf8("z")] })], 7);
    expect(diary?.lines.splice(0)).toEqual(["begin 1 @7 a:x,y b:z", "x", "y", "z", "end"]);
    // What was executed before is shown and not executed; a RESOLVE is nothing of the service's.
    bench.batch([first, resolve({ sequence: 5 }), request({ sequence: 2, commands: [utf8("w")] })], 8);
    expect(diary?.lines.splice(0)).toEqual(["begin 2 @8 a:x,y a:w", "w", "end"]);
    bench.batch([], 9);
    expect(diary?.lines).toEqual(["begin 3 @9 ", "end"]);
    bench.write();
    expect(bench.store.get("klines")).toEqual(utf8("2"));
  });

  test("a service that names no revision answers with the instance, and every command of it may add to the state", () => {
    const bench = new Bench({ service: (state) => new Diary(state) });
    bench.one(request());
    expect(bench.executor.revision).toBe(1);
    expect(bench.executor.grows(request())).toBe(true);
  });
});

describe("a service with snapshots", () => {
  /** Text in memory: "=text" replaces it, ">text" adds to it, "?" reads it. */
  class Text implements SnapshottedService {
    #text = "";
    snapshots = 0;
    snapshot(): Uint8Array {
      this.snapshots++;
      return utf8(this.#text);
    }
    install(snapshot: Uint8Array): void {
      this.#text = textOf(snapshot) ?? "";
    }
    execute(command: Uint8Array): Uint8Array {
      const text = textOf(command) ?? "";
      if (text.startsWith("=")) this.#text = text.slice(1);
      else if (text.startsWith(">")) this.#text += text.slice(1);
      else return this.query(command) ?? utf8("error");
      return utf8("ok");
    }
    query(command: Uint8Array): Uint8Array | null {
      return textOf(command) === "?" ? utf8(this.#text) : null;
    }
  }

  const KIB = 1024;
  const service = snapshotted(() => new Text());
  const keys = (bench: Bench): string[] => [...bench.store.keys()].filter((key) => key.startsWith("k"));

  test.each([0, 1, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, 100_000])("a state of %d bytes comes back", (size) => {
    const bench = new Bench({ service });
    const text = "abcdefgh".repeat(size / 8 + 1).slice(0, size);
    run(bench, 1, `=${text}`);
    bench.restart();
    expect(run(bench, 2, "?")).toEqual([text]);
  });

  test("what is stored is a function of the state: growing and shrinking leave nothing behind", () => {
    const grown = new Bench({ service });
    run(grown, 1, `=${"x".repeat(70_000)}`);
    grown.restart();
    run(grown, 2, "=y");
    grown.restart();
    run(grown, 3, `>${"z".repeat(20_000)}`);
    const fresh = new Bench({ service });
    run(fresh, 1, "=");
    run(fresh, 2, `=y${"z".repeat(20_000)}`);
    run(fresh, 3, "?");
    for (const bench of [grown, fresh]) bench.write();
    const entries = (bench: Bench) => dump(bench.store).filter((line) => line.startsWith("6b"));
    expect(entries(grown).length).toBe(3);
    expect(entries(grown)).toEqual(entries(fresh));
  });

  test("only chunks that changed are written, and nothing for a batch that executed nothing", () => {
    const bench = new Bench({ service });
    run(bench, 1, `=${"x".repeat(100_000)}`);
    bench.write();
    run(bench, 2, ">y");
    const changed = [...(bench.executor.takeGroup()?.changes.keys() ?? [])].filter((key) => key.startsWith("k"));
    expect(changed).toHaveLength(2);
    bench.batch([]);
    run(bench, 3, "?");
    const kept = [...(bench.executor.takeGroup()?.changes.keys() ?? [])].filter((key) => key.startsWith("k"));
    expect(kept).toEqual([]);
  });

  test.each([
    ["a chunk missing", (store: Map<string, Uint8Array>) => store.delete("k\0\0\0\u0000")],
    ["a chunk cut short", (store: Map<string, Uint8Array>) => store.set("k\0\0\0\u0001", utf8("short"))],
    ["a chunk too many", (store: Map<string, Uint8Array>) => store.set("k\0\0\0\u0007", utf8("more"))],
    ["a length that is none", (store: Map<string, Uint8Array>) => store.set("k", utf8("?"))],
  ])("%s is damage", (_what, harm) => {
    const bench = new Bench({ service });
    run(bench, 1, `=${"x".repeat(40_000)}`);
    bench.write();
    expect(keys(bench)).toHaveLength(4);
    harm(bench.store);
    expect(() => bench.restart()).toThrow("the stored state holds an entry that was never written");
  });

  test("the last chunk missing is damage of the state, found before anything is executed or answered", () => {
    const bench = new Bench({ service });
    run(bench, 1, `=${"x".repeat(40_000)}`);
    bench.write();
    bench.store.delete("k\0\0\0\u0002");
    bench.restart();
    const damaged = expect.objectContaining({
      code: "STORAGE_DAMAGED",
      detail: { store: "state", code: "SNAPSHOT_INCOMPLETE" },
    });
    expect(() => run(bench, 2, "?")).toThrow(damaged);
    expect(() => bench.executor.query(request({ kind: "unordered", commands: [utf8("?")] }))).toThrow(damaged);
  });

  test("equal histories give equal entries", () => {
    const [one, other] = [new Bench({ service }), new Bench({ service })];
    for (const bench of [one, other]) for (let at = 1; at <= 30; at++) run(bench, at, `>${"n".repeat(at * 97)}`);
    one.write();
    for (let at = 0; at < 3; at++) other.restart();
    other.write();
    const digest = (bench: Bench) => nodeCrypto.sha256(utf8(dump(bench.store).join("\n")));
    expect(digest(one)).toBe(digest(other));
  });
});
