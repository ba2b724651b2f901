/** Links of the chain of views brought to replicas that know nobody any more (docs/protocol.md section 7), and lies in their place. */
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Digest, latin1 } from "../../../protocol/bytes.ts";
import { Writer } from "../../../protocol/layout.ts";
import { LINK_BYTES_MAX, LINKS_PER_ANSWER_MAX, WIRE_VERSION } from "../../../protocol/limits.ts";
import type { ChainPort, PeerAddress } from "../../../server/network/presentation.ts";
import { Recorder } from "./links-contract.ts";
import { CLUSTER, TcpHarness, until } from "./tcp-harness.ts";

/** Was away: it knows itself and who is gone. */
const SLEEPER = 1;
const GONE = 3;
/** Are members now; of each pair the lower id dials. */
const LOWER = 0;
const HIGHER = 2;
/** Time for several looks of those that have a `silenceMs` of 100. */
const LOOKS_MS = 200;
/** Long enough that a link is not lost because the machine is busy; there are several looks in it. */
const LINKED_SILENCE_MS = 1_000;
/** Not so short that somebody who speaks at once would be late on a busy machine. */
const HANDSHAKE_MS = 1_500;
const MAGIC = 0x5142_5631;

/** A chain whose links are texts: "link 0" leads out of view 0. It takes those that lead on. */
class Chain implements ChainPort {
  readonly offered: string[][] = [];
  /** Where members were, by what this chain knows. */
  readonly former = new Map<number, PeerAddress[]>();
  #newest: number;
  readonly #bytes: number;

  constructor(newest: number, bytes = 0) {
    this.#newest = newest;
    this.#bytes = bytes;
  }

  newest(): number {
    return this.#newest;
  }

  /** It knows so many more links now. */
  grow(links: number): void {
    this.#newest += links;
  }

