/** What one operation of a benchmark is: the mix of puts and gets, or the micro-benchmark's no-operation. */
import { InvalidArgumentError } from "commander";
import { utf8 } from "../../protocol/bytes.ts";
import { type Command, encodeCommand, encodeResult, encodeResults } from "../../protocol/commands.ts";
import type { BytesKv } from "../session.ts";

export interface Mix {
  readonly put: number;
  readonly get: number;
}

export const KEYS = 10_000;

/** `put=1,get=0`: weights, not both 0; one left out is 0. @throws InvalidArgumentError (a usage error) */
export function parseMix(text: string): Mix {
  const weights: { put?: number; get?: number } = {};
  for (const part of text.split(",")) {
    const match = /^(put|get)=(\d{1,6})$/.exec(part.trim());
    const name = match?.[1] as keyof Mix | undefined;
    if (!match || name === undefined || weights[name] !== undefined) {
      throw new InvalidArgumentError("Write weights: put=1,get=0.");
    }
    weights[name] = Number(match[2]);
  }
  const mix = { put: weights.put ?? 0, get: weights.get ?? 0 };
  if (mix.put + mix.get === 0) throw new InvalidArgumentError("At least one weight must be above 0.");
  return mix;
}

/** Every command the same opaque no-operation, or puts and gets of random keys by weight. */
export type Workload =
  | { readonly type: "noop"; readonly requestBytes: number; readonly replyBytes: number }
  | { readonly type: "mix"; readonly mix: Mix; readonly valueBytes: number };

/** One operation; it resolves when the cluster has answered. */
export type Operation = () => Promise<unknown>;

export function keyOf(index: number): Uint8Array {
  return utf8(`bench/${String(index).padStart(8, "0")}`);
}

const randomKey = (): Uint8Array => keyOf(Math.floor(Math.random() * KEYS));

function randomValue(bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, () => 32 + Math.floor(Math.random() * 95));
}

/** The operation a client of this workload repeats on its connection. */
export function operationOn(kv: BytesKv, workload: Workload): Operation {
  if (workload.type === "noop") {
    const command = encodeCommand(sampleCommand(workload));
    return () => kv.service.invokeOrderedHashed(command);
  }
  const { mix, valueBytes } = workload;
  const value = randomValue(valueBytes);
  const puts = mix.put / (mix.put + mix.get);
  return () => (Math.random() < puts ? kv.put(randomKey(), value) : kv.get(randomKey()));
}

/** Gets read keys that exist: writes every key once, bundled, when the workload reads any. */
export async function prefill(kv: BytesKv, workload: Workload): Promise<void> {
  if (workload.type === "noop" || workload.mix.get === 0) return;
  const value = randomValue(workload.valueBytes);
  const step = Math.max(1, Math.min(1_000, Math.floor((1024 * 1024) / Math.max(1, workload.valueBytes))));
  for (let from = 0; from < KEYS; from += step) {
    const count = Math.min(step, KEYS - from);
    await Promise.all(Array.from({ length: count }, (_, index) => kv.put(keyOf(from + index), value)));
  }
}

/** A command of the workload's most frequent kind and size, for the echo phase. */
export function sampleCommand(workload: Workload): Command {
  if (workload.type === "noop") {
    return { type: "noop", payload: new Uint8Array(workload.requestBytes), replyBytes: workload.replyBytes };
  }
  const key = keyOf(0);
  if (workload.mix.put === 0) return { type: "get", key };
  return { type: "put", key, value: new Uint8Array(workload.valueBytes), ifRevision: null };
}

/** Bytes of one command's result in a reply, averaged over the mix. */
export function resultBytesOf(workload: Workload): number {
  const sizeOf = (result: Parameters<typeof encodeResult>[0]): number =>
    encodeResults([encodeResult(result)]).length - encodeResults([]).length;
  if (workload.type === "noop") return sizeOf({ type: "noop", payload: new Uint8Array(workload.replyBytes) });
  const { mix, valueBytes } = workload;
  const revisions = { createRevision: 100_000, modRevision: 100_000, version: 10 };
  const written = sizeOf({ type: "written", ...revisions });
  const found = sizeOf({ type: "found", value: new Uint8Array(valueBytes), ...revisions });
  return Math.round((written * mix.put + found * mix.get) / (mix.put + mix.get));
}
