/**
 * The network between real replicas, in this process: every connection from one replica to another runs through it. Guarantees:
 * a fault concerns exactly the ordered pairs it was asked for; bytes that pass keep their order and are never changed; a
 * connection of which bytes were swallowed does not survive the healing, since its stream has a hole.
 *
 * One listener stands in front of each replica. Who dials is read from the HELLO, which is not encrypted
 * (server/network/handshake.ts); the lower id dials, so of each pair one connection carries both directions.
 */
import { type AddressInfo, createServer, connect as dialTcp, type Server, type Socket } from "node:net";

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface Proxied {
  readonly id: number;
  /** What the others dial. */
  readonly front: Address;
  /** Where the replica really listens. */
  readonly back: Address;
}

/** `length u32 | magic u32 | version u8 | cluster 32 | from u32`: what a connection starts with. */
const SOURCE_AT = 4 + 4 + 1 + 32;
const SOURCE_END = SOURCE_AT + 4;

/** What befalls the bytes of one direction. */
type Fate =
  | { readonly type: "pass" }
  /** Connections are reset, and new ones too. */
  | { readonly type: "cut" }
  /** The connection stands, and nothing arrives: what was sent is lost. */
  | { readonly type: "swallow" }
  /** The connection stands, and nothing arrives before the healing: what TCP makes of a short outage. */
  | { readonly type: "hold" }
  | { readonly type: "delay"; readonly msMin: number; readonly msMax: number };

const PASS: Fate = { type: "pass" };

/** One direction of one connection. */
class Stream {
  /** Bytes are missing in it. */
  broken = false;
  readonly #swallowed: (bytes: number) => void;
  readonly #source: Socket;
  readonly #target: Socket;
  readonly #waiting: { readonly chunk: Uint8Array; readonly dueMs: number }[] = [];
  #fate: Fate = PASS;
  #lastDueMs = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(ends: { source: Socket; target: Socket }, fate: Fate, swallowed: (bytes: number) => void) {
    const { source, target } = ends;
    this.#source = source;
    this.#target = target;
    this.#fate = fate;
    this.#swallowed = swallowed;
    source.on("data", (chunk: Uint8Array) => this.take(chunk));
    target.on("drain", () => this.#flow());
  }

  set fate(fate: Fate) {
    this.#fate = fate;
    if (fate.type === "swallow" && this.#waiting.length > 0) {
      this.#waiting.length = 0;
      this.broken = true;
    }
    this.#flow();
    this.#deliver();
  }

  take(chunk: Uint8Array): void {
    const fate = this.#fate;
    if (fate.type === "swallow") {
      this.broken = true;
      this.#swallowed(chunk.length);
      return;
    }
    const delayMs = fate.type === "delay" ? fate.msMin + Math.random() * (fate.msMax - fate.msMin) : 0;
    this.#lastDueMs = Math.max(this.#lastDueMs, performance.now() + delayMs);
    this.#waiting.push({ chunk, dueMs: this.#lastDueMs });
    this.#flow();
    this.#deliver();
  }

  end(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    this.#waiting.length = 0;
  }

  /** A sender whose bytes go nowhere notices it as with any slow receiver: its own buffers fill up. */
  #flow(): void {
    if (this.#fate.type === "hold" || this.#target.writableNeedDrain) this.#source.pause();
    else this.#source.resume();
  }

  #deliver(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#fate.type === "hold") return;
    while (this.#waiting[0] && this.#waiting[0].dueMs <= performance.now()) {
      this.#target.write(this.#waiting.shift()?.chunk ?? new Uint8Array(0));
    }
    this.#flow();
    const [next] = this.#waiting;
    if (next) this.#timer = setTimeout(() => this.#deliver(), Math.max(1, next.dueMs - performance.now()));
  }
}

interface Connection {
  readonly streams: ReadonlyMap<string, Stream>;
  destroy(): void;
}

function laneOf(from: number, to: number): string {
  return `${from}>${to}`;
}

export class TcpProxy {
  readonly #members: readonly Proxied[];
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #connections = new Set<Connection>();
  readonly #fates = new Map<string, Fate>();
  /** Lost so far: a test can see that its fault befell anything. */
  swallowedBytes = 0;

  private constructor(members: readonly Proxied[]) {
    this.#members = members;
  }

