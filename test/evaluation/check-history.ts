/**
 * Checks a recorded history of the key-value store for linearizability.
 *
 *   npx tsx test/evaluation/check-history.ts FILE [STEPS]
 *
 * FILE holds lines of JSON (`test/simulation/checkers/history.ts`), STEPS bounds the search. Exit status: 0 linearizable,
 * 1 not linearizable (and why), 2 not a history, 3 undecided within the steps.
 */
import { readFileSync } from "node:fs";
import { decodeHistory } from "../simulation/checkers/history.ts";
import { checkHistory } from "../simulation/checkers/kv-model.ts";
import { HistoryError } from "../simulation/checkers/linearizability.ts";

const [file, steps = "8000000"] = process.argv.slice(2);
process.exitCode = file === undefined || !/^[1-9]\d*$/.test(steps) ? usage() : check(file, Number(steps));

function usage(): number {
  console.error("usage: npx tsx test/evaluation/check-history.ts FILE [STEPS]");
  return 2;
}

function check(path: string, stepsMax: number): number {
  try {
    const records = decodeHistory(readFileSync(path, "utf8"));
    const unknown = records.filter(({ outcome }) => outcome.type === "unknown").length;
    const keys = new Set(records.map(({ key }) => key)).size;
    const size = `${records.length} calls on ${keys} keys, ${unknown} of unknown outcome`;
    const result = checkHistory(records, { stepsMax });
    switch (result.verdict) {
      case "ok":
        console.log(`linearizable: ${size}`);
        return 0;
      case "illegal":
        console.log(`${size}\n${result.text}`);
        return 1;
      case "unknown":
        console.log(`undecided: ${size}; ${result.undecided} keys need more steps`);
        return 3;
    }
  } catch (error) {
    if (!(error instanceof HistoryError) && !(error instanceof Error && "code" in error)) throw error;
    console.error(`${path}: ${error.message}`);
    return 2;
  }
}
