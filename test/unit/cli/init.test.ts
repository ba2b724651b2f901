/** `kv init`: the layout, the modes, and that a failure leaves nothing behind. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { hex } from "../../../protocol/bytes.ts";
import { clusterOf, parseClusterFile } from "../../../protocol/cluster.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { clientIdOf, parseKeyFile } from "../../../protocol/identity.ts";
import { ROTATION_DEFAULT } from "../../../protocol/view.ts";
import { loadServerConfig } from "../../../server/config.ts";
import { kv, temporaryFolder } from "./streams.ts";

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => folder.remove());

const mode = (path: string): string => (statSync(path).mode & 0o777).toString(8);

describe("kv init", () => {
  test("writes every file with its mode, and configurations that load", async () => {
    const dir = folder.in("cluster");
    const { code, out, err } = await kv(["init", "--replicas", "7", "--dir", dir, "--base-port", "7200"]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toContain(`created ${dir}: n=7 f=2 quorum=5 mode=bft\n`);
    expect(mode(dir)).toBe("700");
    for (const key of ["admin.key", "client.key"]) expect(mode(join(dir, key))).toBe("600");
    for (let replica = 0; replica < 7; replica++) {
      const home = join(dir, `replica-${replica}`);
      expect([mode(home), mode(join(home, "replica.key")), mode(join(home, "data"))]).toEqual(["700", "600", "700"]);
      expect(readdirSync(join(home, "data")).length).toBeGreaterThan(0);
      const config = loadServerConfig(join(home, "node.yaml"), { env: {} });
      expect(config.dataDir).toBe(join(home, "data"));
      const { clientPort, peerPort, adminPort } = config.listen;
      expect([clientPort, peerPort, adminPort]).toEqual([0, 1, 2].map((at) => 7200 + 10 * replica + at));
      expect(config.cluster.view).toMatchObject({ n: 7, f: 2, quorum: 5 });
    }
    expect(readdirSync(folder.path)).toEqual(["cluster"]);
  });

  test("crash mode: three replicas unless told otherwise, a majority is a quorum", async () => {
    const dir = folder.in("crash");
    const { code, out } = await kv(["init", "--mode", "cft", "--dir", dir]);
    expect({ code, created: out.split("\n")[0] }).toEqual({
      code: 0,
      created: `created ${dir}: n=3 f=1 quorum=2 mode=cft`,
    });
    const config = loadServerConfig(join(dir, "replica-2", "node.yaml"), { env: {} });
    expect(config.cluster.view).toMatchObject({ mode: "cft", n: 3, f: 1, quorum: 2 });
    const five = await kv(["init", "--mode", "cft", "--replicas", "5", "--dir", folder.in("five"), "-o", "json"]);
    expect(JSON.parse(five.out)).toMatchObject({ mode: "cft", replicas: 5, f: 2, quorum: 3 });
    const two = await kv(["init", "--mode", "cft", "--replicas", "2", "--dir", folder.in("two")]);
    expect(two).toMatchObject({ code: 0, err: expect.stringContaining("use --replicas 3 or more") });
    expect(await kv(["init", "--mode", "raft", "--dir", folder.in("none")])).toMatchObject({ code: 2 });
  });

  test("the malicious fault model is named, as kv status names it", async () => {
    const dir = folder.in("wary");
    const { out } = await kv(["init", "--dir", dir, "--fault-model", "malicious"]);
    expect(out).toContain(`created ${dir}: n=4 f=1 quorum=3 mode=bft fault-model=malicious rotation=1000\n`);
  });

  test("kv dev does not change the mode of a cluster that is there", async () => {
    const dir = folder.in("there");
    await kv(["init", "--mode", "cft", "--dir", dir]);
    const { code, err } = await kv(["dev", "--mode", "bft", "--dir", dir]);
    expect({ code, err }).toMatchObject({ code: 2, err: expect.stringContaining("a cluster in cft mode, not bft") });
  });

  test("hosts, listed clients and signed requests go to the cluster file", async () => {
    const dir = folder.in("c");
    const hosts = ["10.0.0.1", "db-2.example", "::1", "10.0.0.4"];
    const { code } = await kv([
      "init",
      "--dir",
      dir,
      "--host",
      hosts.join(","),
      "--clients",
      "listed",
      "--signed-requests",
    ]);
    expect(code).toBe(0);
    const file = parseClusterFile(readFileSync(join(dir, "cluster.json"), "utf8"), "cluster.json");
    expect(file.members.map(({ host }) => host)).toEqual(hosts);
    expect(file.signedRequests).toBe(true);
    const { identity } = parseKeyFile(readFileSync(join(dir, "client.key"), "utf8"), "client.key");
    expect(file.clients).toEqual([hex(clientIdOf(nodeCrypto, identity))]);
    const id = await kv(["id", "--cluster", join(dir, "cluster.json")]);
    expect({ ...id, out: id.out.split("\n")[0] }).toEqual({ code: 0, out: `id   ${String(file.clients)}`, err: "" });
    const admin = parseKeyFile(readFileSync(join(dir, "admin.key"), "utf8"), "admin.key");
    expect([admin.role, hex(admin.identity.signKey)]).toEqual(["admin", file.administrators[0]]);
  });

  test.each([
    [["--fault-model", "malicious"], { faultModel: "malicious", rotation: ROTATION_DEFAULT, signedRequests: true }],
    [["--fault-model", "malicious", "--rotation", "5"], { faultModel: "malicious", rotation: 5, signedRequests: true }],
    [["--fault-model", "plain"], { signedRequests: false }],
  ])("%j goes to the cluster file, with the signed requests it takes", async (flags, expected) => {
    const dir = folder.in("c");
    expect((await kv(["init", "--dir", dir, ...flags])).code).toBe(0);
    const file = parseClusterFile(readFileSync(join(dir, "cluster.json"), "utf8"), "cluster.json");
    const { faultModel, rotation, signedRequests } = file;
    expect({ faultModel, rotation, signedRequests }).toEqual({
      faultModel: undefined,
      rotation: undefined,
      ...expected,
    });
    expect(clusterOf(nodeCrypto, file).view.faultModel).toBe(file.faultModel ?? "plain");
  });

  test("two clusters share no secret and no id", async () => {
    for (const name of ["a", "b"]) await kv(["init", "--dir", folder.in(name), "--replicas", "1"]);
    const [a, b] = ["a", "b"].map((name) => readFileSync(folder.in(`${name}/cluster.json`), "utf8"));
    const ids = [a, b].map((text) => clusterOf(nodeCrypto, parseClusterFile(text ?? "", "")).id);
    expect(ids[0]).not.toBe(ids[1]);
  });

  test("fewer than four replicas work, with a warning", async () => {
    const { code, out, err } = await kv(["init", "--dir", folder.in("c"), "--replicas", "3", "-o", "json"]);
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ replicas: 3, f: 0, quorum: 2 });
    expect(err).toMatch(/^kv: warning: 3 replicas tolerate no fault \(f=0\).*\n$/);
  });

  test("an existing directory is refused, even an empty one, and stays as it was", async () => {
    const dir = folder.in("taken");
    mkdirSync(dir);
    const { code, out, err } = await kv(["init", "--dir", dir]);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(/^kv: .*taken exists already; .*\n$/);
    expect(readdirSync(dir)).toEqual([]);
    expect(readdirSync(folder.path)).toEqual(["taken"]);
  });

  test.each([
    [["--replicas", "0"], /integer from 1 to 64/],
    [["--base-port", "65510"], /would need port 65542; for 4 replicas it is at most 65503/],
    [["--host", "a,b"], /names 2 hosts for 4 replicas/],
    [["--host", "a b"], /no host name/],
    [["--clients", "some"], /choices are open, listed/],
    [["--fault-model", "kind"], /choices are plain, malicious/],
    [["--rotation", "5"], /belongs to --fault-model malicious/],
    [["--fault-model", "malicious", "--rotation", "0"], /integer from 1/],
  ])("%j is refused and leaves nothing", async (flags, reason) => {
    const { code, out, err } = await kv(["init", "--dir", folder.in("c"), ...flags]);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(reason);
    expect(err.trimEnd()).not.toContain("\n");
    expect(existsSync(folder.in("c"))).toBe(false);
    expect(readdirSync(folder.path)).toEqual([]);
  });

  test("the highest ports fit", async () => {
    expect((await kv(["init", "--dir", folder.in("c"), "--base-port", "65503"])).code).toBe(0);
  });
});
