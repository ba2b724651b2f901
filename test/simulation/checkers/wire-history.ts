/** Calls as the SDK makes them, in the terms of `history.ts`: what touches one key becomes a record, all else is left out. */
import { latin1 } from "../../../protocol/bytes.ts";
import type { Command, Result } from "../../../protocol/commands.ts";
import { Violation } from "../contract.ts";
import type { HistoryRecord, KvAnswer, KvOperation } from "./history.ts";
import { checkHistory } from "./kv-model.ts";

export interface WireCall {
  readonly client: string | number;
  readonly command: Command;
  readonly callUs: number;
  /** Not looked at while the outcome is unknown. */
  readonly returnUs: number;
  /** `failed`: certainly never executed. A read without an answer counts as failed, too. */
  readonly outcome: "ok" | "failed" | "unknown";
  /** Of an `ok` outcome. */
  readonly result: Result | null;
}

/** Every call is a process of its own, so a client may have many open. */
export function historyOf(calls: readonly WireCall[]): HistoryRecord[] {
  const records: HistoryRecord[] = [];
  for (const [number, { client, command, callUs, returnUs, outcome, result }] of calls.entries()) {
    const op = operationOf(command);
    if (!op || !("key" in command)) continue;
    const call = { process: `${client}#${number}`, key: latin1(command.key), op, callUs };
    const answer = result && answerOf(result);
    if (outcome === "unknown") records.push({ ...call, returnUs: null, outcome: { type: "unknown" } });
    else if (outcome === "ok" && answer) records.push({ ...call, returnUs, outcome: { type: "ok", answer } });
    else records.push({ ...call, returnUs, outcome: { type: "failed" } });
  }
  return records;
}

function operationOf(command: Command): KvOperation | null {
  switch (command.type) {
    case "put":
      return { type: "put", value: latin1(command.value), ifRevision: command.ifRevision };
    case "cas":
      return { type: "cas", value: latin1(command.value), expect: command.expect };
    case "delete":
      return { type: "delete", ifRevision: command.ifRevision };
    case "get":
      return { type: "get" };
    default:
      return null;
  }
}

/** Null for a refusal: nothing was executed. */
function answerOf(result: Result): KvAnswer | null {
  switch (result.type) {
    case "written":
      return result;
    case "found":
      return { ...result, value: latin1(result.value) };
    case "absent":
    case "deleted":
    case "conflict":
      return result;
    case "refused":
      return null;
    default:
      throw new Error(`a command on one key was answered with a ${result.type}`);
  }
}

/**
 * @returns `unknown` when the search ran out of steps: nothing is proved then.
 * @throws Violation of `linearizability`, with the whole explanation.
 */
export function assertLinearizable(
  calls: readonly WireCall[],
  options: { readonly stepsMax?: number } = {},
): "ok" | "unknown" {
  const result = checkHistory(historyOf(calls), options);
  if (result.verdict === "illegal") throw new Violation("linearizability", result.text);
  return result.verdict;
}