  from(viewId: number): Uint8Array[] {
    const count = Math.max(0, this.#newest - viewId);
    return Array.from({ length: count }, (_, index) => Buffer.from(`link ${viewId + index}`.padEnd(this.#bytes)));
  }

  formerly(replica: number): readonly PeerAddress[] {
    return this.former.get(replica) ?? [];
  }

  take(links: readonly Uint8Array[]): boolean {
    const texts = links.map((link) => Buffer.from(link).toString().trim());
    this.offered.push(texts);
    const leads = texts.length > 0 && texts.every((text, index) => text === `link ${this.#newest + index}`);
    if (leads) this.#newest += texts.length;
    return leads;
  }
}

let harness: TcpHarness;
let seen: Recorder;
let chain: Chain;
const sockets: Socket[] = [];

beforeEach(async () => {
  harness = new TcpHarness([LOWER, SLEEPER, HIGHER, GONE]);
  seen = new Recorder();
  chain = new Chain(1);
  const members = [harness.member(SLEEPER), harness.member(GONE)];
  await harness.start(SLEEPER, seen, { members, chain, limits: { handshakeMs: HANDSHAKE_MS } });
});

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await harness.stop();
});

const presented = (options: { version?: number; cluster?: Digest; newest?: number } = {}): Uint8Array => {
  const { version = WIRE_VERSION, cluster = CLUSTER, newest = 5 } = options;
  return new Writer().u32(MAGIC).u8(version).rawLatin1(cluster).u32(newest).finish();
};

const linksBody = (links: readonly Uint8Array[]): Uint8Array => {
  const writer = new Writer().u32(links.length);
  for (const link of links) writer.bytes(link);
  return writer.finish();
};

/** A stranger's connection to the sleeper. */
async function stranger() {
  const socket = connect({ host: "127.0.0.1", port: harness.member(SLEEPER).peerPort });
  sockets.push(socket);
  const received: Buffer[] = [];
  let closed = false;
  socket.on("data", (chunk: Buffer) => received.push(chunk));
  socket.on("error", () => undefined);
  socket.on("close", () => {
    closed = true;
  });
  await new Promise((resolve) => socket.once("connect", resolve));
  const say = (body: Uint8Array): boolean => socket.write(new Writer(4 + body.length).bytes(body).finish());
  return { say, received: () => Buffer.concat(received), closed: () => closed };
}

test.each([
  ["lower", LOWER],
  ["higher", HIGHER],
])("a member with the %s id that the sleeper does not know brings what it lacks", async (_name, id) => {
  const members = [harness.member(LOWER), harness.member(SLEEPER), harness.member(HIGHER)];
  await harness.start(id, new Recorder(), { members, chain: new Chain(4), limits: { silenceMs: 200 } });
  await until(() => chain.newest() === 4, "links to be followed");
  expect(chain.offered).toEqual([["link 1", "link 2", "link 3"]]);
});

test("a member that listens where it was before it moved is found there, too", async () => {
  const { host, peerPort } = harness.member(SLEEPER);
  const nobody = await freePort();
  const members = [{ ...harness.member(SLEEPER), peerPort: nobody }, harness.member(HIGHER)];
  const theirs = new Chain(4);
  theirs.former.set(SLEEPER, [
    { host, peerPort: await freePort() },
    { host, peerPort },
  ]);
  await harness.start(HIGHER, new Recorder(), { members, chain: theirs, limits: { silenceMs: 100 } });
  await until(() => chain.newest() === 4, "links to be followed");
});

/** Where nobody listens. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

test("large links come a few at a time, until all are there", async () => {
  const members = [harness.member(SLEEPER), harness.member(HIGHER)];
  const long = new Chain(9, LINK_BYTES_MAX);
  await harness.start(HIGHER, new Recorder(), { members, chain: long, limits: { silenceMs: 200 } });
  await until(() => chain.newest() === 9, "links to be followed");
  expect(chain.offered.map((links) => links.length)).toEqual([4, 4]);
});

test("nothing is brought where the cluster is in its first view", async () => {
  const members = [harness.member(SLEEPER), harness.member(HIGHER)];
  await harness.start(HIGHER, new Recorder(), { members, chain: new Chain(0), limits: { silenceMs: 100 } });
  await sleep(LOOKS_MS);
  expect(chain.offered).toEqual([]);
});

test("nothing is brought to somebody with a link", async () => {
  const members = [harness.member(SLEEPER), harness.member(GONE)];
  const theirs = { chain: new Chain(0), seen: new Recorder() };
  const limits = { silenceMs: LINKED_SILENCE_MS };
  await harness.start(GONE, theirs.seen, { members, chain: theirs.chain, limits });
  await until(() => seen.count(`+${GONE}`) + theirs.seen.count(`+${SLEEPER}`) === 2, "a link");
  theirs.chain.grow(7);
  await sleep(LINKED_SILENCE_MS);
  // If the link was lost meanwhile, there was something to bring.
  expect(theirs.seen.count(`-${SLEEPER}`) > 0 || chain.offered.length === 0).toBe(true);
});

test("who has nothing new is sent away without a fault", async () => {
  const { say, closed, received } = await stranger();
  say(presented({ newest: 1 }));
  await until(closed, "closed");
  expect(received().length).toBe(0);
  expect(seen.codes()).toEqual([]);
});

test("the sleeper says what it knows, and takes what leads on", async () => {
  const { say, closed, received } = await stranger();
  say(presented());
  await until(() => received().length === 8, "what it knows");
  expect(received().readUInt32BE(4)).toBe(1);
  say(linksBody([Buffer.from("link 1")]));
  await until(closed, "closed");
  expect(chain.newest()).toBe(2);
  expect(seen.codes()).toEqual([]);
});

const junk = Buffer.from("junk");

test.each<[string, readonly Uint8Array[], string]>([
  ["links that lead nowhere", [presented(), linksBody([junk])], "LINK_CHAIN"],
  ["no links", [presented(), linksBody([])], "LINK_CHAIN"],
  ["links, and bytes after them", [presented(), Buffer.concat([linksBody([junk]), junk])], "LINK_HANDSHAKE"],
  [
    "more links than an answer holds",
    [presented(), linksBody(Array(LINKS_PER_ANSWER_MAX + 1).fill(junk))],
    "LINK_HANDSHAKE",
  ],
  ["a body above its bound", [presented(), new Uint8Array(5 * LINK_BYTES_MAX)], "LINK_HANDSHAKE"],
  ["another cluster", [presented({ cluster: latin1(new Uint8Array(32)) as Digest })], "LINK_CLUSTER"],
  ["another version", [presented({ version: WIRE_VERSION + 1 })], "LINK_VERSION"],
  ["half a presentation", [presented().subarray(0, 20)], "LINK_HANDSHAKE"],
  ["nothing after it", [presented()], "LINK_TIMEOUT"],
])("refused, closed and counted: %s", async (_name, bodies, code) => {
  const { say, closed, received } = await stranger();
  const [first, ...rest] = bodies as [Uint8Array, ...Uint8Array[]];
  say(first);
  if (rest.length > 0) await until(() => received().length === 8, "what it knows");
  for (const body of rest) say(body);
  await until(closed, "closed");
  expect(seen.codes()).toEqual([code]);
  expect(chain.newest()).toBe(1);
});

test("a presentation is no second body of a handshake", async () => {
  const { say, closed } = await stranger();
  say(new Uint8Array(3));
  say(presented());
  await until(closed, "closed");
  expect(seen.codes()).toEqual(["LINK_HANDSHAKE"]);
  expect(chain.offered).toEqual([]);
});

test("who brings links answers once, whatever is said to it", async () => {
  let asked = 0;
  const chain = new Chain(5);
  const counting = {
    newest: () => 5,
    take: () => false,
    formerly: () => [],
    from: (viewId: number) => {
      asked++;
      return chain.from(viewId);
    },
  };
  const closed: boolean[] = [];
  const flood = Buffer.concat(Array(5_000).fill(Buffer.from([0, 0, 0, 4, 0, 0, 0, 1])));
  const server = createServer((socket) => {
    socket.on("error", () => undefined).on("close", () => closed.push(true));
    socket.once("data", () => socket.write(flood));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const member = { ...harness.member(SLEEPER), peerPort: port };
    const limits = { silenceMs: 100, handshakeMs: 5_000 };
    await harness.start(HIGHER, new Recorder(), { members: [member, harness.member(HIGHER)], chain: counting, limits });
    await until(() => closed.length >= 2, "two presentations to end");
    expect(asked).toBeLessThanOrEqual(closed.length + 1);
  } finally {
    server.close();
  }
});
