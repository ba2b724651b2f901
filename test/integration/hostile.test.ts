/**
 * Hostile connections to every port of a running cluster (docs/protocol.md sections 2 and 8): each is closed and counted, the
 * log gets one line per kind, and the load that goes on meanwhile sees no error.
 */
import { connect, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { newIdentity } from "../../client/index.ts";
import { latin1 } from "../../protocol/bytes.ts";
import { authStatement, encodeAuth, encodeRequestFrame } from "../../protocol/client-frames.ts";
import { clusterOf } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { clientIdOf, type Identity, publicKeysBytes, sharedMacKey } from "../../protocol/identity.ts";
import { CLIENT_FRAME_BYTES_MAX } from "../../protocol/limits.ts";
import { openTcpLinks } from "../../server/network/tcp-links.ts";
import { PATIENT, sleep, TestCluster, until } from "./cluster.ts";
import { Load } from "./load.ts";
import { Stranger, WireClient } from "./wire.ts";

const ROUNDS = 4;
/** One that impostors dial, whoever they pose as. */
const POSED_TO = 2;
/** A client like any other, as far as the gateway can tell. */
const attacker = newIdentity();
let session = 1;
const put = { type: "put", key: Buffer.from("hostile"), value: Buffer.from("x"), ifRevision: null } as const;

/** Sends raw bytes to a port and waits until the other side ends the connection. */
async function raw(port: number, bytes: Uint8Array): Promise<void> {
  const socket: Socket = connect({ host: "127.0.0.1", port });
  socket.on("error", () => {});
  socket.on("data", () => {});
  if (bytes.length > 0) socket.write(bytes);
  onTestFinished(() => void socket.destroy());
  await new Promise<void>((resolve) => socket.once("close", () => resolve()));
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** What strangers and clients do to the client port, with the close code each must get. */
const atTheGateway: Record<string, (cluster: TestCluster, replica: number) => Promise<unknown>> = {
  async garbage(cluster, replica) {
    const stranger = new Stranger(cluster.file, replica);
    await stranger.hello();
    stranger.send(nodeCrypto.random(1_000));
    expect(await stranger.closed).toBe(4400);
  },
  async text(cluster, replica) {
    const stranger = new Stranger(cluster.file, replica);
    await stranger.hello();
    stranger.socket.send("hello yourself");
    expect(await stranger.closed).toBe(4400);
  },
  async oversized(cluster, replica) {
    const stranger = new Stranger(cluster.file, replica);
    await stranger.hello();
    stranger.send(new Uint8Array(CLIENT_FRAME_BYTES_MAX + 1));
    expect(await stranger.closed).not.toBe(1000);
  },
  async silent(cluster, replica) {
    expect(await new Stranger(cluster.file, replica).closed).toBe(4401);
  },
  async unauthenticated(cluster, replica) {
    const stranger = new Stranger(cluster.file, replica);
    await stranger.hello();
    stranger.send(encodeRequestFrame(new Uint8Array(20), new Uint8Array(100)));
    expect(await stranger.closed).toBe(4401);
  },
  async wrongKey(cluster, replica) {
    const stranger = new Stranger(cluster.file, replica);
    await stranger.hello();
    const keys = publicKeysBytes(newIdentity());
    stranger.send(encodeAuth({ keys, session: 1, mac: latin1(nodeCrypto.random(32)), signature: null }));
    expect(await stranger.closed).toBe(4401);
  },
  /** Everything right, for another cluster. */
  async wrongCluster(cluster, replica) {
    const stranger = new Stranger(cluster.file, replica);
    const { nonce } = await stranger.hello();
    const other = latin1(nodeCrypto.random(32));
    const mine = newIdentity();
    const member = clusterOf(nodeCrypto, cluster.file).view.members[replica];
    if (!member) throw new Error("no such member");
    const key = sharedMacKey(nodeCrypto, { cluster: other, mine, theirs: member, purpose: "connect" });
    const client = clientIdOf(nodeCrypto, mine);
    const statement = authStatement({ cluster: other, replica, nonce, client, session: 1 });
    stranger.send(
      encodeAuth({ keys: publicKeysBytes(mine), session: 1, mac: nodeCrypto.mac(key, statement), signature: null }),
    );
    expect(await stranger.closed).toBe(4401);
  },
  /** Known to the gateway, with a request that is somebody else's. */
  async forgedOwner(cluster, replica) {
    const client = await WireClient.open(cluster.file, { replica, identity: attacker, session: session++ });
    const request = client.request(1, put, { client: latin1(nodeCrypto.random(32)) });
    client.send(client.frameOf(request));
    expect(await client.closed).toBe(4400);
  },
  /** Known to the gateway, with an authenticator that is good for nobody. */
  async forgedMac(cluster, replica) {
    const client = await WireClient.open(cluster.file, { replica, identity: attacker, session: session++ });
    const request = client.request(1, put);
    client.send(client.frameOf({ ...request, digest: latin1(nodeCrypto.random(32)) }));
    expect(await client.closed).toBe(4400);
  },
};

/** What is sent to the port for replicas, by who cannot prove to be one. */
const atTheLinks: Record<string, Uint8Array> = {
  garbage: nodeCrypto.random(1_000),
  oversized: Buffer.concat([u32(0xffff_ffff), Buffer.alloc(64 * 1024)]),
  empty: u32(0),
  silent: new Uint8Array(0),
  halfOpen: Buffer.concat([u32(100), Buffer.alloc(50)]),
};

/** Somebody who knows the cluster file and poses as a replica: without its key, or from another cluster. */
async function poseAsReplica(
  cluster: TestCluster,
  options: { self: number; identity: Identity; clusterId?: string; refusal: string },
): Promise<void> {
  const { id, view } = clusterOf(nodeCrypto, cluster.file);
  const links = await openTcpLinks({
    crypto: nodeCrypto,
    cluster: options.clusterId ?? id,
    self: options.self,
    identity: options.identity,
    members: view.members,
    listen: { host: "127.0.0.1", port: 0 },
    events: { onMessage: unwelcome, onConnected: unwelcome, onDisconnected: unwelcome, onFault: () => {} },
    limits: { backoffMsMin: 50, backoffMsMax: 100 },
  });
  onTestFinished(() => links.close());
  const refused = async (): Promise<true | null> =>
    (await cluster.faults(POSED_TO)).some(({ code }) => code === options.refusal) || null;
  await until(refused, { what: `replica ${POSED_TO} to refuse with ${options.refusal}` });
  await sleep(1_000);
  expect(links.connected()).toEqual([]);
  await links.close();
}

function unwelcome(): never {
  throw new Error("an impostor was let in");
}

async function atTheAdminPort(cluster: TestCluster, replica: number): Promise<void> {
  const { adminPort } = cluster.member(replica);
  await raw(adminPort, nodeCrypto.random(1_000));
  await raw(adminPort, Buffer.from(`GET /status HTTP/1.1\r\nHost: x\r\nX: ${"y".repeat(100_000)}\r\n\r\n`));
  expect((await cluster.http(replica, "/nowhere")).code).toBe(404);
  expect((await cluster.http(replica, "/livez")).code).toBe(200);
}

test("hostile connections to every port are closed, counted and logged once, and disturb nobody", async () => {
  const cluster = await TestCluster.start(PATIENT);
  const connections = [await cluster.connect()];
  const load = new Load({ connections, writers: 8, readers: 1, strict: true, putTimeoutMs: 30_000 });
  await load.progress(50);
  const victims = [0, POSED_TO];
  const attacks: Promise<unknown>[] = [];
  for (const replica of victims) {
    const { peerPort, clientPort } = cluster.member(replica);
    attacks.push(raw(clientPort, nodeCrypto.random(1_000)));
    for (let round = 0; round < ROUNDS; round++) {
      for (const attack of Object.values(atTheGateway)) attacks.push(attack(cluster, replica));
      for (const bytes of Object.values(atTheLinks)) attacks.push(raw(peerPort, bytes));
      attacks.push(atTheAdminPort(cluster, replica));
    }
  }
  attacks.push(poseAsReplica(cluster, { self: 0, identity: newIdentity(), refusal: "LINK_MAC" }));
  const clusterId = latin1(nodeCrypto.random(32));
  attacks.push(poseAsReplica(cluster, { self: 1, identity: newIdentity(), clusterId, refusal: "LINK_CLUSTER" }));
  await Promise.all(attacks);
  await load.progress(50);
  await load.stop();
  await load.verify(await cluster.connect());
  await cluster.agreement();
  for (const replica of victims) await expectCountedAndLoggedOnce(cluster, replica);
});

async function expectCountedAndLoggedOnce(cluster: TestCluster, replica: number): Promise<void> {
  const faults = await cluster.faults(replica);
  const seen = new Set(faults.map(({ source, code }) => `${source} ${code}`));
  for (const kind of [
    "gateway TEXT_FRAME",
    "gateway FRAME_TOO_LARGE",
    "gateway HANDSHAKE_TIMEOUT",
    "gateway UNAUTHENTICATED",
    "gateway REQUEST_OWNER",
    "gateway REQUEST_MAC",
    "link LINK_HANDSHAKE",
    "link LINK_TIMEOUT",
  ]) {
    expect([...seen], `replica ${replica}`).toContain(kind);
  }
  if (replica > 0) {
    expect(seen).toContain("link LINK_MAC");
    expect(seen).toContain("link LINK_CLUSTER");
  }
  const counted = faults.reduce((sum, { count }) => sum + count, 0);
  expect(counted).toBeGreaterThanOrEqual(ROUNDS * 12);
  for (const { source, from, code } of faults) {
    expect(from, `${source} ${code}: nobody authenticated was to blame`).toBe("unknown");
  }
  const lines = cluster.log(replica).filter(({ msg }) => String(msg).startsWith("refused: "));
  const kinds = lines.map(({ msg }) => String(msg));
  expect(kinds.length).toBeLessThan(counted);
  expect(new Set(kinds).size, kinds.join("\n")).toBe(kinds.length);
}
