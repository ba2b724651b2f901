/** What the intake does when there is no room, and with whom it shares its time (docs/protocol.md section 8). */
import { describe, expect, it } from "vitest";
import { Credentials } from "../../../client/credentials.ts";
import { utf8 } from "../../../protocol/bytes.ts";
import { decodeGatewayFrame, type Reply } from "../../../protocol/client-frames.ts";
import type { Cluster } from "../../../protocol/cluster.ts";
import type { Crypto } from "../../../protocol/crypto/contract.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { isRejection } from "../../../protocol/errors.ts";
import { newIdentity } from "../../../protocol/identity.ts";
import {
  BUSY_PER_CLIENT_MAX,
  BUSY_WINDOW_US,
  VERIFYING_MAX,
  WAITING_PER_CLIENT_MAX,
} from "../../../protocol/limits.ts";
import {
  decodeRequest,
  EVERYBODY,
  encodeEnvelope,
  encodeRequest,
  macAt,
  type Request,
  type RequestKind,
} from "../../../protocol/request.ts";
import { Authenticity } from "../../../server/authenticity.ts";
import type { Source } from "../../../server/consensus/client-queue.ts";
import { Intake } from "../../../server/intake.ts";
import { inThreadStage } from "../../../server/intake-stage/in-thread.ts";
import type { ClientConnection } from "../../../server/network/contract.ts";
import { CLUSTER, GENESIS, identityOf, viewOfSize } from "./fixture.ts";
import { EVERYBODY_KNOWN } from "./intake-requests.ts";

const cluster: Cluster = {
  id: CLUSTER,
  view: viewOfSize(4),
  genesis: GENESIS,
  clients: "open",
  signedRequests: false,
  maxClients: 100,
  origin: null,
};

/** Counts what costs time. */
class CountingCrypto {
  hashes = 0;
  macs = 0;
  readonly crypto: Crypto = {
    ...nodeCrypto,
    sha256: (bytes) => {
      this.hashes++;
      return nodeCrypto.sha256(bytes);
    },
    mac: (key, bytes) => {
      this.macs++;
      return nodeCrypto.mac(key, bytes);
    },
  };
}

class Client implements ClientConnection {
  readonly credentials = new Credentials(nodeCrypto, cluster, newIdentity(nodeCrypto));
  readonly client = this.credentials.client;
  readonly session = 1;
  readonly together = null;
  readonly replies: Reply[] = [];
  closed: string | null = null;
  readonly id: number;

  constructor(id: number) {
    this.id = id;
  }

  send(frame: Uint8Array): boolean {
    const reply = decodeGatewayFrame(Uint8Array.from(frame));
    if (isRejection(reply) || reply.type !== "REPLY") throw new Error("no REPLY");
    expect(this.credentials.verify(0, reply), "every answer is MACed").toBe(true);
    this.replies.push(reply);
    return true;
  }

  turnedAway(): void {}

  close(_code: number, reason: string): void {
    this.closed = reason;
  }

  request(sequence: number, kind: RequestKind = "ordered"): Request {
    const ids = { cluster: CLUSTER, client: this.client, session: 1, sequence };
    const commands = [utf8("a command")];
    return decodeRequest(nodeCrypto, encodeRequest({ ...ids, ackedBelow: 1, kind, deadlineMs: 0, commands }));
  }

  envelope(request: Request, signed = false): Uint8Array {
    const { macs, signature } = this.credentials.prove(request.digest, signed);
    const authenticator = signature
      ? ({ type: "signature", signature, mac: macAt(macs, 0) } as const)
      : ({ type: "vector", macs } as const);
    return encodeEnvelope({ view: 0, replier: EVERYBODY, keys: this.credentials.publicKeys, authenticator });
  }
}

class Bench {
  readonly counting = new CountingCrypto();
  readonly submitted: Request[] = [];
  readonly pending = new Set<string>();
  readonly asked: Source[] = [];
  readonly read: string[] = [];
  readonly verifying: (() => void)[] = [];
  room = true;
  nowUs = 0;
  turns = 0;
  resultBytes = 10;
  readonly intake: Intake;
  readonly authenticity: Authenticity;

  constructor() {
    const { crypto } = this.counting;
    const authenticity = new Authenticity({
      crypto,
      cluster,
      self: 0,
      identity: identityOf(0),
      known: EVERYBODY_KNOWN,
    });
    this.authenticity = authenticity;
    this.intake = new Intake({
      crypto,
      cluster,
      self: 0,
      authenticity,
      verifier: (checks, then) => this.verifying.push(() => then(checks.map(() => true))),
      openStage: inThreadStage,
      port: {
        accepting: () => true,
        behind: () => false,
        answersReads: () => true,
        permits: () => true,
        lookup: () => null,
        query: (request) => {
          this.read.push(request.client);
          return { result: new Uint8Array(this.resultBytes), revision: 1 };
        },
        refusesGrowth: () => false,
        leaves: () => true,
        refusal: () => null,
        administered: () => true,
        queue: {
          room: (_, source) => {
            this.asked.push(source);
            return this.room;
          },
          askedAgain: (key) => this.pending.has(key),
        },
        clock: { nowUs: () => this.nowUs, wallMs: () => 0 },
        turnDue: () => {
          this.turns++;
        },
        submit: (request) => {
          this.submitted.push(request);
        },
        misbehaved: (_client, code) => expect.unreachable(code),
        guard: (work) => work(),
        failed: (error) => expect.unreachable(String(error)),
      },
    });
  }

