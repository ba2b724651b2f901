/**
 * A Byzantine replica: the real server with parts that lie, as a process of its own. It holds the replica's real keys, so
 * whatever it says is authentic. What it may lie about is named on the command line:
 *
 *   lying-replica.ts --config FILE --lies results,replies,votes,status,history,garbage
 *
 * With `--lies donor` it lies to whoever fetches the state, in the way that `--donor-way` names (lying-donor.ts).
 */
import { parseArgs } from "node:util";
import { latin1 } from "../../protocol/bytes.ts";
import { decodeResult, encodeResult, type Result } from "../../protocol/commands.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { isRejection } from "../../protocol/errors.ts";
import {
  decodeMessage,
  encodeMessage,
  type Message,
  type MessageOf,
  statusStatement,
  writeStatement,
} from "../../protocol/messages.ts";
import { loadServerConfig, type ServerConfig } from "../../server/config.ts";
import { openLogger } from "../../server/logger.ts";
import type { ClientConnection, Gateway, Links } from "../../server/network/contract.ts";
import { type GatewayOptions, openGateway } from "../../server/network/gateway.ts";
import { openTcpLinks, type TcpLinksOptions } from "../../server/network/tcp-links.ts";
import { type ServerParts, startServer } from "../../server/server.ts";
import type { ExecutionContext, Service, ServiceFactory, ServiceState } from "../../server/service/contract.ts";
import { KvService, kvService } from "../../server/service/kv-service.ts";
import { DONOR_WAYS, type DonorWay, openLyingDonorLinks } from "./lying-donor.ts";
import { WrappedLinks } from "./wrapped-links.ts";

const SUBJECTS = ["results", "replies", "votes", "status", "history", "garbage", "donor"] as const;
/** What it lies about when nothing is named. */
const USUAL = SUBJECTS.filter((subject) => subject !== "donor");
type Subject = (typeof SUBJECTS)[number];
type Lies = ReadonlySet<string>;

const ABSURD = 2 ** 50;

function chance(percent: number): boolean {
  return Math.random() * 100 < percent;
}

function below(bound: number): number {
  return Math.floor(Math.random() * bound);
}

function pick<T>(choices: readonly T[]): T {
  return choices[below(choices.length)] as T;
}

/** A copy with one bit turned. */
function flipped(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes);
  const at = below(copy.length);
  if (copy.length > 0) copy[at] = (copy[at] as number) ^ (1 << below(8));
  return copy;
}

function noise(bytesMax: number): Uint8Array {
  return nodeCrypto.random(1 + below(bytesMax));
}

/** Keeps the right state and answers wrongly: results of the right shape, with valid MACs. */
class LyingService implements Service {
  readonly #inner: KvService;

  constructor(state: ServiceState) {
    this.#inner = new KvService(state);
  }

  load(key: string, value: Uint8Array): void {
    this.#inner.load(key, value);
  }

  execute(command: Uint8Array, context: ExecutionContext): Uint8Array {
    return wrongResult(this.#inner.execute(command, context));
  }

  query(command: Uint8Array): Uint8Array | null {
    const result = this.#inner.query(command);
    return result === null ? null : wrongResult(result);
  }

  grows(command: Uint8Array): boolean {
    return this.#inner.grows(command);
  }

  get revision(): number {
    return this.#inner.revision + below(3);
  }
}

function wrongResult(bytes: Uint8Array): Uint8Array {
  return chance(60) ? encodeResult(wrong(decodeResult(bytes))) : bytes;
}

function wrong(result: Result): Result {
  const revisions = { createRevision: 1, modRevision: 1 + below(1_000_000), version: 1 + below(1_000) };
  switch (result.type) {
    case "written":
      return chance(50) ? { type: "written", ...revisions } : { type: "conflict", modRevision: revisions.modRevision };
    case "found":
      return chance(50)
        ? { type: "absent", revision: 1 }
        : { type: "found", ...revisions, value: Buffer.from("999999:x") };
    case "absent":
      return { type: "found", ...revisions, value: Buffer.from("999999:x") };
    case "conflict":
      return { type: "written", ...revisions };
    case "page":
      return { ...result, entries: result.entries.slice(1), more: !result.more };
    default:
      return { type: "refused", code: "STORAGE_FULL", message: "there is no room, says the liar" };
  }
}

class LyingLinks extends WrappedLinks {
  readonly #config: ServerConfig;
  readonly #lies: Lies;
  readonly #signer: (data: Uint8Array) => Uint8Array;

