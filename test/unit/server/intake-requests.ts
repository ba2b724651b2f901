/** Requests of every kind for stages of the intake, and connections that keep what happened to them. */
import { Credentials } from "../../../client/credentials.ts";
import { type Digest, utf8 } from "../../../protocol/bytes.ts";
import type { Cluster } from "../../../protocol/cluster.ts";
import { nodeCrypto } from "../../../protocol/crypto/node.ts";
import { type Identity, identityFrom } from "../../../protocol/identity.ts";
import { EVERYBODY, encodeEnvelope, encodeRequest, type RequestFields } from "../../../protocol/request.ts";
import type { KnownClients } from "../../../server/authenticity.ts";
import type { ClientConnection } from "../../../server/network/contract.ts";
import { CLUSTER, viewOfSize } from "./fixture.ts";

export const SELF = 2;
export const cluster: Cluster = {
  id: CLUSTER,
  view: viewOfSize(4),
  genesis: nodeCrypto.sha256(utf8("genesis")),
  clients: "open",
  signedRequests: false,
  maxClients: 1_000,
  origin: null,
};

/** A state that lets everybody be a client and has the keys of nobody. */
export const EVERYBODY_KNOWN: KnownClients = { keysOf: () => null, knows: () => true };

/** One frame's parts. */
export interface Sent {
  readonly envelope: Uint8Array;
  readonly request: Uint8Array;
}

export interface SentOptions {
  readonly signed?: boolean;
  /** Whether the envelope carries the client's keys. Default: no. */
  readonly keys?: boolean;
  readonly view?: number;
  readonly fields?: Partial<RequestFields>;
  /** Applied to what is authenticated. */
  readonly spoil?: "mac" | "signature" | "request";
}

export class TestClient {
  readonly identity: Identity;
  readonly credentials: Credentials;
  #sequence = 0;

  constructor(name: string) {
    const secret = (use: string): Uint8Array => Buffer.from(nodeCrypto.sha256(utf8(`${use} of ${name}`)), "latin1");
    this.identity = identityFrom(secret("sign"), secret("box"));
    this.credentials = new Credentials(nodeCrypto, cluster, this.identity);
  }

  get id(): Digest {
    return this.credentials.client;
  }

  get keys(): Uint8Array {
    return this.credentials.publicKeys;
  }

  send(options: SentOptions = {}): Sent {
    const { signed = false, keys = false, view = cluster.view.id, fields = {}, spoil } = options;
    const sequence = ++this.#sequence;
    const bytes = encodeRequest({
      cluster: cluster.id,
      client: this.id,
      session: 1,
      sequence,
      ackedBelow: 1,
      kind: "ordered",
      deadlineMs: 0,
      commands: [utf8(`command ${sequence}`)],
      ...fields,
    });
    const { macs, signature } = this.credentials.prove(nodeCrypto.sha256(bytes), signed);
    const badMacs = spoil === "mac" ? "x".repeat(macs.length) : macs;
    if (signature && spoil === "signature") signature[10] = (signature[10] ?? 0) ^ 1;
    const envelope = encodeEnvelope({
      view,
      replier: EVERYBODY,
      keys: keys ? this.keys : null,
      authenticator: signature
        ? { type: "signature", signature, mac: badMacs.slice(SELF * 16, SELF * 16 + 16) }
        : { type: "vector", macs: badMacs },
    });
    if (spoil === "request") bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1;
    return { envelope, request: bytes };
  }
}

let lastId = 0;

export class TestConnection implements ClientConnection {
  readonly id = ++lastId;
  readonly client: Digest;
  readonly session = 1;
  readonly together = null;
  readonly frames: Uint8Array[] = [];
  closed: string | null = null;
  /** Bytes of requests for which there was no room. */
  away = 0;

  constructor(client: Digest) {
    this.client = client;
  }

  send(frame: Uint8Array): boolean {
    this.frames.push(Uint8Array.from(frame));
    return true;
  }

  turnedAway(bytes: number): void {
    this.away += bytes;
  }

  close(_code: number, reason: string): void {
    this.closed ??= reason;
  }
}