  /** Listens in front of every member. @throws Error when a front is taken */
  static async open(members: readonly Proxied[]): Promise<TcpProxy> {
    const proxy = new TcpProxy(members);
    try {
      for (const member of members) await proxy.#listen(member);
    } catch (error) {
      await proxy.close();
      throw error;
    }
    return proxy;
  }

  /** Resets the connections of these replicas with each other, and every new one, until they are healed. */
  cut(ones: readonly number[], others: readonly number[]): void {
    this.#set(ones, others, { type: "cut" });
    this.#set(others, ones, { type: "cut" });
  }

  /** What `from` say does not reach `to`, and is lost; what `to` say arrives. */
  swallow(from: readonly number[], to: readonly number[]): void {
    this.#set(from, to, { type: "swallow" });
  }

  /** What `from` say reaches `to` only after the healing. */
  hold(from: readonly number[], to: readonly number[]): void {
    this.#set(from, to, { type: "hold" });
  }

  /** What `from` say reaches `to` late, in order. */
  delay(from: readonly number[], to: readonly number[], by: { msMin: number; msMax: number }): void {
    this.#set(from, to, { type: "delay", ...by });
  }

  /** Every pair is as if nothing had been. */
  heal(): void {
    this.#fates.clear();
    this.#apply();
  }

  /** Where it listens in front of each member, in their order. */
  get ports(): number[] {
    return this.#servers.map((server) => (server.address() as AddressInfo).port);
  }

  /** Everybody but these. */
  others(...ids: number[]): number[] {
    return this.#members.map(({ id }) => id).filter((id) => !ids.includes(id));
  }

  async close(): Promise<void> {
    const closed = this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(closed);
  }

  #set(from: readonly number[], to: readonly number[], fate: Fate): void {
    for (const source of from) for (const target of to) this.#fates.set(laneOf(source, target), fate);
    this.#apply();
  }

  #apply(): void {
    for (const connection of [...this.#connections]) {
      for (const [lane, stream] of connection.streams) {
        const fate = this.#fates.get(lane) ?? PASS;
        if (fate.type === "cut" || (stream.broken && fate.type !== "swallow")) connection.destroy();
        else stream.fate = fate;
      }
    }
  }

  #fate(from: number, to: number): Fate {
    return this.#fates.get(laneOf(from, to)) ?? PASS;
  }

  async #listen(member: Proxied): Promise<void> {
    const server = createServer({ noDelay: true }, (socket) => this.#accept(socket, member));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ ...member.front, exclusive: true }, resolve);
    });
    this.#servers.push(server);
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#sockets.delete(socket));
  }

  /** Who dials stands in the first bytes; before, nothing is passed on. */
  #accept(socket: Socket, member: Proxied): void {
    this.#keep(socket);
    let start = Buffer.alloc(0);
    const onStart = (chunk: Buffer): void => {
      start = Buffer.concat([start, chunk]);
      if (start.length < SOURCE_END) return;
      socket.off("data", onStart);
      this.#join(socket, { dialer: start.readUInt32BE(SOURCE_AT), listener: member, start });
    };
    socket.on("data", onStart);
  }

  #join(near: Socket, about: { dialer: number; listener: Proxied; start: Uint8Array }): void {
    const { dialer, listener, start } = about;
    const there = this.#fate(dialer, listener.id);
    const back = this.#fate(listener.id, dialer);
    if (there.type === "cut" || back.type === "cut") {
      near.resetAndDestroy();
      return;
    }
    const far = dialTcp({ ...listener.back, noDelay: true });
    this.#keep(far);
    const swallowed = (bytes: number): void => {
      this.swallowedBytes += bytes;
    };
    const forth = new Stream({ source: near, target: far }, there, swallowed);
    const streams = new Map([
      [laneOf(dialer, listener.id), forth],
      [laneOf(listener.id, dialer), new Stream({ source: far, target: near }, back, swallowed)],
    ]);
    const connection: Connection = {
      streams,
      destroy: () => {
        this.#connections.delete(connection);
        for (const stream of streams.values()) stream.end();
        near.destroy();
        far.destroy();
      },
    };
    this.#connections.add(connection);
    near.on("close", connection.destroy);
    far.on("close", connection.destroy);
    forth.take(start);
  }
}
