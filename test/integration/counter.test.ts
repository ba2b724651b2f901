/** The counter of examples/, as its README section starts it: four processes, of which one is killed and one loses its disk. */
import { expect, onTestFinished, test } from "vitest";
import { connectService, newIdentity, type ServiceProxy } from "../../client/index.ts";
import { textOf, utf8 } from "../../protocol/bytes.ts";
import { TestCluster, until } from "./cluster.ts";
import { fetched, rob, SHORT_PERIOD, votes } from "./lost-data.ts";
import { run } from "./programs.ts";

const program = new URL("../../examples/counter/server.ts", import.meta.url);
const client = new URL("../../examples/counter/client.ts", import.meta.url);
const CLIENTS = 4;

async function connected(cluster: TestCluster): Promise<ServiceProxy> {
  const proxy = await connectService({ cluster: cluster.clusterPath, identity: newIdentity(), timeoutMs: 60_000 });
  onTestFinished(() => proxy.close());
  return proxy;
}

/** Every client adds one, so many times, one after the other. Returns what they were answered. */
async function count(proxies: readonly ServiceProxy[], times: number): Promise<number[]> {
  const answers: number[] = [];
  const add = async (proxy: ServiceProxy): Promise<void> => {
    for (let at = 0; at < times; at++) answers.push(Number(textOf(await proxy.invokeOrdered(utf8("+1")))));
  };
  await Promise.all(proxies.map(add));
  return answers;
}

const inOrder = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, at) => from + 1 + at);
const sorted = (answers: readonly number[]): number[] => [...answers].sort((a, b) => a - b);

test("counts every addition once, with a replica killed, started again, and robbed of its data", async () => {
  const settings = { checkpointPeriod: SHORT_PERIOD, requestTimeoutMs: 2_000 };
  const cluster = await TestCluster.create({ settings });
  await Promise.all(cluster.ids.map((id) => cluster.startOne(id, { program })));
  const proxies = await Promise.all(Array.from({ length: CLIENTS }, () => connected(cluster)));

  const killed = count(proxies, 20);
  await cluster.kill(3, "SIGKILL");
  let total = 20 * CLIENTS;
  expect(sorted(await killed)).toEqual(inOrder(0, total));

  await cluster.startOne(3, { program });
  await votes({ cluster, together: 1, records: 0 }, 3);
  await cluster.agreement();

  const filled = { cluster, together: 1, records: 0 };
  await rob(filled, 3);
  // Enough that the others truncate their logs: only a checkpoint brings the total back.
  const times = 3 * SHORT_PERIOD;
  expect(sorted(await count(proxies, times))).toEqual(inOrder(total, total + times * CLIENTS));
  total += times * CLIENTS;
  const truncated = async (): Promise<true | null> =>
    (await Promise.all([0, 1, 2].map((id) => cluster.status(id)))).every(({ log }) => (log?.first ?? 0) > 1) || null;
  await until(truncated, { what: "the others to truncate their logs" });
  await cluster.startOne(3, { program });
  await votes(filled, 3);
  expect(fetched(filled, 3)).toBe(true);
  await cluster.agreement();

  // The replica that was robbed is needed for every answer from now on.
  await cluster.kill(1, "SIGKILL");
  const [first] = proxies as [ServiceProxy];
  expect(textOf(await first.invokeUnordered(utf8("?")))).toBe(`${total}`);
  const { code, stdout } = await run(client, ["--cluster", cluster.clusterPath, "5"]);
  expect({ code, stdout }).toEqual({ code: 0, stdout: `${total + 5}\n` });
  expect(textOf(await first.invokeOrdered(utf8("no command")))).toBe("error");
  for (const id of [0, 2, 3]) expect(await cluster.kill(id, "SIGTERM")).toEqual({ code: 0, signal: null });
});
