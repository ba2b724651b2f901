/** Right on every public history: the verdicts of Porcupine's own tests. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { checkLinearizability } from "../../simulation/checkers/linearizability.ts";
import { appendModel, parseAppendLog, parseRegisterLog, registerModel } from "./public-histories.ts";

const folder = join(import.meta.dirname, "../../../../shared/data/histories");
const present = existsSync(folder);
if (!present) console.warn(`public histories are not checked: ${folder} does not exist`);

/** The numbers of the linearizable register logs; all others are not. */
const LINEARIZABLE = new Set([
  2, 5, 7, 18, 25, 31, 38, 45, 48, 49, 51, 53, 56, 67, 75, 76, 80, 87, 92, 98, 100, 101, 102,
]);

const files = present ? readdirSync(folder).sort() : [];
const read = (file: string): string => readFileSync(join(folder, file), "utf8");

describe.skipIf(!present)("public histories", () => {
  test("register logs of etcd", () => {
    const verdicts: [string, string][] = [];
    const expected: [string, string][] = [];
    for (const file of files) {
      const number = /^etcd_(\d+)\.log$/.exec(file)?.[1];
      const operations = number === undefined ? [] : parseRegisterLog(read(file));
      // One of the published logs is empty.
      if (operations.length === 0) continue;
      verdicts.push([file, checkLinearizability(registerModel, operations).verdict]);
      expected.push([file, LINEARIZABLE.has(Number(number)) ? "ok" : "illegal"]);
    }
    expect(verdicts).toEqual(expected);
    expect(verdicts.length).toBeGreaterThan(40);
  });

  test("key-value histories with append", () => {
    const logs = files.filter((file) => /^c\d+-(?:ok|bad)\.txt$/.test(file));
    const verdicts = logs.map((file) => [file, checkLinearizability(appendModel, parseAppendLog(read(file))).verdict]);
    expect(verdicts).toEqual(logs.map((file) => [file, file.endsWith("-ok.txt") ? "ok" : "illegal"]));
    expect(logs.length).toBeGreaterThan(3);
  });
});
