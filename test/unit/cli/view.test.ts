/** `kv view` and what `kv init` prepares for it, on fake replicas that order, and fake admin ports. */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { membersIn } from "../../../cli/commands/dev.ts";
import type { Network } from "../../../cli/io.ts";
import { knownView } from "../../../cli/session.ts";
import { systemClock } from "../../../client/clock.ts";
import { decodeSignedStatement } from "../../../protocol/administration.ts";
import { hex } from "../../../protocol/bytes.ts";
import { clusterFileText } from "../../../protocol/cluster.ts";
import { keyFileText, newIdentity, parseKeyFile } from "../../../protocol/identity.ts";
import { parseJoinFile, parseRotationFile, readyText } from "../../../protocol/member-file.ts";
import { decodeInvitation } from "../../../protocol/reconfiguration.ts";
import { type Member, memberOf, type View } from "../../../protocol/view.ts";
import { parseNodeFile } from "../../../server/config.ts";
import { crypto, FakeCluster } from "../client/fake-replicas.ts";
import { kv as run, temporaryFolder } from "./streams.ts";

let folder: ReturnType<typeof temporaryFolder>;
let cluster: FakeCluster;
/** Invitations by the admin port they came to. */
let invitations: Map<number, Member[]>;
/** What GET /ready answers, by admin port. */
let readies: Map<number, () => Response>;
/** And GET /status. */
let statuses: Map<number, object>;
let path: string;

beforeEach(() => {
  folder = temporaryFolder();
  cluster = new FakeCluster({ clock: systemClock(), n: 4 });
  invitations = new Map();
  readies = new Map();
  statuses = new Map();
  path = folder.in("cluster.json");
  writeFileSync(path, clusterFileText(cluster.file));
  const [administrator] = cluster.world.administrators;
  if (!administrator) throw new Error("no administrator");
  writeFileSync(folder.in("admin.key"), keyFileText("admin", administrator), { mode: 0o600 });
  writeFileSync(folder.in("client.key"), keyFileText("client", newIdentity(crypto)), { mode: 0o600 });
});
afterEach(() => folder.remove());

const network: Network = {
  transport: { open: (member, events) => cluster.open(member, events) },
  fetch: async (input, init) => {
    const url = new URL(String(input));
    const port = Number(url.port);
    if (url.pathname === "/invitation") {
      const { type, body } = decodeSignedStatement(init?.body as Uint8Array);
      if (init?.method !== "POST" || type !== "invite") throw new Error("no invitation");
      invitations.set(port, [...(invitations.get(port) ?? []), decodeInvitation(body)]);
      return new Response(null, { status: 202 });
    }
    const status = statuses.get(port);
    if (url.pathname === "/status" && status) return new Response(JSON.stringify(status));
    const ready = url.pathname === "/ready" ? readies.get(port) : undefined;
    if (!ready) throw new TypeError("fetch failed");
    return ready();
  },
};

const kv = (...argv: string[]) => run(["--cluster", path, "--timeout", "20s", ...argv], { network });

/** A replica that `kv init --join` prepared, started, and is ready. */
async function prepared(id: number, ready: { status?: number } = {}): Promise<string> {
  const dir = folder.in(`replica-${id}`);
  const made = await kv("init", "--join", "--id", `${id}`, "--dir", dir, "--base-port", `${7000 + 10 * id}`);
  expect(made.code).toBe(0);
  const { identity } = parseKeyFile(readFileSync(join(dir, "replica.key"), "utf8"), "");
  cluster.world.know(id, identity);
  const file = join(dir, "join.json");
  const { member } = parseJoinFile(readFileSync(file, "utf8"), "");
  const { status } = ready;
  if (status === undefined) becomeReady(member);
  else readies.set(member.adminPort, () => new Response("", { status }));
  return file;
}

function becomeReady(member: Member): void {
  readies.set(member.adminPort, () => {
    const { view } = cluster;
    const ready = cluster.world.ready(view, member, { instance: 0 });
    return new Response(readyText({ view: view.digest, replica: member.id, ready }));
  });
}

const ids = () => cluster.view.members.map(({ id }) => id);

