/**
 * The public histories that Porcupine is tested with: Jepsen's register logs of an early etcd, and key-value histories with
 * append. Time is the number of the line.
 */
import { type Model, type Operation, partitionBy } from "../../simulation/checkers/linearizability.ts";

export type RegisterInput =
  | { readonly type: "read" }
  | { readonly type: "write"; readonly value: number }
  | { readonly type: "cas"; readonly from: number; readonly to: number };
/** Of a read the value (null: never written), of a write nothing, of a compare-and-swap whether it swapped. */
export type RegisterOutput = { readonly value: number | null } | { readonly swapped: boolean } | "written";

export const registerModel: Model<number | null, RegisterInput, RegisterOutput> = {
  init: () => null,
  step: (state, input, output) => {
    switch (input.type) {
      case "read": {
        const ok = output === null || (typeof output === "object" && "value" in output && output.value === state);
        return ok ? { ok: true, state } : { ok: false };
      }
      case "write":
        return { ok: true, state: input.value };
      case "cas": {
        const swaps = input.from === state;
        const ok = output === null || (typeof output === "object" && "swapped" in output && output.swapped === swaps);
        return ok ? { ok: true, state: swaps ? input.to : state } : { ok: false };
      }
    }
  },
  equal: (a, b) => a === b,
  hash: (state) => (state ?? -1) | 0,
  readOnly: ({ type }) => type === "read",
  describe: ({ input, output }) => `${JSON.stringify(input)} -> ${JSON.stringify(output)}`,
};

interface OpenCall<I> {
  readonly process: string;
  readonly input: I;
  readonly call: number;
}

function opened<I>(open: Map<string, OpenCall<I>>, process: string, line: string): OpenCall<I> {
  const call = open.get(process);
  if (!call) throw new Error(`a return without a call: ${line}`);
  open.delete(process);
  return call;
}

/** A failed read is dropped; a failed compare-and-swap compared and did not swap; `:info` is an unknown outcome. */
export function parseRegisterLog(text: string): Operation<RegisterInput, RegisterOutput>[] {
  const open = new Map<string, OpenCall<RegisterInput>>();
  const operations: Operation<RegisterInput, RegisterOutput>[] = [];
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  for (const [at, line] of lines.entries()) {
    const match = /^INFO\s+jepsen\.util - (\d+)\s+:(\w+)\s+:(\w+)\s+(.*?)\s*$/.exec(line);
    if (!match) throw new Error(`not a line of a register log: ${line}`);
    const [, process = "", event = "", name = "", value = ""] = match;
    if (event === "invoke") {
      if (open.has(process)) throw new Error(`two open calls: ${line}`);
      open.set(process, { process, input: registerInput(name, value), call: at });
      continue;
    }
    const call = opened(open, process, line);
    if (event === "info") operations.push({ ...unknown(call), process: `${process} at ${at}` });
    else if (event === "ok") operations.push({ ...call, output: registerOutput(call.input, value), return: at });
    else if (event !== "fail") throw new Error(`no such event: ${line}`);
    else if (name === "cas") operations.push({ ...call, output: { swapped: false }, return: at });
    else if (name !== "read") throw new Error(`what does it mean that this failed? ${line}`);
  }
  return [...operations, ...[...open.values()].map(unknown)];
}

function unknown(call: OpenCall<RegisterInput>): Operation<RegisterInput, RegisterOutput> {
  return { ...call, output: null, return: null };
}

function registerInput(name: string, value: string): RegisterInput {
  if (name === "read") return { type: "read" };
  if (name === "write") return { type: "write", value: Number(value) };
  const pair = /^\[(\d+) (\d+)\]$/.exec(value);
  if (name !== "cas" || !pair) throw new Error(`no such operation: ${name} ${value}`);
  return { type: "cas", from: Number(pair[1]), to: Number(pair[2]) };
}

function registerOutput(input: RegisterInput, value: string): RegisterOutput {
  if (input.type === "read") return { value: value === "nil" ? null : Number(value) };
  return input.type === "write" ? "written" : { swapped: true };
}

export interface AppendInput {
  readonly type: "get" | "put" | "append";
  readonly key: string;
  readonly value: string;
}

/** A missing key reads as "". The output of what writes is "". */
export const appendModel: Model<string, AppendInput, string> = {
  partition: (operations) => partitionBy(operations, ({ key }) => key),
  init: () => "",
  step: (state, { type, value }, output) => {
    if (type === "get") return output === null || output === state ? { ok: true, state } : { ok: false };
    return { ok: true, state: type === "put" ? value : state + value };
  },
  equal: (a, b) => a === b,
  hash: (state) => {
    let hash = state.length;
    for (let index = 0; index < state.length; index++) hash = (Math.imul(hash, 31) + state.charCodeAt(index)) | 0;
    return hash;
  },
  readOnly: ({ type }) => type === "get",
  describe: ({ input, output }) => `${input.type} ${input.key} ${input.value} -> ${output ?? "unknown"}`,
};

export function parseAppendLog(text: string): Operation<AppendInput, string>[] {
  const open = new Map<string, OpenCall<AppendInput>>();
  const operations: Operation<AppendInput, string>[] = [];
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  for (const [at, line] of lines.entries()) {
    const pattern = /^\{:process (\d+), :type :(\w+), :f :(get|put|append), :key "(.*?)", :value (?:nil|"(.*)")\}$/;
    const match = pattern.exec(line);
    if (!match) throw new Error(`not a line of a key-value log: ${line}`);
    const [, process = "", event, type, key = "", value = ""] = match;
    if (event === "invoke") {
      if (open.has(process)) throw new Error(`two open calls: ${line}`);
      open.set(process, { process, input: { type: type as AppendInput["type"], key, value }, call: at });
    } else if (event === "ok") {
      const call = opened(open, process, line);
      operations.push({ ...call, output: call.input.type === "get" ? value : "", return: at });
    } else throw new Error(`no such event: ${line}`);
  }
  return [...operations, ...[...open.values()].map((call) => ({ ...call, output: null, return: null }))];
}
