/** `kv bench`: how many operations a second the cluster does, how long each takes, and what it costs. */
import { Command, Option } from "commander";
import { VALUE_BYTES_MAX } from "../../protocol/limits.ts";
import { type Mix, parseMix, type Workload } from "../bench/workload.ts";
import { usageError } from "../exit.ts";
import { globalsOf, helpTail, requireFormat } from "../globals.ts";
import type { Io } from "../io.ts";
import { integerIn, numberIn } from "../numbers.ts";

export interface BenchOptions {
  readonly clients: number;
  readonly connections?: number;
  readonly seconds: number;
  readonly warmup: number;
  readonly valueBytes: number;
  readonly mix: Mix;
  readonly orderedReads?: true;
  readonly noop?: true;
  readonly requestBytes: number;
  readonly replyBytes: number;
  readonly limit?: true;
  readonly rounds?: number;
  /** Milliseconds per interval. */
  readonly timeline?: number;
}

const PUTS_ONLY: Mix = { put: 1, get: 0 };

export function benchCommand(io: Io): Command {
  const whole = (flags: string, text: string, range: { min: number; max: number }): Option =>
    new Option(flags, text).argParser(integerIn(range));
  const seconds = (flags: string, text: string, range: { min: number; max: number }): Option =>
    new Option(flags, text).argParser(numberIn(range));
  return new Command("bench")
    .description("measure throughput, latency and CPU per operation in a closed loop")
    .addOption(
      whole("--clients <c>", "clients, each with one operation under way", { min: 1, max: 10_000 }).default(100),
    )
    .addOption(
      whole("--connections <k>", "sets of connections the clients share (default: one each)", { min: 1, max: 2_000 }),
    )
    .addOption(seconds("--seconds <s>", "measured time per round", { min: 0.1, max: 3_600 }).default(10))
    .addOption(seconds("--warmup <s>", "time before it that does not count", { min: 0, max: 600 }).default(3))
    .addOption(whole("--value-bytes <b>", "size of the values put", { min: 0, max: VALUE_BYTES_MAX }).default(100))
    .addOption(
      new Option("--mix <weights>", "how often to put and to get")
        .argParser(parseMix)
        .default(PUTS_ONLY, "put=1,get=0"),
    )
    .option("--ordered-reads", "order gets like puts")
    .option("--noop", "an ordered operation that does nothing, instead of the mix")
    .addOption(whole("--request-bytes <r>", "payload of a no-operation", { min: 0, max: VALUE_BYTES_MAX }).default(0))
    .addOption(whole("--reply-bytes <p>", "payload of its reply", { min: 0, max: VALUE_BYTES_MAX }).default(0))
    .option("--limit", "alternate with the fan-out limit: the same load on echo processes, waiting for Q of n")
    .addOption(whole("--rounds <n>", "measured rounds (default: 1; 3 with --limit)", { min: 1, max: 100 }))
    .addOption(
      whole("--timeline [ms]", "what happened when: a line per interval, 250 ms unless given", {
        min: 10,
        max: 60_000,
      }).preset("250"),
    )
    .addHelpText(
      "after",
      helpTail({
        notes:
          "Puts go to keys bench/00000000 to bench/00009999 and stay there. Figures are medians over the rounds; latencies\n" +
          "and CPU are over all of them. CPU is known for replicas on this machine and for those with /metrics.\n" +
          "An error ends no run: it is counted, and the client goes on after 50 ms; --timeout is per operation, 30s unless\n" +
          "given. --timeline shows answers, errors, 99th percentile and the longest time without an answer per interval,\n" +
          "and when replicas stop answering, answer again, or name another leader.",
        json:
          'a line per round, then as the last line {"opsPerSecond","latencyMs":{"mean","p50","p95","p99","max"},"errors",' +
          '"cpuMicrosPerOp":{"client","replicas","byReplica"},"limit":{"opsPerSecond","ratio"} or null,' +
          '"timeline":{"longestGap":{"ms","fromMs"},"errorsByCode":{"TIMEOUT":1}} or null}; with --timeline before it a line' +
          ' per interval, {"round","interval":{"fromMs","toMs"},"operations","opsPerSecond","errors","p99Ms","gapMs","marks"}',
        examples: [
          "kv bench --clients 100 --seconds 10",
          "kv bench --clients 1000 --connections 4 --limit -o json",
          "kv bench --clients 10 --mix put=1,get=9 --value-bytes 1024",
          "kv bench --clients 100 --seconds 60 --timeline --timeout 2s",
          "kv bench --noop --request-bytes 0 --reply-bytes 4096",
        ],
      }),
    )
    .action(async (options: BenchOptions, command: Command) => {
      const globals = globalsOf(command);
      const format = requireFormat(globals, ["simple", "table", "json"]);
      const connections = options.connections ?? options.clients;
      if (connections > options.clients) {
        throw usageError(`--connections ${connections} exceeds --clients ${options.clients}; a client uses one set`);
      }
      const { runBench } = await import("../bench/run.ts");
      const workload = workloadOf(options);
      await runBench({ globals, io, workload, options: { ...options, connections }, json: format === "json" });
    });
}

function workloadOf({ noop, requestBytes, replyBytes, mix, valueBytes }: BenchOptions): Workload {
  return noop ? { type: "noop", requestBytes, replyBytes } : { type: "mix", mix, valueBytes };
}
