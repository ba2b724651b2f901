/**
 * A Byzantine client of a whole world: it speaks the protocol of clients with frames of its own making. Authenticators that
 * are good at some replicas only, two payloads under one sequence, old requests again, signatures that are none. Gateways
 * close on it now and then; it comes back.
 */
import { Credentials } from "../../../client/credentials.ts";
import type { Channel, Transport } from "../../../client/ports.ts";
import { decodeGatewayFrame, encodeRequestFrame } from "../../../protocol/client-frames.ts";
import type { Cluster } from "../../../protocol/cluster.ts";
import type { Crypto } from "../../../protocol/crypto/contract.ts";
import { isRejection } from "../../../protocol/errors.ts";
import type { Identity } from "../../../protocol/identity.ts";
import {
  AUTHENTICATOR_BYTES,
  type Authenticator,
  decodeRequest,
  encodeEnvelope,
  encodeRequest,
  type Request,
} from "../../../protocol/request.ts";
import type { Member } from "../../../protocol/view.ts";
import type { Random } from "../random.ts";

const BAD_MAC = "x".repeat(AUTHENTICATOR_BYTES);
const KEPT_MAX = 32;

export interface ByzantineClientOptions {
  readonly cluster: Cluster;
  readonly crypto: Crypto;
  readonly identity: Identity;
  readonly session: number;
  readonly transport: Transport;
  readonly random: Random;
  /** A command that the service understands, by number. */
  readonly command: (number: number) => Uint8Array;
  /** Told before a request leaves: whatever it signs, it may be held to. */
  readonly issued: (request: Request) => void;
}

interface Connection {
  readonly member: Member;
  channel: Channel | null;
  ready: boolean;
}

export class ByzantineClient {
  readonly #options: ByzantineClientOptions;
  readonly #credentials: Credentials;
  readonly #connections: readonly Connection[];
  readonly #kept: Uint8Array[] = [];
  #sequence = 0;
  #commands = 0;

  constructor(options: ByzantineClientOptions) {
    this.#options = options;
    this.#credentials = new Credentials(options.crypto, options.cluster, options.identity);
    this.#connections = options.cluster.view.members.map((member) => ({ member, channel: null, ready: false }));
  }

  /** One lie more, on whatever connections stand; those that do not are opened. Called every now and then. */
  lie(): void {
    this.#connections.forEach((connection, position) => {
      if (!connection.channel) this.#connect(connection, position);
    });
    const { random } = this.#options;
    const again = random.chance(0.4) && this.#sequence > 0;
    const sequence = again ? 1 + random.below(this.#sequence) : ++this.#sequence;
    switch (random.below(4)) {
      case 0: {
        const good = this.#connections.map(() => random.chance(0.5));
        this.#send(this.#frame(this.#request(sequence), this.#vector(good)), () => true);
        return;
      }
      case 1: {
        const frames = [this.#request(sequence), this.#request(sequence)].map((request) =>
          this.#frame(request, this.#vector()),
        );
        for (const frame of frames) this.#send(frame, () => random.chance(0.5));
        return;
      }
      case 2:
        if (this.#kept.length > 0) this.#send(random.pick(this.#kept), () => true);
        return;
      default:
        this.#send(this.#frame(this.#request(sequence), this.#signed(random.chance(0.5))), () => true);
    }
  }

  #request(sequence: number): Request {
    const { cluster, crypto, session, command, issued } = this.#options;
    const bytes = encodeRequest({
      cluster: cluster.id,
      client: this.#credentials.client,
      session,
      sequence,
      ackedBelow: 1,
      kind: "ordered",
      deadlineMs: 0,
      commands: [command(++this.#commands)],
    });
    const request = decodeRequest(crypto, bytes);
    issued(request);
    return request;
  }

  /** MACs that are good where `good` says so. */
  #vector(good?: readonly boolean[]): (request: Request) => Authenticator {
    return (request) => {
      const { macs } = this.#credentials.prove(request.digest, false);
      const entries = this.#connections.map((_, at) =>
        (good?.[at] ?? true) ? macs.slice(at * AUTHENTICATOR_BYTES, (at + 1) * AUTHENTICATOR_BYTES) : BAD_MAC,
      );
      return { type: "vector", macs: entries.join("") };
    };
  }

  /** The filter's MAC is good at the first replica alone; the signature may be none. */
  #signed(good: boolean): (request: Request) => Authenticator {
    return (request) => {
      const { macs, signature } = this.#credentials.prove(request.digest, true);
      const shown = good && signature ? signature : new Uint8Array(64);
      return { type: "signature", signature: shown, mac: macs.slice(0, AUTHENTICATOR_BYTES) };
    };
  }

  #frame(request: Request, authenticate: (request: Request) => Authenticator): Uint8Array {
    const { view } = this.#options.cluster;
    const keys = this.#credentials.publicKeys;
    const envelope = encodeEnvelope({ view: view.id, replier: 0, keys, authenticator: authenticate(request) });
    const frame = encodeRequestFrame(envelope, request.bytes);
    if (this.#kept.length < KEPT_MAX) this.#kept.push(frame);
    return frame;
  }

  #send(frame: Uint8Array, to: (position: number) => boolean): void {
    this.#connections.forEach(({ channel, ready }, position) => {
      if (ready && to(position)) channel?.send(frame);
    });
  }

  #connect(connection: Connection, position: number): void {
    const { transport, session } = this.#options;
    const { member } = connection;
    const channel: Channel = transport.open(member, {
      onFrame: (bytes) => {
        const frame = decodeGatewayFrame(bytes);
        if (isRejection(frame)) return;
        if (frame.type === "WELCOME") connection.ready = true;
        if (frame.type === "HELLO")
          channel.send(this.#credentials.auth(position, { replica: member.id, nonce: frame.nonce, session }));
      },
      onClosed: () => {
        if (connection.channel !== channel) return;
        connection.channel = null;
        connection.ready = false;
      },
    });
    connection.channel = channel;
  }
}
