/** The proxy does what tests rely on: each fault befalls the pair and direction it was asked for, and no other. */
import { createServer, connect as dialTcp, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { sleep, until } from "./cluster.ts";
import { TcpProxy } from "./tcp-proxy.ts";

/** A HELLO as far as the proxy reads it. */
function hello(from: number): Buffer {
  const bytes = Buffer.alloc(60);
  bytes.writeUInt32BE(56, 0);
  bytes.writeUInt32BE(from, 41);
  return bytes;
}

/** Two listeners behind a proxy, each of which says what it hears back, after `echo:`. */
async function twoBehindProxy(): Promise<{ proxy: TcpProxy; fronts: readonly number[] }> {
  const backs: number[] = [];
  for (const _ of [0, 1]) {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("data", (chunk) => socket.write(`echo:${chunk.subarray(chunk.indexOf(0x7b)).toString("latin1")}`));
    });
    await new Promise<void>((resolve) => server.listen({ host: "127.0.0.1", port: 0 }, resolve));
    backs.push((server.address() as { port: number }).port);
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
  }
  const proxy = await TcpProxy.open(
    backs.map((port, index) => ({
      id: 10 + index,
      front: { host: "127.0.0.1", port: 0 },
      back: { host: "127.0.0.1", port },
    })),
  );
  onTestFinished(() => proxy.close());
  return { proxy, fronts: proxy.ports };
}

class Dialer {
  heard = "";
  closed = false;
  readonly #socket: Socket;

  constructor(from: number, port: number) {
    this.#socket = dialTcp({ host: "127.0.0.1", port });
    this.#socket.setEncoding("latin1").on("data", (text) => {
      this.heard += text;
    });
    this.#socket.on("error", () => {});
    this.#socket.on("close", () => {
      this.closed = true;
    });
    this.#socket.write(hello(from));
    onTestFinished(() => void this.#socket.destroy());
  }

  say(text: string): void {
    this.#socket.write(`{${text}}`);
  }

  async hears(text: string): Promise<void> {
    await until(() => (this.heard.includes(`{${text}}`) ? true : null), {
      everyMs: 5,
      what: () => `${text} in ${this.heard}`,
    });
  }

  async closes(): Promise<void> {
    await until(() => (this.closed ? true : null), { everyMs: 5, what: "the connection to be reset" });
  }
}

const SHORT_MS = 60;

test("a cut resets the connections of that pair, also new ones, and no others; healed, they stand again", async () => {
  const { proxy, fronts } = await twoBehindProxy();
  const [a, b] = fronts as [number, number];
  const [cut, same, other] = [new Dialer(1, a), new Dialer(1, b), new Dialer(2, a)];
  for (const dialer of [cut, same, other]) dialer.say("one");
  for (const dialer of [cut, same, other]) await dialer.hears("one");
  proxy.cut([10], [1]);
  await cut.closes();
  const again = new Dialer(1, a);
  await again.closes();
  for (const dialer of [same, other]) dialer.say("two");
  for (const dialer of [same, other]) await dialer.hears("two");
  proxy.heal();
  const healed = new Dialer(1, a);
  healed.say("three");
  await healed.hears("three");
});

test("swallowed bytes are lost in that direction only, and the healing resets what has a hole", async () => {
  const { proxy, fronts } = await twoBehindProxy();
  const dialers = fronts.map((port) => new Dialer(1, port));
  const [first, second] = dialers as [Dialer, Dialer];
  for (const dialer of dialers) dialer.say("one");
  for (const dialer of dialers) await dialer.hears("one");
  proxy.swallow([1], [10]);
  for (const dialer of dialers) dialer.say("two");
  await second.hears("two");
  await sleep(SHORT_MS);
  expect(first.heard).not.toContain("two");
  expect(first.closed).toBe(false);
  proxy.heal();
  await first.closes();
  expect(second.closed).toBe(false);
});

test("held bytes arrive at the healing, in order", async () => {
  const { proxy, fronts } = await twoBehindProxy();
  const dialer = new Dialer(1, fronts[0] as number);
  dialer.say("one");
  await dialer.hears("one");
  proxy.hold([10], [1]);
  dialer.say("two");
  await sleep(SHORT_MS);
  dialer.say("three");
  await sleep(SHORT_MS);
  expect(dialer.heard).not.toContain("two");
  proxy.heal();
  await dialer.hears("three");
  expect(dialer.heard.indexOf("two")).toBeLessThan(dialer.heard.indexOf("three"));
  expect(dialer.closed).toBe(false);
});

test("delayed bytes arrive no earlier than asked for, complete and in order", async () => {
  const { proxy, fronts } = await twoBehindProxy();
  const dialer = new Dialer(1, fronts[0] as number);
  dialer.say("start");
  await dialer.hears("start");
  proxy.delay([1], [10], { msMin: 20, msMax: 60 });
  const since = performance.now();
  const words = Array.from({ length: 200 }, (_, index) => `w${index};`);
  for (const [index, word] of words.entries()) {
    dialer.say(word);
    if (index % 20 === 0) await sleep(1);
  }
  await dialer.hears("w199;");
  expect(performance.now() - since).toBeGreaterThanOrEqual(20);
  const heard = [...dialer.heard.matchAll(/w\d+;/g)].map(([word]) => word);
  expect(heard).toEqual(words);
});
