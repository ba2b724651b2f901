/** `quorate/server` in one process: four replicas of the example's counter, request verifiers and repliers (docs/library.md). */
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { writeCluster } from "../../cli/local/write-cluster.ts";
import { connectService, newIdentity, type ReplicaReply, type ServiceProxy } from "../../client/index.ts";
import { Counter } from "../../examples/counter/counter.ts";
import { textOf, utf8 } from "../../protocol/bytes.ts";
import {
  loadServerConfig,
  Replica,
  type ReplicaOptions,
  type ReplyToSend,
  type ServerConfig,
} from "../../server/index.ts";
import { freeBasePort, temporaryFolder, until } from "./cluster.ts";

const SILENT = { info: () => undefined, warn: () => undefined, error: () => undefined };
/** Patient enough for a machine with other things to do; a request that waits for FORWARDs still gets them soon. */
const REQUEST_TIMEOUT_MS = 2_000;

type Hooks = Pick<ReplicaOptions, "verifier" | "replier" | "logger">;

interface Running {
  readonly directory: string;
  readonly replicas: readonly Replica[];
}

function configOf(directory: string, id: number): ServerConfig {
  const config = loadServerConfig(join(directory, `replica-${id}`, "node.yaml"), { env: {} });
  return { ...config, requestTimeoutMs: REQUEST_TIMEOUT_MS };
}

/** Replicas of the counter, each with hooks of its own. */
async function started(hooksOf: (id: number) => Hooks, ids: readonly number[] = [0, 1, 2, 3]): Promise<Running> {
  const directory = join(temporaryFolder(), "cluster");
  const basePort = await freeBasePort(4);
  const open = { clients: "open", signedRequests: false } as const;
  await writeCluster({ directory, replicas: 4, hosts: ["127.0.0.1"], basePort, ...open });
  const replicas = await Promise.all(
    ids.map((id) =>
      Replica.start({
        config: configOf(directory, id),
        service: (state) => new Counter(state),
        logger: SILENT,
        ...hooksOf(id),
      }),
    ),
  );
  onTestFinished(async () => {
    await Promise.all(replicas.map((replica) => replica.stop()));
  });
  return { directory, replicas };
}

async function connected({ directory }: Running): Promise<ServiceProxy> {
  const options = { cluster: join(directory, "cluster.json"), identity: newIdentity(), timeoutMs: 30_000 };
  const proxy = await connectService(options);
  onTestFinished(() => proxy.close());
  return proxy;
}

const add = async (proxy: ServiceProxy, what: string): Promise<string> =>
  textOf(await proxy.invokeOrdered(utf8(what))) ?? "";

/** Until these replicas executed the same, at least `executed` instances of it. */
async function agreed(replicas: readonly Replica[], executed: number): Promise<void> {
  await until(
    async () => {
      const all = await Promise.all(replicas.map((replica) => replica.status()));
      const same = new Set(all.map((status) => `${status.executed} ${status.historyDigest}`)).size === 1;
      return same && (all[0]?.executed ?? 0) >= executed ? true : null;
    },
    { what: "agreement" },
  );
}

/** Refuses every bundle with an unlucky addition in it. */
const superstitious: Hooks = {
  verifier: ({ commands }) => (commands.some((command) => textOf(command) === "+13") ? "UNLUCKY" : null),
};

test("start, ready, status, stop; a replica alone is not ready, and says so when it is stopped", async () => {
  const { replicas } = await started(() => ({}));
  await Promise.all(replicas.map((replica) => replica.ready()));
  const [first] = replicas as [Replica];
  expect(first.id).toBe(0);
  expect(await first.status()).toMatchObject({ replica: 0, n: 4, f: 1, quorum: 3, alarms: [] });
  await first.stop();
  const { replicas: alone } = await started(() => ({}), [2]);
  const [lonely] = alone as [Replica];
  const ready = lonely.ready();
  const aborted = lonely.ready({ signal: AbortSignal.abort("enough") });
  await expect(aborted).rejects.toMatchObject({ code: "ABORTED", cause: "enough" });
  await lonely.stop();
  await expect(ready).rejects.toMatchObject({ code: "CLOSED" });
});

