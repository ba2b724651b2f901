/** Sessions and identities with real processes (docs/protocol.md sections 2 and 3). */
import { join } from "node:path";
import { expect, test } from "vitest";
import { type Kv, newIdentity, UnknownOutcomeError } from "../../client/index.ts";
import type { Reply } from "../../protocol/client-frames.ts";
import { decodeResult, decodeResults } from "../../protocol/commands.ts";
import { TestCluster, until } from "./cluster.ts";
import { compiled, run } from "./programs.ts";
import { WireClient } from "./wire.ts";

const put = (key: string, value: string) =>
  ({ type: "put", key: Buffer.from(key), value: Buffer.from(value), ifRevision: null }) as const;

test("the same request sent again on the wire is executed once, and the cached reply comes back", async () => {
  const cluster = await TestCluster.start();
  const identity = newIdentity();
  const session = Date.now() * 1_000;
  const clients = await Promise.all(
    cluster.ids.map((replica) => WireClient.open(cluster.file, { replica, identity, session })),
  );
  const everywhere = (frame: (client: WireClient) => Uint8Array): void => {
    for (const client of clients) client.send(frame(client));
  };
  const [first] = clients as [WireClient];
  const request = first.request(1, put("twice", "once"));
  everywhere((client) => client.frameOf(request));
  everywhere((client) => client.frameOf(request));
  const replies = await Promise.all(clients.map((client) => client.reply()));
  everywhere((client) => client.frameOf(request));
  replies.push(...(await Promise.all(clients.map((client) => client.reply()))));
  for (const { status, resultDigest } of replies) {
    expect({ status, resultDigest }).toEqual({ status: "OK", resultDigest: replies[0]?.resultDigest });
  }
  const [result = new Uint8Array()] = decodeResults(replies[0]?.result ?? new Uint8Array());
  expect(decodeResult(result)).toMatchObject({ type: "written", version: 1 });
  const other = first.request(1, put("twice", "another under the same number"));
  everywhere((client) => client.frameOf(other));
  // Who heard the second of the first two only after the execution has answered it, too.
  const notOk = async (client: WireClient): Promise<Reply> => {
    const reply = await client.reply();
    return reply.status === "OK" ? notOk(client) : reply;
  };
  const conflicts = await Promise.all(clients.map(notOk));
  expect(conflicts.map(({ status }) => status)).toEqual(clients.map(() => "SEQUENCE_CONFLICT"));
  const kv = await cluster.connect();
  expect(await kv.get("twice")).toMatchObject({ value: "once", version: 1n });
  for (const client of clients) client.socket.close();
});

test("signedRequests: a vector of MACs is told MUST_SIGN, and the SDK signs", async () => {
  const cluster = await TestCluster.start({ signedRequests: true });
  const identity = newIdentity();
  const wire = await WireClient.open(cluster.file, { replica: 1, identity, session: Date.now() * 1_000 });
  const request = wire.request(1, put("signed", "no"));
  wire.send(wire.frameOf(request, "vector"));
  expect(await wire.reply()).toMatchObject({ status: "MUST_SIGN", requestDigest: request.digest });
  wire.socket.close();
  const kv = await cluster.connect();
  await kv.put("signed", "yes");
  expect((await kv.get("signed"))?.value).toBe("yes");
  expect((await kv.get("signed", { ordered: true }))?.value).toBe("yes");
  const obedient = await cluster.connect({
    cluster: { ...cluster.file, signedRequests: false },
    identity,
    signed: false,
  });
  await obedient.put("told", "so").catch((error: unknown) => expect(error).toBeNull());
  expect((await kv.get("told"))?.value).toBe("so");
  expect((await cluster.kv(["put", "by hand", "signed too"])).code).toBe(0);
});

test("listed clients: the one listed is served, another is refused", async () => {
  const cluster = await TestCluster.start({ clients: "listed" });
  expect((await cluster.kv(["put", "mine", "1"])).code).toBe(0);
  const stranger = join(cluster.folder, "stranger.key");
  expect((await run(compiled("cli/main"), ["client-key", stranger])).code).toBe(0);
  for (const args of [
    ["put", "mine", "2"],
    ["get", "mine"],
  ]) {
    const { code, stdout, stderr } = await cluster.kv([...args, "--identity", stranger]);
    expect({ code, stdout }, stderr).toEqual({ code: 4, stdout: "" });
    expect(stderr).toMatch(/^kv: [^\n]*may not be a client[^\n]*\n$/);
  }
  await expect(cluster.connect({ identity: stranger })).rejects.toMatchObject({ code: "REFUSED" });
  expect(await cluster.kv(["get", "mine", "-o", "raw"])).toMatchObject({ code: 0, stdout: "1" });
});

test("a write cut short by the loss of the quorum has an unknown outcome, which can be asked for", async () => {
  const cluster = await TestCluster.start();
  const kv = await cluster.connect();
  await kv.put("key", "0");
  const unknown = await loseQuorumDuring(cluster, kv);
  await Promise.all([cluster.startOne(2), cluster.startOne(3)]);
  const outcome = await until(async () => kv.outcome(unknown.requestId).catch(() => null), {
    timeoutMs: 60_000,
    what: "the outcome",
  });
  const entry = await kv.get("key");
  if (outcome.type === "cancelled") expect(entry).toMatchObject({ value: "0", version: 1n });
  else expect(entry).toMatchObject({ value: "1", version: 2n });
  expect(await kv.outcome(unknown.requestId)).toEqual(outcome);
  await kv.put("key", "2");
  expect((await kv.get("key"))?.value).toBe("2");
});

/** SIGKILL and SIGTERM of two followers while a write is on its way; its error. */
async function loseQuorumDuring(cluster: TestCluster, kv: Kv<string>): Promise<UnknownOutcomeError> {
  cluster.signal(2, "SIGSTOP");
  cluster.signal(3, "SIGSTOP");
  const write = kv.put("key", "1", { timeoutMs: 1_000 });
  const error = await write.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(UnknownOutcomeError);
  cluster.signal(2, "SIGCONT");
  await Promise.all([cluster.kill(2, "SIGTERM"), cluster.kill(3, "SIGKILL")]);
  return error as UnknownOutcomeError;
}
