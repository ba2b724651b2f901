/** The fan-out limit's processes and clients: n echo servers, K clients with their own connections, the same C loops. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { systemClock } from "../../client/clock.ts";
import { wsTransport } from "../../client/transport-ws.ts";
import type { Cluster } from "../../protocol/cluster.ts";
import { encodeCommand } from "../../protocol/commands.ts";
import { assert, QuorateError } from "../../protocol/errors.ts";
import { programCommand, siblingProgram } from "../local/replica-process.ts";
import { EchoClient } from "./echo-client.ts";
import { ECHO_CLUSTER } from "./echo-replies.ts";
import { type Operation, resultBytesOf, sampleCommand, type Workload } from "./workload.ts";

const START_MS_MAX = 15_000;

export interface FanOutLimit {
  /** One per client of the benchmark. */
  readonly operations: readonly Operation[];
  close(): Promise<void>;
}

interface EchoProcess {
  readonly port: number;
  stop(): Promise<void>;
}

/** @throws QuorateError QUORUM_UNAVAILABLE when the echo processes do not start */
export async function openFanOutLimit(options: {
  cluster: Cluster;
  workload: Workload;
  clients: number;
  connections: number;
  orderedReads: boolean;
}): Promise<FanOutLimit> {
  const { cluster, workload, clients, connections, orderedReads } = options;
  const resultBytes = resultBytesOf(workload);
  const processes: EchoProcess[] = [];
  const echoClients: EchoClient[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(echoClients.map((client) => client.close()));
    await Promise.all(processes.map((echo) => echo.stop()));
  };
  try {
    for (const { id } of cluster.view.members) processes.push(await startEcho(id, resultBytes));
    const echoCluster = echoClusterOf(cluster, processes);
    const command = encodeCommand(sampleCommand(workload));
    const kind = workload.type === "mix" && workload.mix.put === 0 && !orderedReads ? "unordered" : "ordered";
    for (let index = 0; index < connections; index++) {
      const clock = systemClock();
      echoClients.push(
        new EchoClient({ cluster: echoCluster, transport: wsTransport, clock, command, kind, session: index + 1 }),
      );
    }
    await allComplete(echoClients);
  } catch (error) {
    await close();
    throw error;
  }
  const operations = Array.from({ length: clients }, (_, index): Operation => {
    const client = echoClients[index % connections];
    assert(client, "every client has a connection");
    return client.operation;
  });
  return { operations, close };
}

async function allComplete(clients: readonly EchoClient[]): Promise<void> {
  const deadline = performance.now() + START_MS_MAX;
  await Promise.all(clients.map((client) => client.ready(START_MS_MAX)));
  while (!clients.every((client) => client.complete)) {
    if (performance.now() > deadline) throw new QuorateError("QUORUM_UNAVAILABLE", "the echo processes do not answer");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The cluster's sizes and keys at the echo processes' addresses. */
function echoClusterOf(cluster: Cluster, processes: readonly EchoProcess[]): Cluster {
  const members = cluster.view.members.map((member, position) => ({
    ...member,
    host: "127.0.0.1",
    clientPort: processes[position]?.port ?? 0,
  }));
  return { ...cluster, id: ECHO_CLUSTER, view: { ...cluster.view, cluster: ECHO_CLUSTER, members } };
}

function startEcho(replica: number, resultBytes: number): Promise<EchoProcess> {
  const [file, ...args] = programCommand(siblingProgram("../bench/echo-server"));
  const child = spawn(file, [...args, String(replica), String(resultBytes)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  child.stdin.on("error", () => {});
  const exited = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", () => resolve());
  });
  const stop = async (): Promise<void> => {
    child.kill("SIGKILL");
    await exited;
  };
  return new Promise((resolve, reject) => {
    const failed = (): void => reject(new QuorateError("QUORUM_UNAVAILABLE", "an echo process did not start"));
    void exited.then(failed);
    createInterface({ input: child.stdout }).once("line", (line) => {
      const port = Number(/^port (\d+)$/.exec(line)?.[1] ?? 0);
      if (port > 0) return resolve({ port, stop });
      child.kill("SIGKILL");
      failed();
    });
  });
}
