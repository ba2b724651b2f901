/**
 * The records of the client table: kept in the orders the rules need, tracked so that a group rewrites only what changed,
 * and rebuilt at start (docs/protocol.md section 3 and section 6). Records are serialised when a group is taken, not per
 * request: a record changed a thousand times in between is written once, one that came and went not at all.
 */
import type { Digest } from "../../protocol/bytes.ts";
import { assert, Malformed } from "../../protocol/errors.ts";
import { Reader, Writer } from "../../protocol/layout.ts";
import {
  type BatchPlace,
  type Client,
  clientBytes,
  clientKey,
  type Executed,
  executedBytes,
  executedKey,
  parseClientKey,
  parseSequenceKey,
  readClient,
  readExecuted,
  readSession,
  type Session,
  sessionBytes,
  sessionKey,
  type Tracked,
} from "./client-records.ts";
import { CLIENT_SPACE, META_SPACE, type ReplicatedState, SEQUENCE_SPACE } from "./state.ts";

const FLOOR_KEY = `${META_SPACE}floor`;

export class ClientStore {
  /** In order of last use: whoever has been idle longest comes first. */
  #clients = new Map<Digest, Client>();
  #floor = 0;
  #floorDirty = false;
  /** No client can be idle too long before this batch time. */
  #idleNotBefore = 0;
  #changedClients: Client[] = [];
  #changedSessions: Session[] = [];
  #changedExecuted: Executed[] = [];
  #deletedKeys: string[] = [];
  /** Entries were loaded and the orders are not rebuilt yet. */
  #loading = false;

  get clients(): ReadonlyMap<Digest, Client> {
    return this.#clients;
  }

  /** The highest session number of any client ever dropped. */
  get floor(): number {
    return this.#floor;
  }

  session(client: Digest, number: number): Session | undefined {
    return this.#clients.get(client)?.sessions.get(number);
  }

