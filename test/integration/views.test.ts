/** The membership changes while real processes serve clients (docs/protocol.md section 7), through the command line as people do it. */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { connect } from "../../client/index.ts";
import type { TestCluster as Cluster } from "./cluster.ts";
import { freeBasePort, TestCluster, until } from "./cluster.ts";
import { compiled, Program, run } from "./programs.ts";

/** Prepares and starts a replica that is no member yet; its folder. */
async function prepared(cluster: Cluster, id: number): Promise<{ folder: string; program: Program }> {
  const folder = join(cluster.folder, `joining-${id}`);
  const basePort = await freeBasePort(1);
  const init = ["init", "--join", "--dir", folder, "--id", `${id}`, "--base-port", `${basePort}`];
  expect(await cluster.kv(init)).toMatchObject({ code: 0 });
  const env = { QUORATE_STOP_ON_STDIN_END: "1" };
  const program = new Program(compiled("server/main"), ["--config", join(folder, "node.yaml")], { env });
  onTestFinished(async () => {
    await program.kill("SIGKILL");
  });
  await program.line((line) => line.startsWith(`ready replica=${id} `), 30_000);
  return { folder, program };
}

/** Changes the membership with `kv view`. */
async function change(cluster: Cluster, args: readonly string[]): Promise<void> {
  const done = await cluster.kv(["view", ...args, "--yes", "--timeout", "30s"], { timeoutMs: 90_000 });
  expect(done, done.stderr).toMatchObject({ code: 0 });
}

/** Writes as fast as answers come until it is stopped; every acknowledged write, in order. */
function writer(cluster: Cluster) {
  const acknowledged: string[] = [];
  let stopping = false;
  const run = (async () => {
    const kv = await cluster.connect({ timeoutMs: 30_000 });
    for (let count = 0; !stopping; count++) {
      await kv.put(`written/${count}`, `${count}`);
      acknowledged.push(`written/${count}`);
    }
    await kv.close();
  })();
  const more = (): Promise<true> => {
    const before = acknowledged.length;
    return until(() => (acknowledged.length >= before + 20 ? true : null), {
      timeoutMs: 60_000,
      what: "acknowledged writes",
    });
  };
  const stop = async (): Promise<readonly string[]> => {
    stopping = true;
    await run;
    return acknowledged;
  };
  return { more, stop };
}

test("a replica joins under load, the leader is removed and retires, keys change, and nothing is lost", async () => {
  const cluster = await TestCluster.start();
  const load = writer(cluster);
  await load.more();
  const { folder } = await prepared(cluster, 4);
  await change(cluster, ["add", join(folder, "join.json")]);
  await load.more();
  await change(cluster, ["remove", "0"]);
  await load.more();
  expect(await cluster.server(0).exited).toMatchObject({ code: 0 });
  expect(existsSync(join(cluster.home(0), "replica.key"))).toBe(false);
  const again = await run(compiled("server/main"), ["--config", join(cluster.home(0), "node.yaml")]);
  expect(again).toMatchObject({ code: 2, stderr: expect.stringMatching(/^kv-server: .* \[REPLICA_RETIRED\]\n$/) });
  expect(await cluster.kv(["init", "--rotate-key", join(cluster.home(2), "node.yaml")])).toMatchObject({ code: 0 });
  await change(cluster, ["rotate-key", join(cluster.home(2), "rotate.json")]);
  await load.more();
  // Of the four that are left the new one and the one with new keys are needed.
  await cluster.kill(3, "SIGKILL");
  await load.more();
  // A start with keys that the cluster file does not know.
  await cluster.startOne(3);
  await cluster.kill(2, "SIGKILL");
  await load.more();
  await cluster.startOne(2);
  const written = await load.stop();
  const kv = await cluster.connect({ timeoutMs: 30_000 });
  for (const key of written) expect((await kv.get(key))?.value).toBe(key.split("/")[1]);
  const show = await cluster.kv(["view", "show", "-o", "json"]);
  expect(JSON.parse(show.stdout)).toMatchObject({ view: 3, n: 4, f: 1 });
}, 240_000);

test("a snapshot is saved after members changed, though kv has not followed that yet, and proves itself", async () => {
  const cluster = await TestCluster.start();
  const file = join(cluster.folder, "later.qsnap");
  await cluster.kv(["put", "kept", "yes"]);
  const { folder } = await prepared(cluster, 4);
  await change(cluster, ["add", join(folder, "join.json")]);
  await change(cluster, ["remove", "0"]);
  expect(await cluster.server(0).exited).toMatchObject({ code: 0 });
  const said = cluster.log(0).find(({ msg }) => String(msg).startsWith("removed from the cluster"));
  expect(said).toMatchObject({
    view: 2,
    msg: expect.stringMatching(/secret keys erased, \S+\/replica\.key\.retired left$/),
  });
  rmSync(`${cluster.clusterPath}.views`);
  const saved = await cluster.kv(["snapshot", "save", file, "-o", "json"], { timeoutMs: 120_000 });
  expect(saved, saved.stderr).toMatchObject({ code: 0 });
  const { signedBy } = JSON.parse(saved.stdout);
  const signers: number[] = signedBy.map(({ replica }: { replica: number }) => replica);
  expect(signers.length).toBeGreaterThanOrEqual(2);
  for (const signer of signers) expect([1, 2, 3, 4]).toContain(signer);
  expect(await cluster.kv(["snapshot", "verify", file])).toMatchObject({ code: 0 });
  const founded = join(cluster.folder, "founded");
  const init = ["init", "--dir", founded, "--from-snapshot", file];
  expect(await run(compiled("cli/main"), init)).toMatchObject({ code: 0 });
}, 240_000);

