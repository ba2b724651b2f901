/**
 * A Byzantine leader: the real server with real keys and parts that misbehave while it leads, as a process of its own. It is
 * correct until it gets SIGUSR2, so that there is a service to break and a pace to compare with.
 *
 *   lying-leader.ts --config FILE --way silent|equivocating|voting-twice|censoring|slow|garbage [--share S] [--victim CLIENT]
 *
 * silent: sends no PROPOSE and no SYNC. equivocating: half of the others get another batch, as valid as the first.
 * voting-twice: the same, and its vote for each. censoring: has never heard of the victim's requests. slow: each PROPOSE
 * and SYNC leaves S times the request timeout late. garbage: batches that decode to nothing, and noise between them.
 * In no way does it help to replace itself: it sends no STOP and no STOPDATA.
 */
import { parseArgs } from "node:util";
import { decodeBatch, encodeBatch, historyDigest } from "../../protocol/batch.ts";
import { type Digest, fromHex, latin1 } from "../../protocol/bytes.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { isRejection } from "../../protocol/errors.ts";
import {
  decodeMessage,
  encodeMessage,
  type Message,
  type MessageOf,
  type WriteStatement,
  writeStatement,
} from "../../protocol/messages.ts";
import { decodeRequest } from "../../protocol/request.ts";
import { loadServerConfig, type ServerConfig } from "../../server/config.ts";
import { openLogger } from "../../server/logger.ts";
import type { Links } from "../../server/network/contract.ts";
import { openGateway } from "../../server/network/gateway.ts";
import { openTcpLinks } from "../../server/network/tcp-links.ts";
import { type RunningServer, type ServerParts, startServer } from "../../server/server.ts";
import { kvService } from "../../server/service/kv-service.ts";
import { WrappedLinks } from "./wrapped-links.ts";

const WAYS = ["silent", "equivocating", "voting-twice", "censoring", "slow", "garbage"] as const;
type Way = (typeof WAYS)[number];

type Proposal = MessageOf<"PROPOSE"> | MessageOf<"SYNC">;

/** Does something else with a leader's messages; everything else is as in `inner`. */
interface Misconduct {
  /** What the peer gets instead of this message. */
  instead(peer: number, message: Message): readonly Uint8Array[];
  /** How late a proposal leaves. */
  readonly delayMs: number;
  /** Is a request of this client as if it had never arrived? */
  ignores(client: Digest): boolean;
}

const HONEST: Misconduct = {
  instead: (_peer, message) => [encodeMessage(message)],
  delayMs: 0,
  ignores: () => false,
};

function isProposal(message: Message): message is Proposal {
  return message.type === "PROPOSE" || message.type === "SYNC";
}

/** Another batch of the same requests: any replica that sees only it takes it for the leader's. */
function otherBatch(bytes: Uint8Array): Uint8Array {
  const { instance, timestampMs, requests } = decodeBatch(nodeCrypto, Uint8Array.from(bytes));
  return encodeBatch({ instance, timestampMs: timestampMs + 1, requests: requests.map((request) => request.bytes) });
}

/** Half of the others get the other batch and, when it votes twice, the leader's vote for that one instead of its own. */
class Equivocation implements Misconduct {
  readonly delayMs = 0;
  readonly #config: ServerConfig;
  readonly #votesTwice: boolean;
  readonly #previous: (instance: number) => Digest | null;
  readonly #others: readonly number[];
  /** The statement for the other batch, by instance. */
  readonly #otherVotes = new Map<number, WriteStatement>();

  constructor(config: ServerConfig, votesTwice: boolean, previous: (instance: number) => Digest | null) {
    this.#config = config;
    this.#votesTwice = votesTwice;
    this.#previous = previous;
    const others = config.cluster.view.members.map(({ id }) => id).filter((id) => id !== config.replica);
    this.#others = others.slice(Math.floor(others.length / 2));
  }

  ignores(): boolean {
    return false;
  }