describe("kv view show", () => {
  test("members, sizes and connections; the newest view, whatever the cluster file says", async () => {
    cluster.reconfigure((view) => cluster.world.replacing(view, 0, 4));
    const { code, out, err } = await kv("view", "show");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^view 1 \(bft\): n=4 f=1 quorum=3, 1 of 1 administrators sign\n/);
    expect(out).toMatch(/\n4 {8}127\.0\.0\.1 {2}7040 {5}7041 {3}7042 {3}[0-9a-f]{16} {2}(yes|no)\n/);
    const json = JSON.parse((await kv("view", "show", "-o", "json")).out);
    expect(json).toMatchObject({ view: 1, mode: "bft", n: 4, f: 1, quorum: 3, administrators: { threshold: 1 } });
    expect(json.members.map(({ id }: { id: number }) => id)).toEqual([1, 2, 3, 4]);
    // What was followed is kept beside the cluster file.
    expect(existsSync(`${path}.views`)).toBe(true);
  });
});

test("kv status asks the members of the newest view that was followed", async () => {
  cluster.reconfigure((view) => cluster.world.replacing(view, 0, 4));
  const members = async () => {
    const { replicas } = JSON.parse((await kv("status", "-o", "json")).out) as { replicas: { replica: number }[] };
    return replicas.map(({ replica }) => replica);
  };
  expect(await members()).toEqual([0, 1, 2, 3]);
  await kv("view", "show");
  expect(await members()).toEqual([1, 2, 3, 4]);
});

