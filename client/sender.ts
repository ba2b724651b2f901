/**
 * Encodes, authenticates and transmits requests (docs/protocol.md sections 2 and 3). A request is encoded and proved once; a
 * resend carries the same bytes, the client's keys, and asks everybody for the full result.
 */
import type { Cluster } from "../protocol/cluster.ts";
import type { Crypto } from "../protocol/crypto/contract.ts";
import { encodeRequest } from "../protocol/request.ts";
import { type Call, type InFlight, LANE_KINDS, type Lane } from "./call.ts";
import type { Credentials } from "./credentials.ts";
import { sharedFrame, signedFrame } from "./frames.ts";
import { Votes } from "./quorum.ts";
import type { Replicas } from "./replicas.ts";
import type { RetryPolicy } from "./retry-policy.ts";
import { ADVICE } from "./verdict.ts";

/** After this an unordered request is issued again as ordered. */
const UNORDERED_MS_MAX = 100;

/** A replica that was asked for a local read and says nothing for so long is passed over. */
const LOCAL_MS_MAX = 250;

export class Sender {
  /** Requests carry a signature: asked for by the cluster, the caller, or a weak quorum of replicas. */
  signed: boolean;
  /** The client table holds this client's keys: a quorum executed one of its requests. */
  keysKnown = false;
  #cluster: Cluster;
  readonly #crypto: Crypto;
  #credentials: Credentials;
  readonly #replicas: Replicas;
  readonly #retry: RetryPolicy;

  constructor(options: {
    cluster: Cluster;
    crypto: Crypto;
    credentials: Credentials;
    replicas: Replicas;
    retry: RetryPolicy;
    signed: boolean;
  }) {
    this.#cluster = options.cluster;
    this.#crypto = options.crypto;
    this.#credentials = options.credentials;
    this.#replicas = options.replicas;
    this.#retry = options.retry;
    this.signed = options.signed;
  }

  /** From now on requests are proved to, and for, the members of this cluster's view. */
  adopt(cluster: Cluster, credentials: Credentials): void {
    this.#cluster = cluster;
    this.#credentials = credentials;
  }

  /** The same request in another view: the same bytes, proved anew; what members of the old view said is forgotten. */
  renew(entry: InFlight): void {
    entry.votes = new Votes(this.#cluster.view.n);
    entry.proof = this.#credentials.prove(entry.digest, this.signed);
    entry.replier = this.#replicas.nextReplier();
  }

  build(options: {
    lane: Lane;
    calls: readonly Call[];
    session: number;
    sequence: number;
    ackedBelow: number;
    now: number;
  }): InFlight {
    const { lane, calls, session, sequence, ackedBelow, now } = options;
    const commands: Uint8Array[] = [];
    for (const call of calls) commands.push(call.command);
    const { id: cluster, view } = this.#cluster;
    const { client } = this.#credentials;
    const deadlineMs = calls[0]?.deadlineMs ?? 0;
    const fields = { cluster, client, session, sequence, ackedBelow, kind: LANE_KINDS[lane], deadlineMs, commands };
    const bytes = encodeRequest(fields);
    const digest = this.#crypto.sha256(bytes);
    const entry: InFlight = {
      lane,
      session,
      sequence,
      ackedBelow,
      bytes,
      digest,
      calls,
      waiters: [],
      votes: new Votes(view.n),
      sentAt: now,
      proof: this.#credentials.prove(digest, this.signed),
      replier: this.#replicas.nextReplier(),
      everybody: calls[0]?.everybody ?? false,
      attempts: 1,
      resendAt: now + this.#patienceMs(lane),
      timeoutAt: Number.POSITIVE_INFINITY,
      open: calls.length,
      abandoned: false,
      resolver: null,
    };
    for (let index = 0; index < calls.length; index++) {
      const call = calls[index] as Call;
      call.entry = entry;
      call.index = index;
      if (call.timeoutAt < entry.timeoutAt) entry.timeoutAt = call.timeoutAt;
    }
    return entry;
  }

  #patienceMs(lane: Lane): number {
    if (lane === "local") return LOCAL_MS_MAX;
    return lane === "query" ? UNORDERED_MS_MAX : this.#retry.resendDelayMs(1);
  }

  /** A local read goes to another replica, which has not said anything to it yet. */
  elsewhere(entry: InFlight, now: number): void {
    entry.attempts++;
    entry.resendAt = now + LOCAL_MS_MAX;
    entry.votes.forget(ADVICE);
    entry.replier = this.#replicas.nextReplier();
    this.transmit(entry, entry.replier);
  }

  /** To every connected replica, or again to the one at `only`. */
  transmit(entry: InFlight, only?: number): void {
    const retry = entry.attempts > 1 || only !== undefined;
    const keys = retry || !this.keysKnown ? this.#credentials.publicKeys : null;
    const options = { view: this.#cluster.view, keys, everybody: retry || entry.everybody };
    const shared = sharedFrame(entry, options);
    const { connections } = this.#replicas;
    for (let position = 0; position < connections.length; position++) {
      const connection = connections[position];
      if (!connection?.ready || (only !== undefined && only !== position)) continue;
      connection.send(shared ?? signedFrame(entry, options, position));
    }
  }

  resend(entry: InFlight, now: number): void {
    entry.attempts++;
    entry.resendAt = now + this.#retry.resendDelayMs(entry.attempts);
    entry.votes.forget(ADVICE);
    if (this.signed && entry.proof.signature === null) entry.proof = this.#credentials.prove(entry.digest, true);
    this.transmit(entry);
  }
}
