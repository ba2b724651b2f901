/** Who is cut off for flooding, and who never is (server/network/flood-guard.ts). */
import { beforeEach, describe, expect, test } from "vitest";
import { CLOSE_CODES, encodeAuth, encodeRequestFrame } from "../../../protocol/client-frames.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { clientIdOf, type Identity, newIdentity, publicKeysBytes, publicKeysFrom } from "../../../protocol/identity.ts";
import { type ClientSession, ClientSessions, GATEWAY_LIMITS } from "../../../server/network/client-session.ts";
import { FloodGuard } from "../../../server/network/flood-guard.ts";

const STEP_MS = 10;

interface Sender {
  readonly name: string;
  /** Frames in 10 ms, their size, and how many of them there is room for. */
  readonly frames: number;
  readonly bytes: number;
  readonly room: number;
}

const POLITE: Sender[] = Array.from({ length: 10 }, (_, at) => ({
  name: `polite ${at}`,
  frames: 1,
  bytes: 100,
  room: 1,
}));
const SMALL: Sender = { name: "flood", frames: 150, bytes: 100, room: 20 };
const LARGE: Sender = { name: "flood", frames: 2, bytes: 256 * 1024, room: 0 };

describe("the flood guard", () => {
  let guard: FloodGuard;
  let nowMs: number;
  let cut: { client: string; atMs: number }[];

  beforeEach(() => {
    nowMs = 1_000;
    cut = [];
    guard = new FloodGuard((client) => cut.push({ client, atMs: nowMs }));
  });

  /** Who is barred sends nothing. */
  function run(senders: readonly Sender[], forMs: number): void {
    for (const endMs = nowMs + forMs; nowMs < endMs; nowMs += STEP_MS) {
      for (const { name, frames, bytes, room } of senders) {
        for (let at = 0; at < frames && !guard.barred(name, nowMs); at++) {
          guard.came(name, bytes, nowMs);
          if (at >= room) guard.turnedAway(name, bytes);
        }
      }
    }
  }

  test.each([
    ["many small requests", SMALL],
    ["few large ones", LARGE],
  ])("a client that goes on with %s while it is turned away is cut off after a second", (_, flood) => {
    run([...POLITE, flood], 950);
    expect(cut).toEqual([]);
    run([...POLITE, flood], 350);
    expect(cut.map(({ client }) => client)).toEqual(["flood"]);
    expect(guard.barred("flood", nowMs)).toBe(true);
    expect(guard.barred("polite 0", nowMs)).toBe(false);
  });

  test("it stays away for 10 s, the next times for twice as long each, at most a minute", () => {
    run([...POLITE, SMALL], 400_000);
    const away = cut.slice(1).map(({ atMs }, at) => atMs - (cut[at]?.atMs ?? 0));
    const floods = away.map((ms, at) => ms - Math.min(60_000, 10_000 * 2 ** at));
    for (const ms of floods) {
      expect(ms).toBeGreaterThanOrEqual(1_000);
      expect(ms).toBeLessThanOrEqual(1_300);
    }
    expect(away.length).toBeGreaterThanOrEqual(6);
  });

  test("what it did is forgotten after two minutes of peace", () => {
    run([...POLITE, SMALL], 13_000);
    expect(cut).toHaveLength(2);
    run(POLITE, 180_000);
    run([...POLITE, SMALL], 1_400);
    expect(cut).toHaveLength(3);
    expect(guard.barred("flood", nowMs + 10_100)).toBe(false);
  });

  test("never the only client, whatever it sends", () => {
    run([SMALL], 60_000);
    expect(cut).toEqual([]);
  });

  test("nobody where all want twice of what there is", () => {
    const greedy = Array.from({ length: 8 }, (_, at) => ({ name: `greedy ${at}`, frames: 20, bytes: 100, room: 10 }));
    run(greedy, 60_000);
    expect(cut).toEqual([]);
  });

  test("nobody of many alike, where this replica serves nobody for a while", () => {
    const starved = Array.from({ length: 8 }, (_, at) => ({ name: `starved ${at}`, frames: 40, bytes: 100, room: 0 }));
    run(starved, 60_000);
    expect(cut).toEqual([]);
  });

  test("nobody for a burst, however large, that pauses when it is turned away", () => {
    const burst: Sender = { name: "burst", frames: 5_000, bytes: 1_000, room: 100 };
    for (let round = 0; round < 20; round++) {
      run([...POLITE, burst], STEP_MS);
      run(POLITE, 990);
    }
    expect(cut).toEqual([]);
  });

  test("nobody who is turned away little", () => {
    run([...POLITE, { ...SMALL, frames: 18, room: 0 }], 60_000);
    expect(cut).toEqual([]);
  });
});

