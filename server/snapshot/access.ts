/**
 * What the admin port answers below /snapshot/: offers, manifests, chunks and log, as the messages replicas send each other,
 * to clients that may read. Guarantees: nothing is read before the signature is verified; at most `ANSWERS_AT_ONCE`
 * requests are being answered at a time, whoever asks.
 */

import { ADMIN_REQUEST_MS_MAX, adminStatement, parseAuthorization } from "../../protocol/admin-request.ts";
import { type Digest, fromHex, latin1, utf8 } from "../../protocol/bytes.ts";
import type { Cluster } from "../../protocol/cluster.ts";
import type { Crypto } from "../../protocol/crypto/contract.ts";
import { clientIdOf } from "../../protocol/identity.ts";
import { FRAME_BYTES_MAX } from "../../protocol/limits.ts";
import { encodeMessage, type MessageOf } from "../../protocol/messages.ts";
import type { SnapshotAnswer, SnapshotRequest } from "../network/admin.ts";

export const ANSWERS_AT_ONCE = 2;

/** What the replica gives away; null when it does not have (any more) what was asked for. */
export interface SnapshotSource {
  /** `rootsFrom` above 0: take a checkpoint unless there is a root at or after that instance. */
  offer(rootsFrom: number): Promise<MessageOf<"OFFER"> | null>;
  manifest(checkpoint: { instance: number; root: Digest }): Promise<MessageOf<"MANIFEST"> | null>;
  chunk(checkpoint: { instance: number; root: Digest }, index: number): Promise<MessageOf<"CHUNK"> | null>;
  history(range: { from: number; to: number }): Promise<MessageOf<"HISTORY"> | null>;
}

export interface SnapshotAccessOptions {
  readonly crypto: Crypto;
  readonly cluster: Cluster;
  readonly replica: number;
  readonly source: SnapshotSource;
  readonly nowMs: () => number;
  /** May this client read the whole store? A snapshot leaves nothing out. */
  readonly mayRead: (client: Digest) => boolean;
}

function refusal(status: SnapshotAnswer["status"], why: string): SnapshotAnswer {
  return { status, body: utf8(`${why}\n`) };
}

/** A malformed parameter. */
class WrongQuery extends Error {}

export class SnapshotAccess {
  readonly #options: SnapshotAccessOptions;
  #answering = 0;

  constructor(options: SnapshotAccessOptions) {
    this.#options = options;
  }

  /** For `AdminRoutes.snapshot`. */
  async answer(request: SnapshotRequest): Promise<SnapshotAnswer> {
    const why = this.#refused(request);
    if (why !== null) return refusal(401, why);
    if (this.#answering >= ANSWERS_AT_ONCE) return refusal(503, "others are being answered; ask again");
    this.#answering += 1;
    try {
      const message = await this.#read(request.path, new URLSearchParams(request.query));
      if (!message) return refusal(404, "not offered, or not any more");
      const body = encodeMessage(message);
      return body.length > FRAME_BYTES_MAX ? refusal(404, "too large") : { status: 200, body };
    } catch (error) {
      if (error instanceof WrongQuery) return refusal(400, error.message);
      throw error;
    } finally {
      this.#answering -= 1;
    }
  }

  /** Why this request is not answered, or null. */
  #refused({ path, query, authorization }: SnapshotRequest): string | null {
    const { crypto, cluster, replica, nowMs, mayRead } = this.#options;
    const claim = parseAuthorization(authorization);
    if (!claim) return "sign the request: Authorization: Quorate <keys>:<milliseconds>:<signature>";
    const { keys, timestampMs, signature } = claim;
    if (Math.abs(nowMs() - timestampMs) > ADMIN_REQUEST_MS_MAX) return "the request is not of now; check the clocks";
    if (!mayRead(clientIdOf(crypto, keys))) return "this client may not read everything";
    const asked = query === "" ? path : `${path}?${query}`;
    const statement = adminStatement({ cluster: cluster.id, replica, timestampMs, method: "GET", path: asked });
    return crypto.verify(keys.signKey, statement, signature) ? null : "the signature is wrong";
  }

  #read(path: string, query: URLSearchParams) {
    const { source } = this.#options;
    switch (path) {
      case "/snapshot/offer":
        return source.offer(query.has("fresh") ? numberIn(query, "fresh") : 0);
      case "/snapshot/manifest":
        return source.manifest(checkpointIn(query));
      case "/snapshot/chunk":
        return source.chunk(checkpointIn(query), numberIn(query, "index"));
      case "/snapshot/log":
        return source.history({ from: numberIn(query, "from"), to: numberIn(query, "to") });
      default:
        return null;
    }
  }
}

function checkpointIn(query: URLSearchParams): { instance: number; root: Digest } {
  const root = query.get("root") ?? "";
  if (!/^[0-9a-f]{64}$/.test(root)) throw new WrongQuery("root must be 64 hexadecimal digits");
  return { instance: numberIn(query, "instance"), root: latin1(fromHex(root)) };
}

function numberIn(query: URLSearchParams, name: string): number {
  const text = query.get(name) ?? "";
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw new WrongQuery(`${name} must be a number`);
  return value;
}
