/** Snapshot files: what is saved verifies, whatever is changed in it does not, and a cluster can be founded from it. */
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { hex, utf8 } from "../../../protocol/bytes.ts";
import { type ClusterFile, clusterFileText, clusterOf, parseClusterFile } from "../../../protocol/cluster.ts";
import { encode } from "../../../protocol/codec.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { keyFileText, newIdentity } from "../../../protocol/identity.ts";
import { Reader } from "../../../protocol/layout.ts";
import { encodeMessage, imageHeaderSchema, type MessageOf } from "../../../protocol/messages.ts";
import { ViewChain } from "../../../protocol/view-chain.ts";
import { type Admin, openAdmin } from "../../../server/network/admin.ts";
import { SnapshotAccess, type SnapshotSource } from "../../../server/snapshot/access.ts";
import { type RootOfMember, SnapshotWriter } from "../../../server/snapshot/file.ts";
import { foundFromSnapshot, foundOrigin, needsFounding } from "../../../server/snapshot/founding.ts";
import { verifySnapshot } from "../../../server/snapshot/verify.ts";
import type { Applied, StagedChunk, StagedState, StateStore, Storage } from "../../../storage/contract.ts";
import { cluster, clusterFile, digestOf, FakeHistory, LAST } from "./snapshot-fixture.ts";
import { kv, temporaryFolder } from "./streams.ts";

const A = 4;
const END = 9;
let truth: FakeHistory;
let folder: ReturnType<typeof temporaryFolder>;
let path: string;

beforeAll(() => {
  truth = new FakeHistory();
});
beforeEach(() => {
  folder = temporaryFolder();
  path = folder.in("s.qsnap");
});
afterEach(() => folder.remove());

interface Contents {
  clusterFile: ClusterFile;
  links: Uint8Array[];
  header: Uint8Array;
  manifest: Uint8Array;
  chunks: Uint8Array[];
  log: MessageOf<"HISTORY">[];
  roots: RootOfMember[];
}

function contents(): Contents {
  const { header, manifest, chunks } = truth.checkpoint(A);
  return {
    clusterFile,
    links: [],
    header: encode(imageHeaderSchema, header),
    manifest,
    chunks: [...chunks],
    log: [truth.history(A + 1, 6), truth.history(7, END)],
    roots: [truth.rootBy(0, A), truth.rootBy(2, 6), truth.rootBy(1, END)],
  };
}

async function write(change: (parts: Contents) => void = () => {}): Promise<void> {
  const parts = contents();
  change(parts);
  const writer = await SnapshotWriter.create(path);
  await writer.add("cluster", utf8(clusterFileText(parts.clusterFile)));
  for (const link of parts.links) await writer.add("link", link);
  await writer.add("header", parts.header);
  await writer.add("manifest", parts.manifest);
  for (const chunk of parts.chunks) await writer.add("chunk", chunk);
  for (const segment of parts.log) await writer.add("history", encodeMessage(segment));
  await writer.addRoots(parts.roots);
  await writer.finish();
}

const verify = () => kv(["snapshot", "verify", path]);