test("what every verifier refuses is never executed: the client hears the reason, and others go on", async () => {
  const running = await started(() => superstitious);
  const proxy = await connected(running);
  expect(await add(proxy, "+1")).toBe("1");
  const refused = proxy.invokeOrdered(utf8("+13"));
  await expect(refused).rejects.toMatchObject({ code: "REFUSED", detail: { reason: "UNLUCKY" } });
  expect(await add(proxy, "+1")).toBe("2");
  for (const replica of running.replicas) expect((await replica.status()).regency).toBe(0);
});

test.each([
  ["a follower's", 3],
  ["the leader's", 0],
])("%s verifier alone keeps nothing from being ordered: the others vouch, and all execute the same", async (_, odd) => {
  const refusals: number[] = [];
  const verifier: ReplicaOptions["verifier"] = (request) => {
    const refusal = superstitious.verifier?.(request) ?? null;
    if (refusal) refusals.push(request.sequence);
    return refusal;
  };
  const running = await started((id) => (id === odd ? { verifier } : {}));
  const proxy = await connected(running);
  expect(await add(proxy, "+1")).toBe("1");
  expect(await add(proxy, "+13")).toBe("14");
  expect(await add(proxy, "+1")).toBe("15");
  await agreed(running.replicas, 3);
  expect(refusals.length).toBeGreaterThan(0);
});

test("a leader that alone proposes what the others refuse is replaced, and nothing of it is executed", async () => {
  const running = await started((id) => (id === 0 ? {} : superstitious));
  const proxy = await connected(running);
  expect(await add(proxy, "+1")).toBe("1");
  await expect(proxy.invokeOrdered(utf8("+13"))).rejects.toMatchObject({ code: "REFUSED" });
  const [first] = running.replicas as [Replica];
  await until(async () => ((await first.status()).regency > 0 ? true : null), { what: "another leader" });
  expect(await add(proxy, "+1")).toBe("2");
  await agreed(running.replicas, 2);
});

test("a verifier that throws refuses, and the replica lives", async () => {
  const failures: string[] = [];
  const running = await started(() => ({
    logger: { ...SILENT, error: (_detail, message) => failures.push(message) },
    verifier: ({ commands }) => {
      if (commands.some((command) => command.length > 4)) throw new Error("too long for me");
      return null;
    },
  }));
  const proxy = await connected(running);
  const refused = proxy.invokeOrdered(utf8("+100000"));
  await expect(refused).rejects.toMatchObject({ code: "REFUSED", detail: { reason: "VERIFIER_FAILED" } });
  expect(await add(proxy, "+1")).toBe("1");
  expect(failures).toContain("the request verifier failed: the request is refused");
});

test("a replier hears of every execution, whoever replies, and keeps a reply from leaving", async () => {
  const told: ReplyToSend[] = [];
  const running = await started((id) => {
    if (id === 0) {
      const replier: ReplicaOptions["replier"] = (reply) => {
        told.push(reply);
        return "withhold";
      };
      return { replier };
    }
    const throwing = (): never => {
      throw new Error("no");
    };
    return id === 1 ? { replier: throwing } : {};
  });
  const proxy = await connected(running);
  const heard: ReplicaReply[] = [];
  const result = await proxy.invokeOrdered(utf8("+5"), { onReply: (reply) => heard.push(reply) });
  expect(textOf(result)).toBe("5");
  await agreed(running.replicas, 1);
  // Three are left, and a quorum takes all of them: the one whose replier fails among them.
  // Some may have been asked again, and have said the same again.
  expect([...new Set(heard.map(({ replica }) => replica))].sort()).toEqual([1, 2, 3]);
  const [first] = told;
  expect(first).toMatchObject({ status: "OK", repeated: false });
  expect(first?.commands.map(textOf)).toEqual(["+5"]);
  expect(first?.results?.map(textOf)).toEqual(["5"]);
  // Nor are reads the replier's business: all four may answer.
  expect(textOf(await proxy.invokeUnordered(utf8("?")))).toBe("5");
});

test("a cluster that begins with a snapshot of the key-value store runs no other service", async () => {
  const { directory } = await started(() => ({}), []);
  const config = configOf(directory, 0);
  const origin = { clusterId: "00".repeat(32), snapshot: "00".repeat(32), revisionOffset: 0 } as never;
  const founded = { ...config, cluster: { ...config.cluster, origin } };
  const start = Replica.start({ config: founded, service: (state) => new Counter(state), logger: SILENT });
  await expect(start).rejects.toMatchObject({ code: "CONFIG_INVALID" });
});