  /** Adds a session, and its client if that is new. */
  open(session: Session, place: BatchPlace): void {
    const { client } = session;
    if (!this.#clients.has(client.id)) this.#clients.set(client.id, client);
    client.sessions.set(session.number, session);
    session.lastInstance = place.instance;
    this.#sessionChanged(session);
    this.#clientChanged(client);
  }

  used(client: Client, timestampMs: number): void {
    if (client.lastMs === timestampMs) return;
    client.lastMs = timestampMs;
    this.#clients.delete(client.id);
    this.#clients.set(client.id, client);
    this.#clientChanged(client);
  }

  /** Everything below `ackedBelow` is finished for the client: its records go. */
  raiseBase(session: Session, ackedBelow: number): void {
    const { base, executed } = session;
    if (ackedBelow <= base) return;
    session.base = ackedBelow;
    this.#sessionChanged(session);
    if (ackedBelow - base <= executed.size) {
      for (let sequence = base; sequence < ackedBelow; sequence++) {
        const finished = executed.get(sequence);
        if (finished) this.#remove(finished);
      }
    } else {
      for (const [sequence, finished] of executed) if (sequence < ackedBelow) this.#remove(finished);
    }
  }

  /** Adds an executed or cancelled sequence. */
  add(executed: Executed): void {
    const { session } = executed;
    session.executed.set(executed.sequence, executed);
    if (session.lastInstance !== executed.instance) {
      session.lastInstance = executed.instance;
      this.#sessionChanged(session);
    }
    this.#executedChanged(executed);
    link(executed);
  }

  /** Drops the bytes of the client's oldest cached replies until at most `bytesMax` are left. */
  dropReplies(client: Client, bytesMax: number): void {
    while (client.cachedBytes > bytesMax) {
      const { oldest } = client;
      assert(oldest, "cached bytes belong to a cached reply");
      unlink(oldest);
      oldest.result = null;
      this.#executedChanged(oldest);
    }
  }

  /** Removes a session with all it holds; the client's watermark rises to it. */
  evict(session: Session): void {
    const { client } = session;
    client.watermark = Math.max(client.watermark, session.number);
    this.#clientChanged(client);
    this.#removeSession(session);
  }

  /** Drops every client not used for more than `idleMsMax`; the floor rises to the highest number each of them had. */
  dropIdle(nowMs: number, idleMsMax: number): void {
    if (this.#loading) this.#finishLoading();
    if (nowMs <= this.#idleNotBefore) return;
    this.#idleNotBefore = nowMs;
    for (const client of this.#clients.values()) {
      if (nowMs - client.lastMs <= idleMsMax) {
        this.#idleNotBefore = client.lastMs + idleMsMax;
        break;
      }
      this.drop(client);
    }
  }

  writeChanges(state: ReplicatedState): void {
    for (const key of this.#deletedKeys) state.delete(key);
    for (const client of taken(this.#changedClients)) state.set(clientKey(client), clientBytes(client));
    for (const session of taken(this.#changedSessions)) state.set(sessionKey(session), sessionBytes(session));
    for (const executed of taken(this.#changedExecuted)) state.set(executedKey(executed), executedBytes(executed));
    if (this.#floorDirty) state.set(FLOOR_KEY, new Writer(8).u53(this.#floor).view());
    this.#floorDirty = false;
    this.#deletedKeys = [];
    this.#changedClients = [];
    this.#changedSessions = [];
    this.#changedExecuted = [];
  }

  /** @throws Malformed for a key or value that `writeChanges` never wrote. */
  load(key: string, value: Uint8Array): void {
    this.#loading = true;
    if (key === FLOOR_KEY) {
      const reader = new Reader(value);
      this.#floor = reader.u53();
      reader.end();
    } else if (key.startsWith(CLIENT_SPACE)) {
      this.#loadClient(key, value);
    } else if (key.startsWith(SEQUENCE_SPACE)) {
      const { client, session: number, sequence } = parseSequenceKey(key);
      const session = this.session(client, number);
      if (!session) throw new Malformed("STORED_SEQUENCE");
      session.executed.set(sequence, readExecuted(session, sequence, value));
    } else {
      throw new Malformed("STORED_KEY");
    }
  }

  #loadClient(key: string, value: Uint8Array): void {
    const { client: id, session: number } = parseClientKey(key);
    if (number === null) {
      this.#clients.set(id, readClient(id, value));
      return;
    }
    const client = this.#clients.get(id);
    if (!client) throw new Malformed("STORED_SESSION");
    client.sessions.set(number, readSession(client, number, value));
  }

  /** Rebuilds the orders that entries do not come in: clients by last use, cached replies by age. */
  #finishLoading(): void {
    this.#loading = false;
    const clients = [...this.#clients.values()].sort((a, b) => a.lastMs - b.lastMs);
    this.#clients = new Map(clients.map((client) => [client.id, client]));
    for (const client of clients) {
      const replies: Executed[] = [];
      for (const session of client.sessions.values()) replies.push(...session.executed.values());
      replies.sort((a, b) => a.instance - b.instance || a.index - b.index);
      for (const executed of replies) link(executed);
    }
  }

  /** Forgets a client with all it holds; the floor rises to its highest session. */
  drop(client: Client): void {
    let highest = client.watermark;
    for (const session of client.sessions.values()) {
      highest = Math.max(highest, session.number);
      this.#removeSession(session);
    }
    if (highest > this.#floor) {
      this.#floor = highest;
      this.#floorDirty = true;
    }
    client.live = false;
    if (client.stored) this.#deletedKeys.push(clientKey(client));
    this.#clients.delete(client.id);
  }

  #removeSession(session: Session): void {
    for (const executed of session.executed.values()) this.#remove(executed);
    session.live = false;
    if (session.stored) this.#deletedKeys.push(sessionKey(session));
    session.client.sessions.delete(session.number);
  }

  #remove(executed: Executed): void {
    unlink(executed);
    executed.live = false;
    if (executed.stored) this.#deletedKeys.push(executedKey(executed));
    executed.session.executed.delete(executed.sequence);
  }

  #clientChanged(client: Client): void {
    if (client.dirty) return;
    client.dirty = true;
    this.#changedClients.push(client);
  }

  #sessionChanged(session: Session): void {
    if (session.dirty) return;
    session.dirty = true;
    this.#changedSessions.push(session);
  }

  #executedChanged(executed: Executed): void {
    if (executed.dirty) return;
    executed.dirty = true;
    this.#changedExecuted.push(executed);
  }
}

/** The records of a list of changes that are still there, marked as handed to the state. */
function* taken<T extends Tracked>(changed: readonly T[]): Generator<T> {
  for (const record of changed) {
    record.dirty = false;
    if (!record.live) continue;
    record.stored = true;
    yield record;
  }
}

/** Appends a reply that has bytes to its client's list as the newest. */
function link(executed: Executed): void {
  if (executed.result === null || executed.result.length === 0) return;
  const { client } = executed.session;
  executed.older = client.newest;
  if (client.newest) client.newest.newer = executed;
  else client.oldest = executed;
  client.newest = executed;
  client.cachedBytes += executed.result.length;
}

/** Takes a reply out of its client's list, if it is in it. */
function unlink(executed: Executed): void {
  if (executed.result === null || executed.result.length === 0) return;
  const { client } = executed.session;
  const { older, newer } = executed;
  if (older) older.newer = newer;
  else client.oldest = newer;
  if (newer) newer.older = older;
  else client.newest = older;
  executed.older = null;
  executed.newer = null;
  client.cachedBytes -= executed.result.length;
}