describe("kv snapshot verify", () => {
  test("a true snapshot: where it stands after its log, and who signed that", async () => {
    await write();
    const { code, out, err } = await kv(["snapshot", "verify", path, "-o", "json"]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(JSON.parse(out)).toEqual({
      file: path,
      instance: END,
      revision: String(END * 20),
      entries: expect.any(Number),
      bytes: truth.checkpoint(END).header.bytes,
      root: hex(truth.checkpoint(END).root),
      clusterId: clusterFile.clusterId,
      sha256: createHash("sha256").update(readFileSync(path)).digest("hex"),
      timestampMs: 1_000 + END,
      checkpoint: A,
      signedBy: [
        { replica: 0, instance: A },
        { replica: 1, instance: END },
        { replica: 2, instance: 6 },
      ],
      contradictedBy: [],
    });
    expect(truth.checkpoint(A).chunks.length).toBeGreaterThan(2);
    const text = await verify();
    expect(text.out).toContain("named by the snapshot itself");
    expect(readdirSync(folder.path)).toEqual(["s.qsnap"]);
  });

  test("two signatures at the checkpoint itself need no log", async () => {
    await write((parts) => {
      parts.log = [];
      parts.roots = [truth.rootBy(0, A), truth.rootBy(3, A)];
    });
    expect(JSON.parse((await kv(["snapshot", "verify", path, "-o", "json"])).out)).toMatchObject({ instance: A });
  });

  test("one liar among the signers is named and changes nothing", async () => {
    await write((parts) => parts.roots.push(truth.rootBy(3, 8, digestOf("a lie"))));
    const { code, out } = await verify();
    expect(code).toBe(0);
    expect(out).toContain("not by     replica 3 at 8: signed another root, so it is faulty");
  });

  test("with --cluster it must be of that cluster", async () => {
    await write();
    writeFileSync(folder.in("cluster.json"), clusterFileText(clusterFile));
    const own = await kv(["snapshot", "verify", path, "--cluster", folder.in("cluster.json")]);
    expect(own).toMatchObject({ code: 0, out: expect.stringContaining(`(of ${folder.in("cluster.json")})`) });
    writeFileSync(folder.in("cluster.json"), clusterFileText({ ...clusterFile, maxClients: 99 }));
    const other = await kv(["snapshot", "verify", path], { env: { KV_CLUSTER: folder.in("cluster.json") } });
    expect(other).toMatchObject({ code: 2, out: "", err: expect.stringMatching(/it is of cluster .* not of/) });
  });

  test.each<[string, (parts: Contents) => void, RegExp]>([
    ["too few signed", (parts) => parts.roots.splice(1), /vouched for by 1 of the 2 members it takes/],
    ["one member twice", (parts) => parts.roots.splice(1, 2, truth.rootBy(0, END)), /vouched for by 1 of the 2/],
    [
      "a lie instead of a root",
      (parts) => parts.roots.splice(1, 2, truth.rootBy(1, END, digestOf("a lie"))),
      /vouched for by 1 of the 2 .*; replica 1 signed another at 9/,
    ],
    [
      "a root beyond the log",
      (parts) => parts.roots.splice(1, 2, truth.rootBy(1, END + 1)),
      /vouched for by 1 of the 2/,
    ],
    [
      "a signature of another",
      (parts) => parts.roots.splice(1, 1, { ...truth.rootBy(2, 6), replica: 3 }),
      /the signature of replica 3 on its root at instance 6 is wrong/,
    ],
    ["a stranger", (parts) => parts.roots.push({ ...truth.rootBy(1, 5), replica: 9 }), /replica 9, which is no member/],
    [
      "another chunk",
      (parts) => parts.chunks.splice(0, 1, parts.chunks[1] as Uint8Array),
      /chunk 1 of \d+ is not the one/,
    ],
    ["a link that leads nowhere", (parts) => parts.links.push(utf8("a link")), /links do not lead from view to view/],
    ["a chunk less", (parts) => parts.chunks.pop(), /it holds \d+ of \d+ chunks/],
    [
      "another manifest",
      (parts) => {
        parts.manifest = truth.checkpoint(5).manifest;
      },
      /manifest is not that of its header/,
    ],
    [
      "another header",
      (parts) => {
        parts.header = encode(imageHeaderSchema, { ...truth.checkpoint(A).header, digest: digestOf("a lie") });
      },
      /its log does not go on at instance 5/,
    ],
    ["a gap in the log", (parts) => parts.log.shift(), /its log does not go on at instance 5/],
    ["a segment twice", (parts) => parts.log.push(truth.history(7, END)), /its log does not go on at instance 10/],
    [
      "a log without a certificate",
      (parts) => {
        parts.log = [{ ...truth.history(A + 1, END), proof: null }];
      },
      /log from instance 5 on is not certified/,
    ],
    [
      "a certificate of a vote twice",
      ({ log }) => {
        const proof = log[0]?.proof;
        if (proof)
          proof.certificate = {
            ...proof.certificate,
            votes: proof.certificate.votes.map(() => proof.certificate.votes[0] as never),
          };
      },
      /log from instance 5 on is not certified/,
    ],
    [
      "a batch that the certificate does not reach",
      (parts) => {
        parts.log = [truth.history(A + 1, LAST)];
      },
      /log from instance 5 on is not certified/,
    ],
    [
      "a cluster file that is none",
      (parts) => {
        parts.clusterFile.f = -1;
      },
      /f: /,
    ],
  ])("%s is refused", async (_, change, why) => {
    await write((parts) => {
      parts.clusterFile = structuredClone(parts.clusterFile);
      parts.log = structuredClone(parts.log);
      change(parts);
    });
    const { code, out, err } = await verify();
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(why);
    expect(err).toMatch(/^kv: snapshot [^\n]+\n$/);
    expect(readdirSync(folder.path)).toEqual(["s.qsnap"]);
  });

  test("every truncation and every flipped byte is found", async () => {
    await write();
    const whole = readFileSync(path);
    const check = async () => {
      const options = { file: path, crypto: nodeCrypto, clusterFile, scratchParent: folder.path };
      const result = await verifySnapshot(options).catch((error: { code: string }) => error.code);
      expect(result).toBe("SNAPSHOT_INVALID");
    };
    const places = Array.from({ length: 40 }, (_, index) => Math.floor((index * (whole.length - 1)) / 39));
    for (const at of [...places, 0, 5, 6, 7, 10, whole.length - 33, whole.length - 37]) {
      writeFileSync(path, whole.subarray(0, at));
      await check();
      const flipped = Buffer.from(whole);
      flipped[at] = (flipped[at] ?? 0) ^ 1;
      writeFileSync(path, flipped);
      await check();
    }
    writeFileSync(path, Buffer.concat([whole, Buffer.of(0)]));
    expect((await verify()).err).toContain("something follows its end");
  });

  test("a file that is not there, and a directory", async () => {
    expect(await verify()).toMatchObject({ code: 2, err: expect.stringMatching(/does not exist; name a file/) });
    path = folder.path;
    const err = `kv: snapshot ${path} is a directory; name a file that kv snapshot save wrote [SNAPSHOT_INVALID]\n`;
    expect(await verify()).toEqual({ code: 2, out: "", err });
  });
});

class FakeStaged implements StagedState {
  readonly held = new Map<string, number>();
  readonly entries = new Map<string, Uint8Array>();
  readonly notes = new Map<string, Uint8Array | null>();
  applied: Applied | null = null;
  async retain(): Promise<void> {
    this.entries.clear();
  }
  async add(chunks: readonly StagedChunk[]): Promise<boolean> {
    for (const { entries } of chunks) for (const [key, value] of entries) this.entries.set(key, new Uint8Array(value));
    return true;
  }
  async complete(applied: Applied): Promise<StateStore> {
    this.applied = applied;
    const writeNote = async (name: string, value: Uint8Array | null) => void this.notes.set(name, value);
    return { applied, writeNote, note: (name: string) => this.notes.get(name) ?? null } as unknown as StateStore;
  }
  async close(): Promise<void> {}
}

describe("founding", () => {
  test("kv init --from-snapshot verifies, names the origin, and gives every replica a copy of its own", async () => {
    await write();
    const { code, out, err } = await kv(["init", "--dir", folder.in("new"), "--from-snapshot", path, "-o", "json"]);
    expect({ code, err }).toMatchObject({ code: 0, err: expect.stringContaining("valid snapshot of cluster") });
    const file = parseClusterFile(readFileSync(folder.in("new/cluster.json"), "utf8"), "");
    expect(file.origin).toEqual({
      clusterId: clusterFile.clusterId,
      root: hex(truth.checkpoint(END).root),
      instance: END,
      snapshot: createHash("sha256").update(readFileSync(path)).digest("hex"),
      revisionOffset: 2 ** 32,
    });
    expect(JSON.parse(out).origin).toEqual(file.origin);
    const copies = [0, 1, 2, 3].map((replica) => folder.in(`new/replica-${replica}/data/snapshot`));
    expect(new Set([path, ...copies].map((copy) => statSync(copy).ino)).size).toBe(5);
    for (const copy of copies) {
      expect(readFileSync(copy).equals(readFileSync(path))).toBe(true);
      expect(statSync(copy).mode & 0o777).toBe(0o600);
    }
    const { origin, ...without } = file;
    const genesis = clusterOf(nodeCrypto, file).genesis;
    expect(genesis).not.toBe(clusterOf(nodeCrypto, without).genesis);
    const elsewhere = { ...file, origin: { ...(origin as NonNullable<typeof origin>), instance: END + 1 } };
    expect(genesis).not.toBe(clusterOf(nodeCrypto, elsewhere).genesis);
  });

  test("the cluster that was named must be the snapshot's, or nothing is founded", async () => {
    await write();
    writeFileSync(folder.in("own.json"), clusterFileText(clusterFile));
    await kv(["init", "--dir", folder.in("other")]);
    const other = folder.in("other/cluster.json");
    const found = (dir: string, ...more: string[]) =>
      ["init", "--dir", folder.in(dir), "--from-snapshot", path, ...more] as const;
    for (const ran of [
      await kv(found("new", "--cluster", other)),
      await kv(found("new"), { env: { KV_CLUSTER: other } }),
    ]) {
      expect(ran).toMatchObject({ code: 2, out: "" });
      expect(ran.err).toMatch(/it is of cluster [0-9a-f]+, not of [0-9a-f]+/);
    }
    expect((await kv(found("new", "--cluster", folder.in("none")))).err).toMatch(/none does not exist/);
    expect(existsSync(folder.in("new"))).toBe(false);
    const own = await kv(found("new", "--cluster", folder.in("own.json")), { env: { KV_CLUSTER: other } });
    expect(own.code).toBe(0);
  });

  test("a snapshot that is not valid founds nothing", async () => {
    await write((parts) => parts.roots.splice(1));
    const { code } = await kv(["init", "--dir", folder.in("new"), "--from-snapshot", path]);
    expect(code).toBe(2);
    expect(existsSync(folder.in("new"))).toBe(false);
  });

  test("a founder keeps the entries, raises the revision, drops clients; and refuses another file", async () => {
    await write();
    await kv(["init", "--dir", folder.in("new"), "--from-snapshot", path]);
    const founded = clusterOf(nodeCrypto, parseClusterFile(readFileSync(folder.in("new/cluster.json"), "utf8"), ""));
    const directory = folder.in("new/replica-1/data");
    const staged = new FakeStaged();
    await foundFromSnapshot({ directory, cluster: founded, crypto: nodeCrypto, staged });
    expect(staged.applied).toEqual({ instance: 0, digest: founded.genesis, timestampMs: 0 });
    const state = { applied: { instance: 0, digest: founded.genesis, timestampMs: 0 } };
    expect(needsFounding(founded, { ...state, note: () => null })).toBe(true);
    expect(needsFounding(founded, { ...state, note: (name) => staged.notes.get(name) ?? null })).toBe(false);
    expect(needsFounding(cluster, { ...state, note: () => null })).toBe(false);
    const keys = [...staged.entries.keys()];
    expect(keys.every((key) => key.startsWith("k"))).toBe(true);
    expect(new Reader(staged.entries.get("k") as Uint8Array).u53()).toBe(2 ** 32 + END * 20);
    const replica = new FakeHistory().store;
    const entry = keys.find((key) => key !== "k" && replica.has(key)) as string;
    expect(staged.entries.get(entry)?.length).toBeGreaterThan(20_000);
    writeFileSync(folder.in("other"), "");
    path = folder.in("other");
    await write((parts) => parts.roots.push(truth.rootBy(3, 5)));
    const moved = { ...founded, origin: founded.origin && { ...founded.origin, snapshot: "00".repeat(32) } };
    const wrong = foundFromSnapshot({ directory, cluster: moved, crypto: nodeCrypto, staged: new FakeStaged() });
    await expect(wrong).rejects.toMatchObject({ code: "SNAPSHOT_INVALID" });
  });
});

describe("a founder whose copy of the snapshot is damaged", () => {
  const logged: string[] = [];
  const note = (_detail: object, message: string) => void logged.push(message);
  const logger = { info: note, warn: note };

  /** A replica with nothing in its state, and so many instances in its journal; `lost`: it has no journal any more. */
  async function found(journal: { last?: number; lost?: boolean }): Promise<string> {
    await write();
    await kv(["init", "--dir", folder.in("new"), "--from-snapshot", path]);
    const founded = clusterOf(nodeCrypto, parseClusterFile(readFileSync(folder.in("new/cluster.json"), "utf8"), ""));
    const directory = folder.in("new/replica-1/data");
    truncateSync(`${directory}/snapshot`, 1_000);
    const { last = 0, lost = false } = journal;
    const storage = {
      journal: { summary: { last, forgotten: lost ? { until: null, regency: 0 } : null } },
      state: { applied: { instance: 0, digest: founded.genesis, timestampMs: 0 }, note: () => null },
      repairs: [],
      unstage: async () => {},
      stage: async () => new FakeStaged(),
    } as unknown as Storage;
    return await foundOrigin({ directory, cluster: founded, crypto: nodeCrypto, storage, logger });
  }

  test("does not start when it has never run: every founder verifies its own", async () => {
    const message = /; copy another founder's data\/snapshot here, or remove it: the state is then fetched once /;
    await expect(found({})).rejects.toMatchObject({ code: "SNAPSHOT_INVALID", message });
  });

  test.each([{ last: 7 }, { lost: true }])("has its state from the others when it has run: %o", async (journal) => {
    expect(await found(journal)).toBe("gone");
    expect(logged.at(-1)).toContain("the others are asked");
  });
});

describe("kv snapshot save", () => {
  let admins: Admin[];
  let sources: SnapshotSource[];
  let file: ClusterFile;
  let clients: ClusterFile["clients"];

  beforeEach(async () => {
    admins = [];
    clients = "open";
    sources = [
      truth.source(0, { checkpoint: A, roots: [truth.rootBy(0, A)] }),
      truth.source(1, { checkpoint: 0, roots: [truth.rootBy(1, 7), truth.rootBy(1, 2)] }),
      truth.source(2, { checkpoint: 0, roots: [truth.rootBy(2, END)] }),
      truth.source(3, { checkpoint: 0, roots: [] }),
    ];
    const ports: number[] = [];
    for (const replica of [0, 1, 2, 3]) {
      // The address is part of what a cluster is founded on, so the real ports go into a file of their own.
      const admin = await openAdmin({
        listen: { host: "127.0.0.1", port: 0 },
        routes: {
          livez: () => ({ ok: true, checks: [] }),
          readyz: () => ({ ok: true, checks: [] }),
          metrics: async () => "",
          status: async () => ({}),
          snapshot: (request) =>
            new SnapshotAccess({
              crypto: nodeCrypto,
              cluster,
              replica,
              source: sources[replica] as SnapshotSource,
              nowMs: Date.now,
              mayRead: () => clients === "open",
            }).answer(request),
        },
      });
      admins.push(admin);
      ports.push(admin.port);
    }
    file = {
      ...clusterFile,
      members: clusterFile.members.map((member, id) => ({ ...member, adminPort: ports[id] as number })),
    };
    writeFileSync(folder.in("client.key"), keyFileText("client", newIdentity(nodeCrypto)), { mode: 0o600 });
  });
  afterEach(async () => {
    for (const admin of admins) await admin.close();
  });

  /** The fixture's history is of the cluster with its own ports: ask at the real ones, prove for the former. */
  async function save(options: { fresh?: boolean; waitMs?: number } = {}) {
    const { AdminClient } = await import("../../../cli/snapshot/admin-client.ts");
    const { saveSnapshot } = await import("../../../cli/snapshot/save.ts");
    const identity = newIdentity(nodeCrypto);
    const client = new AdminClient({
      cluster: cluster.id,
      keys: identity,
      sign: nodeCrypto.signer(identity.signSeed),
      timeoutMs: 5_000,
    });
    const at = (member: { id: number }) => file.members[member.id] as ClusterFile["members"][number];
    const redirected = {
      offer: (member, from) => client.offer(at(member), from),
      manifest: (member, checkpoint) => client.manifest(at(member), checkpoint),
      chunk: (member, checkpoint, index) => client.chunk(at(member), checkpoint, index),
      history: (member, range) => client.history(at(member), range),
    } as typeof client;
    const troubles: string[] = [];
    const phases = new Set<string>();
    const summary = await saveSnapshot({
      crypto: nodeCrypto,
      clusterFile,
      chain: ViewChain.of(cluster.view),
      client: redirected,
      path,
      fresh: options.fresh ?? false,
      waitMs: options.waitMs ?? 700,
      onPhase: ({ phase }) => phases.add(phase),
      onTrouble: (line) => troubles.push(line),
    });
    return { summary, troubles, phases: [...phases] };
  }

  test("takes the donor's checkpoint and the log up to the first root of another member", async () => {
    const { summary, troubles, phases } = await save();
    expect(summary).toMatchObject({ checkpoint: A, instance: 7, contradictedBy: [] });
    expect(summary.signedBy.map(({ replica }) => replica)).toEqual([0, 1]);
    expect(troubles).toEqual([]);
    expect(phases).toEqual(["asking", "chunks", "log", "verifying"]);
    expect((await verify()).code).toBe(0);
    expect(readdirSync(folder.path).sort()).toEqual(["client.key", "s.qsnap"]);
  });

  test("a member that lies about its root costs one more try", async () => {
    sources[1] = truth.source(1, { checkpoint: 0, roots: [truth.rootBy(1, 6, digestOf("a lie"))] });
    const { summary, troubles } = await save();
    expect(summary).toMatchObject({ instance: END, contradictedBy: [{ replica: 1, instance: 6 }] });
    expect(troubles).toEqual([expect.stringMatching(/^with replica 0 as the donor: .*replica 1 signed another at 6/)]);
  });

  test("a donor that sends wrong chunks is left for the next one", async () => {
    sources[0] = {
      ...(sources[0] as SnapshotSource),
      chunk: async (at, index) => ({ type: "CHUNK", view: 0, regency: 0, ...at, index, chunk: utf8("wrong") }),
    };
    sources[2] = truth.source(2, { checkpoint: 5, roots: [truth.rootBy(2, 5)] });
    const { summary, troubles } = await save();
    expect(summary.checkpoint).toBe(5);
    expect(troubles.length).toBeLessThanOrEqual(1);
  });

  test("fresh roots are asked for when those there are do not suffice", async () => {
    const asked: number[] = [];
    const plain = sources;
    sources = plain.map((source, replica) => ({
      ...source,
      async offer(rootsFrom) {
        asked.push(rootsFrom);
        const fresh = truth.source(replica, { checkpoint: LAST, roots: [truth.rootBy(replica, LAST)] });
        const none = truth.source(replica, { checkpoint: 0, roots: [] });
        return await (rootsFrom > 0 ? fresh : none).offer(rootsFrom);
      },
      manifest: (at) => truth.source(replica, { checkpoint: LAST, roots: [] }).manifest(at),
      chunk: (at, index) => truth.source(replica, { checkpoint: LAST, roots: [] }).chunk(at, index),
    }));
    const { summary } = await save({ fresh: true, waitMs: 20_000 });
    expect(summary).toMatchObject({ checkpoint: LAST, instance: LAST });
    expect(new Set(asked)).toEqual(new Set([0, LAST]));
  });

  test("a snapshot that lacks what was decided before the command is not taken unless it may be stale", async () => {
    await expect(save({ fresh: true })).rejects.toMatchObject({ code: "QUORUM_UNAVAILABLE" });
    expect((await save()).summary.instance).toBeLessThan(LAST);
  });

  test("nothing to be had: says why, leaves nothing", async () => {
    sources = sources.map((_, replica) => truth.source(replica, { checkpoint: 0, roots: [] }));
    await expect(save()).rejects.toMatchObject({ code: "QUORUM_UNAVAILABLE", message: /no checkpoint of 4 replicas/ });
    expect(readdirSync(folder.path)).toEqual(["client.key"]);
  });

  test("a cluster that runs another service is named as that, once more donors show it than can lie", async () => {
    const counter = new FakeHistory();
    counter.becomeForeign(A);
    sources = [0, 1, 2, 3].map((replica) =>
      counter.source(replica, { checkpoint: A, roots: [counter.rootBy(replica, A)] }),
    );
    await expect(save()).rejects.toMatchObject({ code: "DECODE_FAILED", message: /runs another service than/ });
    // One donor alone may lie.
    const [lie, ...others] = sources as [SnapshotSource, ...SnapshotSource[]];
    sources = [lie, ...others.map((_, at) => truth.source(at + 1, { checkpoint: 0, roots: [] }))];
    await expect(save()).rejects.toMatchObject({ code: "QUORUM_UNAVAILABLE" });
    expect(readdirSync(folder.path)).toEqual(["client.key"]);
  });

  test.each([
    ["a directory", "there", /^kv: \S+\/there is a directory; name a file in it, like \S+\/there\/backup\.qsnap\n$/],
    [
      "a file in a folder that is not there",
      "gone/s.qsnap",
      /^kv: there is no folder \S+\/gone; make it first, or [^\n]+\n$/,
    ],
    ["a folder that is not there", "gone/", /^kv: there is no folder \S+\/gone; make it first, or [^\n]+\n$/],
    [
      "a file as a folder",
      "client.key/s.qsnap",
      /^kv: there is no folder \S+\/client.key; make it first, or [^\n]+\n$/,
    ],
  ])("%s is no place for a snapshot, which is said before anybody is asked", async (_, name, said) => {
    mkdirSync(folder.in("there"));
    // The cluster file is not even looked for.
    const { code, out, err } = await kv(["snapshot", "save", folder.in(name), "--cluster", folder.in("none.json")]);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(said);
    expect(readdirSync(folder.path).sort()).toEqual(["client.key", "there"]);
  });

  const run = (timeout: string) => {
    writeFileSync(folder.in("cluster.json"), clusterFileText(file));
    return kv(["snapshot", "save", path, "--cluster", folder.in("cluster.json"), "--timeout", timeout]);
  };

  test("a client that may not read every key hears so at once, though a replica is down", async () => {
    clients = [];
    await admins[3]?.close();
    const { code, out, err } = await run("1m");
    expect({ code, out }).toEqual({ code: 4, out: "" });
    expect(err).toMatch(
      /^kv: this client may not read every key[^\n]*grant --keys HEX --read ''[^\n]*NOT_PERMITTED\]\n$/,
    );
  });

  test("fewer that refuse may be liars, and are waited out: who says what, on one line", async () => {
    clients = [];
    for (const admin of admins.slice(1)) await admin.close();
    const { code, out, err } = await run("1s");
    expect({ code, out }).toEqual({ code: 3, out: "" });
    expect(err).toMatch(/^kv: 0 of 4 replicas offer anything and 2 are needed \(replica \d: [^\n]*\n$/);
    expect(err).toContain("replica 0: refuses this client");
  });

  test("a key file is taken by its own mode alone, as other commands take it", async () => {
    clients = [];
    chmodSync(folder.path, 0o755);
    expect(await run("1s")).toMatchObject({ code: 4, err: expect.stringContaining("[NOT_PERMITTED]") });
    chmodSync(folder.in("client.key"), 0o640);
    expect(await run("1s")).toMatchObject({ code: 2, err: expect.stringContaining("[KEY_FILE_PERMISSIONS]") });
  });
});
