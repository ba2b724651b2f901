/**
 * What every stage of the intake must do (server/intake-stage/contract.ts): the same outcomes for the same bytes, in the order of
 * each connection, within the same bounds, wherever it works.
 */
import { afterEach, describe, expect, test } from "vitest";
import { utf8 } from "../../../protocol/bytes.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { isRejection } from "../../../protocol/errors.ts";
import { INTAKE_BYTES_PER_CLIENT_MAX, REQUEST_BYTES_MAX } from "../../../protocol/limits.ts";
import { decodeRequest } from "../../../protocol/request.ts";
import { Authenticity } from "../../../server/authenticity.ts";
import type { IntakeStage, OpenIntakeStage, Outcome } from "../../../server/intake-stage/contract.ts";
import type { ClientConnection } from "../../../server/network/contract.ts";
import { threadPoolVerifier } from "../../../server/verifier.ts";
import { identityOf } from "./fixture.ts";
import { cluster, EVERYBODY_KNOWN, SELF, type Sent, TestClient, TestConnection } from "./intake-requests.ts";

/** Long enough to be handed over without a signature, where there is somebody to hand it to. */
const LARGE = { commands: [new Uint8Array(20 * 1024)] };

/** What came out for one connection, in words. */
function wordOf(outcome: Outcome): string {
  if (isRejection(outcome)) return `${outcome.action} ${outcome.code}`;
  const { request, envelope, proof } = outcome;
  return `${request.sequence} ${proof} ${envelope.authenticator.type} in ${envelope.view}`;
}

/** A stage, and all that comes out of it. */
class Harness {
  readonly stage: IntakeStage;
  readonly outcomes: { readonly connection: ClientConnection; readonly outcome: Outcome }[] = [];
  readonly failures: Error[] = [];
  readonly authenticity = new Authenticity({
    crypto: nodeCrypto,
    cluster,
    self: SELF,
    identity: identityOf(SELF),
    known: EVERYBODY_KNOWN,
  });
  /** What `judged` says to go on. */
  goesOn: (outcome: Outcome) => boolean = () => true;
  #wake: () => void = () => {};

  constructor(open: OpenIntakeStage) {
    this.stage = open({
      crypto: nodeCrypto,
      cluster: cluster.id,
      position: () => this.authenticity.position,
      keysOf: (client, given) => this.authenticity.keysOf(client, given),
      verifier: threadPoolVerifier,
      guard: (work) => work(),
      judged: (connection, outcome) => {
        this.outcomes.push({ connection, outcome });
        const goesOn = this.goesOn(outcome);
        this.#wake();
        return goesOn;
      },
      failed: (error) => {
        this.failures.push(error);
        this.#wake();
      },
    });
  }

  /** A client whose AUTH was seen, as of every connection. */
  connect(client: TestClient): TestConnection {
    this.authenticity.learn(client.id, client.keys);
    return new TestConnection(client.id);
  }

  submit(connection: TestConnection, { envelope, request }: Sent): boolean {
    // As from a gateway: gone when the call returns.
    const views = [Uint8Array.from(envelope), Uint8Array.from(request)] as const;
    const taken = this.stage.submit(connection, ...views);
    for (const view of views) view.fill(0xff);
    return taken;
  }

