/**
 * `Transport` for Node on the package `ws`: one WebSocket per replica, a frame per binary message (docs/protocol.md section 2).
 * `ws` sets no-delay itself; compression and UTF-8 checks are off. The mask of RFC 6455 protects intermediaries from
 * hostile page scripts, which do not exist here: it is zero, so that payloads are sent without a copy.
 */
import { type ClientOptions, WebSocket } from "ws";
import { FRAME_BYTES_MAX } from "../protocol/limits.ts";
import type { Member } from "../protocol/view.ts";
import type { Channel, ChannelEvents, Transport } from "./ports.ts";

const OPTIONS: ClientOptions = {
  perMessageDeflate: false,
  skipUTF8Validation: true,
  maxPayload: FRAME_BYTES_MAX,
  generateMask(mask) {
    mask.fill(0);
  },
};

/** The gateway's address. */
export function gatewayUrl({ host, clientPort }: Member): string {
  return `ws://${host.includes(":") ? `[${host}]` : host}:${clientPort}/`;
}

export const wsTransport: Transport = {
  open(member: Member, events: ChannelEvents): Channel {
    const socket = new WebSocket(gatewayUrl(member), OPTIONS);
    let opened = false;
    let failure = "";
    socket.on("open", () => {
      opened = true;
    });
    socket.on("message", (data, isBinary) => {
      if (isBinary && data instanceof Uint8Array) events.onFrame(data);
    });
    socket.on("error", (error) => {
      failure = error.message || (error as NodeJS.ErrnoException).code || "failed";
    });
    socket.on("close", (code, reason) => {
      events.onClosed({ code: opened ? code : 0, reason: failure || reason.toString("utf8") });
    });
    return {
      send(frame) {
        if (socket.readyState === WebSocket.OPEN) socket.send(frame);
      },
      get queuedBytes() {
        return socket.bufferedAmount;
      },
      close: () => socket.terminate(),
    };
  },
};
