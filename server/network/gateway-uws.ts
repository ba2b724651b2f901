/**
 * The client gateway on uWebSockets.js (contract.ts): moves bytes, the rules are in client-session.ts. The ArrayBuffer of a
 * message is detached when the handler returns, which is why `onRequest` promises its views during the call only.
 */
import type { Carrier, ClientSession, ClientSessions } from "./client-session.ts";
import type { ListenAddress } from "./listening.ts";
import { boundConnections, listenUws, type Uws, type UwsSocket } from "./uws.ts";

/** Room for a close frame behind a full queue. */
const CLOSE_FRAME_BYTES = 1_024;
/** How long clients may take to read a goodbye before their connections are cut. */
const GOODBYE_MS = 100;
/** The close code uWebSockets.js reports for whatever did not end with a close frame. */
const ABNORMAL = 1006;
const UWS_IDLE_SECONDS = { min: 8, max: 960 };

interface Data {
  session: ClientSession | null;
  carrier: UwsCarrier | null;
}

class UwsCarrier implements Carrier {
  readonly remote: string;
  readonly #socket: UwsSocket<Data>;
  readonly #queueBytesMax: number;
  /** Asking for the buffered amount costs a call into C++: only once something is buffered. */
  buffered = false;

  constructor(socket: UwsSocket<Data>, queueBytesMax: number) {
    this.#socket = socket;
    this.#queueBytesMax = queueBytesMax;
    this.remote = Buffer.from(socket.getRemoteAddressAsText()).toString("latin1");
  }

  get queuedBytes(): number {
    return this.buffered ? this.#socket.getBufferedAmount() : 0;
  }

  send(frame: Uint8Array): boolean {
    if (this.buffered && this.#socket.getBufferedAmount() + frame.length > this.#queueBytesMax) return false;
    const sent = this.#socket.send(frame, true, false);
    if (sent === 0) this.buffered = true;
    return sent !== 2;
  }

  readonly together = (send: () => void): void => this.#socket.cork(send);

  end(code: number, reason: string): void {
    this.#socket.end(code, reason);
  }
}

/** What a carrier implementation gives back to gateway.ts. */
export interface GatewayServer {
  readonly port: number;
  close(): Promise<void>;
}

/** @throws QuorateError PORT_IN_USE, CONFIG_INVALID */
export async function openUwsGateway(
  uws: Uws,
  options: { sessions: ClientSessions; listen: ListenAddress; setting: string; socketsMax: number },
): Promise<GatewayServer> {
  const { sessions } = options;
  const { limits } = sessions;
  const app = uws.App();
  const closed = boundConnections(app, options.socketsMax);
  app.any("/*", (response) => {
    response.writeStatus("426 Upgrade Required").writeHeader("Upgrade", "websocket").end("WebSocket only\n", true);
  });
  app.ws<Data>("/*", {
    maxPayloadLength: limits.frameBytesMax,
    maxBackpressure: limits.queueBytesMax + CLOSE_FRAME_BYTES,
    idleTimeout: Math.min(UWS_IDLE_SECONDS.max, Math.max(UWS_IDLE_SECONDS.min, Math.ceil(limits.idleMs / 1_000))),
    sendPingsAutomatically: true,
    compression: uws.DISABLED,
    upgrade(response, request, context) {
      const key = request.getHeader("sec-websocket-key");
      const protocol = request.getHeader("sec-websocket-protocol");
      const extensions = request.getHeader("sec-websocket-extensions");
      const data: Data = { session: null, carrier: null };
      response.upgrade(data, key, protocol, extensions, context);
    },
    open(socket) {
      const data = socket.getUserData();
      data.carrier = new UwsCarrier(socket, limits.queueBytesMax);
      data.session = sessions.open(data.carrier);
    },
    message(socket, message, isBinary) {
      socket.getUserData().session?.received(new Uint8Array(message), isBinary);
    },
    drain(socket) {
      const { carrier, session } = socket.getUserData();
      if (carrier && session && !session.closed) carrier.buffered = socket.getBufferedAmount() > 0;
    },
    close(socket, code, reason) {
      const why = code === ABNORMAL ? Buffer.from(reason).toString("latin1") : "";
      closed();
      socket.getUserData().session?.gone(faultOf(why));
    },
  });
  const listener = await listenUws(uws, app, options);
  return {
    port: listener.port,
    async close() {
      listener.stop();
      const anybody = sessions.size > 0;
      sessions.close();
      if (anybody) await new Promise((resolve) => setTimeout(resolve, GOODBYE_MS));
      app.close();
    },
  };
}

/** uWebSockets.js closes a connection itself on bad framing and names the reason in English. */
function faultOf(reason: string): string | null {
  if (reason.includes("too big")) return "FRAME_TOO_LARGE";
  if (reason.includes("nvalid")) return "WEBSOCKET_PROTOCOL";
  return null;
}