describe("kv view add, replace, remove, set-f", () => {
  test("a replica is invited, waited for, and added; members and clients know it then", async () => {
    const file = await prepared(4);
    const { code, out, err } = await kv("view", "add", file, "--yes");
    expect({ code, out }).toEqual({ code: 0, out: "view 1: n=5 f=1 quorum=4\n" });
    expect(err).toBe(
      [
        "add replica 4 at 127.0.0.1:7040: view 0 -> 1",
        "                now  then",
        "replicas (n)    4    5",
        "faulty (f)      1    1",
        "quorum          3    4",
        "may be stopped  1    1",
        "",
      ].join("\n"),
    );
    expect([...invitations.keys()].sort()).toEqual([7002, 7012, 7022, 7032]);
    const [invited] = invitations.get(7002) ?? [];
    expect(invited).toMatchObject({ id: 4, host: "127.0.0.1", adminPort: 7042 });
    expect(ids()).toEqual([0, 1, 2, 3, 4]);
  });

  test("from four to seven, f in a step of its own, and a member out again", async () => {
    for (const id of [4, 5, 6]) expect((await kv("view", "add", await prepared(id), "--yes")).code).toBe(0);
    const set = await kv("view", "set-f", "2", "--yes", "-o", "json");
    expect(JSON.parse(set.out)).toEqual({
      change: "set f from 1 to 2",
      applied: true,
      before: { view: 3, n: 7, f: 1, quorum: 5, mayStop: 2 },
      after: { view: 4, n: 7, f: 2, quorum: 5, mayStop: 2 },
    });
    const refused = await kv("view", "remove", "0", "--yes");
    expect(refused).toMatchObject({ code: 4, out: "" });
    expect(refused.err).toMatch(
      /^kv: the change is refused: f=2 takes 7 replicas in bft; there would be 6 \(SIZES\) \[REFUSED\]\n$/,
    );
    expect((await kv("view", "set-f", "1", "--yes")).err).toContain("note: f falls from 2 to 1");
    expect((await kv("view", "remove", "0", "--yes")).out).toBe("view 6: n=6 f=1 quorum=4\n");
    expect(ids()).toEqual([1, 2, 3, 4, 5, 6]);
    const { err } = await kv("view", "remove", "0", "--yes");
    expect(err).toMatch(/NOT_A_MEMBER/);
  });

  test("kv dev runs the members of the newest view whose folders are there", async () => {
    expect((await kv("view", "add", await prepared(4), "--yes")).code).toBe(0);
    expect((await kv("view", "remove", "0", "--yes")).code).toBe(0);
    for (const id of [0, 1, 3]) {
      mkdirSync(folder.in(`replica-${id}`));
      writeFileSync(folder.in(`replica-${id}/node.yaml`), "");
    }
    const { here, elsewhere } = membersIn(folder.path, await knownView({ path, file: cluster.file }));
    expect(here.map(({ id }) => id)).toEqual([1, 3, 4]);
    expect(elsewhere.map(({ id }) => id)).toEqual([2]);
    const { code, err } = await kv("dev", "--dir", folder.path, "--replicas", "5");
    expect({ code, err }).toMatchObject({ code: 2, err: expect.stringContaining("a cluster of 4 replicas, not 5") });
  });

  test("one takes the place of another in one step", async () => {
    const { code, out } = await kv("view", "replace", "2", await prepared(4), "--yes");
    expect({ code, out }).toEqual({ code: 0, out: "view 1: n=4 f=1 quorum=3\n" });
    expect(ids()).toEqual([0, 1, 3, 4]);
  });

  test("one that is not ready in time: what it said last, and nothing is changed", async () => {
    const fetching = await kv("view", "add", await prepared(4, { status: 404 }), "--yes", "--wait", "100ms");
    expect(fetching).toMatchObject({ code: 3, out: "" });
    expect(fetching.err).toMatch(/\nkv: replica 4 is not ready: it fetches the state; [^\n]+\n$/);
    const file = await prepared(5);
    readies.delete(7052);
    // Long enough that it is not over before the first look.
    const silent = await kv("view", "add", file, "--yes", "--wait", "2s");
    expect(silent.err).toMatch(/kv: waiting for replica 5: nobody answers at 127.0.0.1:7052\n/);
    expect([silent.code, cluster.view.id]).toEqual([3, 0]);
  });

  test("on a terminal one that fetches the state shows how far it is", async () => {
    const place = { view: 0, regency: 0, leader: 0, decided: 0, executed: 0, revision: "0", historyDigest: "" };
    const recovery = { phase: "checkpoint", donor: 1, sources: [], instance: 9, bytes: 43, bytesTotal: 100 };
    const pace = { bytesPerSecond: 0, secondsLeft: null, startedMs: 1 };
    const file = await prepared(4, { status: 404 });
    statuses.set(7042, { replica: 4, cluster: cluster.file.clusterId, ...place, recovery: { ...recovery, ...pace } });
    const argv = ["--cluster", path, "--timeout", "20s", "view", "add", file, "--yes", "--wait", "1s"];
    const { code, err } = await run(argv, { network, terminal: true });
    expect(code).toBe(3);
    expect(err).toContain("kv: waiting for replica 4: it fetches the state\n\r\x1b[Kcheckpoint · 43% ·");
    expect(err).toContain("\r\x1b[Kkv: replica 4 is not ready: it fetches the state; ");
    // Elsewhere it would fill a log.
    expect((await run(argv, { network })).err).not.toContain("43%");
  });

  test("nobody is waited for whose id another change took meanwhile: the answer is that of asking again", async () => {
    const file = await prepared(4, { status: 404 });
    const twin = (view: View) => cluster.world.replacing(view, 2, 4);
    const waiting = kv("view", "replace", "1", file, "--yes", "--wait", "1m");
    await vi.waitFor(() => expect(invitations.size).toBe(4), { timeout: 20_000 });
    cluster.reconfigure(twin);
    const { code, out, err } = await waiting;
    expect({ code, out }).toEqual({ code: 4, out: "" });
    expect(err).toMatch(/\nkv: the change is refused: the id was used before[^\n]*\(ID_USED\) \[REFUSED\]\n$/);
    expect((await kv("view", "replace", "1", file, "--yes")).err).toBe(err.split("\n").slice(-2).join("\n"));
  });

  test("a change that comes first and is no hindrance is followed, and what is waited for shown anew", async () => {
    const file = await prepared(4, { status: 404 });
    const adding = kv("view", "add", file, "--yes", "-o", "json");
    await vi.waitFor(() => expect(invitations.size).toBe(4), { timeout: 20_000 });
    cluster.reconfigure(() => ({ type: "setF", f: 0 }));
    becomeReady(parseJoinFile(readFileSync(file, "utf8"), "").member);
    const { out, err } = await adding;
    expect(err).toMatch(/view 0 -> 1\n[\s\S]*view 1 -> 2\n/);
    expect(JSON.parse(out)).toMatchObject({ applied: true, before: { view: 1, f: 0 }, after: { view: 2, n: 5 } });
  });

  test("a READY of another replica, for another view, or by other keys is none", async () => {
    const file = await prepared(4);
    const { member } = parseJoinFile(readFileSync(file, "utf8"), "");
    const { view, world } = cluster;
    const good = { view: view.digest, replica: 4, ready: world.ready(view, member, { instance: 0 }) };
    const forged = world.ready(view, member, { instance: 0, identity: newIdentity(crypto) });
    for (const lie of [{ replica: 3 }, { view: crypto.sha256(new Uint8Array(1)) }, { ready: forged }]) {
      readies.set(7042, () => new Response(readyText({ ...good, ...lie })));
      const { code, err } = await kv("view", "add", file, "--yes", "--wait", "50ms");
      expect(code).toBe(3);
      expect(err).toMatch(/its READY is for another view, or not signed by its keys/);
    }
    readies.set(7042, () => new Response("hello"));
    expect((await kv("view", "add", file, "--yes", "--wait", "50ms")).err).toContain("it answers something else");
    expect(cluster.view.id).toBe(0);
  });
});

