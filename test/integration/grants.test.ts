/** Clients' rights on real processes, from the command line to the disk (docs/protocol.md section 2, "Rights"). */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { connect, connectAdministration, QuorateError } from "../../client/index.ts";
import { sleep, TestCluster } from "./cluster.ts";
import { isBack } from "./leadership.ts";
import { compiled, type Ended, run } from "./programs.ts";

interface Person {
  readonly key: string;
  readonly id: string;
  readonly keys: string;
  readonly pub: string;
}

/** A new client key, and the file its owner hands to an administrator. */
async function person(cluster: TestCluster, name: string): Promise<Person> {
  const key = join(cluster.folder, `${name}.key`);
  const created = await run(compiled("cli/main"), ["client-key", key, "-o", "json"]);
  const { id, keys } = JSON.parse(created.stdout) as { id: string; keys: string };
  const pub = join(cluster.folder, `${name}.pub`);
  writeFileSync(pub, created.stdout);
  return { key, id, keys, pub };
}

const refusal = (ended: Ended) => {
  expect(ended.stderr).toMatch(/^kv: [^\n]+\n$/);
  expect(ended.stdout).toBe("");
  return ended.code;
};

async function states(cluster: TestCluster): Promise<Map<string, string>> {
  const listed = await cluster.kv(["client", "list", "-o", "json"]);
  expect(listed.stderr).toBe("");
  const { clients } = JSON.parse(listed.stdout) as { clients: { id: string; state: string }[] };
  return new Map(clients.map(({ id, state }) => [id, state]));
}

test("granted, used within its rights, refused outside, revoked; all of it survives restarts and a lost disk", async () => {
  const cluster = await TestCluster.start({ clients: "listed" });
  const alice = await person(cluster, "alice");
  const as = (...args: string[]) => cluster.kv([...args, "--identity", alice.key]);
  expect(refusal(await as("get", "a/1"))).toBe(4);

  const granted = await cluster.kv([
    "client",
    "grant",
    "--key-file",
    alice.pub,
    "--read",
    "a/",
    "--read",
    "b/",
    "--write",
    "b/",
  ]);
  expect(granted).toMatchObject({ code: 0, stdout: `granted ${alice.id}\n`, stderr: "" });
  expect((await states(cluster)).get(alice.id)).toBe("granted");
  expect((await cluster.kv(["put", "a/1", "one"])).code).toBe(0);
  expect((await cluster.kv(["put", "c/1", "secret"])).code).toBe(0);

  for (const outside of [
    ["put", "a/1", "two"],
    ["range", "--from", "a/", "--to", "c"],
    ["get", "c/1", "--consistency", "local"],
  ]) {
    const ended = await as(...outside);
    expect([outside.join(" "), refusal(ended)]).toEqual([outside.join(" "), 4]);
    expect(ended.stderr).toMatch(/no right to these keys/);
  }
  const within = async (): Promise<void> => {
    const kv = await cluster.connect({ identity: alice.key });
    expect((await kv.get("a/1"))?.value).toBe("one");
    expect((await kv.get("a/1", { consistency: "local" }))?.value).toBe("one");
    await kv.put("b/1", "mine");
    expect((await kv.page({ from: "a/", to: "a0" })).entries.length).toBe(1);
    const refused = { code: "NOT_PERMITTED" };
    await expect(kv.put("a/1", "two")).rejects.toMatchObject(refused);
    await expect(kv.delete("c/1")).rejects.toMatchObject(refused);
    await expect(kv.cas("c/1", { expect: "absent", value: "x" })).rejects.toMatchObject(refused);
    for (const options of [{}, { ordered: true }, { consistency: "local" }] as const) {
      await expect(kv.get("c/1", options)).rejects.toMatchObject(refused);
      await expect(kv.page({ from: "a/", to: "b0", ...options })).rejects.toMatchObject(refused);
      await expect(kv.page({ from: "a/", ...options })).rejects.toMatchObject(refused);
    }
    await kv.close();
  };
  await within();

  // Everybody forgets what he learned from connections; one replica forgets everything.
  await Promise.all(cluster.ids.map((replica) => cluster.kill(replica, "SIGKILL")));
  rmSync(join(cluster.home(3), "data"), { recursive: true });
  await cluster.startAll();
  await within();
  await cluster.agreement();
  // And the one that did is needed for the quorum, once it votes again: until then it is one of the f that may fail.
  await isBack(cluster, 3);
  await cluster.kill(0, "SIGKILL");
  await within();
  await cluster.startOne(0);

  const kv = await cluster.connect({ identity: alice.key });
  await kv.put("b/2", "while connected");
  expect((await cluster.kv(["client", "revoke", alice.id])).code).toBe(0);
  await expect(kv.put("b/2", "afterwards")).rejects.toBeInstanceOf(QuorateError);
  expect(refusal(await as("get", "a/1"))).toBe(4);
  expect(await states(cluster)).not.toContain(alice.id);
  expect(refusal(await cluster.kv(["client", "revoke", alice.id]))).toBe(2);
  const founder = await cluster.connect();
  expect((await founder.get("b/2"))?.value).toBe("while connected");
  expect((await founder.get("a/1"))?.value).toBe("one");
}, 240_000);

test("a founding client can be revoked, which leaves the administrator in charge; a grant expires", async () => {
  const cluster = await TestCluster.start({ clients: "listed" });
  const [founder] = [...(await states(cluster)).keys()];
  expect((await cluster.kv(["client", "revoke", founder as string])).code).toBe(0);
  expect(refusal(await cluster.kv(["put", "k", "v"]))).toBe(4);
  const bob = await person(cluster, "bob");
  const administration = await connectAdministration({
    cluster: cluster.clusterPath,
    administrators: [join(cluster.directory, "admin.key")],
    timeoutMs: 20_000,
  });
  try {
    const keys = Buffer.from(bob.keys, "hex");
    await administration.grant({ keys, read: [""], write: [""], expiresMs: Date.now() + 8_000 });
    const kv = await connect({ cluster: cluster.clusterPath, identity: bob.key });
    await kv.put("k", "v");
    await sleep(8_500);
    await expect(kv.get("k")).rejects.toMatchObject({ code: "NOT_PERMITTED" });
    await expect(kv.put("k", "w")).rejects.toMatchObject({ code: "NOT_PERMITTED" });
    await kv.close();
    await administration.grant({ keys, read: ["k"] });
    const again = await connect({ cluster: cluster.clusterPath, identity: bob.key });
    expect((await again.get("k"))?.value).toBe("v");
    await again.close();
  } finally {
    await administration.close();
  }
  // Whoever is no administrator gets no statement through, and cannot connect to try.
  const forged = await cluster.kv(["client", "list", "--admin-key", bob.key]);
  expect(refusal(forged)).toBe(4);
}, 120_000);
