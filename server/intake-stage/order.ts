/**
 * Outcomes leave in the order of their requests, connection by connection, whoever has computed them and in whatever order; and
 * what waits is counted, so that there is a bound for everybody and one for each client.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { assert } from "../../protocol/errors.ts";
import {
  INTAKE_BYTES_MAX,
  INTAKE_BYTES_PER_CLIENT_MAX,
  INTAKE_REQUESTS_MAX,
  INTAKE_REQUESTS_PER_CLIENT_MAX,
} from "../../protocol/limits.ts";
import type { ClientConnection } from "../network/contract.ts";
import type { Outcome } from "./contract.ts";

/** The place of one request in its connection's line. */
export interface Place {
  readonly connection: ClientConnection;
  readonly bytes: number;
  outcome: Outcome | null;
  next: Place | null;
}

interface Line {
  head: Place;
  tail: Place;
}

interface Load {
  requests: number;
  bytes: number;
}

export class ConnectionOrder {
  readonly #lines = new Map<ClientConnection, Line>();
  readonly #clients = new Map<Digest, Load>();
  readonly #total: Load = { requests: 0, bytes: 0 };
  readonly #release: (connection: ClientConnection, outcome: Outcome) => boolean;

  /** `release` says false to end a connection: the rest of its line is let go. */
  constructor(release: (connection: ClientConnection, outcome: Outcome) => boolean) {
    this.#release = release;
  }

  get waiting(): number {
    return this.#total.requests;
  }

  /** Is there room for one more of this client? */
  room(client: Digest, bytes: number): boolean {
    const total = this.#total;
    if (total.requests >= INTAKE_REQUESTS_MAX || total.bytes + bytes > INTAKE_BYTES_MAX) return false;
    const load = this.#clients.get(client);
    if (!load) return true;
    return load.requests < INTAKE_REQUESTS_PER_CLIENT_MAX && load.bytes + bytes <= INTAKE_BYTES_PER_CLIENT_MAX;
  }

  /** True while an earlier request of this connection has no outcome. */
  waits(connection: ClientConnection): boolean {
    return this.#lines.size > 0 && this.#lines.has(connection);
  }

  /** Joins the line of a connection. */
  join(connection: ClientConnection, bytes: number): Place {
    const place: Place = { connection, bytes, outcome: null, next: null };
    const line = this.#lines.get(connection);
    if (line) {
      line.tail.next = place;
      line.tail = place;
    } else this.#lines.set(connection, { head: place, tail: place });
    const { client } = connection;
    const load = this.#clients.get(client);
    if (load) {
      load.requests++;
      load.bytes += bytes;
    } else this.#clients.set(client, { requests: 1, bytes });
    this.#total.requests++;
    this.#total.bytes += bytes;
    return place;
  }

  /** The outcome of a place is known: it leaves, with all behind it that only waited for it, once nothing stands before it. */
  settle(place: Place, outcome: Outcome): void {
    assert(place.outcome === null, "a request has one outcome");
    place.outcome = outcome;
    const { connection } = place;
    const line = this.#lines.get(connection);
    // Let go of.
    if (!line) return;
    let head: Place | null = line.head;
    while (head?.outcome) {
      this.#leave(head);
      const { outcome: settled, next }: Place = head;
      if (next) line.head = next;
      else this.#lines.delete(connection);
      if (settled && !this.#release(connection, settled)) {
        this.#letGo(connection, next);
        return;
      }
      head = next;
    }
  }

  #letGo(connection: ClientConnection, first: Place | null): void {
    for (let place = first; place; place = place.next) this.#leave(place);
    this.#lines.delete(connection);
  }

  #leave({ connection: { client }, bytes }: Place): void {
    const load = this.#clients.get(client);
    assert(load, "whoever waits is counted");
    load.requests--;
    load.bytes -= bytes;
    if (load.requests === 0) this.#clients.delete(client);
    this.#total.requests--;
    this.#total.bytes -= bytes;
  }
}
