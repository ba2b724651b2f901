/**
 * All connections of one session, and who is asked for the full result: it rotates over connected replicas and passes over
 * those that lately failed to deliver one (docs/protocol.md section 3).
 */
import { sameBytes } from "../protocol/bytes.ts";
import type { Links, Reply } from "../protocol/client-frames.ts";
import { type ErrorCode, QuorateError } from "../protocol/errors.ts";
import type { Member, ReplicaId, View } from "../protocol/view.ts";
import { Connection, type ConnectionEvents, type ConnectionFault } from "./connection.ts";
import type { Credentials } from "./credentials.ts";
import type { Reach } from "./failures.ts";
import type { Clock, Transport } from "./ports.ts";
import type { Votes } from "./quorum.ts";
import type { LinksVerdict } from "./view-follower.ts";

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
  onLinks(links: Links): LinksVerdict;
  /** A replica cannot be used for now. */
  onFault(): void;
}

export class Replicas {
  readonly #clock: Clock;
  readonly #transport: Transport;
  readonly #events: ConnectionEvents;
  readonly #waiters = new Set<() => void>();
  #view: View;
  #connections: readonly Connection[] = [];
  /** To those that are no members any more: until their channels are gone. */
  readonly #leaving = new Set<Promise<void>>();
  #suspectUntil: number[] = [];
  #next = 0;
  #session = 0;
  #closed: Promise<unknown> | null = null;

  constructor(options: {
    view: View;
    credentials: Credentials;
    transport: Transport;
    clock: Clock;
    events: ReplicasEvents;
  }) {
    const { events, view, clock } = options;
    this.#clock = clock;
    this.#transport = options.transport;
    this.#events = {
      onReady: (at) => {
        this.#changed();
        events.onReady(at);
      },
      onReply: (at, reply) => events.onReply(at, reply),
      onLinks: (links) => events.onLinks(links),
      onFault: () => {
        this.#changed();
        events.onFault();
      },
    };
    this.#view = view;
    this.#place(options.credentials);
  }

  /** By position in the view. */
  get connections(): readonly Connection[] {
    return this.#connections;
  }

  /** Opens every connection, anew if need be, for this session. */
  open(session: number): void {
    this.#session = session;
    for (const connection of this.#connections) connection.open(session);
  }

  /**
   * Goes over to another view: who is a member as before keeps its connection, others are connected to, those who are no
   * member any more, or one with other keys or another address, are left.
   */
  adopt(view: View, credentials: Credentials): void {
    const before = new Set(this.#connections);
    this.#view = view;
    this.#place(credentials);
    const now = new Set(this.#connections);
    for (const connection of before) {
      if (now.has(connection)) continue;
      const gone: Promise<void> = connection.close().then(() => void this.#leaving.delete(gone));
      this.#leaving.add(gone);
    }
    for (const connection of now) if (!before.has(connection)) connection.open(this.#session);
    this.#changed();
  }

  /** One connection per member of the view. */
  #place(credentials: Credentials): void {
    const { id: view, cluster, members, n } = this.#view;
    const known = this.#connections;
    this.#connections = members.map((member, position) => {
      const place = { position, view, credentials };
      const kept = known.find((connection) => sameMember(connection.member, member));
      kept?.move(place);
      const shared = { transport: this.#transport, clock: this.#clock, events: this.#events };
      return kept ?? new Connection({ ...shared, place, member, cluster });
    });
    this.#suspectUntil = members.map(() => 0);
    this.#next = Math.floor(this.#clock.random() * n);
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
    if (this.connections.some(refuses)) missing.push("ask an administrator to let this identity in: kv client grant");
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

  /** How many connected replicas have not voted yet. */
  unanswered(votes: Votes): number {
    return this.#connections.filter((connection, at) => connection.ready && !votes.has(at)).length;
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
   * Resolves once a quorum of replicas of the view in force by then, or `need` of them, welcomed this client.
   * @throws QuorateError QUORUM_UNAVAILABLE after `timeoutMs`; CLUSTER_MISMATCH or REFUSED as soon as waiting cannot help;
   *   ABORTED, CLOSED
   */
  whenQuorumReady(options: { timeoutMs: number; signal?: AbortSignal | undefined; need?: number }): Promise<void> {
    const { timeoutMs, signal } = options;
    const need = (): number => options.need ?? this.#view.quorum;
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
        else if (this.readyCount >= need()) end();
        else {
          const code = this.#hopeless(need());
          if (code) end(this.#unavailable(code, need()));
        }
      };
      const timer = this.#clock.after(timeoutMs, () => end(this.#unavailable("QUORUM_UNAVAILABLE", need())));
      this.#waiters.add(check);
      signal?.addEventListener("abort", onAbort, { once: true });
      if (signal?.aborted) onAbort();
      else check();
    });
  }

  /** Resolves when no channel is left. */
  close(): Promise<unknown> {
    this.#closed ??= Promise.all([...this.#connections.map((connection) => connection.close()), ...this.#leaving]);
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

  /** Why no quorum, or no single replica, will ever be connected as long as this identity is no client; null: it may be. */
  refusal(need: number = this.#view.quorum): QuorateError | null {
    const left = this.connections.filter((connection) => !refuses(connection)).length;
    return left < need ? this.#unavailable("REFUSED", need) : null;
  }

  #unavailable(code: ErrorCode, need: number): QuorateError {
    const { have, missing } = this.reach;
    return new QuorateError(code, `${have} of the ${need} replicas needed are connected${missing}`, { have, need });
  }
}

/** It will not have this identity as a client. */
function refuses({ fault }: Connection): boolean {
  return fault?.definite === true && fault.code === "REFUSED";
}

/** The same replica with the same keys, at the same place. */
function sameMember(a: Member, b: Member): boolean {
  const same = a.id === b.id && a.host === b.host && a.clientPort === b.clientPort;
  return same && sameBytes(a.signKey, b.signKey) && sameBytes(a.boxKey, b.boxKey);
}
