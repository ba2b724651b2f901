/** The suite that every carrier of the client gateway must pass (server/network/contract.ts, client-session.ts). */
import { connect as dialTcp, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import WebSocket from "ws";
import { type Digest, latin1, sameBytes } from "../../../protocol/bytes.ts";
import {
  type Auth,
  authStatement,
  CLOSE_CODES,
  decodeGatewayFrame,
  encodeAuth,
  encodeFetchLinks,
  encodeRequestFrame,
  type Hello,
} from "../../../protocol/client-frames.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { isRejection } from "../../../protocol/errors.ts";
import { clientIdOf, type Identity, newIdentity, publicKeysBytes, sharedMacKey } from "../../../protocol/identity.ts";
import { LINKS_PER_ANSWER_MAX } from "../../../protocol/limits.ts";
import type { GatewayLimits } from "../../../server/network/client-session.ts";
import type { ClientConnection, Gateway, GatewayEvents } from "../../../server/network/contract.ts";
import { openGateway, openUnauthenticatedGateway } from "../../../server/network/gateway.ts";
import { freePort } from "./free-port.ts";
import { until } from "./tcp-harness.ts";

const CLUSTER = latin1(new Uint8Array(32).fill(9)) as Digest;
const REPLICA = 3;
const VIEW = 5;

/** What the gateway reported; requests copied, and answered by the same bytes when `echo` is on. */
class Server implements GatewayEvents {
  readonly requests: { connection: ClientConnection; envelope: string; request: string }[] = [];
  readonly closed: ClientConnection[] = [];
  readonly faults: { code: string; remote: string }[] = [];
  refused: Digest | null = null;
  administrator: Uint8Array | null = null;
  echo = false;
  chain: readonly Uint8Array[] = [];

  admit(client: Digest): boolean {
    return client !== this.refused;
  }

  administers(signKey: Uint8Array): boolean {
    return this.administrator !== null && sameBytes(signKey, this.administrator);
  }

  onRequest(connection: ClientConnection, envelope: Uint8Array, request: Uint8Array): void {
    this.requests.push({ connection, envelope: latin1(envelope), request: latin1(request) });
    if (this.echo) connection.send(Uint8Array.from(request));
  }

  links(fromView: number): readonly Uint8Array[] {
    return this.chain.slice(fromView);
  }

  onClosed(connection: ClientConnection): void {
    this.closed.push(connection);
  }

  onFault(fault: { code: string; remote: string }): void {
    this.faults.push(fault);
  }

  codes(): string[] {
    return this.faults.map((fault) => fault.code);
  }
}

/** A client that speaks by hand. */
class Client {
  readonly socket: WebSocket;
  readonly frames: Buffer[] = [];
  closeCode: number | null = null;

  constructor(port: number) {
    this.socket = new WebSocket(`ws://127.0.0.1:${port}/`, { perMessageDeflate: true });
    this.socket.on("message", (data: Buffer) => this.frames.push(Buffer.from(data)));
    this.socket.on("close", (code) => {
      this.closeCode = code;
    });
    this.socket.on("error", () => undefined);
  }

  async hello(): Promise<Hello> {
    await until(() => this.frames.length > 0, "HELLO");
    const hello = decodeGatewayFrame(this.frames[0] as Buffer);
    if (isRejection(hello) || hello.type !== "HELLO") throw new Error("no HELLO");
    return hello;
  }

  async welcome(): Promise<void> {
    await until(() => this.frames.length > 1, "WELCOME");
    expect(decodeGatewayFrame(this.frames[1] as Buffer)).toEqual({ type: "WELCOME" });
  }

  async closed(): Promise<number> {
    await until(() => this.closeCode !== null, "closed");
    return this.closeCode as number;
  }
}

function authFor(
  identity: Identity,
  replica: Identity,
  hello: Hello,
  session: number,
  change: Partial<Auth> = {},
): Uint8Array {
  const key = sharedMacKey(nodeCrypto, { cluster: CLUSTER, mine: identity, theirs: replica, purpose: "connect" });
  const client = clientIdOf(nodeCrypto, identity);
  const statement = authStatement({ cluster: CLUSTER, replica: REPLICA, nonce: hello.nonce, client, session });
  return encodeAuth({
    keys: publicKeysBytes(identity),
    session,
    mac: nodeCrypto.mac(key, statement),
    signature: null,
    ...change,
  });
}

function together(connection: ClientConnection, send: () => void): void {
  if (connection.together) connection.together(send);
  else send();
}

export function gatewayContract(implementation: "uws" | "ws"): void {
  describe(`gateway: ${implementation}`, () => {
    const replica = newIdentity(nodeCrypto);
    const alice = newIdentity(nodeCrypto);
    const aliceId = clientIdOf(nodeCrypto, alice);
    const gateways: Gateway[] = [];
    const clients: Client[] = [];
    let server: Server;
    let gateway: Gateway;

    const openWith = async (
      limits: Partial<GatewayLimits> = {},
      { port = 0, socketsMax = 1_000 } = {},
    ): Promise<Gateway> => {
      server = new Server();
      const listen = { host: "127.0.0.1", port };
      const ids = { cluster: CLUSTER, view: VIEW, replica: REPLICA };
      const options = {
        crypto: nodeCrypto,
        ...ids,
        identity: replica,
        listen,
        events: server,
        implementation,
        limits,
        socketsMax,
      };
      gateway = await openGateway(options);
      gateways.push(gateway);
      return gateway;
    };
    const open = (): Client => {
      const client = new Client(gateway.port);
      clients.push(client);
      return client;
    };
    const login = async (session: number, identity = alice): Promise<Client> => {
      const client = open();
      client.socket.send(authFor(identity, replica, await client.hello(), session));
      await client.welcome();
      return client;
    };
    const request = (text: string, envelope = "e"): Uint8Array =>
      encodeRequestFrame(Buffer.from(envelope), Buffer.from(text));

    beforeEach(async () => {
      await openWith();
    });
    afterEach(async () => {
      for (const client of clients.splice(0)) client.socket.terminate();
      for (const one of gateways.splice(0)) await one.close();
    });

    test("HELLO names cluster, replica and view, with a fresh nonce each time", async () => {
      const [one, two] = [await open().hello(), await open().hello()];
      expect(one).toMatchObject({ cluster: CLUSTER, replica: REPLICA, view: VIEW });
      expect(Buffer.from(one.nonce).equals(two.nonce)).toBe(false);
      expect(gateway.connections).toBe(2);
    });

    test("compression is never negotiated", async () => {
      const client = await login(1);
      expect(client.socket.extensions).toBe("");
    });

    test("after AUTH requests arrive in order with their parts, and replies go back", async () => {
      server.echo = true;
      const client = await login(7);
      for (let index = 0; index < 200; index++) client.socket.send(request(`r${index}`, `e${index}`));
      await until(() => client.frames.length === 202, "200 replies");
      expect(server.requests.map((one) => one.request)).toEqual(Array.from({ length: 200 }, (_, index) => `r${index}`));
      expect(server.requests.map((one) => one.envelope)).toEqual(
        Array.from({ length: 200 }, (_, index) => `e${index}`),
      );
      expect(client.frames.slice(2).map(String)).toEqual(Array.from({ length: 200 }, (_, index) => `r${index}`));
      const [first] = server.requests;
      expect(first?.connection).toMatchObject({ client: aliceId, session: 7 });
      expect(gateway.connectionOf(aliceId, 7)).toBe(first?.connection);
      expect(server.faults).toEqual([]);
    });

    test("a large request and a large reply pass", async () => {
      server.echo = true;
      const client = await login(7);
      const large = Buffer.alloc(2 * 1024 * 1024, 120);
      client.socket.send(encodeRequestFrame(Buffer.alloc(2048), large));
      await until(() => client.frames.length === 3, "reply");
      expect((client.frames[2] as Buffer).equals(large)).toBe(true);
    });

    test("connectionOf knows clients and sessions apart, and forgets who left", async () => {
      const bob = newIdentity(nodeCrypto);
      const bobId = clientIdOf(nodeCrypto, bob);
      const one = await login(1);
      await login(2);
      await login(1, bob);
      const ids = [gateway.connectionOf(aliceId, 1), gateway.connectionOf(aliceId, 2), gateway.connectionOf(bobId, 1)];
      expect(new Set(ids.map((connection) => connection?.id)).size).toBe(3);
      expect(gateway.connectionOf(bobId, 2)).toBeUndefined();
      one.socket.close();
      await until(() => server.closed.length === 1, "closed");
      expect(server.closed).toEqual([ids[0]]);
      expect(gateway.connectionOf(aliceId, 1)).toBeUndefined();
      expect(gateway.connectionOf(aliceId, 2)).toBe(ids[1]);
      expect(ids[0]?.send(Buffer.from("late"))).toBe(false);
      expect(gateway.connections).toBe(2);
    });

    test("the newest connection of a session wins, the older is closed SUPERSEDED", async () => {
      const older = await login(1);
      const before = gateway.connectionOf(aliceId, 1);
      const newer = await login(1);
      expect(await older.closed()).toBe(CLOSE_CODES.SUPERSEDED);
      const after = gateway.connectionOf(aliceId, 1);
      expect(after).toBeDefined();
      expect(after?.id).not.toBe(before?.id);
      expect(server.closed).toEqual([before]);
      after?.send(Buffer.from("here"));
      await until(() => newer.frames.length === 3, "frame");
      expect(server.faults).toEqual([]);
    });

    test.each<[string, (hello: Hello) => Uint8Array, number, string]>([
      ["a MAC by another key", (hello) => authFor(alice, newIdentity(nodeCrypto), hello, 1), 4401, "UNAUTHENTICATED"],
      [
        "a MAC over another nonce",
        (hello) => authFor(alice, replica, { ...hello, nonce: new Uint8Array(32) }, 1),
        4401,
        "UNAUTHENTICATED",
      ],
      [
        "somebody else's keys",
        (hello) => authFor(newIdentity(nodeCrypto), replica, hello, 1, { keys: publicKeysBytes(alice) }),
        4401,
        "UNAUTHENTICATED",
      ],
      ["another session", (hello) => authFor(alice, replica, hello, 1, { session: 2 }), 4401, "UNAUTHENTICATED"],
      [
        "keys of low order",
        (hello) => authFor(alice, replica, hello, 1, { keys: new Uint8Array(64) }),
        4401,
        "UNAUTHENTICATED",
      ],
      ["session 0", (hello) => authFor(alice, replica, hello, 0), 4400, "UNEXPECTED_AUTH"],
      ["a request before AUTH", () => request("x"), 4401, "UNAUTHENTICATED"],
      ["an unknown frame", () => Uint8Array.of(99), 4400, "FRAME_TYPE"],
      ["an empty frame", () => new Uint8Array(0), 4400, "TRUNCATED"],
      ["a cut AUTH", (hello) => authFor(alice, replica, hello, 1).subarray(0, 50), 4400, "TRUNCATED"],
    ])("%s is refused with its code and counted", async (_name, frame, code, fault) => {
      const other = await login(77);
      const client = open();
      client.socket.send(frame(await client.hello()));
      expect(await client.closed()).toBe(code);
      expect(server.faults).toEqual([{ code: fault, remote: "127.0.0.1" }]);
      expect(client.frames.length).toBe(1);
      expect(server.requests).toEqual([]);
      expect(server.closed).toEqual([]);
      expect(gateway.connections).toBe(1);
      other.socket.send(request("still served"));
      await until(() => server.requests.length === 1, "other client");
    });

    test("links of the chain of views are for anybody, before AUTH and after, so many at a time", async () => {
      server.chain = Array.from({ length: LINKS_PER_ANSWER_MAX + 3 }, (_, view) => Uint8Array.of(view));
      const links = (frame: Buffer | undefined) => {
        const decoded = decodeGatewayFrame(frame as Buffer);
        if (isRejection(decoded) || decoded.type !== "LINKS") throw new Error("no LINKS");
        return [decoded.fromView, ...decoded.links.map(([view]) => view)];
      };
      const stranger = open();
      await stranger.hello();
      stranger.socket.send(encodeFetchLinks(2));
      await until(() => stranger.frames.length === 2, "LINKS");
      expect(links(stranger.frames[1])).toEqual([
        2,
        ...Array.from({ length: LINKS_PER_ANSWER_MAX }, (_, at) => 2 + at),
      ]);
      const client = await login(1);
      client.socket.send(encodeFetchLinks(LINKS_PER_ANSWER_MAX));
      client.socket.send(encodeFetchLinks(4_000_000_000));
      await until(() => client.frames.length === 4, "LINKS");
      const [some, none] = client.frames.slice(2);
      expect(links(some)).toEqual([LINKS_PER_ANSWER_MAX, ...[0, 1, 2].map((at) => LINKS_PER_ANSWER_MAX + at)]);
      expect(links(none)).toEqual([4_000_000_000]);
      expect(server.faults).toEqual([]);
    });

    test("who asks for links without end gets a few answers, and nobody else notices", async () => {
      server.chain = [Uint8Array.of(1)];
      const greedy = await login(1);
      const other = await login(2);
      for (let index = 0; index < 500; index++) greedy.socket.send(encodeFetchLinks(0));
      greedy.socket.send(request("the last"));
      await until(() => server.requests.length === 1, "request");
      expect(server.codes().filter((code) => code === "LINKS_RATE").length).toBeGreaterThan(450);
      await until(() => greedy.frames.length > 2, "LINKS");
      expect(greedy.frames.length).toBeLessThan(50);
      other.socket.send(encodeFetchLinks(0));
      await until(() => other.frames.length === 3, "LINKS");
      expect(gateway.connections).toBe(2);
    });

    test("a second AUTH, a text message and a malformed request end an authenticated connection", async () => {
      const again = await login(1);
      again.socket.send(authFor(alice, replica, await again.hello(), 1));
      expect(await again.closed()).toBe(CLOSE_CODES.BAD_FRAME);
      const texter = await login(2);
      texter.socket.send("hello");
      expect(await texter.closed()).toBe(CLOSE_CODES.BAD_FRAME);
      const cutter = await login(3);
      cutter.socket.send(Uint8Array.of(18, 0, 0, 0, 9, 1));
      expect(await cutter.closed()).toBe(CLOSE_CODES.BAD_FRAME);
      expect(server.codes()).toEqual(["UNEXPECTED_AUTH", "TEXT_FRAME", "TRUNCATED"]);
      expect(server.closed.length).toBe(3);
    });

    test("an administrator who is no client connects by signing the nonce; his public key alone opens nothing", async () => {
      const admin = newIdentity(nodeCrypto);
      server.administrator = admin.signKey;
      // Anybody can put his own box key beside an administrator's signing key.
      const thief = { ...newIdentity(nodeCrypto), signKey: admin.signKey };
      for (const [who, signer, code] of [
        [thief, null, CLOSE_CODES.NOT_A_CLIENT],
        [thief, thief, CLOSE_CODES.UNAUTHENTICATED],
        [admin, null, CLOSE_CODES.NOT_A_CLIENT],
        [admin, admin, null],
      ] as const) {
        const client = clientIdOf(nodeCrypto, who);
        server.refused = client;
        const socket = open();
        const hello = await socket.hello();
        const statement = authStatement({ cluster: CLUSTER, replica: REPLICA, nonce: hello.nonce, client, session: 1 });
        const signature = signer && nodeCrypto.signer(signer.signSeed)(statement);
        socket.socket.send(authFor(who, replica, hello, 1, { signature }));
        if (code !== null) expect(await socket.closed()).toBe(code);
        else await until(() => gateway.connectionOf(client, 1) !== undefined, "the administrator is in");
      }
    });

    test("who is not granted is told so", async () => {
      server.refused = aliceId;
      const client = open();
      client.socket.send(authFor(alice, replica, await client.hello(), 1));
      expect(await client.closed()).toBe(CLOSE_CODES.NOT_A_CLIENT);
      expect(server.codes()).toEqual(["NOT_A_CLIENT"]);
      expect(gateway.connectionOf(aliceId, 1)).toBeUndefined();
    });

    test("a message above the limit ends the connection", async () => {
      const client = await login(1);
      client.socket.send(Buffer.alloc(2 * 1024 * 1024 + 3 * 1024));
      await client.closed();
      await until(() => server.closed.length === 1, "closed");
      expect(server.codes()).toEqual(["FRAME_TOO_LARGE"]);
      expect(server.requests).toEqual([]);
    });

    test("who does not authenticate in time is closed, who did stays", async () => {
      // Not so short that the good one would be late on a busy machine.
      await openWith({ handshakeMs: 2_000 });
      const good = await login(1);
      const silent = open();
      expect(await silent.closed()).toBe(CLOSE_CODES.UNAUTHENTICATED);
      expect(server.codes()).toEqual(["HANDSHAKE_TIMEOUT"]);
      good.socket.send(request("x"));
      await until(() => server.requests.length === 1, "request");
    });

    test("too many connections: the oldest stranger gives way, then the newcomer", async () => {
      await openWith({ connectionsMax: 2 });
      await login(1);
      const stranger = open();
      await stranger.hello();
      const second = await login(2);
      expect(await stranger.closed()).toBe(CLOSE_CODES.TOO_MANY_CONNECTIONS);
      const late = open();
      expect(await late.closed()).toBe(CLOSE_CODES.TOO_MANY_CONNECTIONS);
      expect(gateway.connections).toBe(2);
      second.socket.close();
      await until(() => gateway.connections === 1, "room");
      await login(3);
    });

    test("strangers have a bound of their own: the oldest gives way", async () => {
      await openWith({ strangersMax: 2 });
      await login(1);
      const strangers = [open(), open()];
      await Promise.all(strangers.map((stranger) => stranger.hello()));
      const late = open();
      await late.hello();
      const closed = await Promise.race(strangers.map((stranger) => stranger.closed()));
      expect(closed).toBe(CLOSE_CODES.TOO_MANY_CONNECTIONS);
      expect(gateway.connections).toBe(3);
      expect(gateway.connectionOf(aliceId, 1)).toBeDefined();
    });

    test("one client has a bound of its own; a session that comes back needs no room", async () => {
      await openWith({ connectionsPerClientMax: 2 });
      await login(1);
      await login(2);
      const third = open();
      third.socket.send(authFor(alice, replica, await third.hello(), 3));
      expect(await third.closed()).toBe(CLOSE_CODES.TOO_MANY_CONNECTIONS);
      await login(2);
      const bob = newIdentity(nodeCrypto);
      const other = open();
      other.socket.send(authFor(bob, replica, await other.hello(), 1));
      await other.welcome();
    });

    test("when all are taken, the client that has most gives one up for a client that has fewer", async () => {
      await openWith({ connectionsMax: 20, strangersMax: 2 });
      const mine: Client[] = [];
      for (let session = 1; session <= 18; session++) mine.push(await login(session));
      const bob = newIdentity(nodeCrypto);
      const other = open();
      other.socket.send(authFor(bob, replica, await other.hello(), 1));
      await other.welcome();
      expect(await (mine[17] as Client).closed()).toBe(CLOSE_CODES.TOO_MANY_CONNECTIONS);
      expect(gateway.connections).toBe(18);
      const more = open();
      more.socket.send(authFor(alice, replica, await more.hello(), 19));
      expect(await more.closed(), "not for itself").toBe(CLOSE_CODES.TOO_MANY_CONNECTIONS);
    });

    test("slow readers together have a bound: the slowest is closed", async () => {
      await openWith({ queueBytesMax: 64 * 1024 * 1024, queuesBytesMax: 24 * 1024 * 1024 });
      const [slowest, slow] = [await login(1), await login(2)];
      for (const client of [slowest, slow]) client.socket.pause();
      const frame = Buffer.alloc(512 * 1024);
      for (let sent = 0; sent < 40; sent++) gateway.connectionOf(aliceId, 1)?.send(frame);
      expect(server.codes()).toEqual([]);
      expect(gateway.queuedBytes).toBeGreaterThan(0);
      for (let sent = 0; sent < 30; sent++) gateway.connectionOf(aliceId, 2)?.send(frame);
      expect(server.codes()).toEqual(["TOO_SLOW"]);
      expect(gateway.connectionOf(aliceId, 1)).toBeUndefined();
      expect(gateway.connectionOf(aliceId, 2)).toBeDefined();
      expect(gateway.queuedBytes).toBeLessThanOrEqual(24 * 1024 * 1024);
    });

    test("a slow reader is closed TOO_SLOW, others are not", async () => {
      await openWith({ queueBytesMax: 4 * 1024 * 1024 });
      const slow = await login(1);
      const good = await login(2);
      slow.socket.pause();
      const connection = gateway.connectionOf(aliceId, 1);
      const frame = Buffer.alloc(256 * 1024);
      let sent = 0;
      while (connection?.send(frame) && sent < 1_000) sent++;
      expect(sent).toBeGreaterThanOrEqual(16);
      expect(sent).toBeLessThan(1_000);
      expect(connection?.send(frame)).toBe(false);
      expect(server.codes()).toEqual(["TOO_SLOW"]);
      expect(server.closed).toEqual([connection]);
      expect(gateway.connectionOf(aliceId, 1)).toBeUndefined();
      slow.socket.resume();
      expect(await slow.closed()).toBe(CLOSE_CODES.TOO_SLOW);
      expect(slow.frames.length).toBe(2 + sent);
      expect(gateway.connectionOf(aliceId, 2)?.send(frame)).toBe(true);
      await until(() => good.frames.length === 3, "frame");
    });

    test("frames sent together arrive in order, before what is sent later", async () => {
      const client = await login(1);
      const connection = gateway.connectionOf(aliceId, 1) as ClientConnection;
      const frames = Array.from({ length: 200 }, (_, index) => Buffer.alloc(index % 50 === 49 ? 40_000 : 200, index));
      together(connection, () => {
        for (const frame of frames) expect(connection.send(frame)).toBe(true);
      });
      connection.send(Buffer.from("later"));
      await until(() => client.frames.length === 2 + frames.length + 1, "frames");
      expect(
        client.frames.slice(2, -1).every((frame, index) => Buffer.compare(frame, frames[index] as Buffer) === 0),
      ).toBe(true);
      expect(Buffer.from(client.frames.at(-1) as Uint8Array).toString()).toBe("later");
    });

    test("a slow reader of frames sent together is closed TOO_SLOW, and sends nothing more", async () => {
      await openWith({ queueBytesMax: 4 * 1024 * 1024 });
      const slow = await login(1);
      slow.socket.pause();
      const connection = gateway.connectionOf(aliceId, 1) as ClientConnection;
      const small = Buffer.alloc(1_000);
      let rounds = 0;
      let queuedMost = 0;
      while (gateway.connectionOf(aliceId, 1) && rounds++ < 10_000) {
        together(connection, () => {
          for (let sent = 0; sent < 8; sent++) connection.send(small);
        });
        queuedMost = Math.max(queuedMost, gateway.queuedBytes);
      }
      expect(queuedMost, "counted among what all have not read").toBeGreaterThan(1024 * 1024);
      expect(rounds).toBeLessThan(10_000);
      expect(server.codes()).toEqual(["TOO_SLOW"]);
      let ran = false;
      connection.together?.(() => {
        ran = true;
      });
      expect(ran).toBe(false);
      slow.socket.resume();
      expect(await slow.closed()).toBe(CLOSE_CODES.TOO_SLOW);
    });

    test("a connection may be closed while it sends together", async () => {
      const client = await login(1);
      const connection = gateway.connectionOf(aliceId, 1) as ClientConnection;
      together(connection, () => {
        connection.send(Buffer.from("first"));
        connection.close(CLOSE_CODES.BAD_FRAME, "BAD_FRAME");
        expect(connection.send(Buffer.from("second"))).toBe(false);
      });
      expect(await client.closed()).toBe(CLOSE_CODES.BAD_FRAME);
      expect(client.frames.length).toBe(3);
    });

    test("a reader that catches up may be slow again later", async () => {
      await openWith({ queueBytesMax: 4 * 1024 * 1024 });
      const client = await login(1);
      const connection = gateway.connectionOf(aliceId, 1);
      const frame = Buffer.alloc(1024 * 1024);
      for (let round = 1; round <= 3; round++) {
        for (let index = 0; index < 4; index++) expect(connection?.send(frame)).toBe(true);
        await until(() => client.frames.length === 2 + 4 * round, "all read");
      }
      expect(server.faults).toEqual([]);
    });

    test("closing says GOING_AWAY to everybody, accepts nobody after, and frees the port at once", async () => {
      const port = await freePort();
      await openWith({}, { port });
      const [one, two] = [await login(1), await login(2)];
      const stranger = open();
      await stranger.hello();
      await Promise.all([gateway.close(), gateway.close()]);
      for (const client of [one, two, stranger]) expect(await client.closed()).toBe(CLOSE_CODES.GOING_AWAY);
      expect(server.closed.length).toBe(2);
      expect(gateway.connections).toBe(0);
      const late = new Client(port);
      expect(await late.closed()).toBe(1006);
      await openWith({}, { port });
      await login(1);
    });

    test("a connection closed from within onRequest hears nothing more", async () => {
      const client = await login(1);
      const take = server.onRequest.bind(server);
      server.onRequest = (connection, envelope, bytes) => {
        take(connection, envelope, bytes);
        connection.close(CLOSE_CODES.BAD_FRAME, "BAD_FRAME");
        connection.close(CLOSE_CODES.BAD_FRAME, "BAD_FRAME");
        expect(connection.send(Buffer.from("x"))).toBe(false);
      };
      for (let index = 0; index < 20; index++) client.socket.send(request(`r${index}`));
      expect(await client.closed()).toBe(CLOSE_CODES.BAD_FRAME);
      expect(server.requests.length).toBe(1);
      expect(server.closed.length).toBe(1);
    });

    test("plain HTTP is told to upgrade", async () => {
      const response = await fetch(`http://127.0.0.1:${gateway.port}/`);
      expect(response.status).toBe(426);
      await response.text();
    });

    test("bytes that are no HTTP harm nobody", async () => {
      const client = await login(1);
      const socket = dialTcp({ host: "127.0.0.1", port: gateway.port });
      socket.on("error", () => undefined);
      const ended = new Promise((resolve) => socket.once("close", resolve));
      socket.resume();
      socket.write(Buffer.alloc(64 * 1024, 1));
      await ended;
      client.socket.send(request("x"));
      await until(() => server.requests.length === 1, "request");
    });

    test("connections that say nothing are bounded: more are closed, clients go on, and there is room again when some go", async () => {
      await openWith({}, { socketsMax: 4 });
      const client = await login(1);
      const closed = new Set<Socket>();
      const silent = Array.from({ length: 10 }, () => dialTcp({ host: "127.0.0.1", port: gateway.port }));
      for (const socket of silent) socket.on("error", () => undefined).on("close", () => closed.add(socket));
      for (const socket of silent) socket.resume();
      try {
        await until(() => closed.size === 7, "the others to be closed");
        client.socket.send(request("x"));
        await until(() => server.requests.length === 1, "request");
        for (const socket of silent) socket.destroy();
        await until(() => closed.size === 10, "all gone");
        for (const session of [2, 3, 4]) await login(session);
        for (const { socket } of clients) socket.close();
        await until(() => gateway.connections === 0, "clients gone");
        for (const session of [5, 6, 7, 8]) await login(session);
      } finally {
        for (const socket of silent) socket.destroy();
      }
    });

    test("a port in use is PORT_IN_USE: two gateways never share one", async () => {
      const port = await freePort();
      await openWith({}, { port });
      const error = await openWith({}, { port }).catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: "PORT_IN_USE", message: expect.stringMatching(/clientPort of replica 3/) });
      expect((error as Error).message).toContain(String(port));
    });

    test("an address that is not ours is CONFIG_INVALID", async () => {
      const listen = { host: "192.0.2.1", port: 0 };
      const ids = { cluster: CLUSTER, view: VIEW, replica: REPLICA };
      const options = { crypto: nodeCrypto, ...ids, identity: replica, listen, events: new Server(), implementation };
      await expect(openGateway(options)).rejects.toMatchObject({
        code: "CONFIG_INVALID",
        message: expect.stringContaining("192.0.2.1"),
      });
    });

    test("the unauthenticated gateway of the benchmark lets anybody in, and serves alike", async () => {
      const echo = new Server();
      echo.echo = true;
      const listen = { host: "127.0.0.1", port: 0 };
      const ids = { cluster: CLUSTER, view: VIEW, replica: REPLICA };
      gateway = await openUnauthenticatedGateway({ crypto: nodeCrypto, ...ids, listen, events: echo, implementation });
      gateways.push(gateway);
      const client = open();
      await client.hello();
      client.socket.send(request("too early"));
      expect(await client.closed()).toBe(CLOSE_CODES.UNAUTHENTICATED);
      const second = open();
      await second.hello();
      second.socket.send(
        encodeAuth({ keys: publicKeysBytes(alice), session: 1, mac: "\0".repeat(32) as Digest, signature: null }),
      );
      await second.welcome();
      second.socket.send(request("ping"));
      await until(() => second.frames.length === 3, "echo");
      expect(String(second.frames[2])).toBe("ping");
    });
  });
}