describe("kv view set-address and rotate-key", () => {
  test("only what is named of an address changes", async () => {
    const { code } = await kv("view", "set-address", "2", "--host", "localhost", "--admin-port", "9999", "--yes");
    expect(code).toBe(0);
    expect(memberOf(cluster.view, 2)).toMatchObject({
      host: "localhost",
      clientPort: 7020,
      peerPort: 7021,
      adminPort: 9999,
    });
    const same = await kv("view", "set-address", "2", "--host", "localhost", "--yes");
    const note = async (...address: string[]) => (await kv("view", "set-address", "2", ...address, "--dry-run")).out;
    expect(await note("--client-port", "9997")).toContain("note: the replica moves to the new ports by itself\n");
    expect(await note("--host", "10.0.0.9")).toContain("note: another machine: start the replica there first");
    expect([same.code, same.err.split("\n")[0]]).toEqual([
      4,
      "kv: the change is refused: it changes nothing (NO_CHANGE) [REFUSED]",
    ]);
  });

  test("the next keys are made on the machine, and changed to when the replica signs with them", async () => {
    const home = folder.in("replica-1");
    mkdirSync(home, { mode: 0o700 });
    writeFileSync(
      join(home, "node.yaml"),
      "format: 1\nreplica: 1\ncluster: ../cluster.json\nkeyFile: replica.key\ndataDir: data\n",
    );
    const node = join(home, "node.yaml");
    const made = await kv("init", "--rotate-key", node, "-o", "json");
    const { keyFile, rotation } = JSON.parse(made.out);
    expect([keyFile, rotation]).toEqual([join(home, "replica.key.next"), join(home, "rotate.json")]);
    expect((statSync(keyFile).mode & 0o777).toString(8)).toBe("600");
    const again = await kv("init", "--rotate-key", node);
    expect([again.code, again.err]).toEqual([2, expect.stringContaining("exists already")]);
    const { identity } = parseKeyFile(readFileSync(keyFile, "utf8"), "");
    const { view, world } = cluster;
    const member = { ...(memberOf(view, 1) as Member), signKey: identity.signKey, boxKey: identity.boxKey };
    const ready = world.ready(view, member, { instance: 0, identity });
    readies.set(7012, () => new Response(readyText({ view: view.digest, replica: 1, ready })));
    const before = world.identities.get(1);
    world.know(1, identity);
    if (before) world.identities.set(1, before);
    cluster.onInstall = () => world.know(1, identity);
    const { code, out } = await kv("view", "rotate-key", rotation, "--yes");
    expect({ code, out }).toEqual({ code: 0, out: "view 1: n=4 f=1 quorum=3\n" });
    expect(hex(memberOf(cluster.view, 1)?.signKey ?? "")).toBe(hex(identity.signKey));
    expect(parseRotationFile(readFileSync(rotation, "utf8"), "").signKey).toEqual(identity.signKey);
    expect(invitations.size).toBe(0);
  });
});

