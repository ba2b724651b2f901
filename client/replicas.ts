/**
 * All connections of one session, and who is asked for the full result: it rotates over connected replicas and passes over
 * those that lately failed to deliver one (docs/protocol.md section 3).
 */
import type { Reply } from "../protocol/client-frames.ts";
import type { Cluster } from "../protocol/cluster.ts";
import { type ErrorCode, QuorateError } from "../protocol/errors.ts";
import type { ReplicaId, View } from "../protocol/view.ts";
import { Connection, type ConnectionFault } from "./connection.ts";
import type { Credentials } from "./credentials.ts";
import type { Reach } from "./failures.ts";
import type { Clock, Transport } from "./ports.ts";

const SUSPECT_MS = 10_000;

/** What `Kv.replicas()` tells about one replica. */
export interface ReplicaState {
  readonly replica: ReplicaId;
  /** `host:port` of its client gateway. */
  readonly address: string;
  readonly connected: boolean;
  /** How often it broke the protocol towards this client. */
  readonly faults: number;
  /** Why it is not connected, or null. */
  readonly fault: ConnectionFault | null;
}

export interface ReplicasEvents {
  onReady(position: number): void;
  onReply(position: number, reply: Reply): void;
}

export class Replicas {
  readonly connections: readonly Connection[];
  readonly #clock: Clock;
  readonly #view: View;
  readonly #suspectUntil: number[];
  readonly #waiters = new Set<() => void>();
  #next: number;
  #closed: Promise<unknown> | null = null;

  constructor(options: {
    cluster: Cluster;
    credentials: Credentials;
    transport: Transport;
    clock: Clock;
    events: ReplicasEvents;
  }) {
    const { events, ...shared } = options;
    this.#clock = options.clock;
    const { view } = options.cluster;
    this.#view = view;
    this.#suspectUntil = view.members.map(() => 0);
    const onReady = (at: number) => {
      this.#changed();
      events.onReady(at);
    };
    const onReply = (at: number, reply: Reply) => events.onReply(at, reply);
    const onFault = () => this.#changed();
    this.connections = view.members.map(
      (member, position) =>
        new Connection({
          ...shared,
          position,
          member,
          events: { onReady, onReply, onFault },
        }),
    );
    this.#next = Math.floor(options.clock.random() * view.n);
  }

  /** Opens every connection, anew if need be, for this session. */
  open(session: number): void {
    for (const connection of this.connections) connection.open(session);
  }

  get readyCount(): number {
    let count = 0;
    for (const connection of this.connections) if (connection.ready) count++;
    return count;
  }

  get reach(): Reach {
    const missing = this.connections
      .filter((connection) => !connection.ready)
      .map(
        ({ member, fault }) =>
          `replica ${member.id} (${member.host}:${member.clientPort}) ${fault?.message ?? "is connecting"}`,
      );
    return {
      have: this.readyCount,
      need: this.#view.quorum,
      missing: missing.length > 0 ? ` — ${missing.join("; ")}` : "",
    };
  }

  get states(): ReplicaState[] {
    return this.connections.map(({ member, ready, faults, fault }) => ({
      replica: member.id,
      address: `${member.host}:${member.clientPort}`,
      connected: ready,
      faults,
      fault,
    }));
  }

  /** The position of the replica that shall send the next large result in full. */
  nextReplier(): number {
    const n = this.connections.length;
    const now = this.#clock.monotonicMs();
    let fallback = this.#next;
    for (let step = 0; step < n; step++) {
      const position = (this.#next + step) % n;
      if (!this.connections[position]?.ready) continue;
      if ((this.#suspectUntil[position] as number) > now) {
        fallback = position;
        continue;
      }
      this.#next = (position + 1) % n;
      return position;
    }
    this.#next = (fallback + 1) % n;
    return fallback;
  }

  /** It was asked for a full result and did not send it. */
  suspect(position: number): void {
    this.#suspectUntil[position] = this.#clock.monotonicMs() + SUSPECT_MS;
  }

  /** True while a quorum is connected: nothing is sent without one, so that what fails then was surely not sent. */
  get quorumReady(): boolean {
    return this.readyCount >= this.#view.quorum;
  }

  /**
   * Resolves once a quorum of replicas, or `need` of them, welcomed this client.
   * @throws QuorateError QUORUM_UNAVAILABLE after `timeoutMs`; CLUSTER_MISMATCH or REFUSED as soon as waiting cannot help;
   *   ABORTED, CLOSED
   */
  whenQuorumReady(options: { timeoutMs: number; signal?: AbortSignal | undefined; need?: number }): Promise<void> {
    const { timeoutMs, signal, need = this.#view.quorum } = options;
    return new Promise((resolve, reject) => {
      const end = (error?: QuorateError) => {
        timer.cancel();
        signal?.removeEventListener("abort", onAbort);
        this.#waiters.delete(check);
        if (error) reject(error);
        else resolve();
      };
      const onAbort = () => end(new QuorateError("ABORTED", "aborted by the caller's signal", {}, signal?.reason));
      const check = () => {
        if (this.#closed) end(new QuorateError("CLOSED", "the connection was closed"));
        else if (this.readyCount >= need) end();
        else {
          const code = this.#hopeless(need);
          if (code) end(this.#unavailable(code, need));
        }
      };
      const timer = this.#clock.after(timeoutMs, () => end(this.#unavailable("QUORUM_UNAVAILABLE", need)));
      this.#waiters.add(check);
      signal?.addEventListener("abort", onAbort, { once: true });
      if (signal?.aborted) onAbort();
      else check();
    });
  }

  /** Resolves when no channel is left. */
  close(): Promise<unknown> {
    this.#closed ??= Promise.all(this.connections.map((connection) => connection.close()));
    this.#changed();
    return this.#closed;
  }

  #changed(): void {
    for (const check of [...this.#waiters]) check();
  }

  /** The code to fail with when so many replicas can never be connected, however long one waits. */
  #hopeless(need: number): ErrorCode | null {
    const definite = this.connections.flatMap(({ fault }) => (fault?.definite ? [fault] : []));
    if (this.#view.n - definite.length >= need) return null;
    return definite.some(({ code }) => code === "CLUSTER_MISMATCH") ? "CLUSTER_MISMATCH" : "REFUSED";
  }

  #unavailable(code: ErrorCode, need: number): QuorateError {
    const { have, missing } = this.reach;
    return new QuorateError(code, `${have} of the ${need} replicas needed are connected${missing}`, { have, need });
  }
}
