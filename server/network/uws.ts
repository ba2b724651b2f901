/**
 * uWebSockets.js, loaded where its binary runs, and the part of its interface used here. Every server listens
 * exclusively: without that option a second process could share the port and take half of the connections.
 */
import { createServer } from "node:net";
import { type ListenOptions, listenError, listening } from "./listening.ts";

/** An ArrayBuffer handed to a handler is detached when the handler returns: copy what is kept. */
export interface UwsSocket<Data> {
  /** 1 sent, 0 buffered, 2 dropped because more than `maxBackpressure` is buffered. Throws once the socket is closed. */
  send(message: Uint8Array, isBinary: boolean, compress: boolean): number;
  getBufferedAmount(): number;
  /** What is sent while `send` runs leaves in one write. What that cannot take, 16 KiB at most, shows with the next `send` only. */
  cork(send: () => void): void;
  /** Sends a close frame behind what is buffered. Calls the close handler at once. */
  end(code: number, reason: string): void;
  getRemoteAddressAsText(): ArrayBuffer;
  getUserData(): Data;
}

export interface UwsResponse {
  writeStatus(status: string): UwsResponse;
  writeHeader(name: string, value: string): UwsResponse;
  end(body?: string | Uint8Array, closeConnection?: boolean): UwsResponse;
  onAborted(handler: () => void): UwsResponse;
  /** Chunks of the body, valid during the call. */
  onData(handler: (chunk: ArrayBuffer, isLast: boolean) => void): UwsResponse;
  cork(send: () => void): UwsResponse;
  upgrade<Data>(data: Data, key: string, protocol: string, extensions: string, context: unknown): void;
  /** Closes the connection at once. */
  close(): UwsResponse;
}

export interface UwsRequest {
  getMethod(): string;
  getUrl(): string;
  /** Undefined where there is no question mark. */
  getQuery(): string | undefined;
  getHeader(lowerCaseName: string): string;
}

export interface UwsBehavior<Data> {
  readonly maxPayloadLength: number;
  readonly maxBackpressure: number;
  readonly idleTimeout: number;
  readonly sendPingsAutomatically: boolean;
  readonly compression: number;
  upgrade(response: UwsResponse, request: UwsRequest, context: unknown): void;
  open(socket: UwsSocket<Data>): void;
  message(socket: UwsSocket<Data>, message: ArrayBuffer, isBinary: boolean): void;
  drain(socket: UwsSocket<Data>): void;
  close(socket: UwsSocket<Data>, code: number, reason: ArrayBuffer): void;
}

export interface UwsApp {
  any(pattern: string, handler: (response: UwsResponse, request: UwsRequest) => void): UwsApp;
  ws<Data>(pattern: string, behavior: UwsBehavior<Data>): UwsApp;
  /** `change` is 1 for each connection that comes and -1 when it goes; one that became a WebSocket goes without a word here. */
  filter(seen: (response: UwsResponse, change: number) => void): UwsApp;
  listen(host: string, port: number, options: number, listening: (socket: object | false) => void): UwsApp;
  /** Closes the listening socket and every connection at once. */
  close(): UwsApp;
}

export interface Uws {
  App(): UwsApp;
  us_socket_local_port(socket: unknown): number;
  us_listen_socket_close(socket: unknown): void;
  readonly LIBUS_LISTEN_EXCLUSIVE_PORT: number;
  readonly DISABLED: number;
}

/** Which server library carries the gateway and the admin port; "auto" takes uWebSockets.js where its binary loads. */
export type Implementation = "uws" | "ws" | "auto";

/** @throws Error when there is no binary for this platform and Node.js version. */
export async function loadUws(): Promise<Uws> {
  const module = (await import("uWebSockets.js")) as unknown as { default: Uws };
  return module.default;
}

/** The module, or null where the caller shall use the fallback. @throws Error when "uws" is demanded and does not load. */
export async function uwsFor(implementation: Implementation): Promise<Uws | null> {
  if (implementation === "ws") return null;
  try {
    return await loadUws();
  } catch (error) {
    if (implementation === "uws") throw error;
    return null;
  }
}

export interface UwsListener {
  readonly port: number;
  /** Accepts nothing more; open connections stay. */
  stop(): void;
}

/** @throws QuorateError PORT_IN_USE, CONFIG_INVALID */
export async function listenUws(uws: Uws, app: UwsApp, options: ListenOptions): Promise<UwsListener> {
  const { host, port } = options.listen;
  const token = listenToken(app, { host, port, flags: uws.LIBUS_LISTEN_EXCLUSIVE_PORT });
  if (token === null) throw await whyNot(options);
  let open = true;
  return {
    port: uws.us_socket_local_port(token),
    stop() {
      if (open) uws.us_listen_socket_close(token);
      open = false;
    },
  };
}

/** Closes whatever comes while `max` connections are open. The returned function is to be called when a WebSocket is closed. */
export function boundConnections(app: UwsApp, max: number): () => void {
  let open = 0;
  const seen = (response: UwsResponse, change: number): void => {
    open += change;
    if (change > 0 && open > max) response.close();
  };
  app.filter(seen);
  return () => {
    open--;
  };
}

/** The listening socket, or null: uWebSockets.js calls back at once and gives no reason. */
function listenToken(app: UwsApp, at: { host: string; port: number; flags: number }): object | null {
  let token: object | null = null;
  app.listen(at.host, at.port, at.flags, (socket) => {
    if (socket !== false) token = socket;
  });
  return token;
}

/** Asks node:net, which says why an address cannot be listened on. */
async function whyNot(options: ListenOptions): Promise<unknown> {
  const probe = createServer();
  try {
    await listening(probe, options);
    return listenError({ ...options, cause: { code: "EADDRINUSE" } });
  } catch (error) {
    return error;
  } finally {
    probe.close();
  }
}