  constructor(inner: Links & { readonly port: number }, config: ServerConfig, lies: Lies) {
    super(inner);
    this.#config = config;
    this.#lies = lies;
    this.#signer = nodeCrypto.signer(config.identity.signSeed);
  }

  send(peer: number, payload: Uint8Array): void {
    const message = decodeMessage(payload);
    const lies = isRejection(message) ? [] : this.#instead(message);
    for (const lie of lies) this.inner.send(peer, encodeMessage(lie));
    if (this.#lies.has("garbage") && chance(0.5)) this.inner.send(peer, noise(2_000));
  }

  #instead(message: Message): readonly Message[] {
    switch (message.type) {
      case "WRITE":
        return this.#lies.has("votes") ? this.#wrongWrites(message) : [message];
      case "ACCEPT": {
        if (!this.#lies.has("votes")) return [message];
        const other = { ...message, digest: latin1(nodeCrypto.random(32)) };
        return pick([[message], [other], [other, message], []]);
      }
      case "STATUS":
        return this.#lies.has("status") ? [this.#wrongStatus(message)] : [message];
      case "HISTORY":
        return this.#lies.has("history") ? [wrongHistory(message)] : [message];
      case "BATCH":
        return this.#lies.has("history") ? [{ ...message, batch: flipped(message.batch) }] : [message];
      case "FORWARD":
        return this.#lies.has("votes") ? [{ ...message, request: flipped(message.request) }] : [message];
      default:
        return [message];
    }
  }

  /** Signed for another batch, unsigned for the right one, both, for instances far ahead, in a regency far ahead, or none. */
  #wrongWrites(message: MessageOf<"WRITE">): readonly Message[] {
    const signed = (fields: Partial<MessageOf<"WRITE">>): MessageOf<"WRITE"> => {
      const write = { ...message, ...fields };
      const statement = { view: write.view, regency: write.regency, instance: write.instance, digest: write.digest };
      return { ...write, signature: this.#signer(writeStatement(this.#config.cluster.id, statement)) };
    };
    const other = signed({ digest: latin1(nodeCrypto.random(32)) });
    const forged = { ...message, signature: flipped(message.signature) };
    const ahead = signed({ instance: message.instance + pick([1, 2, 3, 100_000, ABSURD]) });
    const later = signed({ regency: 1 + below(1_000_000) });
    return pick([[other], [forged], [forged, message], [other, message], [ahead, later, forged], [ahead, message], []]);
  }

  #wrongStatus(message: MessageOf<"STATUS">): MessageOf<"STATUS"> {
    const { type, signature, ...statement } = message;
    const claims = pick([
      { ...statement, decided: ABSURD },
      { ...statement, decided: statement.decided + 1 + below(50), digest: latin1(nodeCrypto.random(32)) },
      { ...statement, digest: latin1(nodeCrypto.random(32)) },
      { ...statement, abstainingUntil: ABSURD },
      { ...statement, regency: 1 + below(1_000_000) },
      statement,
    ]);
    const proof = chance(70) ? this.#signer(statusStatement(this.#config.cluster.id, claims)) : flipped(signature);
    return { type, ...claims, signature: proof };
  }
}

function wrongHistory(message: MessageOf<"HISTORY">): MessageOf<"HISTORY"> {
  const { batches, proof } = message;
  const at = below(batches.length);
  const damaged = batches.map((batch, index) => (index === at ? flipped(batch) : batch));
  const votes = proof?.certificate.votes ?? [];
  const lies: MessageOf<"HISTORY">[] = [
    { ...message, batches: damaged },
    { ...message, batches: [] },
    { ...message, batches: batches.slice(1) },
    { ...message, proof: null },
    { ...message, from: message.from + 1 },
  ];
  if (proof) {
    const forged = votes.map((vote) => ({ ...vote, signature: flipped(vote.signature) }));
    const twice = votes.map(() => votes[0] ?? { replica: 0, signature: new Uint8Array(64) });
    lies.push({ ...message, proof: { ...proof, certificate: { ...proof.certificate, votes: forged } } });
    lies.push({ ...message, proof: { ...proof, certificate: { ...proof.certificate, votes: twice } } });
    lies.push({ ...message, proof: { ...proof, certificate: { ...proof.certificate, instance: ABSURD } } });
    lies.push({ ...message, proof: { ...proof, links: [] } });
  }
  return pick(lies);
}

/** Sends what it is given, and frames nobody asked for beside it. */
function lyingConnection(inner: ClientConnection): ClientConnection {
  return {
    id: inner.id,
    client: inner.client,
    session: inner.session,
    send(frame) {
      if (chance(1)) inner.send(noise(500));
      if (chance(1)) inner.send(flipped(frame));
      if (chance(20)) inner.send(frame);
      return chance(10) ? true : inner.send(frame);
    },
    together: null,
    turnedAway: (bytes) => inner.turnedAway(bytes),
    close: (code, reason) => inner.close(code, reason),
  };
}

async function openLyingGateway(options: GatewayOptions): Promise<Gateway> {
  const { events } = options;
  const inner = await openGateway({
    ...options,
    events: {
      ...events,
      onRequest: (connection, envelope, request) => events.onRequest(lyingConnection(connection), envelope, request),
    },
  });
  return {
    port: inner.port,
    get connections() {
      return inner.connections;
    },
    get queuedBytes() {
      return inner.queuedBytes;
    },
    connectionOf(client, session) {
      const connection = inner.connectionOf(client, session);
      return connection && lyingConnection(connection);
    },
    close: () => inner.close(),
  };
}

function partsOf(config: ServerConfig, lies: Lies, donorWay: string): Partial<ServerParts> {
  if (lies.has("donor")) {
    const way = DONOR_WAYS.find((known): known is DonorWay => known === donorWay);
    if (!way) throw new Error(`no donor lies like ${donorWay}; known are ${DONOR_WAYS.join(", ")}`);
    return { openLinks: (options) => openLyingDonorLinks(options, config, way) };
  }
  const openLinks = async (options: TcpLinksOptions): Promise<LyingLinks> =>
    new LyingLinks(await openTcpLinks(options), config, lies);
  return {
    openLinks,
    ...(lies.has("replies") ? { openGateway: openLyingGateway } : {}),
  };
}

function liesOf(text: string): Lies {
  const named = text.split(",");
  const unknown = named.find((name) => !SUBJECTS.includes(name as Subject));
  if (unknown !== undefined) throw new Error(`nobody can lie about ${unknown}; known are ${SUBJECTS.join(", ")}`);
  return new Set(named);
}

const { values } = parseArgs({
  options: { config: { type: "string" }, lies: { type: "string" }, "donor-way": { type: "string", default: "state" } },
});
const config = loadServerConfig(values.config ?? "", { env: {} });
const logger = openLogger({ level: config.logLevel, replica: config.replica });
const lies = liesOf(values.lies ?? USUAL.join(","));
const service: ServiceFactory = lies.has("results") ? (state) => new LyingService(state) : kvService;
const server = await startServer(config, logger, { service }, partsOf(config, lies, values["donor-way"]));
const stop = async (): Promise<void> => {
  await server.stop();
  process.exit(0);
};
process.on("SIGTERM", () => void stop());
process.stdin.on("end", () => void stop()).resume();
process.stdout.write(`ready replica=${config.replica} and lying\n`);
