/** Who may read snapshots over admin HTTP, and how much at a time. */
import { expect, test } from "vitest";
import { type AdminRequest, authorizationText } from "../../../protocol/admin-request.ts";
import { type Digest, hex, textOf } from "../../../protocol/bytes.ts";
import type { Cluster } from "../../../protocol/cluster.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { clientIdOf, newIdentity } from "../../../protocol/identity.ts";
import { decodeMessage } from "../../../protocol/messages.ts";
import { ANSWERS_AT_ONCE, SnapshotAccess, type SnapshotSource } from "../../../server/snapshot/access.ts";

const CLUSTER: Digest = "c".repeat(32);
const ROOT: Digest = "r".repeat(32);
const NOW_MS = 1_000_000;
const alice = newIdentity(nodeCrypto);
const mallory = newIdentity(nodeCrypto);
const place = { view: 0, regency: 0 };

function access(source: Partial<SnapshotSource> = {}): SnapshotAccess {
  const cluster = { id: CLUSTER } as unknown as Cluster;
  const mayRead = (client: string): boolean => client === clientIdOf(nodeCrypto, alice);
  const full: SnapshotSource = {
    offer: async () => null,
    manifest: async () => null,
    chunk: async (at, index) => ({ type: "CHUNK", ...place, ...at, index, chunk: new Uint8Array(3) }),
    history: async ({ from }) => ({ type: "HISTORY", ...place, from, previous: ROOT, batches: [], proof: null }),
    ...source,
  };
  return new SnapshotAccess({ crypto: nodeCrypto, cluster, replica: 1, source: full, nowMs: () => NOW_MS, mayRead });
}

function ask(
  target: SnapshotAccess,
  path: string,
  options: { signed?: Partial<AdminRequest>; as?: typeof alice; keys?: typeof alice } = {},
) {
  const { as = alice, keys = as } = options;
  const request = { cluster: CLUSTER, replica: 1, timestampMs: NOW_MS, method: "GET", path, ...options.signed };
  const authorization = authorizationText(request, { keys, sign: nodeCrypto.signer(as.signSeed) });
  const [bare = "", query = ""] = path.split("?");
  return target.answer({ path: bare, query, authorization });
}

const CHUNK = `/snapshot/chunk?instance=5&root=${hex(ROOT)}&index=2`;

test("a client that may read gets the message replicas would send", async () => {
  const { status, body } = await ask(access(), CHUNK);
  expect(status).toBe(200);
  expect(decodeMessage(body)).toMatchObject({ type: "CHUNK", instance: 5, root: ROOT, index: 2 });
  expect(decodeMessage((await ask(access(), "/snapshot/log?from=3&to=9")).body)).toMatchObject({
    type: "HISTORY",
    from: 3,
  });
});

test("anybody else gets 401 before anything is read", async () => {
  const never = access({ chunk: () => Promise.reject(new Error("read")) });
  const refused = [
    await never.answer({ path: "/snapshot/chunk", query: "", authorization: "" }),
    await never.answer({ path: "/snapshot/chunk", query: "", authorization: "Bearer x" }),
    await ask(never, CHUNK, { as: mallory }),
    await ask(never, CHUNK, { as: mallory, keys: alice }),
    await ask(never, CHUNK, { signed: { timestampMs: NOW_MS - 60_001 } }),
    await ask(never, CHUNK, { signed: { timestampMs: NOW_MS + 60_001 } }),
    await ask(never, CHUNK, { signed: { replica: 2 } }),
    await ask(never, CHUNK, { signed: { cluster: "d".repeat(32) } }),
    await ask(never, CHUNK, { signed: { method: "POST" } }),
    await ask(never, CHUNK, { signed: { path: "/snapshot/chunk" } }),
  ];
  expect(refused.map(({ status }) => status)).toEqual(refused.map(() => 401));
});

test("what is not offered is 404, a wrong question 400", async () => {
  expect((await ask(access(), "/snapshot/offer")).status).toBe(404);
  for (const query of ["", "?instance=x&root=00&index=1", `?instance=1&root=${hex(ROOT)}&index=-1`]) {
    expect((await ask(access(), `/snapshot/chunk${query}`)).status).toBe(400);
  }
});

test("an offer asks for fresh roots only when told to", async () => {
  const asked: number[] = [];
  const offers = access({
    offer: async (rootsFrom) => {
      asked.push(rootsFrom);
      return null;
    },
  });
  await ask(offers, "/snapshot/offer");
  await ask(offers, "/snapshot/offer?fresh=77");
  expect(asked).toEqual([0, 77]);
});

test("at most so many at a time, and a failure gives its place back", async () => {
  let fail: (error: Error) => void = () => {};
  const slow = access({
    manifest: () =>
      new Promise((_, reject) => {
        fail = reject;
      }),
  });
  const path = `/snapshot/manifest?instance=1&root=${hex(ROOT)}`;
  const waiting: Promise<unknown>[] = [];
  for (let count = 0; count < ANSWERS_AT_ONCE; count++) waiting.push(ask(slow, path));
  const busy = await ask(slow, CHUNK);
  expect([busy.status, textOf(busy.body)]).toEqual([503, "others are being answered; ask again\n"]);
  fail(new Error("disk"));
  await expect(waiting.at(-1)).rejects.toThrow("disk");
  expect((await ask(slow, CHUNK)).status).toBe(200);
});