  instead(peer: number, message: Message): readonly Uint8Array[] {
    if (!this.#others.includes(peer)) return [encodeMessage(message)];
    if (isProposal(message)) return [encodeMessage(this.#other(message))];
    if (message.type !== "WRITE" || !this.#votesTwice) return [encodeMessage(message)];
    const statement = this.#otherVotes.get(message.instance);
    if (!statement) return [encodeMessage(message)];
    const sign = nodeCrypto.signer(this.#config.identity.signSeed);
    const signature = sign(writeStatement(this.#config.cluster.id, statement));
    return [encodeMessage({ ...message, ...statement, signature })];
  }

  #other(message: Proposal): Proposal {
    const batch = otherBatch(message.batch);
    const { instance } = decodeBatch(nodeCrypto, Uint8Array.from(batch));
    const previous = this.#previous(instance);
    if (previous !== null) {
      const batchDigest = nodeCrypto.sha256(batch);
      const digest = historyDigest(nodeCrypto, { cluster: this.#config.cluster.id, instance, previous, batchDigest });
      this.#otherVotes.set(instance, { view: message.view, regency: message.regency, instance, digest });
    }
    return { ...message, batch };
  }
}

/** A batch that nobody can read, or no message at all. */
function garbage(message: Message): readonly Uint8Array[] {
  const noise = nodeCrypto.random(1 + Math.floor(Math.random() * 2_000));
  if (!isProposal(message)) return Math.random() < 0.05 ? [noise, encodeMessage(message)] : [encodeMessage(message)];
  return Math.random() < 0.2 ? [noise] : [encodeMessage({ ...message, batch: noise })];
}

function misconductOf(
  way: Way,
  about: { config: ServerConfig; share: number; victim: Digest; previous: (instance: number) => Digest | null },
): Misconduct {
  const { config, share, victim, previous } = about;
  switch (way) {
    case "silent":
      return { ...HONEST, instead: (_peer, message) => (isProposal(message) ? [] : [encodeMessage(message)]) };
    case "equivocating":
      return new Equivocation(config, false, previous);
    case "voting-twice":
      return new Equivocation(config, true, previous);
    case "censoring":
      return { ...HONEST, ignores: (client) => client === victim };
    case "slow":
      return { ...HONEST, delayMs: share * config.requestTimeoutMs };
    case "garbage":
      return { ...HONEST, instead: (_peer, message) => garbage(message) };
  }
}

class MisbehavingLinks extends WrappedLinks {
  readonly #conduct: () => Misconduct;

  constructor(inner: Links & { readonly port: number }, conduct: () => Misconduct) {
    super(inner);
    this.#conduct = conduct;
  }

  send(peer: number, payload: Uint8Array): void {
    const conduct = this.#conduct();
    const message = conduct === HONEST ? null : decodeMessage(Uint8Array.from(payload));
    if (message === null || isRejection(message)) {
      this.inner.send(peer, payload);
      return;
    }
    if (message.type === "STOP" || message.type === "STOPDATA") return;
    const payloads = conduct.instead(peer, message);
    if (conduct.delayMs === 0 || !isProposal(message)) {
      for (const one of payloads) this.inner.send(peer, one);
      return;
    }
    setTimeout(() => {
      for (const one of payloads) this.inner.send(peer, one);
      this.inner.flush();
    }, conduct.delayMs);
  }
}

function partsOf(conduct: () => Misconduct): Partial<ServerParts> {
  const ignored = (request: Uint8Array): boolean => {
    if (conduct() === HONEST) return false;
    return conduct().ignores(decodeRequest(nodeCrypto, Uint8Array.from(request)).client);
  };
  return {
    openLinks: async (options) => {
      const { events } = options;
      const onMessage = (from: number, payload: Uint8Array): void => {
        const message = decodeMessage(Uint8Array.from(payload));
        const forwarded = !isRejection(message) && message.type === "FORWARD" && ignored(message.request);
        if (!forwarded) events.onMessage(from, payload);
      };
      const links = await openTcpLinks({ ...options, events: { ...events, onMessage } });
      return new MisbehavingLinks(links, conduct);
    },
    openGateway: (options) => {
      const { events } = options;
      const onRequest: typeof events.onRequest = (connection, envelope, request) => {
        if (!ignored(request)) events.onRequest(connection, envelope, request);
      };
      return openGateway({ ...options, events: { ...events, onRequest } });
    },
  };
}

const { values } = parseArgs({
  options: {
    config: { type: "string" },
    way: { type: "string" },
    share: { type: "string", default: "0" },
    victim: { type: "string", default: "" },
  },
});
const way = WAYS.find((known) => known === values.way);
if (!way) throw new Error(`nobody can lead like that: ${values.way}; known are ${WAYS.join(", ")}`);
const config = loadServerConfig(values.config ?? "", { env: {} });
const logger = openLogger({ level: config.logLevel, replica: config.replica });
let server: RunningServer | null = null;
const previous = (instance: number): Digest | null => {
  const decided = server?.host.replica?.core.state.lastDecided;
  return decided?.instance === instance - 1 ? decided.digest : null;
};
const victim = latin1(fromHex(values.victim)) as Digest;
const misconduct = misconductOf(way, { config, share: Number(values.share), victim, previous });
let conduct = HONEST;
process.on("SIGUSR2", () => {
  conduct = misconduct;
  logger.info({ way }, "misbehaving from now on");
});
server = await startServer(
  config,
  logger,
  { service: kvService },
  partsOf(() => conduct),
);
const stop = async (): Promise<void> => {
  await server?.stop();
  process.exit(0);
};
process.on("SIGTERM", () => void stop());
process.stdin.on("end", () => void stop()).resume();
process.stdout.write(`ready replica=${config.replica} and not to be trusted\n`);
