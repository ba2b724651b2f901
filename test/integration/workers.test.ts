/**
 * Replicas whose intake works on threads (`workers: 1`; docs/protocol.md section 8): load of both kinds is served, hostile requests
 * end their connections as they do without threads, and SIGTERM ends everything cleanly.
 */
import { expect, test } from "vitest";
import { newIdentity } from "../../client/index.ts";
import { latin1 } from "../../protocol/bytes.ts";
import { encodeRequestFrame } from "../../protocol/client-frames.ts";
import type { Command } from "../../protocol/commands.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { EVERYBODY, encodeEnvelope, macAt } from "../../protocol/request.ts";
import { TestCluster } from "./cluster.ts";
import { Load } from "./load.ts";
import { WireClient } from "./wire.ts";

const put = (size: number): Command => ({
  type: "put",
  key: Buffer.from("hostile"),
  value: new Uint8Array(size),
  ifRevision: null,
});

/** What an authenticated client sends, by how its connection must be closed. */
const attacks: readonly (readonly [code: string, frameOf: (client: WireClient) => Uint8Array])[] = [
  ["REQUEST_SIGNATURE", (client) => forged(client)],
  ["REQUEST_MAC", (client) => client.frameOf({ ...client.request(1, put(1)), digest: latin1(nodeCrypto.random(32)) })],
  [
    "REQUEST_MAC",
    (client) =>
      client.frameOf({ ...client.request(1, put(50_000)), digest: latin1(nodeCrypto.random(32)) }, "signature"),
  ],
  [
    "REQUEST_OWNER",
    (client) => client.frameOf(client.request(1, put(50_000), { client: latin1(nodeCrypto.random(32)) })),
  ],
  ["REQUEST_MAGIC", (client) => client.frameOf({ ...client.request(1, put(1)), bytes: nodeCrypto.random(40_000) })],
];

/** The right MAC for this replica, beside a signature that is none. */
function forged(client: WireClient): Uint8Array {
  const request = client.request(1, put(1));
  const { macs } = client.credentials.prove(request.digest, false);
  const authenticator = {
    type: "signature",
    signature: nodeCrypto.random(64),
    mac: macAt(macs, client.replica),
  } as const;
  const { publicKeys: keys } = client.credentials;
  return encodeRequestFrame(encodeEnvelope({ view: 0, replier: EVERYBODY, keys, authenticator }), request.bytes);
}

test.each([{ signedRequests: true }, { signedRequests: false }])(
  "a cluster with worker threads serves load, refuses what is hostile, and stops: %j",
  async ({ signedRequests }) => {
    const cluster = await TestCluster.start({ signedRequests, settings: { workers: 1 } });
    const connections = [await cluster.connect(), await cluster.connect()];
    const patient = { connections, strict: true, putTimeoutMs: 30_000 };
    const small = new Load({ ...patient, writers: 8, readers: 1 });
    const large = new Load({ ...patient, writers: 2, name: "large", valueChars: 40_000 });
    await small.progress(50);
    const identity = newIdentity();
    let session = 0;
    for (const [code, frameOf] of attacks) {
      const client = await WireClient.open(cluster.file, { replica: 1, identity, session: ++session });
      client.send(frameOf(client));
      // Advice where a signature is due, before a MAC is blamed.
      if (signedRequests && code === "REQUEST_MAC" && session === 2) {
        expect((await client.reply()).status).toBe("MUST_SIGN");
        client.socket.close();
        continue;
      }
      expect(await client.closed, code).toBe(4400);
    }
    await small.progress(50);
    await large.progress(10);
    for (const load of [small, large]) await load.stop();
    for (const load of [small, large]) await load.verify(await cluster.connect());
    await cluster.agreement();
    const counted = new Set((await cluster.faults(1)).map(({ code }) => code));
    for (const [code] of attacks) expect([...counted]).toContain(code);
    for (const replica of cluster.ids) {
      expect(await cluster.kill(replica, "SIGTERM"), `replica ${replica}`).toEqual({ code: 0, signal: null });
    }
  },
);