describe("before anything is changed", () => {
  test("--dry-run shows what it would mean, and does nothing", async () => {
    const { code, out, err } = await kv("view", "remove", "1", "--dry-run", "-o", "json");
    expect({ code, out }).toEqual({ code: 4, out: "" });
    expect(err).toMatch(/SIZES/);
    const dry = await kv("view", "add", await prepared(4), "--dry-run");
    expect(dry.out).toContain("quorum          3    4\n");
    expect([dry.err, cluster.view.id, invitations.size]).toEqual(["", 0, 0]);
    const json = JSON.parse((await kv("view", "set-f", "0", "--dry-run", "-o", "json")).out);
    expect(json).toMatchObject({ applied: false, after: { view: 1, f: 0 } });
  });

  test("somebody is asked; without a terminal --yes is needed", async () => {
    const nobody = await kv("view", "set-f", "0");
    expect([nobody.code, nobody.out]).toEqual([2, ""]);
    expect(nobody.err).toMatch(/\nkv: nobody is there to be asked: add --yes [^\n]+\n$/);
    const asked = (stdin: string) =>
      run(["--cluster", path, "--timeout", "20s", "view", "set-f", "0"], { network, stdin, terminal: true });
    expect((await asked("no\n")).err).toMatch(/nothing was changed\n$/);
    expect(cluster.view.id).toBe(0);
    expect((await asked("yes\n")).out).toContain("view 1: n=4 f=0 quorum=3");
    expect(cluster.view.f).toBe(0);
  });

  test("an administrator's key is needed, and as many as the threshold says", async () => {
    writeFileSync(folder.in("other.key"), keyFileText("admin", newIdentity(crypto)), { mode: 0o600 });
    const stranger = await kv("view", "set-f", "0", "--yes", "--admin-key", folder.in("other.key"));
    expect([stranger.code, stranger.out]).toEqual([4, ""]);
    expect(stranger.err).toMatch(/^kv: it takes 1 of the cluster's administrators' keys.*\n$/);
    const client = await kv("view", "set-f", "0", "--yes", "--admin-key", folder.in("client.key"));
    expect(client).toMatchObject({ code: 4, err: expect.stringContaining("[NOT_ADMINISTRATOR]") });
    const missing = await kv("view", "set-f", "0", "--yes", "--admin-key", folder.in("none.key"));
    expect([missing.code, missing.err]).toEqual([2, expect.stringContaining("does not exist")]);
    expect(cluster.view.id).toBe(0);
  });

  test("its key file is taken by its own mode alone, as kv client takes it", async () => {
    chmodSync(folder.path, 0o755);
    expect(await kv("view", "set-f", "0", "--dry-run")).toMatchObject({ code: 0 });
    chmodSync(folder.in("admin.key"), 0o644);
    const loose = await kv("view", "set-f", "0", "--dry-run");
    expect(loose).toMatchObject({ code: 2, out: "", err: expect.stringContaining("[KEY_FILE_PERMISSIONS]") });
  });

  test("files of another cluster, and files that are none", async () => {
    const file = await prepared(4);
    const other = new FakeCluster({ clock: systemClock() });
    writeFileSync(path, clusterFileText(other.file));
    const foreign = await kv("view", "add", file, "--yes");
    expect([foreign.code, foreign.err]).toEqual([2, expect.stringMatching(/made for another cluster/)]);
    writeFileSync(file, "{}");
    expect(await kv("view", "add", file, "--yes")).toMatchObject({ code: 2, err: expect.stringMatching(/join\.json/) });
    expect(await kv("view", "rotate-key", folder.in("none"), "--yes")).toMatchObject({ code: 2 });
  });

  test("a cluster that does not answer: exit 3, nothing signed", async () => {
    for (const id of [0, 1]) cluster.replica(id).down = true;
    const { code, err } = await run(["--cluster", path, "--timeout", "3s", "view", "set-f", "0", "--yes"], {
      network,
    });
    expect(code).toBe(3);
    expect(err).toMatch(/^kv: 2 of the 3 replicas needed are connected[^\n]*\n$/);
  });

  test("an answer that is lost is no doubt: the view says what was done", async () => {
    let lost = 0;
    for (const replica of cluster.replicas) {
      replica.behaviour = (honest, request) => {
        if (request.kind !== "administer") return honest;
        lost++;
        return null;
      };
    }
    const { code, out } = await run(["--cluster", path, "--timeout", "2s", "view", "set-f", "0", "--yes"], { network });
    expect({ code, out }).toEqual({ code: 0, out: "view 1: n=4 f=0 quorum=3\n" });
    expect(lost).toBeGreaterThan(0);
  });

  test("ordered too late, it is refused for good", async () => {
    cluster.aheadMs = 60_000;
    const { code, err } = await kv("view", "set-f", "0", "--yes", "--valid-for", "30s");
    expect(code).toBe(4);
    expect(err).toMatch(/\nkv: the change is refused: EXPIRED: [^\n]+\n$/);
  });
});