test("a member moves: its admin port as well, and it is found there after a restart", async () => {
  const cluster = await TestCluster.start();
  const port = await freeBasePort(1);
  const ports = ["--client-port", `${port}`, "--peer-port", `${port + 1}`, "--admin-port", `${port + 2}`];
  await change(cluster, ["set-address", "3", ...ports]);
  const answers = () =>
    fetch(`http://127.0.0.1:${port + 2}/readyz`).then(
      ({ ok }) => ok || null,
      () => null,
    );
  await until(answers, { timeoutMs: 30_000, what: "the admin port in its new place" });
  const status = await cluster.kv(["status", "-o", "json", "--timeout", "10s"]);
  expect(JSON.parse(status.stdout)).toMatchObject({ reachable: 4 });
  await cluster.kill(3, "SIGKILL");
  const ready = await cluster.launch(3).line((line) => line.startsWith("ready replica=3 "), 30_000);
  expect(ready).toMatch(new RegExp(`:${port}/ peers=[^ ]*:${port + 1} http=[^ ]*:${port + 2}/`));
  await until(answers, { timeoutMs: 30_000, what: "the admin port after a restart" });
}, 120_000);

test("a member that has moved and has other keys since loses its data: it begins where it was founded, and is told", async () => {
  const cluster = await TestCluster.start();
  expect(await cluster.kv(["put", "before", "1"])).toMatchObject({ code: 0 });
  expect(await cluster.kv(["init", "--rotate-key", join(cluster.home(3), "node.yaml")])).toMatchObject({ code: 0 });
  await change(cluster, ["rotate-key", join(cluster.home(3), "rotate.json")]);
  await losesItsData(cluster, 3, cluster.member(3).adminPort);
  const port = await freeBasePort(1);
  const ports = ["--client-port", `${port}`, "--peer-port", `${port + 1}`, "--admin-port", `${port + 2}`];
  await change(cluster, ["set-address", "3", ...ports]);
  await votesAt(port + 2);
  await losesItsData(cluster, 3, port + 2);
  expect(await cluster.kv(["put", "after", "2"], { timeoutMs: 60_000 })).toMatchObject({ code: 0 });
}, 240_000);

/** Killed, and started again with its keys and files alone. */
async function losesItsData(cluster: TestCluster, replica: number, adminPort: number): Promise<void> {
  await cluster.kill(replica, "SIGKILL");
  rmSync(join(cluster.home(replica), "data"), { recursive: true });
  await cluster.launch(replica).line((line) => line.startsWith(`ready replica=${replica} `), 30_000);
  await votesAt(adminPort);
}

async function votesAt(adminPort: number): Promise<void> {
  const votes = () =>
    fetch(`http://127.0.0.1:${adminPort}/status`).then(
      async (answer) => ((await answer.json()) as { state: string }).state === "voting" || null,
      () => null,
    );
  await until(votes, { timeoutMs: 60_000, what: `a vote of whoever answers at port ${adminPort}` });
}

test("a member without its data, back after everybody it knew was replaced, is told of the new members, and goes on", async () => {
  const cluster = await TestCluster.start();
  expect(await cluster.kv(["put", "before", "1"])).toMatchObject({ code: 0 });
  await cluster.kill(3, "SIGKILL");
  rmSync(join(cluster.home(3), "data"), { recursive: true });
  for (const [gone, id] of [
    [0, 4],
    [1, 5],
    [2, 6],
  ] as const) {
    const { folder } = await prepared(cluster, id);
    await change(cluster, ["replace", `${gone}`, join(folder, "join.json")]);
    expect(await cluster.server(gone).exited).toMatchObject({ code: 0 });
  }
  await cluster.startOne(3);
  await until(async () => ((await cluster.status(3)).state === "voting" ? true : null), {
    timeoutMs: 60_000,
    what: "replica 3 to vote among members it had never heard of",
  });
  expect(await cluster.kv(["put", "after", "2"])).toMatchObject({ code: 0 });
}, 240_000);

test("the only member is replaced by one that joins it, again and again, each time by somebody who knows none of the members", async () => {
  const cluster = await TestCluster.start({ replicas: 1 });
  expect(await cluster.kv(["put", "kept", "yes"])).toMatchObject({ code: 0 });
  for (const id of [1, 2]) {
    const { folder } = await prepared(cluster, id);
    await change(cluster, ["replace", `${id - 1}`, join(folder, "join.json")]);
  }
  expect(await cluster.kv(["get", "kept"])).toMatchObject({ code: 0, stdout: "yes\n" });
  // Nobody answers any more where the cluster file says: administrators and programs know the way all the same.
  expect(await cluster.kv(["client", "list"])).toMatchObject({ code: 0 });
  const kv = await connect({ cluster: cluster.clusterPath });
  onTestFinished(() => kv.close());
  expect(await kv.get("kept")).toMatchObject({ value: "yes" });
  expect(kv.view.id).toBe(2);
}, 120_000);
