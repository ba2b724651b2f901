/** Progress: only on a terminal, only on stderr, a few times a second, erased at the end. And what a log last said. */
import { writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { importText } from "../../../cli/commands/import.ts";
import { exitText, lastLogMessage } from "../../../cli/local/replica-process.ts";
import { progressLine, progressOn } from "../../../cli/progress.ts";
import { temporaryFolder, testIo } from "./streams.ts";

describe("progress", () => {
  const state = () => ({ count: 4_000, share: 0.25 });

  test("draws nothing where stderr is no terminal", () => {
    const io = testIo();
    let nowMs = 0;
    const progress = progressOn(io, { label: "imported", unit: "records", now: () => nowMs });
    nowMs = 5_000;
    progress.update(() => {
      throw new Error("nobody looks");
    });
    progress.end();
    expect(io.err()).toBe("");
  });

  test("draws at most five times a second and erases itself", () => {
    const io = testIo({ terminal: true });
    let nowMs = 0;
    const progress = progressOn(io, { label: "imported", unit: "records", now: () => nowMs });
    for (; nowMs < 1_000; nowMs += 10) progress.update(state);
    progress.end();
    expect(io.out()).toBe("");
    expect(io.err().match(/imported 4000 records/g)?.length).toBeLessThanOrEqual(5);
    expect(io.err()).toMatch(/imported 4000 records/);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape that erases the line
    expect(io.err()).toMatch(/\r\u001b\[K$/);
  });

  test("the line", () => {
    const line = { label: "imported", unit: "records", count: 4_000, share: 0.25, elapsedMs: 1_000 };
    expect(progressLine(line)).toBe("imported 4000 records · 25% · 4000 records/s · 3.0 s left");
    expect(progressLine({ ...line, share: null })).toBe("imported 4000 records · 4000 records/s");
    expect(progressLine({ ...line, share: 0, elapsedMs: 0 })).toBe("imported 4000 records · 0% · 0 records/s");
  });
});

test("the summary of an import", () => {
  const result = { imported: 60_000, repeated: 0, elapsedMs: 12_300 };
  expect(importText("simple", result)).toBe("imported 60000 records in 12.3 s (4878 records/s)\n");
  expect(importText("json", result)).toBe('{"imported":60000,"repeated":0,"seconds":12.3,"recordsPerSecond":4878}\n');
  expect(importText("json", { imported: 0, repeated: 0, elapsedMs: 0 })).toContain('"recordsPerSecond":0');
});

test("what a replica last said, and how it ended", () => {
  const folder = temporaryFolder();
  try {
    const log = folder.in("server.log");
    expect(lastLogMessage(log)).toBeNull();
    writeFileSync(log, '{"msg":"first"}\n{"level":60,"msg":"port 7000 is in use"}\n');
    expect(lastLogMessage(log)).toBe("port 7000 is in use");
    writeFileSync(log, "kv-server: plain words\n");
    expect(lastLogMessage(log)).toBe("kv-server: plain words");
    writeFileSync(log, "");
    expect(lastLogMessage(log)).toBeNull();
  } finally {
    folder.remove();
  }
  expect(exitText({ code: 2, signal: null })).toBe("exit code 2");
  expect(exitText({ code: null, signal: "SIGKILL" })).toBe("killed by SIGKILL");
  expect(exitText({ code: null, signal: null })).toBe("could not be started");
});
