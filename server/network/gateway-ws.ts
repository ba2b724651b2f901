/**
 * The client gateway on ws and node:http (contract.ts), for platforms without a uWebSockets.js binary: moves bytes, the rules
 * are in client-session.ts.
 */
import { createServer, type IncomingMessage } from "node:http";
import { type WebSocket, WebSocketServer } from "ws";
import type { Carrier, ClientSessions } from "./client-session.ts";
import type { GatewayServer } from "./gateway-uws.ts";
import { type ListenAddress, listening } from "./listening.ts";

const SEND = { binary: true, compress: false, fin: true } as const;
/** How long clients may take to read a goodbye before their connections are cut. */
const GOODBYE_MS = 100;

class WsCarrier implements Carrier {
  readonly remote: string;
  readonly together = null;
  heard = true;
  readonly socket: WebSocket;
  readonly #queueBytesMax: number;

  constructor(socket: WebSocket, options: { remote: string; queueBytesMax: number }) {
    this.socket = socket;
    this.remote = options.remote;
    this.#queueBytesMax = options.queueBytesMax;
  }

  get queuedBytes(): number {
    return this.socket.bufferedAmount;
  }

  send(frame: Uint8Array): boolean {
    const waiting = this.socket.bufferedAmount;
    if (waiting > 0 && waiting + frame.length > this.#queueBytesMax) return false;
    this.socket.send(frame, SEND);
    return true;
  }

  end(code: number, reason: string): void {
    this.socket.close(code, reason);
  }
}

/** @throws QuorateError PORT_IN_USE, CONFIG_INVALID */
export async function openWsGateway(options: {
  sessions: ClientSessions;
  listen: ListenAddress;
  setting: string;
  socketsMax: number;
}): Promise<GatewayServer> {
  const { sessions } = options;
  const { limits } = sessions;
  const carriers = new Set<WsCarrier>();
  const server = createServer({ headersTimeout: limits.handshakeMs, requestTimeout: limits.handshakeMs });
  server.maxConnections = options.socketsMax;
  server.on("request", (_request, response) => {
    response.writeHead(426, { Upgrade: "websocket", Connection: "close" }).end("WebSocket only\n");
  });
  const webSockets = new WebSocketServer({
    noServer: true,
    maxPayload: limits.frameBytesMax,
    perMessageDeflate: false,
    clientTracking: false,
    skipUTF8Validation: true,
  });
  const accept = (socket: WebSocket, request: IncomingMessage): void => {
    const remote = request.socket.remoteAddress ?? "unknown";
    const carrier = new WsCarrier(socket, { remote, queueBytesMax: limits.queueBytesMax });
    carriers.add(carrier);
    const session = sessions.open(carrier);
    socket.on("message", (data: Buffer, isBinary: boolean) => {
      carrier.heard = true;
      session.received(data, isBinary);
    });
    socket.on("pong", () => {
      carrier.heard = true;
    });
    socket.on("error", (error: Error & { code?: string }) => session.gone(faultOf(error.code)));
    socket.on("close", () => {
      carriers.delete(carrier);
      session.gone(null);
    });
  };
  server.on("upgrade", (request, socket, head) => webSockets.handleUpgrade(request, socket, head, accept));
  const port = await listening(server, options);
  // An accept that fails (too many open files) ends nothing.
  server.on("error", () => sessions.fault("ACCEPT_FAILED", "unknown"));
  const watch = setInterval(() => dropIdle(carriers), limits.idleMs / 2);
  return {
    port,
    async close() {
      clearInterval(watch);
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      sessions.close();
      const cut = setTimeout(() => {
        for (const carrier of carriers) carrier.socket.terminate();
        server.closeAllConnections();
      }, GOODBYE_MS);
      await closed;
      clearTimeout(cut);
    },
  };
}

/** Runs twice within the idle time: who is not heard in one half is pinged, who is silent in the next too is cut. */
function dropIdle(carriers: ReadonlySet<WsCarrier>): void {
  for (const carrier of carriers) {
    if (carrier.heard) {
      carrier.heard = false;
      carrier.socket.ping();
    } else carrier.socket.terminate();
  }
}

function faultOf(code: string | undefined): string | null {
  if (code === "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH") return "FRAME_TOO_LARGE";
  return code?.startsWith("WS_ERR_") ? "WEBSOCKET_PROTOCOL" : null;
}
