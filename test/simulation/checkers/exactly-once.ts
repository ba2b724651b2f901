/**
 * Exactly once: no (client, session, sequence) takes effect twice (docs/protocol.md section 3). A request may well be decided
 * twice; the client table then answers from memory. So the decided log is replayed by the production executor and every
 * command that reaches the service is counted:
 * 1. a request reaches the service in one instance only, and never after a RESOLVE cancelled it;
 * 2. an OK without execution repeats the reply of the very request that was executed;
 * 3. a RESOLVE says cancelled only of what never ran, and replied or executed only of what did.
 * And each replica executes without gaps: instance after instance, none twice between two starts.
 *
 * The rules look at the service, not at the client table: a table that forgets is caught by what it lets through.
 */
import { type Digest, hex } from "../../../protocol/bytes.ts";
import { decodeResolution, decodeResult, decodeResults, type Resolution } from "../../../protocol/commands.ts";
import { decoded, isRejection } from "../../../protocol/errors.ts";
import { decodeResolve, type Request, requestKey } from "../../../protocol/request.ts";
import type { ReplicaId } from "../../../protocol/view.ts";
import { Violation } from "../contract.ts";
import type { RunObserver } from "./events.ts";
import type { ReplayedRequest, ReplayListener } from "./replay.ts";

interface Effect {
  readonly instance: number;
  readonly digest: Digest;
  readonly resultDigest: Digest;
}

export class ExactlyOnceChecker implements RunObserver, ReplayListener {
  readonly #effects = new Map<string, Effect>();
  readonly #cancelled = new Set<string>();
  /** The last instance executed since the last start, by replica. */
  readonly #executed = new Map<ReplicaId, number>();

  executed(event: { readonly replica: ReplicaId; readonly instance: number }): void {
    const { replica, instance } = event;
    const last = this.#executed.get(replica);
    if (last !== undefined && instance !== last + 1) {
      throw new Violation("exactly-once", `replica ${replica} executes instance ${instance} right after ${last}`);
    }
    this.#executed.set(replica, instance);
  }

  /** What the state store had not got yet is executed again. */
  restarted(event: { readonly replica: ReplicaId }): void {
    this.#executed.delete(event.replica);
  }

  replayed(replayed: ReplayedRequest): void {
    const { reply, instance, commands } = replayed;
    const { request, status } = reply;
    // Statements are numbered by themselves: rights.ts judges them.
    if (request.kind === "administer") return;
    const refused = status === "OK" && !this.#effects.has(request.key) && wasRefused(request, reply.result);
    if (commands.length > 0 || refused) this.#took(request, reply.resultDigest, instance);
    else if (status !== "OK") return;
    else if (request.kind === "resolve") this.#resolved(request, reply.result, instance);
    else this.#repeated(request, reply.resultDigest, instance);
  }

  #took(request: Request, resultDigest: Digest, instance: number): void {
    const { key, digest } = request;
    const earlier = this.#effects.get(key);
    if (earlier) throw broken(request, `takes effect in instances ${earlier.instance} and ${instance}`);
    if (this.#cancelled.has(key)) throw broken(request, `was cancelled and takes effect in instance ${instance}`);
    this.#effects.set(key, { instance, digest, resultDigest });
  }

  #repeated(request: Request, resultDigest: Digest, instance: number): void {
    const effect = this.#effects.get(request.key);
    if (!effect) throw broken(request, `is answered OK in instance ${instance} without ever being executed`);
    if (effect.digest === request.digest && effect.resultDigest === resultDigest) return;
    throw broken(request, `is answered in instance ${instance} with another result than in ${effect.instance}`);
  }

  #resolved(request: Request, result: Uint8Array | null, instance: number): void {
    const [command] = request.commands;
    if (!command || !result) return;
    const { session, sequence } = decodeResolve(command);
    const key = requestKey(request.client, session, sequence);
    const resolution: Resolution = decodeResolution(result);
    if (resolution.type === "unknown") return;
    const executed = this.#effects.has(key);
    if (executed === (resolution.type === "cancelled")) {
      const fact = executed ? "was executed" : "was never executed";
      throw broken(request, `says ${resolution.type} in instance ${instance} of ${session}.${sequence}, which ${fact}`);
    }
    if (resolution.type === "cancelled") this.#cancelled.add(key);
  }
}

/** A request of commands that their client has no right to is judged, answered and remembered, but nothing runs. */
function wasRefused({ kind }: Request, result: Uint8Array | null): boolean {
  if (kind !== "ordered" || !result) return false;
  return decodeResults(result).every((bytes) => {
    const answer = decoded(() => decodeResult(bytes));
    return !isRejection(answer) && answer.type === "refused" && answer.code === "NOT_PERMITTED";
  });
}

function broken({ client, session, sequence }: Request, what: string): Violation {
  return new Violation("exactly-once", `request ${session}.${sequence} of client ${hex(client).slice(0, 8)} ${what}`);
}
