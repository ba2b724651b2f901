import { connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Digest, latin1 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { type Identity, newIdentity } from "../../../protocol/identity.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import type { Links } from "../../../server/network/contract.ts";
import { FrameSealer, FrameSplitter } from "../../../server/network/frames.ts";
import { Handshake, type HandshakeContext, type HandshakeStep, peerSecret } from "../../../server/network/handshake.ts";
import { linksContract, Recorder } from "./links-contract.ts";
import { CLUSTER, TcpHarness, until } from "./tcp-harness.ts";

linksContract("tcp", async (ids) => new TcpHarness(ids));

const VICTIM = 2;
const LIAR = 1;
const HONEST = 0;

describe("attacks on TCP links (section 2)", () => {
  let harness: TcpHarness;
  let victim: Links;
  let honest: Links;
  let seen: Recorder;
  const sockets: Socket[] = [];
  const servers: Server[] = [];

  beforeEach(async () => {
    harness = new TcpHarness([HONEST, LIAR, VICTIM]);
    seen = new Recorder();
    victim = await harness.start(VICTIM, seen, { limits: { unauthenticatedMax: 8 } });
    honest = await harness.start(HONEST, new Recorder());
    await until(() => victim.connected().includes(HONEST), "honest link");
  });

  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy();
    for (const server of servers.splice(0)) server.close();
    await harness.stop();
  });

  /** The link to the third replica never noticed, and still carries. */
  async function healthy(): Promise<void> {
    const before = seen.textsFrom(HONEST).length;
    honest.send(VICTIM, Buffer.from("still here"));
    honest.flush();
    await until(() => seen.textsFrom(HONEST).length > before, "honest message");
    expect(seen.events.filter((event) => event.endsWith(String(HONEST)))).toEqual([`+${HONEST}`]);
  }

  async function faultsAre(...codes: string[]): Promise<void> {
    await until(() => seen.faults.length >= codes.length, `faults ${codes.join()}; have ${seen.codes().join()}`);
    expect(seen.codes()).toEqual(codes);
  }

  async function raw(): Promise<{ socket: Socket; closed: () => boolean }> {
    const socket = connect({ host: "127.0.0.1", port: harness.member(VICTIM).peerPort });
    sockets.push(socket);
    let closed = false;
    socket.on("close", () => {
      closed = true;
    });
    socket.on("error", () => undefined);
    await new Promise((resolve) => socket.once("connect", resolve));
    socket.resume();
    return { socket, closed: () => closed };
  }

  interface Disguise {
    readonly from?: ReplicaId;
    readonly to?: ReplicaId;
    readonly identity?: Identity;
    readonly cluster?: Digest;
  }

  function contextOf(disguise: Disguise): HandshakeContext {
    const { from = LIAR, identity = harness.identity(LIAR), cluster = CLUSTER } = disguise;
    const member = harness.member(VICTIM);
    const secret = peerSecret(nodeCrypto, { cluster, identity, member });
    const { boxKey } = identity;
    return { crypto: nodeCrypto, cluster, self: from, boxKey, secretOf: () => secret, refuses: () => false };
  }

  /** Dials the victim and goes through the handshake as far as it lets us. */
  async function dialAs(disguise: Disguise) {
    const { socket, closed } = await raw();
    const { handshake, bytes } = Handshake.dial(contextOf(disguise), disguise.to ?? VICTIM);
    const splitter = new FrameSplitter(128);
    const steps: HandshakeStep[] = [];
    socket.on("data", (chunk: Buffer) => {
      splitter.push(chunk, (body) => {
        const step = handshake.receive(body);
        steps.push(step);
        if (step.type === "send") socket.write(step.bytes);
        return null;
      });
    });
    socket.write(bytes);
    return { socket, closed, steps };
  }

  /** An authenticated connection of the member that lies, with its frame key. */
  async function authenticated() {
    const { socket, closed, steps } = await dialAs({});
    await until(() => steps.length === 2 && victim.connected().includes(LIAR), "liar linked");
    const done = steps[1];
    if (done?.type !== "done") throw new Error(`handshake ended with ${done?.type}`);
    return { socket, closed, sealer: new FrameSealer(nodeCrypto, done.sendKey) };
  }

  test("the disguise works when nothing is wrong: the member is linked and heard", async () => {
    const { socket, sealer } = await authenticated();
    for (const frame of sealer.seal([Buffer.from("one"), Buffer.from("two")])) socket.write(frame);
    await until(() => seen.textsFrom(LIAR).length === 2, "messages");
    expect(seen.faults).toEqual([]);
    await healthy();
  });

  test.each<[string, () => Disguise, string]>([
    ["a wrong key", () => ({ identity: newIdentity(nodeCrypto) }), "LINK_MAC"],
    ["another cluster", () => ({ cluster: latin1(new Uint8Array(32).fill(8)) as Digest }), "LINK_CLUSTER"],
    ["an unknown id", () => ({ from: 9 }), "LINK_IDENTITY"],
    ["the victim's own id", () => ({ from: VICTIM }), "LINK_IDENTITY"],
    ["a HELLO for somebody else", () => ({ to: HONEST }), "LINK_IDENTITY"],
    ["an honest member's id with the liar's key", () => ({ from: HONEST }), "LINK_MAC"],
  ])("%s is refused, counted and never linked", async (_name, disguise, code) => {
    const { closed } = await dialAs(disguise());
    await until(closed, "closed");
    await faultsAre(code);
    expect(seen.faults[0]).toMatchObject({ from: null, remote: expect.stringMatching(/^127\.0\.0\.1:\d+$/) });
    expect(victim.connected()).toEqual([HONEST]);
    await healthy();
  });

  test("a higher id may not dial: wrong role", async () => {
    const four = new TcpHarness([3, 4]);
    const member = four.member(4);
    harness.members.push(member);
    harness.identities.set(4, four.identity(4));
    await victim.close();
    seen = new Recorder();
    victim = await harness.start(VICTIM, seen);
    await until(() => victim.connected().includes(HONEST), "honest again");
    const { closed } = await dialAs({ from: 4, identity: four.identity(4) });
    await until(closed, "closed");
    expect(seen.codes()).toEqual(["LINK_IDENTITY"]);
  });

  test.each<[string, Buffer]>([
    ["an HTTP request", Buffer.from("GET / HTTP/1.1\r\n\r\n")],
    ["a TLS hello", Buffer.from("16030100a5010000a1", "hex")],
    ["a short body", Buffer.from([0, 0, 0, 1, 0])],
    ["an empty body", Buffer.from([0, 0, 0, 0])],
    ["zeros of the right length", Buffer.concat([Buffer.from([0, 0, 0, 78]), Buffer.alloc(78)])],
  ])("garbage before the handshake: %s", async (_name, bytes) => {
    const { socket, closed } = await raw();
    socket.write(bytes);
    await until(closed, "closed");
    await faultsAre("LINK_HANDSHAKE");
    await healthy();
  });

  test("another wire version says so", async () => {
    const { socket, closed } = await raw();
    const { bytes } = Handshake.dial(contextOf({}), VICTIM);
    const changed = Buffer.from(bytes);
    changed[8] = 99;
    socket.write(changed);
    await until(closed, "closed");
    await faultsAre("LINK_VERSION");
  });

  test("a slow handshake is cut at the deadline, whether silent or dripping", async () => {
    await victim.close();
    seen = new Recorder();
    // Not so short that the honest member, too, would be late on a busy machine.
    victim = await harness.start(VICTIM, seen, { limits: { handshakeMs: 1_500 } });
    await until(() => victim.connected().includes(HONEST), "honest again");
    const silent = await raw();
    const dripping = await raw();
    const drip = setInterval(() => dripping.socket.write(Uint8Array.of(0)), 600);
    try {
      await until(() => silent.closed() && dripping.closed(), "both cut");
    } finally {
      clearInterval(drip);
    }
    await faultsAre("LINK_TIMEOUT", "LINK_TIMEOUT");
    await healthy();
  });

  test("too many strangers: the oldest gives way and a member still gets in", async () => {
    const crowd = await Promise.all(Array.from({ length: 12 }, raw));
    await authenticated();
    expect(seen.codes()).toContain("LINK_FLOOD");
    await until(() => crowd.some((one) => one.closed()), "somebody to give way");
    await healthy();
  });

  test("a recorded handshake replayed does not authenticate", async () => {
    const recorded: Buffer[] = [];
    const first = await raw();
    const { handshake, bytes } = Handshake.dial(contextOf({}), VICTIM);
    recorded.push(Buffer.from(bytes));
    const splitter = new FrameSplitter(128);
    first.socket.on("data", (chunk: Buffer) => {
      splitter.push(chunk, (body) => {
        const step = handshake.receive(body);
        if (step.type === "send") {
          recorded.push(Buffer.from(step.bytes));
          first.socket.write(step.bytes);
        }
        return null;
      });
    });
    first.socket.write(bytes);
    await until(() => victim.connected().includes(LIAR), "linked");
    first.socket.destroy();
    await until(() => !victim.connected().includes(LIAR), "gone");
    const second = await raw();
    second.socket.write(Buffer.concat(recorded));
    await until(second.closed, "closed");
    await faultsAre("LINK_MAC");
    expect(seen.count(`+${LIAR}`)).toBe(1);
  });

  test.each<[string, (frames: Uint8Array[]) => Uint8Array[], string]>([
    ["a repeated frame", ([a = new Uint8Array()]) => [a, a], "LINK_COUNTER"],
    ["a skipped frame", ([a = new Uint8Array(), , c = new Uint8Array()]) => [a, c], "LINK_COUNTER"],
    [
      "a flipped byte",
      ([a = new Uint8Array(), b = new Uint8Array()]) => {
        b[b.length - 1] = (b[b.length - 1] as number) ^ 1;
        return [a, b];
      },
      "LINK_MAC",
    ],
    ["a length above the limit", ([a = new Uint8Array()]) => [a, Uint8Array.of(0x7f, 0xff, 0xff, 0xff)], "LINK_LENGTH"],
    ["garbage after a frame", ([a = new Uint8Array()]) => [a, Buffer.alloc(64)], "LINK_LENGTH"],
  ])("an authenticated peer that sends %s is dropped, blamed and not heard", async (_name, change, code) => {
    const { socket, closed, sealer } = await authenticated();
    const frames = ["a", "b", "c"].flatMap((text) => sealer.seal([Buffer.from(text)]));
    socket.write(Buffer.concat(change(frames)));
    await until(closed, "closed");
    await faultsAre(code);
    expect(seen.faults[0]).toMatchObject({ from: LIAR });
    expect(seen.textsFrom(LIAR)).toEqual(["a"]);
    expect(seen.events.at(-1)).toBe(`-${LIAR}`);
    await healthy();
  });

  test("a frame cut off by the end of the connection delivers nothing", async () => {
    const { socket, sealer } = await authenticated();
    const [frame = new Uint8Array()] = sealer.seal([Buffer.from("cut")]);
    socket.end(frame.subarray(0, frame.length - 1));
    await until(() => seen.count(`-${LIAR}`) === 1, "gone");
    expect(seen.textsFrom(LIAR)).toEqual([]);
    expect(seen.faults).toEqual([]);
    await healthy();
  });

  test.each([
    ["punished", "TRUNCATED"],
    ["faulty", "LINK_LENGTH"],
  ])("who was dropped as %s has to wait, silently", async (how, code) => {
    await victim.close();
    seen = new Recorder();
    victim = await harness.start(VICTIM, seen, { limits: { backoffMsMin: 60_000, backoffMsMax: 60_000 } });
    await until(() => victim.connected().includes(HONEST), "honest again");
    const first = await authenticated();
    if (how === "punished") victim.punish(LIAR, code);
    else first.socket.write(Buffer.alloc(8));
    await until(first.closed, "dropped");
    const again = await dialAs({});
    await until(again.closed, "turned away");
    expect(again.steps).toEqual([]);
    expect(seen.codes()).toEqual([code]);
    await healthy();
  });

  test("a stranger with a member's name cannot make that member wait", async () => {
    const { closed } = await dialAs({ identity: newIdentity(nodeCrypto) });
    await until(closed, "closed");
    await authenticated();
    expect(victim.connected()).toEqual([HONEST, LIAR]);
  });

  test("a new connection of a member replaces the old one", async () => {
    const first = await authenticated();
    const second = await dialAs({});
    await until(() => seen.count(`+${LIAR}`) === 2, "second linked");
    await until(first.closed, "first closed");
    expect(seen.events.slice(-2)).toEqual([`-${LIAR}`, `+${LIAR}`]);
    expect(second.closed()).toBe(false);
    expect(seen.faults).toEqual([]);
  });

  test("a link that falls silent is dropped, one that talks is not", async () => {
    await victim.close();
    seen = new Recorder();
    victim = await harness.start(VICTIM, seen, { limits: { silenceMs: 200 } });
    await until(() => victim.connected().includes(HONEST), "honest again");
    const beat = setInterval(() => {
      honest.send(VICTIM, Buffer.from("beat"));
      honest.flush();
    }, 20);
    try {
      const { closed } = await authenticated();
      await until(closed, "dropped");
    } finally {
      clearInterval(beat);
    }
    expect(seen.faults).toMatchObject([{ from: LIAR, code: "LINK_TIMEOUT" }]);
    expect(seen.count(`-${HONEST}`)).toBe(0);
  });

  test("frames recorded on the wire and replayed by a proxy are refused, and the link recovers", async () => {
    const proxy = await startProxy(harness.member(VICTIM).peerPort);
    servers.push(proxy.server);
    const members = harness.members.map((one) => (one.id === VICTIM ? { ...one, peerPort: proxy.port } : one));
    const liarSeen = new Recorder();
    const liar = await harness.start(LIAR, liarSeen, { members });
    // seen by the victim: the last message of the handshake is through the proxy, and will not be in the recording
    await until(() => seen.count(`+${LIAR}`) === 1 && liar.connected().includes(VICTIM), "linked through the proxy");
    proxy.recording = [];
    liar.send(VICTIM, Buffer.from("pay once"));
    liar.flush();
    await until(() => seen.textsFrom(LIAR).length === 1, "message");
    const old = Buffer.concat(proxy.recording);
    proxy.inject(old);
    await until(() => seen.count(`+${LIAR}`) === 2, "linked again");
    expect(seen.textsFrom(LIAR)).toEqual(["pay once"]);
    expect(seen.codes()).toEqual(["LINK_COUNTER"]);
    proxy.inject(old); // into the fresh connection, where counter 1 is the next but the key is another
    await until(() => seen.faults.length === 2, "second fault");
    expect(seen.codes()).toEqual(["LINK_COUNTER", "LINK_MAC"]);
    expect(seen.textsFrom(LIAR)).toEqual(["pay once"]);
    await until(() => seen.count(`+${LIAR}`) === 3, "linked a third time");
    await healthy();
  });

  test("dialling somebody without the member's key is refused by the dialler too", async () => {
    const impostor = new TcpHarness([HONEST, LIAR, VICTIM]);
    const impostorSeen = new Recorder();
    const members = [harness.member(HONEST), harness.member(LIAR), impostor.member(VICTIM)];
    const fake = await impostor.start(VICTIM, impostorSeen, { members });
    const dialler = new Recorder();
    const liar = await harness.start(LIAR, dialler, {
      members: harness.members.map((one) => (one.id === VICTIM ? { ...one, peerPort: fake.port } : one)),
    });
    try {
      await until(() => dialler.faults.length > 0 && impostorSeen.faults.length > 0, "both notice");
      expect(new Set(dialler.codes())).toEqual(new Set(["LINK_MAC"]));
      expect(new Set(impostorSeen.codes())).toEqual(new Set(["LINK_MAC"]));
      expect(liar.connected()).not.toContain(VICTIM);
      expect(dialler.events).not.toContain(`+${VICTIM}`);
      expect(impostorSeen.events).toEqual([]);
    } finally {
      await impostor.stop();
    }
  });

  test("who is invited again with other keys takes the place of who was invited", async () => {
    const meeting = new TcpHarness([HONEST, LIAR, VICTIM]);
    const impostor = new TcpHarness([LIAR]).member(LIAR);
    const hostSeen = new Recorder();
    const host = await meeting.start(VICTIM, hostSeen, { members: [meeting.member(HONEST), meeting.member(VICTIM)] });
    try {
      host.admit?.(impostor);
      const guest = await meeting.start(LIAR, new Recorder());
      await until(() => hostSeen.codes().includes("LINK_MAC"), "its keys to be refused");
      expect(host.connected()).toEqual([]);
      host.admit?.(meeting.member(LIAR));
      await until(() => host.connected().includes(LIAR) && guest.connected().includes(VICTIM), "linked");
      host.admit?.({ ...meeting.member(LIAR) });
      expect(host.connected()).toEqual([LIAR]);
      host.admit?.(impostor);
      expect(host.connected()).toEqual([]);
      expect(hostSeen.events.filter((event) => event.endsWith(`${LIAR}`))).toEqual([`+${LIAR}`, `-${LIAR}`]);
    } finally {
      await meeting.stop();
    }
  });

  test("a port in use is PORT_IN_USE with what to do", async () => {
    const again = harness.start(VICTIM, new Recorder());
    const message = expect.stringMatching(/change peerPort of replica \d+ with kv view set-address$/);
    await expect(again).rejects.toMatchObject({ code: "PORT_IN_USE", message });
  });
});

/** Passes bytes both ways, recording and injecting towards the target. */
async function startProxy(target: number) {
  const proxy = {
    recording: [] as Buffer[],
    inject: (_bytes: Buffer): void => undefined,
    port: 0,
    server: createServer((inbound) => {
      const outbound = connect({ host: "127.0.0.1", port: target });
      inbound.on("data", (chunk: Buffer) => {
        proxy.recording.push(chunk);
        outbound.write(chunk);
      });
      outbound.pipe(inbound);
      for (const [one, other] of [
        [inbound, outbound],
        [outbound, inbound],
      ] as const) {
        one.on("error", () => other.destroy());
        one.on("close", () => other.destroy());
      }
      proxy.inject = (bytes) => outbound.write(bytes) as unknown as undefined;
    }),
  };
  await new Promise<void>((resolve) => proxy.server.listen(0, "127.0.0.1", resolve));
  const address = proxy.server.address();
  proxy.port = typeof address === "object" && address ? address.port : 0;
  return proxy;
}
