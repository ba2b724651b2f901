/**
 * One TCP connection between two replicas, from its first byte to its end (docs/protocol.md section 2): the handshake within
 * its deadline, then frames. Whatever is wrong ends this connection with one fault and touches nothing else.
 */
import type { Socket } from "node:net";
import { FRAME_BYTES_MAX } from "../../protocol/limits.ts";
import type { ReplicaId } from "../../protocol/view.ts";
import { FrameOpener, FrameSealer, FrameSplitter, type LinkFaultCode } from "./frames.ts";
import { HANDSHAKE_BODY_BYTES_MAX, Handshake, type HandshakeContext } from "./handshake.ts";
import { type ChainPort, isPresentation, PresentationReceiver } from "./presentation.ts";

export interface TcpLinkEvents {
  onAuthenticated(link: TcpLink, peer: ReplicaId): void;
  onMessage(link: TcpLink, message: Uint8Array): void;
  /** Exactly once, whatever the reason. `fault` is null when the connection merely went away. */
  onClosed(link: TcpLink, fault: LinkFaultCode | null): void;
}

export interface TcpLinkOptions {
  readonly socket: Socket;
  readonly context: HandshakeContext;
  readonly events: TcpLinkEvents;
  readonly handshakeMs: number;
  /** The member being dialled; null on a connection somebody else opened. */
  readonly dials: ReplicaId | null;
  /** For a connection that begins with links of the chain of views instead of a handshake; null: none may. */
  readonly chain: ChainPort | null;
}

interface Session {
  readonly sealer: FrameSealer;
  readonly opener: FrameOpener;
}

export class TcpLink {
  /** The authenticated member, or null before the handshake is done. */
  peer: ReplicaId | null = null;
  /** Where the connection comes from or goes to, for diagnostics. */
  remote = "";
  /** Set by every chunk received; the owner clears it to notice silence. */
  heard = true;
  closed = false;
  readonly #socket: Socket;
  readonly #context: HandshakeContext;
  readonly #events: TcpLinkEvents;
  readonly #splitter = new FrameSplitter(HANDSHAKE_BODY_BYTES_MAX);
  readonly #deadline: NodeJS.Timeout;
  /** Until the first body is here. */
  #chain: ChainPort | null;
  #handshake: Handshake | null = null;
  #presentation: PresentationReceiver | null = null;
  #session: Session | null = null;

  constructor(options: TcpLinkOptions) {
    const { socket, dials } = options;
    this.#socket = socket;
    this.#context = options.context;
    this.#events = options.events;
    this.#chain = options.chain;
    this.#deadline = setTimeout(() => this.#late(), options.handshakeMs);
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    socket.on("error", () => this.close(null));
    socket.on("close", () => this.close(null));
    if (dials === null) {
      this.#nameRemote();
      this.#handshake = Handshake.listen(this.#context);
    } else socket.once("connect", () => this.#onConnect(dials));
  }

  /** Sends all messages, in as few frames as the limits allow. Only on an authenticated link. */
  send(messages: readonly Uint8Array[]): void {
    if (this.closed || this.#session === null) return;
    for (const frame of this.#session.sealer.seal(messages)) this.#socket.write(frame);
  }

  /** Bytes handed to the socket that the kernel has not taken yet. */
  get unsentBytes(): number {
    return this.#socket.writableLength;
  }

  close(fault: LinkFaultCode | null): void {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.#deadline);
    this.#socket.destroy();
    this.#events.onClosed(this, fault);
  }

  #late(): void {
    // A connection that TCP itself did not establish in time is somebody who is down, which is no fault.
    this.close(this.#socket.connecting ? null : "LINK_TIMEOUT");
  }

  #nameRemote(): void {
    const { remoteAddress = "unknown", remotePort = 0 } = this.#socket;
    this.remote = remoteAddress.includes(":") ? `[${remoteAddress}]:${remotePort}` : `${remoteAddress}:${remotePort}`;
  }

  #onConnect(peer: ReplicaId): void {
    this.#nameRemote();
    const { handshake, bytes } = Handshake.dial(this.#context, peer);
    this.#handshake = handshake;
    this.#socket.write(bytes);
  }

  #onData(chunk: Uint8Array): void {
    if (this.closed) return;
    this.heard = true;
    const fault = this.#splitter.push(chunk, this.#take);
    if (fault === null) return;
    this.close(this.peer === null && fault === "LINK_LENGTH" ? "LINK_HANDSHAKE" : fault);
  }

  readonly #take = (body: Uint8Array): LinkFaultCode | null => {
    if (this.closed) return null;
    if (this.#session !== null) return this.#session.opener.open(body, this.#deliver);
    const chain = this.#chain;
    this.#chain = null;
    if (chain && isPresentation(body)) this.#presentation = new PresentationReceiver(this.#context.cluster, chain);
    return this.#presentation ? this.#receiveLinks(this.#presentation, body) : this.#shake(body);
  };

  readonly #deliver = (message: Uint8Array): boolean => {
    this.#events.onMessage(this, message);
    return !this.closed;
  };

  #receiveLinks(presentation: PresentationReceiver, body: Uint8Array): LinkFaultCode | null {
    const step = presentation.receive(body);
    switch (step.type) {
      case "fault":
        return step.code;
      case "send":
        this.#splitter.bytesMax = step.bodyBytesMax;
        this.#socket.write(step.bytes);
        return null;
      case "done":
        this.close(null);
        return null;
    }
  }

  #shake(body: Uint8Array): LinkFaultCode | null {
    const step = this.#handshake?.receive(body);
    if (step === undefined) return "LINK_HANDSHAKE";
    switch (step.type) {
      case "fault":
        return step.code;
      case "refused":
        this.close(null);
        return null;
      case "send":
        this.#socket.write(step.bytes);
        return null;
      case "done": {
        const { crypto } = this.#context;
        this.#session = {
          sealer: new FrameSealer(crypto, step.sendKey),
          opener: new FrameOpener(crypto, step.receiveKey),
        };
        this.#handshake = null;
        this.#splitter.bytesMax = FRAME_BYTES_MAX;
        clearTimeout(this.#deadline);
        this.peer = step.peer;
        this.#events.onAuthenticated(this, step.peer);
        return null;
      }
    }
  }
}
