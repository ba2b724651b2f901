/**
 * Asks replicas for what they give only to clients that may read: a signed GET per question (protocol/admin-request.ts).
 * Guarantees: an answer is bounded and of the expected kind; whether it is true is for the caller to prove.
 */
import { setTimeout as pause } from "node:timers/promises";
import { authorizationText } from "../../protocol/admin-request.ts";
import { type Digest, hex } from "../../protocol/bytes.ts";
import type { Signer } from "../../protocol/crypto/contract.ts";
import { isRejection } from "../../protocol/errors.ts";
import type { PublicKeys } from "../../protocol/identity.ts";
import { FRAME_BYTES_MAX } from "../../protocol/limits.ts";
import { decodeMessage, type MessageOf } from "../../protocol/messages.ts";
import { type AdminAddress, adminUrl, httpGetBytes } from "../replica-status.ts";

const BUSY_MS = 250;
const BUSY_TRIES_MAX = 40;

export type Told<T> =
  | { readonly value: T; readonly problem: null }
  /** `status` of HTTP, when it was answered at all. */
  | { readonly value: null; readonly problem: string; readonly status?: number | undefined };

/** HTTP status: the client may not read every key, or its clock is off. */
export const DENIED = 401;

export interface AdminClientOptions {
  readonly cluster: Digest;
  readonly keys: PublicKeys;
  readonly sign: Signer;
  /** Per request. */
  readonly timeoutMs: number;
}

export interface Checkpoint {
  readonly instance: number;
  readonly root: Digest;
}

export class AdminClient {
  readonly #options: AdminClientOptions;

  constructor(options: AdminClientOptions) {
    this.#options = options;
  }

  /** `rootsFrom` above 0 asks for a root at or after that instance. */
  offer(member: AdminAddress, rootsFrom: number): Promise<Told<MessageOf<"OFFER">>> {
    return this.#ask(member, rootsFrom > 0 ? `/snapshot/offer?fresh=${rootsFrom}` : "/snapshot/offer", "OFFER");
  }

  manifest(member: AdminAddress, { instance, root }: Checkpoint): Promise<Told<MessageOf<"MANIFEST">>> {
    return this.#ask(member, `/snapshot/manifest?instance=${instance}&root=${hex(root)}`, "MANIFEST");
  }

  chunk(member: AdminAddress, { instance, root }: Checkpoint, index: number): Promise<Told<MessageOf<"CHUNK">>> {
    return this.#ask(member, `/snapshot/chunk?instance=${instance}&root=${hex(root)}&index=${index}`, "CHUNK");
  }

  history(member: AdminAddress, range: { from: number; to: number }): Promise<Told<MessageOf<"HISTORY">>> {
    return this.#ask(member, `/snapshot/log?from=${range.from}&to=${range.to}`, "HISTORY");
  }

  async #ask<T extends "OFFER" | "MANIFEST" | "CHUNK" | "HISTORY">(
    member: AdminAddress,
    path: string,
    type: T,
  ): Promise<Told<MessageOf<T>>> {
    const { cluster, keys, sign, timeoutMs } = this.#options;
    for (let attempt = 1; ; attempt++) {
      const request = { cluster, replica: member.id, timestampMs: Date.now(), method: "GET", path };
      const headers = { authorization: authorizationText(request, { keys, sign }) };
      const limits = { timeoutMs, bytesMax: FRAME_BYTES_MAX, headers };
      const answer = await httpGetBytes(adminUrl(member, path), limits);
      if (answer.problem === null) {
        const message = decodeMessage(answer.bytes);
        if (isRejection(message) || message.type !== type) return { value: null, problem: "answers something else" };
        return { value: message as MessageOf<T>, problem: null };
      }
      if (answer.status !== 503 || attempt === BUSY_TRIES_MAX) {
        return { value: null, problem: problemOf(answer), status: answer.status };
      }
      await pause(BUSY_MS);
    }
  }
}

function problemOf({ status, problem }: { status?: number; problem: string }): string {
  if (status === DENIED) return "refuses this client, or this time (HTTP 401)";
  return status === 404 ? "does not offer it (HTTP 404)" : problem;
}
