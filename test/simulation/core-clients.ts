/**
 * The clients of a core cluster, with what an intake would do for them (server/intake.ts). Correct ones ask everybody,
 * again and again, and sign once W replicas demand it. Byzantine ones send authenticators that are good at some replicas
 * only, two payloads under one sequence, old requests again, and signatures that are none. In the malicious fault model all sign.
 */
import { bytesOf, type Digest, utf8 } from "../../protocol/bytes.ts";
import type { SignatureCheck } from "../../protocol/certificate.ts";
import { decoded, isRejection } from "../../protocol/errors.ts";
import {
  AUTHENTICATOR_BYTES,
  decodeEnvelope,
  decodeRequest,
  encodeEnvelope,
  encodeRequest,
  macAt,
  type Request,
  requestStatement,
} from "../../protocol/request.ts";
import type { FaultModel } from "../../protocol/view.ts";
import type { RunObserver } from "./checkers/events.ts";
import type { CoreCluster } from "./core-cluster.ts";
import { CLUSTER, type SimulatedReplica } from "./core-replica.ts";
import { fastCrypto, fastPublicKey } from "./fast-crypto.ts";
import type { Random } from "./random.ts";

const BYZANTINE_KEPT_MAX = 32;
const BAD_MAC = "x".repeat(AUTHENTICATOR_BYTES);

interface Client {
  readonly id: Digest;
  readonly signKey: Uint8Array;
  readonly sign: (data: Uint8Array) => Uint8Array;
}

function clientNamed(name: string): Client {
  const seed = bytesOf(fastCrypto.sha256(utf8(`client ${name}`)));
  return { id: fastCrypto.sha256(seed), signKey: fastPublicKey(seed), sign: fastCrypto.signer(seed) };
}

/** What only this client and the replica at `position` could compute: here, a part of the request's digest. */
function macOf(request: Request, position: number): string {
  return request.digest.slice(position % 16, (position % 16) + AUTHENTICATOR_BYTES);
}

function vector(request: Request, n: number, goodAt: (position: number) => boolean): Uint8Array {
  const macs = Array.from({ length: n }, (_, at) => (goodAt(at) ? macOf(request, at) : BAD_MAC)).join("");
  return encodeEnvelope({ view: 0, replier: 0, keys: null, authenticator: { type: "vector", macs } });
}

function signed(request: Request, client: Client): Uint8Array {
  const signature = client.sign(requestStatement(CLUSTER, 0, request.digest));
  return encodeEnvelope({
    view: 0,
    replier: 0,
    keys: null,
    authenticator: { type: "signature", signature, mac: BAD_MAC },
  });
}

interface Sent {
  readonly request: Request;
  readonly envelope: Uint8Array;
}

export class CoreClients {
  /** Requests of correct clients: each must be executed in the end. */
  readonly honest: Request[] = [];
  readonly #byzantine: Sent[] = [];
  readonly #random: Random;
  readonly #signs: boolean;
  readonly #observers: readonly RunObserver[];
  readonly #correct: readonly Client[];
  readonly #liar = clientNamed("liar");
  readonly #byId: ReadonlyMap<Digest, Client>;
  #sequence = 0;
  #falseSequence = 0;

  constructor(random: Random, observers: readonly RunObserver[], faultModel: FaultModel) {
    this.#random = random;
    this.#signs = faultModel === "malicious";
    this.#observers = observers;
    this.#correct = [clientNamed("0"), clientNamed("1")];
    this.#byId = new Map([...this.#correct, this.#liar].map((client) => [client.id, client]));
  }

  /** The core's question about an envelope. */
  readonly authentic = (replica: number, request: Request, bytes: Uint8Array): boolean | SignatureCheck => {
    const envelope = decoded(() => decodeEnvelope(bytes));
    const client = this.#byId.get(request.client);
    if (isRejection(envelope) || !client) return false;
    const { authenticator } = envelope;
    if (authenticator.type === "vector") {
      return !this.#signs && macAt(authenticator.macs, replica) === macOf(request, replica);
    }
    const statement = Uint8Array.from(requestStatement(CLUSTER, 0, request.digest));
    return { publicKey: client.signKey, statement, signature: authenticator.signature };
  };

  /** A correct client issues a request; what it sends at first may not reach everybody. */
  issue(cluster: CoreCluster): void {
    const client = this.#random.pick(this.#correct);
    const sequence = ++this.#sequence;
    const request = this.#request(client, sequence, `put ${sequence}`);
    this.honest.push(request);
    this.#send(cluster, request, this.#random.chance(0.3) ? 0.6 : 1);
  }