describe("kv init --join", () => {
  test("writes a replica that is none yet: its files, modes and the next id", async () => {
    cluster.reconfigure((view) => cluster.world.adding(view, 4));
    expect((await kv("view", "show")).code).toBe(0);
    const dir = folder.in("next");
    const { code, out } = await kv("init", "--join", "--dir", dir, "--host", "10.0.0.9", "--base-port", "8000");
    expect(code).toBe(0);
    expect(out).toBe(
      `created ${dir}: replica 5 at 10.0.0.9:8000\nstart it here:\n  kv-server --config ${dir}/node.yaml\n` +
        `then, as an administrator:\n  kv view add ${dir}/join.json\n`,
    );
    const mode = (name: string) => (statSync(join(dir, name)).mode & 0o777).toString(8);
    expect(readdirSync(dir).sort()).toEqual(["cluster.json", "data", "join.json", "node.yaml", "replica.key"]);
    expect([mode("."), mode("replica.key"), mode("data")]).toEqual(["700", "600", "700"]);
    const { cluster: theirs, member } = parseJoinFile(readFileSync(join(dir, "join.json"), "utf8"), "");
    expect(theirs).toBe(cluster.cluster.id);
    expect(member).toMatchObject({ id: 5, host: "10.0.0.9", clientPort: 8000, peerPort: 8001, adminPort: 8002 });
    const { identity } = parseKeyFile(readFileSync(join(dir, "replica.key"), "utf8"), "");
    expect(member.signKey).toEqual(identity.signKey);
    const node = parseNodeFile(readFileSync(join(dir, "node.yaml"), "utf8"), "");
    expect(node).toMatchObject({ replica: 5, cluster: "cluster.json", join: "join.json" });
    const other = ["--id", "9", "--base-port", "8010", "-o", "json"];
    const json = await kv("init", "--join", "--dir", folder.in("json"), ...other);
    expect(JSON.parse(json.out)).toEqual({
      directory: folder.in("json"),
      replica: 9,
      join: join(folder.in("json"), "join.json"),
    });
  });

  test.each([
    [["--join", "--rotate-key", "x"], /exclude each other/],
    [["--id", "4"], /--id belongs to --join/],
    [["--join", "--host", "a b"], /no host name/],
    [["--join", "--id", "70000"], /integer from 0 to 65535/],
    [["--join", "--id", "3"], /--id 3: ids below 4 were given before and never return; leave --id out/],
    [["--join"], /replica 0 listens at 127\.0\.0\.1 on 7000, 7001, 7002; choose other ports .* --replaces 0 /],
    [["--join", "--base-port", "7031"], /replica 3 listens/],
    [["--join", "--base-port", "7031", "--replaces", "2"], /replica 3 listens/],
    [["--join", "--replaces", "4"], /--replaces 4: it is no member; members are 0, 1, 2, 3/],
    [["--replaces", "2"], /--replaces belongs to --join/],
    [["--join", "--replicas", "4"], /--replicas is of a new cluster, and --join prepares for one that is there/],
    [["--join", "--from-snapshot", "x"], /--from-snapshot is of a new cluster/],
    [["--join", "--fault-model", "plain"], /--fault-model is of a new cluster/],
    [["--rotate-key", "node.yaml", "--signed-requests"], /--signed-requests is of a new cluster, and --rotate-key/],
    [["--rotate-key", "no-such/node.yaml"], /node\.yaml/],
  ])("%j is refused and leaves nothing", async (flags, reason) => {
    const before = readdirSync(folder.path);
    const { code, out, err } = await kv("init", "--dir", folder.in("c"), ...flags);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(reason);
    expect(readdirSync(folder.path)).toEqual(before);
  });

  test("ids and addresses of the newest view known count; one that replaces a member may have its address", async () => {
    const join = (name: string, ...flags: string[]) => kv("init", "--join", "--dir", folder.in(name), ...flags);
    cluster.reconfigure((view) => cluster.world.adding(view, 4));
    cluster.reconfigure(() => ({ type: "remove", id: 0 }));
    expect((await kv("view", "show")).code).toBe(0);
    expect((await join("a", "--base-port", "7040")).err).toMatch(/replica 4 listens/);
    expect((await join("a", "--id", "0")).err).toMatch(/ids below 5 were given before/);
    expect(await join("a")).toMatchObject({ code: 0, out: expect.stringContaining("replica 5 at 127.0.0.1:7000") });
    const replacing = await join("b", "--base-port", "7040", "--replaces", "4");
    expect(replacing.code).toBe(0);
    expect(replacing.out).toContain(`  kv view replace 4 ${folder.in("b")}/join.json\n`);
    expect((await join("c", "--host", "10.0.0.9", "--base-port", "7040")).code).toBe(0);
  });

  test("an existing directory is refused", async () => {
    const taken = dirname(await prepared(4));
    const { code, err } = await kv("init", "--join", "--dir", taken, "--base-port", "8000");
    expect([code, err]).toEqual([2, expect.stringContaining("exists already")]);
  });
});