  receive(client: Client, request: Request, signed = false): void {
    // As its AUTH has taught this replica.
    this.authenticity.learn(client.client, client.credentials.publicKeys);
    this.intake.receive(client, client.envelope(request, signed), request.bytes);
    expect(client.closed).toBeNull();
  }
}

describe("intake without room (section 8)", () => {
  it("BUSY is MACed and bound to the request's digest; beyond the allowance nothing is computed at all", () => {
    const bench = new Bench();
    const client = new Client(1);
    bench.room = false;
    for (let sequence = 1; sequence <= BUSY_PER_CLIENT_MAX; sequence++) bench.receive(client, client.request(sequence));
    expect(client.replies.map(({ status }) => status)).toEqual(new Array(BUSY_PER_CLIENT_MAX).fill("BUSY"));
    expect(client.replies[0]?.requestDigest).toBe(client.request(1).digest);
    const { hashes, macs } = bench.counting;
    for (let sequence = 100; sequence < 200; sequence++) bench.receive(client, client.request(sequence));
    expect(bench.counting).toMatchObject({ hashes, macs });
    expect(client.replies).toHaveLength(BUSY_PER_CLIENT_MAX);
    expect(bench.intake.counts).toMatchObject({ busy: BUSY_PER_CLIENT_MAX, shed: 100, admitted: 0 });
    bench.nowUs += BUSY_WINDOW_US;
    bench.receive(client, client.request(200));
    expect(client.replies).toHaveLength(BUSY_PER_CLIENT_MAX + 1);
    expect(bench.submitted).toEqual([]);
  });

  it("what is pending already is not BUSY, and not submitted twice", () => {
    const bench = new Bench();
    const client = new Client(1);
    const request = client.request(1);
    bench.pending.add(request.key);
    bench.receive(client, request);
    bench.room = false;
    bench.receive(client, request);
    expect(client.replies).toEqual([]);
    expect(bench.submitted).toEqual([]);
  });

  it("RESOLVE is asked room for where requests cannot take it", () => {
    const bench = new Bench();
    const client = new Client(1);
    bench.receive(client, client.request(1));
    expect(new Set(bench.asked)).toEqual(new Set(["client"]));
    bench.asked.length = 0;
    bench.receive(client, client.request(2, "resolve"));
    expect(new Set(bench.asked)).toEqual(new Set(["reserved"]));
    expect(bench.submitted).toHaveLength(2);
  });
});

describe("the intake's time (section 8)", () => {
  it("reads beyond a turn's worth wait, bounded per client, and each client has its turn", () => {
    const bench = new Bench();
    bench.resultBytes = 256 * 1024;
    const [flooder, polite] = [new Client(1), new Client(2)];
    for (let sequence = 1; sequence <= 1_000; sequence++)
      bench.receive(flooder, flooder.request(sequence, "unordered"));
    const atOnce = bench.read.length;
    expect(atOnce).toBeLessThan(20);
    expect(bench.intake.readsWaiting).toBe(WAITING_PER_CLIENT_MAX);
    expect(bench.intake.counts).toMatchObject({ busy: BUSY_PER_CLIENT_MAX });
    bench.receive(polite, polite.request(1, "unordered"));
    expect(bench.turns).toBeGreaterThan(0);
    bench.intake.turn();
    const inTurn = bench.read.slice(atOnce);
    expect(inTurn.length).toBeLessThan(20);
    expect(inTurn).toContain(polite.client);
    while (bench.intake.readsWaiting > 0) bench.intake.turn();
    expect(polite.replies.map(({ status }) => status)).toEqual(["OK"]);
  });

  it("few signatures are in the thread pool at once; the rest waits for its client's turn, bounded", () => {
    const bench = new Bench();
    const [flooder, polite] = [new Client(1), new Client(2)];
    for (let sequence = 1; sequence <= 1_000; sequence++) bench.receive(flooder, flooder.request(sequence), true);
    expect(bench.verifying).toHaveLength(VERIFYING_MAX);
    expect(bench.intake.waiting).toBe(VERIFYING_MAX + WAITING_PER_CLIENT_MAX);
    bench.receive(polite, polite.request(1), true);
    for (let done = 0; done < 8; done++) bench.verifying.shift()?.();
    for (const done of bench.verifying.splice(0)) done();
    const order = bench.submitted.map(({ client }) => client);
    expect(order.indexOf(polite.client)).toBeGreaterThanOrEqual(0);
    while (bench.verifying.length > 0) bench.verifying.shift()?.();
    expect(bench.submitted).toHaveLength(VERIFYING_MAX + WAITING_PER_CLIENT_MAX + 1);
  });
});