  async until(met: () => boolean): Promise<void> {
    while (!met()) {
      if (this.failures[0]) throw this.failures[0];
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async words(count: number): Promise<string[]> {
    await this.until(() => this.outcomes.length >= count);
    return this.outcomes.map(({ outcome }) => wordOf(outcome));
  }
}

/** Every kind of request, by what it is, in the order in which it is sent; each from a client and connection of its own. */
function kinds(): [name: string, client: TestClient, sent: Sent, word: string][] {
  const of = (name: string, send: (client: TestClient) => Sent, word: string): ReturnType<typeof kinds>[number] => {
    const client = new TestClient(name);
    return [name, client, send(client), word];
  };
  const other = new TestClient("somebody else");
  const cut = (bytes: Uint8Array, by: number): Uint8Array => bytes.subarray(0, bytes.length - by);
  const grown = (bytes: Uint8Array, by: number): Uint8Array => Buffer.concat([bytes, new Uint8Array(by)]);
  return [
    of("MACs", (c) => c.send(), "1 authentic vector in 0"),
    of("signature", (c) => c.send({ signed: true }), "1 authentic signature in 0"),
    of("MACs and keys", (c) => c.send({ keys: true }), "1 authentic vector in 0"),
    of("signature and keys", (c) => c.send({ signed: true, keys: true }), "1 authentic signature in 0"),
    of("several commands", (c) => c.send({ fields: { commands: [utf8("a"), utf8("b")] } }), "1 authentic vector in 0"),
    of("large", (c) => c.send({ fields: LARGE }), "1 authentic vector in 0"),
    of("large and signed", (c) => c.send({ fields: LARGE, signed: true, keys: true }), "1 authentic signature in 0"),
    of("large with wrong MACs", (c) => c.send({ fields: LARGE, spoil: "mac" }), "1 unproven vector in 0"),
    of("large and changed", (c) => c.send({ fields: LARGE, spoil: "request" }), "1 unproven vector in 0"),
    of(
      "large and cut",
      (c) => ({ ...c.send(), request: cut(c.send({ fields: LARGE }).request, 3) }),
      "punish TRUNCATED",
    ),
    of("a read", (c) => c.send({ fields: { kind: "unordered" } }), "1 authentic vector in 0"),
    of("wrong MACs", (c) => c.send({ spoil: "mac" }), "1 unproven vector in 0"),
    of("a signature behind a wrong MAC", (c) => c.send({ signed: true, spoil: "mac" }), "1 unproven signature in 0"),
    of("a forged signature", (c) => c.send({ signed: true, spoil: "signature" }), "1 forged signature in 0"),
    of("a changed request", (c) => c.send({ spoil: "request" }), "1 unproven vector in 0"),
    of("a changed signed request", (c) => c.send({ signed: true, spoil: "request" }), "1 unproven signature in 0"),
    of("MACs under another view", (c) => c.send({ view: 7 }), "1 unproven vector in 7"),
    of("in the name of another client", (c) => c.send({ fields: { client: other.id } }), "1 unproven vector in 0"),
    of("for another cluster", (c) => c.send({ fields: { cluster: other.id } }), "1 authentic vector in 0"),
    of("no request", () => ({ envelope: other.send().envelope, request: utf8("nonsense") }), "punish REQUEST_MAGIC"),
    of("no bytes", () => ({ envelope: new Uint8Array(0), request: new Uint8Array(0) }), "punish TRUNCATED"),
    of("a cut request", (c) => ({ ...c.send(), request: cut(c.send().request, 3) }), "punish TRUNCATED"),
    of("a longer request", (c) => ({ ...c.send(), request: grown(c.send().request, 1) }), "punish TRAILING_BYTES"),
    of("a cut envelope", (c) => ({ ...c.send(), envelope: cut(c.send().envelope, 1) }), "punish TRUNCATED"),
    of("a longer envelope", (c) => ({ ...c.send(), envelope: grown(c.send().envelope, 1) }), "punish TRAILING_BYTES"),
    of("acked above its number", (c) => c.send({ fields: { ackedBelow: 9 } }), "punish REQUEST_ACKED"),
    of("no commands", (c) => c.send({ fields: { commands: [] } }), "punish REQUEST_COMMANDS"),
    of(
      "too long",
      (c) => ({ ...c.send(), request: new Uint8Array(REQUEST_BYTES_MAX + 1) }),
      "punish REQUEST_TOO_LARGE",
    ),
  ];
}

/** `signedPerClientMax`: signed requests of one client that wait at once. */
export function intakeStageContract(name: string, open: OpenIntakeStage, signedPerClientMax: number): void {
  let harness: Harness | null = null;
  const started = (): Harness => {
    harness = new Harness(open);
    return harness;
  };
  afterEach(async () => {
    await harness?.stage.close();
    expect(harness?.failures ?? []).toEqual([]);
    harness = null;
  });

  describe(`a stage of the intake: ${name}`, () => {
    test("says the same of every kind of request", async () => {
      const stage = started();
      const all = kinds();
      const connections = all.map(([, client, sent]) => {
        const connection = stage.connect(client);
        expect(stage.submit(connection, sent)).toBe(true);
        return connection;
      });
      await stage.words(all.length);
      const words = connections.map((connection) =>
        stage.outcomes.filter((one) => one.connection === connection).map(({ outcome }) => wordOf(outcome)),
      );
      expect(Object.fromEntries(all.map(([what], at) => [what, words[at]]))).toEqual(
        Object.fromEntries(all.map(([what, , , word]) => [what, [word]])),
      );
      expect(stage.stage.waiting).toBe(0);
    });

    test("gives back what was sent, with its digest, in memory of its own", async () => {
      const stage = started();
      const client = new TestClient("a client");
      const sent = client.send({ signed: true, keys: true, fields: { commands: [utf8("one"), utf8("two")] } });
      stage.submit(stage.connect(client), sent);
      await stage.words(1);
      const outcome = stage.outcomes[0]?.outcome;
      if (!outcome || isRejection(outcome)) throw new Error("no outcome");
      const { request, envelopeBytes } = outcome;
      expect(Buffer.from(request.bytes)).toEqual(Buffer.from(sent.request));
      expect(Buffer.from(envelopeBytes)).toEqual(Buffer.from(sent.envelope));
      expect(request.digest).toBe(nodeCrypto.sha256(sent.request));
      expect(request.commands.map((command) => Buffer.from(command).toString())).toEqual(["one", "two"]);
      expect(request.client).toBe(client.id);
      expect(request.key).toContain("1.1");
    });

    test("keeps the order of every connection, whatever takes longer", async () => {
      const stage = started();
      const clients = ["a", "b", "c"].map((each) => new TestClient(each));
      // Two connections of each client.
      const lines = clients.flatMap((client) => [client, client].map((who) => ({ who, on: stage.connect(who) })));
      const sent = new Map<TestConnection, string[]>(lines.map(({ on }) => [on, []]));
      const ROUNDS = 60;
      for (let round = 0; round < ROUNDS; round++) {
        for (const { who, on } of lines) {
          const signed = (round + on.id) % 3 === 0;
          const spoil = round % 10 === 9 ? (signed ? "signature" : "mac") : undefined;
          const fields = (round + on.id) % 7 === 0 ? LARGE : {};
          const one = who.send(spoil ? { signed, spoil, fields } : { signed, fields });
          const proof = spoil ? (signed ? "forged" : "unproven") : "authentic";
          sent.get(on)?.push(`${sequenceOf(one)} ${proof} ${signed ? "signature" : "vector"} in 0`);
          expect(stage.submit(on, one)).toBe(true);
        }
        // Some arrive together, some in turns of their own.
        if (round % 4 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      await stage.words(ROUNDS * lines.length);
      for (const { on } of lines) {
        const words = stage.outcomes
          .filter(({ connection }) => connection === on)
          .map(({ outcome }) => wordOf(outcome));
        expect(words).toEqual(sent.get(on));
      }
      expect(stage.stage.waiting).toBe(0);
    });

    test("a connection that is ended is judged no further, and nobody else is held up", async () => {
      const stage = started();
      const [liar, honest] = [new TestClient("liar"), new TestClient("honest")];
      const ended = stage.connect(liar);
      const other = stage.connect(honest);
      stage.goesOn = (outcome) => isRejection(outcome) || outcome.proof === "authentic";
      for (let count = 0; count < 5; count++) {
        stage.submit(ended, liar.send({ signed: true, ...(count === 1 ? { spoil: "signature" } : {}) }));
        stage.submit(other, honest.send({ signed: true }));
      }
      await stage.until(() => stage.stage.waiting === 0);
      const of = (one: TestConnection): string[] =>
        stage.outcomes.filter(({ connection }) => connection === one).map(({ outcome }) => wordOf(outcome));
      expect(of(ended)).toEqual(["1 authentic signature in 0", "2 forged signature in 0"]);
      expect(of(other)).toHaveLength(5);
    });

    test("a client unknown to this replica proves nothing unless its envelope has its keys", async () => {
      const stage = started();
      const [keyless, strange, low] = [new TestClient("keyless"), new TestClient("strange"), new TestClient("low")];
      const submitUnseen = (client: TestClient, sent: Sent): void => {
        stage.submit(new TestConnection(client.id), sent);
      };
      submitUnseen(keyless, keyless.send());
      submitUnseen(strange, strange.send({ keys: true }));
      // Keys of somebody else do not become a client's own.
      const borrowed = new TestClient("borrowed");
      const { request } = low.send();
      submitUnseen(low, { envelope: borrowed.send({ keys: true }).envelope, request });
      expect((await stage.words(3)).sort()).toEqual([
        "1 authentic vector in 0",
        "1 unproven vector in 0",
        "1 unproven vector in 0",
      ]);
      // And are known from then on, to this thread as well: replies need them.
      expect(stage.authenticity.keysOf(strange.id, null)).not.toBeNull();
      expect(stage.authenticity.keysOf(keyless.id, null)).toBeNull();
    });

    test("takes no more of one client than its bound, and of others still (section 8)", async () => {
      const stage = started();
      const [flood, calm] = [new TestClient("flood"), new TestClient("calm")];
      const connection = stage.connect(flood);
      const one = flood.send({ signed: true });
      let taken = 0;
      while (stage.submit(connection, one)) taken++;
      expect(taken).toBe(signedPerClientMax);
      expect(stage.stage.waiting).toBe(taken);
      expect(stage.submit(stage.connect(calm), calm.send({ signed: true }))).toBe(true);
      await stage.words(taken + 1);
      // There is room again.
      expect(stage.submit(connection, one)).toBe(true);
      await stage.words(taken + 2);
    });

    test("takes no more bytes of one client than its bound", async () => {
      const stage = started();
      const client = new TestClient("large");
      const connection = stage.connect(client);
      const one = client.send({ signed: true, fields: { commands: [new Uint8Array(1024 * 1024)] } });
      let taken = 0;
      while (stage.submit(connection, one)) taken++;
      expect(taken).toBe(Math.floor(INTAKE_BYTES_PER_CLIENT_MAX / (one.envelope.length + one.request.length)));
      expect(new Set(await stage.words(taken))).toEqual(new Set(["1 authentic signature in 0"]));
    });

    test("what waits when it is closed is let go", async () => {
      const stage = started();
      const client = new TestClient("late");
      const connection = stage.connect(client);
      for (let count = 0; count < 50; count++) stage.submit(connection, client.send());
      await stage.stage.close();
      const judged = stage.outcomes.length;
      await new Promise((resolve) => setTimeout(resolve, 50));
      expect(stage.outcomes.length).toBe(judged);
    });
  });
}

function sequenceOf({ request }: Sent): number {
  return decodeRequest(nodeCrypto, request).sequence;
}
