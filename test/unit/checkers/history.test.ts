/** Recording, saving and checking a history. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  decodeHistory,
  encodeHistory,
  type HistoryRecord,
  HistoryRecorder,
} from "../../simulation/checkers/history.ts";
import { checkHistory } from "../../simulation/checkers/kv-model.ts";
import { HistoryError } from "../../simulation/checkers/linearizability.ts";
import { seeded } from "../../simulation/random.ts";
import { generateHistory } from "./generated-histories.ts";

const GET = { type: "get" } as const;
const PUT = { type: "put", value: "v", ifRevision: null } as const;

function recorder(...times: readonly number[]): HistoryRecorder {
  const left = [...times];
  return new HistoryRecorder(() => left.shift() ?? Number.NaN);
}

describe("recording", () => {
  test("calls with their times and outcomes; those still open are unknown", () => {
    const history = recorder(1, 2, 3, 4, 5, 6);
    const a = history.begin("a", "k", PUT);
    const b = history.begin("b", "k", GET);
    a.ok({ type: "written", modRevision: 1 });
    b.failed();
    history.begin("b", "k", GET);
    expect(history.records).toEqual([
      {
        process: "a",
        key: "k",
        op: PUT,
        callUs: 1,
        returnUs: 3,
        outcome: { type: "ok", answer: { type: "written", modRevision: 1 } },
      },
      { process: "b", key: "k", op: GET, callUs: 2, returnUs: 4, outcome: { type: "failed" } },
      { process: "b", key: "k", op: GET, callUs: 5, returnUs: null, outcome: { type: "unknown" } },
    ]);
    expect(checkHistory(history.records).verdict).toBe("ok");
  });

  test("after an unknown outcome a process goes on under another name", () => {
    const history = recorder(1, 2, 3, 4, 5);
    history.begin("a", "k", PUT).unknown();
    history.begin("a", "k", GET).unknown();
    history.begin("a", "k", GET).ok({ type: "absent" });
    expect(history.records.map(({ process }) => process)).toEqual(["a", "a/1", "a/2"]);
    expect(checkHistory(history.records).verdict).toBe("ok");
  });

  test("one open call a process, one end a call, a clock that does not go back", () => {
    const history = recorder(1, 2, 2, 1);
    const call = history.begin("a", "k", PUT);
    expect(() => history.begin("a", "k", GET)).toThrow("open already");
    call.ok({ type: "written", modRevision: 1 });
    expect(() => call.unknown()).toThrow("ended twice");
    const next = history.begin("a", "k", GET);
    expect(() => next.failed()).toThrow("the clock went from 2 to 1");
    expect(() => recorder().begin("a", "k", GET)).toThrow(HistoryError);
  });
});

describe("saved", () => {
  const records: HistoryRecord[] = generateHistory(seeded(3)).map(({ record }) => record);

  test("comes back as it was", () => {
    expect(decodeHistory(encodeHistory(records))).toEqual(records);
  });

  test.each([
    ["nothing", "\n\n"],
    ["no JSON", "{"],
    ["another shape", '{"process":"a"}'],
    ["a field too much", encodeHistory(records.slice(0, 1)).replace("{", '{"more":1,')],
    ["no such answer", encodeHistory(records).replace('"type":"found"', '"type":"lost"')],
    ["a time that is none", encodeHistory(records.slice(0, 1)).replace(/"callUs":\d+/, '"callUs":null')],
  ])("%s is refused", (_, text) => {
    expect(() => decodeHistory(text)).toThrow(HistoryError);
  });

  test("a refusal names the line", () => {
    expect(() => decodeHistory(`${encodeHistory(records.slice(0, 2))}\nnonsense\n`)).toThrow("line 4");
  });

  test("the command tells linearizable, not linearizable, not a history and undecided apart", () => {
    const folder = mkdtempSync(join(tmpdir(), "quorate-history-"));
    try {
      const run = (text: string, ...rest: readonly string[]): { status: number | null; output: string } => {
        const file = join(folder, "history.jsonl");
        writeFileSync(file, text);
        const command = join(import.meta.dirname, "../../evaluation/check-history.ts");
        const { status, stdout, stderr } = spawnSync(process.execPath, ["--import", "tsx", command, file, ...rest]);
        return { status, output: `${stdout}${stderr}` };
      };
      const stale = {
        ...records[0],
        process: "late",
        key: "k",
        op: GET,
        callUs: 1e9,
        returnUs: 1e9 + 1,
      } as HistoryRecord;
      const phantom = { type: "found", value: "phantom", modRevision: 1 } as const;
      const illegal = encodeHistory([...records, { ...stale, outcome: { type: "ok", answer: phantom } }]);
      const legal = run(encodeHistory(records));
      expect(legal.output).toContain("linearizable: 60 calls on 3 keys");
      expect(legal.status).toBe(0);
      const refuted = run(illegal);
      expect(refuted.output).toContain('late: get "k" -> "phantom" of 1');
      expect(refuted.status).toBe(1);
      expect(run("")).toMatchObject({ status: 2 });
      expect(run(encodeHistory(records), "5")).toMatchObject({ status: 3 });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
