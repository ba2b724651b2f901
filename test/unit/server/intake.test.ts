/** What the intake makes of what its stage says (docs/protocol.md sections 2, 3 and 8), with a stage that says what it is told. */
import { beforeEach, describe, expect, test } from "vitest";
import { type Digest, EMPTY } from "../../../protocol/bytes.ts";
import { decodeGatewayFrame } from "../../../protocol/client-frames.ts";
import type { Cluster } from "../../../protocol/cluster.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { isRejection } from "../../../protocol/errors.ts";
import { WAITING_PER_CLIENT_MAX } from "../../../protocol/limits.ts";
import { decodeEnvelope, decodeRequest } from "../../../protocol/request.ts";
import { Authenticity } from "../../../server/authenticity.ts";
import { Intake } from "../../../server/intake.ts";
import type { Proof, StageOptions } from "../../../server/intake-stage/contract.ts";
import type { ClientConnection } from "../../../server/network/contract.ts";
import type { OrderedReply } from "../../../server/service/executor.ts";
import { threadPoolVerifier } from "../../../server/verifier.ts";
import { identityOf } from "./fixture.ts";
import { cluster, EVERYBODY_KNOWN, SELF, type Sent, TestClient, TestConnection } from "./intake-requests.ts";

let stage: StageOptions;
let roomInStage: boolean;
let accepting: boolean;
let behind: boolean;
let submitToStage: () => boolean;
let permitted: boolean;
/** What was executed before, and whether the application lets its answer go. */
let executed: boolean;
let leaves: boolean;
let submitted: string[];
let misbehaved: string[];

function intakeOf(of: Cluster = cluster): { intake: Intake; authenticity: Authenticity } {
  const authenticity = new Authenticity({
    crypto: nodeCrypto,
    cluster: of,
    self: SELF,
    identity: identityOf(SELF),
    known: EVERYBODY_KNOWN,
  });
  const intake = new Intake({
    crypto: nodeCrypto,
    cluster: of,
    self: SELF,
    authenticity,
    verifier: threadPoolVerifier,
    openStage: (options) => {
      stage = options;
      return { waiting: 0, submit: () => submitToStage(), close: () => Promise.resolve() };
    },
    port: {
      accepting: () => accepting,
      behind: () => behind,
      answersReads: () => true,
      permits: () => permitted,
      lookup: (request) =>
        executed ? { request, status: "OK", instance: 1, resultDigest: nodeCrypto.sha256(EMPTY), result: EMPTY } : null,
      leaves: () => leaves,
      refusal: () => null,
      query: () => null,
      refusesGrowth: () => false,
      queue: { room: () => true, askedAgain: () => false },
      clock: { nowUs: () => 0, wallMs: () => 0 },
      turnDue: () => undefined,
      administered: () => true,
      submit: (request) => submitted.push(`${request.session}.${request.sequence}`),
      misbehaved: (_client, code) => misbehaved.push(code),
      guard: (work) => work(),
      failed: () => undefined,
    },
  });
  return { intake, authenticity };
}

function judge(connection: TestConnection, { envelope, request }: Sent, proof: Proof): boolean {
  return stage.judged(connection, {
    request: decodeRequest(nodeCrypto, request),
    envelope: decodeEnvelope(envelope),
    envelopeBytes: envelope,
    proof,
  });
}

function answers(client: TestClient, connection: TestConnection): string[] {
  return connection.frames.map((frame) => {
    const reply = decodeGatewayFrame(frame);
    if (isRejection(reply) || reply.type !== "REPLY") throw new Error("no reply");
    expect(client.credentials.verify(SELF, reply)).toBe(true);
    return `${reply.sequence} ${reply.status}`;
  });
}