  /** Correct clients ask again for whatever is not executed everywhere. */
  resend(cluster: CoreCluster): void {
    for (const request of this.honest) this.#send(cluster, request, 1);
  }

  isExecuted(replica: SimulatedReplica): boolean {
    return this.honest.every((request) => replica.executedKeys.has(request.key));
  }

  #send(cluster: CoreCluster, request: Request, reach: number): void {
    const client = this.#byId.get(request.client) as Client;
    const demanding = cluster.replicas.filter((replica) => replica.demoted.has(request.client)).length;
    const mustSign = this.#signs || demanding >= cluster.view.weakQuorum;
    const envelope = mustSign ? signed(request, client) : vector(request, cluster.view.n, () => true);
    for (const replica of cluster.replicas)
      if (reach === 1 || this.#random.chance(reach)) this.#submit(cluster, replica, { request, envelope });
  }

  #request(client: Client, sequence: number, text: string): Request {
    const bytes = encodeRequest({
      cluster: CLUSTER,
      client: client.id,
      session: 1,
      sequence,
      ackedBelow: 1,
      kind: "ordered",
      deadlineMs: 0,
      commands: [utf8(text)],
    });
    const request = decodeRequest(fastCrypto, bytes);
    for (const observer of this.#observers) observer.issued?.({ client: client.id, request });
    return request;
  }

  /** What an intake lets through: nothing executed, nothing unproven. */
  #submit(cluster: CoreCluster, replica: SimulatedReplica, { request, envelope }: Sent): void {
    if (!replica.up || replica.executedKeys.has(request.key)) return;
    const verdict = this.authentic(replica.id, request, envelope);
    if (verdict === false || (verdict === true && replica.demoted.has(request.client))) return;
    if (typeof verdict === "object" && !fastCrypto.verify(verdict.publicKey, verdict.statement, verdict.signature))
      return;
    cluster.input(replica, { type: "request", request, envelope, replier: 0 });
  }

  // ---- the Byzantine client

  lie(cluster: CoreCluster): void {
    const random = this.#random;
    const { n } = cluster.view;
    const sequence =
      random.chance(0.6) || this.#falseSequence === 0 ? ++this.#falseSequence : 1 + random.below(this.#falseSequence);
    const { replicas } = cluster;
    const first = this.#request(this.#liar, sequence, `first ${sequence}`);
    switch (random.below(5)) {
      case 0: {
        const good = new Set(replicas.filter(() => random.chance(0.5)).map((replica) => replica.id));
        this.#some(cluster, first, good);
        return;
      }
      case 1: {
        const second = this.#request(this.#liar, sequence, `second ${sequence}`);
        for (const replica of replicas) {
          const request = random.chance(0.5) ? first : second;
          const envelope = this.#signs ? signed(request, this.#liar) : vector(request, n, () => true);
          this.#keep(cluster, replica, { request, envelope });
        }
        return;
      }
      case 2:
        if (this.#byzantine.length > 0) this.#everywhere(cluster, random.pick(this.#byzantine));
        return;
      case 3: {
        const only = random.pick(replicas);
        if (this.#signs) this.#some(cluster, first, new Set([only.id]));
        else this.#keep(cluster, only, { request: first, envelope: vector(first, n, (at) => at === only.id) });
        return;
      }
      default: {
        const signature = fastCrypto.sha256(utf8(`no signature ${sequence}`));
        const none = signed(first, { ...this.#liar, sign: () => bytesOf(signature + signature) });
        this.#everywhere(cluster, { request: first, envelope: random.chance(0.5) ? none : signed(first, this.#liar) });
      }
    }
  }

  /** Good at these replicas only; a signature is good everywhere, so the others do not get it. */
  #some(cluster: CoreCluster, request: Request, good: ReadonlySet<number>): void {
    if (!this.#signs) {
      this.#everywhere(cluster, { request, envelope: vector(request, cluster.view.n, (at) => good.has(at)) });
      return;
    }
    const sent = { request, envelope: signed(request, this.#liar) };
    for (const replica of cluster.replicas) if (good.has(replica.id)) this.#keep(cluster, replica, sent);
  }

  #everywhere(cluster: CoreCluster, sent: Sent): void {
    for (const replica of cluster.replicas) this.#keep(cluster, replica, sent);
  }

  #keep(cluster: CoreCluster, replica: SimulatedReplica, sent: Sent): void {
    if (this.#byzantine.length < BYZANTINE_KEPT_MAX) this.#byzantine.push(sent);
    this.#submit(cluster, replica, sent);
  }
}
