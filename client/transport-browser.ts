/** `Transport` on the global `WebSocket` of browsers (and of newer Node and Deno). */
import type { Member } from "../protocol/view.ts";
import type { Channel, ChannelEvents, Transport } from "./ports.ts";

/** What is used of the global `WebSocket`; its types are not part of this project's compilation. */
interface BrowserSocket {
  binaryType: string;
  readonly readyState: number;
  readonly bufferedAmount: number;
  send(data: Uint8Array): void;
  close(): void;
  addEventListener(type: string, listener: (event: SocketEvent) => void): void;
}

interface SocketEvent {
  readonly data?: unknown;
  readonly code?: number;
  readonly reason?: string;
}

const OPEN = 1;

/** `secure`: connect with wss:, as pages served over https must. */
export function browserTransport(options: { secure?: boolean } = {}): Transport {
  const scheme = options.secure ? "wss" : "ws";
  return {
    open({ host, clientPort }: Member, events: ChannelEvents): Channel {
      const global = globalThis as { WebSocket?: new (url: string) => BrowserSocket };
      if (!global.WebSocket) throw new TypeError("there is no global WebSocket; on Node use quorate/client");
      const socket = new global.WebSocket(`${scheme}://${host.includes(":") ? `[${host}]` : host}:${clientPort}/`);
      socket.binaryType = "arraybuffer";
      let opened = false;
      let closed = false;
      const report = (code: number, reason: string) => {
        if (closed) return;
        closed = true;
        events.onClosed({ code: opened ? code : 0, reason });
      };
      socket.addEventListener("open", () => {
        opened = true;
      });
      socket.addEventListener("message", ({ data }) => {
        if (!closed && data instanceof ArrayBuffer) events.onFrame(new Uint8Array(data));
      });
      socket.addEventListener("close", ({ code = 0, reason = "" }) => {
        report(code, reason);
      });
      return {
        send(frame) {
          if (socket.readyState === OPEN) socket.send(frame);
        },
        get queuedBytes() {
          return socket.bufferedAmount;
        },
        /** A browser's closing handshake may take long; nobody waits for it. */
        close() {
          socket.close();
          queueMicrotask(() => report(1000, ""));
        },
      };
    },
  };
}
