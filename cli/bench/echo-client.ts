/**
 * The client of the fan-out limit: the SDK's own connections and frames of the same size as the benchmark's, bundled per turn of
 * the event loop as the SDK does, waiting for Q of n answers. No MAC is made or checked, no reply compared.
 */

import { Credentials } from "../../client/credentials.ts";
import type { Clock, Transport } from "../../client/ports.ts";
import { Replicas } from "../../client/replicas.ts";
import { encodeRequestFrame, type Reply } from "../../protocol/client-frames.ts";
import type { Cluster } from "../../protocol/cluster.ts";
import { nodeCrypto } from "../../protocol/crypto/node.ts";
import { newIdentity } from "../../protocol/identity.ts";
import { AUTHENTICATOR_BYTES, encodeEnvelope, encodeRequest, type RequestKind } from "../../protocol/request.ts";

export interface EchoClientOptions {
  readonly cluster: Cluster;
  readonly transport: Transport;
  readonly clock: Clock;
  /** One encoded command: each operation adds one to the bundle. */
  readonly command: Uint8Array;
  readonly kind: RequestKind;
  readonly session: number;
}

interface Waiting {
  votes: number;
  readonly settle: readonly (() => void)[];
}

export class EchoClient {
  readonly #options: EchoClientOptions;
  readonly #replicas: Replicas;
  readonly #credentials: Credentials;
  readonly #macs: string;
  readonly #waiting = new Map<number, Waiting>();
  #queued: (() => void)[] = [];
  #sequence = 0;

  constructor(options: EchoClientOptions) {
    this.#options = options;
    const { cluster, transport, clock } = options;
    this.#credentials = new Credentials(nodeCrypto, cluster, newIdentity(nodeCrypto));
    this.#macs = "\0".repeat(AUTHENTICATOR_BYTES * cluster.view.n);
    const events = {
      onReady: () => {},
      onReply: (_: number, reply: Reply) => this.#onReply(reply),
      onLinks: () => "nothing" as const,
      onFault: () => undefined,
    };
    const { view } = cluster;
    this.#replicas = new Replicas({ view, credentials: this.#credentials, transport, clock, events });
    this.#replicas.open(options.session);
  }

  /** @throws QuorateError QUORUM_UNAVAILABLE */
  ready(timeoutMs: number): Promise<void> {
    return this.#replicas.whenQuorumReady({ timeoutMs });
  }

  /** True once all n are connected: the limit sends to all of them. */
  get complete(): boolean {
    return this.#replicas.readyCount === this.#options.cluster.view.n;
  }

  readonly operation = (): Promise<void> =>
    new Promise((resolve) => {
      if (this.#queued.push(resolve) === 1) this.#options.clock.turnEnd(this.#flush);
    });

  async close(): Promise<void> {
    await this.#replicas.close();
  }

  readonly #flush = (): void => {
    const { cluster, command, kind, session } = this.#options;
    const settle = this.#queued;
    this.#queued = [];
    this.#sequence += 1;
    this.#waiting.set(this.#sequence, { votes: 0, settle });
    const request = encodeRequest({
      cluster: cluster.id,
      client: this.#credentials.client,
      session,
      sequence: this.#sequence,
      ackedBelow: 1,
      kind,
      deadlineMs: 0,
      commands: settle.map(() => command),
    });
    const replier = this.#replicas.nextReplier();
    const authenticator = { type: "vector", macs: this.#macs } as const;
    const envelope = encodeEnvelope({ view: 0, replier, keys: null, authenticator });
    const frame = encodeRequestFrame(envelope, request);
    for (const connection of this.#replicas.connections) connection.send(frame);
  };

  #onReply(reply: Reply): void {
    const waiting = this.#waiting.get(reply.sequence);
    if (!waiting) return;
    waiting.votes += 1;
    if (waiting.votes < this.#options.cluster.view.quorum) return;
    this.#waiting.delete(reply.sequence);
    for (const settle of waiting.settle) settle();
  }
}
