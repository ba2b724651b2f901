/**
 * Opens the gateway clients connect to (contract.ts; docs/protocol.md sections 2, 3 and 8), on uWebSockets.js or, where that
 * has no binary, on ws: the same rules (client-session.ts), the same suite.
 */
import type { Digest } from "../../protocol/bytes.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { clientIdOf, type Identity, publicKeysFrom } from "../../protocol/identity.ts";
import {
  type Authenticate,
  authenticator,
  ClientSessions,
  GATEWAY_LIMITS,
  type GatewayLimits,
} from "./client-session.ts";
import type { Gateway, GatewayEvents } from "./contract.ts";
import { openUwsGateway } from "./gateway-uws.ts";
import { openWsGateway } from "./gateway-ws.ts";
import type { ListenAddress } from "./listening.ts";
import { socketBudget } from "./socket-budget.ts";
import { type Implementation, uwsFor } from "./uws.ts";

export interface UnauthenticatedGatewayOptions {
  readonly crypto: Crypto;
  readonly cluster: Digest;
  /** Id of the view named in HELLO: the one installed when the gateway opened. */
  readonly view: number;
  readonly replica: number;
  readonly listen: ListenAddress;
  readonly events: GatewayEvents;
  /** Default "auto". */
  readonly implementation?: Implementation;
  readonly limits?: Partial<GatewayLimits>;
  /** Connections open at a time, whoever holds them and whatever they have said; default `socketBudget`. */
  readonly socketsMax?: number;
}

export interface GatewayOptions extends UnauthenticatedGatewayOptions {
  readonly identity: Identity;
}

/**
 * The gateway of a replica: only clients that prove their keys, and that `events.admit` grants, get past AUTH.
 * @throws QuorateError PORT_IN_USE, CONFIG_INVALID; Error when "uws" is demanded and has no binary here
 */
export function openGateway(options: GatewayOptions): Promise<Gateway> {
  const { crypto, cluster, replica, identity, events } = options;
  const admit = (client: Digest): boolean => events.admit(client);
  const administers = (signKey: Uint8Array): boolean => events.administers?.(signKey) ?? false;
  return open(options, authenticator({ crypto, cluster, replica, identity, admit, administers }));
}

/**
 * The same gateway with an AUTH that anybody passes: the echo processes of the benchmark's fan-out limit. No configuration
 * leads here; a replica must never call it.
 * @throws QuorateError PORT_IN_USE, CONFIG_INVALID; Error when "uws" is demanded and has no binary here
 */
export function openUnauthenticatedGateway(options: UnauthenticatedGatewayOptions): Promise<Gateway> {
  return open(options, (auth) => ({ client: clientIdOf(options.crypto, publicKeysFrom(auth.keys)) }));
}

async function open(options: UnauthenticatedGatewayOptions, authenticate: Authenticate): Promise<Gateway> {
  const { crypto, cluster, replica, view, events, listen, socketsMax = socketBudget().clients } = options;
  const uws = await uwsFor(options.implementation ?? "auto");
  const limits = { ...GATEWAY_LIMITS, ...options.limits };
  const sessions = new ClientSessions({ crypto, cluster, replica, view, authenticate, events, limits });
  const setting = `clientPort of replica ${replica}`;
  try {
    const server = uws
      ? await openUwsGateway(uws, { sessions, listen, setting, socketsMax })
      : await openWsGateway({ sessions, listen, setting, socketsMax });
    let closing: Promise<void> | null = null;
    return {
      port: server.port,
      connectionOf: (client, session) => sessions.connectionOf(client, session),
      get connections() {
        return sessions.size;
      },
      get queuedBytes() {
        return sessions.queuedBytes;
      },
      close() {
        closing ??= server.close();
        return closing;
      },
    };
  } catch (error) {
    sessions.close();
    throw error;
  }
}