describe("the intake", () => {
  let client: TestClient;
  let connection: TestConnection;
  beforeEach(() => {
    roomInStage = true;
    accepting = true;
    behind = false;
    submitToStage = () => roomInStage;
    permitted = true;
    executed = false;
    leaves = true;
    submitted = [];
    misbehaved = [];
    client = new TestClient("a client");
    connection = new TestConnection(client.id);
  });

  test("hands over what is authentic, and ends the connection of whatever is not", () => {
    const { authenticity } = intakeOf();
    authenticity.learn(client.id, client.keys);
    expect(judge(connection, client.send(), "authentic")).toBe(true);
    expect(submitted).toEqual(["1.1"]);
    for (const [proof, code] of [
      ["unproven", "REQUEST_MAC"],
      ["forged", "REQUEST_SIGNATURE"],
    ] as const) {
      const liar = new TestConnection(client.id);
      expect(judge(liar, client.send({ signed: true }), proof)).toBe(false);
      expect(liar.closed).toBe(code);
    }
    const strange = new TestConnection(client.id);
    expect(judge(strange, client.send({ fields: { session: 2 } }), "authentic")).toBe(false);
    const foreign = new TestConnection(client.id);
    expect(judge(foreign, client.send({ fields: { cluster: client.id } }), "authentic")).toBe(false);
    expect(misbehaved).toEqual(["REQUEST_MAC", "REQUEST_SIGNATURE", "REQUEST_OWNER", "REQUEST_CLUSTER"]);
    expect(submitted).toEqual(["1.1"]);
  });

  test("advice comes before blame: an old view, MACs where a signature is due, a replica that stops", () => {
    const { authenticity } = intakeOf();
    authenticity.learn(client.id, client.keys);
    expect(judge(connection, client.send({ view: 7 }), "unproven")).toBe(true);
    authenticity.demandSignatures(client.id);
    expect(judge(connection, client.send(), "unproven")).toBe(true);
    expect(judge(connection, client.send({ signed: true }), "authentic")).toBe(true);
    accepting = false;
    expect(judge(connection, client.send(), "unproven")).toBe(true);
    expect(answers(client, connection)).toEqual(["1 NEWER_VIEW", "2 MUST_SIGN", "4 BUSY"]);
    expect(submitted).toEqual(["1.3"]);
    expect(connection.closed).toBeNull();
  });

  test("a replica far behind takes no ordered request: the log brings it; everything else it takes", () => {
    const { intake } = intakeOf();
    let submittedToStage = 0;
    submitToStage = () => ++submittedToStage > 0;
    behind = true;
    const { envelope, request } = client.send();
    intake.receive(connection, envelope, request);
    expect([submittedToStage, intake.counts.shed]).toEqual([0, 1]);
    const read = client.send({ fields: { kind: "unordered" } });
    intake.receive(connection, read.envelope, read.request);
    behind = false;
    intake.receive(connection, envelope, request);
    expect([submittedToStage, intake.counts.shed]).toEqual([2, 1]);
    expect(connection.frames).toEqual([]);
  });

  test("who lost his rights hears so, or what was executed before, if the application lets that go", () => {
    const { authenticity } = intakeOf();
    authenticity.learn(client.id, client.keys);
    permitted = false;
    judge(connection, client.send(), "authentic");
    executed = true;
    judge(connection, client.send(), "authentic");
    leaves = false;
    judge(connection, client.send(), "authentic");
    expect(answers(client, connection)).toEqual(["1 REFUSED", "2 OK"]);
    expect(submitted).toEqual([]);
  });

  test("reads that were in the stage while others were taken wait within the bound of their client (section 8)", () => {
    const { intake, authenticity } = intakeOf();
    authenticity.learn(client.id, client.keys);
    for (let count = 0; count < 5_000 && intake.counts.busy < 3; count++) {
      judge(connection, client.send({ fields: { kind: "unordered" } }), "authentic");
    }
    expect([intake.counts.busy, intake.readsWaiting]).toEqual([3, WAITING_PER_CLIENT_MAX]);
  });

  test("MACs never stand in for a signature that the cluster demands", () => {
    const { authenticity } = intakeOf({ ...cluster, signedRequests: true });
    authenticity.learn(client.id, client.keys);
    judge(connection, client.send(), "authentic");
    expect(answers(client, connection)).toEqual(["1 MUST_SIGN"]);
    expect(submitted).toEqual([]);
  });

  test("without room in its stage it says BUSY, to the client's own requests only (section 8)", () => {
    const { intake, authenticity } = intakeOf();
    authenticity.learn(client.id, client.keys);
    roomInStage = false;
    const { envelope, request } = client.send();
    intake.receive(connection, envelope, request);
    expect(answers(client, connection)).toEqual(["1 BUSY"]);
    expect(intake.counts.busy).toBe(1);
    expect(connection.away, "the gateway hears of it").toBe(request.length);
    const other = client.send({ fields: { session: 9 } });
    intake.receive(connection, other.envelope, other.request);
    expect(connection.closed).toBe("REQUEST_OWNER");
    const broken = new TestConnection(client.id);
    intake.receive(broken, envelope, request.subarray(1));
    expect(broken.closed).toBe("REQUEST_MAGIC");
    expect(misbehaved).toEqual(["REQUEST_OWNER", "REQUEST_MAGIC"]);
    expect(submitted).toEqual([]);
  });

  test("replies of a batch: those of one connection in one go and in their order, the rest at once", () => {
    const { intake, authenticity } = intakeOf();
    const other = new TestClient("another client");
    for (const each of [client, other]) authenticity.learn(each.id, each.keys);
    const apart = new TestConnection(other.id);
    const groups: string[][] = [];
    const corked: ClientConnection = {
      id: 0,
      client: client.id,
      session: 1,
      together(send) {
        const before = connection.frames.length;
        send();
        groups.push(answers(client, connection).slice(before));
      },
      send: (frame) => connection.send(frame),
      turnedAway: () => undefined,
      close: () => undefined,
    };
    const replyTo = ({ request }: Sent): OrderedReply => ({
      request: decodeRequest(nodeCrypto, request),
      status: "OK",
      instance: 1,
      resultDigest: nodeCrypto.sha256(EMPTY),
      result: EMPTY,
    });
    const port = {
      connectionOf: (id: Digest, session: number) => (session !== 1 ? undefined : id === client.id ? corked : apart),
      replierOf: () => SELF,
    };
    const gone = client.send({ fields: { session: 2, sequence: 9 } });
    intake.replies([client.send(), other.send(), gone, client.send(), other.send(), client.send()].map(replyTo), port);
    expect(groups).toEqual([["2 OK", "3 OK", "4 OK"]]);
    expect(answers(other, apart)).toEqual(["1 OK", "2 OK"]);
    intake.replies([replyTo(client.send())], port);
    expect(answers(client, connection).at(-1), "one alone needs no cork").toBe("5 OK");
    expect(groups.length).toBe(1);
  });
});
