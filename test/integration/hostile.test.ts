/**
 * Hostile connections to every port of a running cluster (docs/protocol.md sections 2 and 8): each is closed and counted, the
 * log gets one line per kind, and the load that goes on meanwhile sees no error.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { newIdentity } from "../../client/index.ts";
import { latin1 } from "../../protocol/bytes.ts";
import { authStatement, encodeAuth, encodeRequestFrame } from "../../protocol/client-frames.ts";
import { clusterOf } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { publicKeysBytes, sharedMacKey } from "../../protocol/identity.ts";
import { CLIENT_FRAME_BYTES_MAX } from "../../protocol/limits.ts";
import { openTcpLinks } from "../../server/network/tcp-links.ts";
import { TestCluster, until } from "./cluster.ts";
import { Load } from "./load.ts";
import { Stranger, WireClient } from "./wire.ts";

const ROUNDS = 4;
const put = { type: "put", key: Buffer.from("hostile"), value: Buffer.from("x"), ifRevision: null } as const;

/** Sends raw bytes to a port and waits until the other side ends the connection. */
async function raw(port: number, bytes: Uint8Array): Promise<void> {
  const socket: Socket = connect({ host: "127.0.0.1", port });
  socket.on("error", () => {});
  socket.on("data", () => {});
  if (bytes.length > 0) socket.write(bytes);
  onTestFinished(() => void socket.destroy());
  await once(socket, "close");
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
    stranger.send(encodeAuth({ keys, session: 1, mac: latin1(nodeCrypto.random(32)) }));
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
    const client = latin1(nodeCrypto.sha256Bytes?.(publicKeysBytes(mine)) ?? new Uint8Array(32));
    const statement = authStatement({ cluster: other, replica, nonce, client, session: 1 });
    stranger.send(encodeAuth({ keys: publicKeysBytes(mine), session: 1, mac: nodeCrypto.mac(key, statement) }));
    expect(await stranger.closed).toBe(4401);
  },
};
