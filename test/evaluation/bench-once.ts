/** One `kv bench` as a child process, from its start to its last line. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { programCommand } from "../../cli/local/replica-process.ts";
import { programsIn } from "./demo-debian.ts";

export interface Load {
  readonly clients: number;
  /** Sets of connections that the clients share. */
  readonly connections: number;
  readonly seconds: number;
  readonly warmup: number;
}

/** What `kv bench -o json` ends with, as far as evaluations look at it. */
export interface Measured {
  readonly opsPerSecond: number;
  readonly errors: number;
  readonly latencyMs: { readonly p50: number; readonly p99: number };
  readonly cpuMicrosPerOp: { readonly client: number; readonly replicas: number | null };
}

/** `what`: the options that say which operations. @throws Error with what it said when it fails */
export async function measuredBy(cluster: string, load: Load, what: readonly string[]): Promise<Measured> {
  const { clients, connections, seconds, warmup } = load;
  const [program, ...before] = programCommand(programsIn("dist").kv);
  const how = ["--clients", String(clients), "--connections", String(connections)];
  const long = ["--seconds", String(seconds), "--warmup", String(warmup), "-o", "json"];
  const child = spawn(program, [...before, "--cluster", cluster, "bench", ...what, ...how, ...long], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const said = { out: "", err: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    said.out += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said.err += text;
  });
  const kill = (): void => void child.kill("SIGKILL");
  process.once("exit", kill);
  const [code] = (await once(child, "close")) as [number | null];
  process.removeListener("exit", kill);
  if (code !== 0) throw new Error(`kv bench ended with ${code}: ${said.err}`);
  return JSON.parse(said.out.trimEnd().split("\n").at(-1) ?? "") as Measured;
}