describe("a gateway", () => {
  const [alice, bob] = [newIdentity(nodeCrypto), newIdentity(nodeCrypto)];
  let nowMs: number;
  let sessions: ClientSessions;
  /** What alice sends is turned away. */
  let requests: string[];
  let keysAgreed: number;
  let closed: { session: number; code: number }[];
  /** What the sessions do once in a while. */
  let watch: () => void;

  beforeEach(() => {
    nowMs = 1_000;
    requests = [];
    keysAgreed = 0;
    closed = [];
    sessions = new ClientSessions({
      crypto: nodeCrypto,
      cluster: nodeCrypto.sha256(new Uint8Array(1)),
      replica: 0,
      view: 0,
      authenticate({ keys }) {
        keysAgreed++;
        return { client: clientIdOf(nodeCrypto, publicKeysFrom(keys)) };
      },
      events: {
        onRequest(connection, _envelope, request) {
          requests.push(connection.client);
          if (connection.client === clientIdOf(nodeCrypto, alice)) connection.turnedAway(request.length);
        },
        onClosed: () => {},
        onFault: () => {},
      },
      limits: GATEWAY_LIMITS,
      time: {
        nowMs: () => nowMs,
        every(_, run) {
          watch = run;
          return () => {};
        },
      },
    });
  });

  function login(identity: Identity, session: number): ClientSession {
    const end = (code: number): void => void closed.push({ session, code });
    const connection = sessions.open({ remote: "test", queuedBytes: 0, together: null, send: () => true, end });
    connection.received(authOf(identity, session), true);
    return connection;
  }

  function authOf(identity: Identity, session: number): Uint8Array {
    const mac = nodeCrypto.sha256(new Uint8Array(0));
    return encodeAuth({ keys: publicKeysBytes(identity), session, mac, signature: null });
  }

  test("closes every connection of a flood, lets none of it in until its time is over, and agrees on no key with it", () => {
    const frame = encodeRequestFrame(new Uint8Array(64), new Uint8Array(256 * 1024));
    const polite = login(bob, 1);
    const flood = [login(alice, 1), login(alice, 2)];
    while (closed.length === 0 && nowMs < 10_000) {
      polite.received(encodeRequestFrame(new Uint8Array(64), new Uint8Array(100)), true);
      for (let at = 0; at < 4; at++) flood[at % 2]?.received(frame, true);
      nowMs += 50;
    }
    expect(closed).toEqual([1, 2].map((session) => ({ session, code: CLOSE_CODES.FLOOD })));
    expect(polite.closed).toBe(false);
    const before = { requests: requests.length, keysAgreed };
    flood[0]?.received(frame, true);
    const knock = login(alice, 3);
    nowMs += GATEWAY_LIMITS.handshakeMs - 1;
    watch();
    expect(knock.closed, "it would be back at once").toBe(false);
    nowMs++;
    watch();
    expect(knock.closed, "not before its time").toBe(true);
    expect({ requests: requests.length, keysAgreed }).toEqual(before);
    expect(closed.at(-1)).toEqual({ session: 3, code: CLOSE_CODES.FLOOD });
    const talkative = login(alice, 5);
    talkative.received(authOf(alice, 5), true);
    expect(talkative.closed, "says who it is once more").toBe(true);
    nowMs += 10_000;
    const again = login(alice, 4);
    again.received(frame, true);
    expect(again.closed).toBe(false);
    expect(requests).toHaveLength(before.requests + 1);
  });
});
