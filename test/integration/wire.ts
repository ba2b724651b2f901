/** A client that speaks the wire format itself, for what the SDK would never send: one authenticated connection to one replica. */
import { WebSocket } from "ws";
import { Credentials } from "../../client/credentials.ts";
import { gatewayUrl } from "../../client/transport-ws.ts";
import { decodeGatewayFrame, encodeRequestFrame, type Hello, type Reply } from "../../protocol/client-frames.ts";
import { type Cluster, type ClusterFile, clusterOf } from "../../protocol/cluster.ts";
import { type Command, encodeCommand } from "../../protocol/commands.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { isRejection } from "../../protocol/errors.ts";
import type { Identity } from "../../protocol/identity.ts";
import {
  decodeRequest,
  EVERYBODY,
  encodeEnvelope,
  encodeRequest,
  macAt,
  type Request,
} from "../../protocol/request.ts";
import { memberOf } from "../../protocol/view.ts";

const WAIT_MS = 20_000;

/** A WebSocket to a gateway, greeted and not authenticated. */
export class Stranger {
  readonly cluster: Cluster;
  readonly replica: number;
  readonly socket: WebSocket;
  /** Resolves with the close code. */
  readonly closed: Promise<number>;
  readonly frames: Uint8Array[] = [];
  #wake: () => void = () => {};

  constructor(file: ClusterFile, replica: number) {
    this.cluster = clusterOf(nodeCrypto, file);
    this.replica = replica;
    const member = memberOf(this.cluster.view, replica);
    if (!member) throw new Error(`there is no replica ${replica}`);
    this.socket = new WebSocket(gatewayUrl(member), { perMessageDeflate: false });
    this.closed = new Promise((resolve) => {
      this.socket.on("close", (code) => {
        resolve(code);
        this.#wake();
      });
    });
    this.socket.on("error", () => {});
    this.socket.on("message", (data) => {
      this.frames.push(data as Buffer);
      this.#wake();
    });
  }

  async frame(): Promise<Uint8Array> {
    const deadline = performance.now() + WAIT_MS;
    for (;;) {
      const frame = this.frames.shift();
      if (frame) return frame;
      if (this.socket.readyState === WebSocket.CLOSED) throw new Error("the gateway closed the connection");
      const left = deadline - performance.now();
      if (left <= 0) throw new Error("the gateway is silent");
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  async hello(): Promise<Hello> {
    const frame = decodeGatewayFrame(await this.frame());
    if (isRejection(frame) || frame.type !== "HELLO") throw new Error("no HELLO");
    return frame;
  }

  send(frame: Uint8Array): void {
    this.socket.send(frame);
  }
}

export class WireClient extends Stranger {
  readonly credentials: Credentials;
  readonly session: number;

  private constructor(file: ClusterFile, options: { replica: number; identity: Identity; session: number }) {
    super(file, options.replica);
    this.credentials = new Credentials(nodeCrypto, this.cluster, options.identity);
    this.session = options.session;
  }

  static async open(
    file: ClusterFile,
    options: { replica: number; identity: Identity; session: number },
  ): Promise<WireClient> {
    const client = new WireClient(file, options);
    const { nonce } = await client.hello();
    const { replica, session } = options;
    client.send(client.credentials.auth(replica, { replica, nonce, session }));
    const welcome = decodeGatewayFrame(await client.frame());
    if (isRejection(welcome) || welcome.type !== "WELCOME") throw new Error("no WELCOME");
    return client;
  }

  /** An ordered request with this one command. */
  request(sequence: number, command: Command, fields: { client?: string } = {}): Request {
    const bytes = encodeRequest({
      cluster: this.cluster.id,
      client: fields.client ?? this.credentials.client,
      session: this.session,
      sequence,
      ackedBelow: 1,
      kind: "ordered",
      deadlineMs: 0,
      commands: [encodeCommand(command)],
    });
    return decodeRequest(nodeCrypto, bytes);
  }

  /** The REQUEST frame with a vector of MACs, or with a signature and the MAC for this replica. */
  frameOf(request: Request, authentication: "vector" | "signature" = "vector"): Uint8Array {
    const { macs, signature } = this.credentials.prove(request.digest, authentication === "signature");
    const mac = macAt(macs, this.replica);
    const authenticator = signature
      ? ({ type: "signature", signature, mac } as const)
      : ({ type: "vector", macs } as const);
    const { publicKeys: keys } = this.credentials;
    const envelope = encodeEnvelope({ view: this.cluster.view.id, replier: EVERYBODY, keys, authenticator });
    return encodeRequestFrame(envelope, request.bytes);
  }

  /** The next reply, its MAC checked. */
  async reply(): Promise<Reply> {
    const frame = decodeGatewayFrame(await this.frame());
    if (isRejection(frame) || frame.type !== "REPLY") throw new Error("no REPLY");
    if (!this.credentials.verify(this.replica, frame)) throw new Error("the reply's MAC is wrong");
    return frame;
  }
}
